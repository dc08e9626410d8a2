package manager_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/cert"
	"sigs.k8s.io/controller-runtime/pkg/client"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/controllers"
	"github.com/virtualcluster-io/virtualcluster/internal/iprange"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

const rangeCondition = tenancyv1alpha1.ConditionServiceCIDRAllocated

// given waits until a tenant has a range, and returns the tenant and the range.
func (f fixture) given(vc *tenancyv1alpha1.VirtualCluster) (*tenancyv1alpha1.VirtualCluster, iprange.Ranges) {
	f.Helper()
	vc = f.awaitCondition(vc, rangeCondition, metav1.ConditionTrue, "Succeeded", "")
	ranges, err := iprange.Parse(vc.Status.ServiceCIDR)
	if err != nil || len(ranges) == 0 {
		f.Fatalf("status.serviceCidr is %q: %v", vc.Status.ServiceCIDR, err)
	}
	return vc, ranges
}

// claim returns a Service by which a tenant has a range.
func (f fixture) claim(vc *tenancyv1alpha1.VirtualCluster, namespace, name string) *corev1.Service {
	f.Helper()
	tenant := names.TenantID(vc.Status.ClusterNamespace)
	super := vc.Status.ClusterNamespace
	if namespace != "" {
		super = names.SuperNamespace(tenant, namespace)
	}
	service := &corev1.Service{}
	if err := f.Get(f.Context(), client.ObjectKey{Namespace: super, Name: name}, service); err != nil {
		f.Fatalf("Get: %v", err)
	}
	if service.Labels[names.LabelServiceRange] != "true" || service.Labels[names.LabelTenant] != string(tenant) || service.Annotations[names.AnnotationServiceRange] != vc.Status.ServiceCIDR {
		f.Errorf("Service %s/%s has labels %v and annotations %v", super, name, service.Labels, service.Annotations)
	}
	return service
}

// secondRange returns the name of the Service that claims a range of IPv6.
func secondRange(prefix netip.Prefix) string {
	return fmt.Sprintf("service-range-%s-%d", strings.ReplaceAll(prefix.Addr().StringExpanded(), ":", "-"), prefix.Bits())
}

// serviceCIDRsOfTenants returns the ServiceCIDR objects that were made for tenants.
func (f fixture) serviceCIDRsOfTenants() []networkingv1.ServiceCIDR {
	f.Helper()
	var list networkingv1.ServiceCIDRList
	if err := f.List(f.Context(), &list, client.HasLabels{names.LabelTenant}); err != nil {
		f.Fatalf("List: %v", err)
	}
	return list.Items
}

// operatorsService makes a Service of the operator at an address.
func (f fixture) operatorsService(name string, address netip.Addr) *corev1.Service {
	f.Helper()
	service := worlds.Service(tenants, name)
	service.Spec.ClusterIP = address.String()
	f.create(service)
	return service
}

