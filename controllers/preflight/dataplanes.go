package preflight

import "net/netip"

// rule is what is known about something that serves cluster IPs, or about a platform. All of it was read, in source or
// documentation; see the table of platforms in docs/install.md.
type rule struct {
	name string
	// It is there when the API server serves a group, or the namespace kube-system has a DaemonSet, or a node has a label.
	group, daemonSet, label string
	// outside is what to say about ranges that are not in the super cluster's default one.
	outside *Finding
	// forbidden are ranges that Services must not have.
	forbidden []string
}

// Names of dataplanes that have rules of their own.
const (
	cilium = "Cilium"
	antrea = "Antrea"
	calico = "Calico"
)

// inside is what to do when a range must be a part of the super cluster's default range.
const inside = "Use --service-cidr-pool=auto."

// rules returns the table of dataplanes and platforms.
func rules() []rule {
	return []rule{
		{name: cilium, group: "cilium.io"},
		{name: antrea, group: "crd.antrea.io"},
		{name: calico, group: "crd.projectcalico.org"},
		{name: "OpenShift", group: "config.openshift.io", outside: &Finding{
			Severity: Error, Reason: ReasonDataplaneStatic, Action: inside,
			Message: "OpenShift supports no ranges of Services besides the one that it was installed with",
		}},
		{name: "OVN-Kubernetes", group: "k8s.ovn.org", outside: &Finding{
			Severity: Error, Reason: ReasonDataplaneStatic, Action: inside,
			Message: "OVN-Kubernetes serves nodes and pods with hostNetwork only addresses of the ranges that it was configured with",
		}},
		{name: "Kube-OVN", group: "kubeovn.io", outside: &Finding{
			Severity: Warning, Reason: ReasonDataplaneUntested, Action: inside,
			Message: "nobody is known to have tried Kube-OVN with a second range of Services",
		}},
		{name: "kube-router", daemonSet: "kube-router", outside: &Finding{
			Severity: Warning, Reason: ReasonDataplaneStatic, Action: inside + " Or add the range to --service-cluster-ip-range of kube-router.",
			Message: "kube-router lets only addresses of its --service-cluster-ip-range pass on nodes",
		}},
		{name: "AKS", label: "kubernetes.azure.com/cluster", forbidden: []string{"169.254.0.0/16", "172.30.0.0/16", "172.31.0.0/16", "192.0.2.0/24"}},
	}
}

// ciliumPods is the range that Cilium takes pods' addresses from unless it is told another one.
const ciliumPods = "10.0.0.0/8"

// common returns the longest prefix that contains both.
func common(a, b netip.Prefix) netip.Prefix {
	for bits := min(a.Bits(), b.Bits()); bits > 0; bits-- {
		if prefix := netip.PrefixFrom(a.Addr(), bits).Masked(); prefix.Contains(b.Addr()) {
			return prefix
		}
	}
	return netip.PrefixFrom(a.Addr(), 0).Masked()
}
