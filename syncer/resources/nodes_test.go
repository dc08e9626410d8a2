package resources_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/resources/nodes"
)

func TestNodes(t *testing.T) {
	since, beat := metav1.NewTime(now().Add(-time.Hour)), metav1.NewTime(now())
	machine := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "real", Labels: map[string]string{corev1.LabelHostname: "n1"}, Annotations: map[string]string{"secret": "x"}},
		Spec:       corev1.NodeSpec{PodCIDR: "10.0.0.0/24", ProviderID: "cloud://1"},
		Status: corev1.NodeStatus{
			Addresses:       []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.7"}},
			DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: 10250}},
			Conditions:      []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastTransitionTime: since, LastHeartbeatTime: beat}},
			NodeInfo:        corev1.NodeSystemInfo{MachineID: "m", SystemUUID: "s", BootID: "b", KubeletVersion: "v1.36.3"},
			Images:          []corev1.ContainerImage{{Names: []string{"private/image"}}},
		},
	}
	ops, err := decide(t, nodes.Kind(), world{}, "", "n1", nil, machine)
	got := created[*corev1.Node](t, ops, err)
	if ops[0].Side != resource.Tenant {
		t.Errorf("it is created in the %s", ops[0].Side)
	}
	want := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{corev1.LabelHostname: "n1"},
			Annotations: map[string]string{names.AnnotationUID: "real", names.AnnotationKeys: "l:" + corev1.LabelHostname}},
		Status: corev1.NodeStatus{
			Addresses:       machine.Status.Addresses,
			DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: names.VNAgentPort}},
			Conditions:      []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastTransitionTime: since, LastHeartbeatTime: since}},
			NodeInfo:        corev1.NodeSystemInfo{KubeletVersion: "v1.36.3"},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}

	virtual := got.DeepCopy()
	virtual.UID = "virtual"
	virtual.Labels["mine"] = "kept"
	later := machine.DeepCopy()
	later.Status.Conditions[0].LastHeartbeatTime = metav1.NewTime(now().Add(time.Minute))
	if ops, err = decide(t, nodes.Kind(), world{}, "", "n1", virtual, later); len(ops) > 0 || err != nil {
		t.Errorf("a heartbeat alone causes %s, %v", encode(t, ops), err)
	}
	later.Status.Conditions[0].Status = corev1.ConditionUnknown
	later.Spec.Unschedulable = true
	ops, err = decide(t, nodes.Kind(), world{}, "", "n1", virtual, later)
	if err != nil {
		t.Fatal(err)
	}
	after := patched(t, virtual, resource.Tenant, ops)
	if !after.Spec.Unschedulable || after.Status.Conditions[0].Status != corev1.ConditionUnknown || after.Labels["mine"] != "kept" {
		t.Errorf("the change did not arrive: %s", encode(t, after))
	}
	ops, err = decide(t, nodes.Kind(), world{}, "", "n1", virtual, nil)
	if err != nil || len(ops) != 1 || ops[0].Verb != resource.Delete || ops[0].Side != resource.Tenant {
		t.Errorf("when the real node is gone: %s, %v", encode(t, ops), err)
	}
	own := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "tenants"}}
	ops, err = decide(t, nodes.Kind(), world{}, "", "n1", own, machine)
	rejectedWith(t, ops, err, "NameTaken")
}

// cluster is a real node and its virtual node, which the syncer keeps as they should be.
type cluster struct {
	machine, virtual *corev1.Node
}

func (c *cluster) settle(t *testing.T) {
	t.Helper()
	for range 3 {
		ops, err := decide(t, nodes.Kind(), world{}, "", "n1", object(c.virtual), c.machine)
		if err != nil {
			t.Fatal(err)
		}
		if len(ops) == 0 {
			return
		}
		if ops[0].Verb == resource.Create {
			c.virtual = created[*corev1.Node](t, ops, err).DeepCopy()
			c.virtual.UID = "virtual"
			continue
		}
		c.virtual = patched(t, c.virtual, resource.Tenant, ops)
	}
	t.Fatalf("it does not come to rest: %s", encode(t, c.virtual))
}

