package syncer

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/source"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/engine"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/resources/custom"
	"github.com/virtualcluster-io/virtualcluster/syncer/shards"
)

// When a policy is looked at again although nothing happened.
const (
	policySettled = time.Minute
	policyMoving  = 2 * time.Second
	policyEnding  = 250 * time.Millisecond
)

// holdPolicies keeps what custom resources may refer to until all policies have been read once.
const holdPolicies = "sync policies"

// +kubebuilder:rbac:groups=tenancy.x-k8s.io,resources=syncpolicies,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=tenancy.x-k8s.io,resources=syncpolicies/status,verbs=patch
// +kubebuilder:rbac:groups=apiextensions.k8s.io,resources=customresourcedefinitions,verbs=get;list;watch

// policies offers custom resources to tenants as the SyncPolicies say.
type policies struct {
	client client.Client
	live   client.Reader
	engine *engine.Engine
	kinds  custom.Kinds
	// sharing says whether this replica writes about policies.
	sharing *sharing

	mu        sync.Mutex
	offers    map[string]string // guarded by mu: the resource that each policy offers, by its name
	evaluated sets.Set[string]  // guarded by mu: policies that were looked at
	waited    sets.Set[string]  // guarded by mu: policies that the start waits for, nil before they are known
}

// setupPolicies adds the controller of SyncPolicies to a manager. It is told on a channel which kinds made progress.
func setupPolicies(mgr manager.Manager, e *engine.Engine, kinds []resource.Kind, sharing *sharing, progress <-chan event.TypedGenericEvent[string]) error {
	p := &policies{
		client: mgr.GetClient(), live: mgr.GetAPIReader(), engine: e, kinds: builtIn(kinds), sharing: sharing,
		offers: map[string]string{}, evaluated: sets.New[string](),
	}
	e.Hold(holdPolicies)
	if err := mgr.Add(manager.RunnableFunc(p.await)); err != nil {
		return fmt.Errorf("adding the start of the policies to the manager: %w", err)
	}
	definition := &metav1.PartialObjectMetadata{}
	definition.SetGroupVersionKind(custom.CRD())
	byResource := handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, o client.Object) []ctrl.Request {
		resource := o.GetName()
		if policy, ok := o.(*tenancyv1alpha1.SyncPolicy); ok {
			resource = policy.Spec.Resource
		}
		return p.requests(ctx, func(p *tenancyv1alpha1.SyncPolicy) bool { return p.Spec.Resource == resource })
	})
	all := handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, _ client.Object) []ctrl.Request {
		return p.requests(ctx, func(*tenancyv1alpha1.SyncPolicy) bool { return true })
	})
	enqueue := handler.TypedFuncs[string, ctrl.Request]{
		GenericFunc: func(ctx context.Context, e event.TypedGenericEvent[string], q queue) {
			for _, r := range p.requests(ctx, func(p *tenancyv1alpha1.SyncPolicy) bool {
				return e.Object == p.Spec.Resource || e.Object == custom.DefinitionKind(p.Spec.Resource)
			}) {
				q.Add(r)
			}
		},
	}
	err := ctrl.NewControllerManagedBy(mgr).
		Named("sync-policies").
		For(&tenancyv1alpha1.SyncPolicy{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&tenancyv1alpha1.SyncPolicy{}, byResource, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&tenancyv1alpha1.VirtualCluster{}, all, builder.WithPredicates(predicate.LabelChangedPredicate{})).
		WatchesMetadata(definition, byResource).
		WatchesRawSource(source.TypedChannel(progress, enqueue)).
		Complete(p)
	if err != nil {
		return fmt.Errorf("creating the controller of SyncPolicies: %w", err)
	}
	return nil
}

// builtIn names the kinds that are synchronised always.
func builtIn(kinds []resource.Kind) custom.Kinds {
	byKind := map[schema.GroupKind]string{}
	for _, k := range kinds {
		if !k.SuperOnly {
			byKind[k.GVK.GroupKind()] = k.Name
		}
	}
	return func(k schema.GroupKind) (string, bool) {
		name, ok := byKind[k]
		return name, ok
	}
}

