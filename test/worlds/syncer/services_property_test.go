package syncer_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtualcluster-io/virtualcluster/syncer"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

const (
	// seedEnv names the environment variable that repeats the histories of a seed.
	seedEnv = "VC_SERVICES_SEED"
	// histories of historySteps steps each are tried.
	histories    = 4
	historySteps = 60
	// opaqueRole is a label that does not go down.
	opaqueRole = "team.example.com/role"
	// forbiddenEndpoint is the address of a node.
	forbiddenEndpoint = "192.0.2.202"
)

// history is a random sequence of what users of a tenant do to services, and its kubelets to pods.
type history struct {
	*running
	t         *testing.T
	of        tenant
	namespace string
	random    *rand.Rand
	steps     []string
	pods      map[string]string // by name, their addresses
	made      int
}

// For every Service, what kube-proxy does in the super cluster equals what it would do in the tenant's.
func TestEndpointsAreTheSameOnBothSides(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv(seedEnv); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("the seed is %d: %s=%d repeats it", seed, seedEnv, seed)
	r := start(t, func(o *syncer.Options) { o.Patrol = time.Hour }) // events alone must do
	of := r.tenants[0]
	r.opaque(t, of, "team.example.com/")
	r.make(t, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-history"}, Status: corev1.NodeStatus{
		Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: forbiddenEndpoint}},
	}})
	worlds.Eventually(t, limit, "the virtual node", func(ctx context.Context) error {
		_, err := of.CoreV1().Nodes().Get(ctx, "node-history", metav1.GetOptions{})
		return err
	})
	for i := range histories {
		h := &history{
			running: r, t: t, of: of, namespace: fmt.Sprintf("svc-history-%d-%d", seed%1000000, i),
			random: rand.New(rand.NewPCG(seed, uint64(i))), pods: map[string]string{},
		}
		r.namespace(t, of, h.namespace)
		for range historySteps {
			h.step()
			if h.random.IntN(3) == 0 {
				h.await()
			}
		}
		h.await()
		worlds.Throughout(t, time.Second, fmt.Sprintf("the same endpoints, after %s", h), h.same)
	}
}

func (h *history) String() string { return "\n" + strings.Join(h.steps, "\n") }

func (h *history) await() {
	h.t.Helper()
	worlds.Eventually(h.t, limit, fmt.Sprintf("the same endpoints, after %s", h), h.same)
}

// step does one thing. What others have changed or removed in the meantime makes it do nothing, which is a history, too.
func (h *history) step() {
	h.t.Helper()
	steps := []func(context.Context) (string, error){
		h.makePod, h.makePod, h.labelPod, h.labelPod, h.turnPod, h.deletePod,
		h.putService, h.putService, h.selectPods, h.selectPods, h.typeService, h.deleteService,
		h.putSlice, h.putSlice, h.deleteSlice, h.deleteComputed, h.cleanService, h.cleanService, h.cleanService,
		h.putEndpoints, h.deleteEndpoints,
	}
	what, err := steps[h.random.IntN(len(steps))](h.t.Context())
	switch {
	case apierrors.IsNotFound(err), apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
		what += " (" + string(apierrors.ReasonForError(err)) + ")"
	case err != nil:
		h.t.Fatalf("%s: %v, after %s", what, err, h)
	}
	h.steps = append(h.steps, what)
}

func pick[T any](h *history, from ...T) T { return from[h.random.IntN(len(from))] }

// aPod returns the name of a pod that was made, if any was.
func (h *history) aPod() string { return pick(h, append(slices.Sorted(maps.Keys(h.pods)), "none")...) }

func (h *history) aService() string { return pick(h, "a", "b", "c") }

// roles are labels of a pod, or a selector.
func (h *history) roles() map[string]string {
	return map[string]string{pick(h, "role", "role", opaqueRole): pick(h, "x", "y")}
}

