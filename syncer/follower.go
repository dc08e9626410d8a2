package syncer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	psa "k8s.io/pod-security-admission/api"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/internal/connection"
	"github.com/virtualcluster-io/virtualcluster/internal/iprange"
	"github.com/virtualcluster-io/virtualcluster/internal/kubeconfig"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/engine"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/tenants"
)

type queue = workqueue.TypedRateLimitingInterface[ctrl.Request]

// credentialsAge is how often the kubeconfig of a connected tenant is read again although nothing happened.
const credentialsAge = 5 * time.Minute

// defaultDomain is the DNS domain of a cluster that names none.
const defaultDomain = "cluster.local"

// +kubebuilder:rbac:groups=tenancy.x-k8s.io,resources=virtualclusters,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=tenancy.x-k8s.io,resources=virtualclusters/status,verbs=patch
// +kubebuilder:rbac:groups="",resources=namespaces,verbs=get;list;watch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// follower connects the engine to the control plane of each VirtualCluster, and disconnects it.
type follower struct {
	client client.Client
	live   client.Reader
	inside bool
	// metadata is what the operator lets through.
	metadata []resource.Metadata
	// budget is what a tenant has whose VirtualCluster does not say otherwise.
	budget resource.Budget
	engine *engine.Engine

	contacts *contacts
	sharing  sharing

	mu        sync.Mutex
	connected map[types.NamespacedName]names.TenantID // guarded by mu
}

func newFollower(mgr manager.Manager, o Options, contacts *contacts) *follower {
	return &follower{
		client: mgr.GetClient(), live: mgr.GetAPIReader(), inside: o.Inside, metadata: o.Metadata, contacts: contacts,
		budget: o.Budget, sharing: sharing{shards: o.Shards},
		connected: map[types.NamespacedName]names.TenantID{},
	}
}

// virtualCluster finds the VirtualCluster of a connected tenant.
func (f *follower) virtualCluster(id names.TenantID) (types.NamespacedName, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for vc, connected := range f.connected {
		if connected == id {
			return vc, true
		}
	}
	return types.NamespacedName{}, false
}

// follow notes which tenant a VirtualCluster is, and drops the one it was before; an empty ID drops it.
func (f *follower) follow(vc types.NamespacedName, id names.TenantID) {
	f.mu.Lock()
	before := f.connected[vc]
	if id == "" {
		f.contacts.forget(vc)
		delete(f.connected, vc)
	} else {
		f.connected[vc] = id
	}
	f.mu.Unlock()
	if before != "" && before != id {
		f.engine.Tenants().Drop(before)
	}
}

// Reconcile implements reconcile.Reconciler.
func (f *follower) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var vc tenancyv1alpha1.VirtualCluster
	if err := f.client.Get(ctx, req.NamespacedName, &vc); err != nil {
		if apierrors.IsNotFound(err) {
			f.follow(req.NamespacedName, "")
			return ctrl.Result{}, nil
		}
		return ctrl.Result{}, fmt.Errorf("reading VirtualCluster %s: %w", req, err)
	}
	if !vc.DeletionTimestamp.IsZero() {
		f.follow(req.NamespacedName, "")
		return ctrl.Result{}, nil
	}
	id := names.Tenant(req.NamespacedName, vc.UID)
	if !f.sharing.owns(id) {
		f.elsewhere(req.NamespacedName, id)
		return ctrl.Result{}, nil
	}
	ctx = f.sharing.onBehalf(ctx, id)
	spec, err := f.spec(ctx, &vc)
	if err == nil && spec != nil {
		spec, err = f.current(ctx, &vc, spec)
	}
	if err != nil {
		return ctrl.Result{}, err
	}
	if spec == nil {
		return ctrl.Result{}, nil // its status will say when there is something to connect to
	}
	if connected, err := f.connect(req.NamespacedName, spec); err != nil || !connected {
		return ctrl.Result{}, err
	}
	t := f.engine.Tenants().Get(spec.Facts.ID)
	if err := f.release(ctx, &vc, t); err != nil {
		return ctrl.Result{}, err
	}
	if err := f.report(ctx, &vc, t); apierrors.IsConflict(err) {
		return ctrl.Result{}, nil // the change brings us back
	} else if err != nil {
		return ctrl.Result{}, err
	}
	return ctrl.Result{RequeueAfter: credentialsAge}, nil
}

