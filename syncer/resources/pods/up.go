package pods

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// unpaired returns what follows for a tenant's pod whose super pod is not there, or not there any more.
func unpaired(v resource.View, p resource.Pair[*corev1.Pod]) ([]resource.Op, error) {
	tenant, super := p.Tenant, p.Super
	switch {
	case tenant == nil || static(tenant):
		return nil, nil
	case super == nil:
		if ops, err := gone(tenant); len(ops) > 0 || err != nil {
			return ops, err
		}
		return unplaced(v, tenant)
	case tenant.DeletionTimestamp == nil || super.Labels[names.LabelTenant] == string(v.Tenant.ID):
		return nil, nil // a predecessor's goes first
	case super.Labels[names.LabelTenant] == "" && super.Annotations[names.AnnotationUID] == string(tenant.UID):
		return nil, nil // it gets its label back first
	default: // somebody else's stands there
		return gone(tenant)
	}
}

// up returns what follows from the pair besides the replica itself.
func (k *kind) up(v resource.View, p resource.Pair[*corev1.Pod]) ([]resource.Op, error) {
	tenant, super := p.Tenant, p.Super
	switch {
	case static(tenant):
		return nil, nil
	case tenant.Spec.NodeName != "" && super.Spec.NodeName != "" && tenant.Spec.NodeName != super.Spec.NodeName:
		return discard(super), nil // it is made again with the node that the tenant chose as a requirement
	case outdated(v, tenant, super):
		return withdraw(super), nil
	case terminal(tenant) && !terminal(super) && tenant.DeletionTimestamp == nil:
		return discard(super), nil // somebody in the tenant ended it
	}
	ops, rejection := rejected(v, tenant, super)
	if len(ops) > 0 {
		return ops, rejection
	}
	report := k.report
	if tenant.Spec.NodeName == "" && super.Spec.NodeName != "" && tenant.DeletionTimestamp == nil {
		ops = append(ops, resource.Op{Side: resource.Tenant, Verb: resource.Bind, Object: tenant, Node: super.Spec.NodeName, Why: resource.Bound})
		if super.Status.StartTime == nil { // the binding says all that there is to say; its event brings the key back
			report = func(resource.View, *corev1.Pod, *corev1.Pod) ([]resource.Op, error) { return nil, nil }
		}
	}
	// What the super cluster may refuse comes last, so that it keeps nothing else from happening.
	for _, step := range []func(resource.View, *corev1.Pod, *corev1.Pod) ([]resource.Op, error){
		renew, report, remove, transparent, readinessGates, k.change,
	} {
		more, err := step(v, tenant, super)
		ops = append(ops, more...)
		if err != nil {
			return ops, err
		}
	}
	return ops, rejection
}

// over says that nothing will be done with the pod any more.
func over(tenant, super *corev1.Pod) bool {
	return tenant.DeletionTimestamp != nil || super.DeletionTimestamp != nil || terminal(super)
}

// gone ends a pod whose super pod does not exist any more. One that ran does not run again: its controller replaces it.
func gone(tenant *corev1.Pod) ([]resource.Op, error) {
	now := int64(0)
	remove := resource.Op{Side: resource.Tenant, Verb: resource.Delete, Object: tenant, Grace: &now}
	switch {
	case tenant.DeletionTimestamp != nil:
		if grace := tenant.DeletionGracePeriodSeconds; grace != nil && *grace == 0 {
			return nil, nil // what keeps it is a finalizer
		}
		remove.Why = resource.Deleted
	case started(tenant) && !terminal(tenant):
		remove.Why, remove.Absent = resource.Vanished, true
	default:
		return nil, nil
	}
	if len(tenant.Finalizers) == 0 || terminal(tenant) {
		return []resource.Op{remove}, nil
	}
	// Whoever holds the finalizer, a Job for instance, waits for the end of the pod.
	status := *tenant.Status.DeepCopy()
	status.Phase, status.Reason, status.Message = corev1.PodFailed, resource.Vanished, "The pod does not exist on its node any more."
	end, err := patchStatus(resource.Tenant, tenant, status)
	return append(end, remove), err
}

// discard removes a super pod that does not do what the tenant's pod does.
func discard(super *corev1.Pod) []resource.Op {
	if super.DeletionTimestamp != nil {
		return nil
	}
	return []resource.Op{{Side: resource.Super, Verb: resource.Delete, Object: super, Why: resource.Superseded}}
}

// change brings down what has its own way of changing: ephemeral containers and resources.
func (k *kind) change(v resource.View, tenant, super *corev1.Pod) ([]resource.Op, error) {
	if over(tenant, super) {
		return nil, nil
	}
	var ops []resource.Op
	add := func(verb resource.Verb, to *corev1.Pod) error {
		patch, err := resource.Diff(super, to, resource.SameObject)
		if err == nil && patch != nil {
			ops = append(ops, resource.Op{Side: resource.Super, Verb: verb, Object: super, Patch: patch, Why: resource.Drifted})
		}
		return err
	}
	if resized(tenant, super) {
		to := super.DeepCopy()
		resize(tenant, to)
		if err := add(resource.PatchResize, to); err != nil {
			return ops, err
		}
	}
	if missing := newEphemeral(tenant, super); len(missing) > 0 {
		allowed, err := k.translateEphemeral(v, tenant)
		if err != nil {
			return ops, err
		}
		to := super.DeepCopy()
		for _, c := range allowed {
			if slices.Contains(missing, c.Name) {
				to.Spec.EphemeralContainers = append(to.Spec.EphemeralContainers, c)
			}
		}
		if err := add(resource.PatchEphemeral, to); err != nil {
			return ops, err
		}
	}
	return ops, nil
}

