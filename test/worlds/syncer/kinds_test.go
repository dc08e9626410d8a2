package syncer_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	policyv1 "k8s.io/api/policy/v1"
	resourcev1 "k8s.io/api/resource/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	psa "k8s.io/pod-security-admission/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/resources"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

// Names of the objects that the life of a kind is tested with.
const (
	lives = "kind-lives"
	taken = "kind-taken"
)

// kindCase is what the test of a kind's life needs to know about the kind.
type kindCase struct {
	// prepare makes what the objects need; nil for nothing.
	prepare func(t *testing.T, r *running, of tenant, namespace string)
	// build returns an object of the origin's side, without name and namespace.
	build func(of tenant, namespace string) client.Object
	// change is what the owner of the origin does to it, drift what somebody does to the replica. Nil: nothing that matters
	// can be changed.
	change, drift func(client.Object)
	// endsWithReplica says that the origin is deleted when somebody deletes the replica.
	endsWithReplica bool
	// view returns what a replica must have; want what it must have for an origin, nil for the same.
	view func(client.Object) any
	want func(of tenant, origin client.Object) any
}

// life is a kindCase whose functions know the type.
type life[T client.Object] struct {
	prepare       func(t *testing.T, r *running, of tenant, namespace string)
	build         func(of tenant, namespace string) T
	change, drift func(T)

	endsWithReplica bool

	view func(T) any
	want func(of tenant, origin T) any
}

func of[T client.Object](l life[T]) kindCase {
	cast := func(o client.Object) T {
		out, _ := o.(T)
		return out
	}
	apply := func(f func(T)) func(client.Object) {
		if f == nil {
			return nil
		}
		return func(o client.Object) { f(cast(o)) }
	}
	c := kindCase{
		prepare: l.prepare,
		build:   func(of tenant, namespace string) client.Object { return l.build(of, namespace) },
		change:  apply(l.change), drift: apply(l.drift), endsWithReplica: l.endsWithReplica,
		view: func(o client.Object) any { return l.view(cast(o)) },
	}
	if l.want != nil {
		c.want = func(of tenant, o client.Object) any { return l.want(of, cast(o)) }
	}
	return c
}

// testedElsewhere says why a kind has no case.
func testedElsewhere() map[string]string {
	return map[string]string{
		"events":       "they are recorded, not replicated: TestEventsReachTheTenant",
		"otherpods":    "only counted: TestOwnSchedulerAssignsNodes",
		"rolebindings": "made with namespaces: TestNamespaces",
		"tokens":       "made with pods: TestPodsHoldTokensOfTheTenant",
	}
}

// used makes a pod that refers to a ConfigMap, Secret and service account of both names.
func used(t *testing.T, _ *running, of tenant, namespace string) {
	t.Helper()
	for _, name := range []string{lives, taken} {
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if _, err := of.CoreV1().ServiceAccounts(namespace).Create(t.Context(), account, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		pod := worlds.Pod(namespace, "user-of-"+name)
		pod.Spec.ServiceAccountName = name
		pod.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{
			{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: name}}},
			{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: name}}},
		}
		of.world.MakePod(t, pod)
		if err := of.CoreV1().ServiceAccounts(namespace).Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

// label changes nothing but a label, of objects whose spec cannot be changed.
func label[T client.Object](value string) func(T) {
	return func(o T) {
		labels := o.GetLabels()
		if labels == nil {
			labels = map[string]string{}
		}
		labels["kind-life"] = value
		o.SetLabels(labels)
	}
}

func labelOf[T client.Object](o T) any { return o.GetLabels()["kind-life"] }

