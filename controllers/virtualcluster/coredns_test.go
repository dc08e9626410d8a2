package virtualcluster

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	psa "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/yaml"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

func TestRenderCoreDNS(t *testing.T) {
	values := coreDNSValues{Domain: "corp.example", Image: "example.org/coredns:1", Address: "10.112.4.10"}
	objects, digest, err := renderCoreDNS(values)
	if err != nil {
		t.Fatalf("renderCoreDNS: %v", err)
	}
	var kinds []string
	byKind := map[string]*unstructured.Unstructured{}
	for _, object := range objects {
		kinds = append(kinds, object.GetKind())
		byKind[object.GetKind()] = object
		if mapping, err := tenantMapper().RESTMapping(object.GroupVersionKind().GroupKind(), object.GroupVersionKind().Version); err != nil {
			t.Errorf("the mapper does not know %s: %v (%v)", object.GetKind(), err, mapping)
		}
	}
	want := []string{"ServiceAccount", "ClusterRole", "ClusterRoleBinding", "ConfigMap", "Service", "Deployment"}
	if diff := cmp.Diff(want, kinds); diff != "" {
		t.Errorf("kinds; the Deployment must be last, because it says that all is done (-want +got):\n%s", diff)
	}
	if got := byKind["Deployment"].GetAnnotations()[names.AnnotationDigest]; got != digest {
		t.Errorf("the Deployment carries the digest %q, want %q", got, digest)
	}
	if address, _, _ := unstructured.NestedString(byKind["Service"].Object, "spec", "clusterIP"); address != values.Address {
		t.Errorf("the Service has %q, want %q", address, values.Address)
	}
	corefile, _, _ := unstructured.NestedString(byKind["ConfigMap"].Object, "data", "Corefile")
	if !strings.Contains(corefile, "kubernetes corp.example in-addr.arpa") {
		t.Errorf("the Corefile does not serve the tenant's domain:\n%s", corefile)
	}
}

// A tenant's Pod Security level may be restricted.
func TestCoreDNSIsRestricted(t *testing.T) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	objects, _, err := renderCoreDNS(coreDNSValues{Domain: "cluster.local", Image: "x", PullSecret: coreDNSPullSecretName})
	if err != nil {
		t.Fatal(err)
	}
	deployment := &appsv1.Deployment{}
	text, err := yaml.Marshal(objects[len(objects)-1])
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(text, deployment); err != nil {
		t.Fatal(err)
	}
	restricted := psa.LevelVersion{Level: psa.LevelRestricted, Version: psa.LatestVersion()}
	for _, result := range evaluator.EvaluatePod(restricted, &deployment.Spec.Template.ObjectMeta, &deployment.Spec.Template.Spec) {
		if !result.Allowed {
			t.Errorf("refused: %s %s", result.ForbiddenReason, result.ForbiddenDetail)
		}
	}
	if diff := cmp.Diff([]corev1.LocalObjectReference{{Name: coreDNSPullSecretName}}, deployment.Spec.Template.Spec.ImagePullSecrets); diff != "" {
		t.Errorf("Secrets that pull images (-want +got):\n%s", diff)
	}
}

func TestRenderCoreDNSInASharedRange(t *testing.T) {
	own := coreDNSValues{Domain: "cluster.local", Image: "x", Address: "10.112.4.10"}
	shared := own
	shared.Address = ""
	_, ownDigest, err := renderCoreDNS(own)
	if err != nil {
		t.Fatalf("renderCoreDNS: %v", err)
	}
	objects, sharedDigest, err := renderCoreDNS(shared)
	if err != nil {
		t.Fatalf("renderCoreDNS: %v", err)
	}
	if ownDigest == sharedDigest {
		t.Error("a change does not change the digest")
	}
	for _, object := range objects {
		if _, found, _ := unstructured.NestedString(object.Object, "spec", "clusterIP"); found {
			t.Errorf("%s asks for an address", object.GetKind())
		}
	}
}
