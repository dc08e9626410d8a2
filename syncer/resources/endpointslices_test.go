package resources_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
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
	external := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "external"}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName}}
	waiting := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "waiting", UID: "w"}}
	operators := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: names.SuperNamespace(tenantID, "shop"), Name: "waiting", UID: "operators"}}
	w := world{
		tenant: []resource.Object{manual, selecting, external, kubernetes, waiting},
		super:  append(replicas(manual, selecting, external, kubernetes), operators), nodes: []string{"192.0.2.7"},
	}
	computed := func(s *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
		s.Labels[discoveryv1.LabelManagedBy] = "endpointslice-controller.k8s.io"
		return s
	}
	w.facts.Opaque = []string{"kubernetes.io/"} // the service must be named all the same
	for name, tc := range map[string]struct {
		in     *discoveryv1.EndpointSlice
		reject bool
		none   bool
		waits  bool
	}{
		"External":  {in: slice("shop", "manual", "203.0.113.9")},
		"Left":      {in: computed(slice("shop", "manual", "203.0.113.9"))},
		"Second":    {in: slice("shop", "selecting", "203.0.113.9")},
		"Selecting": {in: computed(slice("shop", "selecting", "203.0.113.9")), none: true},
		"Elsewhere": {in: slice("shop", "external", "203.0.113.9"), none: true},
		"NoService": {in: slice("shop", "missing", "203.0.113.9"), none: true},
		"Operators": {in: slice("shop", "waiting", "203.0.113.9"), waits: true},
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
			// What is forbidden is told and left out, and nothing else with it.
			allowed := tc.in.Endpoints[0]
			if tc.reject {
				allowed = slice("", "", "203.0.113.10").Endpoints[0]
				tc.in.Endpoints = append(tc.in.Endpoints, allowed)
			}
			ops, err := decide(t, resources.EndpointSlices(), w, tc.in.Namespace, "s", tc.in, nil)
			if tc.waits {
				if wait, waits := resource.AsWait(err); !waits || wait.Told == nil || len(ops) > 0 {
					t.Errorf("got %s, %v; want it to wait", encode(t, ops), err)
				}
				return
			}
			if tc.none {
				if len(ops) > 0 || err != nil {
					t.Errorf("got %s, %v; want nothing", encode(t, ops), err)
				}
				return
			}
			if tc.reject {
				if r, ok := resource.AsReject(err); !ok || r.Reason != "EndpointForbidden" {
					t.Errorf("got %v; want a rejection", err)
				}
				err = nil
			}
			got := created[*discoveryv1.EndpointSlice](t, ops, err)
			want := []discoveryv1.Endpoint{{Addresses: allowed.Addresses, NodeName: allowed.NodeName, Conditions: allowed.Conditions}}
			if diff := cmp.Diff(want, got.Endpoints); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if got.Labels[discoveryv1.LabelManagedBy] == tc.in.Labels[discoveryv1.LabelManagedBy] || got.Labels[discoveryv1.LabelServiceName] != tc.in.Labels[discoveryv1.LabelServiceName] {
				t.Errorf("labels are %v", got.Labels)
			}
		})
	}
}

// What the super cluster computed from a selector goes with the selector.
func TestSlicesThatAreLeftGo(t *testing.T) {
	without := func(s *corev1.Service) { s.Spec.Selector = nil }
	computed := func(edit func(*discoveryv1.EndpointSlice)) *discoveryv1.EndpointSlice {
		s := slice("shop", "web", "203.0.113.9")
		s.Namespace = names.SuperNamespace(tenantID, "shop")
		s.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Service", Name: "web", UID: "super"}}
		s.Labels[discoveryv1.LabelManagedBy], s.Labels[names.LabelTenant] = "endpointslice-controller.k8s.io", string(tenantID)
		edit(s)
		return s
	}
	for name, tc := range map[string]struct {
		super *corev1.Service
		edit  func(*discoveryv1.EndpointSlice)
		goes  bool
	}{
		"Left":        {superService(without), func(*discoveryv1.EndpointSlice) {}, true},
		"Selects":     {superService(), func(*discoveryv1.EndpointSlice) {}, false},
		"Predecessor": {superService(without), func(s *discoveryv1.EndpointSlice) { s.OwnerReferences[0].UID = "older" }, false},
		"ByHand":      {superService(without), func(s *discoveryv1.EndpointSlice) { delete(s.Labels, discoveryv1.LabelManagedBy) }, false},
		"Others":      {superService(without), func(s *discoveryv1.EndpointSlice) { s.Labels[names.LabelTenant] = "other" }, false},
		"Elsewhere":   {superService(without), func(s *discoveryv1.EndpointSlice) { s.Labels[discoveryv1.LabelServiceName] = "other" }, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := ranged()
			left := computed(tc.edit)
			w.super = []resource.Object{left}
			ops, err := decide(t, resources.Services(), w, "shop", "web", service(without), tc.super)
			if err != nil {
				t.Fatal(err)
			}
			goes := slices.ContainsFunc(ops, func(op resource.Op) bool {
				return op.Side == resource.Super && op.Verb == resource.Delete && op.Object == resource.Object(left)
			})
			if goes != tc.goes {
				t.Errorf("got %s", encode(t, ops))
			}
		})
	}
}
