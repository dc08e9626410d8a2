// Package nodes describes how nodes are synchronised: each node of the super cluster that a tenant may use appears in it
// as a virtual node. It also tells apart, for package pods, what the tenant changed on a virtual node and what came from
// the real one. The package is pure, as package resources, which lists its kind, is.
package nodes

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// +kubebuilder:rbac:groups="",resources=nodes,verbs=get;list;watch

// Kind gives each tenant a virtual node of the same name for each node of the super cluster that it may use, so that affinity, spread
// and DaemonSets have their real meaning. Its kubelet endpoint is the vn-agent of that node. What identifies the machine
// stays hidden, and heartbeats are not copied: conditions change when the real node's do.
func Kind() resource.Kind {
	return resource.Of(resource.Resource[*corev1.Node]{
		Name:          "nodes",
		GVK:           corev1.SchemeGroupVersion.WithKind("Node"),
		Cluster:       true,
		Origin:        resource.Super,
		SuperSelector: resource.Selector{All: true},
		New:           func() *corev1.Node { return &corev1.Node{} },
		Trim: func(n *corev1.Node) {
			n.Status.Images, n.Status.VolumesInUse, n.Status.VolumesAttached = nil, nil, nil
			for i := range n.Status.Conditions { // a heartbeat is no news
				n.Status.Conditions[i].LastHeartbeatTime = n.Status.Conditions[i].LastTransitionTime
			}
		},
		Needed: needed,
		Down: func(v resource.View, machine *corev1.Node) (*corev1.Node, error) {
			in := shown(v, machine)
			out := &corev1.Node{
				Spec:   corev1.NodeSpec{Unschedulable: in.Spec.Unschedulable, Taints: in.Spec.Taints},
				Status: status(in),
			}
			out.Labels = in.Labels
			out.Annotations = marks(in)
			return out, nil
		},
		Merge:               merge,
		Up:                  up,
		AffectsAllReferrers: func(old, now *corev1.Node) bool { return !sameToPods(old, now) },
		Customized:          func(n *corev1.Node) bool { return !OwnOf(n).empty() },
	})
}

// needed says whether the tenant sees a node: one that it may use, or that runs a pod of it. A taint that is hidden from the
// tenant is the business of whoever hides it.
func needed(v resource.View, machine *corev1.Node) bool {
	if (v.Tenant.Nodes.Used || closed(shown(v, machine).Spec.Taints)) && !v.HasPodsOn(machine.Name) {
		return false
	}
	if len(v.Tenant.Nodes.Selector) == 0 {
		return true
	}
	selector, err := nodeaffinity.NewNodeSelector(&corev1.NodeSelector{
		NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: v.Tenant.Nodes.Selector}},
	})
	return err == nil && selector.Match(machine)
}

// shown returns what the tenant sees of the metadata and spec of a node.
func shown(v resource.View, machine *corev1.Node) *corev1.Node {
	if len(v.Tenant.Nodes.HiddenLabels) == 0 && len(v.Tenant.Nodes.HiddenTaints) == 0 {
		return machine
	}
	out := *machine
	out.Labels = maps.Clone(machine.Labels)
	maps.DeleteFunc(out.Labels, func(key, _ string) bool { return hidden(v.Tenant.Nodes.HiddenLabels, key) })
	out.Spec.Taints = slices.DeleteFunc(slices.Clone(machine.Spec.Taints), func(t corev1.Taint) bool {
		return hidden(v.Tenant.Nodes.HiddenTaints, t.Key)
	})
	return &out
}

// hidden says whether a key is in a list of keys and prefixes.
func hidden(keys []string, key string) bool {
	return slices.ContainsFunc(keys, func(k string) bool { return k == key || strings.HasSuffix(k, "/") && strings.HasPrefix(key, k) })
}

