package preflight

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/virtualcluster-io/virtualcluster/controllers/servicecidr"
	"github.com/virtualcluster-io/virtualcluster/internal/iprange"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// server is an API server as far as the checks see it.
type server struct {
	// ranges are those that it was started with.
	ranges iprange.Ranges
	// old says that it serves no ServiceCIDRs.
	old bool
	// told is the error about addresses that are in none of the ranges, with the address and the first range of its family.
	told   func(address string, prefix netip.Prefix) error
	groups []string
}

func (s *server) ServerVersion() (*version.Info, error) {
	return &version.Info{GitVersion: "v1.32.1"}, nil
}

func (s *server) ServerGroups() (*metav1.APIGroupList, error) {
	list := &metav1.APIGroupList{}
	for _, name := range s.groups {
		list.Groups = append(list.Groups, metav1.APIGroup{Name: name})
	}
	return list, nil
}

// notInRange is what API servers say.
func notInRange(address string, prefix netip.Prefix) error {
	return invalid(fmt.Sprintf("failed to allocate IP %[1]s: the provided IP (%[1]s) is not in the valid range. The range of valid IPs is %[2]s", address, prefix))
}

func invalid(message string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{Code: 422, Reason: metav1.StatusReasonInvalid, Message: message}}
}

// super returns it with the given objects.
func (s *server) super(t *testing.T, objects ...client.Object) Super {
	t.Helper()
	if !s.old && len(s.ranges) > 0 {
		objects = append(objects, &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: s.ranges.CIDRs()}})
	}
	gone := func(object any) error {
		switch object.(type) {
		case *networkingv1.ServiceCIDR, *networkingv1.ServiceCIDRList:
			if s.old {
				return apierrors.NewNotFound(schema.GroupResource{}, "")
			}
		}
		return nil
	}
	c := fake.NewClientBuilder().WithScheme(clientgoscheme.Scheme).WithObjects(objects...).WithInterceptorFuncs(interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
			if err := gone(object); err != nil {
				return err
			}
			return c.Get(ctx, key, object, options...)
		},
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, options ...client.ListOption) error {
			if err := gone(list); err != nil {
				return err
			}
			return c.List(ctx, list, options...)
		},
		Create: func(_ context.Context, _ client.WithWatch, object client.Object, options ...client.CreateOption) error {
			if dry := (&client.CreateOptions{}).ApplyOptions(options).DryRun; len(dry) != 1 || dry[0] != metav1.DryRunAll {
				t.Errorf("creating %T in no dry run", object)
			}
			service, ok := object.(*corev1.Service)
			if !ok {
				return gone(object)
			}
			return s.allocate(service)
		},
	}).Build()
	return Super{Client: c, Live: c, Discovery: s}
}

// allocate does what an API server does in a dry run.
func (s *server) allocate(service *corev1.Service) error {
	if service.Spec.ClusterIP == "" {
		service.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol}
		if s.ranges.Primary().Addr().Is6() {
			service.Spec.IPFamilies[0] = corev1.IPv6Protocol
		}
		return nil
	}
	addr := netip.MustParseAddr(service.Spec.ClusterIP)
	for _, prefix := range s.ranges {
		if prefix.Contains(addr) {
			return nil
		}
		if prefix.Addr().Is4() == addr.Is4() {
			return s.told(addr.String(), prefix)
		}
	}
	return invalid("the IP family is not configured on this cluster")
}

func TestDiscoverRanges(t *testing.T) {
	silent := func(string, netip.Prefix) error {
		return invalid("the provided network does not match the current range")
	}
	for name, tc := range map[string]struct {
		server  server
		want    string
		unknown bool
		fails   bool
	}{
		"Object":        {server: server{ranges: iprange.MustParse("10.96.0.0/12"), told: silent}, want: "10.96.0.0/12"},
		"OldIPv4":       {server: server{old: true, ranges: iprange.MustParse("10.96.0.0/12"), told: notInRange}, want: "10.96.0.0/12"},
		"OldIPv6":       {server: server{old: true, ranges: iprange.MustParse("fd00::/108"), told: notInRange}, want: "fd00::/108"},
		"OldDualStack":  {server: server{old: true, ranges: iprange.MustParse("10.96.0.0/12,fd00::/108"), told: notInRange}, want: "10.96.0.0/12,fd00::/108"},
		"OldIPv6First":  {server: server{old: true, ranges: iprange.MustParse("fd00::/108,10.96.0.0/12"), told: notInRange}, want: "fd00::/108,10.96.0.0/12"},
		"OldAndSilent":  {server: server{old: true, ranges: iprange.MustParse("10.96.0.0/12"), told: silent}, unknown: true},
		"WithoutObject": {server: server{told: notInRange}, unknown: true},
		"Unreachable":   {server: server{old: true, ranges: iprange.MustParse("10.96.0.0/12"), told: func(string, netip.Prefix) error { return errors.New("connection refused") }}, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			super := tc.server.super(t)
			ranges, err := servicecidr.DiscoverRanges(t.Context(), super.Live, super.Client)
			_, unknown := errors.AsType[*servicecidr.UnknownRangeError](err)
			if ranges.String() != tc.want || unknown != tc.unknown || (err != nil) != (tc.unknown || tc.fails) {
				t.Errorf("got %s and %v, want %s", ranges, err, tc.want)
			}
		})
	}
}

