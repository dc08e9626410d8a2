package resources_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtualcluster-io/virtualcluster/internal/iprange"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/resources"
)

func service(edit ...func(*corev1.Service)) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "u", ResourceVersion: "3"},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: "10.112.0.5", ClusterIPs: []string{"10.112.0.5"},
			Selector: map[string]string{"app": "web"},
			Ports:    []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP}},
		},
	}
	for _, f := range edit {
		f(s)
	}
	return s
}

func superService(edit ...func(*corev1.Service)) *corev1.Service {
	s := service(edit...)
	s.ObjectMeta = replicaMeta("shop", "web", "u")
	return s
}

func nodePort(p int32) func(*corev1.Service) {
	return func(s *corev1.Service) { s.Spec.Type, s.Spec.Ports[0].NodePort = corev1.ServiceTypeNodePort, p }
}

func address(ip string) func(*corev1.Service) {
	return func(s *corev1.Service) { s.Spec.ClusterIP, s.Spec.ClusterIPs = ip, []string{ip} }
}

// families makes a Service one of the given families, with these addresses.
func families(policy corev1.IPFamilyPolicy, ips ...string) func(*corev1.Service) {
	return func(s *corev1.Service) {
		s.Spec.ClusterIP, s.Spec.ClusterIPs, s.Spec.IPFamilyPolicy = "", ips, &policy
		if len(ips) > 0 {
			s.Spec.ClusterIP = ips[0]
		}
		s.Spec.IPFamilies = slices.Clone([]corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}[:max(len(ips), 1)])
	}
}

// ranged is the world of a tenant with ranges of its own.
func ranged() world {
	return world{facts: resource.Facts{ServiceRanges: iprange.MustParse("10.112.0.0/22,fd00:1::/112")}}
}

func TestServicesDown(t *testing.T) {
	headless := func(s *corev1.Service) { s.Spec.ClusterIP, s.Spec.ClusterIPs = "None", []string{"None"} }
	for name, tc := range map[string]struct {
		reason string
		world  world
		in     *corev1.Service
		want   corev1.ServiceSpec
	}{
		"OwnRange":    {"the tenant chose the address", ranged(), service(), service().Spec},
		"SharedRange": {"the address is nearly always free", world{}, service(), service().Spec},
		"SharedRangeHeld": {"the super cluster has chosen", world{super: []resource.Object{superService(address("10.96.7.7"))}}, service(),
			service(func(s *corev1.Service) { s.Spec.ClusterIP, s.Spec.ClusterIPs = "", nil }).Spec},
		"Headless": {"stays headless", ranged(), service(headless), service(headless).Spec},
		"DualStack": {"the tenant chose both addresses", ranged(),
			service(families(corev1.IPFamilyPolicyPreferDualStack, "10.112.0.5", "fd00:1::5")),
			service(families(corev1.IPFamilyPolicyPreferDualStack, "10.112.0.5", "fd00:1::5")).Spec},
		"DualStackSharedRange": {"the super cluster chooses as many", world{super: []resource.Object{superService(address("10.96.7.7"))}},
			service(families(corev1.IPFamilyPolicyRequireDualStack, "10.112.0.5", "fd00:1::5")),
			service(families(corev1.IPFamilyPolicyRequireDualStack, "10.112.0.5", "fd00:1::5"), func(s *corev1.Service) { s.Spec.ClusterIP, s.Spec.ClusterIPs = "", nil }).Spec},
		"PreferredDualStack": {"the tenant's cluster has one family, so the super Service has one", ranged(),
			service(families(corev1.IPFamilyPolicyPreferDualStack, "10.112.0.5")),
			service(families(corev1.IPFamilyPolicySingleStack, "10.112.0.5")).Spec},
		"NodePort": {"the tenant chose the port", ranged(), service(nodePort(30123)), service(nodePort(30123)).Spec},
		"LoadBalancerFields": {"who gets which address is the operator's (attack N-02)", ranged(),
			service(func(s *corev1.Service) {
				s.Spec.LoadBalancerIP, s.Spec.HealthCheckNodePort = "192.0.2.1", 30999
			}), service().Spec},
	} {
		t.Run(name, func(t *testing.T) {
			ops, err := decide(t, resources.Services(), tc.world, "shop", "web", tc.in, nil)
			got := created[*corev1.Service](t, ops, err)
			if diff := cmp.Diff(tc.want, got.Spec); diff != "" {
				t.Errorf("%s: -want +got\n%s", tc.reason, diff)
			}
		})
	}
	// Attack N-01.
	ops, err := decide(t, resources.Services(), ranged(), "shop", "web", service(func(s *corev1.Service) { s.Spec.ExternalIPs = []string{"10.96.0.10"} }), nil)
	rejectedWith(t, ops, err, "ExternalIPs")
}

