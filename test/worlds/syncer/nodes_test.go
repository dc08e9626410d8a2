package syncer_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

// realNode makes a node of the super cluster and waits for its virtual node in the tenant.
func (r *running) realNode(t *testing.T, of tenant, name string) {
	t.Helper()
	machine := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"real": "yes"}}}
	r.make(t, machine)
	worlds.Eventually(t, limit, "virtual node "+name, func(ctx context.Context) error {
		_, err := of.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		return err
	})
}

func patchNode(t *testing.T, of tenant, name, body string, subresources ...string) {
	t.Helper()
	if _, err := of.CoreV1().Nodes().Patch(t.Context(), name, types.StrategicMergePatchType, []byte(body), metav1.PatchOptions{}, subresources...); err != nil {
		t.Fatal(err)
	}
}

// patchMachine changes a real node.
func (r *running) patchMachine(t *testing.T, name, body string) {
	t.Helper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if err := r.client.Patch(t.Context(), node, client.RawPatch(types.StrategicMergePatchType, []byte(body))); err != nil {
		t.Fatal(err)
	}
}

func TestTenantsKeepWhatTheyPutOnNodes(t *testing.T) {
	r := start(t)
	of := r.tenants[0]
	const name = "own-node"
	r.realNode(t, of, name)
	patchNode(t, of, name, `{"metadata":{"labels":{"mine":"1","real":"no"}},"spec":{"unschedulable":true,"taints":[{"key":"mine","effect":"NoSchedule"}]}}`)
	patchNode(t, of, name, `{"status":{"capacity":{"example.com/fakecpu":"5"},"allocatable":{"example.com/fakecpu":"5"}}}`, "status")
	r.patchMachine(t, name, `{"metadata":{"labels":{"zone":"a"}},"spec":{"taints":[{"key":"operators","effect":"NoSchedule"}]}}`)
	seen := func(what, labels, taints string, cordoned bool) {
		t.Helper()
		worlds.Eventually(t, limit, what, func(ctx context.Context) error {
			node, err := of.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			var keys []string
			for _, taint := range node.Spec.Taints {
				if !strings.HasPrefix(taint.Key, "node.kubernetes.io/") {
					keys = append(keys, taint.Key)
				}
			}
			fake := node.Status.Allocatable["example.com/fakecpu"]
			got := fmt.Sprint(node.Labels["real"], node.Labels["zone"], node.Labels["mine"])
			if got != labels || strings.Join(keys, ",") != taints || node.Spec.Unschedulable != cordoned || fake.String() != "5" {
				return fmt.Errorf("labels %q, taints %v, cordoned %t, fake resource %s", got, keys, node.Spec.Unschedulable, fake.String())
			}
			return nil
		})
	}
	seen("labels and taints of both", "yesa1", "mine,operators", true)
	r.patchMachine(t, name, `{"metadata":{"labels":{"zone":null}},"spec":{"taints":null,"unschedulable":true}}`)
	r.patchMachine(t, name, `{"spec":{"unschedulable":null}}`)
	seen("what the operator took back to be gone", "yes1", "mine", true)
	patchNode(t, of, name, `{"metadata":{"labels":{"mine":null}},"spec":{"unschedulable":null,"taints":null}}`)
	seen("what the tenant took back to be gone", "yes", "", false)
	other, err := r.tenants[1].CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{})
	if err != nil || other.Labels["mine"] != "" {
		t.Errorf("the other tenant sees %v, %v", other.Labels, err)
	}
}

