package pods

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/resources/nodes"
)

// kindNodes is the kind of virtual nodes. A reference to it without a name means all of them.
const kindNodes = "nodes"

// retryNodes is when a pod that no node is good for is looked at again although no node changed.
const retryNodes = 30 * time.Second

// Reasons that a scheduler gives for a node, in the order in which it looks for them, and the event it tells them with.
const (
	reasonCordoned   = "node(s) were unschedulable"
	reasonTaint      = "node(s) had untolerated taint(s)"
	reasonAffinity   = "node(s) didn't match Pod's node affinity/selector"
	failedScheduling = "FailedScheduling"
)

// placement is what the super cluster's scheduler has to be told about nodes because only the tenant's cluster shows it:
// labels, taints and cordons that the tenant put on its virtual nodes. It is empty when nothing of that matters to the
// pod.
type placement struct {
	// only are the nodes that the pod's own selectors choose; nil leaves them to the super cluster.
	only []string
	// not are nodes that the tenant keeps the pod off.
	not []string
	// prefer replaces the pod's preferences; nil leaves them as they are.
	prefer []corev1.PreferredSchedulingTerm
	// none says why no node is good for the pod.
	none string
}

// candidate is a virtual node that stands for a real one.
type candidate struct {
	*corev1.Node
	own nodes.Own
}

// place decides about a pod that has no node yet.
func place(v resource.View, pod *corev1.Pod) placement {
	var p placement
	required, preferred := labelKeys(pod)
	var repelled, labelled, liked bool
	v.EachCustomized(kindNodes, func(o resource.Object) {
		c, ok := stands(v, o)
		if !ok {
			return
		}
		repelled = repelled || c.repels(pod) != ""
		for _, key := range c.own.Labels {
			labelled, liked = labelled || required[key], liked || preferred[key]
		}
	})
	if !repelled && !labelled && !liked {
		return p
	}
	all := candidates(v)
	if liked {
		p.prefer = preferences(pod, all)
	}
	if !repelled && !labelled {
		return p
	}
	affinity := nodeaffinity.GetRequiredNodeAffinity(pod)
	counts := map[string]int{}
	var good []string
	for _, c := range all {
		reason := c.repels(pod)
		if reason != "" {
			p.not = append(p.not, c.Name)
		} else if match, err := affinity.Match(c.Node); err != nil || !match {
			reason = reasonAffinity
		}
		if reason == "" {
			good = append(good, c.Name)
			continue
		}
		counts[reason]++
	}
	if len(good) == 0 {
		return placement{none: unavailable(len(all), counts)}
	}
	if labelled {
		p.only, p.not = good, nil
	}
	return p
}

// candidates returns the virtual nodes that stand for real ones, by name.
func candidates(v resource.View) []candidate {
	var out []candidate
	v.Each(resource.Tenant, kindNodes, func(o resource.Object) {
		if c, ok := stands(v, o); ok {
			out = append(out, c)
		}
	})
	slices.SortFunc(out, func(a, b candidate) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func stands(v resource.View, o resource.Object) (candidate, bool) {
	n, ok := o.(*corev1.Node)
	if !ok {
		return candidate{}, false
	}
	machine := v.Get(resource.Super, resource.Ref{Kind: kindNodes, Name: n.Name})
	if machine == nil || n.Annotations[names.AnnotationUID] != string(machine.GetUID()) {
		return candidate{}, false
	}
	return candidate{n, nodes.OwnOf(n)}, true
}

// repels says why the tenant keeps the pod off the node, empty if it does not. What the operator of the node did to it
// is left to the super cluster: it comes and goes.
func (c candidate) repels(pod *corev1.Pod) string {
	if c.own.Cordoned && !tolerated(pod, corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}) {
		return reasonCordoned
	}
	for _, taint := range c.own.Taints {
		if taint.Effect != corev1.TaintEffectPreferNoSchedule && !tolerated(pod, taint) {
			return reasonTaint
		}
	}
	return ""
}

func tolerated(pod *corev1.Pod, taint corev1.Taint) bool {
	return slices.ContainsFunc(pod.Spec.Tolerations, func(t corev1.Toleration) bool {
		return t.ToleratesTaint(klog.Logger{}, &taint, false)
	})
}

// labelKeys returns the keys of node labels that the pod insists on, and those that it prefers.
func labelKeys(pod *corev1.Pod) (required, preferred map[string]bool) {
	required, preferred = map[string]bool{}, map[string]bool{}
	for key := range pod.Spec.NodeSelector {
		required[key] = true
	}
	if pod.Spec.Affinity == nil || pod.Spec.Affinity.NodeAffinity == nil {
		return required, preferred
	}
	affinity := pod.Spec.Affinity.NodeAffinity
	if selector := affinity.RequiredDuringSchedulingIgnoredDuringExecution; selector != nil {
		for _, term := range selector.NodeSelectorTerms {
			addKeys(required, term)
		}
	}
	for _, term := range affinity.PreferredDuringSchedulingIgnoredDuringExecution {
		addKeys(preferred, term.Preference)
	}
	return required, preferred
}

func addKeys(keys map[string]bool, term corev1.NodeSelectorTerm) {
	for _, r := range term.MatchExpressions {
		keys[r.Key] = true
	}
}

// preferences returns the pod's preferences as preferences of nodes by name.
func preferences(pod *corev1.Pod, all []candidate) []corev1.PreferredSchedulingTerm {
	out := []corev1.PreferredSchedulingTerm{}
	for _, term := range pod.Spec.Affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution {
		selector, err := nodeaffinity.NewNodeSelector(&corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{term.Preference}})
		if err != nil {
			continue // matches nothing
		}
		for _, c := range all {
			if selector.Match(c.Node) {
				out = append(out, corev1.PreferredSchedulingTerm{Weight: term.Weight, Preference: corev1.NodeSelectorTerm{
					MatchFields: []corev1.NodeSelectorRequirement{named(corev1.NodeSelectorOpIn, c.Name)},
				}})
			}
		}
	}
	return out
}