// spec returns how to connect to the tenant, nil when that is not known yet.
func (f *follower) spec(ctx context.Context, vc *tenancyv1alpha1.VirtualCluster) (*tenants.Spec, error) {
	key := client.ObjectKeyFromObject(vc)
	external := vc.Spec.ControlPlane.Type == tenancyv1alpha1.External
	namespace, secretRef := vc.Status.ClusterNamespace, vc.Status.KubeconfigSecret
	if external && vc.Spec.ControlPlane.External != nil {
		namespace, secretRef = vc.Namespace, &vc.Spec.ControlPlane.External.KubeconfigSecret
	}
	if namespace == "" || secretRef == nil {
		return nil, nil
	}
	var secret corev1.Secret
	err := f.live.Get(ctx, types.NamespacedName{Namespace: namespace, Name: secretRef.Name}, &secret)
	if apierrors.IsNotFound(err) {
		return nil, nil // vc-manager reports it
	}
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig of VirtualCluster %s: %w", key, err)
	}
	data := secret.Data[secretKey(secretRef)]
	if internal := secret.Data[names.InternalKubeconfigKey]; f.inside && !external && len(internal) > 0 {
		data = internal
	}
	config, err := kubeconfig.RESTConfig(data)
	if err != nil {
		return nil, fmt.Errorf("the kubeconfig of VirtualCluster %s in Secret %s/%s cannot be used: %w", key, namespace, secretRef.Name, err)
	}
	f.sharing.fence(config, names.Tenant(key, vc.UID))
	spec := &tenants.Spec{
		Config: config,
		Facts: resource.Facts{
			ID:             names.Tenant(key, vc.UID),
			VirtualCluster: key, UID: vc.UID,
			ClusterDomain: vc.Spec.ClusterDomain,
			Transparent:   vc.Spec.TransparentMetaPrefixes, Opaque: vc.Spec.OpaqueMetaPrefixes,
			Metadata:  f.metadata,
			Disabled:  disabled(vc),
			Scheduler: vc.Spec.Scheduler.Enabled,
			Nodes:     nodeFacts(vc.Spec.Nodes),
		},
		Identity: types.UID(vc.Status.ControlPlaneUID),
		Memory:   memoryOf(vc),
		Budget:   budgetOf(f.budget, vc.Spec.Budget),
	}
	if spec.Facts.ClusterDomain == "" {
		spec.Facts.ClusterDomain = defaultDomain
	}
	ranges := vc.Status.ServiceCIDR
	if external { // its operator says which range it has
		ranges = vc.Spec.ServiceCIDR
	}
	for _, text := range append([]string{ranges}, vc.Status.AdditionalServiceCIDRs...) {
		parsed, err := iprange.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("reading the service ranges of VirtualCluster %s: %w", key, err)
		}
		spec.Facts.ServiceRanges = append(spec.Facts.ServiceRanges, parsed...)
	}
	if spec.Identity == "" {
		if !external {
			return nil, nil // vc-manager pins it
		}
		if spec.Identity, err = f.pin(ctx, vc, spec, data); err != nil || spec.Identity == "" {
			return nil, err
		}
	}
	if spec.Facts.PodSecurity, err = f.podSecurity(ctx, vc); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(fmt.Appendf(data, "\n%s\n%+v", spec.Identity, spec.Facts))
	spec.Hash = hex.EncodeToString(sum[:])
	return spec, nil
}