func TestRead(t *testing.T) {
	tenant := func(name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{
			Namespace: "t", Name: name, Labels: map[string]string{names.LabelTenant: "t", names.LabelServiceRange: "true"},
			Annotations: map[string]string{names.AnnotationServiceRange: "10.96.4.0/22"},
		}
	}
	notReady := networkingv1.ServiceCIDRStatus{Conditions: []metav1.Condition{{Type: networkingv1.ServiceCIDRConditionReady, Status: metav1.ConditionFalse}}}
	s := &server{ranges: iprange.MustParse("10.96.0.0/12"), told: notInRange, groups: []string{"apps", "cilium.io", "crd.antrea.io"}}
	super := s.super(t,
		&corev1.Service{ObjectMeta: tenant("kubernetes")}, &corev1.Service{ObjectMeta: tenant("kube-dns")},
		&networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{names.LabelTenant: "a"}}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.112.0.0/22"}}},
		&networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "b"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.120.0.0/16"}}, Status: notReady},
		&corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{"kubernetes.azure.com/cluster": "x"}}, Spec: corev1.NodeSpec{PodCIDRs: []string{"10.0.1.0/24"}},
			Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Address: "n"}, {Address: "192.168.1.5"}}},
		},
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "cilium-config"}, Data: map[string]string{"ipam": "cluster-pool", "cluster-pool-ipv4-cidr": "10.0.0.0/16"}},
	)
	facts, err := read(t.Context(), super, Config{Pool: Auto, Size: Auto})
	if err != nil {
		t.Fatal(err)
	}
	want := &Facts{
		Version: "v1.32.1", API: true, Default: iprange.MustParse("10.96.0.0/12"), Ranges: prefixes("10.96.0.0/12"), Tenants: prefixes("10.112.0.0/22", "10.96.4.0/22"),
		Nodes:      []Node{{Name: "n", PodRanges: prefixes("10.0.1.0/24"), Addresses: []netip.Addr{netip.MustParseAddr("192.168.1.5")}}},
		Dataplanes: []Dataplane{{Name: "AKS"}, {Name: cilium, PodRanges: prefixes("10.0.0.0/16")}, {Name: antrea}},
		served:     prefixes("10.112.0.0/22", "10.120.0.0/16", "10.96.0.0/12"),
		Answers:    map[string]Answer{"10.96.4.1": {Verdict: Accepted}, "10.111.252.1": {Verdict: Accepted}},
	}
	if diff := cmp.Diff(want, facts, cmp.AllowUnexported(Facts{}), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestCiliumPodRanges(t *testing.T) {
	for name, tc := range map[string]struct {
		data map[string]string
		want []netip.Prefix
	}{
		"NotRead":    {nil, prefixes("10.0.0.0/8")},
		"Default":    {map[string]string{"ipam": "cluster-pool"}, prefixes("10.0.0.0/8")},
		"Several":    {map[string]string{"ipam": "cluster-pool", "cluster-pool-ipv4-cidr": "10.1.0.0/16 10.2.0.0/16", "cluster-pool-ipv6-cidr": "fd01::/104"}, prefixes("10.1.0.0/16", "10.2.0.0/16", "fd01::/104")},
		"OfTheNodes": {map[string]string{"ipam": "kubernetes"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var objects []client.Object
			if tc.data != nil {
				objects = append(objects, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "cilium-config"}, Data: tc.data})
			}
			got, err := readCilium(t.Context(), (&server{}).super(t, objects...).Live, &Facts{})
			if err != nil || fmt.Sprint(got) != fmt.Sprint(tc.want) {
				t.Errorf("got %v and %v, want %v", got, err, tc.want)
			}
		})
	}
}
