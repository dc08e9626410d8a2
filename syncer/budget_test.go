package syncer

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	apiresource "k8s.io/apimachinery/pkg/api/resource"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

func TestBudgetOfAVirtualCluster(t *testing.T) {
	base := resource.Budget{Weight: 1, Writes: 100, WriteBurst: 500, Decision: 1, CachedBytes: 1 << 20, Each: resource.KindBudget{Replicated: 10, Cached: 20}}
	edited := func(f func(*resource.Budget)) resource.Budget {
		b := base
		f(&b)
		return b
	}
	for name, tc := range map[string]struct {
		spec tenancyv1alpha1.BudgetSpec
		want resource.Budget
	}{
		"Nothing": {want: base},
		"Rates": {
			spec: tenancyv1alpha1.BudgetSpec{Weight: 3, WritesPerSecond: 5, DecisionCPU: new(apiresource.MustParse("500m"))},
			want: edited(func(b *resource.Budget) { b.Weight, b.Writes, b.WriteBurst, b.Decision = 3, 5, 50, 0.5 }),
		},
		"Burst": {
			spec: tenancyv1alpha1.BudgetSpec{WritesPerSecond: 5, WriteBurst: 7, CachedBytes: new(apiresource.MustParse("1Ki"))},
			want: edited(func(b *resource.Budget) { b.Writes, b.WriteBurst, b.CachedBytes = 5, 7, 1024 }),
		},
		"KindsAreBasedOnTheRest": {
			spec: tenancyv1alpha1.BudgetSpec{Resources: []tenancyv1alpha1.ResourceBudget{
				{Resource: "pods", ReplicatedObjects: 1}, {Resource: "*", CachedObjects: 2, CachedBytes: new(apiresource.MustParse("1Ki"))},
			}},
			want: edited(func(b *resource.Budget) {
				b.Each.Cached, b.Each.CachedBytes = 2, 1024
				b.Kinds = map[string]resource.KindBudget{"pods": {Replicated: 1, Cached: 2, CachedBytes: 1024}}
			}),
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, budgetOf(base, tc.spec)); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}
