package e2e_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	_ "embed"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/test/e2e/local"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

// measurements are the paths of a kubelet that tell of pods.
func measurements() []string {
	return []string{"stats/summary", "metrics/resource", "metrics/cadvisor", "metrics/probes"}
}

// Two tenants have pods of the same name in namespaces of the same name on the same node. Each sees its own, whether its
// API server asks the kubelet or a scraper with a token does.
func TestMetricsAreThoseOfTheTenant(t *testing.T) {
	cluster, a, b := open(t)
	node := commonNode(t, a, b)
	namespace := unique("metrics")
	only := map[*local.Tenant]string{a: unique("alpha"), b: unique("beta")}
	for _, tenant := range []*local.Tenant{a, b} {
		runMeasured(t, tenant, node.Name, namespace, "same", only[tenant])
	}
	endpoint := vnAgent(t, node)
	for tenant, other := range map[*local.Tenant]*local.Tenant{a: b, b: a} {
		token := scraper(t, tenant, namespace)
		ways := map[string]func(path string) (int, string){
			"ThroughTheAPIServer": func(path string) (int, string) {
				body, err := tenant.Client.CoreV1().RESTClient().Get().AbsPath("/api/v1/nodes", node.Name, "proxy", path).DoRaw(t.Context())
				if err != nil {
					return http.StatusInternalServerError, err.Error()
				}
				return http.StatusOK, string(body)
			},
			"WithAToken": func(path string) (int, string) { return endpoint.get(t, nil, "/"+path, bearer(token)) },
		}
		for name, get := range ways {
			t.Run(tenant.Name+name, func(t *testing.T) {
				for _, path := range measurements() {
					worlds.Eventually(t, time.Minute, path+" with the pods of "+tenant.Name, func(context.Context) error {
						status, body := get(path)
						if status != http.StatusOK || !strings.Contains(body, only[tenant]) || !strings.Contains(body, namespace) {
							return fmt.Errorf("got %d %s", status, body)
						}
						return nil
					})
					_, body := get(path)
					for _, foreign := range []string{
						only[other], names.SuperNamespace(tenant.ID(), namespace), names.SuperNamespace(other.ID(), namespace),
						string(tenant.ID()), string(other.ID()), "kube-apiserver", "vn-agent", "kubepods", "machine_", "/dev/",
					} {
						if strings.Contains(body, foreign) {
							t.Errorf("%s tells of %s", path, foreign)
						}
					}
				}
			})
		}
	}

	stolen := stolenIdentity(t, cluster, a)
	for _, path := range []string{"/pods", "/runningpods/", "/metrics", "/metrics/probes/", "/stats", "/stats/container", "/logs/", "/configz", "/metrics%2Fcadvisor", "/stats/../pods"} {
		if status, body := endpoint.get(t, stolen, path, nil); status != http.StatusNotFound {
			t.Errorf("%s: got %d %q", path, status, body)
		}
	}
}

//go:embed testdata/metrics-server.yaml
var metricsServer string

// metrics-server runs in both tenants as in any cluster, and kubectl top shows to each its own pods, and nodes with what
// its own pods use.
func TestKubectlTop(t *testing.T) {
	_, a, b := open(t)
	node := commonNode(t, a, b)
	namespace := unique("top")
	only := map[*local.Tenant]string{a: unique("alpha"), b: unique("beta")}
	for _, tenant := range []*local.Tenant{a, b} {
		cleanup(t, tenant.Access, "delete", "--ignore-not-found", "--timeout=2m", "-f", "testdata/metrics-server.yaml")
		mustInput(t, tenant.Access, metricsServer, "apply", "-f", "-")
		runMeasured(t, tenant, node.Name, namespace, only[tenant])
	}
	for tenant, other := range map[*local.Tenant]*local.Tenant{a: b, b: a} {
		must(t, tenant.Access, "-n", metav1.NamespaceSystem, "wait", "--for=condition=Available", "deployment/metrics-server", "--timeout=150s")
		top := func(args ...string) func(context.Context) (string, error) {
			return func(ctx context.Context) (string, error) {
				got := try(t, "", tenant.Command(ctx, "kubectl", append([]string{"top"}, args...)...))
				if got.Code != 0 {
					return "", errors.New(got.String())
				}
				return got.Stdout, nil
			}
		}
		worlds.Eventually(t, 2*time.Minute, "kubectl top pods of "+tenant.Name, func(ctx context.Context) error {
			out, err := top("pods", "--all-namespaces")(ctx)
			if err != nil || !strings.Contains(out, only[tenant]) {
				return fmt.Errorf("got %q: %w", out, err)
			}
			for _, foreign := range []string{only[other], string(tenant.ID()), string(other.ID()), names.SuperNamespace(tenant.ID(), namespace), "vn-agent", "kube-apiserver"} {
				if strings.Contains(out, foreign) {
					t.Errorf("%s sees %s in %s", tenant.Name, foreign, out)
				}
			}
			return nil
		})
		worlds.Eventually(t, 2*time.Minute, "kubectl top nodes of "+tenant.Name, func(ctx context.Context) error {
			out, err := top("nodes")(ctx)
			if err != nil || !strings.Contains(out, node.Name) || strings.Contains(out, "<unknown>") {
				return fmt.Errorf("got %q: %w", out, err)
			}
			return nil
		})
	}
}