func kindCases() map[string]kindCase {
	yes, no := true, false
	class := "kind-life"
	capacity := func(size string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceStorage: apiresource.MustParse(size)}
	}
	modes := []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	selector := &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}
	return map[string]kindCase{
		"namespaces": of(life[*corev1.Namespace]{
			build: func(tenant, string) *corev1.Namespace { return &corev1.Namespace{} },
			drift: func(o *corev1.Namespace) { delete(o.Labels, psa.EnforceLevelLabel) },
			view:  func(o *corev1.Namespace) any { return o.Labels[psa.EnforceLevelLabel] },
			want:  func(tenant, *corev1.Namespace) any { return "baseline" },
		}),
		"pods": of(life[*corev1.Pod]{
			build:  func(tenant, string) *corev1.Pod { return worlds.Pod("", "") },
			change: func(o *corev1.Pod) { o.Spec.Containers[0].Image = "registry.k8s.io/pause:3.9" },
			drift:  func(o *corev1.Pod) { o.Spec.Containers[0].Image = "example.com/evil" },
			view:   func(o *corev1.Pod) any { return o.Spec.Containers[0].Image },

			endsWithReplica: true, // TestPodDeletion
		}),
		"services": of(life[*corev1.Service]{
			build:  func(tenant, string) *corev1.Service { return worlds.Service("", "") },
			change: func(o *corev1.Service) { o.Spec.Ports[0].Port = 8080 },
			drift:  func(o *corev1.Service) { o.Spec.Selector = map[string]string{"app": "other"} },
			view:   func(o *corev1.Service) any { return []any{o.Spec.Ports[0].Port, o.Spec.Selector} },
		}),
		"endpointslices": of(life[*discoveryv1.EndpointSlice]{
			prepare: func(t *testing.T, _ *running, of tenant, namespace string) {
				t.Helper()
				outside := worlds.Service(namespace, "outside")
				outside.Spec.Selector = nil
				if _, err := of.CoreV1().Services(namespace).Create(t.Context(), outside, metav1.CreateOptions{}); err != nil {
					t.Fatal(err)
				}
			},
			build: func(tenant, string) *discoveryv1.EndpointSlice {
				return &discoveryv1.EndpointSlice{
					ObjectMeta:  metav1.ObjectMeta{Labels: map[string]string{discoveryv1.LabelServiceName: "outside"}},
					AddressType: discoveryv1.AddressTypeIPv4, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"203.0.113.9"}}},
				}
			},
			change: func(o *discoveryv1.EndpointSlice) { o.Endpoints[0].Addresses = []string{"203.0.113.10"} },
			drift:  func(o *discoveryv1.EndpointSlice) { o.Endpoints = nil },
			view:   func(o *discoveryv1.EndpointSlice) any { return o.Endpoints },
		}),
		"configmaps": of(life[*corev1.ConfigMap]{
			prepare: used,
			build:   func(tenant, string) *corev1.ConfigMap { return &corev1.ConfigMap{Data: map[string]string{"a": "1"}} },
			change:  func(o *corev1.ConfigMap) { o.Data = map[string]string{"b": "2"} },
			drift:   func(o *corev1.ConfigMap) { o.Data = map[string]string{"c": "3"} },
			view:    func(o *corev1.ConfigMap) any { return o.Data },
		}),
		"secrets": of(life[*corev1.Secret]{
			prepare: used,
			build:   func(tenant, string) *corev1.Secret { return &corev1.Secret{Data: map[string][]byte{"a": []byte("1")}} },
			change:  func(o *corev1.Secret) { o.Data = map[string][]byte{"b": []byte("2")} },
			drift:   func(o *corev1.Secret) { o.Data = map[string][]byte{"c": []byte("3")} },
			view:    func(o *corev1.Secret) any { return o.Data },
		}),
		"serviceaccounts": of(life[*corev1.ServiceAccount]{
			prepare: used,
			build:   func(tenant, string) *corev1.ServiceAccount { return &corev1.ServiceAccount{} },
			change:  label[*corev1.ServiceAccount]("changed"),
			drift:   func(o *corev1.ServiceAccount) { o.AutomountServiceAccountToken = &yes },
			view:    func(o *corev1.ServiceAccount) any { return []any{labelOf(o), o.AutomountServiceAccountToken} },
			want:    func(_ tenant, o *corev1.ServiceAccount) any { return []any{labelOf(o), &no} },
		}),
		"persistentvolumeclaims": of(life[*corev1.PersistentVolumeClaim]{
			build: func(tenant, string) *corev1.PersistentVolumeClaim {
				return &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{
					AccessModes: modes, StorageClassName: &class, Resources: corev1.VolumeResourceRequirements{Requests: capacity("1Gi")},
				}}
			},
			change: label[*corev1.PersistentVolumeClaim]("changed"),
			drift:  label[*corev1.PersistentVolumeClaim]("drifted"),
			view:   labelOf[*corev1.PersistentVolumeClaim],
		}),
		"ingresses": of(life[*networkingv1.Ingress]{
			prepare: func(t *testing.T, r *running, of tenant, namespace string) {
				t.Helper()
				r.ingressClass(t, of, "ingress-life")
				if _, err := of.CoreV1().Services(namespace).Create(t.Context(), worlds.Service(namespace, "web"), metav1.CreateOptions{}); err != nil {
					t.Fatal(err)
				}
			},
			build: func(tenant, string) *networkingv1.Ingress {
				name := "ingress-life"
				return &networkingv1.Ingress{Spec: networkingv1.IngressSpec{IngressClassName: &name, DefaultBackend: backend("web", 80)}}
			},
			change: func(o *networkingv1.Ingress) { o.Spec.DefaultBackend = backend("web", 81) },
			drift:  func(o *networkingv1.Ingress) { o.Spec.DefaultBackend = backend("evil", 80) },
			view:   func(o *networkingv1.Ingress) any { return o.Spec },
		}),
		"networkpolicies": of(life[*networkingv1.NetworkPolicy]{
			build: func(tenant, string) *networkingv1.NetworkPolicy {
				return &networkingv1.NetworkPolicy{Spec: networkingv1.NetworkPolicySpec{
					PodSelector: *selector, PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
				}}
			},
			change: func(o *networkingv1.NetworkPolicy) {
				o.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{PodSelector: selector}}}}
			},
			drift: func(o *networkingv1.NetworkPolicy) { o.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{}} },
			view:  func(o *networkingv1.NetworkPolicy) any { return o.Spec },
		}),
		"poddisruptionbudgets": of(life[*policyv1.PodDisruptionBudget]{
			build: func(tenant, string) *policyv1.PodDisruptionBudget {
				return &policyv1.PodDisruptionBudget{Spec: policyv1.PodDisruptionBudgetSpec{Selector: selector, MinAvailable: new(intstr.FromInt32(2))}}
			},
			change: func(o *policyv1.PodDisruptionBudget) { o.Spec.MinAvailable = new(intstr.FromInt32(1)) },
			drift:  func(o *policyv1.PodDisruptionBudget) { o.Spec.MinAvailable = new(intstr.FromInt32(0)) },
			view:   func(o *policyv1.PodDisruptionBudget) any { return o.Spec },
		}),
		"resourceclaims": of(life[*resourcev1.ResourceClaim]{
			prepare: func(t *testing.T, r *running, of tenant, namespace string) {
				t.Helper()
				r.deviceClass(t, of, "claim-life", "")
				for _, name := range []string{lives, taken} {
					of.world.MakePod(t, claimingPod(namespace, "user-of-"+name, corev1.PodResourceClaim{ResourceClaimName: &name}))
				}
			},
			build:  func(tenant, string) *resourcev1.ResourceClaim { return deviceClaim("", "", "claim-life") },
			change: label[*resourcev1.ResourceClaim]("changed"),
			drift:  label[*resourcev1.ResourceClaim]("drifted"),
			view:   func(o *resourcev1.ResourceClaim) any { return []any{o.Spec, labelOf(o)} },
		}),

		// From here on the super cluster's are the truth.
		"nodes": of(life[*corev1.Node]{
			build:  func(tenant, string) *corev1.Node { return &corev1.Node{} },
			change: label[*corev1.Node]("changed"),
			drift:  label[*corev1.Node]("drifted"),
			view:   labelOf[*corev1.Node],
		}),
		"persistentvolumes": of(life[*corev1.PersistentVolume]{
			prepare: func(t *testing.T, r *running, of tenant, namespace string) {
				t.Helper()
				// It asks for more than the volume has, so that the tenant does not bind it, which would protect the volume.
				claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "claim"}, Spec: corev1.PersistentVolumeClaimSpec{
					AccessModes: modes, StorageClassName: &class, Resources: corev1.VolumeResourceRequirements{Requests: capacity("1Ti")},
				}}
				if _, err := of.CoreV1().PersistentVolumeClaims(namespace).Create(t.Context(), claim, metav1.CreateOptions{}); err != nil {
					t.Fatal(err)
				}
				worlds.Eventually(t, limit, "the claim in the super cluster", func(ctx context.Context) error {
					return r.client.Get(ctx, client.ObjectKey{Namespace: of.super(namespace), Name: "claim"}, &corev1.PersistentVolumeClaim{})
				})
			},
			build: func(of tenant, namespace string) *corev1.PersistentVolume {
				return &corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{
					Capacity: capacity("1Gi"), AccessModes: modes, StorageClassName: class, PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
					ClaimRef:               &corev1.ObjectReference{APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: of.super(namespace), Name: "claim"},
					PersistentVolumeSource: corev1.PersistentVolumeSource{NFS: &corev1.NFSVolumeSource{Server: "nfs.example.com", Path: "/secret"}},
				}}
			},
			change: func(o *corev1.PersistentVolume) { o.Spec.Capacity = capacity("2Gi") },
			drift:  func(o *corev1.PersistentVolume) { o.Spec.Capacity = capacity("3Gi") },
			view:   func(o *corev1.PersistentVolume) any { return o.Spec.Capacity.Storage().String() },
		}),
		"storageclasses": of(life[*storagev1.StorageClass]{
			build: func(tenant, string) *storagev1.StorageClass {
				return &storagev1.StorageClass{Provisioner: "csi.example.com"}
			},
			change: func(o *storagev1.StorageClass) { o.AllowVolumeExpansion = &yes },
			drift:  func(o *storagev1.StorageClass) { o.AllowVolumeExpansion = &no },
			view:   func(o *storagev1.StorageClass) any { return []any{o.Provisioner, o.AllowVolumeExpansion} },
		}),
		"volumeattributesclasses": of(life[*storagev1.VolumeAttributesClass]{
			build: func(tenant, string) *storagev1.VolumeAttributesClass {
				return &storagev1.VolumeAttributesClass{DriverName: storageDriver, Parameters: map[string]string{"iops": "4000"}}
			},
			view: func(o *storagev1.VolumeAttributesClass) any { return []any{o.DriverName, o.Parameters} },
		}),
		"ingressclasses": of(life[*networkingv1.IngressClass]{
			build: func(tenant, string) *networkingv1.IngressClass {
				return &networkingv1.IngressClass{Spec: networkingv1.IngressClassSpec{Controller: "example.com/controller"}}
			},
			change: func(o *networkingv1.IngressClass) {
				o.Annotations = map[string]string{networkingv1.AnnotationIsDefaultIngressClass: "false"}
			},
			drift: func(o *networkingv1.IngressClass) {
				o.Annotations[networkingv1.AnnotationIsDefaultIngressClass] = "true"
				o.Spec.Parameters = &networkingv1.IngressClassParametersReference{Kind: "Config", Name: "mine", Scope: new("Cluster")}
			},
			view: func(o *networkingv1.IngressClass) any {
				return []any{o.Spec, o.Annotations[networkingv1.AnnotationIsDefaultIngressClass]}
			},
		}),
		"priorityclasses": of(life[*schedulingv1.PriorityClass]{
			build: func(tenant, string) *schedulingv1.PriorityClass {
				return &schedulingv1.PriorityClass{
					ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{names.LabelPublic: "true"}}, Value: 1000,
				}
			},
			change: func(o *schedulingv1.PriorityClass) { o.Description = "changed" },
			drift:  func(o *schedulingv1.PriorityClass) { o.GlobalDefault = true },
			view:   func(o *schedulingv1.PriorityClass) any { return []any{o.Value, o.Description, o.GlobalDefault} },
		}),
		"deviceclasses": of(life[*resourcev1.DeviceClass]{
			build: func(tenant, string) *resourcev1.DeviceClass { return &resourcev1.DeviceClass{} },
			change: func(o *resourcev1.DeviceClass) {
				o.Spec.Selectors = []resourcev1.DeviceSelector{{CEL: &resourcev1.CELDeviceSelector{Expression: "true"}}}
			},
			drift: func(o *resourcev1.DeviceClass) { o.Spec.Selectors = nil },
			view:  func(o *resourcev1.DeviceClass) any { return o.Spec },
		}),
		"runtimeclasses": of(life[*nodev1.RuntimeClass]{
			build: func(tenant, string) *nodev1.RuntimeClass { return &nodev1.RuntimeClass{Handler: "kata"} },
			change: func(o *nodev1.RuntimeClass) {
				o.Scheduling = &nodev1.Scheduling{NodeSelector: map[string]string{"kata": "true"}}
			},
			drift: func(o *nodev1.RuntimeClass) { o.Scheduling = nil },
			view:  func(o *nodev1.RuntimeClass) any { return []any{o.Handler, o.Scheduling} },
		}),
	}
}

