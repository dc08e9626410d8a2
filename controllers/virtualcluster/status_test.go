package virtualcluster

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/controllers/progress"
	"github.com/virtualcluster-io/virtualcluster/controllers/provision"
)

func TestSummarize(t *testing.T) {
	created := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	type outcome struct {
		Phase      tenancyv1alpha1.VirtualClusterPhase
		Reason     string
		Conditions map[string]metav1.ConditionStatus
		ReadyAfter int64
	}
	conditions := func(pairs ...string) map[string]metav1.ConditionStatus {
		m := map[string]metav1.ConditionStatus{}
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i]] = metav1.ConditionStatus(pairs[i+1])
		}
		return m
	}
	wait := &progress.Wait{Reason: "Starting", Message: "not yet"}
	cases := map[string]struct {
		readyBefore bool
		deleting    bool
		err         error
		want        outcome
	}{
		"Ready":             {want: outcome{tenancyv1alpha1.PhaseRunning, "Ready", conditions("Ready", "True"), 9}},
		"ReadyAgain":        {readyBefore: true, want: outcome{tenancyv1alpha1.PhaseRunning, "Ready", conditions("Ready", "True"), 3}},
		"Starting":          {err: wait, want: outcome{tenancyv1alpha1.PhasePending, "Starting", conditions("Ready", "False", "Reconciling", "True"), 0}},
		"Changing":          {readyBefore: true, err: wait, want: outcome{tenancyv1alpha1.PhaseUpdating, "Starting", conditions("Ready", "False", "Reconciling", "True"), 3}},
		"SomebodyMustAct":   {err: &progress.Stall{Reason: "Missing", Message: "create it"}, want: outcome{tenancyv1alpha1.PhaseError, "Missing", conditions("Ready", "False", "Stalled", "True"), 0}},
		"FailedIsRetried":   {err: errors.New("boom"), want: outcome{tenancyv1alpha1.PhasePending, "Error", conditions("Ready", "False", "Reconciling", "True"), 0}},
		"Deleting":          {readyBefore: true, deleting: true, err: wait, want: outcome{tenancyv1alpha1.PhaseDeleting, "Starting", conditions("Ready", "False", "Reconciling", "True"), 3}},
		"DeletingButStuck":  {deleting: true, err: &progress.Stall{Reason: "Missing", Message: "x"}, want: outcome{tenancyv1alpha1.PhaseDeleting, "Missing", conditions("Ready", "False", "Stalled", "True"), 0}},
		"FailedAfterStalls": {err: progress.Because("Unreachable", errors.New("boom")), want: outcome{tenancyv1alpha1.PhasePending, "Unreachable", conditions("Ready", "False", "Reconciling", "True"), 0}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			vc := &tenancyv1alpha1.VirtualCluster{ObjectMeta: metav1.ObjectMeta{Generation: 2, CreationTimestamp: metav1.NewTime(created)}}
			if tc.readyBefore {
				vc.Status.ReadyAfterSeconds = new(int64(3))
			}
			if tc.deleting {
				vc.DeletionTimestamp = new(metav1.NewTime(created))
			}
			// Left over from before: neither may stay when it does not apply.
			for _, abnormal := range []string{tenancyv1alpha1.ConditionStalled, tenancyv1alpha1.ConditionReconciling} {
				vc.Status.Conditions = append(vc.Status.Conditions, metav1.Condition{Type: abnormal, Status: metav1.ConditionTrue})
			}
			summarize(&provision.Tenant{VirtualCluster: vc, Now: created.Add(9 * time.Second)}, tc.err)

			got := outcome{Phase: vc.Status.Phase, Reason: vc.Status.Reason, Conditions: map[string]metav1.ConditionStatus{}}
			for _, condition := range vc.Status.Conditions {
				got.Conditions[condition.Type] = condition.Status
				if condition.ObservedGeneration != 2 {
					t.Errorf("condition %s is about generation %d", condition.Type, condition.ObservedGeneration)
				}
			}
			if vc.Status.ReadyAfterSeconds != nil {
				got.ReadyAfter = *vc.Status.ReadyAfterSeconds
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("status (-want +got):\n%s", diff)
			}
		})
	}
}