// A token opens measurements if the tenant allows it, and nothing else.
func TestTokensAtTheKubelet(t *testing.T) {
	_, a, b := open(t)
	node := commonNode(t, a, b)
	namespace := unique("tokens")
	runMeasured(t, a, node.Name, namespace, "victim")
	allowed := scraper(t, a, namespace)
	refused := strings.TrimSpace(must(t, a.Access, "-n", namespace, "create", "token", "default"))
	endpoint := vnAgent(t, node)
	for name, tc := range map[string]struct {
		token, path string
		want        int
	}{
		"Allowed":      {allowed, "/metrics/resource", http.StatusOK},
		"NotAllowed":   {refused, "/metrics/resource", http.StatusForbidden},
		"Broken":       {allowed[:len(allowed)-8] + "AAAAAAAA", "/metrics/resource", http.StatusUnauthorized},
		"None":         {"", "/metrics/resource", http.StatusUnauthorized},
		"Logs":         {allowed, "/containerLogs/" + namespace + "/victim/main", http.StatusUnauthorized},
		"Exec":         {allowed, "/exec/" + namespace + "/victim/main?command=id&output=1", http.StatusUnauthorized},
		"UnknownPath":  {allowed, "/pods", http.StatusUnauthorized},
		"SuperCluster": {allowed, "/api/v1/nodes", http.StatusUnauthorized},
	} {
		t.Run(name, func(t *testing.T) {
			if status, body := endpoint.get(t, nil, tc.path, bearer(tc.token)); status != tc.want {
				t.Errorf("got %d %q, want %d", status, body, tc.want)
			}
		})
	}
}

// A scraper of the tenant can verify its kubelets.
func TestTenantKnowsTheCAOfItsKubelets(t *testing.T) {
	_, a, b := open(t)
	address := vnAgent(t, commonNode(t, a, b)).address
	worlds.Eventually(t, time.Minute, "the CA of the kubelets", func(ctx context.Context) error {
		published, err := a.Client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, names.KubeletServingCAConfigMap, metav1.GetOptions{})
		if err != nil {
			return err
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM([]byte(published.Data[names.KubeletServingCAKey])) {
			return errors.New("no certificate in it")
		}
		conn, err := (&tls.Dialer{Config: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}}).DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// runMeasured runs pods on a node that use CPU and are probed, in a namespace of their own.
func runMeasured(t *testing.T, tenant *local.Tenant, node, namespace string, pods ...string) {
	t.Helper()
	must(t, tenant.Access, "create", "namespace", namespace)
	cleanup(t, tenant.Access, "delete", "namespace", namespace, "--ignore-not-found", "--timeout=2m")
	worlds.Eventually(t, 30*time.Second, "the service account of the namespace", func(ctx context.Context) error {
		_, err := tenant.Client.CoreV1().ServiceAccounts(namespace).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	for _, name := range pods {
		pod := worlds.Pod(namespace, name)
		pod.Spec.NodeSelector = map[string]string{corev1.LabelHostname: node}
		pod.Spec.Containers[0].Image = local.Image
		pod.Spec.Containers[0].Command = []string{"sh", "-c", "trap 'exit 0' TERM; while true; do md5sum /bin/busybox >/dev/null; sleep 1 & wait $!; done"}
		pod.Spec.Containers[0].ReadinessProbe = &corev1.Probe{
			ProbeHandler:  corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"true"}}},
			PeriodSeconds: 2, TimeoutSeconds: 10,
		}
		if _, err := tenant.Client.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
			t.Fatalf("creating a pod: %v", err)
		}
	}
	must(t, tenant.Access, "-n", namespace, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=150s")
}

// scraper returns the token of a service account that may read what metrics-server and Prometheus read.
func scraper(t *testing.T, tenant *local.Tenant, namespace string) string {
	t.Helper()
	must(t, tenant.Access, "-n", namespace, "create", "serviceaccount", "scraper")
	must(t, tenant.Access, "create", "clusterrole", namespace, "--verb=get", "--resource=nodes/metrics,nodes/stats")
	cleanup(t, tenant.Access, "delete", "clusterrole", namespace)
	must(t, tenant.Access, "create", "clusterrolebinding", namespace, "--clusterrole="+namespace, "--serviceaccount="+namespace+":scraper")
	cleanup(t, tenant.Access, "delete", "clusterrolebinding", namespace)
	return strings.TrimSpace(must(t, tenant.Access, "-n", namespace, "create", "token", "scraper"))
}

func bearer(token string) http.Header {
	if token == "" {
		return nil
	}
	return http.Header{"Authorization": {"Bearer " + token}}
}
