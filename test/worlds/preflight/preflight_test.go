// Package preflight_test runs the checks of addresses against a real API server: what it says in dry runs, and that nothing is
// left of them.
package preflight_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/discovery"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtualcluster-io/virtualcluster/controllers/preflight"
	"github.com/virtualcluster-io/virtualcluster/controllers/servicecidr"
	"github.com/virtualcluster-io/virtualcluster/internal/cli"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

// patience is for what happens within a second on an idle machine.
const patience = 30 * time.Second

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	os.Exit(m.Run())
}

func auto() preflight.Config { return preflight.Config{Pool: preflight.Auto, Size: preflight.Auto} }

// connect returns what the checks need.
func connect(t *testing.T, config *rest.Config) preflight.Super {
	t.Helper()
	scheme := clientgoscheme.Scheme
	if err := apiextensionsv1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	about, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return preflight.Super{Client: c, Live: c, Discovery: about}
}

func check(t *testing.T, super preflight.Super, config preflight.Config) *preflight.Report {
	t.Helper()
	report, err := preflight.Check(t.Context(), super, config)
	if err != nil {
		t.Fatalf("Check: %v", err)
	}
	return report
}

// expect compares the findings but for those of severity Info, as "severity reason", and returns the message of the first.
func expect(t *testing.T, report *preflight.Report, mode preflight.Mode, want ...string) string {
	t.Helper()
	got, message := []string{}, ""
	for _, f := range report.Findings {
		if f.Severity != preflight.Info {
			got = append(got, fmt.Sprintf("%s %s", f.Severity, f.Reason))
			if message == "" {
				message = f.Message
			}
		}
	}
	if want == nil {
		want = []string{}
	}
	if diff := cmp.Diff(want, got); diff != "" || report.Mode != mode {
		t.Errorf("mode %s, want %s; findings, -want +got:\n%s\n%+v", report.Mode, mode, diff, report)
	}
	return message
}

