package resources

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/resources/nodes"
)

// OtherPods are the pods of the super cluster that are no replicas. Nothing happens to them; what they request of their
// nodes is not there for tenants.
func OtherPods() resource.Kind {
	return resource.Of(resource.Resource[*corev1.Pod]{
		Name:      "otherpods",
		GVK:       corev1.SchemeGroupVersion.WithKind("Pod"),
		New:       func() *corev1.Pod { return &corev1.Pod{} },
		SuperOnly: true,
		SuperSelector: resource.Selector{
			Labels: names.LabelManagedBy + "!=" + names.Syncer,
			Fields: "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed",
		},
		OnDemand: func(tenant resource.Facts) bool { return tenant.Scheduler },
		Trim: func(pod *corev1.Pod) {
			node, requests := nodes.Requests(pod)
			delete(requests, corev1.ResourcePods) // which counts this one, again whenever it is asked for
			*pod = corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion},
				Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: requests}}}},
			}
		},
		NodeRequests: nodes.Requests,
	})
}