// object keeps a nil pointer from becoming an object.
func object(n *corev1.Node) resource.Object {
	if n == nil {
		return nil
	}
	return n
}

func TestVirtualNodeKeepsWhatIsTheTenants(t *testing.T) {
	ours, theirs := corev1.Taint{Key: "real", Effect: corev1.TaintEffectNoSchedule}, corev1.Taint{Key: "mine", Value: "x", Effect: corev1.TaintEffectNoExecute}
	const fake, device = corev1.ResourceName("example.com/fakecpu"), corev1.ResourceName("vendor.example/device")
	type state struct {
		Labels   map[string]string
		Taints   []corev1.Taint
		Cordoned bool
		Capacity map[corev1.ResourceName]string
		Own      nodes.Own
	}
	label := func(key, value string) map[string]string { return map[string]string{"os": "linux", key: value} }
	one := map[corev1.ResourceName]string{"cpu": "2"}
	set := func(n *corev1.Node, name corev1.ResourceName, quantity string) {
		if n.Status.Capacity == nil {
			n.Status.Capacity, n.Status.Allocatable = corev1.ResourceList{}, corev1.ResourceList{}
		}
		n.Status.Capacity[name], n.Status.Allocatable[name] = apiresource.MustParse(quantity), apiresource.MustParse(quantity)
	}
	for name, tc := range map[string]struct {
		steps []func(r, v *corev1.Node)
		want  state
	}{
		"TenantAddsLabel": {
			steps: []func(r, v *corev1.Node){func(_, v *corev1.Node) { v.Labels["mine"] = "1" }},
			want:  state{Labels: label("mine", "1"), Capacity: one, Own: nodes.Own{Labels: []string{"mine"}}},
		},
		"TenantChangesAndRemovesSyncedLabel": {
			steps: []func(r, v *corev1.Node){
				func(_, v *corev1.Node) { v.Labels["os"] = "plan9" },
				func(_, v *corev1.Node) { delete(v.Labels, "os") },
			},
			want: state{Labels: map[string]string{"os": "linux"}, Capacity: one},
		},
		"RealNodeGainsAndLosesLabel": {
			steps: []func(r, v *corev1.Node){
				func(r, v *corev1.Node) { r.Labels["zone"], v.Labels["mine"] = "a", "1" },
				func(r, _ *corev1.Node) { delete(r.Labels, "zone") },
			},
			want: state{Labels: label("mine", "1"), Capacity: one, Own: nodes.Own{Labels: []string{"mine"}}},
		},
		"RealNodeTakesTheTenantsLabel": {
			steps: []func(r, v *corev1.Node){
				func(_, v *corev1.Node) { v.Labels["zone"] = "mine" },
				func(r, _ *corev1.Node) { r.Labels["zone"] = "real" },
			},
			want: state{Labels: label("zone", "real"), Capacity: one},
		},
		"TenantTaints": {
			steps: []func(r, v *corev1.Node){
				func(_, v *corev1.Node) { v.Spec.Taints = append(v.Spec.Taints, theirs) },
				func(r, _ *corev1.Node) { r.Spec.Taints = []corev1.Taint{ours} },
			},
			want: state{Labels: map[string]string{"os": "linux"}, Taints: []corev1.Taint{theirs, ours}, Capacity: one, Own: nodes.Own{Taints: []corev1.Taint{theirs}}},
		},
		"TenantRemovesSyncedTaint": {
			steps: []func(r, v *corev1.Node){
				func(r, _ *corev1.Node) { r.Spec.Taints = []corev1.Taint{ours} },
				func(_, v *corev1.Node) { v.Spec.Taints = nil },
			},
			want: state{Labels: map[string]string{"os": "linux"}, Taints: []corev1.Taint{ours}, Capacity: one},
		},
		"RealNodeLosesTaint": {
			steps: []func(r, v *corev1.Node){
				func(r, v *corev1.Node) { r.Spec.Taints, v.Spec.Taints = []corev1.Taint{ours}, []corev1.Taint{theirs} },
				func(r, _ *corev1.Node) { r.Spec.Taints = nil },
			},
			want: state{Labels: map[string]string{"os": "linux"}, Taints: []corev1.Taint{theirs}, Capacity: one, Own: nodes.Own{Taints: []corev1.Taint{theirs}}},
		},
		"TenantCordons": {
			steps: []func(r, v *corev1.Node){func(_, v *corev1.Node) { v.Spec.Unschedulable = true }},
			want:  state{Labels: map[string]string{"os": "linux"}, Cordoned: true, Capacity: one, Own: nodes.Own{Cordoned: true}},
		},
		"TenantCannotUncordonTheRealNode": {
			steps: []func(r, v *corev1.Node){
				func(r, _ *corev1.Node) { r.Spec.Unschedulable = true },
				func(_, v *corev1.Node) { v.Spec.Unschedulable = false },
			},
			want: state{Labels: map[string]string{"os": "linux"}, Cordoned: true, Capacity: one},
		},
		"OperatorCordonsForAWhile": {
			steps: []func(r, v *corev1.Node){
				func(r, _ *corev1.Node) { r.Spec.Unschedulable = true },
				func(r, _ *corev1.Node) { r.Spec.Unschedulable = false },
			},
			want: state{Labels: map[string]string{"os": "linux"}, Capacity: one},
		},
		"OperatorCordonsWhatTheTenantCordoned": {
			steps: []func(r, v *corev1.Node){
				func(_, v *corev1.Node) { v.Spec.Unschedulable = true },
				func(r, _ *corev1.Node) { r.Spec.Unschedulable = true },
				func(r, _ *corev1.Node) { r.Spec.Unschedulable = false },
			},
			want: state{Labels: map[string]string{"os": "linux"}, Cordoned: true, Capacity: one, Own: nodes.Own{Cordoned: true}},
		},
		"TenantAddsExtendedResource": {
			steps: []func(r, v *corev1.Node){
				func(_, v *corev1.Node) { set(v, fake, "999") },
				func(r, _ *corev1.Node) { set(r, "cpu", "3") },
			},
			want: state{Labels: map[string]string{"os": "linux"}, Capacity: map[corev1.ResourceName]string{"cpu": "3", fake: "999"}},
		},
		"TenantCannotChangeRealResources": {
			steps: []func(r, v *corev1.Node){
				func(r, _ *corev1.Node) { set(r, device, "1") },
				func(_, v *corev1.Node) { set(v, device, "8"); set(v, "cpu", "64"); set(v, "gold", "1") },
			},
			want: state{Labels: map[string]string{"os": "linux"}, Capacity: map[corev1.ResourceName]string{"cpu": "2", device: "1"}},
		},
		"RealNodeLosesExtendedResource": {
			steps: []func(r, v *corev1.Node){
				func(r, v *corev1.Node) { set(r, device, "1"); set(v, fake, "5") },
				func(r, _ *corev1.Node) { delete(r.Status.Capacity, device); delete(r.Status.Allocatable, device) },
			},
			want: state{Labels: map[string]string{"os": "linux"}, Capacity: map[corev1.ResourceName]string{"cpu": "2", fake: "5"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := &cluster{machine: &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "real", Labels: map[string]string{"os": "linux"}}}}
			set(c.machine, "cpu", "2")
			c.settle(t)
			for _, step := range tc.steps {
				c.machine = c.machine.DeepCopy()
				step(c.machine, c.virtual)
				c.settle(t)
			}
			got := state{
				Labels: c.virtual.Labels, Taints: c.virtual.Spec.Taints, Cordoned: c.virtual.Spec.Unschedulable,
				Capacity: map[corev1.ResourceName]string{}, Own: nodes.OwnOf(c.virtual),
			}
			for name, quantity := range c.virtual.Status.Capacity {
				got.Capacity[name] = quantity.String()
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if diff := cmp.Diff(c.virtual.Status.Capacity, c.virtual.Status.Allocatable); diff != "" {
				t.Errorf("capacity and allocatable differ\n%s", diff)
			}
		})
	}
}