// A tenant has a part of the super cluster's own range, by Services alone, which are there before its control plane.
func TestRangesArePartsOfTheSuperClusters(t *testing.T) {
	t.Parallel()
	super := worlds.Start(t, worlds.Options{SuperControllers: superControllers()}).Super
	f := startManager(t, super)
	refuseServiceCIDRs(f) // as OpenShift does
	f.version("v1", "true")
	vc, ranges := f.given(f.virtualCluster("a", tenancyv1alpha1.VirtualClusterSpec{}))
	if len(ranges) != 2 || ranges[0].Bits() != 26 || ranges[1].Bits() != 120 || !super.ServiceRanges.Contains(ranges[0].Addr().String(), ranges[1].Addr().String()) {
		t.Fatalf("it has %s, want a part of each of %s", ranges, super.ServiceRanges)
	}
	for _, tc := range []struct {
		namespace, name string
		address         netip.Addr
		managedBy       string
	}{
		{"default", "kubernetes", iprange.APIServer(ranges[0]), names.Syncer},
		{"kube-system", "kube-dns", iprange.DNS(ranges[0]), names.Syncer},
		{"", secondRange(ranges[1]), ranges[1].Addr(), names.Manager},
	} {
		service := f.claim(vc, tc.namespace, tc.name)
		if service.Spec.ClusterIP != tc.address.String() || service.Labels[names.LabelManagedBy] != tc.managedBy {
			t.Errorf("Service %s has %s and labels %v, want %s", tc.name, service.Spec.ClusterIP, service.Labels, tc.address)
		}
		if tc.namespace == "" {
			continue
		}
		namespace := &corev1.Namespace{}
		if err := f.Get(t.Context(), client.ObjectKey{Name: service.Namespace}, namespace); err != nil {
			t.Fatal(err)
		}
		for _, annotations := range []map[string]string{service.Annotations, namespace.Annotations} {
			if annotations[names.AnnotationNamespace] != tc.namespace || annotations[names.AnnotationUID] != names.UIDAhead {
				t.Errorf("Service %s or its namespace has annotations %v", tc.name, annotations)
			}
		}
		if namespace.Annotations[names.AnnotationVirtualClusterUID] != string(vc.UID) {
			t.Errorf("namespace %s has annotations %v", namespace.Name, namespace.Annotations)
		}
	}
	if objects := f.serviceCIDRsOfTenants(); len(objects) > 0 {
		t.Errorf("there are ServiceCIDRs of tenants: %v", objects)
	}

	t.Run("OthersAreRefusedByPolicy", func(t *testing.T) {
		f := fixture{T: t, Client: f.Client}
		outside := f.virtualCluster("outside", tenancyv1alpha1.VirtualClusterSpec{ServiceCIDR: "10.120.0.0/22"})
		f.awaitStalled(outside, rangeCondition, "ServiceCIDRRejected", "use a part of a range that it has ("+super.ServiceRanges.String()+")")
	})

	t.Run("LostClaimsComeBack", func(t *testing.T) {
		f := fixture{T: t, Client: f.Client}
		api := f.claim(vc, "default", "kubernetes")
		f.delete(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: api.Namespace}})
		worlds.Eventually(t, patience, "the claim in another namespace of that name", func(ctx context.Context) error {
			now := &corev1.Service{}
			if err := f.Get(ctx, client.ObjectKeyFromObject(api), now); err != nil {
				return err
			}
			if now.UID == api.UID || now.Spec.ClusterIP != api.Spec.ClusterIP {
				return fmt.Errorf("it has UID %s and %s", now.UID, now.Spec.ClusterIP)
			}
			return nil
		})
	})

	t.Run("LostAddressesAreTold", func(t *testing.T) {
		f := fixture{T: t, Client: f.Client}
		dns := f.claim(vc, "kube-system", "kube-dns")
		thief := worlds.Service(tenants, "thief")
		thief.Spec.ClusterIP = dns.Spec.ClusterIP
		if err := f.Create(t.Context(), thief.DeepCopy()); err == nil {
			t.Fatal("the address was given twice")
		}
		f.steal(dns.Namespace, thief)
		f.awaitCondition(vc, rangeCondition, metav1.ConditionFalse, "ServiceCIDRTaken", "Service tenants/thief of the super cluster has the address "+dns.Spec.ClusterIP)
		f.delete(thief)
		f.awaitCondition(vc, rangeCondition, metav1.ConditionTrue, "Succeeded", "")
		if now := f.claim(vc, "kube-system", "kube-dns"); now.Spec.ClusterIP != dns.Spec.ClusterIP {
			t.Errorf("it has %s, had %s", now.Spec.ClusterIP, dns.Spec.ClusterIP)
		}
	})

	t.Run("DeletionLeavesNothing", func(t *testing.T) {
		f := fixture{T: t, Client: f.Client}
		root := vc.Status.ClusterNamespace
		f.delete(vc)
		f.finishPods(root)
		f.awaitGone(vc)
		f.nothingLeft(root)
	})
}

// steal deletes a namespace with a claim, which vc-manager makes again once the namespace is gone, and gives the address to
// another Service before that.
func (f fixture) steal(namespace string, thief *corev1.Service) {
	f.Helper()
	hold := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "hold", Finalizers: []string{"example.com/hold"}}}
	f.create(hold)
	if err := f.Delete(f.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}); err != nil {
		f.Fatalf("Delete: %v", err)
	}
	worlds.Eventually(f.T, patience, "the address for another Service", func(ctx context.Context) error { return f.Create(ctx, thief) })
	base := hold.DeepCopy()
	hold.Finalizers = nil
	if err := f.Patch(f.Context(), hold, client.MergeFrom(base)); err != nil {
		f.Fatalf("Patch: %v", err)
	}
}

