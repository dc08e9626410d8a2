package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtualcluster-io/virtualcluster/test/e2e/local"
	"github.com/virtualcluster-io/virtualcluster/test/retired"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

// The two samples, changed only by the script of docs/migration.md, make a tenant whose pods run. The images they name hold our own
// builds of Kubernetes, see images.yaml.
func TestSamplesOfTheRetiredProject(t *testing.T) {
	cluster, _, _ := open(t)
	version, err := retired.AdaptedClusterVersion(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sample, err := retired.VirtualCluster()
	if err != nil {
		t.Fatal(err)
	}
	mustInput(t, cluster.Super, version, "apply", "-f", "-")
	cleanup(t, cluster.Super, "delete", "clusterversion", "cv-sample-np", "--ignore-not-found", "--timeout=30s")
	mustInput(t, cluster.Super, sample, "apply", "-f", "-")
	cleanup(t, cluster.Super, "-n", "default", "delete", "vc", "vc-sample-1", "--ignore-not-found", "--timeout=2m")
	// Probes of the samples wait a quarter of a minute before they ask for the first time.
	vc := awaitVC(t, cluster, "default", "vc-sample-1", "the sample to be ready", 2*readyTimeout, isReady)

	tenant, err := cluster.Tenant(t.Context(), vc, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	must(t, tenant.Access, "-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=2m")
	worlds.Eventually(t, 30*time.Second, "the service account of the namespace", func(ctx context.Context) error {
		_, err := tenant.Client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	must(t, tenant.Access, "run", "hello", "--image="+local.Image, "--image-pull-policy=IfNotPresent", "--", "sh", "-c", "echo hello; exec sleep 3600")
	must(t, tenant.Access, "wait", "--for=condition=Ready", "pod/hello", "--timeout=1m")
	// The identity at vn-agents and cluster IPs are what vc-manager fills in.
	if got := must(t, tenant.Access, "logs", "hello"); got != "hello\n" {
		t.Errorf("the log is %q", got)
	}
	kubernetes := must(t, tenant.Access, "get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}")
	if got := must(t, tenant.Access, "exec", "hello", "--", "nslookup", "kubernetes.default.svc.cluster.local"); !strings.Contains(got, kubernetes) {
		t.Errorf("kubernetes.default is not %s: %s", kubernetes, got)
	}
	must(t, tenant.Access, "exec", "hello", "--", "wget", "-q", "-O", "-", "-T", "5", "--no-check-certificate", "https://"+kubernetes+"/version")
}

// What a kubelet says only in events is in the conditions.
func TestControlPlaneSaysWhichSecretIsMissing(t *testing.T) {
	cluster, _, _ := open(t)
	namespace, name := makeNamespace(t, cluster), unique("missing-secret")
	version, err := retired.AdaptedClusterVersion(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	version = strings.NewReplacer("name: cv-sample-np", "name: "+name, "secretName: etcd-ca", "secretName: nowhere").Replace(version)
	mustInput(t, cluster.Super, version, "create", "-f", "-")
	cleanup(t, cluster.Super, "delete", "clusterversion", name, "--ignore-not-found", "--timeout=30s")
	makeVC(t, cluster, namespace, "vc", fmt.Sprintf(`{"clusterVersionName":%q}`, name))
	awaitVC(t, cluster, namespace, "vc", "a condition that names the Secret", time.Minute, saysNo(`secret "nowhere" not found`))
	assertQuiet(t, cluster, namespace, "vc")
}
