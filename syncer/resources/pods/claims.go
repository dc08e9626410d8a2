package pods

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// Kinds of claims: of devices, and of volumes.
const (
	kindClaims       = "resourceclaims"
	kindVolumeClaims = "persistentvolumeclaims"
)

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

// volumeClaim returns the claim of a volume, empty when it needs none.
func volumeClaim(pod *corev1.Pod, volume *corev1.Volume) string {
	switch {
	case volume.PersistentVolumeClaim != nil:
		return volume.PersistentVolumeClaim.ClaimName
	case volume.Ephemeral != nil:
		return pod.Name + "-" + volume.Name
	default:
		return ""
	}
}

// claimsReady waits for the replicas of the claims, of volumes and of devices, that a new pod names. Unlike what a kubelet
// mounts they must be of the tenant's claims of today: the scheduler takes what it finds, and data may be in it.
func claimsReady(v resource.View, pod *corev1.Pod) error {
	if none := unclaimed(v, pod); none != "" {
		switch {
		case young(v, pod):
			return resource.Waiting(retry, "a claim of the pod: %s", none)
		case pod.Spec.NodeName == "":
			return unplaceable(none)
		}
		return resource.Blocked(retry, reasonWaiting, "its claims: %s", none)
	}
	for _, ref := range References(pod) {
		if (ref.Kind == kindClaims || ref.Kind == kindVolumeClaims) && !v.Replicated(ref) {
			return resource.Blocked(retry, reasonWaiting, "%s", lacking(v, ref))
		}
	}
	return nil
}

// young says that the claims of a pod may have been made before it, and not be known yet.
func young(v resource.View, pod *corev1.Pod) bool {
	return v.Now.Before(pod.CreationTimestamp.Add(retry))
}

// unclaimed says, as a scheduler does, which claim of a pod the tenant does not have. It is empty when it has them all.
func unclaimed(v resource.View, pod *corev1.Pod) string {
	for i := range pod.Spec.Volumes {
		volume := &pod.Spec.Volumes[i]
		name := volumeClaim(pod, volume)
		if name == "" {
			continue
		}
		claim := v.Get(resource.Tenant, resource.Ref{Kind: kindVolumeClaims, Namespace: pod.Namespace, Name: name})
		switch {
		case claim == nil && volume.Ephemeral != nil:
			return fmt.Sprintf("waiting for ephemeral volume controller to create the persistentvolumeclaim %q", name)
		case claim == nil:
			return fmt.Sprintf("persistentvolumeclaim %q not found", name)
		case claim.GetDeletionTimestamp() != nil:
			return fmt.Sprintf("persistentvolumeclaim %q is being deleted", name)
		case volume.Ephemeral != nil && !metav1.IsControlledBy(claim, pod):
			return fmt.Sprintf("PVC %q was not created for pod %q (pod is not owner)", pod.Namespace+"/"+name, pod.Namespace+"/"+pod.Name)
		}
	}
	for _, name := range Claims(pod) {
		if v.Get(resource.Tenant, resource.Ref{Kind: kindClaims, Namespace: pod.Namespace, Name: name}) == nil {
			return fmt.Sprintf("resourceclaim %q not found", name)
		}
	}
	return ""
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
		return !t.view.OffersClass(resource.DeviceClasses, class)
	}
	hidden := false
	t.view.Each(resource.Super, resource.DeviceClasses, func(o resource.Object) {
		class, ok := o.(*resourcev1.DeviceClass)
		hidden = hidden || ok && class.Spec.ExtendedResourceName != nil && *class.Spec.ExtendedResourceName == name &&
			(!t.view.Enabled(resource.DeviceClasses) || !resource.ClassOffered(resource.DeviceClasses, class))
	})
	return hidden
}
