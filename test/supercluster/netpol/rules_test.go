package netpol

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

func pod(namespace, name, node, ip string, set map[string]string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: set},
		Spec: corev1.PodSpec{
			NodeName: node,
			Containers: []corev1.Container{{
				Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}},
			}},
		},
		Status: corev1.PodStatus{PodIP: ip},
	}
}

func selector(key, value string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{key: value}}
}

// state is a web pod on this node, a client on another one, and a stranger in another namespace.
func state(spec networkingv1.NetworkPolicySpec) State {
	return State{
		Node: "here",
		Pods: []*corev1.Pod{
			pod("a", "web", "here", "10.0.0.1", map[string]string{"app": "web"}),
			pod("a", "client", "there", "10.0.0.2", map[string]string{"app": "client"}),
			pod("b", "stranger", "here", "10.0.0.3", map[string]string{"app": "client"}),
		},
		Namespaces: []*corev1.Namespace{
			{ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{"team": "a"}}},
			{ObjectMeta: metav1.ObjectMeta{Name: "b", Labels: map[string]string{"team": "b"}}},
		},
		Policies: []*networkingv1.NetworkPolicy{{
			ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "policy"},
			Spec:       spec,
		}},
	}
}

// chainOf returns the lines of a chain; nil when there is none.
func chainOf(rules, chain string) []string {
	_, after, ok := strings.Cut(rules, "  chain "+chain+" {\n")
	if !ok {
		return nil
	}
	body, _, _ := strings.Cut(after, "\n  }\n")
	var lines []string
	for line := range strings.Lines(body) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "comment ") {
			lines = append(lines, line)
		}
	}
	return lines
}