func TestWhichNodesATenantSees(t *testing.T) {
	machine := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "real", Labels: map[string]string{"pool": "shared", "rack": "7", "vendor.example/id": "1"}},
		Spec:       corev1.NodeSpec{Taints: []corev1.Taint{{Key: "vendor.example/a", Effect: corev1.TaintEffectNoSchedule}, {Key: "b", Effect: corev1.TaintEffectNoSchedule}}},
	}
	pool := func(value string) []corev1.NodeSelectorRequirement {
		return []corev1.NodeSelectorRequirement{{Key: "pool", Operator: corev1.NodeSelectorOpIn, Values: []string{value}}}
	}
	for name, tc := range map[string]struct {
		facts resource.NodeFacts
		runs  bool
		sees  bool
	}{
		"All":           {sees: true},
		"Selected":      {facts: resource.NodeFacts{Selector: pool("shared")}, sees: true},
		"NotSelected":   {facts: resource.NodeFacts{Selector: pool("other")}},
		"Used":          {facts: resource.NodeFacts{Used: true}, runs: true, sees: true},
		"NotUsed":       {facts: resource.NodeFacts{Used: true}},
		"UsedOfAnother": {facts: resource.NodeFacts{Used: true, Selector: pool("other")}, runs: true},
	} {
		t.Run(name, func(t *testing.T) {
			w := world{facts: resource.Facts{Nodes: tc.facts}, runs: tc.runs}
			ops, err := decide(t, nodes.Kind(), w, "", "n1", nil, machine)
			if !tc.sees {
				if len(ops) > 0 || err != nil {
					t.Fatalf("it is made: %s, %v", encode(t, ops), err)
				}
				ops, err = decide(t, nodes.Kind(), world{}, "", "n1", nil, machine)
				virtual := created[*corev1.Node](t, ops, err)
				ops, err = decide(t, nodes.Kind(), w, "", "n1", virtual, machine)
				if err != nil || len(ops) == 0 || ops[0].Verb != resource.Delete || ops[0].Side != resource.Tenant {
					t.Errorf("it stays: %s, %v", encode(t, ops), err)
				}
				return
			}
			created[*corev1.Node](t, ops, err)
		})
	}
	taint := func(key string, effect corev1.TaintEffect) *corev1.Node {
		n := machine.DeepCopy()
		n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: key, Effect: effect})
		return n
	}
	const controlPlane = "node-role.kubernetes.io/control-plane"
	for name, tc := range map[string]struct {
		machine *corev1.Node
		facts   resource.NodeFacts
		runs    bool
		sees    bool
	}{
		"NoSchedule":       {machine: taint(controlPlane, corev1.TaintEffectNoSchedule)},
		"NoExecute":        {machine: taint(names.Prefix+"reserved", corev1.TaintEffectNoExecute)},
		"PreferNoSchedule": {machine: taint(controlPlane, corev1.TaintEffectPreferNoSchedule), sees: true},
		"BeingRemoved":     {machine: taint("ToBeDeletedByClusterAutoscaler", corev1.TaintEffectNoSchedule)},
		"NotReady":         {machine: taint(corev1.TaintNodeNotReady, corev1.TaintEffectNoExecute), sees: true},
		"Own":              {machine: taint("example.com/team", corev1.TaintEffectNoSchedule), sees: true},
		"RunsPods":         {machine: taint(controlPlane, corev1.TaintEffectNoSchedule), runs: true, sees: true},
		"UsedAndRunsPods":  {machine: taint(controlPlane, corev1.TaintEffectNoSchedule), facts: resource.NodeFacts{Used: true}, runs: true, sees: true},
		"SelectedOnly":     {machine: taint(controlPlane, corev1.TaintEffectNoSchedule), facts: resource.NodeFacts{Selector: pool("shared")}},
		"HiddenTaint":      {machine: taint(controlPlane, corev1.TaintEffectNoSchedule), facts: resource.NodeFacts{HiddenTaints: []string{"node-role.kubernetes.io/"}}, sees: true},
	} {
		t.Run("Tainted"+name, func(t *testing.T) {
			w := world{facts: resource.Facts{Nodes: tc.facts}, runs: tc.runs}
			ops, err := decide(t, nodes.Kind(), w, "", "n1", nil, tc.machine)
			if tc.sees != (len(ops) > 0) || err != nil {
				t.Fatalf("operations are %s, %v", encode(t, ops), err)
			}
			ops, err = decide(t, nodes.Kind(), w, "", "n1", nil, machine)
			virtual := created[*corev1.Node](t, ops, err)
			ops, err = decide(t, nodes.Kind(), w, "", "n1", virtual, tc.machine)
			if deleted := len(ops) > 0 && ops[0].Verb == resource.Delete; deleted == tc.sees || err != nil {
				t.Errorf("when it is there: %s, %v", encode(t, ops), err)
			}
		})
	}
	t.Run("Hidden", func(t *testing.T) {
		w := world{facts: resource.Facts{Nodes: resource.NodeFacts{HiddenTaints: []string{"vendor.example/"}, HiddenLabels: []string{"vendor.example/", "rack"}}}}
		ops, err := decide(t, nodes.Kind(), w, "", "n1", nil, machine)
		got := created[*corev1.Node](t, ops, err)
		if diff := cmp.Diff(map[string]string{"pool": "shared"}, got.Labels); diff != "" {
			t.Errorf("labels (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(machine.Spec.Taints[1:], got.Spec.Taints); diff != "" {
			t.Errorf("taints (-want +got):\n%s", diff)
		}
	})
}