// Only DNS reads an external name, and that is the tenant's own. In the super cluster an ingress controller would lead to it.
func TestServicesOfTypeExternalNameStayInTheTenant(t *testing.T) {
	external := service(func(s *corev1.Service) {
		s.Spec = corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "kubernetes.default.svc"}
	})
	if ops, err := decide(t, resources.Services(), ranged(), "shop", "web", external, nil); len(ops) > 0 || err != nil {
		t.Errorf("got %s, %v", encode(t, ops), err)
	}
	for name, super := range map[string]*corev1.Service{"HadAnAddress": superService(), "WasExternal": superService(func(s *corev1.Service) { s.Spec = external.Spec })} {
		t.Run(name, func(t *testing.T) {
			ops, err := decide(t, resources.Services(), ranged(), "shop", "web", external, super)
			if err != nil || len(ops) != 1 || ops[0].Verb != resource.Delete || ops[0].Why != resource.Unwanted || ops[0].Object != resource.Object(super) {
				t.Errorf("got %s, %v; want that the replica goes", encode(t, ops), err)
			}
		})
	}
}

// A Service that runs keeps following the tenant's when an external IP is added, which is refused.
func TestServicesFollowBesideExternalIPs(t *testing.T) {
	super := superService()
	in := service(func(s *corev1.Service) {
		s.Spec.ExternalIPs, s.Spec.Selector = []string{"10.96.0.10"}, map[string]string{"app": "green"}
		s.Spec.Type, s.Spec.ExternalTrafficPolicy = corev1.ServiceTypeClusterIP, corev1.ServiceExternalTrafficPolicyCluster // as the API server does
	})
	ops, err := decide(t, resources.Services(), ranged(), "shop", "web", in, super)
	if reject, ok := resource.AsReject(err); !ok || reject.Reason != "ExternalIPs" {
		t.Errorf("error is %v", err)
	}
	got := patched(t, super, resource.Super, ops)
	if got.Spec.Selector["app"] != "green" || len(got.Spec.ExternalIPs) > 0 || got.Spec.ExternalTrafficPolicy != "" { // which would be refused
		t.Errorf("got %s", encode(t, got.Spec))
	}
}

// A Service that another balancer serves must not cost the operator one.
func TestServicesWithABalancerOfTheTenant(t *testing.T) {
	class, no := "example.com/own", false
	own := func(s *corev1.Service) {
		s.Spec.Type, s.Spec.LoadBalancerClass = corev1.ServiceTypeLoadBalancer, &class
		s.Spec.LoadBalancerSourceRanges = []string{"192.0.2.0/24"}
		s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
		s.Annotations = map[string]string{corev1.AnnotationLoadBalancerSourceRangesKey: "192.0.2.0/24"}
		s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "192.0.2.9"}}
	}
	withPort := func(s *corev1.Service) { s.Spec.Ports[0].NodePort = 30001 }
	withoutPorts := func(s *corev1.Service) { s.Spec.AllocateLoadBalancerNodePorts = &no }
	balanced := func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeLoadBalancer }
	local := func(s *corev1.Service) { s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal }
	for name, tc := range map[string]struct {
		in   *corev1.Service
		want corev1.ServiceSpec
	}{
		"NodePorts":   {service(own, withPort), service(nodePort(30001), local).Spec},
		"NoNodePorts": {service(own, withoutPorts), service().Spec},
	} {
		t.Run(name, func(t *testing.T) {
			ops, err := decide(t, resources.Services(), ranged(), "shop", "web", tc.in, nil)
			got := created[*corev1.Service](t, ops, err)
			if diff := cmp.Diff(tc.want, got.Spec); diff != "" || got.Annotations[corev1.AnnotationLoadBalancerSourceRangesKey] != "" {
				t.Errorf("annotations %v; -want +got\n%s", got.Annotations, diff)
			}
			for _, super := range []*corev1.Service{superService(balanced, withPort), superService(nodePort(31000)), superService()} {
				ops, err = decide(t, resources.Services(), ranged(), "shop", "web", tc.in, super)
				if diff := cmp.Diff(tc.want, patched(t, super, resource.Super, ops).Spec); diff != "" || err != nil {
					t.Errorf("%v, from %s: -want +got\n%s", err, super.Spec.Type, diff)
				}
				if got := patched(t, tc.in, resource.Tenant, ops); !cmp.Equal(got.Status, tc.in.Status) {
					t.Errorf("the status that the tenant's controller wrote becomes %v", got.Status)
				}
			}
		})
	}
}