// merge sets what came from the real node and leaves what the tenant added. It runs on the annotations as they were.
func merge(existing, want *corev1.Node) {
	existing.Spec.Taints = mergeTaints(existing, want.Spec.Taints)
	_, ours := existing.Annotations[annotationCordoned]
	switch {
	case want.Spec.Unschedulable && existing.Spec.Unschedulable && !ours:
		delete(want.Annotations, annotationCordoned) // the tenant was first, and stays when the operator goes
	case want.Spec.Unschedulable:
		existing.Spec.Unschedulable = true
	case ours:
		existing.Spec.Unschedulable = false
	}
	// Resources are in the status, which is written apart, and with it the note of which are ours.
	if resources, ok := existing.Annotations[annotationResources]; ok {
		if want.Annotations == nil {
			want.Annotations = map[string]string{}
		}
		want.Annotations[annotationResources] = resources
	} else {
		delete(want.Annotations, annotationResources)
	}
}

// mergeTaints returns the taints of the real node and those of the tenant, in the order in which they are.
func mergeTaints(existing *corev1.Node, want []corev1.Taint) []corev1.Taint {
	ours := list(existing, annotationTaints)
	var out []corev1.Taint
	for _, taint := range existing.Spec.Taints {
		if i := slices.IndexFunc(want, func(w corev1.Taint) bool { return w.MatchTaint(&taint) }); i >= 0 {
			out = append(out, want[i])
		} else if !slices.Contains(ours, taintID(taint)) {
			out = append(out, taint)
		}
	}
	for _, taint := range want {
		if !slices.ContainsFunc(out, func(o corev1.Taint) bool { return o.MatchTaint(&taint) }) {
			out = append(out, taint)
		}
	}
	return out
}

// up keeps the status current.
func up(v resource.View, p resource.Pair[*corev1.Node]) ([]resource.Op, error) {
	return resource.ReportStatus(p.Tenant, func(to *corev1.Node) {
		to.Status = status(p.Super)
		to.Status.Capacity = withAdded(p.Tenant, to.Status.Capacity, p.Tenant.Status.Capacity)
		to.Status.Allocatable = withAdded(p.Tenant, to.Status.Allocatable, p.Tenant.Status.Allocatable)
		if v.Tenant.Scheduler { // it counts the tenant's own pods
			to.Status.Allocatable = less(to.Status.Allocatable, v.RequestedByOthers(p.Super.Name))
		}
		if resources := extended(p.Super); resources != "" {
			to.Annotations[annotationResources] = resources
		} else {
			delete(to.Annotations, annotationResources)
		}
	})
}

// withAdded returns the resources of the real node with those that the tenant added to the virtual one.
func withAdded(virtual *corev1.Node, synced, existing corev1.ResourceList) corev1.ResourceList {
	out := maps.Clone(synced)
	ours := list(virtual, annotationResources)
	for name, quantity := range existing {
		if _, taken := synced[name]; taken || !Extended(name) || slices.Contains(ours, string(name)) {
			continue
		}
		if out == nil {
			out = corev1.ResourceList{}
		}
		out[name] = quantity
	}
	return out
}

// Extended says whether a resource is neither Kubernetes' own nor made by it.
func Extended(name corev1.ResourceName) bool {
	return strings.Contains(string(name), "/") && !strings.Contains(string(name), corev1.ResourceDefaultNamespacePrefix)
}

// status is the part of a node's status that tenants see.
func status(in *corev1.Node) corev1.NodeStatus {
	out := corev1.NodeStatus{
		Capacity:        in.Status.Capacity,
		Allocatable:     in.Status.Allocatable,
		Addresses:       in.Status.Addresses,
		DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: names.VNAgentPort}},
		RuntimeHandlers: in.Status.RuntimeHandlers,
		Features:        in.Status.Features,
	}
	for _, c := range in.Status.Conditions {
		c.LastHeartbeatTime = c.LastTransitionTime
		out.Conditions = append(out.Conditions, c)
	}
	info := in.Status.NodeInfo
	out.NodeInfo = corev1.NodeSystemInfo{
		KernelVersion: info.KernelVersion, OSImage: info.OSImage, ContainerRuntimeVersion: info.ContainerRuntimeVersion,
		KubeletVersion: info.KubeletVersion, KubeProxyVersion: info.KubeProxyVersion, //nolint:staticcheck // deprecated, but shown by real nodes
		OperatingSystem: info.OperatingSystem, Architecture: info.Architecture,
	}
	return out
}
