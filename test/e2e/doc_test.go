// Package e2e_test tests what a newcomer does, sentence by sentence, from outside: the real kubectl, kubectl-vc and
// API servers of the cluster that `make up` made, two tenants at the same time with the same names. It knows nothing of
// the components but what users know, and internal/names for looking at both sides. Without a cluster it fails.
package e2e_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/virtualcluster-io/virtualcluster/test/e2e/local"
)

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if _, err := local.Open(context.Background(), 2); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	cache, err := os.MkdirTemp("", "e2e-kubectl-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e: creating a cache for kubectl:", err)
		return 1
	}
	defer func() { _ = os.RemoveAll(cache) }()
	if err := os.Setenv("KUBECACHEDIR", cache); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	return m.Run()
}
