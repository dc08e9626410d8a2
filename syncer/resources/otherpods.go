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
		Trim: func(pod *corev1.Pod) {
			slim := func(in []corev1.Container) []corev1.Container {
				var out []corev1.Container
				for _, c := range in {
					out = append(out, corev1.Container{Resources: c.Resources, RestartPolicy: c.RestartPolicy})
				}
				return out
			}
			pod.ObjectMeta = metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion}
			pod.Spec = corev1.PodSpec{
				NodeName: pod.Spec.NodeName, Overhead: pod.Spec.Overhead, Resources: pod.Spec.Resources,
				Containers: slim(pod.Spec.Containers), InitContainers: slim(pod.Spec.InitContainers),
			}
			pod.Status = corev1.PodStatus{Phase: pod.Status.Phase}
		},
		Loads: nodes.Load,
	})
}
