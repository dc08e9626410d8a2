package pods

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	psa "k8s.io/pod-security-admission/api"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/resources/nodes"
)

const (
	tenantID = names.TenantID("default-a-0123456789abc")
	shop     = "shop"
	node     = "node-1"
)

var start = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// world is both clusters, as far as a pod sees them.
type world struct {
	facts  resource.Facts
	now    time.Time
	caches map[resource.Side]map[resource.Ref]resource.Object
	pods   resource.Resource[*corev1.Pod]
	// unread says that nothing was read that caches leave out.
	unread bool
	again  time.Time // when the last decision asked for another one
}

// newWorld has a tenant with the Services that pods need, and the namespace shop on both sides.
func newWorld() *world {
	w := &world{
		facts: resource.Facts{ID: tenantID, PodSecurity: psa.LevelBaseline, VirtualCluster: types.NamespacedName{Namespace: "default", Name: "a"}, UID: "vc", ClusterDomain: "cluster.local"},
		now:   start,
		pods:  describe(""),
		caches: map[resource.Side]map[resource.Ref]resource.Object{
			resource.Tenant: {}, resource.Super: {},
		},
	}
	w.put(resource.Tenant, "namespaces", "", shop, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: shop, UID: "ns"}})
	w.put(resource.Super, "namespaces", "", shop, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: superShop(), Labels: map[string]string{names.LabelTenant: string(tenantID)},
		Annotations: map[string]string{names.AnnotationNamespace: shop, names.AnnotationUID: "ns"},
	}})
	w.put(resource.Tenant, "services", "default", "kubernetes", clusterService("10.100.0.1", 443))
	w.put(resource.Super, "services", "default", "kubernetes", superService("10.100.0.1"))
	w.put(resource.Tenant, "services", "kube-system", "kube-dns", clusterService("10.100.0.10", 53))
	w.put(resource.Super, "services", "kube-system", "kube-dns", superService("10.100.0.10"))
	return w
}

func clusterService(ip string, port int32) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{UID: "service"},
		Spec:       corev1.ServiceSpec{ClusterIP: ip, Ports: []corev1.ServicePort{{Name: "https", Port: port, Protocol: corev1.ProtocolTCP}}},
	}
}

// superService is the replica of a clusterService.
func superService(ip string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			UID: "of-super", Labels: map[string]string{names.LabelTenant: string(tenantID)}, Annotations: map[string]string{names.AnnotationUID: "service"},
		},
		Spec: corev1.ServiceSpec{ClusterIP: ip},
	}
}

func superShop() string { return names.SuperNamespace(tenantID, shop) }

func (w *world) put(side resource.Side, kind, namespace, name string, o resource.Object) {
	w.caches[side][resource.Ref{Kind: kind, Namespace: namespace, Name: name}] = o
}

// share puts an object of the tenant and its replica into the namespace shop.
func (w *world) share(kind, name string) {
	w.put(resource.Tenant, kind, shop, name, &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{UID: "of-tenant"}})
	w.put(resource.Super, kind, shop, name, replicaOf("of-tenant"))
}

// replicaOf is the replica of an object of the tenant.
func replicaOf(uid types.UID) resource.Object {
	return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		UID: "of-super", Labels: map[string]string{names.LabelTenant: string(tenantID)}, Annotations: map[string]string{names.AnnotationUID: string(uid)},
	}}
}

// operators is an object of the operator.
func operators() resource.Object {
	return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{UID: "operators"}}
}

func (w *world) remove(side resource.Side, kind, namespace, name string) {
	delete(w.caches[side], resource.Ref{Kind: kind, Namespace: namespace, Name: name})
}

func (w *world) view() resource.View {
	return resource.View{
		Tenant: w.facts, Now: w.now, Live: true,
		Again: func(at time.Time) { w.again = at },
		Whole: func(ref resource.Ref) (resource.Object, error) {
			if w.unread {
				return nil, &resource.Incomplete{Ref: ref}
			}
			return w.caches[resource.Tenant][ref], nil
		},
		Get: func(side resource.Side, ref resource.Ref) resource.Object {
			if o, ok := w.caches[side][ref]; ok {
				return o
			}
			return nil
		},
		Each: func(side resource.Side, kind string, f func(resource.Object)) { w.each(side, kind, f) },
		EachCustomized: func(kind string, f func(resource.Object)) {
			w.each(resource.Tenant, kind, func(o resource.Object) {
				if nodes.Kind().Customized(o) {
					f(o)
				}
			})
		},
		Referenced:  func(resource.Ref) bool { return true },
		NodeAddress: func(string) bool { return false },
	}
}