func backend(service string, port int32) *networkingv1.IngressBackend {
	return &networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: service, Port: networkingv1.ServiceBackendPort{Number: port}}}
}

// ingressClass offers a class to tenants until the test ends.
func (r *running) ingressClass(t *testing.T, of tenant, name string) {
	t.Helper()
	class := &networkingv1.IngressClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: networkingv1.IngressClassSpec{Controller: "example.com/controller"}}
	r.make(t, class)
	worlds.Eventually(t, limit, "the class in the tenant", func(ctx context.Context) error {
		_, err := of.NetworkingV1().IngressClasses().Get(ctx, name, metav1.GetOptions{})
		return err
	})
}

// make makes an object of the super cluster that is removed when the test ends.
func (r *running) make(t *testing.T, o client.Object) {
	t.Helper()
	if err := r.client.Create(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.client.Delete(context.Background(), o); client.IgnoreNotFound(err) != nil { // the test's context has ended
			t.Error(err)
		}
	})
}

// Every kind is created, updated, deleted, made again under its name and repaired on the other side, and leaves alone what
// stands in its place.
func TestEveryKindLives(t *testing.T) {
	r := start(t)
	kindsLive(t, r, r.tenants[0], func(string) bool { return true })
}

// kindsLive tests some kinds with one tenant.
func kindsLive(t *testing.T, r *running, of tenant, which func(kind string) bool) {
	t.Helper()
	cases, elsewhere := kindCases(), testedElsewhere()
	for _, kind := range resources.All(resources.Options{AgentNamespace: agentNamespace}) {
		if !which(kind.Name) {
			continue
		}
		c, ok := cases[kind.Name]
		if _, exempt := elsewhere[kind.Name]; ok == exempt {
			t.Errorf("%s needs either a case here or a reason why it has none", kind.Name)
		}
		if ok {
			t.Run(kind.Name, func(t *testing.T) {
				t.Parallel() // namespaces take their time to go
				newBench(t, r, of, kind, c).live(t)
			})
		}
	}
}

