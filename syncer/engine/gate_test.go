package engine

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// Every deletion, on either side, is one of these: what may happen depends on nothing else.
func TestPermission(t *testing.T) {
	inferred := []string{resource.Orphaned, resource.Replaced, resource.Unwanted, resource.Vanished}
	stated := []string{resource.Deleted, resource.Withdrawn, resource.Superseded, resource.Readdressed}
	states := map[string]struct {
		ground ground
		// want is of what is inferred.
		want permission
	}{
		"Known":                           {ground{known: true}, permitted},
		"KnownPrecious":                   {ground{known: true, precious: true}, permitted},
		"Witnessed":                       {ground{witnessed: true}, permitted},
		"WitnessedPrecious":               {ground{witnessed: true, precious: true}, permitted},
		"WitnessedInNamespaceThatGoes":    {ground{witnessed: true, explained: true}, permitted},
		"Unknown":                         {ground{}, counted},
		"UnknownPrecious":                 {ground{precious: true}, withheld},
		"UnknownInNamespaceThatGoes":      {ground{explained: true}, withheld},
		"UnknownPreciousInSuchANamespace": {ground{precious: true, explained: true}, withheld},
	}
	for _, side := range []resource.Side{resource.Tenant, resource.Super} {
		for name, tc := range states {
			tc.ground.side = side
			for _, cause := range inferred {
				tc.ground.cause = cause
				if got := tc.ground.permission(); got != tc.want {
					t.Errorf("%s %s on the %s side: got %d, want %d", name, cause, side, got, tc.want)
				}
			}
			for _, cause := range stated {
				tc.ground.cause = cause
				if got := tc.ground.permission(); got != permitted {
					t.Errorf("%s %s on the %s side: got %d; the origin says so itself", name, cause, side, got)
				}
			}
		}
	}
}

func TestGate(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	orphan := ground{side: resource.Super, cause: resource.Orphaned}
	newTestGate := func() (*gate, func(tenant, name string) bool) {
		g := newGate(BrakeOptions{Limit: 2, Window: time.Hour})
		return g, func(tenant, name string) bool { return g.allow("configmaps", keyOf(tenant, name), orphan, now) }
	}

	t.Run("WitnessedDeletionsDoNotCount", func(t *testing.T) {
		g, allow := newTestGate()
		g.witnessed(resource.Tenant, "configmaps", keyOf("a", "seen"), now)
		for range 10 {
			if !allow("a", "seen") {
				t.Fatal("a deletion that was seen is held back")
			}
		}
		if !allow("a", "1") || !allow("a", "2") || allow("a", "3") || !allow("a", "seen") {
			t.Error("a deletion that was seen counts")
		}
	})
	t.Run("WitnessesOfTheOtherSideDoNotCount", func(t *testing.T) {
		g, allow := newTestGate()
		g.trip("a")
		g.witnessed(resource.Super, "configmaps", keyOf("a", "1"), now)
		if allow("a", "1") {
			t.Error("a deletion in the super cluster explains none there")
		}
		vanished := ground{side: resource.Tenant, cause: resource.Vanished}
		if !g.allow("configmaps", keyOf("a", "1"), vanished, now) {
			t.Error("a deletion in the super cluster explains one in the tenant")
		}
	})
	t.Run("WitnessesAreForgotten", func(t *testing.T) {
		g, _ := newTestGate()
		g.trip("a")
		g.witnessed(resource.Tenant, "configmaps", keyOf("a", "seen"), now.Add(-memory-time.Second))
		if g.allow("configmaps", keyOf("a", "seen"), orphan, now) {
			t.Error("a deletion that was seen long ago passes")
		}
	})
	t.Run("ObjectsCountOnce", func(t *testing.T) {
		_, allow := newTestGate()
		for range 10 { // the super cluster does not answer
			if !allow("a", "1") {
				t.Fatal("an object counts with each attempt")
			}
		}
		if !allow("a", "2") || allow("a", "3") {
			t.Error("the limit is not 2 objects")
		}
	})
	t.Run("OnlyAPersonReleases", func(t *testing.T) {
		g, allow := newTestGate()
		for i := range 3 {
			allow("a", fmt.Sprint(i))
		}
		later := now.Add(2 * time.Hour)
		if g.allow("configmaps", keyOf("a", "2"), orphan, later) || !g.braked("a") {
			t.Error("time released the brake")
		}
		if g.braked("b") || !g.allow("configmaps", keyOf("b", "1"), orphan, later) {
			t.Error("the brake of one tenant is another's")
		}
		g.release("a")
		if g.braked("a") || !g.allow("configmaps", keyOf("a", "2"), orphan, later) {
			t.Error("released, a deletion is held back")
		}
	})
	t.Run("TheWindowPasses", func(t *testing.T) {
		g, allow := newTestGate()
		if !allow("a", "1") || !allow("a", "2") {
			t.Fatal("a few pass")
		}
		if !g.allow("configmaps", keyOf("a", "3"), orphan, now.Add(2*time.Hour)) {
			t.Error("a few in another hour are held back")
		}
	})
	t.Run("TrippedBefore", func(t *testing.T) {
		g, allow := newTestGate()
		g.trip("a")
		if allow("a", "1") || !g.braked("a") {
			t.Error("a restart released the brake")
		}
	})
	t.Run("HeldByName", func(t *testing.T) {
		g, allow := newTestGate()
		namespace := orphan
		namespace.precious = true
		inside := orphan
		inside.explained = true
		g.allow("namespaces", resource.Key{Tenant: "a", Name: "n"}, namespace, now)
		for i := range 5 {
			if g.allow("services", keyOf("a", fmt.Sprint(i)), inside, now) {
				t.Fatal("what is in a namespace that is held back passes")
			}
		}
		if !allow("a", "1") || !allow("a", "2") {
			t.Error("what is in a namespace that is held back counts")
		}
		held, count := g.list("a")
		if count != 6 || len(held) != 6 {
			t.Fatalf("%d of %d are held", len(held), count)
		}
		want := []Held{
			{Side: resource.Super, Resource: "namespaces", Name: "n", Cause: resource.Orphaned, Precious: true},
			{Side: resource.Super, Resource: "services", Namespace: "n", Name: "0", Cause: resource.Orphaned},
		}
		if diff := cmp.Diff(want, held[:2]); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
		g.forget("namespaces", resource.Key{Tenant: "a", Name: "n"})
		for i := range 5 {
			g.forget("services", keyOf("a", fmt.Sprint(i)))
		}
		if g.braked("a") {
			t.Error("nothing is held back any more")
		}
	})
	t.Run("NamesAreBounded", func(t *testing.T) {
		g, _ := newTestGate()
		precious := orphan
		precious.precious = true
		for i := range maxHeld + 7 {
			g.allow("namespaces", keyOf("a", fmt.Sprint(i)), precious, now)
		}
		if held, count := g.list("a"); len(held) != maxHeld || count != maxHeld+7 {
			t.Errorf("%d of %d are held by name", len(held), count)
		}
	})
	t.Run("KnownTenantsLeaveNothing", func(t *testing.T) {
		g, _ := newTestGate()
		known := orphan
		known.known, known.precious = true, true
		for i := range 500 {
			if !g.allow("namespaces", keyOf("a", fmt.Sprint(i)), known, now) {
				t.Fatal("a tenant that went forward deleted its objects itself")
			}
		}
		if len(g.tenants) != 0 {
			t.Error("something is remembered")
		}
	})
}