// An annotation for a load balancer may say who reaches it. Without it the balancer would be open, so there is none.
func TestLoadBalancersWithAnnotations(t *testing.T) {
	const internal = "service.beta.kubernetes.io/aws-load-balancer-internal"
	allowed := ranged()
	allowed.facts.Metadata = []resource.Metadata{{Kind: "services", Annotations: []string{internal}}}
	opaque := ranged()
	opaque.facts.Opaque = []string{"service.beta.kubernetes.io/"}
	balanced := func(key string) *corev1.Service {
		return service(nodePort(30001), func(s *corev1.Service) {
			s.Spec.Type, s.Annotations = corev1.ServiceTypeLoadBalancer, map[string]string{key: "x"}
			s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "192.0.2.9"}}
		})
	}
	for name, tc := range map[string]struct {
		world     world
		key       string
		want      corev1.ServiceType
		annotated bool
	}{
		"Unknown":  {ranged(), internal, corev1.ServiceTypeNodePort, false},
		"Allowed":  {allowed, internal, corev1.ServiceTypeLoadBalancer, true},
		"Harmless": {ranged(), "example.com/note", corev1.ServiceTypeLoadBalancer, false},
		"DNS":      {ranged(), "external-dns.alpha.kubernetes.io/hostname", corev1.ServiceTypeLoadBalancer, false},
		"Sources":  {ranged(), corev1.AnnotationLoadBalancerSourceRangesKey, corev1.ServiceTypeLoadBalancer, true},
		"Topology": {ranged(), corev1.AnnotationTopologyMode, corev1.ServiceTypeLoadBalancer, true},
		"Admins":   {opaque, internal, corev1.ServiceTypeLoadBalancer, false},
		"Pool":     {ranged(), "metallb.io/address-pool", corev1.ServiceTypeNodePort, false},
	} {
		t.Run(name, func(t *testing.T) {
			in := balanced(tc.key)
			ops, err := decide(t, resources.Services(), tc.world, "shop", "web", in, nil)
			made := created[*corev1.Service](t, ops, err)
			if _, annotated := made.Annotations[tc.key]; made.Spec.Type != tc.want || annotated != tc.annotated {
				t.Errorf("it is a %s with %v", made.Spec.Type, made.Annotations)
			}
			made.UID = "super"
			ops, err = decide(t, resources.Services(), tc.world, "shop", "web", in, made)
			r, rejected := resource.AsReject(err)
			if rejected != (tc.want != corev1.ServiceTypeLoadBalancer) || rejected && (r.Reason != "AnnotationNotAllowed" || !strings.Contains(r.Message, tc.key)) {
				t.Errorf("it is told %v", err)
			}
			if got := patched(t, in, resource.Tenant, ops); len(got.Status.LoadBalancer.Ingress) > 0 {
				t.Errorf("status is %v", got.Status)
			}
		})
	}
}

// An address that is not of the tenant's own ranges is never asked for, nor replaced silently.
func TestServicesWithForeignAddresses(t *testing.T) {
	kubernetes := func(ip string) *corev1.Service {
		s := service(address(ip))
		s.Namespace, s.Name, s.UID = "default", "kubernetes", "api"
		return s
	}
	w := ranged()
	w.tenant = []resource.Object{kubernetes("10.112.0.1")}
	for name, in := range map[string]*corev1.Service{
		"OutOfRange":       service(address("10.96.0.10")),
		"SecondOutOfRange": service(families(corev1.IPFamilyPolicyRequireDualStack, "10.112.0.5", "fd00:9::5")),
		"BothOutOfRange":   service(families(corev1.IPFamilyPolicyRequireDualStack, "10.96.0.5", "fd00:9::5")),
	} {
		t.Run(name, func(t *testing.T) {
			ops, err := decide(t, resources.Services(), w, "shop", "web", in, nil)
			if _, waits := resource.AsWait(err); !waits || len(ops) != 3 || ops[2].Verb != resource.Record {
				t.Fatalf("got %s, %v", encode(t, ops), err)
			}
			got := patched(t, in, resource.Tenant, ops)
			if !w.facts.ServiceRanges.Contains(got.Spec.ClusterIPs...) || len(got.Spec.ClusterIPs) != len(in.Spec.ClusterIPs) || got.Spec.ClusterIP != got.Spec.ClusterIPs[0] {
				t.Errorf("it gets %v", got.Spec.ClusterIPs)
			}
			if w.facts.ServiceRanges.Contains(in.Spec.ClusterIP) && got.Spec.ClusterIP != in.Spec.ClusterIP {
				t.Errorf("an address of the range became %s", got.Spec.ClusterIP)
			}
			// Another service may get the address before this one does.
			between := patched(t, in, resource.Tenant, ops[:1])
			other := service(families(corev1.IPFamilyPolicyPreferDualStack, got.Spec.ClusterIPs...))
			other.Name, other.UID = "other", "other"
			taken := w
			taken.tenant = []resource.Object{other, w.tenant[0]}
			ops, _ = decide(t, resources.Services(), taken, "shop", "web", between, nil)
			again := patched(t, between, resource.Tenant, ops)
			for _, ip := range again.Spec.ClusterIPs {
				if slices.Contains(got.Spec.ClusterIPs, ip) || !w.facts.ServiceRanges.Contains(ip) {
					t.Errorf("it gets %v, others have %v", again.Spec.ClusterIPs, got.Spec.ClusterIPs)
				}
			}
		})
	}
	full := world{facts: resource.Facts{ServiceRanges: iprange.MustParse("10.112.0.0/28")}, tenant: w.tenant}
	noSuchFamily := world{facts: resource.Facts{ServiceRanges: iprange.MustParse("10.112.0.0/22")}, tenant: w.tenant}
	// An API server that has other ranges than its VirtualCluster says would refuse any other address.
	wrong := ranged()
	wrong.tenant = []resource.Object{kubernetes("10.96.0.1")}
	for name, tc := range map[string]struct {
		w  world
		in *corev1.Service
	}{
		"APIServer": {ranged(), kubernetes("10.96.0.1")},
		"Wrong":     {wrong, service(address("10.96.0.10"))},
		"Full":      {full, service(address("10.96.0.10"))},
		"NoFamily":  {noSuchFamily, service(families(corev1.IPFamilyPolicyRequireDualStack, "10.112.0.5", "fd00:9::5"))},
	} {
		t.Run(name, func(t *testing.T) {
			ops, err := decide(t, resources.Services(), tc.w, tc.in.Namespace, tc.in.Name, tc.in, nil)
			rejectedWith(t, ops, err, "ClusterIPOutOfRange")
		})
	}
}