// bench is where the life of one kind is tested.
type bench struct {
	kindCase
	kind      resource.Kind
	of        tenant
	namespace string // the tenant's
	// origin and replica are the clusters that they live in.
	origin, replica client.Client
}

func newBench(t *testing.T, r *running, of tenant, kind resource.Kind, c kindCase) *bench {
	t.Helper()
	inTenant, err := client.New(of.world.Config, client.Options{Scheme: newScheme()})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{kindCase: c, kind: kind, of: of, namespace: "life-" + kind.Name, origin: inTenant, replica: r.client}
	if kind.Origin == resource.Super {
		b.origin, b.replica = r.client, inTenant
	}
	r.namespace(t, of, b.namespace)
	if c.prepare != nil {
		c.prepare(t, r, of, b.namespace)
	}
	return b
}

// at gives an object its place on a side.
func (b *bench) at(o client.Object, side resource.Side, name string) client.Object {
	switch {
	case side == resource.Tenant:
		o.SetName(name)
	case b.kind.Name == "namespaces":
		o.SetName(b.of.super(name))
	default:
		o.SetName(b.kind.SuperName(name))
	}
	if !b.kind.Cluster {
		o.SetNamespace(b.namespace)
		if side == resource.Super {
			o.SetNamespace(b.of.super(b.namespace))
		}
	}
	return o
}