func TestPreflight(t *testing.T) {
	w := worlds.Start(t, worlds.Options{Tenants: 1})
	world := w.Super
	super := connect(t, world.Config)
	create := func(t *testing.T, object client.Object) {
		t.Helper()
		if err := super.Client.Create(t.Context(), object); err != nil {
			t.Fatalf("creating %T: %v", object, err)
		}
	}

	t.Run("Default", func(t *testing.T) {
		report := check(t, super, auto())
		expect(t, report, preflight.ModeParts)
		want := []preflight.Capacity{{Range: world.ServiceRanges[0].String(), PrefixLength: 26, Tenants: 31, Free: 31}, {Range: world.ServiceRanges[1].String(), PrefixLength: 120, Tenants: 255, Free: 255}}
		if diff := cmp.Diff(want, report.Ranges); diff != "" || report.ServiceRanges != world.ServiceRanges.String() || report.KubernetesVersion == "" {
			t.Errorf("got %+v, -want +got:\n%s", report, diff)
		}
	})

	t.Run("Command", func(t *testing.T) {
		// Nothing of VirtualCluster is installed in this one.
		bare := w.Tenants[0]
		for _, tc := range []struct {
			pool, want string
			code       int
		}{
			{"auto", "PartsOfARange", 0},
			{"2001:db8::/64", "WrongIPFamily", 1},
		} {
			var out, problems bytes.Buffer
			args := []string{"kubectl-vc", "preflight", "--kubeconfig", bare.KubeconfigPath(), "--service-cidr-pool", tc.pool}
			code := cli.Run(t.Context(), args, genericiooptions.IOStreams{In: &bytes.Buffer{}, Out: &out, ErrOut: &problems})
			if code != tc.code || problems.Len() > 0 || !strings.Contains(out.String(), tc.want) {
				t.Errorf("%s: exit code %d\n%s%s", tc.pool, code, &out, &problems)
			}
		}
	})

	t.Run("OwnObjects", func(t *testing.T) {
		message := expect(t, check(t, super, preflight.Config{Pool: "10.112.0.0/14", Size: "22"}), preflight.ModeObjects, "Warning OwnServicesInTenantRanges")
		if message == "" {
			t.Error("there is no message")
		}
	})

	t.Run("Older", func(t *testing.T) {
		old := connect(t, worlds.OlderThan133(t, world))
		ranges, err := servicecidr.DiscoverRanges(t.Context(), old.Live, old.Client)
		if err != nil || ranges.String() != world.ServiceRanges.String() {
			t.Fatalf("DiscoverRanges: got %s and %v, want %s", ranges, err, world.ServiceRanges)
		}
		report := check(t, old, auto())
		expect(t, report, preflight.ModeParts)
		if report.KubernetesVersion != "v1.32.1" {
			t.Errorf("got %s", report.KubernetesVersion)
		}
		message := expect(t, check(t, old, preflight.Config{Pool: "10.112.0.0/14", Size: "22"}), preflight.ModeObjects, "Error ServiceCIDRsNotServed")
		if !strings.Contains(message, "10.112.0.0/14 is not in the super cluster's range "+world.ServiceRanges.String()) {
			t.Errorf("got %q", message)
		}
	})

	t.Run("OperatorsRange", func(t *testing.T) {
		object := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "for-tenants"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.120.0.0/16"}}}
		create(t, object)
		awaitServed(t, super.Client, "10.120.255.1")
		report := check(t, super, preflight.Config{Pool: "10.120.0.0/16", Size: "24"})
		expect(t, report, preflight.ModeParts)
		if len(report.Ranges) != 1 || report.Ranges[0].Tenants != 255 {
			t.Errorf("got %+v", report.Ranges)
		}
		expect(t, check(t, super, auto()), preflight.ModeParts)
	})

	t.Run("Nodes", func(t *testing.T) {
		create(t, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Spec: corev1.NodeSpec{PodCIDR: "10.120.4.0/24", PodCIDRs: []string{"10.120.4.0/24"}}})
		message := expect(t, check(t, super, preflight.Config{Pool: "10.120.0.0/16", Size: "24"}), preflight.ModeParts, "Error RangeOverlapsPods")
		if message != "10.120.0.0/16 overlaps the pod range 10.120.4.0/24 of node a" {
			t.Errorf("got %q", message)
		}
	})

	t.Run("Calico", func(t *testing.T) {
		create(t, bgpConfigurations())
		bgp := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"serviceClusterIPs": []any{map[string]any{"cidr": world.ServiceRanges[0].String()}, map[string]any{"cidr": world.ServiceRanges[1].String()}}}}}
		bgp.SetGroupVersionKind(preflight.BGPConfiguration())
		bgp.SetName("default")
		worlds.Eventually(t, patience, "the kind to be served", func(ctx context.Context) error { return super.Client.Create(ctx, bgp.DeepCopy()) })
		expect(t, check(t, super, auto()), preflight.ModeParts)
		expect(t, check(t, super, preflight.Config{Pool: "10.112.0.0/14", Size: "22"}), preflight.ModeObjects, "Warning OwnServicesInTenantRanges", "Warning RangeNotAdvertised")
	})

	t.Run("Policy", func(t *testing.T) {
		// As cluster-network-operator of OpenShift has.
		policy, binding := refusal(networkingv1.GroupName, "servicecidrs")
		create(t, policy)
		create(t, binding)
		own := preflight.Config{Pool: "10.112.0.0/14", Size: "22"}
		worlds.Eventually(t, patience, "the policy to be followed", func(ctx context.Context) error {
			report, err := preflight.Check(ctx, super, own)
			if err == nil && !report.Failed() {
				err = errors.New("the ServiceCIDR is accepted")
			}
			return err
		})
		message := expect(t, check(t, super, own), preflight.ModeObjects, "Error ServiceCIDRsRefused", "Warning OwnServicesInTenantRanges", "Warning RangeNotAdvertised")
		if !strings.Contains(message, policy.Name) || !strings.Contains(message, "servicecidrs are not supported here") {
			t.Errorf("got %q", message)
		}
		expect(t, check(t, super, auto()), preflight.ModeParts)
	})

	t.Run("Rights", func(t *testing.T) {
		stranger := rest.CopyConfig(world.Config)
		stranger.Impersonate = rest.ImpersonationConfig{UserName: "stranger", Groups: []string{"system:authenticated"}}
		report := check(t, connect(t, stranger), auto())
		expect(t, report, preflight.ModeParts, "Error ServiceRangeUnknown", "Warning NotRead", "Warning NotRead", "Warning NotRead", "Warning NotRead", "Warning NotRead")
	})

	t.Run("PolicyOnServices", func(t *testing.T) {
		policy, binding := refusal("", "services")
		create(t, policy)
		create(t, binding)
		worlds.Eventually(t, patience, "the policy to be followed", func(ctx context.Context) error {
			report, err := preflight.Check(ctx, super, auto())
			if err == nil && !report.Failed() {
				err = errors.New("the Service is accepted")
			}
			return err
		})
		report := check(t, super, auto())
		if message := report.Findings[0].Message; report.Findings[0].Reason != preflight.ReasonServicesRefused || !strings.Contains(message, "services are not supported here") {
			t.Errorf("got %+v", report.Findings[0])
		}
	})

	t.Run("NothingIsLeft", func(t *testing.T) {
		var services corev1.ServiceList
		var ranges networkingv1.ServiceCIDRList
		if err := errors.Join(super.Live.List(t.Context(), &services), super.Live.List(t.Context(), &ranges)); err != nil {
			t.Fatal(err)
		}
		var got []string
		for i := range services.Items {
			got = append(got, services.Items[i].Name)
		}
		for i := range ranges.Items {
			got = append(got, ranges.Items[i].Name)
		}
		if !slices.Equal(got, []string{"kubernetes", "for-tenants", "kubernetes"}) {
			t.Errorf("there are %v", got)
		}
	})
}