// The tenant can write the note by which a Service gets its spec back, too.
func TestServicesWithNotesByHand(t *testing.T) {
	for _, note := range []string{"x", `{"clusterIP":"10.112.0.9"}`, `{"clusterIP":"10.112.0.9","clusterIPs":["10.112.0.8"]}`} {
		broken := service(noted(note), func(s *corev1.Service) {
			s.Spec = corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "being.readdressed.invalid"}
		})
		ops, err := decide(t, resources.Services(), ranged(), "shop", "web", broken, nil)
		rejectedWith(t, ops, err, "ReaddressingFailed")
		for _, super := range []*corev1.Service{nil, superService()} { // a Service that has an address is not getting another one
			by := service(noted(note))
			ops, err = decide(t, resources.Services(), ranged(), "shop", "web", by, super)
			if _, waits := resource.AsWait(err); !waits {
				t.Errorf("note %s: %v", note, err)
			}
			if diff := cmp.Diff(service(noted("")), patched(t, by, resource.Tenant, ops), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("note %s: -want +got\n%s", note, diff)
			}
		}
	}
}

// A tenant that shares a range gets the address that the super cluster chooses when its own choice is in use there, or is of a range
// that the super cluster does not have.
func TestServicesThatShareARange(t *testing.T) {
	ops, err := decide(t, resources.Services(), world{}, "shop", "web", service(), nil)
	want := created[*corev1.Service](t, ops, err).DeepCopy()
	want.Spec.ClusterIP, want.Spec.ClusterIPs = "", nil
	for _, message := range []string{
		`Service "web" is invalid: spec.clusterIPs: Invalid value: ["10.112.0.5"]: failed to allocate IP 10.112.0.5: provided IP is already allocated`,
		`Service "web" is invalid: spec.clusterIPs: Invalid value: ["10.112.0.5"]: failed to allocate IP 10.112.0.5: the provided network does not match the current range`,
	} {
		again, err := resources.Services().Refused(world{}.view(), service(), nil, ops[0], message)
		got := created[*corev1.Service](t, again, err)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("after %q: -want +got\n%s", message, diff)
		}
		if again, err := resources.Services().Refused(world{}.view(), service(), nil, again[0], message); len(again) > 0 || err != nil {
			t.Errorf("after the second refusal: %s, %v", encode(t, again), err)
		}
	}
	if again, err := resources.Services().Refused(world{}.view(), service(), nil, ops[0], "spec.ports: Required value"); len(again) > 0 || err != nil {
		t.Errorf("what no other address mends: %s, %v", encode(t, again), err)
	}
}

