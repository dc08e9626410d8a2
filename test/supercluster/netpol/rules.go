// Package netpol enforces NetworkPolicy on a node of the local cluster with one nftables table of its own, so that it and
// kube-proxy, which writes iptables, never see each other's rules. Rules is pure: objects in, the whole table out; Run
// watches and applies. It is made for tests on one machine, not for big clusters: every change renders everything.
package netpol

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// State is all that the rules of a node depend on.
type State struct {
	Node       string
	Pods       []*corev1.Pod
	Namespaces []*corev1.Namespace
	Policies   []*networkingv1.NetworkPolicy
}

// direction of traffic as a pod sees it.
type direction struct {
	name string
	kind networkingv1.PolicyType
	self string // matches the pod that is protected
	peer string // matches the other end
}

func ingress() direction {
	return direction{name: "ingress", kind: networkingv1.PolicyTypeIngress, self: "ip daddr", peer: "ip saddr"}
}

func egress() direction {
	return direction{name: "egress", kind: networkingv1.PolicyTypeEgress, self: "ip saddr", peer: "ip daddr"}
}

// Rules renders the nftables commands that replace the table of a node. Equal states give equal text.
func Rules(s State) (string, error) {
	s.Pods = reachable(s.Pods)
	var chains, jumps strings.Builder
	for _, d := range []direction{egress(), ingress()} {
		var elements []string
		for _, pod := range s.Pods {
			if pod.Spec.NodeName != s.Node {
				continue
			}
			policies, err := s.applying(pod, d)
			if err != nil {
				return "", err
			}
			if len(policies) == 0 {
				continue
			}
			lines, err := s.allowed(pod, d, policies)
			if err != nil {
				return "", err
			}
			chain := d.name + "_" + strings.ReplaceAll(pod.Status.PodIP, ".", "_")
			fmt.Fprintf(&chains, "  chain %s {\n    comment \"%s/%s\"\n", chain, pod.Namespace, pod.Name)
			for _, line := range lines {
				fmt.Fprintf(&chains, "    %s\n", line)
			}
			chains.WriteString("    reject with icmpx type admin-prohibited\n  }\n")
			elements = append(elements, pod.Status.PodIP+" : jump "+chain)
		}
		if len(elements) > 0 {
			fmt.Fprintf(&jumps, "    %s vmap { %s }\n", d.self, strings.Join(elements, ", "))
		}
	}
	var out strings.Builder
	// Declared before it is deleted, because it may not exist. All of it is one transaction.
	out.WriteString("table inet netpol\ndelete table inet netpol\ntable inet netpol {\n")
	out.WriteString(chains.String())
	// What the node itself sends to its pods (probes) is always allowed, so output has no hook.
	for _, hook := range []string{"input", "forward"} {
		fmt.Fprintf(&out, "  chain %s {\n    type filter hook %s priority 10; policy accept;\n", hook, hook)
		out.WriteString("    ct state established,related accept\n" + jumps.String() + "  }\n")
	}
	out.WriteString("}\n")
	return out.String(), nil
}

