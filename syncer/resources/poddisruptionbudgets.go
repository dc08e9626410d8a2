package resources

import (
	"time"

	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// +kubebuilder:rbac:groups=policy,resources=poddisruptionbudgets,verbs=get;list;watch;create;patch;delete

// PodDisruptionBudgets makes evictions in the super cluster, when a node is drained, honour the tenant's budgets. Its
// controller knows neither the tenant's Deployments nor how many replicas they want, without which it would compute
// that no pod may go; so the replica asks for the number of healthy pods that the tenant's controller computed. Evictions
// in the tenant are judged there.
func PodDisruptionBudgets() resource.Kind {
	return resource.Of(resource.Resource[*policyv1.PodDisruptionBudget]{
		Name: "poddisruptionbudgets",
		GVK:  policyv1.SchemeGroupVersion.WithKind("PodDisruptionBudget"),
		New:  func() *policyv1.PodDisruptionBudget { return &policyv1.PodDisruptionBudget{} },
		Trim: func(b *policyv1.PodDisruptionBudget) {
			b.Status = policyv1.PodDisruptionBudgetStatus{ObservedGeneration: b.Status.ObservedGeneration, DesiredHealthy: b.Status.DesiredHealthy}
		},
		Down: budgetDown,
		Merge: func(existing, want *policyv1.PodDisruptionBudget) {
			existing.Spec = want.Spec
		},
	})
}

func budgetDown(v resource.View, in *policyv1.PodDisruptionBudget) (*policyv1.PodDisruptionBudget, error) {
	healthy := in.Spec.MinAvailable
	if healthy == nil || healthy.Type == intstr.String {
		if in.Status.ObservedGeneration != in.Generation {
			return nil, resource.Blocked(time.Minute, "Waiting", "the disruption controller of this cluster to compute the budget")
		}
		healthy = new(intstr.FromInt32(in.Status.DesiredHealthy))
	}
	out := &policyv1.PodDisruptionBudget{Spec: policyv1.PodDisruptionBudgetSpec{
		MinAvailable: healthy, Selector: v.PodSelector(in.Spec.Selector), UnhealthyPodEvictionPolicy: in.Spec.UnhealthyPodEvictionPolicy,
	}}
	v.CopyMeta(in, out)
	return out, nil
}
