package resources_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/resources"
)

// Every selector over pods is translated as the labels of pods are.
func TestSelectorsWithOpaqueLabels(t *testing.T) {
	const key = "team.example.com/role"
	w := world{facts: resource.Facts{Opaque: []string{"team.example.com/"}}}
	in := map[string]string{"app": "web", key: "db"}
	want := map[string]string{"app": "web", names.OpaqueKey(tenantID, key): names.OpaqueValue(tenantID, key, "db")}
	selector := &metav1.LabelSelector{MatchLabels: in}
	meta := metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "u"}

	ops, err := decide(t, resources.Services(), w, "shop", "web", service(func(s *corev1.Service) { s.Spec.Selector = in }), nil)
	got := []map[string]string{created[*corev1.Service](t, ops, err).Spec.Selector}

	ops, err = decide(t, resources.PodDisruptionBudgets(), w, "shop", "web", &policyv1.PodDisruptionBudget{ObjectMeta: meta, Spec: policyv1.PodDisruptionBudgetSpec{
		MinAvailable: new(intstr.FromInt32(1)), Selector: selector,
	}}, nil)
	got = append(got, created[*policyv1.PodDisruptionBudget](t, ops, err).Spec.Selector.MatchLabels)

	peers := []networkingv1.NetworkPolicyPeer{{PodSelector: selector}}
	ops, err = decide(t, resources.NetworkPolicies(), w, "shop", "web", &networkingv1.NetworkPolicy{ObjectMeta: meta, Spec: networkingv1.NetworkPolicySpec{
		PodSelector: *selector,
		Ingress:     []networkingv1.NetworkPolicyIngressRule{{From: peers}},
		Egress:      []networkingv1.NetworkPolicyEgressRule{{To: peers}},
	}}, nil)
	policy := created[*networkingv1.NetworkPolicy](t, ops, err).Spec
	got = append(got, policy.PodSelector.MatchLabels, policy.Ingress[0].From[0].PodSelector.MatchLabels, policy.Egress[0].To[0].PodSelector.MatchLabels)
	for _, selector := range got {
		if diff := cmp.Diff(want, selector); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
	}
}
