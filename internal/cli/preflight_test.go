package cli

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

// about is what a super cluster says about itself.
type about struct{ groups []string }

func (a about) ServerVersion() (*version.Info, error) {
	return &version.Info{GitVersion: "v1.36.3"}, nil
}

func (a about) ServerGroups() (*metav1.APIGroupList, error) {
	list := &metav1.APIGroupList{}
	for _, name := range a.groups {
		list.Groups = append(list.Groups, metav1.APIGroup{Name: name})
	}
	return list, nil
}

// serviceRange is the ServiceCIDR that a super cluster was started with.
func serviceRange(cidr string) *networkingv1.ServiceCIDR {
	return &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{cidr}}}
}

func TestPreflight(t *testing.T) {
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "a"}, Spec: corev1.NodeSpec{PodCIDRs: []string{"10.244.0.0/24"}},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.168.1.5"}}},
	}
	for name, tc := range map[string]struct {
		args    []string
		objects []client.Object
		groups  []string
		code    int
		want    string
	}{
		"Default": {objects: []client.Object{serviceRange("10.96.0.0/12"), node}, want: `
SEVERITY   REASON          MESSAGE                                                                                            WHAT TO DO
Info       PartsOfARange   the super cluster serves 10.96.0.0/12: each tenant gets a part of it, without objects of its own   <none>
Info       Capacity        10.96.0.0/12 has room for 1023 tenants with a /22 each (1022 addresses), of which 1023 are free    <none>
`},
		"Refused": {args: []string{"--service-cidr-pool=10.112.0.0/14", "--service-cidr-size=22"}, objects: []client.Object{serviceRange("10.96.0.0/12"), node}, groups: []string{"config.openshift.io"}, code: 1, want: `
SEVERITY   REASON                      MESSAGE                                                                                                                                               WHAT TO DO
Error      ServiceCIDRsRefused         the API server refuses a ServiceCIDR of 10.115.252.0/22: servicecidrs.networking.k8s.io "vc-preflight" is forbidden: a policy says no                 Use --service-cidr-pool=auto.
Error      DataplaneKnowsOneRange      OpenShift supports no ranges of Services besides the one that it was installed with; 10.112.0.0/14 is not in the super cluster's range 10.96.0.0/12   Use --service-cidr-pool=auto.
Warning    OwnServicesInTenantRanges   the super cluster also gives its own Services addresses of tenants' ServiceCIDRs, and its API servers work harder with each of them                   Make one ServiceCIDR for the whole pool before the first tenant, or use --service-cidr-pool=auto.
Info       ServiceCIDRPerTenant        the super cluster does not serve 10.112.0.0/14 yet: each tenant needs a ServiceCIDR                                                                   <none>
Info       Capacity                    10.112.0.0/14 has room for 256 tenants with a /22 each (1022 addresses), of which 256 are free                                                        <none>
`},
		"JSON": {args: []string{"-o", "json"}, objects: []client.Object{serviceRange("10.0.0.0/26")}, code: 1, want: `
{
    "apiVersion": "tenancy.x-k8s.io/v1alpha1",
    "findings": [
        {
            "action": "Make a larger ServiceCIDR for tenants and set --service-cidr-pool to it, or set a longer --service-cidr-size. Or set an empty --service-cidr-pool, so that tenants adopt addresses.",
            "message": "10.0.0.0/26 is too small to be divided: no tenant fits",
            "reason": "RangeTooSmall",
            "severity": "Error"
        },
        {
            "message": "the super cluster serves 10.0.0.0/26: each tenant gets a part of it, without objects of its own",
            "reason": "PartsOfARange",
            "severity": "Info"
        }
    ],
    "kind": "PreflightReport",
    "kubernetesVersion": "v1.36.3",
    "mode": "PartsOfARange",
    "ranges": [
        {
            "free": 0,
            "prefixLength": 26,
            "range": "10.0.0.0/26",
            "tenants": 0
        }
    ],
    "serviceRanges": "10.0.0.0/26"
}
`},
		"YAML": {args: []string{"-o", "yaml", "--service-cidr-pool="}, objects: []client.Object{serviceRange("10.0.0.0/26")}, want: `
apiVersion: tenancy.x-k8s.io/v1alpha1
findings:
- action: Use this mode only where no other one is possible.
  message: a Service of a tenant has its address only after the super cluster has
    chosen one
  reason: AddressesAreChosenLate
  severity: Warning
- message: 'the pool is empty: tenants have the range 10.0.0.0/26 of the super cluster,
    which chooses the address of each Service'
  reason: Adoption
  severity: Info
kind: PreflightReport
kubernetesVersion: v1.36.3
mode: Adoption
serviceRanges: 10.0.0.0/26
`},
		"Invalid": {args: []string{"--service-cidr-pool=10.112.0.0"}, objects: []client.Object{serviceRange("10.96.0.0/12")}, code: 1, want: `
SEVERITY   REASON        MESSAGE                                                                            WHAT TO DO
Error      PoolInvalid   reading the pool of service ranges: "10.112.0.0" is not a range in CIDR notation   Correct --service-cidr-pool or --service-cidr-size.
`},
	} {
		t.Run(name, func(t *testing.T) {
			x := newTerminal(t, tc.objects...)
			x.about.groups = tc.groups
			x.super = interceptor.NewClient(x.super, interceptor.Funcs{
				Create: func(ctx context.Context, c client.WithWatch, object client.Object, options ...client.CreateOption) error {
					if !strings.Contains(strings.Join(dryRuns(options), ","), metav1.DryRunAll) {
						t.Errorf("created %T", object)
					}
					if _, ok := object.(*networkingv1.ServiceCIDR); ok {
						return apierrors.NewForbidden(schema.GroupResource{Group: networkingv1.GroupName, Resource: "servicecidrs"}, object.GetName(), errors.New("a policy says no"))
					}
					return c.Create(ctx, object, options...)
				},
			})
			if code := x.run(t.Context(), append([]string{"preflight"}, tc.args...)...); code != tc.code || x.err.Len() > 0 {
				t.Errorf("exit code %d: %s", code, x.err.String())
			}
			if diff := cmp.Diff(tc.want, "\n"+x.out.String()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// dryRuns returns the dry runs that options ask for.
func dryRuns(options []client.CreateOption) []string {
	return (&client.CreateOptions{}).ApplyOptions(options).DryRun
}