func (w *world) each(side resource.Side, kind string, f func(resource.Object)) {
	for ref, o := range w.caches[side] {
		if ref.Kind == kind {
			f(o)
		}
	}
}

// pod returns a tenant's pod as its API server stores it, changed by each function.
func pod(change ...func(*corev1.Pod)) *corev1.Pod {
	yes, no, grace := true, false, int64(30)
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: shop, Name: "web-0", UID: "tenant-uid", ResourceVersion: "7", Generation: 1,
			Labels: map[string]string{"app": "web"},
		},
		Spec: corev1.PodSpec{
			Containers:                    []corev1.Container{{Name: "main", Image: "web:1", ImagePullPolicy: corev1.PullIfNotPresent}},
			RestartPolicy:                 corev1.RestartPolicyAlways,
			TerminationGracePeriodSeconds: &grace,
			DNSPolicy:                     corev1.DNSClusterFirst,
			ServiceAccountName:            "default",
			DeprecatedServiceAccount:      "default",
			SecurityContext:               &corev1.PodSecurityContext{},
			SchedulerName:                 corev1.DefaultSchedulerName,
			EnableServiceLinks:            &yes,
			AutomountServiceAccountToken:  &no,
		},
		Status: corev1.PodStatus{Phase: corev1.PodPending, QOSClass: corev1.PodQOSBestEffort},
	}
	for _, c := range change {
		c(p)
	}
	return p
}

// down returns the replica of a tenant's pod.
func down(t *testing.T, w *world, tenant *corev1.Pod) (*corev1.Pod, error) {
	t.Helper()
	ops, err := decide(w, tenant, nil)
	for _, op := range ops {
		if op.Verb == resource.Create {
			p, ok := op.Object.(*corev1.Pod)
			if !ok {
				t.Fatalf("created %T", op.Object)
			}
			return p, err
		}
	}
	return nil, err
}

// mustDown is down for a pod that is fine.
func mustDown(t *testing.T, w *world, tenant *corev1.Pod) *corev1.Pod {
	t.Helper()
	p, err := down(t, w, tenant)
	if err != nil || p == nil {
		t.Fatalf("got no replica: %v", err)
	}
	return p
}

// running returns the super pod of a tenant's, on a node.
func running(t *testing.T, w *world, tenant *corev1.Pod, change ...func(*corev1.Pod)) *corev1.Pod {
	t.Helper()
	p := mustDown(t, w, pod(func(p *corev1.Pod) {
		*p = *tenant.DeepCopy()
		p.Status, p.DeletionTimestamp, p.Spec.NodeName = corev1.PodStatus{}, nil, ""
	}))
	p.UID, p.ResourceVersion, p.Generation = "super-uid", "9", 1
	p.Spec.NodeName = node
	p.Status = corev1.PodStatus{
		Phase: corev1.PodRunning, HostIP: "192.0.2.1", PodIP: "10.1.0.5", QOSClass: corev1.PodQOSBestEffort, ObservedGeneration: 1,
		StartTime:  &metav1.Time{Time: start},
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
	}
	for _, c := range tenant.Spec.Containers {
		p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{Name: c.Name, Ready: true, Image: c.Image})
	}
	for _, c := range change {
		c(p)
	}
	return p
}

// bound makes a tenant's pod one that runs.
func bound(p *corev1.Pod) {
	p.Spec.NodeName = node
	p.Status.StartTime = &metav1.Time{Time: start}
	p.Status.Phase = corev1.PodRunning
}

func deleting(seconds int64) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &metav1.Time{Time: start}, &seconds
	}
}

// decide decides about a pair that is in the caches, and checks that nothing was written to what it was given.
func decide(w *world, tenant, super *corev1.Pod) ([]resource.Op, error) {
	key := resource.Key{Tenant: tenantID, Namespace: shop, Name: "web-0"}
	var p resource.Pair[*corev1.Pod]
	w.remove(resource.Tenant, "pods", shop, "web-0")
	w.remove(resource.Super, "pods", shop, "web-0")
	if tenant != nil {
		p.Tenant = tenant
		w.put(resource.Tenant, "pods", shop, "web-0", tenant)
	}
	if super != nil {
		p.Super = super
		w.put(resource.Super, "pods", shop, "web-0", super)
	}
	before := snapshot(w)
	ops, err := w.pods.Decide(w.view(), key, p)
	if diff := cmp.Diff(before, snapshot(w)); diff != "" {
		return nil, fmt.Errorf("the decision wrote to its inputs: %s", diff)
	}
	again, _ := w.pods.Decide(w.view(), key, p)
	if diff := cmp.Diff(encode(ops), encode(again)); diff != "" {
		return nil, fmt.Errorf("the decision is not deterministic: %s", diff)
	}
	for _, pod := range []**corev1.Pod{&p.Tenant, &p.Super} {
		if *pod != nil {
			*pod = (*pod).DeepCopy()
			trim(*pod)
		}
	}
	cached, _ := w.pods.Decide(w.view(), key, p)
	if diff := cmp.Diff(encode(trimmedOps(ops)), encode(trimmedOps(cached))); diff != "" {
		return nil, fmt.Errorf("the decision about what is cached is another one: %s", diff)
	}
	return ops, err
}