// podSecurity returns the Pod Security level that the admin gave the tenant's root namespace. A level that does not exist
// is as good as none.
func (f *follower) podSecurity(ctx context.Context, vc *tenancyv1alpha1.VirtualCluster) (psa.Level, error) {
	root := rootNamespace()
	err := f.client.Get(ctx, types.NamespacedName{Name: string(names.Tenant(client.ObjectKeyFromObject(vc), vc.UID))}, root)
	if err != nil && !apierrors.IsNotFound(err) {
		return "", fmt.Errorf("reading the root namespace of VirtualCluster %s/%s: %w", vc.Namespace, vc.Name, err)
	}
	value, ok := root.Labels[names.LabelPodSecurity]
	if !ok || root.Annotations[names.AnnotationVirtualClusterUID] != string(vc.UID) {
		return psa.LevelBaseline, nil
	}
	level, err := psa.ParseLevel(value)
	if err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "The root namespace has an unknown Pod Security level; baseline is enforced",
			"namespace", root.Name, "label", names.LabelPodSecurity, "value", value)
		return psa.LevelBaseline, nil
	}
	return level, nil
}

// nodeFacts says which nodes the tenant sees.
func nodeFacts(spec tenancyv1alpha1.NodesSpec) resource.NodeFacts {
	out := resource.NodeFacts{
		Used:         spec.Mode == tenancyv1alpha1.NodesUsed,
		HiddenTaints: spec.HiddenTaints, HiddenLabels: spec.HiddenLabels,
	}
	if spec.Selector == nil {
		return out
	}
	for _, key := range slices.Sorted(maps.Keys(spec.Selector.MatchLabels)) {
		out.Selector = append(out.Selector, corev1.NodeSelectorRequirement{
			Key: key, Operator: corev1.NodeSelectorOpIn, Values: []string{spec.Selector.MatchLabels[key]},
		})
	}
	for _, r := range spec.Selector.MatchExpressions { // the operators have the same names
		out.Selector = append(out.Selector, corev1.NodeSelectorRequirement{Key: r.Key, Operator: corev1.NodeSelectorOperator(r.Operator), Values: r.Values})
	}
	return out
}

// disabled names the kinds that are switched off.
func disabled(vc *tenancyv1alpha1.VirtualCluster) []string {
	var out []string
	for _, kind := range vc.Spec.Sync.Disabled {
		out = append(out, string(kind))
	}
	slices.Sort(out)
	return out
}

func secretKey(ref *tenancyv1alpha1.SecretKeyReference) string {
	if ref.Key == "" {
		return names.KubeconfigKey
	}
	return ref.Key
}

// pin records the identity of an external control plane at the first contact, so that the syncer can serve one without
// vc-manager. Whoever writes first wins. It is empty until the control plane has answered, which nobody waits for here.
func (f *follower) pin(ctx context.Context, vc *tenancyv1alpha1.VirtualCluster, spec *tenants.Spec, kubeconfig []byte) (types.UID, error) {
	sum := sha256.Sum256(fmt.Appendf(kubeconfig, "\n%s", vc.UID))
	uid, err := f.contacts.identity(client.ObjectKeyFromObject(vc), hex.EncodeToString(sum[:]), spec.Config)
	if err != nil {
		return "", fmt.Errorf("contacting the control plane of VirtualCluster %s/%s: %w", vc.Namespace, vc.Name, err)
	}
	if uid == "" {
		return "", nil
	}
	if len(uid) > connection.MaxText {
		return "", fmt.Errorf("contacting the control plane of VirtualCluster %s/%s: its identity has %d characters", vc.Namespace, vc.Name, len(uid))
	}
	before := vc.DeepCopy()
	vc.Status.ControlPlaneUID = string(uid)
	if vc.Status.ClusterNamespace == "" {
		vc.Status.ClusterNamespace = string(spec.Facts.ID)
	}
	if err := f.client.Status().Patch(ctx, vc, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); err != nil {
		return "", fmt.Errorf("recording the identity of VirtualCluster %s/%s: %w", vc.Namespace, vc.Name, err)
	}
	return uid, nil
}