func TestOwnSchedulerSeesWhatOthersTake(t *testing.T) {
	list := func(cpu, memory, pods string) corev1.ResourceList {
		return corev1.ResourceList{"cpu": apiresource.MustParse(cpu), "memory": apiresource.MustParse(memory), "pods": apiresource.MustParse(pods)}
	}
	machine := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "real"}, Status: corev1.NodeStatus{Capacity: list("2", "4Gi", "110"), Allocatable: list("2", "4Gi", "110")}}
	ops, err := decide(t, nodes.Kind(), world{}, "", "n1", nil, machine)
	virtual := created[*corev1.Node](t, ops, err)
	always := corev1.ContainerRestartPolicyAlways
	_, first := nodes.Requests(&corev1.Pod{Spec: corev1.PodSpec{
		NodeName:       "n1",
		InitContainers: []corev1.Container{{RestartPolicy: &always, Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": apiresource.MustParse("100m")}}}},
		Containers:     []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": apiresource.MustParse("400m"), "memory": apiresource.MustParse("5Gi")}}}},
	}})
	ops, err = decide(t, nodes.Kind(), world{facts: resource.Facts{Scheduler: true}, taken: first}, "", "n1", virtual, machine)
	if err != nil {
		t.Fatal(err)
	}
	after := patched(t, virtual, resource.Tenant, ops)
	if diff := cmp.Diff(list("1500m", "0", "109"), after.Status.Allocatable); diff != "" {
		t.Errorf("allocatable (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(list("2", "4Gi", "110"), after.Status.Capacity); diff != "" {
		t.Errorf("capacity (-want +got):\n%s", diff)
	}
	if node, _ := nodes.Requests(&corev1.Pod{Spec: corev1.PodSpec{NodeName: "n1"}, Status: corev1.PodStatus{Phase: corev1.PodSucceeded}}); node != "" {
		t.Error("a pod that ended takes something")
	}
}
