package syncer_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtualcluster-io/virtualcluster/internal/iprange"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

// endpointsOf returns what kube-proxy knows of the endpoints of services, by the name of the service.
func endpointsOf(ctx context.Context, c kubernetes.Interface, namespace string) (map[string][]string, error) {
	list, err := c.DiscoveryV1().EndpointSlices(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	out := map[string][]string{}
	for _, slice := range list.Items {
		service := slice.Labels[discoveryv1.LabelServiceName]
		for _, e := range slice.Endpoints {
			ready := e.Conditions.Ready == nil || *e.Conditions.Ready
			for _, address := range e.Addresses {
				for _, port := range slice.Ports {
					out[service] = append(out[service], fmt.Sprintf("%s %s:%d/%s ready=%t", *port.Name, address, *port.Port, *port.Protocol, ready))
				}
			}
		}
	}
	for service, endpoints := range out {
		slices.Sort(endpoints)
		out[service] = slices.Compact(endpoints)
	}
	return out, nil
}

// awaitEndpoints waits until a service has just these ready endpoints on both sides.
func (r *running) awaitEndpoints(t *testing.T, of tenant, namespace, service string, addresses ...string) {
	t.Helper()
	var want []string
	for _, address := range addresses {
		want = append(want, "http "+address+":80/TCP ready=true")
	}
	slices.Sort(want)
	worlds.Eventually(t, limit, fmt.Sprintf("endpoints %v of service %s", addresses, service), func(ctx context.Context) error {
		in, err := endpointsOf(ctx, of, namespace)
		if err != nil {
			return err
		}
		super, err := endpointsOf(ctx, r.worlds.Super.Client, of.super(namespace))
		if err != nil {
			return err
		}
		if diff := cmp.Diff([][]string{want, want}, [][]string{in[service], super[service]}); diff != "" {
			return fmt.Errorf("-want +in the tenant, +in the super cluster\n%s", diff)
		}
		return nil
	})
}

// runPod makes a pod of the tenant that is ready.
func (r *running) runPod(t *testing.T, of tenant, namespace, name, ip string, podLabels map[string]string) {
	t.Helper()
	pod := worlds.Pod(namespace, name)
	pod.Labels = podLabels
	of.world.MakePod(t, pod)
	r.kubelet(t, r.superPod(t, of, namespace, name), "node-services", ip)
}

// byHand returns a slice that a user of the tenant makes.
func byHand(namespace, name, service string, addresses ...string) *discoveryv1.EndpointSlice {
	port, protocol, portName := int32(80), corev1.ProtocolTCP, "http"
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &portName, Port: &port, Protocol: &protocol}},
	}
	for _, address := range addresses {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{address}})
	}
	return s
}

