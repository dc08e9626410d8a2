package resources_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/resources"
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
	ops, err := decide(t, resources.Nodes(), world{}, "", "n1", nil, machine)
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
	if ops, err = decide(t, resources.Nodes(), world{}, "", "n1", virtual, later); len(ops) > 0 || err != nil {
		t.Errorf("a heartbeat alone causes %s, %v", encode(t, ops), err)
	}
	later.Status.Conditions[0].Status = corev1.ConditionUnknown
	later.Spec.Unschedulable = true
	ops, err = decide(t, resources.Nodes(), world{}, "", "n1", virtual, later)
	if err != nil {
		t.Fatal(err)
	}
	after := patched(t, virtual, resource.Tenant, ops)
	if !after.Spec.Unschedulable || after.Status.Conditions[0].Status != corev1.ConditionUnknown || after.Labels["mine"] != "kept" {
		t.Errorf("the change did not arrive: %s", encode(t, after))
	}
	ops, err = decide(t, resources.Nodes(), world{}, "", "n1", virtual, nil)
	if err != nil || len(ops) != 1 || ops[0].Verb != resource.Delete || ops[0].Side != resource.Tenant {
		t.Errorf("when the real node is gone: %s, %v", encode(t, ops), err)
	}
	own := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "tenants"}}
	ops, err = decide(t, resources.Nodes(), world{}, "", "n1", own, machine)
	rejectedWith(t, ops, err, "NameTaken")
}