// An address that the tenant gives from one Service to another is free once the replica of the first is gone.
func TestServicesThatGetTheAddressOfADeletedOne(t *testing.T) {
	const taken = `Service "web" is invalid: spec.clusterIPs: Invalid value: ["10.112.0.5"]: failed to allocate IP 10.112.0.5: provided IP is already allocated`
	old := superNamed("shop", "old", "u-old", address("10.112.0.5"))
	ops, err := decide(t, resources.Services(), ranged(), "shop", "web", service(), nil)
	created[*corev1.Service](t, ops, err)
	for name, tc := range map[string]struct {
		world world
		waits bool
	}{
		"Leaving":  {world{facts: ranged().facts, super: []resource.Object{old}}, true},
		"Shared":   {world{super: []resource.Object{old}}, true},
		"Replaced": {world{facts: ranged().facts, super: []resource.Object{old}, tenant: []resource.Object{named("shop", "old")}}, true},
		"Another":  {world{facts: ranged().facts, super: []resource.Object{superNamed("shop", "old", "u-old", address("10.112.0.6"))}}, false},
		"Nobodys":  {ranged(), false},
	} {
		after, err := resources.Services().Refused(tc.world.view(), service(), nil, ops[0], taken)
		if _, waits := resource.AsWait(err); waits != tc.waits || waits == (len(after) > 0) {
			t.Errorf("%s: got %s, %v", name, encode(t, after), err)
		}
	}
}

// noted puts a note on a Service, or none.
func noted(note string) func(*corev1.Service) {
	return func(s *corev1.Service) {
		s.Annotations = map[string]string{}
		if note != "" {
			s.Annotations[names.AnnotationReaddress] = note
		}
	}
}

// refused returns what follows when the super cluster refuses a Service.
func refused(t *testing.T, w world, tenant *corev1.Service, super resource.Object, message string) []resource.Op {
	t.Helper()
	ops, err := resources.Services().Refused(w.view(), tenant, super, resource.Op{}, message)
	if err != nil {
		t.Fatal(err)
	}
	return ops
}