func TestPodsGoWhereTheTenantsNodesAllow(t *testing.T) {
	r := start(t)
	of := r.tenants[0]
	const name = "blue-node"
	r.realNode(t, of, name)
	r.namespace(t, of, "placing")
	patchNode(t, of, name, `{"metadata":{"labels":{"color":"blue"}},"spec":{"unschedulable":true}}`)
	pod := worlds.Pod("placing", "blue")
	pod.Spec.NodeSelector = map[string]string{"color": "blue"}
	of.world.MakePod(t, pod)
	worlds.Eventually(t, limit, "the pod to be unschedulable", func(ctx context.Context) error {
		pod, err := of.CoreV1().Pods("placing").Get(ctx, "blue", metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range pod.Status.Conditions {
			if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && strings.Contains(c.Message, "1 node(s) were unschedulable") {
				return nil
			}
		}
		return fmt.Errorf("conditions are %+v", pod.Status.Conditions)
	})
	waitForEvent(t, of, "placing", "blue", "FailedScheduling")
	patchNode(t, of, name, `{"spec":{"unschedulable":null}}`)
	super := r.superPod(t, of, "placing", "blue")
	required := super.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	if len(required) != 1 || required[0].MatchFields[0].Values[0] != name || super.Spec.NodeSelector != nil {
		t.Errorf("the replica requires %+v and selects %v", required, super.Spec.NodeSelector)
	}
	patchNode(t, of, name, `{"metadata":{"labels":{"color":"red"}}}`)
	worlds.Eventually(t, limit, "the pending replica to be withdrawn", func(ctx context.Context) error {
		return gone(r.client.Get(ctx, client.ObjectKeyFromObject(super), &corev1.Pod{}))
	})
}

// change switches a tenant's settings, and back at the end of the test.
func (r *running) change(t *testing.T, of tenant, body, back string) {
	t.Helper()
	patch := func(ctx context.Context, body string) (int64, error) {
		vc := vcOf(of)
		err := r.client.Patch(ctx, vc, client.RawPatch(types.MergePatchType, []byte(body)))
		return vc.Generation, err
	}
	generation, err := patch(t.Context(), body)
	if err != nil {
		t.Fatal(err)
	}
	r.awaitGeneration(t, of, generation)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), limit) // that of the test has ended
		defer cancel()
		if _, err := patch(ctx, back); err != nil {
			t.Error(err)
		}
	})
}