func (h *history) makePod(context.Context) (string, error) {
	h.made++
	pod := worlds.Pod(h.namespace, fmt.Sprintf("pod-%d", h.made))
	pod.Labels = h.roles()
	ip := fmt.Sprintf("10.9.30.%d", h.made)
	h.of.world.MakePod(h.t, pod)
	h.kubelet(h.t, h.superPod(h.t, h.of, h.namespace, pod.Name), "node-history", ip)
	h.pods[pod.Name] = ip
	return fmt.Sprintf("make %s %s with %v", pod.Name, ip, pod.Labels), nil
}

func (h *history) labelPod(ctx context.Context) (string, error) {
	name, roles := h.aPod(), h.roles()
	set := map[string]any{"role": nil, opaqueRole: nil}
	for key, value := range roles {
		set[key] = value
	}
	_, err := h.of.CoreV1().Pods(h.namespace).Patch(ctx, name, types.MergePatchType, h.json(map[string]any{"metadata": map[string]any{"labels": set}}), metav1.PatchOptions{})
	return fmt.Sprintf("label %s with %v", name, roles), err
}

// turnPod makes a pod ready or not, as its kubelet does.
func (h *history) turnPod(ctx context.Context) (string, error) {
	name, ready := h.aPod(), pick(h, corev1.ConditionTrue, corev1.ConditionFalse)
	patch := h.json(map[string]any{"status": map[string]any{"conditions": []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}}})
	_, err := h.worlds.Super.Client.CoreV1().Pods(h.of.super(h.namespace)).Patch(ctx, name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	return fmt.Sprintf("ready=%s of %s", ready, name), err
}

func (h *history) deletePod(ctx context.Context) (string, error) {
	name := h.aPod()
	options := metav1.DeleteOptions{}
	if h.random.IntN(2) == 0 {
		options.GracePeriodSeconds = new(int64(0))
	}
	delete(h.pods, name)
	return "delete " + name, h.of.CoreV1().Pods(h.namespace).Delete(ctx, name, options)
}

func (h *history) putService(ctx context.Context) (string, error) {
	service := worlds.Service(h.namespace, h.aService())
	service.Spec.Selector = pick(h, nil, h.roles(), h.roles())
	service.Spec.Type = pick(h, corev1.ServiceTypeClusterIP, corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort)
	service.Spec.PublishNotReadyAddresses = pick(h, false, false, true)
	if h.random.IntN(4) == 0 {
		service.Spec.Type, service.Spec.ClusterIP = corev1.ServiceTypeClusterIP, corev1.ClusterIPNone
	}
	_, err := h.of.CoreV1().Services(h.namespace).Create(ctx, service, metav1.CreateOptions{})
	return fmt.Sprintf("make service %s %s %s with %v", service.Name, service.Spec.Type, service.Spec.ClusterIP, service.Spec.Selector), err
}

func (h *history) selectPods(ctx context.Context) (string, error) {
	name := h.aService()
	selector := map[string]any{"role": nil, opaqueRole: nil}
	if h.random.IntN(3) > 0 {
		for key, value := range h.roles() {
			selector[key] = value
		}
	}
	patch := h.json(map[string]any{"spec": map[string]any{"selector": selector}})
	_, err := h.of.CoreV1().Services(h.namespace).Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
	return fmt.Sprintf("service %s selects %v", name, selector), err
}

