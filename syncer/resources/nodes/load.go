package nodes

import (
	corev1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
)

// Requests returns what a pod takes of which node; no node when it takes nothing.
func Requests(pod *corev1.Pod) (string, corev1.ResourceList) {
	if pod.Spec.NodeName == "" || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return "", nil
	}
	requests := resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})
	requests[corev1.ResourcePods] = *apiresource.NewQuantity(1, apiresource.DecimalSI)
	return pod.Spec.NodeName, requests
}

// less returns what is left of resources when others take some.
func less(all, taken corev1.ResourceList) corev1.ResourceList {
	out := make(corev1.ResourceList, len(all))
	for name, quantity := range all {
		left := quantity.DeepCopy()
		if others, ok := taken[name]; ok {
			left.Sub(others)
		}
		if left.Sign() < 0 {
			left = *apiresource.NewQuantity(0, left.Format)
		}
		out[name] = left
	}
	return out
}
