package virtualcluster

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/controllers/images"
	"github.com/virtualcluster-io/virtualcluster/controllers/provision"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

func TestOnlyOurCredentialsAreRemovedFromTenants(t *testing.T) {
	for name, tc := range map[string]struct {
		labels map[string]string
		stays  bool
	}{
		"Ours":     {map[string]string{names.LabelManagedBy: names.Manager}, false},
		"Tenant's": {nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: coreDNSPullSecretName, Labels: tc.labels}}
			c := fake.NewClientBuilder().WithObjects(secret).Build()
			for range 2 {
				if err := removeCoreDNSPullSecret(t.Context(), &provision.Tenant{}, c); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.Get(t.Context(), client.ObjectKeyFromObject(secret), secret); (err == nil) != tc.stays {
				t.Errorf("reading it: %v, want it to stay: %t", err, tc.stays)
			}
		})
	}
}

// A ClusterVersion that names Secrets means these, one that names none the defaults; credentials for control planes are never
// those for tenants.
func TestWhoseCredentials(t *testing.T) {
	r := &Reconciler{Images: images.Defaults{PullSecrets: []string{"default"}, CoreDNSPullSecrets: []string{"tenants"}}}
	reference := func(name string) []corev1.LocalObjectReference { return []corev1.LocalObjectReference{{Name: name}} }
	for name, tc := range map[string]struct {
		version       *tenancyv1alpha1.ClusterVersion
		want, coreDNS string
	}{
		"External": {nil, "", "tenants"},
		"Defaults": {&tenancyv1alpha1.ClusterVersion{Spec: tenancyv1alpha1.ClusterVersionSpec{CoreDNS: &tenancyv1alpha1.ImageTemplate{}}}, "default", "tenants"},
		"Own":      {&tenancyv1alpha1.ClusterVersion{Spec: tenancyv1alpha1.ClusterVersionSpec{ImagePullSecrets: reference("own")}}, "own", "tenants"},
		"OwnForCoreDNS": {&tenancyv1alpha1.ClusterVersion{Spec: tenancyv1alpha1.ClusterVersionSpec{
			CoreDNS: &tenancyv1alpha1.ImageTemplate{ImagePullSecrets: reference("own")},
		}}, "default", "own"},
	} {
		t.Run(name, func(t *testing.T) {
			tenant := &provision.Tenant{Version: tc.version}
			if got := append(r.pullSecrets(tenant), "")[0]; got != tc.want {
				t.Errorf("control planes have %q, want %q", got, tc.want)
			}
			if got := append(r.coreDNSPullSecrets(tenant), "")[0]; got != tc.coreDNS {
				t.Errorf("CoreDNS has %q, want %q", got, tc.coreDNS)
			}
		})
	}
}
