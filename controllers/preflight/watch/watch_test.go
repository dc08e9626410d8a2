package watch

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtualcluster-io/virtualcluster/controllers/preflight"
)

func TestCondition(t *testing.T) {
	mode := preflight.Finding{Severity: preflight.Info, Reason: "PartsOfARange", Message: "tenants get parts"}
	room := preflight.Finding{Severity: preflight.Info, Reason: preflight.ReasonCapacity, Message: "there is room"}
	warning := preflight.Finding{Severity: preflight.Warning, Reason: preflight.ReasonFewTenants, Message: "there is little room"}
	small := preflight.Finding{Severity: preflight.Error, Reason: preflight.ReasonRangeTooSmall, Message: "it is too small"}
	family := preflight.Finding{Severity: preflight.Error, Reason: preflight.ReasonWrongFamily, Message: "it is of the wrong family"}
	for name, tc := range map[string]struct {
		findings []preflight.Finding
		want     corev1.PodCondition
	}{
		"Good":    {[]preflight.Finding{mode, room}, corev1.PodCondition{Status: corev1.ConditionTrue, Reason: "PartsOfARange", Message: "tenants get parts; there is room"}},
		"Warning": {[]preflight.Finding{warning, mode}, corev1.PodCondition{Status: corev1.ConditionTrue, Reason: "PartsOfARange", Message: "tenants get parts"}},
		"Errors":  {[]preflight.Finding{small, family, warning, mode}, corev1.PodCondition{Status: corev1.ConditionFalse, Reason: "RangeTooSmall", Message: "it is too small; it is of the wrong family"}},
	} {
		t.Run(name, func(t *testing.T) {
			tc.want.Type = "tenancy.x-k8s.io/ServiceAddresses"
			if diff := cmp.Diff(tc.want, conditionOf(&preflight.Report{Mode: preflight.ModeParts, Findings: tc.findings})); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestSetCondition(t *testing.T) {
	first, second := metav1.NewTime(time.Unix(1, 0)), metav1.NewTime(time.Unix(2, 0))
	good := corev1.PodCondition{Type: ConditionServiceAddresses, Status: corev1.ConditionTrue, Reason: "Good"}
	better := corev1.PodCondition{Type: ConditionServiceAddresses, Status: corev1.ConditionTrue, Reason: "Better"}
	bad := corev1.PodCondition{Type: ConditionServiceAddresses, Status: corev1.ConditionFalse, Reason: "Bad"}
	status := &corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady}}}
	for _, step := range []struct {
		set     corev1.PodCondition
		now     metav1.Time
		changes bool
		since   metav1.Time
	}{
		{good, first, true, first},
		{good, second, false, first},
		{better, second, true, first},
		{bad, second, true, second},
	} {
		if got := setCondition(status, step.set, step.now); got != step.changes {
			t.Errorf("%s: changed: got %v, want %v", step.set.Reason, got, step.changes)
		}
		step.set.LastTransitionTime = step.since
		if diff := cmp.Diff(step.set, status.Conditions[len(status.Conditions)-1]); diff != "" || len(status.Conditions) != 2 {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
}