// release goes on with a tenant that waits for a person, when one asked for it.
func (f *follower) release(ctx context.Context, vc *tenancyv1alpha1.VirtualCluster, t *tenants.Tenant) error {
	if _, asked := vc.Annotations[names.AnnotationReleaseBrake]; !asked || t == nil || t.State() == tenants.Connecting {
		return nil
	}
	if t.Memory().Halt != "" || f.engine.Braked(t) {
		f.engine.Release(t)
		return nil // the annotation stays until that is done
	}
	before := vc.DeepCopy()
	delete(vc.Annotations, names.AnnotationReleaseBrake)
	if err := f.client.Patch(ctx, vc, client.MergeFrom(before)); err != nil {
		return fmt.Errorf("removing the annotation that released the brake: %w", err)
	}
	return nil
}

// report writes what is the syncer's of the status: its conditions, and what is remembered of the tenant.
func (f *follower) report(ctx context.Context, vc *tenancyv1alpha1.VirtualCluster, t *tenants.Tenant) error {
	if t == nil {
		return nil
	}
	memory := t.Memory()
	memory.Braked = f.engine.Braked(t)
	held, count := f.engine.Held(t)
	sync := syncStatus(memory, held, count)
	want := []metav1.Condition{condition(t, memory.Braked), budgetCondition(f.engine.OverBudget(t))}
	same := true
	for i := range want {
		same = carry(vc, &want[i]) && same
	}
	if same && !worthStoring(vc.Status.Sync, sync) {
		t.Stored(memory.Record)
		return nil
	}
	status := tenancyv1alpha1.VirtualClusterStatus{Conditions: want, Sync: sync}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&status)
	if err != nil {
		return fmt.Errorf("encoding the status: %w", err)
	}
	patch := &unstructured.Unstructured{Object: map[string]any{"status": content}}
	patch.SetGroupVersionKind(tenancyv1alpha1.GroupVersion().WithKind("VirtualCluster"))
	patch.SetNamespace(vc.Namespace)
	patch.SetName(vc.Name)
	patch.SetUID(vc.UID)
	patch.SetResourceVersion(vc.ResourceVersion)                                                                    // a syncer that leads no more must not bring back what it remembers
	err = f.client.Status().Patch(ctx, patch, client.Apply, client.FieldOwner(names.Syncer), client.ForceOwnership) //nolint:staticcheck // the typed Apply needs generated apply configurations
	if err != nil {
		return fmt.Errorf("reporting conditions: %w", err)
	}
	f.tellBudget(ctx, vc, &want[1])
	t.Stored(memory.Record)
	return nil
}

// carry completes a condition with what the status has of it, and says whether it is the same.
func carry(vc *tenancyv1alpha1.VirtualCluster, want *metav1.Condition) bool {
	want.ObservedGeneration = vc.Generation
	want.LastTransitionTime = metav1.Now()
	have := apimeta.FindStatusCondition(vc.Status.Conditions, want.Type)
	if have == nil {
		return false
	}
	if have.Status == want.Status {
		want.LastTransitionTime = have.LastTransitionTime
	}
	return have.Status == want.Status && have.Reason == want.Reason && have.Message == want.Message &&
		have.ObservedGeneration == want.ObservedGeneration
}

// reasonStale says that the syncer serves a tenant on caches of which one is not kept current.
const reasonStale = "Stale"

// condition says how the syncer serves the tenant.
func condition(t *tenants.Tenant, braked bool) metav1.Condition {
	c := metav1.Condition{Type: tenancyv1alpha1.ConditionSyncing, Reason: string(t.State()), Message: t.Message(), Status: metav1.ConditionFalse}
	switch {
	case t.State().Halted():
		c.Message += "; nothing is synchronised until a person decides: kubectl vc held lists what would be deleted, kubectl vc release goes on"
	case t.State() != tenants.Synced:
	case t.Stale() && !braked:
		c.Reason = reasonStale
	case braked:
		c.Reason = string(tenancyv1alpha1.HaltDeletionBrake)
		c.Message = "Objects disappeared from the control plane and nothing tells whether they were deleted; " +
			"their deletion in the super cluster is held back: kubectl vc held lists them, kubectl vc release lets it happen"
	default:
		c.Status = metav1.ConditionTrue
	}
	return c
}
