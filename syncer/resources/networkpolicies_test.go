package resources_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/resources"
)

func TestNetworkPolicies(t *testing.T) {
	namespace := func(name, team string) resource.Object {
		return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"team": team, corev1.LabelMetadataName: name}}}
	}
	w := world{tenant: []resource.Object{namespace("web", "a"), namespace("db", "b"), namespace("app", "a")}}
	web := &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}
	ours := map[string]string{names.LabelTenant: string(tenantID)}
	only := func(operator metav1.LabelSelectorOperator, namespaces ...string) *metav1.LabelSelector {
		var super []string
		for _, n := range namespaces {
			super = append(super, names.SuperNamespace(tenantID, n))
		}
		return &metav1.LabelSelector{MatchLabels: ours, MatchExpressions: []metav1.LabelSelectorRequirement{{Key: corev1.LabelMetadataName, Operator: operator, Values: super}}}
	}
	label := func(key, value string) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchLabels: map[string]string{key: value}}
	}
	block := &networkingv1.IPBlock{CIDR: "192.0.2.0/24", Except: []string{"192.0.2.7/32"}}
	for name, tc := range map[string]struct {
		reason string
		in     networkingv1.NetworkPolicyPeer
		want   networkingv1.NetworkPolicyPeer
	}{
		"Pods":           {"the same namespace is the same", networkingv1.NetworkPolicyPeer{PodSelector: web}, networkingv1.NetworkPolicyPeer{PodSelector: web}},
		"Block":          {"passes", networkingv1.NetworkPolicyPeer{IPBlock: block}, networkingv1.NetworkPolicyPeer{IPBlock: block}},
		"All":            {"all of the tenant, not of the super cluster", networkingv1.NetworkPolicyPeer{NamespaceSelector: &metav1.LabelSelector{}}, networkingv1.NetworkPolicyPeer{NamespaceSelector: &metav1.LabelSelector{MatchLabels: ours}}},
		"Labels":         {"the tenant's labels count, in order", networkingv1.NetworkPolicyPeer{NamespaceSelector: label("team", "a"), PodSelector: web}, networkingv1.NetworkPolicyPeer{NamespaceSelector: only("In", "app", "web"), PodSelector: web}},
		"Name":           {"the tenant's name counts", networkingv1.NetworkPolicyPeer{NamespaceSelector: label(corev1.LabelMetadataName, "db")}, networkingv1.NetworkPolicyPeer{NamespaceSelector: only("In", "db")}},
		"SuperName":      {"a super namespace cannot be named", networkingv1.NetworkPolicyPeer{NamespaceSelector: label(corev1.LabelMetadataName, names.SuperNamespace(tenantID, "db"))}, networkingv1.NetworkPolicyPeer{NamespaceSelector: only("DoesNotExist")}},
		"AnotherTenant":  {"nor another tenant", networkingv1.NetworkPolicyPeer{NamespaceSelector: label(names.LabelTenant, "somebody")}, networkingv1.NetworkPolicyPeer{NamespaceSelector: only("DoesNotExist")}},
		"SelectsNothing": {"a peer without a selector would be refused, no peers mean everybody", networkingv1.NetworkPolicyPeer{NamespaceSelector: label("team", "c")}, networkingv1.NetworkPolicyPeer{NamespaceSelector: only("DoesNotExist")}},
	} {
		t.Run(name, func(t *testing.T) {
			policy := func(peer networkingv1.NetworkPolicyPeer) *networkingv1.NetworkPolicy {
				return &networkingv1.NetworkPolicy{
					ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "p", UID: "u"},
					Spec: networkingv1.NetworkPolicySpec{
						PodSelector: *web, PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress},
						Ingress: []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{peer}}, {}},
						Egress:  []networkingv1.NetworkPolicyEgressRule{{To: []networkingv1.NetworkPolicyPeer{peer}, Ports: []networkingv1.NetworkPolicyPort{{}}}},
					},
				}
			}
			in := policy(tc.in)
			ops, err := decide(t, resources.NetworkPolicies(), w, "shop", "p", in, nil)
			got := created[*networkingv1.NetworkPolicy](t, ops, err)
			if diff := cmp.Diff(policy(tc.want).Spec, got.Spec); diff != "" {
				t.Errorf("%s: -want +got\n%s", tc.reason, diff)
			}
			refs := resources.NetworkPolicies().References(in)
			if follows := len(refs) == 1 && refs[0] == resource.AllNamespaces(); follows != (tc.in.NamespaceSelector != nil) {
				t.Errorf("it refers to %v", refs)
			}
			replica := got.DeepCopy()
			replica.ObjectMeta = replicaMeta("shop", "p", "u")
			if ops, err = decide(t, resources.NetworkPolicies(), w, "shop", "p", in, replica); len(ops) > 0 || err != nil {
				t.Errorf("in sync: %s, %v", encode(t, ops), err)
			}
			replica.Spec.Ingress = nil
			ops, err = decide(t, resources.NetworkPolicies(), w, "shop", "p", in, replica)
			if diff := cmp.Diff(got.Spec, patched(t, replica, resource.Super, ops).Spec); diff != "" || err != nil {
				t.Errorf("after drift: %v; -want +got\n%s", err, diff)
			}
		})
	}
	bad := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "p", UID: "u"}, Spec: networkingv1.NetworkPolicySpec{
		Egress: []networkingv1.NetworkPolicyEgressRule{{To: []networkingv1.NetworkPolicyPeer{{NamespaceSelector: &metav1.LabelSelector{
			MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "team", Operator: "Fits"}},
		}}}}},
	}}
	ops, err := decide(t, resources.NetworkPolicies(), w, "shop", "p", bad, nil)
	rejectedWith(t, ops, err, "Unsupported")
}
