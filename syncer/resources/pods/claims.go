package pods

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// kindClaims is the kind of claims of devices.
const kindClaims = "resourceclaims"

// Claims names the resource claims of a tenant's pod, as far as those of templates exist.
func Claims(pod *corev1.Pod) []string {
	var out []string
	for i := range pod.Spec.ResourceClaims {
		if name := claimName(pod, &pod.Spec.ResourceClaims[i]); name != "" {
			out = append(out, name)
		}
	}
	return out
}

// claimName returns the claim that the tenant named or its control plane made, empty when it has not made it yet.
func claimName(pod *corev1.Pod, claim *corev1.PodResourceClaim) string {
	if claim.ResourceClaimName != nil {
		return *claim.ResourceClaimName
	}
	for _, made := range pod.Status.ResourceClaimStatuses {
		if made.Name == claim.Name && made.ResourceClaimName != nil {
			return *made.ResourceClaimName
		}
	}
	return ""
}

// finishClaim names the claim, so that the super cluster makes none of a template.
func finishClaim(t *translation, dst, src *corev1.PodResourceClaim) error {
	if !t.view.Enabled(kindClaims) {
		return &refusal{why: whyClaims}
	}
	name := claimName(t.pod, src)
	if name == "" {
		t.waitFor("the claim that is made of the template for %s", src.Name)
	}
	dst.ResourceClaimName = &name
	return nil
}

// claimsReady waits for the replicas of the claims that a new pod names. Unlike what a pod mounts they must be of the tenant's
// claims of today: the scheduler takes what it finds.
func claimsReady(v resource.View, pod *corev1.Pod) error {
	for _, name := range Claims(pod) {
		ref := resource.Ref{Kind: kindClaims, Namespace: pod.Namespace, Name: name}
		claim, replica := v.Get(resource.Tenant, ref), v.Get(resource.Super, ref)
		if claim == nil || replica == nil || replica.GetAnnotations()[names.AnnotationUID] != string(claim.GetUID()) {
			return resource.Waiting(retry, "the replica of %s %s", ref.Kind, ref.Name)
		}
	}
	return nil
}

// devices refuses extended resources that the super cluster's scheduler takes from the devices of a class that is not offered:
// they need no claim of the tenant's.
func (t *translation) devices(src *corev1.PodSpec) error {
	for _, list := range [][]corev1.Container{src.InitContainers, src.Containers} {
		for i := range list {
			for _, name := range extendedResources(list[i].Resources) {
				if t.takesHidden(name) {
					return &refusal{path: "containers", why: fmt.Sprintf("the resource %s of container %s is of a device class that is not offered here", name, list[i].Name)}
				}
			}
		}
	}
	return nil
}

// extendedResources lists the names that may stand for devices.
func extendedResources(r corev1.ResourceRequirements) []string {
	var out []string
	for _, list := range []corev1.ResourceList{r.Requests, r.Limits} {
		for name := range list {
			if strings.Contains(string(name), "/") {
				out = append(out, string(name))
			}
		}
	}
	slices.Sort(out)
	return out
}

func (t *translation) takesHidden(name string) bool {
	if class, ok := strings.CutPrefix(name, resourcev1.ResourceDeviceClassPrefix); ok {
		return !t.view.Offers(resource.DeviceClasses, class)
	}
	hidden := false
	t.view.Each(resource.Super, resource.DeviceClasses, func(o resource.Object) {
		class, ok := o.(*resourcev1.DeviceClass)
		hidden = hidden || ok && class.Spec.ExtendedResourceName != nil && *class.Spec.ExtendedResourceName == name &&
			(!t.view.Enabled(resource.DeviceClasses) || !resource.Offered(resource.DeviceClasses, class))
	})
	return hidden
}