func (h *history) typeService(ctx context.Context) (string, error) {
	name := h.aService()
	now, err := h.of.CoreV1().Services(h.namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil || now.Spec.ClusterIP == corev1.ClusterIPNone {
		return "type of service " + name, err
	}
	spec := map[string]any{"type": pick(h, corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort), "externalName": nil}
	if h.random.IntN(3) == 0 {
		spec = map[string]any{"type": corev1.ServiceTypeExternalName, "externalName": "example.com", "clusterIP": nil, "clusterIPs": nil}
	}
	_, err = h.of.CoreV1().Services(h.namespace).Patch(ctx, name, types.MergePatchType, h.json(map[string]any{"spec": spec}), metav1.PatchOptions{})
	return fmt.Sprintf("service %s becomes %s", name, spec["type"]), err
}

func (h *history) deleteService(ctx context.Context) (string, error) {
	name := h.aService()
	return "delete service " + name, h.of.CoreV1().Services(h.namespace).Delete(ctx, name, metav1.DeleteOptions{})
}

// putSlice makes or changes a slice by hand, also to be another service's.
func (h *history) putSlice(ctx context.Context) (string, error) {
	name := pick(h, "hand-1", "hand-2", "hand-3")
	var addresses []string
	for range h.random.IntN(3) {
		addresses = append(addresses, pick(h, append(slices.Sorted(maps.Values(h.pods)), "203.0.113.1", "203.0.113.2", forbiddenEndpoint)...))
	}
	want := byHand(h.namespace, name, h.aService(), addresses...)
	what := fmt.Sprintf("slice %s of %s has %v", name, want.Labels[discoveryv1.LabelServiceName], addresses)
	api := h.of.DiscoveryV1().EndpointSlices(h.namespace)
	now, err := api.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = api.Create(ctx, want, metav1.CreateOptions{})
		return what, err
	}
	if err != nil {
		return what, err
	}
	now.Labels, now.Endpoints = want.Labels, want.Endpoints
	_, err = api.Update(ctx, now, metav1.UpdateOptions{})
	return what, err
}

func (h *history) deleteSlice(ctx context.Context) (string, error) {
	name := pick(h, "hand-1", "hand-2", "hand-3")
	return "delete slice " + name, h.of.DiscoveryV1().EndpointSlices(h.namespace).Delete(ctx, name, metav1.DeleteOptions{})
}

// deleteComputed deletes the slices of a service that were not made by hand.
func (h *history) deleteComputed(ctx context.Context) (string, error) {
	name := h.aService()
	return "delete computed slices of " + name, h.deleteComputedOf(ctx, name)
}

func (h *history) deleteComputedOf(ctx context.Context, service string) error {
	return h.of.DiscoveryV1().EndpointSlices(h.namespace).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{
		LabelSelector: discoveryv1.LabelServiceName + "=" + service + "," + discoveryv1.LabelManagedBy,
	})
}

// cleanService deletes everything that was computed for a service, which is how users get rid of what a selector leaves.
func (h *history) cleanService(ctx context.Context) (string, error) {
	name := h.aService()
	if err := h.of.CoreV1().Endpoints(h.namespace).Delete(ctx, name, metav1.DeleteOptions{}); client.IgnoreNotFound(err) != nil {
		return "clean service " + name, err
	}
	return "clean service " + name, h.deleteComputedOf(ctx, name)
}

// putEndpoints makes or changes an Endpoints object, which the tenant mirrors when its service has no selector.
func (h *history) putEndpoints(ctx context.Context) (string, error) {
	name, address := h.aService(), pick(h, "203.0.113.3", "203.0.113.4", forbiddenEndpoint)
	//nolint:staticcheck // old tools write them
	want := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: name}, Subsets: []corev1.EndpointSubset{{
		Addresses: []corev1.EndpointAddress{{IP: address}}, Ports: []corev1.EndpointPort{{Name: "http", Port: 80}},
	}}}
	what := fmt.Sprintf("endpoints %s are %s", name, address)
	api := h.of.CoreV1().Endpoints(h.namespace)
	now, err := api.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = api.Create(ctx, want, metav1.CreateOptions{})
		return what, err
	}
	if err != nil {
		return what, err
	}
	now.Subsets = want.Subsets
	_, err = api.Update(ctx, now, metav1.UpdateOptions{})
	return what, err
}

func (h *history) deleteEndpoints(ctx context.Context) (string, error) {
	name := h.aService()
	return "delete endpoints " + name, h.of.CoreV1().Endpoints(h.namespace).Delete(ctx, name, metav1.DeleteOptions{})
}