// sides returns the side of the origin and that of the replica.
func (b *bench) sides() (origin, replica resource.Side) {
	if b.kind.Origin == resource.Super {
		return resource.Super, resource.Tenant
	}
	return resource.Tenant, resource.Super
}

func (b *bench) empty() client.Object {
	o, _ := b.kind.New().(client.Object)
	return o
}

func (b *bench) live(t *testing.T) {
	first := b.create(t, lives)
	replica := b.inSync(t, "the replica", first)
	if b.change != nil {
		changed := b.update(t, b.origin, first, b.change)
		b.same(t, replica, b.inSync(t, "the change", changed))
		first = changed
	}
	if b.drift != nil {
		b.update(t, b.replica, replica, b.drift)
		b.same(t, replica, b.inSync(t, "the drift to be repaired", first))
	}
	if !b.endsWithReplica {
		b.remove(t, b.replica, replica)
		again := b.inSync(t, "the deleted replica to come back", first)
		b.another(t, replica, again)
		replica = again
	}

	b.update(t, b.replica, replica, func(o client.Object) {
		annotations := o.GetAnnotations()
		annotations[names.AnnotationUID] = "older"
		o.SetAnnotations(annotations)
	})
	fresh := b.inSync(t, "the replica of a predecessor to be replaced", first)
	b.another(t, replica, fresh)

	b.remove(t, b.origin, first)
	second := b.create(t, lives)
	b.another(t, first, second)
	last := b.inSync(t, "the replica of a successor", second)
	b.another(t, fresh, last)

	b.remove(t, b.origin, second)
	b.gone(t, last)
	b.conflict(t)
}