// requests returns the policies that match.
func (p *policies) requests(ctx context.Context, match func(*tenancyv1alpha1.SyncPolicy) bool) []ctrl.Request {
	var list tenancyv1alpha1.SyncPolicyList
	if err := p.client.List(ctx, &list); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Cannot list SyncPolicies")
		return nil // each is looked at now and then
	}
	var out []ctrl.Request
	for i := range list.Items {
		if match(&list.Items[i]) {
			out = append(out, ctrl.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
	}
	return out
}

// await finds out which policies have to be looked at before what custom resources refer to is known.
func (p *policies) await(ctx context.Context) error {
	var list tenancyv1alpha1.SyncPolicyList
	if err := p.client.List(ctx, &list); err != nil {
		return fmt.Errorf("listing SyncPolicies: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waited = sets.New[string]()
	for i := range list.Items {
		p.waited.Insert(list.Items[i].Name)
	}
	p.release()
	return nil
}

// release lets go of what custom resources may refer to, once all policies were looked at. The caller holds p.mu.
func (p *policies) release() {
	if p.waited != nil && p.evaluated.IsSuperset(p.waited) {
		p.engine.Unhold(holdPolicies)
	}
}

// errUnmarked says that nothing would remove the replicas if the policy were deleted: the replica of vc-syncer that marks policies
// has not done so yet.
var errUnmarked = errors.New("the policy has no finalizer yet")

// Reconcile implements reconcile.Reconciler.
func (p *policies) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	result, err := p.reconcile(p.sharing.forAll(ctx), req)
	if errors.Is(err, errUnmarked) {
		return ctrl.Result{RequeueAfter: policyEnding}, nil
	}
	if err == nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.evaluated.Insert(req.Name)
		p.release()
	}
	return result, err
}

func (p *policies) reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	policy := &tenancyv1alpha1.SyncPolicy{}
	if err := p.client.Get(ctx, req.NamespacedName, policy); err != nil {
		if apierrors.IsNotFound(err) {
			p.retract(req.Name)
			return ctrl.Result{}, nil
		}
		return ctrl.Result{}, fmt.Errorf("reading SyncPolicy %s: %w", req.Name, err)
	}
	ending := !policy.DeletionTimestamp.IsZero()
	if ending && !controllerutil.ContainsFinalizer(policy, names.FinalizerReplicas) {
		p.retract(req.Name)
		return ctrl.Result{}, nil
	}
	c, err := p.read(ctx, policy)
	var problem *custom.Problem
	switch {
	case errors.As(err, &problem):
		p.retract(req.Name)
		if problem.Reason == tenancyv1alpha1.ReasonForbidden {
			p.engine.Hold(req.Name) // its objects exist, but cannot be seen
		} else if ending && p.sharing.leads() {
			return ctrl.Result{}, p.finish(ctx, policy)
		}
		return ctrl.Result{RequeueAfter: policySettled / 2}, p.report(ctx, policy, problem.Reason, problem.Message, nil)
	case err != nil:
		return ctrl.Result{}, err
	}
	var to sets.Set[names.TenantID]
	if !ending {
		if to, err = p.selected(ctx, policy); err != nil {
			return ctrl.Result{}, err
		}
		if !p.sharing.leads() && !controllerutil.ContainsFinalizer(policy, names.FinalizerReplicas) {
			return ctrl.Result{}, errUnmarked
		}
		if controllerutil.AddFinalizer(policy, names.FinalizerReplicas) {
			if err := p.patch(ctx, policy); err != nil {
				return ctrl.Result{}, err
			}
		}
	}
	if err := p.offer(policy, c, to); err != nil {
		return ctrl.Result{}, err
	}
	if ending {
		left, known := p.engine.Left(c.Objects.Name)
		if p.sharing.done(policy, known && left == 0) {
			p.retract(req.Name)
			return ctrl.Result{}, p.finish(ctx, policy)
		}
		return ctrl.Result{RequeueAfter: policyEnding}, p.report(ctx, policy, tenancyv1alpha1.ReasonEnding, "the replicas of tenants' objects are being removed", c)
	}
	reason, message := p.progress(policy)
	after := policySettled
	if reason == tenancyv1alpha1.ReasonStarting {
		after = policyMoving
	}
	if c.Note != "" {
		message += "; " + c.Note
	}
	return ctrl.Result{RequeueAfter: after}, p.report(ctx, policy, reason, message, c)
}

