// Package pods describes how pods are synchronised: specs go down, bindings and status come up. What happens to every
// field is written in one table, which is an allow-list: what is not in it does not reach the super cluster. The package
// is pure, as package resources, which lists its kind, is.
package pods

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	psa "k8s.io/pod-security-admission/api"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/resources/nodes"
)

// reasonWaiting is the reason of the event of a pod that waits, before it is in the super cluster, for something else.
const reasonWaiting = "Waiting"

// retry is when a pod that waits for something is looked at again although no event arrived.
const retry = 2 * time.Second

// kind is what is prepared once for all translations.
type kind struct {
	copiers copiers
	// admit refuses pods that may not run.
	admit func(psa.Level, *corev1.Pod) error
	// hostsImage contains vn-hosts.
	hostsImage string
}

// +kubebuilder:rbac:groups="",resources=pods,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups="",resources=pods/status;pods/resize;pods/ephemeralcontainers,verbs=patch

// Kind returns the description of pods. The image contains vn-hosts, which gives pods with a subdomain the tenant's
// /etc/hosts; it is empty to leave the kubelet's.
func Kind(hostsImage string) resource.Kind {
	return resource.Of(describe(hostsImage))
}

func describe(hostsImage string) resource.Resource[*corev1.Pod] {
	k := &kind{copiers: compile(table()), admit: podSecurity(), hostsImage: hostsImage}
	return resource.Resource[*corev1.Pod]{
		Name:       "pods",
		GVK:        corev1.SchemeGroupVersion.WithKind("Pod"),
		New:        func() *corev1.Pod { return &corev1.Pod{} },
		Skip:       static,
		Needed:     needed,
		Trim:       trim,
		Down:       k.down,
		Prepare:    prepare,
		Notes:      notes,
		Merge:      merge,
		Up:         k.up,
		Unpaired:   unpaired,
		References: References,
		// Containers are asked to stop when the deletion begins.
		DeleteWithOrigin: true,
		NodeRequests:     nodes.Requests,
		AffectedRefs: func(pod *corev1.Pod) []resource.Ref {
			if pod.Spec.NodeName == "" {
				return nil
			}
			return []resource.Ref{{Kind: kindNodes, Name: pod.Spec.NodeName}}
		},
	}
}

// static says that a pod stands for one that a kubelet was given by other means.
func static(pod *corev1.Pod) bool {
	_, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]
	return mirror
}

// needed says whether a pod is to exist in the super cluster: once it may be scheduled, and not again after it ran.
func needed(v resource.View, pod *corev1.Pod) bool {
	if len(pod.Spec.SchedulingGates) > 0 {
		return false
	}
	awaitsScheduler := v.Tenant.Scheduler && pod.Spec.NodeName == ""
	if !terminal(pod) && !started(pod) && !awaitsScheduler {
		return true
	}
	return v.Get(resource.Super, resource.Ref{Kind: "pods", Namespace: pod.Namespace, Name: pod.Name}) != nil
}