func (h *history) json(v any) []byte {
	h.t.Helper()
	out, err := json.Marshal(v)
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

// same says what differs between the two sides, and between the pods that the tenant has and those that its services lead
// to, which is how it knows that the tenant's own controllers are done.
func (h *history) same(ctx context.Context) error {
	if err := h.reap(ctx); err != nil {
		return err
	}
	services, err := h.of.CoreV1().Services(h.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	pods, err := h.of.CoreV1().Pods(h.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	in, err := endpointsOf(ctx, h.of, h.namespace)
	if err != nil {
		return err
	}
	super, err := endpointsOf(ctx, h.worlds.Super.Client, h.of.super(h.namespace))
	if err != nil {
		return err
	}
	for i := range services.Items {
		service := &services.Items[i]
		var replica corev1.Service
		err := h.client.Get(ctx, client.ObjectKey{Namespace: h.of.super(h.namespace), Name: service.Name}, &replica)
		if service.Spec.Type == corev1.ServiceTypeExternalName {
			if err := gone(err); err != nil {
				return fmt.Errorf("service %s of type ExternalName: %w", service.Name, err)
			}
			continue
		}
		if err != nil {
			return err
		}
		if diff := cmp.Diff(proxied(service), proxied(&replica)); diff != "" {
			return fmt.Errorf("service %s: -tenant +super:\n%s", service.Name, diff)
		}
		allowed := slices.DeleteFunc(in[service.Name], func(e string) bool { return strings.Contains(e, " "+forbiddenEndpoint+":") })
		if diff := cmp.Diff(allowed, super[service.Name]); diff != "" && len(allowed)+len(super[service.Name]) > 0 {
			return fmt.Errorf("endpoints of service %s: -tenant +super:\n%s", service.Name, diff)
		}
		for _, endpoint := range selected(service, pods.Items) {
			if !slices.Contains(allowed, endpoint) {
				return fmt.Errorf("service %s has %v, not %s", service.Name, allowed, endpoint)
			}
		}
	}
	return nil
}

// proxied is what kube-proxy uses of a Service.
func proxied(s *corev1.Service) any {
	return []any{s.Spec.Type, s.Spec.ClusterIPs, s.Spec.Ports, len(s.Spec.Selector), s.Spec.PublishNotReadyAddresses}
}

// selected returns the endpoints that a service must have for its selector.
func selected(service *corev1.Service, pods []corev1.Pod) []string {
	var out []string
	for i := range pods {
		pod := &pods[i]
		selects := len(service.Spec.Selector) > 0 && pod.Status.PodIP != "" && pod.DeletionTimestamp == nil
		for key, value := range service.Spec.Selector {
			selects = selects && pod.Labels[key] == value
		}
		if !selects {
			continue
		}
		ready := service.Spec.PublishNotReadyAddresses || slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
		})
		out = append(out, fmt.Sprintf("http %s:80/TCP ready=%t", pod.Status.PodIP, ready))
	}
	return out
}

// reap ends the super pods that are being deleted, as a kubelet does, and waits for the tenant's to follow.
func (h *history) reap(ctx context.Context) error {
	list, err := h.worlds.Super.Client.CoreV1().Pods(h.of.super(h.namespace)).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	left := 0
	for i := range list.Items {
		pod := &list.Items[i]
		if _, lives := h.pods[pod.Name]; lives {
			continue
		}
		left++
		if pod.DeletionTimestamp == nil {
			continue
		}
		now := metav1.DeleteOptions{GracePeriodSeconds: new(int64(0)), Preconditions: &metav1.Preconditions{UID: &pod.UID}}
		if err := h.worlds.Super.Client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, now); client.IgnoreNotFound(err) != nil {
			return err
		}
	}
	in, err := h.of.CoreV1().Pods(h.namespace).List(ctx, metav1.ListOptions{})
	if err == nil && (left > 0 || len(in.Items) != len(h.pods)) {
		err = fmt.Errorf("there are %d pods in the super cluster that are being deleted, and %d in the tenant instead of %d", left, len(in.Items), len(h.pods))
	}
	return err
}
