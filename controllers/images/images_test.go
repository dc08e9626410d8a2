package images

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/version"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

func TestImage(t *testing.T) {
	for _, tc := range []struct {
		source    Source
		component string
		want      string
	}{
		{Source{Version: "v1.36.3"}, names.APIServer, "registry.k8s.io/kube-apiserver:v1.36.3"},
		{Source{Version: "v1.36.3"}, names.Etcd, "registry.k8s.io/etcd:3.6.8-0"},
		{Source{Version: "v1.36.3"}, CoreDNS, "registry.k8s.io/coredns/coredns:v1.14.2"},
		{Source{Version: "v1.36.0-rc.1"}, names.Etcd, "registry.k8s.io/etcd:3.6.8-0"},
		{Source{Version: "v1.34.9+vendor.1"}, CoreDNS, "registry.k8s.io/coredns/coredns:v1.12.1"},
		{Source{Version: "v1.29.0"}, names.Etcd, "registry.k8s.io/etcd:3.6.5-0"},
		{Source{Version: "v1.99.0"}, names.Etcd, "registry.k8s.io/etcd:3.7.0-0"},
		{Source{Version: "v2.0.0"}, CoreDNS, "registry.k8s.io/coredns/coredns:v1.14.6"},
		{Source{}, CoreDNS, "registry.k8s.io/coredns/coredns:v1.14.6"},
		{Source{Registry: "registry.example.com:5000/k8s", Version: "v1.36.3"}, names.Scheduler, "registry.example.com:5000/k8s/kube-scheduler:v1.36.3"},
		{Source{Registry: "registry.example.com", Version: "v1.36.3"}, CoreDNS, "registry.example.com/coredns/coredns:v1.14.2"},
	} {
		if got := tc.source.Image(tc.component); got != tc.want {
			t.Errorf("%s of %+v is %s, want %s", tc.component, tc.source, got, tc.want)
		}
	}
}

// TestPairsAreThoseOfKubeadm reads what kubeadm runs beside each version of Kubernetes that our modules name, so that an
// update of a module does not go without one of the table.
func TestPairsAreThoseOfKubeadm(t *testing.T) {
	modules, err := filepath.Glob("../../test/kubernetes/v*")
	if err != nil || len(modules) == 0 {
		t.Fatalf("no modules of other versions: %v", err)
	}
	compared := map[uint]bool{}
	for _, module := range append(modules, "../..") {
		kubernetes, dir := kubernetesOf(t, module)
		content, err := os.ReadFile(filepath.Join(dir, "cmd/kubeadm/app/constants/constants.go"))
		if err != nil {
			t.Fatal(err)
		}
		constant := func(name string) string {
			match := regexp.MustCompile(name + ` = "(\S+)"`).FindSubmatch(content)
			if match == nil {
				t.Fatalf("kubeadm %s has no constant %s", kubernetes, name)
			}
			return string(match[1])
		}
		minor := version.MustParseGeneric(kubernetes).Minor()
		compared[minor] = true
		want := pair{etcd: constant("DefaultEtcdVersion"), coreDNS: constant("CoreDNSVersion")}
		if got := table()[minor]; got != want {
			t.Errorf("the entry of minor %d is %+v; kubeadm %s has %+v", minor, got, kubernetes, want)
		}
	}
	for minor := range table() {
		if !compared[minor] {
			t.Errorf("no module is of minor %d: its entry cannot be checked", minor)
		}
	}
}

func TestPairsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/install.md")
	if err != nil {
		t.Fatal(err)
	}
	for minor, p := range table() {
		row := regexp.MustCompile(fmt.Sprintf("(?m)^\\| 1\\.%d[^|]*\\| `%s` \\| `%s` \\|$", minor, regexp.QuoteMeta(p.etcd), regexp.QuoteMeta(p.coreDNS)))
		if !row.Match(page) {
			t.Errorf("docs/install.md has no row for minor %d with %s and %s", minor, p.etcd, p.coreDNS)
		}
	}
}

// kubernetesOf returns the version of Kubernetes that a module requires, and where its source is.
func kubernetesOf(t *testing.T, module string) (kubernetes, dir string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "mod", "download", "-C", module, "-json", "k8s.io/kubernetes").Output()
	if err != nil {
		t.Fatalf("downloading Kubernetes for %s: %v: %s", module, err, out)
	}
	var download struct{ Version, Dir string }
	if err := json.Unmarshal(out, &download); err != nil {
		t.Fatal(err)
	}
	return download.Version, download.Dir
}

// TestEverybodyChecksRegistriesAlike compares with what the super cluster and Helm check.
func TestEverybodyChecksRegistriesAlike(t *testing.T) {
	for _, file := range []string{"../../api/v1alpha1/clusterversion_types.go", "../../charts/virtualcluster/values.schema.json"} {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(content), registryPattern) {
			t.Errorf("%s does not contain %s", file, registryPattern)
		}
	}
}

func TestCheckRegistry(t *testing.T) {
	for _, name := range []string{"", "registry.example.com", "registry.example.com:5000", "mirror.example.com/k8s/upstream", "10.0.0.1:5000/a_b-c.d", "localhost"} {
		if err := CheckRegistry(name); err != nil {
			t.Errorf("%q is refused: %v", name, err)
		}
	}
	for _, name := range []string{"https://registry.example.com", "registry.example.com/", "registry.example.com//a", "registry.example.com/K8s", "registry.example.com:port", "a b", "registry.example.com/a:v1", "-a", "a@sha256:00"} {
		if err := CheckRegistry(name); err == nil || !strings.Contains(err.Error(), "host[:port][/path]") {
			t.Errorf("%q: got %v", name, err)
		}
	}
}