func terminal(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// started says that a kubelet has accepted the pod.
func started(pod *corev1.Pod) bool {
	return pod.Spec.NodeName != "" && pod.Status.StartTime != nil
}

// down returns the replica of a tenant's pod: one to be made, or what a running one is to become.
func (k *kind) down(v resource.View, pod *corev1.Pod) (*corev1.Pod, error) {
	if v.Get(resource.Super, resource.Ref{Kind: "pods", Namespace: pod.Namespace, Name: pod.Name}) != nil {
		return k.changeable(v, pod)
	}
	spec, annotations, err := k.translateSpec(v, pod)
	if err != nil {
		return nil, err
	}
	if err := referencesReady(v, pod); err != nil {
		return nil, err
	}
	if err := claimsReady(v, pod); err != nil {
		return nil, err
	}
	spec.EphemeralContainers = nil // they are added to pods that exist
	return withMetadata(v, pod, spec, annotations)
}

// changeable returns what may change in a pod that exists. It refuses nothing and waits for nothing: what was decided when
// the pod was made stays, whatever the same decision would be today.
func (k *kind) changeable(v resource.View, pod *corev1.Pod) (*corev1.Pod, error) {
	t := &translation{copiers: k.copiers, view: v, pod: pod, lenient: true, annotations: map[string]string{}}
	out := corev1.PodSpec{
		ActiveDeadlineSeconds:         pod.Spec.ActiveDeadlineSeconds,
		TerminationGracePeriodSeconds: pod.Spec.TerminationGracePeriodSeconds,
	}
	for _, part := range []struct{ to, from any }{
		{&out.InitContainers, &pod.Spec.InitContainers},
		{&out.Containers, &pod.Spec.Containers},
		{&out.EphemeralContainers, &pod.Spec.EphemeralContainers}, // this and the next for what they show of the pod's metadata
		{&out.Volumes, &pod.Spec.Volumes},
		{&out.Tolerations, &pod.Spec.Tolerations},
	} {
		if err := t.copy(part.to, part.from); err != nil {
			return nil, err
		}
	}
	out.Tolerations = t.tolerations(out.Tolerations)
	return withMetadata(v, pod, out, t.annotations)
}

// withMetadata returns a replica with the spec, with the labels and annotations of the tenant's pod that go down, and with the
// annotations that its containers read.
func withMetadata(v resource.View, pod *corev1.Pod, spec corev1.PodSpec, shown map[string]string) (*corev1.Pod, error) {
	out := &corev1.Pod{Spec: spec}
	out.Labels = podLabels(v, pod.Labels)
	if out.Annotations = v.PassingAnnotations(pod.Annotations); out.Annotations == nil {
		out.Annotations = map[string]string{}
	}
	return out, addShown(v, pod, out, shown)
}

// referencesReady waits for the replicas of what the pod mounts: a kubelet that does not find them tries again much later,
// and tells the tenant. What does not exist in the tenant either is the tenant's business.
func referencesReady(v resource.View, pod *corev1.Pod) error {
	for _, ref := range References(pod) {
		if ref.Namespace != "" && ref.Kind != kindTokens && ref.Kind != kindAccounts && v.Get(resource.Tenant, ref) != nil && v.Get(resource.Super, ref) == nil {
			return resource.Blocked(retry, reasonWaiting, "%s", lacking(v, ref))
		}
	}
	return nil
}

// lacking names, for the tenant, something that a pod refers to and that the super cluster does not have.
func lacking(v resource.View, ref resource.Ref) string {
	what := fmt.Sprintf("%s %q", strings.TrimSuffix(ref.Kind, "s"), ref.Name)
	if v.Get(resource.Tenant, ref) == nil {
		return what + ", which does not exist"
	}
	return what + ", which the underlying cluster does not have yet; if that lasts, events of the " + what + " say why"
}

// podLabels returns the labels that go down: not those that come up. Selectors over pods are translated alike.
func podLabels(v resource.View, in map[string]string) map[string]string {
	out := maps.Clone(in)
	maps.DeleteFunc(out, func(key, _ string) bool { return hasPrefix(key, v.Tenant.Transparent) && !v.OpaqueLabel(key) })
	return v.PodLabels(out)
}

func hasPrefix(key string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(key, prefix) })
}

// merge sets what may change in a pod that exists. Everything else stays as the super cluster has it, including what
// its admission added.
func merge(existing, want *corev1.Pod) {
	mergeImages(existing.Spec.Containers, want.Spec.Containers)
	mergeImages(existing.Spec.InitContainers, want.Spec.InitContainers)
	if deadline := want.Spec.ActiveDeadlineSeconds; deadline != nil &&
		(existing.Spec.ActiveDeadlineSeconds == nil || *deadline < *existing.Spec.ActiveDeadlineSeconds) {
		existing.Spec.ActiveDeadlineSeconds = deadline
	}
	if grace := existing.Spec.TerminationGracePeriodSeconds; grace != nil && *grace < 0 &&
		want.Spec.TerminationGracePeriodSeconds != nil && *want.Spec.TerminationGracePeriodSeconds == 1 {
		existing.Spec.TerminationGracePeriodSeconds = want.Spec.TerminationGracePeriodSeconds
	}
	for _, toleration := range want.Spec.Tolerations {
		i := slices.IndexFunc(existing.Spec.Tolerations, func(t corev1.Toleration) bool { return t.MatchToleration(&toleration) })
		if i < 0 {
			existing.Spec.Tolerations = append(existing.Spec.Tolerations, toleration)
		} else {
			existing.Spec.Tolerations[i].TolerationSeconds = toleration.TolerationSeconds
		}
	}
}

func mergeImages(existing, want []corev1.Container) {
	for i := range existing {
		if j := slices.IndexFunc(want, func(c corev1.Container) bool { return c.Name == existing[i].Name }); j >= 0 {
			existing[i].Image = want[j].Image
		}
	}
}

// trim drops what nobody reads. Of a pod that is in the super cluster that is most of the spec: only its creation needs it.
func trim(pod *corev1.Pod) {
	shareResources(pod)
	if !replica(pod) {
		if started(pod) || terminal(pod) { // it will not be created again
			trimStarted(pod.Spec.InitContainers)
			trimStarted(pod.Spec.Containers)
		}
		return
	}
	in := pod.Spec
	pod.Spec = corev1.PodSpec{
		NodeName: in.NodeName, Overhead: in.Overhead, Tolerations: in.Tolerations, Resources: in.Resources,
		ActiveDeadlineSeconds: in.ActiveDeadlineSeconds, TerminationGracePeriodSeconds: in.TerminationGracePeriodSeconds,
		Containers: trimContainers(in.Containers), InitContainers: trimContainers(in.InitContainers),
	}
	for _, c := range in.EphemeralContainers {
		pod.Spec.EphemeralContainers = append(pod.Spec.EphemeralContainers,
			corev1.EphemeralContainer{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: c.Name}})
	}
}

func trimContainers(in []corev1.Container) []corev1.Container {
	var out []corev1.Container
	for _, c := range in {
		out = append(out, corev1.Container{Name: c.Name, Image: c.Image, Resources: c.Resources, RestartPolicy: c.RestartPolicy})
	}
	return out
}