func TestServicesMergeKeepsWhatWasAllocated(t *testing.T) {
	for name, tc := range map[string]struct {
		tenant, super, want *corev1.Service
		world               world
	}{
		"InSync":        {service(), superService(), superService(), ranged()},
		"NodePortStays": {service(nodePort(31000)), superService(nodePort(31000)), superService(nodePort(31000)), ranged()},
		"NodePortMoves": {service(nodePort(31001)), superService(nodePort(31000)), superService(nodePort(31001)), ranged()},
		"AddressStays":  {service(address("10.96.7.7")), superService(address("10.96.7.7")), superService(address("10.96.7.7")), world{}},
		"PortChanges": {
			service(func(s *corev1.Service) { s.Spec.Ports[0].Port = 81 }), superService(),
			superService(func(s *corev1.Service) { s.Spec.Ports[0].Port = 81 }), ranged(),
		},
		"BecomesDualStack": {
			service(families(corev1.IPFamilyPolicyPreferDualStack, "10.112.0.5", "fd00:1::5")),
			superService(families(corev1.IPFamilyPolicySingleStack, "10.112.0.5")),
			superService(families(corev1.IPFamilyPolicyPreferDualStack, "10.112.0.5", "fd00:1::5")), ranged(),
		},
		"BecomesSingleStack": {
			service(families(corev1.IPFamilyPolicySingleStack, "10.96.7.7")),
			superService(families(corev1.IPFamilyPolicyPreferDualStack, "10.96.7.7", "fd00:9::7")),
			superService(families(corev1.IPFamilyPolicySingleStack, "10.96.7.7")), world{},
		},
		"BecomesClusterIP": {service(), superService(nodePort(31000)), superService(), ranged()},
	} {
		t.Run(name, func(t *testing.T) {
			ops, err := decide(t, resources.Services(), tc.world, "shop", "web", tc.tenant, tc.super)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want.Spec, patched(t, tc.super, resource.Super, ops).Spec); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestServicesUp(t *testing.T) {
	balanced := func(s *corev1.Service) {
		s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "192.0.2.9"}}
	}
	for name, tc := range map[string]struct {
		tenant, super, want *corev1.Service
		world               world
	}{
		"NodePort": {service(nodePort(30001)), superService(nodePort(31000)), service(nodePort(30001)), ranged()},
		"Status":   {service(), superService(balanced), service(balanced), ranged()},
		// Attack N-02: a status that the tenant writes is overwritten.
		"ForgedStatus": {service(balanced), superService(), service(), ranged()},
		"Adopts":       {service(), superService(address("10.96.7.7")), service(address("10.96.7.7")), world{}},
		"AdoptsBoth": {
			service(families(corev1.IPFamilyPolicyPreferDualStack, "10.96.0.5", "fd00:1::5")),
			superService(families(corev1.IPFamilyPolicyPreferDualStack, "10.96.7.7", "fd00:1::7")),
			service(families(corev1.IPFamilyPolicyPreferDualStack, "10.96.7.7", "fd00:1::7")), world{},
		},
		"WaitsForTheSecond": {
			service(families(corev1.IPFamilyPolicyPreferDualStack, "10.96.0.5", "fd00:1::5")),
			superService(families(corev1.IPFamilyPolicySingleStack, "10.96.7.7")),
			service(families(corev1.IPFamilyPolicyPreferDualStack, "10.96.0.5", "fd00:1::5")), world{},
		},
	} {
		t.Run(name, func(t *testing.T) {
			ops, err := decide(t, resources.Services(), tc.world, "shop", "web", tc.tenant, tc.super)
			if err != nil {
				t.Fatal(err)
			}
			got := patched(t, tc.tenant, resource.Tenant, ops)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestServiceGetsAnotherAddress(t *testing.T) {
	w := ranged()
	taken := `Service "web" is invalid: spec.clusterIPs: Invalid value: ["10.112.0.5"]: failed to allocate IP 10.112.0.5: provided IP is already allocated`
	ops := refused(t, w, service(nodePort(30001)), nil, taken)
	if len(ops) != 3 || ops[2].Verb != resource.Record {
		t.Fatalf("got %s", encode(t, ops))
	}
	between := patched(t, service(nodePort(30001)), resource.Tenant, ops[:1])
	if between.Spec.Type != corev1.ServiceTypeExternalName || between.Spec.ClusterIP != "" || between.Annotations[names.AnnotationReaddress] == "" {
		t.Errorf("between the steps it is %s", encode(t, between))
	}
	want := service(nodePort(0), func(s *corev1.Service) { s.Spec.ClusterIP, s.Spec.ClusterIPs = "", nil })
	if diff := cmp.Diff(want.Spec, patched(t, service(nodePort(30001)), resource.Tenant, ops).Spec); diff != "" {
		t.Errorf("afterwards: -want +got\n%s", diff)
	}
	// A syncer that starts in between finishes, and the super cluster sees nothing of it.
	resumed, err := decide(t, resources.Services(), w, "shop", "web", between, superService())
	if _, waits := resource.AsWait(err); !waits {
		t.Errorf("in between: %v", err)
	}
	if diff := cmp.Diff(want.Spec, patched(t, between, resource.Tenant, resumed).Spec); diff != "" {
		t.Errorf("resumed: -want +got\n%s", diff)
	}
	port := `Service "web" is invalid: spec.ports[0].nodePort: Invalid value: 30001: provided port is already allocated`
	for _, super := range []resource.Object{nil, superService(nodePort(30009))} {
		ops = refused(t, w, service(nodePort(30001)), super, port)
		if diff := cmp.Diff(service(nodePort(0)).Spec, patched(t, service(nodePort(30001)), resource.Tenant, ops).Spec); diff != "" {
			t.Errorf("a node port that is taken: -want +got\n%s", diff)
		}
	}
	both := service(families(corev1.IPFamilyPolicyPreferDualStack, "10.112.0.5", "fd00:1::5"))
	ops = refused(t, w, both, nil, `Service "web" is invalid: spec.clusterIPs: Invalid value: ["10.112.0.5","fd00:1::5"]: failed to allocate IP fd00:1::5: provided IP is already allocated`)
	got := patched(t, both, resource.Tenant, ops).Spec
	if got.ClusterIP != "" || len(got.ClusterIPs) > 0 || len(got.IPFamilies) != 2 {
		t.Errorf("a second address that is taken leads to %s", encode(t, ops))
	}
	ops = refused(t, w, both, nil, port)
	if got := patched(t, both, resource.Tenant, ops).Spec; !slices.Equal(got.ClusterIPs, both.Spec.ClusterIPs) {
		t.Errorf("a node port that is taken changes the addresses to %v", got.ClusterIPs)
	}
	if ops := refused(t, w, service(), nil, "exceeded quota"); len(ops) > 0 {
		t.Errorf("another refusal leads to %s", encode(t, ops))
	}
	immutable := `Service "web" is invalid: spec.clusterIPs[0]: Invalid value: ["10.112.0.5"]: may not change once set`
	ops = refused(t, w, service(), superService(address("10.112.0.9")), immutable)
	if len(ops) != 1 || ops[0].Verb != resource.Delete || ops[0].Side != resource.Super {
		t.Errorf("an address that cannot be changed leads to %s", encode(t, ops))
	}
}

// named is a Service of a name, and superNamed its replica.
func named(namespace, name string, edit ...func(*corev1.Service)) *corev1.Service {
	s := service(edit...)
	s.Namespace, s.Name = namespace, name
	return s
}

func superNamed(namespace, name, uid string, edit ...func(*corev1.Service)) *corev1.Service {
	s := service(edit...)
	s.ObjectMeta = replicaMeta(namespace, name, uid)
	return s
}

// rangeOf marks a Service as one by which the tenant has its range.
func rangeOf(s *corev1.Service) *corev1.Service {
	s.Labels[names.LabelServiceRange], s.Annotations[names.AnnotationServiceRange] = "true", "10.112.0.0/22"
	return s
}

// Every pod has the addresses of the API server and of DNS for as long as it lives, and the tenant has its range by Services
// with a label.
func TestServicesThatStay(t *testing.T) {
	headless := func(s *corev1.Service) { s.Spec.ClusterIP, s.Spec.ClusterIPs = "None", []string{"None"} }
	external := func(s *corev1.Service) {
		s.Spec = corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "example.com"}
	}
	for name, tc := range map[string]struct {
		namespace, name string
		super           *corev1.Service
		stays           bool
	}{
		"APIServer": {"default", "kubernetes", superNamed("default", "kubernetes", "old"), true},
		"DNS":       {"kube-system", "kube-dns", superNamed("kube-system", "kube-dns", "old"), true},
		"Ahead":     {"kube-system", "kube-dns", rangeOf(superNamed("kube-system", "kube-dns", names.UIDAhead)), true},
		"Claim":     {"shop", "web", rangeOf(superNamed("shop", "web", "old")), true},
		"Another":   {"shop", "web", superNamed("shop", "web", "old"), false},
		"Namesake":  {"shop", "kubernetes", superNamed("shop", "kubernetes", "old"), false},
		"Headless":  {"kube-system", "kube-dns", superNamed("kube-system", "kube-dns", "old", headless), false},
	} {
		t.Run(name, func(t *testing.T) {
			for what, tenant := range map[string]*corev1.Service{"absent": nil, "unwanted": named(tc.namespace, tc.name, external)} {
				ops, err := decide(t, resources.Services(), ranged(), tc.namespace, tc.name, tenant, tc.super)
				if err != nil || tc.stays != (len(ops) == 0) {
					t.Errorf("its origin is %s: got %s, %v", what, encode(t, ops), err)
				}
			}
			tenant := named(tc.namespace, tc.name, func(s *corev1.Service) { s.Spec.Selector = map[string]string{"app": "green"} })
			ops, err := decide(t, resources.Services(), ranged(), tc.namespace, tc.name, tenant, tc.super)
			if err != nil || len(ops) != 1 {
				t.Fatalf("its origin is another one: got %s, %v", encode(t, ops), err)
			}
			if !tc.stays {
				if ops[0].Verb != resource.Delete {
					t.Errorf("its origin is another one: got %s", encode(t, ops))
				}
				return
			}
			got := patched(t, tc.super, resource.Super, ops)
			if got.Annotations[names.AnnotationUID] != "u" || got.Spec.Selector["app"] != "green" || got.Labels[names.LabelServiceRange] != tc.super.Labels[names.LabelServiceRange] {
				t.Errorf("it becomes %s", encode(t, got))
			}
		})
	}
}

// What stays for a Service that is an external name now has no status that such a Service could have.
func TestServicesThatStayForExternalNames(t *testing.T) {
	in := named("kube-system", "kube-dns", func(s *corev1.Service) {
		s.Spec = corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "example.com"}
	})
	super := superNamed("kube-system", "kube-dns", "u", nodePort(31000), func(s *corev1.Service) {
		s.Spec.Type = corev1.ServiceTypeLoadBalancer
		s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "192.0.2.9"}}
	})
	if ops, err := decide(t, resources.Services(), ranged(), "kube-system", "kube-dns", in, super); len(ops) > 0 || err != nil {
		t.Errorf("got %s, %v", encode(t, ops), err)
	}
}

// A tenant can neither give its Services the mark of those that stay, nor take it away.
func TestServicesCannotMarkThemselves(t *testing.T) {
	forged := service(func(s *corev1.Service) {
		s.Labels = map[string]string{names.LabelServiceRange: "true"}
		s.Annotations = map[string]string{names.AnnotationServiceRange: "10.0.0.0/8", names.AnnotationUID: names.UIDAhead}
	})
	w := ranged()
	w.facts.Metadata = []resource.Metadata{{Kind: resource.AnyKind, Labels: []string{names.Prefix}, Annotations: []string{names.Prefix}}}
	ops, err := decide(t, resources.Services(), w, "shop", "web", forged, nil)
	made := created[*corev1.Service](t, ops, err)
	if made.Labels[names.LabelServiceRange] != "" || made.Annotations[names.AnnotationServiceRange] != "" || made.Annotations[names.AnnotationUID] != "u" {
		t.Errorf("it has %v, %v", made.Labels, made.Annotations)
	}
	forged.Labels[names.LabelServiceRange] = ""
	super := rangeOf(superService())
	ops, err = decide(t, resources.Services(), w, "shop", "web", forged, super)
	if got := patched(t, super, resource.Super, ops); err != nil || got.Labels[names.LabelServiceRange] != "true" || got.Annotations[names.AnnotationServiceRange] != "10.112.0.0/22" {
		t.Errorf("it has %v, %v; %v", got.Labels, got.Annotations, err)
	}
}

// What every pod has does not change when somebody else has it, and the API server's never does.
func TestServicesOfTheClusterKeepTheirAddresses(t *testing.T) {
	taken := `Service "x" is invalid: spec.clusterIPs: Invalid value: ["10.112.0.10"]: failed to allocate IP 10.112.0.10: provided IP is already allocated`
	immutable := `Service "x" is invalid: spec.clusterIPs[0]: Invalid value: ["10.112.0.77"]: may not change once set`
	for _, tenant := range []*corev1.Service{named("default", "kubernetes"), named("kube-system", "kube-dns")} {
		ops, err := resources.Services().Refused(ranged().view(), tenant, nil, resource.Op{}, taken)
		rejectedWith(t, ops, err, "ClusterIPTaken")
	}
	// The tenant may choose another address for DNS, or none.
	dns := rangeOf(superNamed("kube-system", "kube-dns", "u", address("10.112.0.10")))
	for _, ip := range []string{"10.112.0.77", "None"} {
		ops := refused(t, ranged(), named("kube-system", "kube-dns", address(ip)), dns, immutable)
		if len(ops) != 1 || ops[0].Verb != resource.Delete || ops[0].Why != resource.Superseded {
			t.Errorf("address %s of DNS leads to %s", ip, encode(t, ops))
		}
	}
	api := named("default", "kubernetes", address("10.112.0.77"))
	for name, tc := range map[string]struct {
		super *corev1.Service
		want  int
	}{
		"Claim": {rangeOf(superNamed("default", "kubernetes", "u", address("10.112.0.1"))), 0},
		"Older": {superNamed("default", "kubernetes", "u", address("10.112.0.1")), 1}, // of a tenant that has its range by a ServiceCIDR
	} {
		if ops := refused(t, ranged(), api, tc.super, immutable); len(ops) != tc.want {
			t.Errorf("%s: another address of the API server leads to %s", name, encode(t, ops))
		}
	}
	w := ranged()
	w.super = []resource.Object{rangeOf(superNamed("default", "kubernetes", "old", address("10.112.0.1")))}
	ops, err := decide(t, resources.Services(), w, "default", "kubernetes", api, w.super[0])
	rejectedWith(t, ops, err, "ClusterIPFixed")
}

// Without a range of the tenant's own, a Service that is getting another address gets what the super cluster has by now.
func TestServiceAdoptsWhatThereIs(t *testing.T) {
	inTenant := func(super resource.Object, of *corev1.Service) []resource.Op {
		w := world{tenant: []resource.Object{of}}
		if super != nil {
			w.super = []resource.Object{super}
		}
		ops, _ := decide(t, resources.Services(), w, "shop", "web", of, super)
		return slices.DeleteFunc(ops, func(op resource.Op) bool { return op.Side == resource.Super })
	}
	ops := inTenant(superService(address("10.96.7.7")), service())
	if len(ops) != 2 || ops[0].IfRefused == nil || ops[1].IfRefused == nil {
		t.Fatalf("got %s; want two operations, and that the tenant is told when its API server refuses one", encode(t, ops))
	}
	between := patched(t, service(), resource.Tenant, ops[:1])
	for name, tc := range map[string]struct {
		super *corev1.Service
		want  []string
	}{
		"Same":         {superService(address("10.96.7.7")), []string{"10.96.7.7"}},
		"Another":      {superService(address("10.96.7.8")), []string{"10.96.7.8"}},
		"BothFamilies": {superService(families(corev1.IPFamilyPolicyPreferDualStack, "10.96.7.7", "fd00:1::7")), nil},
		"Gone":         {nil, nil},
		"Predecessors": {superNamed("shop", "web", "old", address("10.96.7.9")), nil},
	} {
		t.Run(name, func(t *testing.T) {
			var super resource.Object
			if tc.super != nil {
				super = tc.super
			}
			got := patched(t, between, resource.Tenant, inTenant(super, between))
			if diff := cmp.Diff(tc.want, got.Spec.ClusterIPs, cmpopts.EquateEmpty()); diff != "" || got.Spec.Type != corev1.ServiceTypeClusterIP {
				t.Errorf("type %s; -want +got\n%s", got.Spec.Type, diff)
			}
		})
	}
}