func TestOwnSchedulerAssignsNodes(t *testing.T) {
	r := start(t)
	of := r.tenants[0]
	r.realNode(t, of, "scheduled-node")
	r.namespace(t, of, "scheduling")
	r.change(t, of, `{"spec":{"scheduler":{"enabled":true}}}`, `{"spec":{"scheduler":null}}`)
	of.world.MakePod(t, worlds.Pod("scheduling", "own"))
	worlds.Throughout(t, time.Second, "no replica before the scheduler has chosen", func(ctx context.Context) error {
		return gone(r.client.Get(ctx, client.ObjectKey{Namespace: of.super("scheduling"), Name: "own"}, &corev1.Pod{}))
	})
	err := of.CoreV1().Pods("scheduling").Bind(t.Context(), &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Name: "own"}, Target: corev1.ObjectReference{Kind: "Node", Name: "scheduled-node"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	super := r.superPod(t, of, "scheduling", "own")
	required := super.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	if len(required) != 1 || required[0].MatchFields[0].Values[0] != "scheduled-node" {
		t.Errorf("the replica requires %+v", required)
	}
}

// Every scheduler of the tenant binds its pods, where the tenant schedules at all.
func TestAnySchedulerOfTheTenantBindsItsPods(t *testing.T) {
	const ns = "packing"
	r := start(t)
	of := r.tenants[0]
	r.realNode(t, of, "packed-node")
	r.namespace(t, of, ns)
	r.change(t, of, `{"spec":{"scheduler":{"enabled":true}}}`, `{"spec":{"scheduler":null}}`)
	pod := worlds.Pod(ns, "packed")
	pod.Spec.SchedulerName = "packer"
	of.world.MakePod(t, pod)
	worlds.Throughout(t, time.Second, "no replica before the scheduler has chosen", func(ctx context.Context) error {
		return gone(r.client.Get(ctx, client.ObjectKey{Namespace: of.super(ns), Name: "packed"}, &corev1.Pod{}))
	})
	err := of.CoreV1().Pods(ns).Bind(t.Context(), &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Name: "packed"}, Target: corev1.ObjectReference{Kind: "Node", Name: "packed-node"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	super := r.superPod(t, of, ns, "packed")
	required := super.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	if len(required) != 1 || required[0].MatchFields[0].Values[0] != "packed-node" || super.Spec.SchedulerName != corev1.DefaultSchedulerName {
		t.Errorf("scheduler %s is required to choose %+v", super.Spec.SchedulerName, required)
	}
	r.kubelet(t, super, "packed-node", "10.1.0.78")
	worlds.Eventually(t, limit, "the pod to run", func(ctx context.Context) error {
		now, err := of.CoreV1().Pods(ns).Get(ctx, "packed", metav1.GetOptions{})
		if err == nil && (now.Status.Phase != corev1.PodRunning || now.Spec.NodeName != "packed-node") {
			err = fmt.Errorf("it is %s on %q", now.Status.Phase, now.Spec.NodeName)
		}
		return err
	})
	list, err := of.CoreV1().Events(ns).List(t.Context(), metav1.ListOptions{FieldSelector: "reason=SchedulerIgnored"})
	if err != nil || len(list.Items) > 0 {
		t.Errorf("events are %v, %v", list.Items, err)
	}
}

// Where the tenant does not schedule, a pod that names a scheduler is told, once.
func TestSchedulerThatIsIgnoredIsTold(t *testing.T) {
	const ns = "ignoring"
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, ns)
	for name, scheduler := range map[string]string{"packed": "packer", "plain": ""} {
		pod := worlds.Pod(ns, name)
		pod.Spec.SchedulerName = scheduler
		of.world.MakePod(t, pod)
		r.superPod(t, of, ns, name)
	}
	waitForEvent(t, of, ns, "packed", "SchedulerIgnored")
	worlds.Throughout(t, 3*time.Second, "one event", func(ctx context.Context) error { // longer than a patrol
		list, err := of.CoreV1().Events(ns).List(ctx, metav1.ListOptions{FieldSelector: "reason=SchedulerIgnored"})
		if err == nil && (len(list.Items) != 1 || list.Items[0].Count != 1) {
			err = fmt.Errorf("events are %v", list.Items)
		}
		return err
	})
}

// awaitNode waits until the tenant sees a node, or sees it no more.
func awaitNode(t *testing.T, of tenant, what, name string, want bool) {
	t.Helper()
	worlds.Eventually(t, limit, what, func(ctx context.Context) error {
		_, err := of.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		if !want {
			return gone(err)
		}
		return err
	})
}

// A DaemonSet that tolerates everything runs on every node that the tenant sees, because the tenant sees those that it may use.
func TestDaemonSetsFinishBesideNodesOfTheOperator(t *testing.T) {
	const ns, open, closed = "daemons", "daemon-open", "daemon-closed"
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, ns)
	labels := map[string]string{"fleet": ns}
	for name, taint := range map[string]string{open: "example.com/team", closed: "node-role.kubernetes.io/control-plane"} {
		r.make(t, &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels},
			Spec:       corev1.NodeSpec{Taints: []corev1.Taint{{Key: taint, Effect: corev1.TaintEffectNoSchedule}}},
		})
	}
	awaitNode(t, of, "a node that pods may tolerate to appear", open, true)
	set, err := of.AppsV1().DaemonSets(ns).Create(t.Context(), &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Name: "agent"},
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: daemon(labels)},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	finished := func(what string, want int32) {
		t.Helper()
		worlds.Eventually(t, limit, what, func(ctx context.Context) error {
			if err := r.runDaemons(ctx, t, of, ns); err != nil {
				return err
			}
			now, err := of.AppsV1().DaemonSets(ns).Get(ctx, set.Name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			if s := now.Status; s.ObservedGeneration != now.Generation || s.DesiredNumberScheduled != want || s.NumberReady != want {
				return fmt.Errorf("status is %+v", s)
			}
			return nil
		})
	}
	finished("the rollout on the open node", 1)
	awaitNode(t, of, "the operator's node to be hidden", closed, false)
	for _, toleration := range r.daemonOn(t, of, ns, open).Spec.Tolerations {
		if strings.HasPrefix(toleration.Key, "node-role.kubernetes.io/") || toleration.Key == "" {
			t.Errorf("the replica tolerates %+v", toleration)
		}
	}
	r.patchMachine(t, closed, `{"spec":{"taints":null}}`)
	finished("the rollout when the taint is removed", 2)
	r.patchMachine(t, closed, `{"spec":{"taints":[{"key":"node-role.kubernetes.io/control-plane","effect":"NoSchedule"}]}}`)
	worlds.Eventually(t, limit, "the taint to be seen where a pod runs", func(ctx context.Context) error {
		node, err := of.CoreV1().Nodes().Get(ctx, closed, metav1.GetOptions{})
		if err == nil && !slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.Key == "node-role.kubernetes.io/control-plane" }) {
			err = fmt.Errorf("taints are %v", node.Spec.Taints)
		}
		return err
	})
	zero := int64(0) // the operator's drain, which nobody confirms
	last := r.daemonOn(t, of, ns, closed)
	if err := w.Super.Client.CoreV1().Pods(last.Namespace).Delete(t.Context(), last.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
		t.Fatal(err)
	}
	awaitNode(t, of, "the node to be hidden when its last pod is gone", closed, false)
	finished("the rollout without that node", 1)
}