// trimStarted leaves of containers of the tenant's what may change, what they refer to, and what they show of the pod.
func trimStarted(containers []corev1.Container) {
	for i, c := range containers {
		containers[i] = corev1.Container{
			Name: c.Name, Image: c.Image, Resources: c.Resources, ResizePolicy: c.ResizePolicy, RestartPolicy: c.RestartPolicy, EnvFrom: c.EnvFrom,
		}
		for _, e := range c.Env {
			if e.ValueFrom != nil {
				containers[i].Env = append(containers[i].Env, e)
			}
		}
	}
}

// shareResources makes lists of resources that are equal the same: maps are large, and the status of a pod repeats its spec.
func shareResources(pod *corev1.Pod) {
	var seen []corev1.ResourceList
	share := func(list *corev1.ResourceList) {
		if len(*list) == 0 {
			return
		}
		i := slices.IndexFunc(seen, func(l corev1.ResourceList) bool { return equality.Semantic.DeepEqual(l, *list) })
		if i < 0 {
			seen = append(seen, *list)
			return
		}
		*list = seen[i]
	}
	requirements := func(r *corev1.ResourceRequirements) {
		if r != nil {
			share(&r.Requests)
			share(&r.Limits)
		}
	}
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			requirements(&containers[i].Resources)
		}
	}
	for _, statuses := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for i := range statuses {
			share(&statuses[i].AllocatedResources)
			requirements(statuses[i].Resources)
		}
	}
}

// replica says whether a pod is one of the super cluster's, by its namespace: which side it comes from is not told.
func replica(pod *corev1.Pod) bool {
	tenant, namespace := pod.Labels[names.LabelTenant], pod.Annotations[names.AnnotationNamespace]
	return tenant != "" && pod.Namespace == names.SuperNamespace(names.TenantID(tenant), namespace)
}

// References lists what a tenant's pod needs to run.
func References(pod *corev1.Pod) []resource.Ref {
	found := map[resource.Ref]bool{}
	add := func(kind, name string) {
		if name != "" {
			found[resource.Ref{Kind: kind, Namespace: pod.Namespace, Name: name}] = true
		}
	}
	if pod.Spec.NodeName == "" && !terminal(pod) {
		found[resource.Ref{Kind: kindNodes}] = true
	}
	add(kindAccounts, pod.Spec.ServiceAccountName)
	if len(tokens(pod)) > 0 {
		add(kindTokens, TokenSecret(pod))
	}
	if class := pod.Spec.RuntimeClassName; class != nil && *class != "" { // one that is refused may be offered later
		found[resource.Ref{Kind: kindRuntimeClasses, Name: *class}] = true
	}
	for _, claim := range Claims(pod) {
		add(kindClaims, claim)
	}
	for i := range pod.Spec.Volumes {
		add(kindVolumeClaims, volumeClaim(pod, &pod.Spec.Volumes[i]))
	}
	for _, secret := range pod.Spec.ImagePullSecrets {
		add("secrets", secret.Name)
	}
	for _, volume := range pod.Spec.Volumes {
		switch {
		case volume.ConfigMap != nil:
			add("configmaps", volume.ConfigMap.Name)
		case volume.Secret != nil:
			add("secrets", volume.Secret.SecretName)
		case volume.Projected != nil:
			for _, source := range volume.Projected.Sources {
				if source.ConfigMap != nil {
					add("configmaps", source.ConfigMap.Name)
				}
				if source.Secret != nil {
					add("secrets", source.Secret.Name)
				}
			}
		}
	}
	for _, container := range containers(pod) {
		environmentReferences(container, add)
	}
	return slices.SortedFunc(maps.Keys(found), func(a, b resource.Ref) int {
		return strings.Compare(a.Kind+"/"+a.Name, b.Kind+"/"+b.Name)
	})
}

// environmentReferences adds what the environment of a container is taken from.
func environmentReferences(container corev1.Container, add func(kind, name string)) {
	for _, from := range container.EnvFrom {
		if from.ConfigMapRef != nil {
			add("configmaps", from.ConfigMapRef.Name)
		}
		if from.SecretRef != nil {
			add("secrets", from.SecretRef.Name)
		}
	}
	for _, env := range container.Env {
		if env.ValueFrom == nil {
			continue
		}
		if env.ValueFrom.ConfigMapKeyRef != nil {
			add("configmaps", env.ValueFrom.ConfigMapKeyRef.Name)
		}
		if env.ValueFrom.SecretKeyRef != nil {
			add("secrets", env.ValueFrom.SecretKeyRef.Name)
		}
	}
}

// containers returns all containers of a pod, whatever they are for.
func containers(pod *corev1.Pod) []corev1.Container {
	out := slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers)
	for i := range pod.Spec.EphemeralContainers {
		out = append(out, corev1.Container(pod.Spec.EphemeralContainers[i].EphemeralContainerCommon))
	}
	return out
}
