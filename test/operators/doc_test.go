// Package operators_test runs operators that everybody knows in tenants, as their projects release them: built from their
// modules, installed from the manifests or charts in these, used as their users do. They bring what tests of single kinds
// do not combine: webhooks and conversions served by pods, aggregated APIs, elections, in-cluster clients that watch
// everything, volumes for members of a cluster. Both tenants run them at the same time with the same names. It needs the
// cluster that `make up` made and the images that `make operators` loads.
package operators_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/virtualcluster-io/virtualcluster/test/e2e/local"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

func TestMain(m *testing.M) {
	os.Exit(local.RunTests(m))
}

// inEachTenant runs a test in two tenants at the same time.
func inEachTenant(t *testing.T, test func(t *testing.T, tenant *local.Tenant)) {
	t.Helper()
	cluster, err := local.Open(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	for _, tenant := range cluster.Tenants[:2] {
		t.Run(tenant.Name, func(t *testing.T) {
			t.Parallel()
			test(t, tenant)
		})
	}
}

// moduleDir returns the folder of an operator's module, which one of ours requires: what a project releases besides code.
func moduleDir(t *testing.T, from, module string) string {
	t.Helper()
	root, err := worlds.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, "test", "operators", from)
	cmd := exec.CommandContext(t.Context(), "go", "-C", dir, "list", "-m", "-f", "{{.Dir}}", module)
	got := local.Run(t, "", cmd)
	if got.Code != 0 {
		t.Fatalf("finding module %s: %s", module, got)
	}
	return strings.TrimSpace(got.Stdout)
}

// getJSON reads a path of a tenant's API server.
func getJSON(ctx context.Context, tenant *local.Tenant, into any, path string, parameters ...string) error {
	request := tenant.Client.CoreV1().RESTClient().Get().AbsPath(path)
	for i := 0; i+1 < len(parameters); i += 2 {
		request.Param(parameters[i], parameters[i+1])
	}
	raw, err := request.DoRaw(ctx)
	if err != nil {
		return fmt.Errorf("getting %s: %w: %s", path, err, raw)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("decoding %s: %w", path, err)
	}
	return nil
}

// field reads one value with kubectl.
func field(t *testing.T, tenant *local.Tenant, jsonPath string, args ...string) string {
	t.Helper()
	return tenant.Kubectl(t, append([]string{"get", "-o", "jsonpath=" + jsonPath}, args...)...)
}

// eventually repeats a kubectl command until it succeeds: what waits for pods of an operator to be ready, which may first
// need certificates of its own making, and what their webhooks must accept.
func eventually(t *testing.T, tenant *local.Tenant, stdin string, args ...string) {
	t.Helper()
	worlds.Eventually(t, 8*time.Minute, "kubectl "+strings.Join(args, " "), func(ctx context.Context) error {
		if got := local.Run(t, stdin, tenant.Command(ctx, "kubectl", args...)); got.Code != 0 {
			return fmt.Errorf("kubectl: %s", got)
		}
		return nil
	})
}