func TestRules(t *testing.T) {
	const reject = "reject with icmpx type admin-prohibited"
	web := *selector("app", "web")
	tcp, udp := corev1.ProtocolTCP, corev1.ProtocolUDP
	from := func(peers ...networkingv1.NetworkPolicyPeer) networkingv1.NetworkPolicySpec {
		return networkingv1.NetworkPolicySpec{
			PodSelector: web,
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
			Ingress:     []networkingv1.NetworkPolicyIngressRule{{From: peers}},
		}
	}
	ports := func(ports ...networkingv1.NetworkPolicyPort) networkingv1.NetworkPolicySpec {
		spec := from()
		spec.Ingress[0].Ports = ports
		return spec
	}
	to := func(rules ...networkingv1.NetworkPolicyEgressRule) networkingv1.NetworkPolicySpec {
		return networkingv1.NetworkPolicySpec{
			PodSelector: web,
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress},
			Egress:      rules,
		}
	}
	cases := map[string]struct {
		reason string
		spec   networkingv1.NetworkPolicySpec
		chain  string
		want   []string
	}{
		"DenyAll": {
			reason: "an isolated pod is reached by itself only",
			spec:   networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}},
			chain:  "ingress_10_0_0_1",
			want:   []string{"ip saddr 10.0.0.1 return", reject},
		},
		"NotIsolatedOtherDirection": {
			reason: "an ingress policy leaves egress alone",
			spec:   from(),
			chain:  "egress_10_0_0_1",
		},
		"NotIsolatedOtherNamespace": {
			reason: "a policy is about its own namespace",
			spec:   networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}},
			chain:  "ingress_10_0_0_3",
		},
		"NotOurPod": {
			reason: "other nodes protect their own pods",
			spec:   networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}},
			chain:  "ingress_10_0_0_2",
		},
		"FromEverybody": {
			reason: "a rule without peers and ports allows all",
			spec:   from(),
			chain:  "ingress_10_0_0_1",
			want:   []string{"ip saddr 10.0.0.1 return", "return", reject},
		},
		"FromPods": {
			reason: "a pod selector selects in the policy's namespace",
			spec:   from(networkingv1.NetworkPolicyPeer{PodSelector: selector("app", "client")}),
			chain:  "ingress_10_0_0_1",
			want:   []string{"ip saddr 10.0.0.1 return", "ip saddr { 10.0.0.2 } return", reject},
		},
		"FromNamespace": {
			reason: "a namespace selector selects all pods there",
			spec:   from(networkingv1.NetworkPolicyPeer{NamespaceSelector: selector("team", "b")}),
			chain:  "ingress_10_0_0_1",
			want:   []string{"ip saddr 10.0.0.1 return", "ip saddr { 10.0.0.3 } return", reject},
		},
		"FromPodsInAnyNamespace": {
			reason: "both selectors have to match, an empty one matches all",
			spec: from(networkingv1.NetworkPolicyPeer{
				NamespaceSelector: &metav1.LabelSelector{}, PodSelector: selector("app", "client"),
			}),
			chain: "ingress_10_0_0_1",
			want:  []string{"ip saddr 10.0.0.1 return", "ip saddr { 10.0.0.2, 10.0.0.3 } return", reject},
		},
		"FromNobody": {
			reason: "a selector that matches no pod allows nothing",
			spec:   from(networkingv1.NetworkPolicyPeer{PodSelector: selector("app", "none")}),
			chain:  "ingress_10_0_0_1",
			want:   []string{"ip saddr 10.0.0.1 return", reject},
		},
		"FromBlock": {
			reason: "an address block may have holes; IPv6 does not exist here",
			spec: from(
				networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: "10.1.2.3/8", Except: []string{"10.2.0.0/16"}}},
				networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: "fd00::/8"}},
			),
			chain: "ingress_10_0_0_1",
			want:  []string{"ip saddr 10.0.0.1 return", "ip saddr 10.0.0.0/8 ip saddr != { 10.2.0.0/16 } return", reject},
		},
		"Ports": {
			reason: "ports are numbers, ranges, names of the receiving pod, or whole protocols",
			spec: ports(
				networkingv1.NetworkPolicyPort{Port: ptr.To(intstr.FromInt32(80))},
				networkingv1.NetworkPolicyPort{Port: ptr.To(intstr.FromInt32(90)), EndPort: ptr.To[int32](99), Protocol: &udp},
				networkingv1.NetworkPolicyPort{Port: ptr.To(intstr.FromString("http")), Protocol: &tcp},
				networkingv1.NetworkPolicyPort{Port: ptr.To(intstr.FromString("unknown"))},
				networkingv1.NetworkPolicyPort{Protocol: &udp},
			),
			chain: "ingress_10_0_0_1",
			want: []string{
				"ip saddr 10.0.0.1 return", "tcp dport 80 return", "udp dport 90-99 return", "tcp dport 8080 return",
				"meta l4proto udp return", reject,
			},
		},
		"EgressNamedPort": {
			reason: "a named port of egress is looked up in each receiving pod",
			spec: to(networkingv1.NetworkPolicyEgressRule{
				To:    []networkingv1.NetworkPolicyPeer{{PodSelector: selector("app", "client")}},
				Ports: []networkingv1.NetworkPolicyPort{{Port: ptr.To(intstr.FromString("http"))}},
			}),
			chain: "egress_10_0_0_1",
			want:  []string{"ip daddr 10.0.0.1 return", "ip daddr 10.0.0.2 tcp dport 8080 return", reject},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			rules, err := Rules(state(tc.spec))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, chainOf(rules, tc.chain)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
			jump := "ip daddr vmap { 10.0.0.1 : jump ingress_10_0_0_1 }"
			if got := strings.Contains(rules, jump); got != (chainOf(rules, "ingress_10_0_0_1") != nil) {
				t.Errorf("jump to the chain of the pod: %v, in\n%s", got, rules)
			}
		})
	}
}

func TestRulesIgnorePodsWithoutOwnAddress(t *testing.T) {
	s := state(networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}})
	s.Pods[0].Spec.HostNetwork = true
	rules, err := Rules(s)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(rules, "jump") {
		t.Errorf("a pod with the node's address is isolated:\n%s", rules)
	}
	s = state(s.Policies[0].Spec)
	s.Pods[0].Status.Phase = corev1.PodSucceeded
	if rules, err = Rules(s); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(rules, "jump") {
		t.Errorf("the address of a pod that has ended is isolated:\n%s", rules)
	}
}

func TestRulesDoNotDependOnOrder(t *testing.T) {
	s := state(networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}})
	first, err := Rules(s)
	if err != nil {
		t.Fatal(err)
	}
	s.Pods[0], s.Pods[2] = s.Pods[2], s.Pods[0]
	second, err := Rules(s)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, second); diff != "" {
		t.Errorf("rules depend on the order of pods (-first +second):\n%s", diff)
	}
}