// conflict puts an object where the replica would be.
func (b *bench) conflict(t *testing.T) {
	t.Helper()
	originSide, replicaSide := b.sides()
	foreign := b.at(b.build(b.of, b.namespace), replicaSide, taken)
	if err := b.replica.Create(t.Context(), foreign); err != nil {
		t.Fatal(err)
	}
	view := b.view(foreign)
	untouched := func(ctx context.Context) error {
		now := b.empty()
		if err := b.replica.Get(ctx, client.ObjectKeyFromObject(foreign), now); err != nil {
			return err
		}
		if now.GetUID() != foreign.GetUID() || now.GetDeletionTimestamp() != nil || now.GetAnnotations()[names.AnnotationUID] != "" {
			return fmt.Errorf("it was replaced or taken over: %v", now)
		}
		if diff := cmp.Diff(view, b.view(now)); diff != "" {
			return fmt.Errorf("it was changed: -before +after\n%s", diff)
		}
		return nil
	}
	origin := b.at(b.build(b.of, b.namespace), originSide, taken)
	if b.change != nil {
		b.change(origin)
	}
	if err := b.origin.Create(t.Context(), origin); err != nil {
		t.Fatal(err)
	}
	events := b.namespace
	if b.kind.Cluster {
		events = metav1.NamespaceDefault
	}
	waitForEvent(t, b.of, events, taken, "NameTaken")
	if err := untouched(t.Context()); err != nil {
		t.Errorf("what stands in the place of a replica: %v", err)
	}
	b.remove(t, b.origin, origin)
	worlds.Throughout(t, 300*time.Millisecond, "what stood in the place of a replica", untouched)
	b.remove(t, b.replica, foreign)
}

// create makes an origin, as soon as its predecessor has gone.
func (b *bench) create(t *testing.T, name string) client.Object {
	t.Helper()
	side, _ := b.sides()
	var made client.Object
	worlds.Eventually(t, limit, "the creation of "+name, func(ctx context.Context) error {
		made = b.at(b.build(b.of, b.namespace), side, name)
		return b.origin.Create(ctx, made)
	})
	return made
}

// update changes an object as it is now.
func (b *bench) update(t *testing.T, c client.Client, o client.Object, change func(client.Object)) client.Object {
	t.Helper()
	now := b.empty()
	worlds.Eventually(t, limit, "an update", func(ctx context.Context) error {
		if err := c.Get(ctx, client.ObjectKeyFromObject(o), now); err != nil {
			return err
		}
		change(now)
		return c.Update(ctx, now)
	})
	return now
}

// remove deletes an object without grace.
func (b *bench) remove(t *testing.T, c client.Client, o client.Object) {
	t.Helper()
	uid := o.GetUID()
	err := c.Delete(t.Context(), o, client.GracePeriodSeconds(0), client.Preconditions{UID: &uid})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
}

// inSync waits until there is a replica of the origin that is as it should be.
func (b *bench) inSync(t *testing.T, what string, origin client.Object) client.Object {
	t.Helper()
	_, side := b.sides()
	replica := b.empty()
	want := b.view(origin)
	if b.want != nil {
		want = b.want(b.of, origin)
	}
	key := client.ObjectKeyFromObject(b.at(b.empty(), side, lives))
	worlds.Eventually(t, limit, what, func(ctx context.Context) error {
		replica = b.empty()
		if err := b.replica.Get(ctx, key, replica); err != nil {
			return err
		}
		if replica.GetDeletionTimestamp() != nil {
			return errors.New("it is being deleted")
		}
		if uid := replica.GetAnnotations()[names.AnnotationUID]; uid != string(origin.GetUID()) {
			return fmt.Errorf("it was made for %s, not for %s", uid, origin.GetUID())
		}
		if diff := cmp.Diff(want, b.view(replica)); diff != "" {
			return fmt.Errorf("-want +got\n%s", diff)
		}
		return nil
	})
	return replica
}

func (b *bench) gone(t *testing.T, replica client.Object) {
	t.Helper()
	worlds.Eventually(t, limit, "the replica to go", func(ctx context.Context) error {
		return gone(b.replica.Get(ctx, client.ObjectKeyFromObject(replica), b.empty()))
	})
}

func (b *bench) same(t *testing.T, before, after client.Object) {
	t.Helper()
	if before.GetUID() != after.GetUID() {
		t.Errorf("%s was replaced, not changed", before.GetName())
	}
}

func (b *bench) another(t *testing.T, before, after client.Object) {
	t.Helper()
	if before.GetUID() == after.GetUID() {
		t.Errorf("%s is still the same object", before.GetName())
	}
}
