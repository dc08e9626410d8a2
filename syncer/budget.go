package syncer

import (
	"context"
	"maps"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/log"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/engine"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// allKinds stands for every kind in a budget.
const allKinds = "*"

// burstTimes is how many seconds' writes may come at once when spec.budget.writesPerSecond is set and writeBurst is not.
const burstTimes = 10

// budgetOf returns what a tenant may cost: what the VirtualCluster says, and the defaults for the rest.
func budgetOf(b resource.Budget, spec tenancyv1alpha1.BudgetSpec) resource.Budget {
	b.Kinds = maps.Clone(b.Kinds)
	if spec.Weight > 0 {
		b.Weight = int(spec.Weight)
	}
	if spec.WritesPerSecond > 0 {
		b.Writes, b.WriteBurst = int(spec.WritesPerSecond), burstTimes*int(spec.WritesPerSecond)
	}
	if spec.WriteBurst > 0 {
		b.WriteBurst = int(spec.WriteBurst)
	}
	if q := spec.DecisionCPU; q != nil && q.Sign() > 0 {
		b.Decision = q.AsApproximateFloat64()
	}
	if q := spec.CachedBytes; q != nil && q.Sign() > 0 {
		b.CachedBytes = q.Value()
	}
	for _, of := range spec.Resources {
		if of.Resource == allKinds {
			b.Each = kindBudget(b.Each, of)
		}
	}
	for _, of := range spec.Resources {
		if of.Resource == allKinds {
			continue
		}
		if b.Kinds == nil {
			b.Kinds = map[string]resource.KindBudget{}
		}
		b.Kinds[of.Resource] = kindBudget(b.Of(of.Resource), of)
	}
	return b
}

func kindBudget(b resource.KindBudget, spec tenancyv1alpha1.ResourceBudget) resource.KindBudget {
	if spec.ReplicatedObjects > 0 {
		b.Replicated = spec.ReplicatedObjects
	}
	if spec.CachedObjects > 0 {
		b.Cached = spec.CachedObjects
	}
	if q := spec.CachedBytes; q != nil && q.Sign() > 0 {
		b.CachedBytes = q.Value()
	}
	return b
}

// budgetCondition says whether the tenant is within its budget.
func budgetCondition(over engine.OverBudget) metav1.Condition {
	c := metav1.Condition{Type: tenancyv1alpha1.ConditionWithinBudget, Status: metav1.ConditionTrue, Reason: "WithinBudget"}
	if over.Reason != "" {
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, over.Reason, over.Message
	}
	return c
}

// tellBudget records an event when the tenant begins to exceed its budget, or exceeds it for another reason. It does not matter
// much when that fails: the condition says so as well.
func (f *follower) tellBudget(ctx context.Context, vc *tenancyv1alpha1.VirtualCluster, now *metav1.Condition) {
	before := apimeta.FindStatusCondition(vc.Status.Conditions, now.Type)
	if now.Status != metav1.ConditionFalse || before != nil && before.Reason == now.Reason {
		return
	}
	// A recorder would write it without saying on whose behalf, see package shards.
	err := f.client.Create(ctx, &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: vc.Namespace, GenerateName: vc.Name + "-"},
		EventTime:  metav1.NowMicro(), ReportingController: names.Syncer, ReportingInstance: names.Syncer,
		Regarding: corev1.ObjectReference{
			APIVersion: tenancyv1alpha1.GroupVersion().String(), Kind: "VirtualCluster", Namespace: vc.Namespace, Name: vc.Name, UID: vc.UID,
		},
		Type: corev1.EventTypeWarning, Reason: now.Reason, Action: "Synchronize", Note: now.Message[:min(len(now.Message), maxNote)],
	})
	if err != nil {
		log.FromContext(ctx).Info("Cannot record an event about the budget", "reason", err.Error())
	}
}

// maxNote bounds the bytes of the note of an event: the API server takes fewer than 1,024.
const maxNote = 1000