// refuseServiceCIDRs lets a policy refuse new ServiceCIDRs.
func refuseServiceCIDRs(f fixture) {
	f.Helper()
	policy := &admissionv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "no-servicecidrs"},
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
				Operations: []admissionv1.OperationType{admissionv1.Create},
				Rule:       admissionv1.Rule{APIGroups: []string{"networking.k8s.io"}, APIVersions: []string{"*"}, Resources: []string{"servicecidrs"}},
			}}}},
			Validations: []admissionv1.Validation{{Expression: "false", Message: "ServiceCIDRs are not supported here"}},
		},
	}
	f.create(policy)
	f.create(&admissionv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: policy.Name},
		Spec:       admissionv1.ValidatingAdmissionPolicyBindingSpec{PolicyName: policy.Name, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny}},
	})
	worlds.Eventually(f.T, patience, "the policy to be enforced", func(ctx context.Context) error {
		probe := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "probe"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.99.0.0/24"}}}
		if err := f.Create(ctx, probe, client.DryRunAll); err == nil {
			return fmt.Errorf("it is not")
		}
		return nil
	})
}

// Ranges of several sizes, asked for at the same time, never overlap, nor do they contain what others have already.
func TestPartsAreGivenOnce(t *testing.T) {
	t.Parallel()
	super := worlds.Start(t, worlds.Options{SuperControllers: superControllers(), APIServerArgs: []string{"--service-cluster-ip-range=10.250.0.0/21"}}).Super
	f := startManager(t, super)
	f.version("v1", "true")
	f.create(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node"}, Spec: corev1.NodeSpec{PodCIDR: "10.250.2.0/24", PodCIDRs: []string{"10.250.2.0/24"}}})
	f.operatorsService("first-address", netip.MustParseAddr("10.250.3.1"))
	f.operatorsService("dns-address", netip.MustParseAddr("10.250.4.10"))

	// Of the eight ranges of /24, the first has the Services of the super cluster, and three more have others.
	var vcs []*tenancyv1alpha1.VirtualCluster
	for i := range 3 {
		vcs = append(vcs, f.virtualCluster(fmt.Sprintf("big-%d", i), tenancyv1alpha1.VirtualClusterSpec{ServiceCIDRSize: 24}))
	}
	for i := range 6 {
		vcs = append(vcs, f.virtualCluster(fmt.Sprintf("small-%d", i), tenancyv1alpha1.VirtualClusterSpec{ServiceCIDRSize: 28}))
	}
	winners, losers := f.settled(vcs)
	partsAreDisjoint(f, winners)
	if len(winners) < 7 {
		t.Errorf("only %d have a range, %d have none", len(winners), len(losers))
	}

	t.Run("ExhaustedAndFreed", func(t *testing.T) {
		f := fixture{T: t, Client: f.Client}
		late := f.virtualCluster("late", tenancyv1alpha1.VirtualClusterSpec{ServiceCIDRSize: 22})
		f.awaitStalled(late, rangeCondition, "ServiceCIDRPoolExhausted", "ask for a smaller one with spec.serviceCidrSize")
		tooBig := f.virtualCluster("too-big", tenancyv1alpha1.VirtualClusterSpec{ServiceCIDRSize: 20})
		f.awaitStalled(tooBig, rangeCondition, "ServiceCIDRInvalid", "the size of service ranges is /20, must be between /21 (the pool) and /28")
		for i := range 8 { // the rest of what there is
			f.virtualCluster(fmt.Sprintf("fill-%d", i), tenancyv1alpha1.VirtualClusterSpec{ServiceCIDRSize: 24})
		}
		var filling []*tenancyv1alpha1.VirtualCluster
		for i := range 8 {
			filling = append(filling, &tenancyv1alpha1.VirtualCluster{ObjectMeta: metav1.ObjectMeta{Namespace: tenants, Name: fmt.Sprintf("fill-%d", i)}})
		}
		_, without := f.settled(filling)
		var big *tenancyv1alpha1.VirtualCluster
		for _, vc := range winners {
			if vc.Spec.ServiceCIDRSize == 24 {
				big = vc
			}
		}
		if big == nil || len(without) == 0 {
			t.Fatalf("there is no large range, or all have one: %d have none", len(without))
		}
		f.delete(big)
		f.finishPods(big.Status.ClusterNamespace)
		f.awaitGone(big)
		worlds.Eventually(t, patience, "the free range to be taken", func(ctx context.Context) error {
			if now, _ := f.sort(ctx, slices.Concat(without, losers)); len(now) == 0 {
				return fmt.Errorf("none of those that wait has it: %s", f.ranges(ctx))
			}
			return nil
		})
	})
}

// partsAreDisjoint checks that ranges lie in the super cluster's, apart from each other, and that each is claimed.
func partsAreDisjoint(f fixture, vcs []*tenancyv1alpha1.VirtualCluster) {
	f.Helper()
	var used []netip.Prefix
	foreign := []netip.Prefix{netip.MustParsePrefix("10.250.0.0/28"), netip.MustParsePrefix("10.250.2.0/24"), netip.MustParsePrefix("10.250.3.1/32"), netip.MustParsePrefix("10.250.4.10/32")}
	for _, vc := range vcs {
		ranges := iprange.MustParse(vc.Status.ServiceCIDR)
		if vc.Spec.ServiceCIDRSize != 0 && ranges[0].Bits() != int(vc.Spec.ServiceCIDRSize) {
			f.Errorf("%s has %s, asked for /%d", vc.Name, ranges, vc.Spec.ServiceCIDRSize)
		}
		if other := ranges.Overlapping(used...); other.IsValid() {
			f.Errorf("%s of %s overlaps %s", ranges, vc.Name, other)
		}
		// The address of one Service of somebody else is no obstacle, unless it is a well-known one.
		for _, other := range foreign {
			well := iprange.APIServer(ranges[0]) == other.Addr() || iprange.DNS(ranges[0]) == other.Addr()
			if ranges.Overlapping(other).IsValid() && (other.Bits() < 32 || well) {
				f.Errorf("%s of %s has what is of others, %s", ranges, vc.Name, other)
			}
		}
		used = append(used, ranges...)
		if got := f.claim(vc, "default", "kubernetes").Spec.ClusterIP; got != iprange.APIServer(ranges[0]).String() {
			f.Errorf("%s has %s, and its Service kubernetes %s", vc.Name, ranges, got)
		}
	}
}

// What a person asks for is checked against all that is known.
func TestWantedParts(t *testing.T) {
	t.Parallel()
	super := worlds.Start(t, worlds.Options{SuperControllers: superControllers(), APIServerArgs: []string{"--service-cluster-ip-range=10.250.0.0/16"}}).Super
	f := startManager(t, super)
	f.version("v1", "true")
	f.create(&corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "one"}, Spec: corev1.NodeSpec{PodCIDR: "10.250.64.0/24", PodCIDRs: []string{"10.250.64.0/24"}},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.250.96.7"}}},
	})
	thief := f.operatorsService("thief", netip.MustParseAddr("10.250.80.10"))
	f.given(f.virtualCluster("first", tenancyv1alpha1.VirtualClusterSpec{ServiceCIDR: "10.250.32.0/22"}))
	if len(f.serviceCIDRsOfTenants()) > 0 {
		t.Error("there is a ServiceCIDR for a part of the super cluster's range")
	}
	for name, tc := range map[string]struct{ cidr, reason, message string }{
		"another":  {"10.250.33.0/24", "ServiceCIDROverlap", "overlaps 10.250.32.0/22 of VirtualCluster tenants/first"},
		"pods":     {"10.250.64.0/22", "ServiceCIDROverlap", "overlaps 10.250.64.0/24 of the pods of node one"},
		"node":     {"10.250.96.0/22", "ServiceCIDROverlap", "overlaps 10.250.96.7/32 of node one"},
		"larger":   {"10.248.0.0/14", "ServiceCIDROverlap", "overlaps 10.250.0.0/16 of ServiceCIDR kubernetes"},
		"family":   {"fd00:9::/112", "ServiceCIDRUnsupported", "is of an IP family that Services of the super cluster do not have: it has 10.250.0.0/16"},
		"small":    {"10.250.48.0/29", "ServiceCIDRInvalid", "must be between /12 and /28"},
		"base":     {"10.250.0.0/24", "ServiceCIDROverlap", "begins where the super cluster's own does"},
		"beside":   {"10.250.48.1/28", "ServiceCIDRInvalid", "did you mean 10.250.48.0/28"},
		"combined": {"10.250.48.0/24,fd00:9::/112", "ServiceCIDRUnsupported", "is of an IP family"},
	} {
		f.awaitStalled(f.virtualCluster(name, tenancyv1alpha1.VirtualClusterSpec{ServiceCIDR: tc.cidr}), rangeCondition, tc.reason, tc.message)
	}
	// A well-known address that is in use.
	robbed := f.virtualCluster("robbed", tenancyv1alpha1.VirtualClusterSpec{ServiceCIDR: "10.250.80.0/24"})
	f.awaitCondition(robbed, rangeCondition, metav1.ConditionFalse, "ServiceCIDRTaken", "Service tenants/thief of the super cluster has the address 10.250.80.10")
	f.delete(thief)
	f.given(robbed)
}

