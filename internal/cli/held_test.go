package cli

import (
	"strings"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// restored makes a VirtualCluster one whose control plane came back from a backup.
func restored(vc *tenancyv1alpha1.VirtualCluster) {
	vc.Status.Sync = &tenancyv1alpha1.SyncStatus{
		Halted: tenancyv1alpha1.HaltRewound, HaltedBecause: "its resource version is 10, and was 20 before", HeldCount: 3,
		Held: []tenancyv1alpha1.HeldDeletion{
			{Side: "super", Resource: "namespaces", Name: "shop", Cause: "Orphaned"},
			{Side: "super", Resource: "persistentvolumeclaims", Namespace: "shop", Name: "data", Cause: "Orphaned"},
		},
	}
}

func TestHeld(t *testing.T) {
	x := newTerminal(t, team(restored), team(func(vc *tenancyv1alpha1.VirtualCluster) { vc.Name = "well" }))
	if code := x.run(t.Context(), "held", "team-a"); code != 0 {
		t.Fatalf("exit code %d: %s", code, x.err.String())
	}
	want := "CLUSTER   RESOURCE                 NAMESPACE   NAME   CAUSE\n" +
		"super     namespaces               <none>      shop   Orphaned\n" +
		"super     persistentvolumeclaims   shop        data   Orphaned\n"
	if got := x.out.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for _, part := range []string{"Rewound: its resource version is 10, and was 20 before", "1 more"} {
		if !strings.Contains(x.err.String(), part) {
			t.Errorf("%q does not say %q", x.err.String(), part)
		}
	}
	if code := x.run(t.Context(), "held", "well"); code != 0 || !strings.Contains(x.err.String(), "No deletion waits") || x.out.Len() > 0 {
		t.Errorf("a tenant that is well: exit code %d, %q, %q", code, x.out.String(), x.err.String())
	}
}

func TestRelease(t *testing.T) {
	x := newTerminal(t, team(restored), team(func(vc *tenancyv1alpha1.VirtualCluster) { vc.Name = "well" }))
	released := func() bool {
		vc := team()
		if err := x.super.Get(t.Context(), client.ObjectKeyFromObject(vc), vc); err != nil {
			t.Fatal(err)
		}
		_, asked := vc.Annotations[names.AnnotationReleaseBrake]
		return asked
	}
	if code := x.run(t.Context(), "release", "team-a"); code != 1 || released() ||
		!strings.Contains(x.out.String(), "data") || !strings.Contains(x.err.String(), "3 objects would be deleted") || !strings.Contains(x.err.String(), "--yes") {
		t.Errorf("without --yes: exit code %d, released %v, %q, %q", code, released(), x.out.String(), x.err.String())
	}
	if code := x.run(t.Context(), "release", "team-a", "--yes"); code != 0 || !released() || x.out.String() != "virtualcluster.tenancy.x-k8s.io/team-a released\n" {
		t.Errorf("with --yes: exit code %d, released %v, %q, %q", code, released(), x.out.String(), x.err.String())
	}
	if code := x.run(t.Context(), "release", "well", "--yes"); code != 1 || !strings.Contains(x.err.String(), "waits for nobody") {
		t.Errorf("a tenant that is well: exit code %d, %q", code, x.err.String())
	}
}