// daemon is the spec of pods that tolerate everything, on nodes with certain labels.
func daemon(labels map[string]string) corev1.PodSpec {
	spec := worlds.Pod("", "").Spec
	spec.NodeSelector = labels
	spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	return spec
}

// runDaemons plays scheduler and kubelet for the pods of a DaemonSet: each runs on the node that it names, if it tolerates the
// taints of that node.
func (r *running) runDaemons(ctx context.Context, t *testing.T, of tenant, namespace string) error {
	t.Helper()
	var pods corev1.PodList
	if err := r.client.List(ctx, &pods, client.InNamespace(of.super(namespace))); err != nil {
		return err
	}
	for i, pod := range pods.Items {
		if pod.Spec.NodeName != "" || pod.DeletionTimestamp != nil {
			continue
		}
		node := &corev1.Node{}
		name := pod.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms[0].MatchFields[0].Values[0]
		if err := r.client.Get(ctx, client.ObjectKey{Name: name}, node); err != nil {
			return err
		}
		for _, taint := range node.Spec.Taints {
			if !slices.ContainsFunc(pod.Spec.Tolerations, func(o corev1.Toleration) bool { return o.ToleratesTaint(klog.Background(), &taint, false) }) {
				return fmt.Errorf("pod %s does not tolerate %s", pod.Name, taint.Key)
			}
		}
		r.kubelet(t, &pods.Items[i], name, fmt.Sprintf("10.9.8.%d", i+1))
	}
	return nil
}

// daemonOn returns the super pod on a node.
func (r *running) daemonOn(t *testing.T, of tenant, namespace, node string) *corev1.Pod {
	t.Helper()
	var pods corev1.PodList
	if err := r.client.List(t.Context(), &pods, client.InNamespace(of.super(namespace))); err != nil {
		t.Fatal(err)
	}
	for i := range pods.Items {
		if pods.Items[i].Spec.NodeName == node {
			return &pods.Items[i]
		}
	}
	t.Fatalf("no pod of %s is on %s", namespace, node)
	return nil
}

func TestTenantSeesTheNodesItUses(t *testing.T) {
	r := start(t)
	of := r.tenants[0]
	r.realNode(t, of, "idle-node")
	r.namespace(t, of, "using")
	r.change(t, of, `{"spec":{"nodes":{"mode":"Used"}}}`, `{"spec":{"nodes":null}}`)
	awaitNode(t, of, "a node without pods to disappear", "idle-node", false)
	of.world.MakePod(t, worlds.Pod("using", "first"))
	super := r.superPod(t, of, "using", "first")
	r.kubelet(t, super, "idle-node", "10.1.0.77")
	awaitNode(t, of, "the node of the first pod to appear", "idle-node", true)
	zero := int64(0)
	for _, c := range []corev1client.PodInterface{of.CoreV1().Pods("using"), w.Super.Client.CoreV1().Pods(super.Namespace)} { // no kubelet confirms it
		if err := c.Delete(t.Context(), "first", metav1.DeleteOptions{GracePeriodSeconds: &zero}); client.IgnoreNotFound(err) != nil {
			t.Fatal(err)
		}
	}
	awaitNode(t, of, "the node to go with its last pod", "idle-node", false)
	if _, err := r.tenants[1].CoreV1().Nodes().Get(t.Context(), "idle-node", metav1.GetOptions{}); err != nil {
		t.Errorf("the other tenant does not see the node: %v", err)
	}
	var vc tenancyv1alpha1.VirtualCluster
	if err := r.client.Get(t.Context(), of.vc, &vc); err != nil || vc.Spec.Nodes.Mode != tenancyv1alpha1.NodesUsed {
		t.Error(errors.Join(err, fmt.Errorf("mode is %q", vc.Spec.Nodes.Mode)))
	}
}