// A tenant that has a ServiceCIDR of its own keeps its addresses when a range of the operator's covers them, without that
// object.
func TestRangesMoveIntoOneOfTheOperators(t *testing.T) {
	t.Parallel()
	super := worlds.Start(t, worlds.Options{SuperControllers: superControllers()}).Super
	f := startManager(t, super, func(o *controllers.Options) {
		o.ServiceCIDRPool, o.ServiceCIDRSize = "10.112.0.0/20,fd00:112::/104", "22,112"
	})
	f.version("v1", "true")
	vc, ranges := f.given(f.virtualCluster("a", tenancyv1alpha1.VirtualClusterSpec{}))
	if objects := f.serviceCIDRsOfTenants(); len(objects) != 1 {
		t.Fatalf("there are %d ServiceCIDRs of tenants, want one", len(objects))
	}
	// What vc-syncer made in the meantime stays.
	tenant := names.TenantID(vc.Status.ClusterNamespace)
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: names.SuperNamespace(tenant, "default"), Labels: map[string]string{names.LabelTenant: string(tenant), names.LabelManagedBy: names.Syncer},
		Annotations: map[string]string{names.AnnotationVirtualClusterUID: string(vc.UID), names.AnnotationNamespace: "default", names.AnnotationUID: "some"},
	}}
	f.create(namespace)
	api := worlds.Service(namespace.Name, "kubernetes")
	api.Labels = map[string]string{names.LabelTenant: string(tenant), names.LabelManagedBy: names.Syncer}
	api.Spec.ClusterIP = iprange.APIServer(ranges[0]).String()
	f.create(api)

	f.create(&networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "tenants"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.112.0.0/20", "fd00:112::/104"}}})
	worlds.Eventually(t, patience, "the ServiceCIDR of the tenant to be gone", func(ctx context.Context) error {
		var list networkingv1.ServiceCIDRList
		if err := f.List(ctx, &list, client.HasLabels{names.LabelTenant}); err != nil {
			return err
		}
		if len(list.Items) > 0 {
			return fmt.Errorf("%d are there", len(list.Items))
		}
		return nil
	})
	now, same := f.given(vc)
	if same.String() != ranges.String() {
		t.Errorf("it has %s, had %s", same, ranges)
	}
	if got := f.claim(now, "default", "kubernetes"); got.UID != api.UID {
		t.Errorf("the Service kubernetes was replaced")
	}
	f.claim(now, "kube-system", "kube-dns")
	f.claim(now, "", secondRange(ranges[1]))

	// The next one has none from the beginning.
	next, _ := f.given(f.virtualCluster("b", tenancyv1alpha1.VirtualClusterSpec{}))
	f.claim(next, "default", "kubernetes")
	if objects := f.serviceCIDRsOfTenants(); len(objects) > 0 {
		t.Errorf("there are ServiceCIDRs of tenants: %v", objects)
	}
}

