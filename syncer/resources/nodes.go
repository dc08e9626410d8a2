package resources

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// +kubebuilder:rbac:groups="",resources=nodes,verbs=get;list;watch

// Nodes gives each tenant a virtual node of the same name for each node of the super cluster, so that affinity, spread
// and DaemonSets have their real meaning. Its kubelet endpoint is the vn-agent of that node. What identifies the machine
// stays hidden, and heartbeats are not copied: conditions change when the real node's do.
func Nodes() resource.Kind {
	return resource.Of(resource.Resource[*corev1.Node]{
		Name:          "nodes",
		GVK:           corev1.SchemeGroupVersion.WithKind("Node"),
		Cluster:       true,
		Origin:        resource.Super,
		SuperSelector: resource.Selector{All: true},
		New:           func() *corev1.Node { return &corev1.Node{} },
		Trim: func(n *corev1.Node) {
			n.Status.Images, n.Status.VolumesInUse, n.Status.VolumesAttached = nil, nil, nil
		},
		Down: func(_ resource.View, in *corev1.Node) (*corev1.Node, error) {
			out := &corev1.Node{
				Spec:   corev1.NodeSpec{Unschedulable: in.Spec.Unschedulable, Taints: in.Spec.Taints},
				Status: nodeStatus(in),
			}
			out.Labels = in.Labels
			return out, nil
		},
		Merge: func(existing, want *corev1.Node) {
			existing.Spec.Unschedulable, existing.Spec.Taints = want.Spec.Unschedulable, want.Spec.Taints
		},
		Up: func(_ resource.View, p resource.Pair[*corev1.Node]) ([]resource.Op, error) {
			if p.Tenant == nil || p.Super == nil || p.Tenant.Annotations[names.AnnotationUID] != string(p.Super.UID) {
				return nil, nil
			}
			current := p.Tenant.DeepCopy()
			current.Status = nodeStatus(p.Super)
			patch, err := resource.Diff(p.Tenant, current, resource.SameObject)
			if err != nil || patch == nil {
				return nil, err
			}
			return []resource.Op{{Side: resource.Tenant, Verb: resource.PatchStatus, Object: p.Tenant, Patch: patch, Why: resource.Status}}, nil
		},
	})
}

// nodeStatus is the part of a node's status that tenants see.
func nodeStatus(in *corev1.Node) corev1.NodeStatus {
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