// unavailable is the message of a scheduler that found no node.
func unavailable(total int, counts map[string]int) string {
	if total == 0 {
		return "no nodes available to schedule pods"
	}
	var reasons []string
	for reason, count := range counts {
		reasons = append(reasons, fmt.Sprintf("%d %s", count, reason))
	}
	slices.Sort(reasons)
	return fmt.Sprintf("0/%d nodes are available: %s.", total, strings.Join(reasons, ", "))
}

// digest tells placements apart. That of an empty one is empty.
func (p placement) digest() string {
	if p.only == nil && p.not == nil && p.prefer == nil && p.none == "" {
		return ""
	}
	return names.Hash(fmt.Sprintf("%q %q %v", p.only, p.not, p.prefer), p.none)
}

// constrain sets what the super cluster's scheduler has to respect.
func (p placement) constrain(spec *corev1.PodSpec) {
	if p.prefer != nil {
		spec.Affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution = p.prefer
	}
	if p.only == nil {
		for _, node := range p.not {
			requireField(spec, named(corev1.NodeSelectorOpNotIn, node))
		}
		return
	}
	// The tenant's cluster has evaluated all of the pod's selectors, also those that the super cluster could.
	spec.NodeSelector = nil
	selector := &corev1.NodeSelector{}
	for _, node := range p.only {
		selector.NodeSelectorTerms = append(selector.NodeSelectorTerms, corev1.NodeSelectorTerm{
			MatchFields: []corev1.NodeSelectorRequirement{named(corev1.NodeSelectorOpIn, node)},
		})
	}
	nodeAffinity(spec).RequiredDuringSchedulingIgnoredDuringExecution = selector
}

// placeSpec restricts the replica to nodes.
func (t *translation) placeSpec(dst, src *corev1.PodSpec) error {
	if src.NodeName == "" {
		p := place(t.view, t.pod)
		if p.none != "" {
			return unplaceable(p.none)
		}
		p.constrain(dst)
		if p.only == nil {
			t.confine(dst)
		}
		return nil
	}
	if t.view.Tenant.Scheduler {
		t.scheduled(dst, src.NodeName)
		return nil
	}
	required, _ := labelKeys(t.pod)
	t.view.EachCustomized(kindNodes, func(o resource.Object) {
		if c, ok := stands(t.view, o); ok && slices.ContainsFunc(c.own.Labels, func(key string) bool { return required[key] }) {
			dst.NodeSelector = nil
			nodeAffinity(dst).RequiredDuringSchedulingIgnoredDuringExecution = nil
		}
	})
	requireField(dst, named(corev1.NodeSelectorOpIn, src.NodeName))
	t.confine(dst)
	return nil
}

// unplaceable is the Wait of a pod for which there is no node. The tenant is told as a scheduler tells it, see unplaced.
func unplaceable(none string) error {
	return &resource.Wait{Reason: "a node for the pod: " + none, After: retryNodes, Told: &resource.Reject{Reason: failedScheduling, Message: none}}
}