// A tenant that shares the super cluster's range has the addresses of its well-known Services before its control plane, and
// no address of the super cluster's own.
func TestWithoutAPoolTheSupersRangeIsShared(t *testing.T) {
	t.Parallel()
	super := worlds.Start(t, worlds.Options{SuperControllers: superControllers()}).Super
	f := startManager(t, super, func(o *controllers.Options) { o.ServiceCIDRPool = "" })
	f.version("v1", "true")
	vc := f.awaitCondition(f.virtualCluster("a", tenancyv1alpha1.VirtualClusterSpec{}), rangeCondition, metav1.ConditionTrue, "Succeeded", super.ServiceRanges.String())
	vc = f.awaitCondition(vc, tenancyv1alpha1.ConditionPKIReady, metav1.ConditionTrue, "Succeeded", "")
	addresses := vc.Status.ServiceAddresses
	if vc.Status.ServiceCIDR != "" || addresses == nil {
		t.Fatalf("status.serviceCidr is %q and the addresses are %v, want addresses alone", vc.Status.ServiceCIDR, addresses)
	}
	api, dns := f.claim(vc, "default", "kubernetes"), f.claim(vc, "kube-system", "kube-dns")
	if api.Spec.ClusterIP != addresses.Kubernetes || dns.Spec.ClusterIP != addresses.DNS {
		t.Errorf("the Services have %s and %s, the status %v", api.Spec.ClusterIP, dns.Spec.ClusterIP, addresses)
	}
	inCertificate := func(ctx context.Context, address string) (bool, error) {
		secret := &corev1.Secret{}
		if err := f.Get(ctx, client.ObjectKey{Namespace: vc.Status.ClusterNamespace, Name: "kube-apiserver-serving"}, secret); err != nil {
			return false, err
		}
		certificates, err := cert.ParseCertsPEM(secret.Data[corev1.TLSCertKey])
		if err != nil {
			return false, err
		}
		return slices.ContainsFunc(certificates[0].IPAddresses, func(ip net.IP) bool { return ip.String() == address }), nil
	}
	for address, want := range map[string]bool{addresses.Kubernetes: true, iprange.APIServer(super.ServiceRanges.Primary()).String(): false} {
		if got, err := inCertificate(t.Context(), address); err != nil || got != want {
			t.Errorf("%s is in the certificate: %t (%v), want %t", address, got, err, want)
		}
	}

	// A person deletes the Service: it has its address again.
	f.delete(api)
	again := &corev1.Service{}
	worlds.Eventually(t, patience, "the Service to come back", func(ctx context.Context) error { return f.Get(ctx, client.ObjectKeyFromObject(api), again) })
	if again.UID == api.UID || again.Spec.ClusterIP != api.Spec.ClusterIP {
		t.Errorf("it has UID %s and %s, had %s and %s", again.UID, again.Spec.ClusterIP, api.UID, api.Spec.ClusterIP)
	}
	// Where that is not possible, the certificate follows.
	thief := worlds.Service(tenants, "thief")
	thief.Spec.ClusterIP = again.Spec.ClusterIP
	f.steal(again.Namespace, thief)
	worlds.Eventually(t, patience, "another address in status and certificate", func(ctx context.Context) error {
		now := &tenancyv1alpha1.VirtualCluster{}
		if err := f.Get(ctx, client.ObjectKeyFromObject(vc), now); err != nil {
			return err
		}
		address := now.Status.ServiceAddresses.Kubernetes
		in, err := inCertificate(ctx, address)
		if err == nil && (address == thief.Spec.ClusterIP || !in) {
			err = fmt.Errorf("the address is %s, which is in the certificate: %t", address, in)
		}
		return err
	})
}