// awaitServed waits until Services can have an address.
func awaitServed(t *testing.T, c client.Client, address string) {
	t.Helper()
	worlds.Eventually(t, patience, "Services to have "+address, func(ctx context.Context) error {
		service := worlds.Service(metav1.NamespaceDefault, "probe")
		service.Spec.ClusterIP = address
		if err := c.Create(ctx, service); err != nil {
			return err
		}
		return c.Delete(ctx, service)
	})
}

// refusal returns a policy that refuses objects of a kind, and its binding.
func refusal(group, resource string) (*admissionv1.ValidatingAdmissionPolicy, *admissionv1.ValidatingAdmissionPolicyBinding) {
	meta := metav1.ObjectMeta{Name: "no-" + resource}
	policy := &admissionv1.ValidatingAdmissionPolicy{ObjectMeta: meta, Spec: admissionv1.ValidatingAdmissionPolicySpec{
		FailurePolicy: ptr.To(admissionv1.Fail),
		MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
			Operations: []admissionv1.OperationType{admissionv1.Create},
			Rule:       admissionv1.Rule{APIGroups: []string{group}, APIVersions: []string{"*"}, Resources: []string{resource}},
		}}}},
		Validations: []admissionv1.Validation{{Expression: "false", Message: resource + " are not supported here"}},
	}}
	binding := &admissionv1.ValidatingAdmissionPolicyBinding{ObjectMeta: meta, Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
		PolicyName: meta.Name, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
	}}
	return policy, binding
}

// bgpConfigurations returns the definition of the kind of Calico.
func bgpConfigurations() *apiextensionsv1.CustomResourceDefinition {
	kind := preflight.BGPConfiguration()
	plural, _ := apimeta.UnsafeGuessKindToResource(kind)
	return &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: plural.Resource + "." + kind.Group},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: kind.Group, Scope: apiextensionsv1.ClusterScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: plural.Resource, Kind: kind.Kind},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{
				Name: kind.Version, Served: true, Storage: true,
				Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object", XPreserveUnknownFields: ptr.To(true)}},
			}},
		},
	}
}