// read reads the policy together with what it is about. The error is a custom.Problem when the admin can do something
// about it.
func (p *policies) read(ctx context.Context, policy *tenancyv1alpha1.SyncPolicy) (*custom.Custom, error) {
	if err := p.first(ctx, policy); err != nil {
		return nil, err
	}
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(custom.CRD())
	if err := p.live.Get(ctx, types.NamespacedName{Name: policy.Spec.Resource}, u); err != nil {
		if apierrors.IsNotFound(err) {
			return nil, &custom.Problem{Reason: tenancyv1alpha1.ReasonCRDNotFound, Message: "the super cluster has no CustomResourceDefinition " + policy.Spec.Resource}
		}
		return nil, fmt.Errorf("reading CustomResourceDefinition %s: %w", policy.Spec.Resource, err)
	}
	c, err := custom.New(policy, u, p.kinds)
	if err != nil {
		return nil, err
	}
	return c, p.allowed(ctx, policy, c)
}

// first says whether the policy is the one that counts for its resource.
func (p *policies) first(ctx context.Context, policy *tenancyv1alpha1.SyncPolicy) error {
	var list tenancyv1alpha1.SyncPolicyList
	if err := p.client.List(ctx, &list); err != nil {
		return fmt.Errorf("listing SyncPolicies: %w", err)
	}
	for i := range list.Items {
		other := &list.Items[i]
		if other.Spec.Resource != policy.Spec.Resource || other.UID == policy.UID {
			continue
		}
		before := other.CreationTimestamp.Compare(policy.CreationTimestamp.Time)
		if before < 0 || before == 0 && other.Name < policy.Name {
			return &custom.Problem{Reason: tenancyv1alpha1.ReasonConflict, Message: fmt.Sprintf("SyncPolicy %s, which is older, offers %s; only one can", other.Name, policy.Spec.Resource)}
		}
	}
	return nil
}

// allowed says whether the syncer has the rights that it needs in the super cluster.
func (p *policies) allowed(ctx context.Context, policy *tenancyv1alpha1.SyncPolicy, c *custom.Custom) error {
	verbs := []string{"get", "list", "watch"}
	if policy.Spec.Direction == tenancyv1alpha1.ToSuper {
		verbs = append(verbs, "create", "patch", "delete")
	}
	for _, verb := range verbs {
		review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
			ResourceAttributes: &authorizationv1.ResourceAttributes{Group: c.Objects.GVK.Group, Resource: c.Objects.Plural, Verb: verb},
		}}
		if err := p.client.Create(shards.Unfenced(ctx), review); err != nil {
			return fmt.Errorf("asking for the right to %s %s: %w", verb, policy.Spec.Resource, err)
		}
		if !review.Status.Allowed {
			return &custom.Problem{Reason: tenancyv1alpha1.ReasonForbidden, Message: fmt.Sprintf(
				"the syncer has no right to %s %s: create a ClusterRole labelled %s=true with the rule {apiGroups: [%s], resources: [%s], verbs: [%s]}",
				verb, policy.Spec.Resource, names.LabelAggregateToSyncer, c.Objects.GVK.Group, c.Objects.Plural, strings.Join(verbs, ", "))}
		}
	}
	return nil
}

// selected returns the tenants that the policy is for, connected or not.
func (p *policies) selected(ctx context.Context, policy *tenancyv1alpha1.SyncPolicy) (sets.Set[names.TenantID], error) {
	selector := labels.Everything()
	if policy.Spec.Tenants != nil {
		var err error
		if selector, err = metav1.LabelSelectorAsSelector(policy.Spec.Tenants); err != nil {
			return nil, fmt.Errorf("reading spec.tenants of SyncPolicy %s: %w", policy.Name, err)
		}
	}
	var list tenancyv1alpha1.VirtualClusterList
	if err := p.client.List(ctx, &list, client.MatchingLabelsSelector{Selector: selector}); err != nil {
		return nil, fmt.Errorf("listing VirtualClusters: %w", err)
	}
	out := sets.New[names.TenantID]()
	for i := range list.Items {
		out.Insert(names.Tenant(client.ObjectKeyFromObject(&list.Items[i]), list.Items[i].UID))
	}
	return out, nil
}