// A tenant that began to share the super cluster's range does so for good.
func TestSharingOutlivesTheSetting(t *testing.T) {
	t.Parallel()
	super := worlds.Start(t, worlds.Options{SuperControllers: superControllers()}).Super
	f := startManager(t, super)
	vc := f.virtualCluster("a", tenancyv1alpha1.VirtualClusterSpec{})
	f.awaitStalled(vc, tenancyv1alpha1.ConditionVersionResolved, "NoDefaultClusterVersion", "")
	// As a vc-manager without a pool left it.
	before := []byte(`{"status":{"serviceAddresses":{"kubernetes":"` + iprange.Nth(super.ServiceRanges.Primary(), 700).String() + `"}}}`)
	if err := f.Status().Patch(t.Context(), vc.DeepCopy(), client.RawPatch(types.MergePatchType, before)); err != nil {
		t.Fatal(err)
	}
	f.version("v1", "true")
	now := f.awaitCondition(vc, rangeCondition, metav1.ConditionTrue, "Succeeded", "shares")
	if now.Status.ServiceCIDR != "" || now.Status.ServiceAddresses.Kubernetes != iprange.Nth(super.ServiceRanges.Primary(), 700).String() {
		t.Errorf("it has the range %q and the addresses %v", now.Status.ServiceCIDR, now.Status.ServiceAddresses)
	}
}

