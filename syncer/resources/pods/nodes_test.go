package pods

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// putNode adds a real node with the label os=linux, and its virtual node, which the tenant changed.
func (w *world) putNode(name string, change ...func(*corev1.Node)) {
	w.put(resource.Super, "nodes", "", name, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("real-" + name), Labels: map[string]string{"os": "linux"}}})
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name: name, UID: types.UID("virtual-" + name), Labels: map[string]string{"os": "linux"},
		Annotations: map[string]string{names.AnnotationUID: "real-" + name, names.AnnotationKeys: "l:os"},
	}}
	for _, c := range change {
		c(n)
	}
	w.put(resource.Tenant, "nodes", "", name, n)
}

func labelled(key, value string) func(*corev1.Node) {
	return func(n *corev1.Node) { n.Labels[key] = value }
}

func tainted(key string, effect corev1.TaintEffect) func(*corev1.Node) {
	return func(n *corev1.Node) { n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: key, Effect: effect}) }
}

func cordoned(n *corev1.Node) { n.Spec.Unschedulable = true }

// terms writes a required node affinity in short.
func terms(spec corev1.PodSpec) []string {
	if spec.Affinity == nil || spec.Affinity.NodeAffinity == nil || spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return nil
	}
	var out []string
	for _, term := range spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
		out = append(out, short(term))
	}
	return out
}

func short(term corev1.NodeSelectorTerm) string {
	var parts []string
	for _, r := range append(term.MatchExpressions, term.MatchFields...) {
		parts = append(parts, fmt.Sprint(r.Key, " ", r.Operator, " ", strings.Join(r.Values, ",")))
	}
	return strings.Join(parts, " & ")
}

func TestTenantsViewOfNodesDecides(t *testing.T) {
	selector := func(key, value string) func(*corev1.Pod) {
		return spec(func(s *corev1.PodSpec) { s.NodeSelector = map[string]string{key: value} })
	}
	requires := func(in ...corev1.NodeSelectorTerm) func(*corev1.Pod) {
		return spec(func(s *corev1.PodSpec) {
			nodeAffinity(s).RequiredDuringSchedulingIgnoredDuringExecution = &corev1.NodeSelector{NodeSelectorTerms: in}
		})
	}
	expression := func(key string, operator corev1.NodeSelectorOperator, values ...string) corev1.NodeSelectorTerm {
		return corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: key, Operator: operator, Values: values}}}
	}
	field := func(node string) corev1.NodeSelectorTerm {
		return corev1.NodeSelectorTerm{MatchFields: []corev1.NodeSelectorRequirement{named(corev1.NodeSelectorOpIn, node)}}
	}
	tolerates := func(key string) func(*corev1.Pod) {
		return spec(func(s *corev1.PodSpec) {
			s.Tolerations = append(s.Tolerations, corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists})
		})
	}
	type change = func(*corev1.Node)
	for name, tc := range map[string]struct {
		a, b, c  []change
		pod      []func(*corev1.Pod)
		selector map[string]string
		terms    []string
		none     string
	}{
		"NothingOfTheTenants": {pod: []func(*corev1.Pod){selector("os", "linux")}, selector: map[string]string{"os": "linux"}},
		"OtherLabel":          {a: []change{labelled("color", "blue")}, pod: []func(*corev1.Pod){selector("os", "linux")}, selector: map[string]string{"os": "linux"}},
		"Selector": {a: []change{labelled("color", "blue")}, c: []change{labelled("color", "blue")}, pod: []func(*corev1.Pod){selector("color", "blue")},
			terms: []string{"metadata.name In a", "metadata.name In c"}},
		"SelectorMatchesNone": {a: []change{labelled("color", "blue")}, pod: []func(*corev1.Pod){selector("color", "green")},
			none: "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector."},
		"NegatedAffinity": {a: []change{labelled("color", "blue")}, pod: []func(*corev1.Pod){requires(expression("color", corev1.NodeSelectorOpDoesNotExist))},
			terms: []string{"metadata.name In b", "metadata.name In c"}},
		"DaemonPod": {a: []change{labelled("color", "blue")}, b: []change{labelled("color", "blue")}, pod: []func(*corev1.Pod){selector("color", "blue"), requires(field("b"))},
			terms: []string{"metadata.name In b"}},
		"Taint":       {b: []change{tainted("mine", corev1.TaintEffectNoSchedule)}, terms: []string{"metadata.name NotIn b"}},
		"SoftTaint":   {b: []change{tainted("mine", corev1.TaintEffectPreferNoSchedule)}},
		"Tolerated":   {b: []change{tainted("mine", corev1.TaintEffectNoExecute)}, pod: []func(*corev1.Pod){tolerates("mine")}},
		"ToleratesIt": {b: []change{cordoned}, pod: []func(*corev1.Pod){tolerates(corev1.TaintNodeUnschedulable)}},
		"CordonsAndTaintsKeepTheSelector": {a: []change{cordoned}, b: []change{tainted("mine", corev1.TaintEffectNoExecute)},
			pod:      []func(*corev1.Pod){selector("os", "linux"), requires(expression("os", corev1.NodeSelectorOpExists), corev1.NodeSelectorTerm{}, field("c"))},
			selector: map[string]string{"os": "linux"},
			terms:    []string{"os Exists  & metadata.name NotIn a & metadata.name NotIn b", "", "metadata.name In c & metadata.name NotIn a & metadata.name NotIn b"}},
		"AllKeptOff": {a: []change{cordoned}, b: []change{tainted("mine", corev1.TaintEffectNoSchedule)}, c: []change{tainted("mine", corev1.TaintEffectNoSchedule)},
			none: "0/3 nodes are available: 1 node(s) were unschedulable, 2 node(s) had untolerated taint(s)."},
		"DaemonPodOnTaintedNode": {b: []change{tainted("mine", corev1.TaintEffectNoSchedule)}, pod: []func(*corev1.Pod){requires(field("b"))},
			none: "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 node(s) didn't match Pod's node affinity/selector."},
		"SelectorAndCordon": {a: []change{labelled("color", "blue"), cordoned}, b: []change{labelled("color", "blue")}, pod: []func(*corev1.Pod){selector("color", "blue")},
			terms: []string{"metadata.name In b"}},
		"NodeChosenInAdvance": {a: []change{labelled("color", "blue"), cordoned}, pod: []func(*corev1.Pod){selector("color", "blue"), spec(func(s *corev1.PodSpec) { s.NodeName = "a" })},
			terms: []string{"metadata.name In a"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			w.putNode("a", tc.a...)
			w.putNode("b", tc.b...)
			w.putNode("c", tc.c...)
			w.put(resource.Tenant, "nodes", "", "fake", &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "fake", Labels: map[string]string{"color": "blue"}}})
			tenant := pod(tc.pod...)
			got, err := down(t, w, tenant)
			if tc.none != "" {
				unschedulable(t, w, tenant, tc.none)
				return
			}
			if err != nil || got == nil {
				t.Fatalf("got no replica: %v", err)
			}
			if diff := cmp.Diff(tc.selector, got.Spec.NodeSelector); diff != "" {
				t.Errorf("node selector (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.terms, terms(got.Spec)); diff != "" {
				t.Errorf("required affinity (-want +got):\n%s", diff)
			}
		})
	}
}

