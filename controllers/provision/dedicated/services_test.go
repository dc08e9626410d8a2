package dedicated

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/controllers/progress"
)

func TestEndpoint(t *testing.T) {
	service := func(kind corev1.ServiceType, ingress ...corev1.LoadBalancerIngress) *corev1.Service {
		return &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "root", Name: "kube-apiserver"},
			Spec:       corev1.ServiceSpec{Type: kind, Ports: []corev1.ServicePort{{Port: 443, NodePort: 30123}}},
			Status:     corev1.ServiceStatus{LoadBalancer: corev1.LoadBalancerStatus{Ingress: ingress}},
		}
	}
	nodes := []corev1.Node{node("n3", true, "192.0.2.3"), node("n1", false, "192.0.2.1"), node("n2", true, "192.0.2.2")}
	named := tenancyv1alpha1.ExposureSpec{Hosts: []string{"api.example.org", "other.example.org"}}
	cases := map[string]struct {
		exposure tenancyv1alpha1.ExposureSpec
		service  *corev1.Service
		nodes    []corev1.Node
		current  string
		want     string
		reason   string
	}{
		"NodePortOfTheFirstReadyNode": {service: service(corev1.ServiceTypeNodePort), nodes: nodes, want: "https://192.0.2.2:30123"},
		"StaysWhileTheNodeIsReady":    {service: service(corev1.ServiceTypeNodePort), nodes: nodes, current: "https://192.0.2.3:30123", want: "https://192.0.2.3:30123"},
		"LeavesANodeThatIsNot":        {service: service(corev1.ServiceTypeNodePort), nodes: nodes, current: "https://192.0.2.1:30123", want: "https://192.0.2.2:30123"},
		"LeavesAnOldPort":             {service: service(corev1.ServiceTypeNodePort), nodes: nodes, current: "https://192.0.2.3:30000", want: "https://192.0.2.2:30123"},
		"NodePortByName":              {exposure: named, service: service(corev1.ServiceTypeNodePort), nodes: nodes, want: "https://api.example.org:30123"},
		"NoNodeReady":                 {service: service(corev1.ServiceTypeNodePort), nodes: nodes[1:2], reason: reasonNoNode},
		"IPv6Node":                    {service: service(corev1.ServiceTypeNodePort), nodes: []corev1.Node{node("n", true, "fd00::1")}, want: "https://[fd00::1]:30123"},
		"LoadBalancerByAddress":       {service: service(corev1.ServiceTypeLoadBalancer, corev1.LoadBalancerIngress{IP: "203.0.113.1"}), want: "https://203.0.113.1:443"},
		"LoadBalancerByItsName":       {service: service(corev1.ServiceTypeLoadBalancer, corev1.LoadBalancerIngress{Hostname: "lb.example.org"}), want: "https://lb.example.org:443"},
		"LoadBalancerByName":          {exposure: named, service: service(corev1.ServiceTypeLoadBalancer), want: "https://api.example.org:443"},
		"LoadBalancerPending":         {service: service(corev1.ServiceTypeLoadBalancer), reason: reasonNoLoadBalancer},
		"ClusterIP":                   {service: service(corev1.ServiceTypeClusterIP), want: "https://kube-apiserver.root.svc:443"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := endpoint(tc.exposure, tc.service, tc.nodes, tc.current)
			if got != tc.want {
				t.Errorf("endpoint: got %q, want %q", got, tc.want)
			}
			if (err != nil) != (tc.reason != "") || err != nil && progress.Reason(err) != tc.reason {
				t.Errorf("error: got %v, want the reason %q", err, tc.reason)
			}
		})
	}
}

func TestDiagnose(t *testing.T) {
	pod := func(change func(*corev1.Pod)) *corev1.Pod {
		p := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "etcd-0"},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "etcd", Image: "example.org/etcd:1"}}},
		}
		change(p)
		return p
	}
	waiting := func(reason, message string) *corev1.Pod {
		return pod(func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{
				Name:                 "etcd",
				State:                corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}},
				LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 2}},
			}}
		})
	}
	const cannotPull = "the image example.org/etcd:1 of etcd-0 cannot be pulled; correct it in the ClusterVersion, or make it available"
	cases := map[string]struct {
		pod          *corev1.Pod
		reason, want string
	}{
		"Running":   {pod: pod(func(*corev1.Pod) {})},
		"Creating":  {pod: waiting("ContainerCreating", "")},
		"PullFails": {pod: waiting("ErrImagePull", "connection refused"), reason: reasonImagePull, want: cannotPull},
		// The same message, so that the condition does not flap between the two.
		"PullBacksOff": {pod: waiting("ImagePullBackOff", "Back-off pulling image"), reason: reasonImagePull, want: cannotPull},
		"Crashes":      {pod: waiting("CrashLoopBackOff", "back-off 10s"), reason: reasonCrashing, want: "etcd-0 exits again and again, last with code 2; its log says why"},
		"BadConfig":    {pod: waiting("CreateContainerConfigError", `secret "x" not found`), reason: reasonConfig, want: `the container of etcd-0 cannot be started: secret "x" not found`},
		"NoRoom": {
			pod: pod(func(p *corev1.Pod) {
				p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: "0/2 nodes are available"}}
			}),
			reason: reasonUnschedulable, want: "pod etcd-0 cannot be scheduled: 0/2 nodes are available",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			err := diagnose(tc.pod)
			if tc.want == "" {
				if err != nil {
					t.Errorf("diagnose: got %v", err)
				}
				return
			}
			if err == nil || err.Error() != tc.want || progress.Reason(err) != tc.reason {
				t.Errorf("diagnose: got %v, want %s: %s", err, tc.reason, tc.want)
			}
		})
	}
}