func (p *policies) offer(policy *tenancyv1alpha1.SyncPolicy, c *custom.Custom, to sets.Set[names.TenantID]) error {
	p.mu.Lock()
	p.offers[policy.Name] = policy.Spec.Resource
	p.mu.Unlock()
	err := p.engine.SetDynamic(
		engine.DynamicKind{Kind: c.Definition, Hash: c.DefinitionHash, To: to},
		engine.DynamicKind{Kind: c.Objects, Hash: c.ObjectsHash, To: to},
	)
	if err != nil {
		return fmt.Errorf("offering %s: %w", policy.Spec.Resource, err)
	}
	p.engine.Unhold(policy.Name)
	return nil
}

// retract stops what the policy had started.
func (p *policies) retract(policy string) {
	p.mu.Lock()
	resource, offered := p.offers[policy]
	delete(p.offers, policy)
	p.mu.Unlock()
	p.sharing.forget(policy)
	if offered {
		p.engine.RemoveDynamic(resource, custom.DefinitionKind(resource))
	}
	p.engine.Unhold(policy)
}

// progress says how far the tenants are.
func (p *policies) progress(policy *tenancyv1alpha1.SyncPolicy) (reason, message string) {
	steps := p.engine.Progress(policy.Spec.Resource)
	count := map[engine.Progress]int{}
	for _, step := range steps {
		count[step]++
	}
	p.sharing.addUp(policy, count)
	policy.Status.Tenants, policy.Status.Serving = int32(len(steps)), int32(count[engine.Serving]) //nolint:gosec // no more tenants than that
	switch {
	case count[engine.Pending] > 0:
		return tenancyv1alpha1.ReasonStarting, fmt.Sprintf("%d of %d tenants do not serve it yet, or are not connected", count[engine.Pending], len(steps))
	case count[engine.Refused] > 0:
		return tenancyv1alpha1.ReasonDefinedByTenant, fmt.Sprintf("%d of %d tenants have a CustomResourceDefinition of their own of that name, which is left as it is", count[engine.Refused], len(steps))
	default:
		return tenancyv1alpha1.ReasonServing, fmt.Sprintf("synchronised with %d tenants", len(steps))
	}
}

// report writes the status if it changed.
func (p *policies) report(ctx context.Context, policy *tenancyv1alpha1.SyncPolicy, reason, message string, c *custom.Custom) error {
	if !p.sharing.leads() {
		return nil
	}
	status := policy.Status
	before := &tenancyv1alpha1.SyncPolicy{}
	if err := p.client.Get(ctx, client.ObjectKeyFromObject(policy), before); err != nil {
		return client.IgnoreNotFound(err)
	}
	after := before.DeepCopy()
	after.Status.ObservedGeneration = policy.Generation
	after.Status.Tenants, after.Status.Serving = status.Tenants, status.Serving
	ready := metav1.ConditionFalse
	switch {
	case c == nil:
		after.Status.Version, after.Status.Tenants, after.Status.Serving = "", 0, 0
	case reason == tenancyv1alpha1.ReasonServing || reason == tenancyv1alpha1.ReasonDefinedByTenant:
		ready = metav1.ConditionTrue
		fallthrough
	default:
		after.Status.Version = c.Version
	}
	apimeta.SetStatusCondition(&after.Status.Conditions, metav1.Condition{
		Type: tenancyv1alpha1.ConditionReady, Status: ready, Reason: reason, Message: message, ObservedGeneration: policy.Generation,
	})
	if equality.Semantic.DeepEqual(before.Status, after.Status) {
		return nil
	}
	if err := p.client.Status().Patch(ctx, after, client.MergeFrom(before)); err != nil {
		return client.IgnoreNotFound(fmt.Errorf("writing the status of SyncPolicy %s: %w", policy.Name, err))
	}
	return nil
}

// finish lets the policy go.
func (p *policies) finish(ctx context.Context, policy *tenancyv1alpha1.SyncPolicy) error {
	controllerutil.RemoveFinalizer(policy, names.FinalizerReplicas)
	return client.IgnoreNotFound(p.patch(ctx, policy))
}

// patch writes the finalizers of a policy.
func (p *policies) patch(ctx context.Context, policy *tenancyv1alpha1.SyncPolicy) error {
	before := &tenancyv1alpha1.SyncPolicy{}
	if err := p.client.Get(ctx, client.ObjectKeyFromObject(policy), before); err != nil {
		return err
	}
	if err := p.client.Patch(ctx, policy, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); err != nil {
		return fmt.Errorf("writing the finalizers of SyncPolicy %s: %w", policy.Name, err)
	}
	return nil
}