// readinessGates brings down the conditions that the tenant's controllers set for readiness gates, so that the kubelet
// computes the readiness of the pod.
func readinessGates(_ resource.View, tenant, super *corev1.Pod) ([]resource.Op, error) {
	if len(tenant.Spec.ReadinessGates) == 0 {
		return nil, nil
	}
	gate := func(c corev1.PodCondition) bool {
		return !fromNode(c.Type) && slices.Contains(tenant.Spec.ReadinessGates, corev1.PodReadinessGate{ConditionType: c.Type})
	}
	status := *super.Status.DeepCopy()
	status.Conditions = slices.DeleteFunc(status.Conditions, gate)
	for _, c := range tenant.Status.Conditions {
		if gate(c) {
			c.ObservedGeneration = 0 // the tenant's generation means nothing here
			if i := slices.IndexFunc(super.Status.Conditions, func(s corev1.PodCondition) bool { return s.Type == c.Type }); i >= 0 {
				c.ObservedGeneration = super.Status.Conditions[i].ObservedGeneration
			}
			status.Conditions = append(status.Conditions, c)
		}
	}
	if sameConditions(super.Status.Conditions, status.Conditions) {
		return nil, nil
	}
	return patchStatus(resource.Super, super, status)
}

// sameConditions compares without regard to order, which means nothing and is not ours.
func sameConditions(a, b []corev1.PodCondition) bool {
	if len(a) != len(b) {
		return false
	}
	for _, c := range a {
		if !slices.ContainsFunc(b, func(d corev1.PodCondition) bool { return equality.Semantic.DeepEqual(c, d) }) {
			return false
		}
	}
	return true
}

// transparent brings up the labels and annotations that the admin lets tenants see.
func transparent(v resource.View, tenant, super *corev1.Pod) ([]resource.Op, error) {
	if len(v.Tenant.Transparent) == 0 {
		return nil, nil
	}
	seen := func(in map[string]string) map[string]string {
		out := maps.Clone(in)
		maps.DeleteFunc(out, func(key, _ string) bool { return ours(key) || !hasPrefix(key, v.Tenant.Transparent) })
		return out
	}
	from := &corev1.Pod{ObjectMeta: identity(tenant)}
	to := from.DeepCopy()
	from.Labels, from.Annotations = tenant.Labels, tenant.Annotations
	to.Labels, to.Annotations = merged(tenant.Labels, seen(super.Labels)), merged(tenant.Annotations, seen(super.Annotations))
	patch, err := resource.Diff(from, to, resource.SameObject)
	if err != nil || patch == nil {
		return nil, err
	}
	return []resource.Op{{Side: resource.Tenant, Verb: resource.Patch, Object: tenant, Patch: patch, Why: resource.Drifted}}, nil
}

func merged(a, b map[string]string) map[string]string {
	if len(b) == 0 {
		return a
	}
	out := make(map[string]string, len(a)+len(b))
	maps.Copy(out, a)
	maps.Copy(out, b)
	return out
}

// report brings up the status.
func (k *kind) report(v resource.View, tenant, super *corev1.Pod) ([]resource.Op, error) {
	status, err := k.translateStatus(v, tenant, super)
	if err != nil {
		return nil, err
	}
	if sameConditions(tenant.Status.Conditions, status.Conditions) {
		status.Conditions = tenant.Status.Conditions
	}
	if equality.Semantic.DeepEqual(tenant.Status, status) {
		return nil, nil
	}
	return patchStatus(resource.Tenant, tenant, status)
}

// patchStatus returns the operation that gives a pod another status, if it is another.
func patchStatus(side resource.Side, pod *corev1.Pod, status corev1.PodStatus) ([]resource.Op, error) {
	// Only what differs matters to a patch, and specs are large.
	from := &corev1.Pod{ObjectMeta: identity(pod), Status: pod.Status}
	to := &corev1.Pod{ObjectMeta: identity(pod), Status: status}
	patch, err := resource.Diff(from, to, resource.SameObject)
	if err != nil || patch == nil {
		return nil, err
	}
	return []resource.Op{{Side: side, Verb: resource.PatchStatus, Object: pod, Patch: patch, Why: resource.Status}}, nil
}

// identity is the metadata that a patch needs.
func identity(pod *corev1.Pod) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion}
}

// remove carries a deletion to the other side: of a super pod that somebody else deletes, up; a shorter grace period,
// down.
func remove(_ resource.View, tenant, super *corev1.Pod) ([]resource.Op, error) {
	if super.DeletionTimestamp == nil {
		return nil, nil
	}
	if tenant.DeletionTimestamp == nil {
		if terminal(tenant) || terminal(super) {
			return nil, nil // it is over anyway, and the tenant may still want to see how it ended
		}
		return []resource.Op{{Side: resource.Tenant, Verb: resource.Delete, Object: tenant, Grace: clone(super.DeletionGracePeriodSeconds), Why: resource.Vanished}}, nil
	}
	asked, given := tenant.DeletionGracePeriodSeconds, super.DeletionGracePeriodSeconds
	if asked == nil || given == nil || *asked >= *given {
		return nil, nil
	}
	return []resource.Op{{Side: resource.Super, Verb: resource.Delete, Object: super, Grace: clone(asked), Why: resource.Deleted}}, nil
}
