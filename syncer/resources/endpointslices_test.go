package resources_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/resources"
)

func slice(namespace, service, address string) *discoveryv1.EndpointSlice {
	node, ready := "n1", true
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: "s", UID: "u",
			Labels: map[string]string{discoveryv1.LabelServiceName: service, discoveryv1.LabelManagedBy: "endpointslicemirroring-controller.k8s.io"},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints: []discoveryv1.Endpoint{{
			Addresses: []string{address}, NodeName: &node, Conditions: discoveryv1.EndpointConditions{Ready: &ready},
			TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: namespace, Name: "p"},
		}},
	}
}

func TestEndpointSlices(t *testing.T) {
	manual := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "manual"}}
	selecting := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "selecting"}, Spec: corev1.ServiceSpec{Selector: map[string]string{"a": "b"}}}
	kubernetes := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "kubernetes"}}
	w := world{tenant: []resource.Object{manual, selecting, kubernetes}, nodes: []string{"192.0.2.7"}}
	for name, tc := range map[string]struct {
		in     *discoveryv1.EndpointSlice
		reject bool
		none   bool
	}{
		"External":  {in: slice("shop", "manual", "203.0.113.9")},
		"Selecting": {in: slice("shop", "selecting", "203.0.113.9"), none: true},
		"NoService": {in: slice("shop", "missing", "203.0.113.9"), none: true},
		"APIServer": {in: slice("default", "kubernetes", "192.0.2.7")},
		// Attack N-05.
		"Loopback":    {in: slice("shop", "manual", "127.0.0.1"), reject: true},
		"Metadata":    {in: slice("shop", "manual", "169.254.169.254"), reject: true},
		"Unspecified": {in: slice("shop", "manual", "0.0.0.0"), reject: true},
		"Multicast":   {in: slice("shop", "manual", "224.0.0.1"), reject: true},
		"Node":        {in: slice("shop", "manual", "192.0.2.7"), reject: true},
		"NotAnIP":     {in: slice("shop", "manual", "localhost"), reject: true},
	} {
		t.Run(name, func(t *testing.T) {
			ops, err := decide(t, resources.EndpointSlices(), w, tc.in.Namespace, "s", tc.in, nil)
			switch {
			case tc.reject:
				rejectedWith(t, ops, err, "EndpointForbidden")
			case tc.none:
				if len(ops) > 0 || err != nil {
					t.Errorf("got %s, %v; want nothing", encode(t, ops), err)
				}
			default:
				got := created[*discoveryv1.EndpointSlice](t, ops, err)
				want := []discoveryv1.Endpoint{{Addresses: tc.in.Endpoints[0].Addresses, NodeName: tc.in.Endpoints[0].NodeName, Conditions: tc.in.Endpoints[0].Conditions}}
				if diff := cmp.Diff(want, got.Endpoints); diff != "" {
					t.Errorf("-want +got\n%s", diff)
				}
				if got.Labels[discoveryv1.LabelManagedBy] == tc.in.Labels[discoveryv1.LabelManagedBy] || got.Labels[discoveryv1.LabelServiceName] != tc.in.Labels[discoveryv1.LabelServiceName] {
					t.Errorf("labels are %v", got.Labels)
				}
			}
		})
	}
}
