package engine

import (
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// An object that is refused, or waits, before it has a replica says nothing about what is missing in a tenant.
func TestUnexplained(t *testing.T) {
	object, refused := &corev1.ConfigMap{}, errors.New("refused")
	deletion := func(why string) []resource.Op {
		return []resource.Op{{Side: resource.Super, Verb: resource.Delete, Why: why}}
	}
	inTenant := func(why string) []resource.Op {
		return []resource.Op{{Side: resource.Tenant, Verb: resource.Delete, Why: why}}
	}
	for name, tc := range map[string]struct {
		origin resource.Side
		d      decision
		seen   map[resource.Side]bool
		want   bool
	}{
		"Pair":                     {d: decision{tenant: object, super: object}},
		"New":                      {d: decision{tenant: object, ops: []resource.Op{{Verb: resource.Create, Why: resource.Missing}}}},
		"Refused":                  {d: decision{tenant: object, err: refused}},
		"RefusedInSuper":           {origin: resource.Super, d: decision{super: object, err: refused}},
		"PairWithError":            {d: decision{tenant: object, super: object, err: refused}},
		"Orphan":                   {d: decision{super: object, ops: deletion(resource.Orphaned)}, want: true},
		"OrphanThatWasSeen":        {d: decision{super: object, ops: deletion(resource.Orphaned)}, seen: map[resource.Side]bool{resource.Tenant: true}},
		"ReplicaThatWasSeen":       {d: decision{super: object, ops: deletion(resource.Orphaned)}, seen: map[resource.Side]bool{resource.Super: true}, want: true},
		"VanishedAndSeen":          {d: decision{tenant: object, ops: inTenant(resource.Vanished)}, seen: map[resource.Side]bool{resource.Super: true}},
		"OrphanThatIsHeld":         {d: decision{super: object, err: refused}, want: true},
		"OrphanInTenant":           {origin: resource.Super, d: decision{tenant: object, ops: inTenant(resource.Orphaned)}, want: true},
		"OrphanInTenantThatIsHeld": {origin: resource.Super, d: decision{tenant: object, err: refused}, want: true},
		"Vanished":                 {d: decision{tenant: object, ops: inTenant(resource.Vanished)}, want: true},
		"Replaced":                 {d: decision{tenant: object, super: object, ops: deletion(resource.Replaced)}, want: true},
		"Deleted":                  {d: decision{tenant: object, super: object, ops: deletion(resource.Deleted)}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := tc.d.unexplained(tc.origin, func(side resource.Side) bool { return tc.seen[side] }); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}