// reachable returns the pods that own an address, in a fixed order.
func reachable(pods []*corev1.Pod) []*corev1.Pod {
	var own []*corev1.Pod
	for _, pod := range pods {
		ended := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
		if addr, err := netip.ParseAddr(pod.Status.PodIP); err == nil && addr.Is4() && !ended && !pod.Spec.HostNetwork {
			own = append(own, pod)
		}
	}
	slices.SortFunc(own, func(a, b *corev1.Pod) int {
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
	return own
}

// applying returns the policies that isolate a pod in a direction, in a fixed order.
func (s State) applying(pod *corev1.Pod, d direction) ([]*networkingv1.NetworkPolicy, error) {
	var list []*networkingv1.NetworkPolicy
	for _, policy := range s.Policies {
		if policy.Namespace != pod.Namespace || !slices.Contains(policy.Spec.PolicyTypes, d.kind) {
			continue
		}
		match, err := matches(&policy.Spec.PodSelector, pod.Labels)
		if err != nil {
			return nil, fmt.Errorf("reading policy %s/%s: %w", policy.Namespace, policy.Name, err)
		}
		if match {
			list = append(list, policy)
		}
	}
	slices.SortFunc(list, func(a, b *networkingv1.NetworkPolicy) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// rule is an ingress or egress rule; the two types of the API differ in names only.
type rule struct {
	peers []networkingv1.NetworkPolicyPeer
	ports []networkingv1.NetworkPolicyPort
}

func rules(policy *networkingv1.NetworkPolicy, d direction) []rule {
	var list []rule
	if d.kind == networkingv1.PolicyTypeIngress {
		for _, r := range policy.Spec.Ingress {
			list = append(list, rule{peers: r.From, ports: r.Ports})
		}
		return list
	}
	for _, r := range policy.Spec.Egress {
		list = append(list, rule{peers: r.To, ports: r.Ports})
	}
	return list
}

// allowed renders what policies let through to or from a pod.
func (s State) allowed(pod *corev1.Pod, d direction, policies []*networkingv1.NetworkPolicy) ([]string, error) {
	// A pod always reaches itself.
	lines := []string{d.peer + " " + pod.Status.PodIP + " return"}
	for _, policy := range policies {
		for _, r := range rules(policy, d) {
			ends, err := s.ends(policy.Namespace, d, r.peers)
			if err != nil {
				return nil, fmt.Errorf("reading policy %s/%s: %w", policy.Namespace, policy.Name, err)
			}
			for _, e := range ends {
				for _, match := range s.portMatches(pod, d, e, r.ports) {
					lines = append(lines, strings.Join(append(match, "return"), " "))
				}
			}
		}
	}
	return lines, nil
}

// end is the other end of allowed traffic: an address match, or pods.
type end struct {
	match string // "" matches everything
	pods  []*corev1.Pod
}

func (s State) ends(namespace string, d direction, peers []networkingv1.NetworkPolicyPeer) ([]end, error) {
	if len(peers) == 0 {
		return []end{{pods: s.Pods}}, nil
	}
	var list []end
	for _, peer := range peers {
		if block := peer.IPBlock; block != nil {
			if match, ok := blockMatch(d, block); ok {
				list = append(list, end{match: match})
			}
			continue
		}
		pods, err := s.selected(namespace, peer)
		if err != nil {
			return nil, err
		}
		if len(pods) > 0 {
			list = append(list, end{match: d.peer + " " + addresses(pods), pods: pods})
		}
	}
	return list, nil
}

func blockMatch(d direction, block *networkingv1.IPBlock) (string, bool) {
	prefix, err := netip.ParsePrefix(block.CIDR)
	if err != nil || !prefix.Addr().Is4() {
		return "", false // the cluster has no IPv6
	}
	match := d.peer + " " + prefix.Masked().String()
	if len(block.Except) > 0 {
		match += " " + d.peer + " != { " + strings.Join(block.Except, ", ") + " }"
	}
	return match, true
}

func (s State) selected(namespace string, peer networkingv1.NetworkPolicyPeer) ([]*corev1.Pod, error) {
	namespaces := map[string]bool{namespace: peer.NamespaceSelector == nil}
	if peer.NamespaceSelector != nil {
		for _, ns := range s.Namespaces {
			match, err := matches(peer.NamespaceSelector, ns.Labels)
			if err != nil {
				return nil, err
			}
			namespaces[ns.Name] = match
		}
	}
	var pods []*corev1.Pod
	for _, pod := range s.Pods {
		if !namespaces[pod.Namespace] {
			continue
		}
		match := peer.PodSelector == nil
		if !match {
			var err error
			if match, err = matches(peer.PodSelector, pod.Labels); err != nil {
				return nil, err
			}
		}
		if match {
			pods = append(pods, pod)
		}
	}
	return pods, nil
}

// portMatches combines an end with each port; a named port is looked up in the pods that receive the traffic.
func (s State) portMatches(pod *corev1.Pod, d direction, e end, ports []networkingv1.NetworkPolicyPort) [][]string {
	var base []string
	if e.match != "" {
		base = []string{e.match}
	}
	if len(ports) == 0 {
		return [][]string{base}
	}
	var list [][]string
	for _, port := range ports {
		protocol := "tcp"
		if port.Protocol != nil {
			protocol = strings.ToLower(string(*port.Protocol))
		}
		switch {
		case port.Port == nil:
			list = append(list, append(slices.Clone(base), "meta l4proto "+protocol))
		case port.Port.Type == intstr.Int:
			match := fmt.Sprintf("%s dport %d", protocol, port.Port.IntVal)
			if port.EndPort != nil {
				match += fmt.Sprintf("-%d", *port.EndPort)
			}
			list = append(list, append(slices.Clone(base), match))
		case d.kind == networkingv1.PolicyTypeIngress:
			if number, ok := namedPort(pod, protocol, port.Port.StrVal); ok {
				list = append(list, append(slices.Clone(base), fmt.Sprintf("%s dport %d", protocol, number)))
			}
		default:
			for _, receiver := range e.pods {
				if number, ok := namedPort(receiver, protocol, port.Port.StrVal); ok {
					list = append(list, []string{d.peer + " " + receiver.Status.PodIP, fmt.Sprintf("%s dport %d", protocol, number)})
				}
			}
		}
	}
	return list
}

func namedPort(pod *corev1.Pod, protocol, name string) (int32, bool) {
	for _, container := range pod.Spec.Containers {
		for _, port := range container.Ports {
			if port.Name == name && strings.EqualFold(string(port.Protocol), protocol) {
				return port.ContainerPort, true
			}
		}
	}
	return 0, false
}

func addresses(pods []*corev1.Pod) string {
	list := make([]string, 0, len(pods))
	for _, pod := range pods {
		list = append(list, pod.Status.PodIP)
	}
	slices.Sort(list)
	return "{ " + strings.Join(slices.Compact(list), ", ") + " }"
}

func matches(selector *metav1.LabelSelector, set map[string]string) (bool, error) {
	parsed, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		return false, fmt.Errorf("parsing selector: %w", err)
	}
	return parsed.Matches(labels.Set(set)), nil
}
