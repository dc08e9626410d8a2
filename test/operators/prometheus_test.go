package operators_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/virtualcluster-io/virtualcluster/test/e2e/local"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

// The version is the one that `make operators` builds.
const prometheus = `
apiVersion: monitoring.coreos.com/v1
kind: Prometheus
metadata: {name: shop, namespace: default}
spec:
  version: v3.12.0
  serviceAccountName: prometheus
  serviceMonitorSelector: {}
  serviceMonitorNamespaceSelector: {}
  ruleSelector: {}
  scrapeInterval: 2s
  evaluationInterval: 2s
  resources: {requests: {cpu: 20m, memory: 64Mi}}
  storage:
    volumeClaimTemplate:
      spec: {resources: {requests: {storage: 64Mi}}}
---
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata: {name: shop, namespace: default}
spec:
  groups:
  - name: shop
    rules: [{record: "shop:up:sum", expr: "sum(up)"}]
`

// series is one line of a result of Prometheus.
type series struct {
	Metric map[string]string
	Value  [2]any
}

func query(ctx context.Context, tenant *local.Tenant, expression string) ([]series, error) {
	var answer struct{ Data struct{ Result []series } }
	err := getJSON(ctx, tenant, &answer, "/api/v1/namespaces/default/services/prometheus-operated:web/proxy/api/v1/query", "query", expression)
	return answer.Data.Result, err
}

// The Prometheus operator makes a StatefulSet with a volume out of a Prometheus object, and its configuration out of
// ServiceMonitors and PrometheusRules; Prometheus finds its targets through the tenant's API server. Both are installed
// where and as their project says.
func TestPrometheusOperator(t *testing.T) {
	module := moduleDir(t, "prometheus-operator", "github.com/prometheus-operator/prometheus-operator")
	bundle := filepath.Join(module, "bundle.yaml")
	rbac := filepath.Join(module, "example", "rbac")
	inEachTenant(t, func(t *testing.T, tenant *local.Tenant) {
		manifests := []string{
			"-f", filepath.Join(rbac, "prometheus", "prometheus-service-account.yaml"),
			"-f", filepath.Join(rbac, "prometheus", "prometheus-cluster-role.yaml"),
			"-f", filepath.Join(rbac, "prometheus", "prometheus-cluster-role-binding.yaml"),
		}
		// Its CRDs are larger than the annotation of kubectl apply may be.
		tenant.Kubectl(t, "apply", "--server-side", "-f", bundle)
		tenant.Cleanup(t, "kubectl", "delete", "-f", bundle, "--ignore-not-found", "--timeout=2m")
		eventually(t, tenant, "", "rollout", "status", "deployment/prometheus-operator", "--timeout=1m")
		tenant.Kubectl(t, append([]string{"apply", "-n", "default"}, manifests...)...)
		tenant.Cleanup(t, "kubectl", append([]string{"delete", "-n", "default", "--ignore-not-found"}, manifests...)...)
		monitor := filepath.Join(rbac, "prometheus-operator", "prometheus-operator-service-monitor.yaml")
		tenant.Kubectl(t, "apply", "-f", monitor)
		tenant.Must(t, prometheus, "kubectl", "apply", "-f", "-")
		tenant.Cleanup(t, "kubectl", "delete", "pvc", "--all", "--timeout=1m")
		tenant.Cleanup(t, "kubectl", "delete", "prometheuses,prometheusrules,servicemonitors", "--all", "--cascade=foreground", "--timeout=2m")
		eventually(t, tenant, "", "wait", "prometheus/shop", "--for=condition=Available", "--timeout=1m")

		operator := field(t, tenant, "{.items[0].metadata.name}", "pods", "-l", "app.kubernetes.io/name=prometheus-operator")
		worlds.Eventually(t, 2*time.Minute, "the operator to be scraped", func(ctx context.Context) error {
			result, err := query(ctx, tenant, `up{job="prometheus-operator"} == 1`)
			if err != nil {
				return err
			}
			if len(result) != 1 || result[0].Metric["pod"] != operator || result[0].Metric["namespace"] != "default" {
				return fmt.Errorf("targets that are up: %+v", result)
			}
			return nil
		})
		worlds.Eventually(t, 2*time.Minute, "the rule to have a value", func(ctx context.Context) error {
			result, err := query(ctx, tenant, "shop:up:sum")
			if err != nil {
				return err
			}
			if len(result) != 1 || result[0].Value[1] != "1" {
				return fmt.Errorf("values are %+v", result)
			}
			return nil
		})

		// What was scraped stays when the pod is replaced.
		began := scrapes(t, tenant)
		tenant.Kubectl(t, "delete", "pod", "prometheus-shop-0", "--timeout=1m")
		eventually(t, tenant, "", "rollout", "status", "statefulset/prometheus-shop", "--timeout=1m")
		worlds.Eventually(t, time.Minute, "the old values to be there", func(ctx context.Context) error {
			result, err := query(ctx, tenant, fmt.Sprintf(`shop:up:sum @ %s`, began))
			if err != nil {
				return err
			}
			if len(result) != 1 {
				return fmt.Errorf("values of %s are %+v", began, result)
			}
			return nil
		})
		// Two replicas share the work of one object.
		tenant.Kubectl(t, "patch", "prometheus", "shop", "--type=merge", "-p", `{"spec":{"replicas":2}}`)
		eventually(t, tenant, "", "rollout", "status", "statefulset/prometheus-shop", "--timeout=1m")
		if got := field(t, tenant, "{.items[*].status.phase}", "pvc"); strings.Count(got, "Bound") != 2 {
			t.Errorf("claims are %q, want two that are bound", got)
		}
	})
}

// scrapes returns the time of the latest value of the rule.
func scrapes(t *testing.T, tenant *local.Tenant) string {
	t.Helper()
	result, err := query(t.Context(), tenant, "timestamp(shop:up:sum)")
	if err != nil || len(result) != 1 {
		t.Fatalf("reading the time of a value: %+v, %v", result, err)
	}
	return fmt.Sprint(result[0].Value[1])
}
