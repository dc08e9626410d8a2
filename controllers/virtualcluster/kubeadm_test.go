package virtualcluster

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/template"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// differences are those between our CoreDNS and kubeadm's, each with its reason. Whatever is not here is the same: what
// people copy for clusters made by kubeadm, network policies above all, is right in tenants.
var differences = map[string]string{
	"Service.metadata.resourceVersion": "kubeadm updates where we apply",

	"Deployment.metadata.annotations.tenancy.x-k8s.io/digest": "says which manifests were applied",

	"Deployment.spec.replicas":                              "there is a CoreDNS in every tenant; a tenant that needs more of them can have them",
	"Deployment.spec.strategy.rollingUpdate.maxUnavailable": "the only one must not go before the next one is there",
	"Deployment.spec.strategy.rollingUpdate.maxSurge":       "the only one must not go before the next one is there",

	"Deployment.spec.template.spec.containers[coredns].resources.requests.cpu":    "there is a CoreDNS in every tenant",
	"Deployment.spec.template.spec.containers[coredns].resources.requests.memory": "there is a CoreDNS in every tenant",

	"Deployment.spec.template.spec.containers[coredns].readinessProbe.periodSeconds":  "the first pods of a tenant wait for DNS",
	"Deployment.spec.template.spec.containers[coredns].readinessProbe.timeoutSeconds": "more than the period, so that a slow node does not take it out",

	"Deployment.spec.template.spec.securityContext.runAsNonRoot":        "the Pod Security level restricted demands it",
	"Deployment.spec.template.spec.securityContext.runAsUser":           "the image's user, as a number, which runAsNonRoot needs",
	"Deployment.spec.template.spec.securityContext.runAsGroup":          "the image's group",
	"Deployment.spec.template.spec.securityContext.seccompProfile.type": "the Pod Security level restricted demands it",
}

func TestCoreDNSIsThatOfKubeadm(t *testing.T) {
	ours, _, err := renderCoreDNS(coreDNSValues{Domain: "cluster.local", Image: "example.org/coredns:1", Address: "10.112.4.10"})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]any{}
	for _, object := range ours {
		flatten(got, object.GetKind(), object.Object)
	}
	want := map[string]any{}
	for _, object := range kubeadmCoreDNS(t) {
		flatten(want, object.GetKind(), object.Object)
	}
	different := map[string]bool{}
	for _, path := range slices.Sorted(maps.Keys(merge(got, want))) {
		if fmt.Sprint(got[path]) == fmt.Sprint(want[path]) {
			continue
		}
		different[path] = true
		if differences[path] == "" {
			t.Errorf("%s is %v, kubeadm has %v", path, got[path], want[path])
		}
	}
	for path := range differences {
		if !different[path] {
			t.Errorf("%s is not different any more", path)
		}
	}
}

func merge(a, b map[string]any) map[string]any {
	merged := maps.Clone(a)
	maps.Copy(merged, b)
	return merged
}

// flatten adds the leaves of a value to a map, by their path; items of lists go by their name if they have one.
func flatten(leaves map[string]any, path string, value any) {
	switch v := value.(type) {
	case map[string]any:
		for key, item := range v {
			flatten(leaves, path+"."+key, item)
		}
	case []any:
		for i, item := range v {
			key := any(i)
			if object, ok := item.(map[string]any); ok && object["name"] != nil {
				key = object["name"]
			}
			flatten(leaves, fmt.Sprintf("%s[%v]", path, key), item)
		}
	default:
		leaves[path] = v
	}
}

// kubeadmCoreDNS returns the objects that kubeadm makes, from its source.
func kubeadmCoreDNS(t *testing.T) []unstructured.Unstructured {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", "k8s.io/kubernetes").Output()
	if err != nil {
		t.Fatalf("downloading Kubernetes: %v: %s", err, out)
	}
	var download struct{ Dir string }
	if err := json.Unmarshal(out, &download); err != nil {
		t.Fatal(err)
	}
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(download.Dir, "cmd/kubeadm/app/phases/addons/dns/manifests.go"), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]any{
		"DNSIP": "10.112.4.10", "DNSDomain": "cluster.local", "DeploymentName": "coredns", "Image": "example.org/coredns:1",
		"ControlPlaneTaintKey": "node-role.kubernetes.io/control-plane", "Replicas": 2,
	}
	var objects []unstructured.Unstructured
	ast.Inspect(file, func(node ast.Node) bool {
		spec, ok := node.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(spec.Names[0].Name, "CoreDNS") {
			return true
		}
		literal, ok := spec.Values[0].(*ast.BasicLit)
		if !ok {
			t.Fatalf("%s is not a literal", spec.Names[0].Name)
		}
		text, err := strconv.Unquote(literal.Value)
		if err != nil {
			t.Fatal(err)
		}
		var rendered bytes.Buffer
		if err := template.Must(template.New("").Option("missingkey=error").Parse(text)).Execute(&rendered, values); err != nil {
			t.Fatal(err)
		}
		object := unstructured.Unstructured{}
		if err := yaml.Unmarshal(rendered.Bytes(), &object.Object); err != nil {
			t.Fatal(err)
		}
		objects = append(objects, object)
		return true
	})
	return objects
}