// A range that is too small is followed by another one, in the super cluster and in the tenant.
func TestAdditionalRanges(t *testing.T) {
	t.Parallel()
	w := worlds.Start(t, worlds.Options{Tenants: 1, SuperControllers: superControllers()})
	f := startManager(t, w.Super)
	f.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: tenants, Name: "tenant"}, Data: map[string][]byte{"kubeconfig": w.Tenants[0].Kubeconfig}})
	vc := f.awaitReady(f.virtualCluster("a", tenancyv1alpha1.VirtualClusterSpec{
		ServiceCIDR:  w.Tenants[0].ServiceRanges.String(),
		ControlPlane: tenancyv1alpha1.ControlPlaneSpec{Type: tenancyv1alpha1.External, External: secretReference("tenant")},
	}))
	f.resize(vc, 2)
	worlds.Eventually(t, patience, "two more ranges of the tenant", func(ctx context.Context) error {
		now := &tenancyv1alpha1.VirtualCluster{}
		if err := f.Get(ctx, client.ObjectKeyFromObject(vc), now); err != nil {
			return err
		}
		list, err := w.Tenants[0].Client.NetworkingV1().ServiceCIDRs().List(ctx, metav1.ListOptions{LabelSelector: names.LabelManagedBy + "=" + names.Manager})
		if err != nil {
			return err
		}
		var has []string
		for _, object := range list.Items {
			has = append(has, strings.Join(object.Spec.CIDRs, ","))
		}
		slices.Sort(has)
		if want := slices.Sorted(slices.Values(now.Status.AdditionalServiceCIDRs)); len(want) != 2 || !slices.Equal(has, want) {
			return fmt.Errorf("the tenant has %v, the status %v", has, want)
		}
		vc = now
		return nil
	})
	used := slices.Clone(w.Tenants[0].ServiceRanges)
	for _, text := range vc.Status.AdditionalServiceCIDRs {
		ranges := iprange.MustParse(text)
		if !w.Super.ServiceRanges.Contains(ranges[0].Addr().String(), ranges[1].Addr().String()) || ranges.Overlapping(used...).IsValid() {
			t.Errorf("%s is no part of %s or overlaps %v", ranges, w.Super.ServiceRanges, used)
		}
		used = append(used, ranges...)
	}
	var claims corev1.ServiceList
	if err := f.List(t.Context(), &claims, client.InNamespace(vc.Status.ClusterNamespace), client.MatchingLabels{names.LabelServiceRange: "true"}); err != nil || len(claims.Items) != 4 {
		t.Errorf("%d Services claim ranges (%v), want two for each additional range", len(claims.Items), err)
	}
	base := vc.DeepCopy()
	vc.Spec.AdditionalServiceCIDRs = 1
	if err := f.Patch(t.Context(), vc, client.MergeFrom(base)); err == nil || !strings.Contains(err.Error(), "additionalServiceCidrs cannot be decreased") {
		t.Errorf("taking ranges away: %v", err)
	}
}

// resize gives a tenant additional ranges.
func (f fixture) resize(vc *tenancyv1alpha1.VirtualCluster, additional int32) {
	f.Helper()
	base := vc.DeepCopy()
	vc.Spec.AdditionalServiceCIDRs = additional
	if err := f.Patch(f.Context(), vc, client.MergeFrom(base)); err != nil {
		f.Fatalf("Patch: %v", err)
	}
}

// Without the ServiceCIDR API, vc-manager starts, and tenants have parts of the range that the API server tells.
func TestRangesBeforeServiceCIDRs(t *testing.T) {
	t.Parallel()
	super := worlds.Start(t, worlds.Options{SuperControllers: superControllers()}).Super
	f := startManagerBy(t, super, worlds.OlderThan133(t, super))
	f.version("v1", "true")
	vc, ranges := f.given(f.virtualCluster("a", tenancyv1alpha1.VirtualClusterSpec{}))
	if len(ranges) != 2 || !super.ServiceRanges.Contains(ranges[0].Addr().String(), ranges[1].Addr().String()) {
		t.Errorf("it has %s, want parts of %s", ranges, super.ServiceRanges)
	}
	f.claim(vc, "default", "kubernetes")
	outside := f.virtualCluster("outside", tenancyv1alpha1.VirtualClusterSpec{ServiceCIDR: "10.120.0.0/22"})
	f.awaitCondition(outside, rangeCondition, metav1.ConditionFalse, "ServiceCIDRUnsupported", "the super cluster hands out no addresses of the range 10.120.0.0/22")
	f.delete(vc)
	f.finishPods(vc.Status.ClusterNamespace)
	f.awaitGone(vc)
	f.nothingLeft(vc.Status.ClusterNamespace)
}
