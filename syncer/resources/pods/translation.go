package pods

import (
	"errors"
	"fmt"
	"reflect"

	corev1 "k8s.io/api/core/v1"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// translation is one run of the table over one pod.
type translation struct {
	copiers copiers
	view    resource.View
	// pod is the tenant's.
	pod *corev1.Pod
	// super is the super cluster's, when a status is translated.
	super *corev1.Pod
	// lenient treats what is refused as dropped, because the object exists already.
	lenient bool
	// hostsImage contains vn-hosts; empty to leave the kubelet's hosts files.
	hostsImage string
	// annotations are those that the replica needs besides the tenant's.
	annotations map[string]string
	// wait is the first thing that is missing. It is told after refusals, which are final.
	wait error
}

// copy fills dst with what the table lets through from src. Both are pointers to one type.
func (t *translation) copy(dst, src any) error {
	to, from := reflect.ValueOf(dst), reflect.ValueOf(src)
	f, ok := t.copiers[from.Type().Elem()]
	if !ok || to.Type() != from.Type() {
		return fmt.Errorf("copying %T into %T: no decisions about it", src, dst)
	}
	return f(t, to.Elem(), from.Elem())
}

// waitFor notes that something is missing.
func (t *translation) waitFor(format string, args ...any) {
	if t.wait == nil {
		t.wait = resource.Blocked(retry, reasonWaiting, format, args...)
	}
}

// translateSpec returns the spec of a new replica and the annotations that it refers to.
func (k *kind) translateSpec(v resource.View, pod *corev1.Pod) (corev1.PodSpec, map[string]string, error) {
	var out corev1.PodSpec
	annotations, err := k.translate(v, pod, "", &out, &pod.Spec)
	return out, annotations, err
}

// translateEphemeral returns the ephemeral containers of a replica that exists. Only they can be refused: the rest of the pod
// was let through when it was made.
func (k *kind) translateEphemeral(v resource.View, pod *corev1.Pod) ([]corev1.EphemeralContainer, error) {
	only := *pod
	only.Spec.Containers, only.Spec.InitContainers, only.Spec.Volumes = nil, nil, nil
	var out []corev1.EphemeralContainer
	_, err := k.translate(v, &only, "ephemeralContainers", &out, &only.Spec.EphemeralContainers)
	return out, err
}

// translate fills dst with what the tenant's level and the table let through from src, the part of the pod's spec at the path,
// and returns the annotations that it refers to.
func (k *kind) translate(v resource.View, pod *corev1.Pod, path string, dst, src any) (map[string]string, error) {
	if err := k.admit(v.Tenant.PodSecurity, pod); err != nil {
		return nil, err
	}
	t := &translation{copiers: k.copiers, view: v, pod: pod, hostsImage: k.hostsImage, annotations: map[string]string{}}
	err := within(path, t.copy(dst, src))
	var r *refusal
	switch {
	case errors.As(err, &r):
		return nil, resource.Rejected("Unsupported", "spec.%s: %s", r.path, r.why)
	case err != nil:
		return nil, err
	}
	return t.annotations, t.wait
}
