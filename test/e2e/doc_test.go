// Package e2e_test tests what a newcomer does, sentence by sentence, from outside: the real kubectl, kubectl-vc and
// API servers of the cluster that `make up` made, two tenants at the same time with the same names. It knows nothing of
// the components but what users know, and internal/names for looking at both sides. Without a cluster it fails.
package e2e_test

import (
	"os"
	"testing"

	"github.com/virtualcluster-io/virtualcluster/test/e2e/local"
)

func TestMain(m *testing.M) {
	os.Exit(local.RunTests(m))
}
