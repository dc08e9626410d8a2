package pods

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// translateStatus returns the status that the tenant's pod should have.
func (k *kind) translateStatus(v resource.View, tenant, super *corev1.Pod) (corev1.PodStatus, error) {
	var out corev1.PodStatus
	t := &translation{copiers: k.copiers, view: v, pod: tenant, super: super, lenient: true}
	err := t.copy(&out, &super.Status)
	return out, err
}

// finishStatus sets what the table leaves to code in the status itself.
func finishStatus(t *translation, dst, src *corev1.PodStatus) error {
	dst.ObservedGeneration = t.generation(src.ObservedGeneration, t.pod.Status.ObservedGeneration)
	dst.QOSClass = t.pod.Status.QOSClass
	dst.ResourceClaimStatuses = t.pod.Status.ResourceClaimStatuses
	if t.super.Spec.NodeName == "" {
		dst.NominatedNodeName = src.NominatedNodeName
	}
	var conditions []corev1.PodCondition
	if err := t.copy(&conditions, &src.Conditions); err != nil {
		return err
	}
	chosen := awaited(t.view, t.pod, t.super)
	for _, c := range conditions {
		if fromNode(c.Type) && (!chosen || c.Type != corev1.PodScheduled) {
			dst.Conditions = append(dst.Conditions, c)
		}
	}
	for _, c := range t.pod.Status.Conditions {
		// Whoever disrupts a pod says so before: the super cluster does of its own disruptions, the tenant of its own.
		own := chosen && c.Type == corev1.PodScheduled || c.Type == corev1.DisruptionTarget && !slices.ContainsFunc(dst.Conditions, func(d corev1.PodCondition) bool { return d.Type == c.Type })
		if !fromNode(c.Type) || own {
			dst.Conditions = append(dst.Conditions, c)
		}
	}
	known := map[string]bool{}
	for _, c := range containers(t.pod) {
		known[c.Name] = true
	}
	for _, list := range []struct{ dst, src *[]corev1.ContainerStatus }{
		{&dst.InitContainerStatuses, &src.InitContainerStatuses},
		{&dst.ContainerStatuses, &src.ContainerStatuses},
		{&dst.EphemeralContainerStatuses, &src.EphemeralContainerStatuses},
	} {
		if err := t.copy(list.dst, list.src); err != nil {
			return err
		}
		*list.dst = slices.DeleteFunc(*list.dst, func(c corev1.ContainerStatus) bool { return !known[c.Name] })
	}
	return t.scrub(&dst.Message, src.Message)
}

// fromNode says that a condition is set by the kubelet, the scheduler or whoever evicts pods. Others belong to the
// controllers of the cluster they are in.
func fromNode(condition corev1.PodConditionType) bool {
	switch condition {
	case corev1.PodScheduled, corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady, corev1.PodReadyToStartContainers,
		corev1.DisruptionTarget, corev1.PodResizePending, corev1.PodResizeInProgress, corev1.AllContainersRestarting:
		return true
	default:
		return false
	}
}

func finishCondition(t *translation, dst, src *corev1.PodCondition) error {
	previous := int64(0)
	if i := slices.IndexFunc(t.pod.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == src.Type }); i >= 0 {
		had := t.pod.Status.Conditions[i]
		previous = had.ObservedGeneration
		if src.Type == corev1.PodScheduled && had.Status == src.Status && src.Status == corev1.ConditionTrue {
			dst.LastTransitionTime = had.LastTransitionTime // the tenant's API server noted it when it bound the pod
		}
	}
	dst.ObservedGeneration = t.generation(src.ObservedGeneration, previous)
	return t.scrub(&dst.Message, src.Message)
}

// finishContainerStatus leaves out mounts that the super cluster's admission added.
func finishContainerStatus(t *translation, dst, src *corev1.ContainerStatus) error {
	if err := t.copy(&dst.VolumeMounts, &src.VolumeMounts); err != nil {
		return err
	}
	dst.VolumeMounts = slices.DeleteFunc(dst.VolumeMounts, func(m corev1.VolumeMountStatus) bool {
		return !slices.ContainsFunc(t.pod.Spec.Volumes, func(volume corev1.Volume) bool { return volume.Name == m.Name })
	})
	return nil
}