func (r *running) makeSlice(t *testing.T, of tenant, s *discoveryv1.EndpointSlice) {
	t.Helper()
	if _, err := of.DiscoveryV1().EndpointSlices(s.Namespace).Create(t.Context(), s, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (r *running) makeService(t *testing.T, of tenant, s *corev1.Service) *corev1.Service {
	t.Helper()
	made, err := of.CoreV1().Services(s.Namespace).Create(t.Context(), s, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func patchService(t *testing.T, of tenant, namespace, name, patch string) {
	t.Helper()
	if _, err := of.CoreV1().Services(namespace).Patch(t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
}

// Traffic moves to the endpoints that the tenant names once its Service has no selector any more.
func TestServiceThatLosesItsSelector(t *testing.T) {
	const namespace = "svc-selector"
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, namespace)
	r.runPod(t, of, namespace, "blue", "10.9.20.1", map[string]string{"app": "web"})
	r.runPod(t, of, namespace, "green", "10.9.20.2", map[string]string{"app": "green"})
	r.makeService(t, of, worlds.Service(namespace, "web"))
	r.awaitEndpoints(t, of, namespace, "web", "10.9.20.1")

	patchService(t, of, namespace, "web", `{"spec":{"selector":null}}`)
	r.awaitEndpoints(t, of, namespace, "web", "10.9.20.1") // Kubernetes leaves them until somebody deletes them
	if err := of.CoreV1().Endpoints(namespace).Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	ofService := metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=web"}
	if err := of.DiscoveryV1().EndpointSlices(namespace).DeleteCollection(t.Context(), metav1.DeleteOptions{}, ofService); err != nil {
		t.Fatal(err)
	}
	r.makeSlice(t, of, byHand(namespace, "by-hand", "web", "10.9.20.2"))
	r.awaitEndpoints(t, of, namespace, "web", "10.9.20.2")

	patchService(t, of, namespace, "web", `{"spec":{"selector":{"app":"web"}}}`)
	r.awaitEndpoints(t, of, namespace, "web", "10.9.20.1", "10.9.20.2")
	list, err := r.worlds.Super.Client.DiscoveryV1().EndpointSlices(of.super(namespace)).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list.Items {
		if s.Labels[discoveryv1.LabelManagedBy] == "endpointslicemirroring-controller.k8s.io" {
			t.Errorf("the super cluster mirrored %v", s)
		}
	}
}

// Slices that a user adds to a Service with a selector count, as far as their addresses may.
func TestSecondSliceOfAServiceWithSelector(t *testing.T) {
	const namespace = "svc-second"
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, namespace)
	r.make(t, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-second"}, Status: corev1.NodeStatus{
		Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.201"}},
	}})
	worlds.Eventually(t, limit, "the virtual node", func(ctx context.Context) error {
		_, err := of.CoreV1().Nodes().Get(ctx, "node-second", metav1.GetOptions{})
		return err
	})
	r.runPod(t, of, namespace, "web", "10.9.21.1", map[string]string{"app": "web"})
	r.makeService(t, of, worlds.Service(namespace, "web"))
	r.makeService(t, of, worlds.Service(namespace, "other"))
	hand := byHand(namespace, "by-hand", "web", "10.9.21.2")
	r.makeSlice(t, of, hand)
	r.awaitEndpoints(t, of, namespace, "web", "10.9.21.1", "10.9.21.2")

	// What is forbidden is left out, and what else changes flows all the same.
	hand.Endpoints = byHand(namespace, "", "", "192.0.2.201", "10.9.21.3").Endpoints
	if _, err := of.DiscoveryV1().EndpointSlices(namespace).Update(t.Context(), hand, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	worlds.Eventually(t, limit, "the allowed endpoint alone", func(ctx context.Context) error {
		super, err := endpointsOf(ctx, r.worlds.Super.Client, of.super(namespace))
		want := []string{"http 10.9.21.1:80/TCP ready=true", "http 10.9.21.3:80/TCP ready=true"}
		if err == nil && !slices.Equal(super["web"], want) {
			err = fmt.Errorf("got %v", super)
		}
		return err
	})
	waitForEvent(t, of, namespace, "by-hand", "EndpointForbidden")

	// A slice can be given to another service.
	hand.Endpoints = byHand(namespace, "", "", "10.9.21.3").Endpoints
	hand.Labels[discoveryv1.LabelServiceName] = "other"
	if _, err := of.DiscoveryV1().EndpointSlices(namespace).Update(t.Context(), hand, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	r.awaitEndpoints(t, of, namespace, "web", "10.9.21.1")
	r.awaitEndpoints(t, of, namespace, "other", "10.9.21.3")
}

// An address from a ServiceCIDR that the tenant made would lead nowhere, so no Service keeps one.
func TestServiceCIDRsOfATenant(t *testing.T) {
	const namespace = "svc-cidr"
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, namespace)
	own := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "own"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.250.7.0/24"}}}
	if _, err := of.NetworkingV1().ServiceCIDRs().Create(t.Context(), own, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := of.NetworkingV1().ServiceCIDRs().Delete(context.Background(), "own", metav1.DeleteOptions{}); err != nil { // the test's context has ended
			t.Error(err)
		}
	})
	service := worlds.Service(namespace, "asks")
	service.Spec.ClusterIP = "10.250.7.9"
	var made *corev1.Service
	worlds.Eventually(t, limit, "an address of the new range", func(ctx context.Context) (err error) {
		made, err = of.CoreV1().Services(namespace).Create(ctx, service, metav1.CreateOptions{})
		return err
	})
	for i := range 6 {
		r.makeService(t, of, worlds.Service(namespace, fmt.Sprintf("any-%d", i)))
	}
	for _, name := range []string{"asks", "any-0", "any-1", "any-2", "any-3", "any-4", "any-5"} {
		if got := r.awaitSameAddressing(t, of, namespace, name, 1); !of.world.ServiceRanges.Contains(got.IPs...) {
			t.Errorf("service %s has %v", name, got.IPs)
		}
	}
	waitForEvent(t, of, namespace, "asks", "ClusterIPChanged")
	now, err := of.CoreV1().Services(namespace).Get(t.Context(), "asks", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if now.UID != made.UID || now.Annotations[names.AnnotationReaddress] != "" || now.Spec.ClusterIP == iprange.DNS(of.world.ServiceRanges.Primary()).String() {
		t.Errorf("it is %v with %v", now.ObjectMeta, now.Spec.ClusterIPs)
	}
}

// The operator's cloud must not make, and bill, a load balancer for a Service that the tenant's own controller serves.
func TestLoadBalancersOfATenant(t *testing.T) {
	const namespace = "svc-balancer"
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, namespace)
	service := worlds.Service(namespace, "web")
	service.Spec.Type, service.Spec.LoadBalancerClass = corev1.ServiceTypeLoadBalancer, new("example.com/own")
	made := r.makeService(t, of, service)
	super := func(what string, is func(*corev1.Service) bool) {
		t.Helper()
		worlds.Eventually(t, limit, what, func(ctx context.Context) error {
			got, err := r.worlds.Super.Client.CoreV1().Services(of.super(namespace)).Get(ctx, "web", metav1.GetOptions{})
			if err != nil {
				return err
			}
			if got.Spec.Type == corev1.ServiceTypeLoadBalancer && !strings.HasPrefix(what, "a load balancer") {
				t.Fatalf("the super Service is a load balancer")
			}
			if !is(got) {
				return fmt.Errorf("it is %+v", got)
			}
			return nil
		})
	}
	super("node ports", func(s *corev1.Service) bool {
		return s.Spec.Type == corev1.ServiceTypeNodePort && s.Spec.Ports[0].NodePort == made.Spec.Ports[0].NodePort && s.Spec.ClusterIP == made.Spec.ClusterIP
	})
	made.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "198.51.100.7"}}
	made, err := of.CoreV1().Services(namespace).UpdateStatus(t.Context(), made, metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	patchService(t, of, namespace, "web", `{"metadata":{"labels":{"step":"status"}}}`)
	super("the label", func(s *corev1.Service) bool { return s.Labels["step"] == "status" })
	now, err := of.CoreV1().Services(namespace).Get(t.Context(), "web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(made.Status, now.Status); diff != "" {
		t.Errorf("the status that the tenant's controller wrote: -want +got\n%s", diff)
	}

	// There and back.
	patchService(t, of, namespace, "web", `{"spec":{"type":"ClusterIP"}}`)
	super("a cluster IP", func(s *corev1.Service) bool { return s.Spec.Type == corev1.ServiceTypeClusterIP })
	patchService(t, of, namespace, "web", `{"spec":{"type":"LoadBalancer"}}`)
	super("a load balancer of the operator's", func(s *corev1.Service) bool { return s.Spec.Type == corev1.ServiceTypeLoadBalancer })
	patchService(t, of, namespace, "web", `{"spec":{"type":"ExternalName","externalName":"example.com","clusterIP":null,"clusterIPs":null}}`)
	worlds.Eventually(t, limit, "the replica of a Service of type ExternalName to go", func(ctx context.Context) error {
		return gone(r.client.Get(ctx, client.ObjectKey{Namespace: of.super(namespace), Name: "web"}, &corev1.Service{}))
	})
	patchService(t, of, namespace, "web", `{"spec":{"type":"LoadBalancer","externalName":null,"loadBalancerClass":"example.com/own","allocateLoadBalancerNodePorts":false}}`)
	super("no node ports", func(s *corev1.Service) bool {
		return s.Spec.Type == corev1.ServiceTypeClusterIP && s.Spec.Ports[0].NodePort == 0
	})
}

