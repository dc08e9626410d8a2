package nodes

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// OperatorTaint says whether a taint is between the operator of the super cluster and its nodes: it keeps everybody else
// off, and nobody else may tolerate it.
func OperatorTaint(key string) bool {
	for _, prefix := range []string{names.Prefix, "node-role.kubernetes.io/", "node.cloudprovider.kubernetes.io/", "node.cluster.x-k8s.io/"} {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return slices.Contains([]string{"ToBeDeletedByClusterAutoscaler", "DeletionCandidateOfClusterAutoscaler", corev1.TaintNodeOutOfService}, key)
}

// closed says whether a taint that a tenant may not tolerate keeps the tenant's pods off a node.
func closed(taints []corev1.Taint) bool {
	return slices.ContainsFunc(taints, func(t corev1.Taint) bool {
		return t.Effect != corev1.TaintEffectPreferNoSchedule && OperatorTaint(t.Key)
	})
}