// scrub sets a text of the super cluster in the tenant's words.
func (t *translation) scrub(dst *string, text string) error {
	text = t.view.ForTenant(text, t.pod.Namespace, func() []resource.Ref { return References(t.pod) })
	if t.super.UID != "" { // the kubelet names pods by it
		text = strings.ReplaceAll(text, string(t.super.UID), string(t.pod.UID))
	}
	*dst = text
	return nil
}

// generation maps an observed generation of the super pod to the tenant's. Generations differ, so all that can be said
// is whether the newest has been observed; until then the previous one counts, which the API server does not let go.
func (t *translation) generation(observed, previous int64) int64 {
	if observed > 0 && observed >= t.super.Generation && inStep(t.pod, t.super) {
		return t.pod.Generation
	}
	return previous
}

// inStep says whether the super pod has everything that can change in the tenant's.
func inStep(tenant, super *corev1.Pod) bool {
	return sameImages(tenant.Spec.Containers, super.Spec.Containers) &&
		sameImages(tenant.Spec.InitContainers, super.Spec.InitContainers) &&
		len(newEphemeral(tenant, super)) == 0 && !resized(tenant, super)
}

func sameImages(tenant, super []corev1.Container) bool {
	for _, c := range tenant {
		i := slices.IndexFunc(super, func(s corev1.Container) bool { return s.Name == c.Name })
		if i >= 0 && super[i].Image != c.Image {
			return false
		}
	}
	return true
}

// newEphemeral returns the names of the tenant's ephemeral containers that the super pod does not have.
func newEphemeral(tenant, super *corev1.Pod) []string {
	var out []string
	for _, c := range tenant.Spec.EphemeralContainers {
		if !slices.ContainsFunc(super.Spec.EphemeralContainers, func(s corev1.EphemeralContainer) bool { return s.Name == c.Name }) {
			out = append(out, c.Name)
		}
	}
	return out
}

// resized says whether the tenant's resources differ from the super pod's.
func resized(tenant, super *corev1.Pod) bool {
	for _, pair := range resizables(tenant, super) {
		if differ(pair.want.Requests, pair.have.Requests) || differ(pair.want.Limits, pair.have.Limits) {
			return true
		}
	}
	return false
}

// resize sets the resources of a copy of the super pod to the tenant's. What the super cluster added stays.
func resize(tenant, super *corev1.Pod) {
	for _, pair := range resizables(tenant, super) {
		overlay(&pair.have.Requests, pair.want.Requests)
		overlay(&pair.have.Limits, pair.want.Limits)
	}
}

// resizable is one set of resources on both sides.
type resizable struct {
	want, have *corev1.ResourceRequirements
}

func resizables(tenant, super *corev1.Pod) []resizable {
	var out []resizable
	if tenant.Spec.Resources != nil && super.Spec.Resources != nil {
		out = append(out, resizable{tenant.Spec.Resources, super.Spec.Resources})
	}
	for _, lists := range []struct{ tenant, super []corev1.Container }{
		{tenant.Spec.InitContainers, super.Spec.InitContainers},
		{tenant.Spec.Containers, super.Spec.Containers},
	} {
		for i := range lists.tenant {
			j := slices.IndexFunc(lists.super, func(s corev1.Container) bool { return s.Name == lists.tenant[i].Name })
			if j >= 0 {
				out = append(out, resizable{&lists.tenant[i].Resources, &lists.super[j].Resources})
			}
		}
	}
	return out
}

// inPlace lists the resources that can be changed in a running pod.
func inPlace() []corev1.ResourceName {
	return []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory}
}

func differ(want, have corev1.ResourceList) bool {
	for _, name := range inPlace() {
		if quantity, ok := want[name]; ok && !same(quantity, have, name) {
			return true
		}
	}
	return false
}

func overlay(have *corev1.ResourceList, want corev1.ResourceList) {
	for _, name := range inPlace() {
		if quantity, ok := want[name]; ok && !same(quantity, *have, name) {
			if *have == nil {
				*have = corev1.ResourceList{}
			}
			(*have)[name] = quantity.DeepCopy()
		}
	}
}

func same(quantity apiresource.Quantity, list corev1.ResourceList, name corev1.ResourceName) bool {
	existing, ok := list[name]
	return ok && existing.Cmp(quantity) == 0
}