// opaque keeps labels with a prefix in a tenant until the test ends.
func (r *running) opaque(t *testing.T, of tenant, prefixes ...string) {
	t.Helper()
	set := func(prefixes []string) int64 {
		vc := vcOf(of)
		if err := r.client.Get(context.Background(), of.vc, vc); err != nil { // also when the test has ended
			t.Error(err)
		}
		before := vc.DeepCopy()
		vc.Spec.OpaqueMetaPrefixes = prefixes
		if err := r.client.Patch(context.Background(), vc, client.MergeFrom(before)); err != nil {
			t.Error(err)
		}
		return vc.Generation
	}
	t.Cleanup(func() { set(nil) })
	r.awaitGeneration(t, of, set(prefixes))
}

// Labels that do not go down select the same pods all the same.
func TestOpaqueLabelsSelect(t *testing.T) {
	const namespace, role = "svc-opaque", "team.example.com/role"
	r := start(t)
	of := r.tenants[0]
	r.opaque(t, of, "team.example.com/")
	r.namespace(t, of, namespace)
	r.runPod(t, of, namespace, "db", "10.9.22.1", map[string]string{role: "primary"})
	service := worlds.Service(namespace, "db")
	service.Spec.Selector = map[string]string{role: "primary"}
	r.makeService(t, of, service)
	selector := &metav1.LabelSelector{MatchLabels: service.Spec.Selector}
	if _, err := of.NetworkingV1().NetworkPolicies(namespace).Create(t.Context(), &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "db"}, Spec: networkingv1.NetworkPolicySpec{PodSelector: *selector},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := of.PolicyV1().PodDisruptionBudgets(namespace).Create(t.Context(), &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: "db"}, Spec: policyv1.PodDisruptionBudgetSpec{Selector: selector, MinAvailable: new(intstr.FromInt32(1))},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	selected := func(want bool) {
		t.Helper()
		worlds.Eventually(t, limit, fmt.Sprintf("policy and budget that select the pod: %t", want), func(ctx context.Context) error {
			var policy networkingv1.NetworkPolicy
			var budget policyv1.PodDisruptionBudget
			key := client.ObjectKey{Namespace: of.super(namespace), Name: "db"}
			if err := r.client.Get(ctx, key, &policy); err != nil {
				return err
			}
			if err := r.client.Get(ctx, key, &budget); err != nil {
				return err
			}
			pod := &corev1.Pod{}
			if err := r.client.Get(ctx, key, pod); err != nil {
				return err
			}
			for _, s := range []*metav1.LabelSelector{&policy.Spec.PodSelector, budget.Spec.Selector} {
				selector, err := metav1.LabelSelectorAsSelector(s)
				if err != nil {
					return err
				}
				if selector.Matches(labels.Set(pod.Labels)) != want {
					return fmt.Errorf("%s and labels %v", selector, pod.Labels)
				}
				if strings.Contains(selector.String(), "primary") || pod.Labels[role] != "" {
					return fmt.Errorf("the operator sees %s and labels %v", selector, pod.Labels)
				}
			}
			return nil
		})
	}
	r.awaitEndpoints(t, of, namespace, "db", "10.9.22.1")
	selected(true)
	relabel := func(value string) {
		t.Helper()
		patch := fmt.Appendf(nil, `{"metadata":{"labels":{%q:%q}}}`, role, value)
		if _, err := of.CoreV1().Pods(namespace).Patch(t.Context(), "db", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	relabel("secondary")
	r.awaitEndpoints(t, of, namespace, "db")
	selected(false)
	relabel("primary")
	r.awaitEndpoints(t, of, namespace, "db", "10.9.22.1")
}