// confine keeps the replica on the nodes that the tenant may use.
func (t *translation) confine(dst *corev1.PodSpec) {
	if selector := t.view.Tenant.Nodes.Selector; len(selector) > 0 {
		require(dst, corev1.NodeSelectorTerm{MatchExpressions: selector})
	}
}

// named requires a node by its name.
func named(operator corev1.NodeSelectorOperator, node string) corev1.NodeSelectorRequirement {
	return corev1.NodeSelectorRequirement{Key: metav1.ObjectNameField, Operator: operator, Values: []string{node}}
}

func nodeAffinity(spec *corev1.PodSpec) *corev1.NodeAffinity {
	if spec.Affinity == nil {
		spec.Affinity = &corev1.Affinity{}
	}
	if spec.Affinity.NodeAffinity == nil {
		spec.Affinity.NodeAffinity = &corev1.NodeAffinity{}
	}
	return spec.Affinity.NodeAffinity
}

// requireField adds a requirement about the node's fields to whatever the pod requires.
func requireField(spec *corev1.PodSpec, field corev1.NodeSelectorRequirement) {
	require(spec, corev1.NodeSelectorTerm{MatchFields: []corev1.NodeSelectorRequirement{field}})
}

// require adds requirements to whatever the pod requires of a node.
func require(spec *corev1.PodSpec, more corev1.NodeSelectorTerm) {
	required := &nodeAffinity(spec).RequiredDuringSchedulingIgnoredDuringExecution
	if *required == nil {
		*required = &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{more}}
		return
	}
	for i := range (*required).NodeSelectorTerms {
		term := &(*required).NodeSelectorTerms[i]
		if len(term.MatchExpressions) > 0 || len(term.MatchFields) > 0 { // an empty term matches no node, and must not begin to
			term.MatchExpressions = append(term.MatchExpressions, more.MatchExpressions...)
			term.MatchFields = append(term.MatchFields, more.MatchFields...)
		}
	}
}

// notes returns what is written on a new replica, so that a later decision about its nodes can be told from this one.
func notes(v resource.View, pod *corev1.Pod) map[string]string {
	if pod.Spec.NodeName != "" {
		return nil
	}
	if digest := place(v, pod).digest(); digest != "" {
		return map[string]string{names.AnnotationPlacement: digest}
	}
	return nil
}

// outdated says that a super pod still waits for a node, and that the choice of nodes has changed since it was made.
func outdated(v resource.View, tenant, super *corev1.Pod) bool {
	if tenant.Spec.NodeName != "" || super.Spec.NodeName != "" || tenant.DeletionTimestamp != nil || terminal(tenant) {
		return false
	}
	return v.Tenant.Scheduler || super.Annotations[names.AnnotationPlacement] != place(v, tenant).digest()
}

// withdraw removes a super pod unless it got a node in the meantime.
func withdraw(super *corev1.Pod) []resource.Op {
	ops := discard(super)
	for i := range ops {
		ops[i].Exact = true
	}
	return ops
}

// unplaced tells the tenant, as a scheduler does, that there is no node for a pod, or that it has not all claims.
func unplaced(v resource.View, pod *corev1.Pod) ([]resource.Op, error) {
	if v.Tenant.Scheduler || pod.DeletionTimestamp != nil || pod.Spec.NodeName != "" || len(pod.Spec.SchedulingGates) > 0 || terminal(pod) {
		return nil, nil
	}
	none := place(v, pod).none
	if none == "" && !young(v, pod) {
		none = unclaimed(v, pod)
	}
	if none == "" {
		return nil, nil
	}
	condition := corev1.PodCondition{
		Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: none,
		ObservedGeneration: pod.Generation, LastTransitionTime: metav1.NewTime(v.Now),
	}
	status := *pod.Status.DeepCopy()
	i := slices.IndexFunc(status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodScheduled })
	if i < 0 {
		status.Conditions = append(status.Conditions, condition)
	} else {
		before := status.Conditions[i]
		if before.Status == condition.Status {
			condition.LastTransitionTime = before.LastTransitionTime
		}
		if before == condition {
			return nil, nil
		}
		status.Conditions[i] = condition
	}
	ops, err := patchStatus(resource.Tenant, pod, status)
	if err != nil {
		return nil, err
	}
	return append(ops, resource.Tell(v, pod, corev1.SchemeGroupVersion.WithKind("Pod"), corev1.EventTypeWarning, failedScheduling, none)), nil
}
