package syncer_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

// runningPod makes a pod that runs on both sides.
func (r *running) runningPod(t *testing.T, of tenant, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	of.world.MakePod(t, pod)
	super := r.superPod(t, of, pod.Namespace, pod.Name)
	r.kubelet(t, super, "node-running", "10.9.7.1")
	worlds.Eventually(t, limit, "the pod to run in the tenant", func(ctx context.Context) error {
		now, err := of.CoreV1().Pods(pod.Namespace).Get(ctx, pod.Name, metav1.GetOptions{})
		if err == nil && now.Status.Phase != corev1.PodRunning {
			err = fmt.Errorf("phase is %s", now.Status.Phase)
		}
		return err
	})
	return super
}

// followsLabel gives the tenant's pod a label and waits until the super pod has it.
func (r *running) followsLabel(t *testing.T, of tenant, super *corev1.Pod, namespace, value string) {
	t.Helper()
	patchPod(t, of, namespace, super.Name, fmt.Sprintf(`{"metadata":{"labels":{"role":%q}}}`, value))
	worlds.Eventually(t, limit, "label "+value, func(ctx context.Context) error {
		now := &corev1.Pod{}
		if err := r.client.Get(ctx, client.ObjectKeyFromObject(super), now); err != nil {
			return err
		}
		if now.UID != super.UID || now.Labels["role"] != value {
			return fmt.Errorf("it is %s with labels %v", now.UID, now.Labels)
		}
		return nil
	})
}

// What is refused in a running pod keeps nothing else in it from changing.
func TestRunningPodsStayManageable(t *testing.T) {
	const ns = "manageable"
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, ns)

	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "app"}}
	if _, err := of.CoreV1().ServiceAccounts(ns).Create(t.Context(), account, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pod := worlds.Pod(ns, "web")
	pod.Spec.ServiceAccountName = "app"
	super := r.runningPod(t, of, pod)

	debug := func(name, securityContext string) {
		t.Helper()
		patchPod(t, of, ns, "web", fmt.Sprintf(`{"spec":{"ephemeralContainers":[{"name":%q,"image":"registry.k8s.io/pause:3.10","securityContext":%s}]}}`,
			name, securityContext), "ephemeralcontainers")
	}
	debug("sysadmin", `{"privileged":true}`)
	waitForEvent(t, of, ns, "web", "PodSecurity")
	r.followsLabel(t, of, super, ns, "after-a-refused-container")

	if err := of.CoreV1().ServiceAccounts(ns).Delete(t.Context(), "app", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	worlds.Eventually(t, limit, "the account to go", func(ctx context.Context) error {
		return gone(r.client.Get(ctx, client.ObjectKey{Namespace: of.super(ns), Name: "app"}, &corev1.ServiceAccount{}))
	})
	r.followsLabel(t, of, super, ns, "after-its-account-was-deleted")
}

// A level that the admin sets is for new pods.
func TestRunningPodsKeepTheirPodSecurityLevel(t *testing.T) {
	const ns = "manageable-level"
	r := start(t)
	of := r.tenants[0]
	root := r.rootNamespace(t, of, "baseline")
	r.namespace(t, of, ns)
	super := r.runningPod(t, of, worlds.Pod(ns, "old"))
	root.Labels[names.LabelPodSecurity] = "restricted"
	if err := r.client.Update(t.Context(), root); err != nil {
		t.Fatal(err)
	}
	r.awaitPodSecurity(t, of, ns, "restricted")
	of.world.MakePod(t, worlds.Pod(ns, "new"))
	waitForEvent(t, of, ns, "new", "PodSecurity")
	r.followsLabel(t, of, super, ns, "after-the-level-was-raised")
	patchPod(t, of, ns, "old", `{"spec":{"activeDeadlineSeconds":3600}}`)
	worlds.Eventually(t, limit, "a deadline", func(ctx context.Context) error {
		now := &corev1.Pod{}
		if err := r.client.Get(ctx, client.ObjectKeyFromObject(super), now); err != nil {
			return err
		}
		if now.Spec.ActiveDeadlineSeconds == nil {
			return fmt.Errorf("it has none")
		}
		return nil
	})
	worlds.Throughout(t, 3*time.Second, "that the old pod is not told", func(ctx context.Context) error { // longer than a patrol
		list, err := of.CoreV1().Events(ns).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=old,reason=PodSecurity"})
		if err == nil && len(list.Items) > 0 {
			err = fmt.Errorf("it was told %s", list.Items[0].Message)
		}
		return err
	})
}

// Labels flow although the super cluster refuses another change of the same object.
func TestLabelsFlowBesideWhatTheSuperClusterRefuses(t *testing.T) {
	const ns = "manageable-refused"
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, ns)
	super := r.runningPod(t, of, worlds.Pod(ns, "web"))
	r.deny(t, "pods", `object.spec.containers.all(c, c.image != "example.com/evil")`, super, func(o client.Object) {
		if pod, ok := o.(*corev1.Pod); ok {
			pod.Spec.Containers[0].Image = "example.com/evil"
		}
	})
	patchPod(t, of, ns, "web", `{"metadata":{"labels":{"role":"both"}},"spec":{"containers":[{"name":"main","image":"example.com/evil"}]}}`)
	waitForEvent(t, of, ns, "web", "Refused")
	r.followsLabel(t, of, super, ns, "after-a-refused-image")
}

// deny makes the super cluster refuse updates of a resource that do not fulfil an expression, until the function that it
// returns is called or the test ends. The probe is such an update of an object.
func (r *running) deny(t *testing.T, resource, expression string, object client.Object, probe func(client.Object)) (allow func()) {
	t.Helper()
	fail := admissionregistrationv1.Fail
	policy := &admissionregistrationv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: "deny-" + resource}, Spec: admissionregistrationv1.ValidatingAdmissionPolicySpec{
		FailurePolicy: &fail,
		MatchConstraints: &admissionregistrationv1.MatchResources{ResourceRules: []admissionregistrationv1.NamedRuleWithOperations{{
			RuleWithOperations: admissionregistrationv1.RuleWithOperations{
				Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Update},
				Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{resource}},
			},
		}}},
		Validations: []admissionregistrationv1.Validation{{Expression: expression, Message: "the test does not allow it"}},
	}}
	binding := &admissionregistrationv1.ValidatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: policy.Name}, Spec: admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec{
		PolicyName: policy.Name, ValidationActions: []admissionregistrationv1.ValidationAction{admissionregistrationv1.Deny},
	}}
	r.make(t, policy)
	r.make(t, binding)
	allowed := func(ctx context.Context) error {
		if err := r.client.Get(ctx, client.ObjectKeyFromObject(object), object); err != nil {
			return err
		}
		probe(object)
		return r.client.Update(ctx, object, client.DryRunAll)
	}
	worlds.Eventually(t, limit, "the policy to be in force", func(ctx context.Context) error {
		if err := allowed(ctx); err == nil {
			return errors.New("the update is still allowed")
		}
		return nil
	})
	return func() {
		t.Helper()
		if err := r.client.Delete(t.Context(), binding); err != nil {
			t.Fatal(err)
		}
		worlds.Eventually(t, limit, "the policy to be gone", allowed)
	}
}
