package operators_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtualcluster-io/virtualcluster/test/e2e/local"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

const cloudNativePG = "1.27.1"

// The image is Debian's PostgreSQL in the place of the project's.
const database = `
apiVersion: postgresql.cnpg.io/v1
kind: Cluster
metadata: {name: orders}
spec:
  instances: 2
  imageName: ghcr.io/cloudnative-pg/postgresql:17
  stopDelay: 5
  resources: {requests: {cpu: 20m, memory: 96Mi}}
  storage: {size: 256Mi}
`

// sql runs a statement as the application would: with the address and password of the operator's Secret, but by any of its
// Services. It runs in the container of an instance, where the client is.
func sql(ctx context.Context, t *testing.T, tenant *local.Tenant, namespace, instance, service, statement string) (string, error) {
	t.Helper()
	secret, err := tenant.Client.CoreV1().Secrets(namespace).Get(ctx, "orders-app", metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("getting the application's Secret: %w", err)
	}
	uri := strings.ReplaceAll(string(secret.Data["uri"]), "orders-rw", service)
	got := local.Run(t, "", tenant.Command(ctx, "kubectl", "-n", namespace, "exec", instance, "-c", "postgres", "--",
		"psql", "-qAt", "-v", "ON_ERROR_STOP=1", uri, "-c", statement))
	if got.Code != 0 {
		return "", fmt.Errorf("psql: %s", got)
	}
	return strings.TrimSpace(got.Stdout), nil
}

// CloudNativePG runs PostgreSQL with replicas and promotes one when the primary is lost. It makes pods and claims itself,
// talks to each pod, and its webhooks are served with certificates it puts into the configurations itself.
func TestCloudNativePG(t *testing.T) {
	module := moduleDir(t, "programs", "github.com/cloudnative-pg/cloudnative-pg")
	release := filepath.Join(module, "releases", "cnpg-"+cloudNativePG+".yaml")
	namespace := local.Unique("shop")
	inEachTenant(t, func(t *testing.T, tenant *local.Tenant) {
		const system = "cnpg-system"
		tenant.Kubectl(t, "apply", "--server-side", "-f", release)
		tenant.Cleanup(t, "kubectl", "delete", "-f", release, "--ignore-not-found", "--timeout=2m30s")
		eventually(t, tenant, "", "-n", system, "rollout", "status", "deployment/cnpg-controller-manager", "--timeout=1m")

		tenant.Kubectl(t, "create", "namespace", namespace)
		tenant.Cleanup(t, "kubectl", "delete", "namespace", namespace, "--timeout=2m")
		eventually(t, tenant, database, "-n", namespace, "apply", "-f", "-")
		tenant.Cleanup(t, "kubectl", "-n", namespace, "delete", "clusters.postgresql.cnpg.io", "--all", "--timeout=2m")
		eventually(t, tenant, "", "-n", namespace, "wait", "cluster/orders", "--for=condition=Ready", "--timeout=1m")
		// The validating webhook knows what a schema cannot say.
		if got := tenant.Fails(t, strings.ReplaceAll(database, "256Mi", "128Mi"), "-n", namespace, "apply", "-f", "-"); !strings.Contains(got, "can't shrink") {
			t.Errorf("shrinking the storage: %s", got)
		}

		primary := field(t, tenant, "{.status.currentPrimary}", "cluster/orders", "-n", namespace)
		const other = "orders-2"
		if primary != "orders-1" {
			t.Fatalf("primary is %q", primary)
		}
		if _, err := sql(t.Context(), t, tenant, namespace, other, "orders-rw",
			"CREATE TABLE orders (tenant text); INSERT INTO orders VALUES ('"+tenant.Name+"')"); err != nil {
			t.Fatalf("writing through the Service of the primary: %v", err)
		}
		worlds.Eventually(t, time.Minute, "the replica to have the row", func(ctx context.Context) error {
			got, err := sql(ctx, t, tenant, namespace, primary, "orders-ro", "SELECT tenant, pg_is_in_recovery() FROM orders")
			if err == nil && got != tenant.Name+"|t" {
				err = fmt.Errorf("the replica has %q", got)
			}
			return err
		})

		tenant.Kubectl(t, "-n", namespace, "delete", "pod", primary, "--grace-period=0", "--force", "--wait=false")
		worlds.Eventually(t, 2*time.Minute, "the replica to be promoted", func(ctx context.Context) error {
			got, err := sql(ctx, t, tenant, namespace, other, "orders-rw", "INSERT INTO orders VALUES ('after') RETURNING inet_server_addr()")
			if err != nil {
				return err
			}
			pod := field(t, tenant, "{.status.podIP}", "pod", other, "-n", namespace)
			if got != pod {
				return fmt.Errorf("written to the instance at %q, want %s", got, pod)
			}
			return nil
		})
		if got, err := sql(t.Context(), t, tenant, namespace, other, "orders-rw", "SELECT count(*) FROM orders WHERE tenant = '"+tenant.Name+"'"); err != nil || got != "1" {
			t.Errorf("rows written before the primary was lost: %q, %v", got, err)
		}
	})
}
