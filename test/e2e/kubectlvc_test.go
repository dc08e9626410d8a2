package e2e_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/test/e2e/local"
)

func TestKubectlVCShowsAndOpensATenant(t *testing.T) {
	cluster, a, b := open(t)
	vc := a.VirtualCluster

	list := must(t, cluster.Super, "vc", "list", "--all-namespaces")
	for _, name := range []string{a.Name, b.Name, "NAMESPACE", "PHASE", "Running"} {
		if !strings.Contains(list, name) {
			t.Errorf("list does not mention %s:\n%s", name, list)
		}
	}
	var decoded tenancyv1alpha1.VirtualCluster
	if err := json.Unmarshal([]byte(must(t, cluster.Super, "vc", "list", vc.Name, "-n", vc.Namespace, "-o", "json")), &decoded); err != nil {
		t.Fatalf("decoding list -o json: %v", err)
	}
	if decoded.UID != vc.UID {
		t.Errorf("list -o json shows UID %q, want %q", decoded.UID, vc.UID)
	}
	if got := must(t, cluster.Super, "vc", "list", "-n", vc.Namespace, "-o", "yaml"); !strings.Contains(got, "name: "+vc.Name) {
		t.Errorf("list -o yaml: %s", got)
	}

	status := must(t, cluster.Super, "vc", "status", vc.Name, "-n", vc.Namespace)
	for _, want := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "1/1 ready", "Syncing", vc.Status.Endpoint, vc.Status.Version} {
		if !strings.Contains(status, want) {
			t.Errorf("status does not mention %s:\n%s", want, status)
		}
	}

	nodes := must(t, a.Access, "get", "nodes", "-o", "name")
	if got := must(t, cluster.Super, "vc", "exec", vc.Name, "-n", vc.Namespace, "--", "kubectl", "get", "nodes", "-o", "name"); got != nodes {
		t.Errorf("exec: kubectl get nodes shows %q, want %q", got, nodes)
	}
	ctx, cancel := context.WithTimeout(t.Context(), local.CommandTimeout)
	defer cancel()
	if got := try(t, "", cluster.Super.Command(ctx, "kubectl", "vc", "exec", vc.Name, "-n", vc.Namespace, "--", "sh", "-c", "exit 9")); got.Code != 9 {
		t.Errorf("exec of a command that ends with 9: %s", got)
	}

	shell := cluster.Super.Command(t.Context(), "kubectl", "vc", "shell", vc.Name, "-n", vc.Namespace)
	shell.Env = append(shell.Env, "SHELL=/bin/sh")
	terminal := typeAt(t, shell)
	terminal.expect(t, "Leave with: exit")
	terminal.send(t, `kubectl config current-context; echo "pwd-$((40 + 2))"; exit`)
	terminal.expect(t, "vc/"+vc.Namespace+"/"+vc.Name)
	terminal.expect(t, "pwd-42")
	if code := terminal.exit(t); code != 0 {
		t.Errorf("shell ended with %d: %s", code, terminal.output())
	}
}

func TestKubectlVCMergesAKubeconfig(t *testing.T) {
	cluster, a, _ := open(t)
	vc := a.VirtualCluster
	own, err := os.ReadFile(cluster.Super.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(path, own, 0o600); err != nil {
		t.Fatal(err)
	}
	user, err := cluster.Open("user", path)
	if err != nil {
		t.Fatal(err)
	}
	before := must(t, user, "config", "current-context")
	must(t, user, "vc", "kubeconfig", vc.Name, "-n", vc.Namespace, "--merge")
	if after := must(t, user, "config", "current-context"); after != before {
		t.Errorf("the current context changed from %q to %q", before, after)
	}
	want := must(t, a.Access, "get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}")
	name := "vc/" + vc.Namespace + "/" + vc.Name
	if got := must(t, user, "--context", name, "get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}"); got != want {
		t.Errorf("the merged context leads to kube-system %q, want %q", got, want)
	}
}

func TestKubectlVCCreatesAndDeletes(t *testing.T) {
	cluster, _, _ := open(t)
	namespace := makeNamespace(t, cluster)
	ctx, cancel := context.WithTimeout(t.Context(), readyTimeout)
	defer cancel()
	created := try(t, "", cluster.Super.Command(ctx, "kubectl", "vc", "create", "made", "-n", namespace, "--wait", "--timeout=2m"))
	if created.Code != 0 || !strings.Contains(created.Stderr, "s] ") {
		t.Fatalf("create --wait shows no progress or failed: %s", created)
	}
	must(t, cluster.Super, "-n", namespace, "wait", "--for=condition=Ready", "vc/made", "--timeout=1s")
	if got := fails(t, cluster.Super, "vc", "create", "made", "-n", namespace); !strings.Contains(got, "already") {
		t.Errorf("creating it again: %q", got)
	}
	must(t, cluster.Super, "vc", "delete", "made", "-n", namespace, "--wait", "--timeout=2m")
	if got := fails(t, cluster.Super, "vc", "status", "made", "-n", namespace); !strings.Contains(got, `no VirtualCluster "made"`) {
		t.Errorf("status of what was deleted: %q", got)
	}
}

// A tenant's cluster is one in which VirtualCluster is not installed.
func TestKubectlVCWithoutCRDsSaysHowToInstall(t *testing.T) {
	_, a, _ := open(t)
	for _, command := range [][]string{{"vc", "list"}, {"vc", "status", "x"}, {"vc", "create", "x"}, {"vc", "kubeconfig", "x"}} {
		t.Run(command[1], func(t *testing.T) {
			got := strings.TrimSpace(fails(t, a.Access, command...))
			lines := strings.Split(got, "\n")
			if len(lines) != 1 || !strings.Contains(lines[0], "helm install") {
				t.Errorf("want one line that says how to install, got %q", got)
			}
		})
	}
}
