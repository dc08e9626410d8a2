package pods

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// schedulingWorld is a tenant with a scheduler of its own, that gave its node a resource.
func schedulingWorld() *world {
	w := newWorld()
	w.facts.Scheduler = true
	w.putNode(node, cordoned, func(n *corev1.Node) {
		n.Status.Capacity = corev1.ResourceList{"cpu": apiresource.MustParse("2"), "example.com/fakecpu": apiresource.MustParse("5")}
	})
	return w
}

func TestOwnSchedulerChoosesTheNode(t *testing.T) {
	w := schedulingWorld()
	list := corev1.ResourceList{"cpu": apiresource.MustParse("1"), "example.com/fakecpu": apiresource.MustParse("2")}
	tenant := pod(spec(func(s *corev1.PodSpec) {
		s.NodeSelector = map[string]string{"color": "blue"}
		s.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{TopologyKey: "rack", MaxSkew: 1, WhenUnsatisfiable: corev1.DoNotSchedule}}
		s.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{TopologyKey: "rack"}}}}
		s.Containers[0].Resources = corev1.ResourceRequirements{Requests: list, Limits: list}
	}))
	if ops, err := decide(w, tenant, nil); len(ops) > 0 || err != nil {
		t.Errorf("before it has a node: %v, %v", summary(ops), err)
	}
	placed := tenant.DeepCopy()
	placed.Spec.NodeName = node
	got := mustDown(t, w, placed).Spec
	if diff := cmp.Diff([]string{"metadata.name In " + node}, terms(got)); diff != "" {
		t.Errorf("required affinity (-want +got):\n%s", diff)
	}
	if got.NodeSelector != nil || got.TopologySpreadConstraints != nil || got.Affinity.PodAntiAffinity != nil {
		t.Errorf("the super cluster is asked again: %s", encode(got))
	}
	want := corev1.ResourceList{"cpu": apiresource.MustParse("1")}
	if diff := cmp.Diff(corev1.ResourceRequirements{Requests: want, Limits: want}, got.Containers[0].Resources); diff != "" {
		t.Errorf("resources (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(list, placed.Spec.Containers[0].Resources.Requests); diff != "" {
		t.Errorf("the tenant's pod was changed (-want +got):\n%s", diff)
	}
}

// A pod that was handed to the super cluster before the tenant got a scheduler is handed back.
func TestOwnSchedulerTakesOver(t *testing.T) {
	w := newWorld()
	tenant := pod()
	super := mustDown(t, w, tenant)
	super.UID, super.ResourceVersion = "super-uid", "9"
	w.facts.Scheduler = true
	ops, err := decide(w, tenant, super)
	if diff := cmp.Diff([]string{"Delete super Superseded"}, summary(ops)); diff != "" || err != nil {
		t.Fatalf("%v, operations (-want +got):\n%s", err, diff)
	}
	if ops, err := decide(w, tenant, nil); len(ops) > 0 || err != nil {
		t.Errorf("it is made again: %v, %v", summary(ops), err)
	}
}

func TestNodeThatTheSchedulerChoseIsFull(t *testing.T) {
	w := schedulingWorld()
	scheduled := corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(start.Local())}
	tenant := pod(func(p *corev1.Pod) {
		p.Spec.NodeName, p.Status.Conditions = node, []corev1.PodCondition{scheduled}
	})
	super := mustDown(t, w, tenant)
	super.UID, super.ResourceVersion = "super-uid", "9"
	super.Status = corev1.PodStatus{Phase: corev1.PodPending, QOSClass: corev1.PodQOSBestEffort, Conditions: []corev1.PodCondition{{
		Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable,
		Message: "0/1 nodes are available: 1 Insufficient cpu.", LastTransitionTime: metav1.NewTime(start.Local()),
	}}}
	ops, err := decide(w, tenant, super)
	if wait, ok := resource.AsWait(err); !ok || wait.After != rejectAfter || len(ops) > 0 {
		t.Errorf("at first: %v, %v", summary(ops), err)
	}
	w.now = start.Add(rejectAfter + time.Second)
	ops, err = decide(w, tenant, super)
	if diff := cmp.Diff([]string{"PatchStatus tenant Status", "Record tenant NodeRejected"}, summary(ops)); diff != "" || err != nil {
		t.Fatalf("%v, operations (-want +got):\n%s", err, diff)
	}
	after, err := patch(tenant, ops[0])
	if err != nil {
		t.Fatal(err)
	}
	if after.Status.Phase != corev1.PodFailed || after.Status.Reason != "NodeRejected" {
		t.Errorf("status is %s", encode(after.Status))
	}
	if diff := cmp.Diff([]corev1.PodCondition{scheduled}, after.Status.Conditions); diff != "" {
		t.Errorf("conditions (-want +got):\n%s", diff)
	}
	ops, err = decide(w, after, super)
	if diff := cmp.Diff([]string{"Delete super Superseded"}, summary(ops)); diff != "" || err != nil {
		t.Errorf("%v, operations (-want +got):\n%s", err, diff)
	}
}