func snapshot(w *world) map[string]string {
	out := map[string]string{}
	for side, cache := range w.caches {
		for ref, o := range cache {
			out[fmt.Sprint(side, ref)] = encode(o)
		}
	}
	return out
}

func encode(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// apply carries out operations as the API servers would.
func (w *world) apply(tenant, super *corev1.Pod, ops []resource.Op) (*corev1.Pod, *corev1.Pod, error) {
	for _, op := range ops {
		target := &tenant
		if op.Side == resource.Super {
			target = &super
		}
		switch op.Verb {
		case resource.Create:
			created, ok := op.Object.(*corev1.Pod)
			if !ok || *target != nil {
				return nil, nil, fmt.Errorf("creating %T where %v is", op.Object, *target)
			}
			*target = created.DeepCopy()
			(*target).UID, (*target).ResourceVersion, (*target).Generation = "super-uid", "1", 1
		case resource.Patch, resource.PatchStatus, resource.PatchResize, resource.PatchEphemeral:
			patched, err := patch(*target, op)
			if err != nil {
				return nil, nil, err
			}
			*target = patched
		case resource.Delete:
			grace := int64(30)
			if op.Grace != nil {
				grace = *op.Grace
			}
			if grace == 0 || (*target).Spec.NodeName == "" {
				*target = nil
			} else if p := (*target).DeepCopy(); p.DeletionTimestamp == nil || grace < *p.DeletionGracePeriodSeconds {
				deleting(grace)(p)
				*target = p
			}
		case resource.Bind:
			*target = (*target).DeepCopy()
			(*target).Spec.NodeName = op.Node
		case resource.Mint:
			secret, ok := op.Object.DeepCopyObject().(*corev1.Secret)
			if !ok {
				return nil, nil, errors.New("minting into something else")
			}
			secret.Annotations[names.AnnotationTokenIssued] = w.now.Format(time.RFC3339)
			secret.Annotations[names.AnnotationTokenExpiry] = w.now.Add(time.Hour).Format(time.RFC3339)
			w.put(resource.Super, "tokens", shop, secret.Name, secret)
		default:
			return nil, nil, fmt.Errorf("unexpected %s", op.Verb)
		}
	}
	return tenant, super, nil
}

func patch(to *corev1.Pod, op resource.Op) (*corev1.Pod, error) {
	var meta struct {
		Metadata struct {
			UID types.UID `json:"uid"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(op.Patch, &meta); err != nil {
		return nil, err
	}
	if to == nil || meta.Metadata.UID != to.UID {
		return nil, fmt.Errorf("the patch is for the object with UID %q: %s", meta.Metadata.UID, op.Patch)
	}
	before, err := json.Marshal(to)
	if err != nil {
		return nil, err
	}
	after, err := strategicpatch.StrategicMergePatch(before, op.Patch, to)
	if err != nil {
		return nil, fmt.Errorf("applying %s: %w", op.Patch, err)
	}
	out := &corev1.Pod{}
	if err := json.Unmarshal(after, out); err != nil {
		return nil, err
	}
	if encode(out.Spec) != encode(to.Spec) {
		out.Generation++
	}
	return out, nil
}

// summary is what most tests look at.
func summary(ops []resource.Op) []string {
	out := []string{}
	for _, op := range ops {
		s := fmt.Sprintf("%s %s %s", op.Verb, op.Side, op.Why)
		if op.Grace != nil {
			s += fmt.Sprintf(" grace=%d", *op.Grace)
		}
		if op.Absent {
			s += " absent"
		}
		out = append(out, s)
	}
	return out
}

// trimmedOps returns operations on what is cached of pods that exist.
func trimmedOps(in []resource.Op) []resource.Op {
	out := slices.Clone(in)
	for i := range out {
		if pod, ok := out[i].Object.(*corev1.Pod); ok && out[i].Verb != resource.Create {
			pod = pod.DeepCopy()
			trim(pod)
			out[i].Object = pod
		}
	}
	return out
}
