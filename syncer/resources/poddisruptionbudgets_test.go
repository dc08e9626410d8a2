package resources_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/resources"
)

func TestPodDisruptionBudgets(t *testing.T) {
	number, share := new(intstr.FromInt32(2)), new(intstr.FromString("50%"))
	always := policyv1.AlwaysAllow
	selector := &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}
	for name, tc := range map[string]struct {
		reason                string
		minimum, unavailable  *intstr.IntOrString
		observed, wantMinimum int64
		desired               int32
		waits                 bool
	}{
		"Number":        {"means the same", number, nil, 0, 2, 0, false},
		"Share":         {"of the replicas that the tenant's controller knows", share, nil, 4, 3, 3, false},
		"Unavailable":   {"likewise", nil, number, 4, 1, 1, false},
		"None":          {"no pod need be there", nil, share, 4, 0, 0, false},
		"NotComputed":   {"an older number may allow too much", nil, number, 3, 0, 1, true},
		"NeverComputed": {"it is not zero", share, nil, 0, 0, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			in := &policyv1.PodDisruptionBudget{
				ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "b", UID: "u", Generation: 4},
				Spec: policyv1.PodDisruptionBudgetSpec{
					MinAvailable: tc.minimum, MaxUnavailable: tc.unavailable, Selector: selector, UnhealthyPodEvictionPolicy: &always,
				},
				Status: policyv1.PodDisruptionBudgetStatus{ObservedGeneration: tc.observed, DesiredHealthy: tc.desired},
			}
			ops, err := decide(t, resources.PodDisruptionBudgets(), world{}, "shop", "b", in, nil)
			if tc.waits {
				if _, ok := resource.AsWait(err); !ok || len(ops) > 0 {
					t.Errorf("%s: got %s, %v; want to wait", tc.reason, encode(t, ops), err)
				}
				return
			}
			got := created[*policyv1.PodDisruptionBudget](t, ops, err)
			want := policyv1.PodDisruptionBudgetSpec{
				MinAvailable: new(intstr.FromInt32(int32(tc.wantMinimum))), Selector: selector, UnhealthyPodEvictionPolicy: &always,
			}
			if diff := cmp.Diff(want, got.Spec); diff != "" {
				t.Errorf("%s: -want +got\n%s", tc.reason, diff)
			}
			replica := got.DeepCopy()
			replica.ObjectMeta = replicaMeta("shop", "b", "u")
			replica.Spec.MinAvailable, replica.Annotations[names.AnnotationKeys] = new(intstr.FromInt32(9)), ""
			ops, err = decide(t, resources.PodDisruptionBudgets(), world{}, "shop", "b", in, replica)
			if diff := cmp.Diff(want, patched(t, replica, resource.Super, ops).Spec); diff != "" || err != nil {
				t.Errorf("after drift: %v; -want +got\n%s", err, diff)
			}
		})
	}
}