// unschedulable checks that a pod waits, and that its tenant learns once why.
func unschedulable(t *testing.T, w *world, tenant *corev1.Pod, message string) {
	t.Helper()
	ops, err := decide(w, tenant, nil)
	if _, waits := resource.AsWait(err); !waits {
		t.Errorf("it does not wait: %v", err)
	}
	if diff := cmp.Diff([]string{"PatchStatus tenant Status", "Record tenant FailedScheduling"}, summary(ops)); diff != "" {
		t.Fatalf("operations (-want +got):\n%s", diff)
	}
	after, err := patch(tenant, ops[0])
	if err != nil {
		t.Fatal(err)
	}
	want := []corev1.PodCondition{{
		Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: message,
		ObservedGeneration: 1, LastTransitionTime: metav1.NewTime(start.Local()),
	}}
	if diff := cmp.Diff(want, after.Status.Conditions); diff != "" {
		t.Errorf("conditions (-want +got):\n%s", diff)
	}
	if again, _ := decide(w, after, nil); len(again) > 0 {
		t.Errorf("it is told again: %v", summary(again))
	}
}

func TestPreferencesForTheTenantsLabels(t *testing.T) {
	w := newWorld()
	w.putNode("a", labelled("color", "blue"))
	w.putNode("b", labelled("color", "blue"))
	w.putNode("c")
	prefer := func(weight int32, key, value string) corev1.PreferredSchedulingTerm {
		return corev1.PreferredSchedulingTerm{Weight: weight, Preference: corev1.NodeSelectorTerm{
			MatchExpressions: []corev1.NodeSelectorRequirement{{Key: key, Operator: corev1.NodeSelectorOpIn, Values: []string{value}}},
		}}
	}
	got := mustDown(t, w, pod(spec(func(s *corev1.PodSpec) {
		nodeAffinity(s).PreferredDuringSchedulingIgnoredDuringExecution = []corev1.PreferredSchedulingTerm{prefer(5, "color", "blue"), prefer(2, "color", "red")}
	})))
	var preferred []string
	for _, term := range got.Spec.Affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution {
		preferred = append(preferred, fmt.Sprint(term.Weight, " ", short(term.Preference)))
	}
	if diff := cmp.Diff([]string{"5 metadata.name In a", "5 metadata.name In b"}, preferred); diff != "" {
		t.Errorf("preferences (-want +got):\n%s", diff)
	}
}