// A pod that was made with the name of a node ends as a kubelet would end it, unless no kubelet would have seen it.
func TestNodeThatSomebodyChoseIsFull(t *testing.T) {
	for name, tc := range map[string]struct{ message, reason string }{
		"Ports":    {"0/2 nodes are available: 1 node(s) didn't have free ports for the requested pod ports, 1 node(s) didn't satisfy plugin(s) [NodeAffinity].", "NodePorts"},
		"CPU":      {"0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't satisfy plugin(s) [NodeAffinity].", "OutOfcpu"},
		"Pods":     {"0/2 nodes are available: 1 Too many pods, 1 node(s) didn't satisfy plugin(s) [NodeAffinity].", "OutOfpods"},
		"NoNode":   {"0/2 nodes are available: 2 node(s) didn't satisfy plugin(s) [NodeAffinity].", ""},
		"NotReady": {"0/2 nodes are available: 1 node(s) had untolerated taint(s), 1 node(s) didn't satisfy plugin(s) [NodeAffinity].", ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			tenant := pod(spec(func(s *corev1.PodSpec) { s.NodeName = node }))
			super := mustDown(t, w, tenant)
			super.UID, super.ResourceVersion = "super-uid", "9"
			super.Status = corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{{
				Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: tc.message,
			}}}
			ops, err := decide(w, tenant, super)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			for _, op := range ops {
				if op.Verb != resource.PatchStatus {
					continue
				}
				after, err := patch(tenant, op)
				if err != nil {
					t.Fatal(err)
				}
				if after.Status.Phase == corev1.PodFailed {
					got = after.Status.Reason
				}
			}
			if got != tc.reason {
				t.Errorf("the pod ends with %q, want %q: %v", got, tc.reason, summary(ops))
			}
		})
	}
}

// A scheduler that the pod names and that does not place it is no secret.
func TestSchedulerThatIsIgnored(t *testing.T) {
	for name, tc := range map[string]struct {
		scheduler string
		enabled   bool
		change    func(*corev1.Pod)
		want      []string
	}{
		"Default":  {scheduler: corev1.DefaultSchedulerName, want: []string{"Create super Missing"}},
		"None":     {want: []string{"Create super Missing"}},
		"Own":      {scheduler: "packer", want: []string{"Record tenant SchedulerIgnored", "Create super Missing"}},
		"HasNode":  {scheduler: "packer", change: onNode(node), want: []string{"Create super Missing"}},
		"Enabled":  {scheduler: "packer", enabled: true, want: []string{}},
		"Assigned": {scheduler: "packer", enabled: true, change: onNode(node), want: []string{"Create super Missing"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			w.facts.Scheduler = tc.enabled
			in := pod(spec(func(s *corev1.PodSpec) { s.SchedulerName = tc.scheduler }))
			if tc.change != nil {
				tc.change(in)
			}
			ops, err := decide(w, in, nil)
			if diff := cmp.Diff(tc.want, summary(ops)); diff != "" || err != nil {
				t.Fatalf("%v, operations (-want +got):\n%s", err, diff)
			}
			if tc.enabled || len(ops) < 2 {
				return
			}
			event, ok := ops[0].Object.(*corev1.Event)
			if !ok || event.Type != corev1.EventTypeWarning || !strings.Contains(event.Message, `"packer"`) || strings.Contains(event.Message, string(tenantID)) {
				t.Errorf("the event is %s", encode(ops[0].Object))
			}
			super := mustDown(t, w, in)
			super.UID, super.ResourceVersion = "super-uid", "9"
			ops, err = decide(w, in, super)
			if err != nil || slices.ContainsFunc(ops, func(op resource.Op) bool { return op.Verb == resource.Record }) {
				t.Errorf("it is told again: %v, %v", summary(ops), err)
			}
		})
	}
}
