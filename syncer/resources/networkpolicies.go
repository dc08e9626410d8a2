package resources

import (
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// +kubebuilder:rbac:groups=networking.k8s.io,resources=networkpolicies,verbs=get;list;watch;create;patch;delete

// NetworkPolicies copies tenant policies down. Pods have the same labels on both sides, see resource.View. Namespaces do not, so
// their selectors become the names of the super namespaces that they select, which is done again when a namespace of the tenant
// comes, goes or changes.
func NetworkPolicies() resource.Kind {
	return resource.Of(resource.Resource[*networkingv1.NetworkPolicy]{
		Name: "networkpolicies",
		GVK:  networkingv1.SchemeGroupVersion.WithKind("NetworkPolicy"),
		New:  func() *networkingv1.NetworkPolicy { return &networkingv1.NetworkPolicy{} },

		Down: networkPolicyDown,
		Merge: func(existing, want *networkingv1.NetworkPolicy) {
			existing.Spec = want.Spec
		},
		References: func(in *networkingv1.NetworkPolicy) []resource.Ref {
			if selectsNamespaces(in) {
				return []resource.Ref{resource.AllNamespaces()}
			}
			return nil
		},
	})
}

// selectsNamespaces says whether the policy depends on the labels of namespaces.
func selectsNamespaces(in *networkingv1.NetworkPolicy) bool {
	for _, peers := range peersOf(&in.Spec) {
		for _, p := range peers {
			if p.NamespaceSelector != nil {
				return true
			}
		}
	}
	return false
}

// peersOf returns the lists of peers in the rules of a policy.
func peersOf(spec *networkingv1.NetworkPolicySpec) [][]networkingv1.NetworkPolicyPeer {
	var out [][]networkingv1.NetworkPolicyPeer
	for _, rule := range spec.Ingress {
		out = append(out, rule.From)
	}
	for _, rule := range spec.Egress {
		out = append(out, rule.To)
	}
	return out
}

func networkPolicyDown(v resource.View, in *networkingv1.NetworkPolicy) (*networkingv1.NetworkPolicy, error) {
	out := &networkingv1.NetworkPolicy{Spec: networkingv1.NetworkPolicySpec{
		PodSelector: *v.PodSelector(&in.Spec.PodSelector), PolicyTypes: in.Spec.PolicyTypes,
	}}
	for _, rule := range in.Spec.Ingress {
		from, err := peersDown(v, rule.From)
		if err != nil {
			return nil, err
		}
		out.Spec.Ingress = append(out.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{Ports: rule.Ports, From: from})
	}
	for _, rule := range in.Spec.Egress {
		to, err := peersDown(v, rule.To)
		if err != nil {
			return nil, err
		}
		out.Spec.Egress = append(out.Spec.Egress, networkingv1.NetworkPolicyEgressRule{Ports: rule.Ports, To: to})
	}
	v.CopyMeta(in, out)
	return out, nil
}

// peersDown translates peers. None of them is ever left out, because a list without any means everybody.
func peersDown(v resource.View, in []networkingv1.NetworkPolicyPeer) ([]networkingv1.NetworkPolicyPeer, error) {
	var out []networkingv1.NetworkPolicyPeer
	for _, peer := range in {
		to := networkingv1.NetworkPolicyPeer{PodSelector: v.PodSelector(peer.PodSelector), IPBlock: peer.IPBlock}
		if peer.NamespaceSelector != nil {
			selector, err := v.SelectNamespaces(peer.NamespaceSelector)
			if err != nil {
				return nil, err
			}
			to.NamespaceSelector = selector
		}
		out = append(out, to)
	}
	return out, nil
}
