package pods

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/resources/nodes"
)

// rejectAfter is how long a pod that the tenant's own scheduler bound may wait for its node.
const rejectAfter = time.Minute

// nodeRejected is the reason of a pod that its node did not take.
const nodeRejected = "NodeRejected"

// scheduled restricts the replica to the node that the tenant's own scheduler chose. Everything else that chooses a node
// has been decided there, with what only the tenant knows.
func (t *translation) scheduled(dst *corev1.PodSpec, node string) {
	dst.NodeSelector, dst.Affinity, dst.TopologySpreadConstraints = nil, nil, nil
	requireField(dst, named(corev1.NodeSelectorOpIn, node))
	t.confine(dst)
	virtual, ok := t.view.Get(resource.Tenant, resource.Ref{Kind: kindNodes, Name: node}).(*corev1.Node)
	if !ok || virtual == nil {
		return
	}
	added := nodes.Added(virtual)
	if len(added) == 0 {
		return
	}
	drop := func(r *corev1.ResourceRequirements) {
		for _, list := range []corev1.ResourceList{r.Requests, r.Limits} {
			maps.DeleteFunc(list, func(name corev1.ResourceName, _ apiresource.Quantity) bool { return slices.Contains(added, name) })
		}
	}
	if dst.Resources != nil {
		drop(dst.Resources)
	}
	for _, containers := range [][]corev1.Container{dst.InitContainers, dst.Containers} {
		for i := range containers {
			drop(&containers[i].Resources)
		}
	}
}

// schedulerIgnored is the reason of the event about a scheduler of the tenant's own that does not place its pod.
const schedulerIgnored = "SchedulerIgnored"

// ignored tells the tenant that the pod is not placed by the scheduler that it names. Where the tenant has a scheduler of its
// own, a pod goes down when it has a node, whoever chose that.
func ignored(v resource.View, pod *corev1.Pod) []resource.Op {
	name := pod.Spec.SchedulerName
	if v.Tenant.Scheduler || name == "" || name == corev1.DefaultSchedulerName {
		return nil
	}
	message := fmt.Sprintf("The scheduler %q is ignored, because this cluster does not schedule its own pods: the scheduler of the operator places the pod. "+
		"Ask the operator to set spec.scheduler.enabled of the VirtualCluster, or leave out spec.schedulerName.", name)
	return []resource.Op{resource.Tell(v, pod, corev1.SchemeGroupVersion.WithKind("Pod"), corev1.EventTypeWarning, schedulerIgnored, message)}
}

// awaited says that the tenant's own scheduler has chosen a node, where the super pod is not yet.
func awaited(v resource.View, tenant, super *corev1.Pod) bool {
	return v.Tenant.Scheduler && tenant.Spec.NodeName != "" && super.Spec.NodeName == ""
}

// kubeletReason returns the reason with which a kubelet rejects a pod of which the super cluster's scheduler says the
// message, empty for what is not about room on the node. Of several causes it is the first that the kubelet looks for.
func kubeletReason(message string) string {
	for _, cause := range [...]struct{ part, reason string }{
		{"Too many pods", "OutOfpods"},
		{"Insufficient cpu", "OutOfcpu"},
		{"Insufficient memory", "OutOfmemory"},
		{"Insufficient ephemeral-storage", "OutOfephemeral-storage"},
		{"didn't have free ports", "NodePorts"},
	} {
		if strings.Contains(message, cause.part) {
			return cause.reason
		}
	}
	return ""
}

// rejected ends a pod that finds no room on the node that was chosen for it, as a kubelet does: nobody chooses twice for a
// pod, but its controller makes another one. A pod that was made with the name of a node is answered at once. What the
// tenant's own scheduler chose may take a while to become free; until then it returns when to look again.
func rejected(v resource.View, tenant, super *corev1.Pod) ([]resource.Op, error) {
	if tenant.Spec.NodeName == "" || super.Spec.NodeName != "" || over(tenant, super) {
		return nil, nil
	}
	i := slices.IndexFunc(super.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Reason == corev1.PodReasonUnschedulable
	})
	if i < 0 {
		return nil, nil
	}
	condition := super.Status.Conditions[i]
	if !v.Tenant.Scheduler {
		reason := kubeletReason(condition.Message)
		if reason == "" {
			return nil, nil // no kubelet has seen it either: the node does not exist, or is not ready
		}
		return end(v, tenant, reason, condition.Message)
	}
	if left := condition.LastTransitionTime.Add(rejectAfter).Sub(v.Now); left > 0 {
		return nil, resource.Due(resource.Blocked(left, reasonWaiting, "room on node %q, which the scheduler chose", tenant.Spec.NodeName))
	}
	return end(v, tenant, nodeRejected, condition.Message)
}

// end says that the node does not take the pod.
func end(v resource.View, tenant *corev1.Pod, reason, message string) ([]resource.Op, error) {
	status := *tenant.Status.DeepCopy()
	status.Phase, status.Reason = corev1.PodFailed, reason
	status.Message = "Node " + tenant.Spec.NodeName + " has no room for the pod: " + v.ForTenant(message, tenant.Namespace, nil)
	ops, err := patchStatus(resource.Tenant, tenant, status)
	if err != nil {
		return nil, err
	}
	return append(ops, resource.Tell(v, tenant, corev1.SchemeGroupVersion.WithKind("Pod"), corev1.EventTypeWarning, reason, status.Message)), nil
}