// A pod that waits in the super cluster is made again when the tenant's nodes allow it others; one that has a node stays.
func TestPendingPodFollowsTheTenantsNodes(t *testing.T) {
	w := newWorld()
	w.putNode("a", labelled("color", "blue"))
	tenant := pod(spec(func(s *corev1.PodSpec) { s.NodeSelector = map[string]string{"color": "blue"} }))
	super := mustDown(t, w, tenant)
	super.UID, super.ResourceVersion = "super-uid", "9"
	super.Status.Phase = corev1.PodPending
	if ops, err := decide(w, tenant, super); err != nil || len(ops) > 0 {
		t.Errorf("without a change: %v, %v", summary(ops), err)
	}
	w.putNode("b", labelled("color", "blue"))
	ops, err := decide(w, tenant, super)
	if diff := cmp.Diff([]string{"Delete super Superseded"}, summary(ops)); diff != "" || err != nil {
		t.Errorf("%v, operations (-want +got):\n%s", err, diff)
	}
	if len(ops) == 1 && !ops[0].Exact {
		t.Error("a pod that got a node in the meantime would be deleted")
	}
	leaving := super.DeepCopy()
	deleting(0)(leaving)
	if ops, _ := decide(w, tenant, leaving); len(ops) > 0 {
		t.Errorf("while the old one goes: %v", summary(ops))
	}
	placed := super.DeepCopy()
	placed.Spec.NodeName = "a"
	ops, err = decide(w, tenant, placed)
	if diff := cmp.Diff([]string{"Bind tenant Bound"}, summary(ops)); diff != "" || err != nil {
		t.Errorf("with a node: %v, operations (-want +got):\n%s", err, diff)
	}
}

// Whoever fails a pod in the tenant, as a kubelet would on its node, ends it in the super cluster too.
func TestPodThatTheTenantEnds(t *testing.T) {
	w := newWorld()
	tenant := pod(bound)
	super := running(t, w, tenant)
	tenant.Status.Phase = corev1.PodFailed
	ops, err := decide(w, tenant, super)
	if diff := cmp.Diff([]string{"Delete super Superseded"}, summary(ops)); diff != "" || err != nil {
		t.Errorf("%v, operations (-want +got):\n%s", err, diff)
	}
}

// The tenant's own controllers say of a pod that they are about to evict it.
func TestDisruptionTargetOfTheTenantStays(t *testing.T) {
	w := newWorld()
	target := corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "PreemptionByScheduler"}
	tenant := pod(bound, func(p *corev1.Pod) { p.Status.Conditions = []corev1.PodCondition{target} })
	ops, err := decide(w, tenant, running(t, w, tenant))
	if err != nil {
		t.Fatal(err)
	}
	after, _, err := w.apply(tenant, nil, ops)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range after.Status.Conditions {
		if c == target {
			return
		}
	}
	t.Errorf("conditions are %+v", after.Status.Conditions)
}

func TestTenantSeesSomeNodesOnly(t *testing.T) {
	w := newWorld()
	w.facts.Nodes.Selector = []corev1.NodeSelectorRequirement{{Key: "pool", Operator: corev1.NodeSelectorOpIn, Values: []string{"shared"}}}
	const confined = "pool In shared"
	for name, tc := range map[string]struct {
		pod  func(*corev1.Pod)
		want []string
	}{
		"Any":                 {func(*corev1.Pod) {}, []string{confined}},
		"OwnTerms":            {spec(func(s *corev1.PodSpec) { requireField(s, named(corev1.NodeSelectorOpIn, "a")) }), []string{confined + " & metadata.name In a"}},
		"NodeChosenInAdvance": {spec(func(s *corev1.PodSpec) { s.NodeName = "a" }), []string{confined + " & metadata.name In a"}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, terms(mustDown(t, w, pod(tc.pod)).Spec)); diff != "" {
				t.Errorf("required affinity (-want +got):\n%s", diff)
			}
		})
	}
}
