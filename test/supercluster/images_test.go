package supercluster

import (
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	defaults "github.com/virtualcluster-io/virtualcluster/controllers/images"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/test/supercluster/images"
)

func refs(t *testing.T) []string {
	t.Helper()
	specs, err := images.List()
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, spec := range specs {
		list = append(list, spec.Refs()...)
	}
	return list
}

func TestEverythingUsedIsBuilt(t *testing.T) {
	built := refs(t)
	used := []string{sandboxImage}
	entries, err := manifests.ReadDir("manifests")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		content, err := manifests.ReadFile("manifests/" + e.Name())
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range regexp.MustCompile(`(?m)^\s*image: (\S+)$`).FindAllStringSubmatch(string(content), -1) {
			used = append(used, match[1])
		}
	}
	for _, ref := range used {
		if !slices.Contains(built, ref) {
			t.Errorf("%s is used and not built", ref)
		}
	}
}

// TestImageTagsAreTheVersionsBuilt keeps the lists of images in step with what the Makefile builds.
func TestImageTagsAreTheVersionsBuilt(t *testing.T) {
	version := func(file, pattern string) string {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		match := regexp.MustCompile(pattern).FindStringSubmatch(string(content))
		if match == nil {
			t.Fatalf("no %s in %s", pattern, file)
		}
		return match[1]
	}
	kubernetes := version("../../go.mod", `k8s\.io/kubernetes (v\S+)`)
	want := []string{
		"registry.k8s.io/kube-apiserver:" + kubernetes,
		"registry.k8s.io/kube-controller-manager:" + kubernetes,
		"registry.k8s.io/kube-scheduler:" + kubernetes,
		"registry.k8s.io/kubectl:" + kubernetes,
		// What vc-manager asks for, whatever is in it.
		defaults.Source{Version: kubernetes}.Image(names.Etcd),
		defaults.Source{Version: kubernetes}.Image(defaults.CoreDNS),
		"docker.io/rancher/local-path-provisioner:" + version("../../hack/versions.mk", `LOCAL_PATH_VERSION\s*:= (\S+)`),
	}
	operators := "../operators/programs/go.mod"
	prometheusOperator := version("../operators/prometheus-operator/go.mod", `prometheus-operator/prometheus-operator (v\S+)`)
	want = append(want,
		// What the chart names between releases.
		"us-central1-docker.pkg.dev/k8s-staging-images/kueue/kueue:release-"+version(operators, `sigs\.k8s\.io/kueue v(\d+\.\d+)`),
		"ghcr.io/cloudnative-pg/cloudnative-pg:"+version(operators, `cloudnative-pg/cloudnative-pg v(\S+)`),
		"quay.io/prometheus-operator/prometheus-operator:"+prometheusOperator,
		"quay.io/prometheus-operator/prometheus-config-reloader:"+prometheusOperator,
		// Prometheus 3.5.0 is the module's v0.305.0.
		"quay.io/prometheus/prometheus:v3."+strings.TrimPrefix(version("../operators/prometheus/go.mod", `prometheus/prometheus v0\.3(\S+)`), "0"),
	)
	specs, err := images.ReadList("../operators/images.yaml")
	if err != nil {
		t.Fatal(err)
	}
	built := refs(t)
	for _, spec := range specs {
		built = append(built, spec.Refs()...)
	}
	for _, ref := range want {
		if !slices.Contains(built, ref) {
			t.Errorf("%s is not in a list of images:\n%s", ref, strings.Join(built, "\n"))
		}
	}
}

// TestConformanceImagesAreThoseOfTheSuite finds stand-ins that the suite does not ask for any more after an update of
// Kubernetes.
func TestConformanceImagesAreThoseOfTheSuite(t *testing.T) {
	dir, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes").Output()
	if err != nil {
		t.Fatal(err)
	}
	suite, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "test/utils/image/manifest.go"))
	if err != nil {
		t.Fatal(err)
	}
	specs, err := images.ReadList("../conformance/images/images.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, spec := range specs {
		for _, ref := range spec.Refs() {
			name, version, _ := strings.Cut(path.Base(ref), ":")
			if !strings.Contains(string(suite), fmt.Sprintf(", %q, %q}", name, version)) {
				t.Errorf("the suite has no image %s", ref)
			}
		}
	}
}
