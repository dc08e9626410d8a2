package resources_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtualcluster-io/virtualcluster/syncer/resources"
	"github.com/virtualcluster-io/virtualcluster/syncer/resources/nodes"
)

// Of the operator's pods a cache holds what they take of which node, and no more.
func TestOtherPodsAreTrimmed(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	container := func(cpu string) corev1.Container {
		return corev1.Container{Name: "c", Image: "i", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: apiresource.MustParse(cpu)}}}
	}
	sidecar := container("100m")
	sidecar.RestartPolicy = &always
	for name, edit := range map[string]func(*corev1.Pod){
		"Containers": func(p *corev1.Pod) { p.Spec.Containers = []corev1.Container{container("1"), container("2")} },
		"Sidecar": func(p *corev1.Pod) {
			p.Spec.InitContainers, p.Spec.Containers = []corev1.Container{sidecar, container("3")}, []corev1.Container{container("1")}
		},
		"Overhead": func(p *corev1.Pod) {
			p.Spec.Overhead = corev1.ResourceList{corev1.ResourceMemory: apiresource.MustParse("1Gi")}
		},
		"Over":    func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded },
		"Pending": func(p *corev1.Pod) { p.Spec.NodeName = "" },
	} {
		t.Run(name, func(t *testing.T) {
			pod := &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "u", ResourceVersion: "1", Labels: map[string]string{"a": "b"}},
				Spec:       corev1.PodSpec{NodeName: "n"},
			}
			edit(pod)
			wantNode, want := nodes.Requests(pod)
			for range 2 { // what was trimmed may be trimmed again
				resources.OtherPods().Trim(pod)
				node, got := nodes.Requests(pod)
				if diff := cmp.Diff(want, got); node != wantNode || diff != "" {
					t.Errorf("node %s, want %s; -want +got\n%s", node, wantNode, diff)
				}
			}
			if len(pod.Labels)+len(pod.Spec.InitContainers) > 0 || len(pod.Spec.Containers) > 1 {
				t.Errorf("it is cached as %s", encode(t, pod))
			}
		})
	}
}

// The heartbeat of a node is not cached: two of them are the same.
func TestHeartbeatsAreTrimmed(t *testing.T) {
	at := func(heartbeat time.Time) *corev1.Node {
		n := &corev1.Node{Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{
			Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: metav1.NewTime(heartbeat), LastTransitionTime: metav1.NewTime(now()),
		}}}}
		nodes.Kind().Trim(n)
		return n
	}
	if diff := cmp.Diff(at(now()), at(now().Add(time.Minute))); diff != "" {
		t.Error(diff)
	}
}
