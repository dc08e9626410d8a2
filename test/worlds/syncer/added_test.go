package syncer_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	psa "k8s.io/pod-security-admission/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtualcluster-io/virtualcluster/syncer"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

// compute is an amount of both resources.
func compute(cpu, memory string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceCPU: apiresource.MustParse(cpu), corev1.ResourceMemory: apiresource.MustParse(memory)}
}

// What the syncer adds to a pod passes the quotas, limits and policies of the operator that the tenant's own containers pass,
// at the level restricted, and is not counted in quotas.
func TestWhatIsAddedToPodsPassesPolicies(t *testing.T) {
	const ns = "added"
	r := start(t, func(o *syncer.Options) { o.HostsImage = "registry.example/vn-agent:v1" })
	of := r.tenants[0]
	r.rootNamespace(t, of, "restricted")
	r.namespace(t, of, ns)
	worlds.Eventually(t, limit, "the level of the namespace", func(ctx context.Context) error {
		namespace := &corev1.Namespace{}
		err := r.client.Get(ctx, client.ObjectKey{Name: of.super(ns)}, namespace)
		if level := namespace.Labels[psa.EnforceLevelLabel]; err == nil && level != string(psa.LevelRestricted) {
			err = fmt.Errorf("it is %s", level)
		}
		return err
	})
	quota := r.limitNamespace(t, of.super(ns))
	r.demand(t, of.super(ns))

	replicas, labels := int32(1), map[string]string{"app": "db"}
	template := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: bounded()}
	_, err := of.AppsV1().StatefulSets(ns).Create(t.Context(), &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: "db"},
		Spec:       appsv1.StatefulSetSpec{ServiceName: "db", Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: template},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	super := r.superPod(t, of, ns, "db-0")
	if got := len(super.Spec.InitContainers); got != 1 {
		t.Fatalf("the replica has %d init containers, want that of the syncer", got)
	}
	if super.Status.QOSClass != corev1.PodQOSGuaranteed {
		t.Errorf("the QoS class is %s", super.Status.QOSClass)
	}
	if err := r.client.Get(t.Context(), client.ObjectKeyFromObject(quota), quota); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[corev1.ResourceName]string{"requests.cpu": "100m", "requests.memory": "64Mi", "limits.cpu": "100m", "limits.memory": "64Mi"} {
		if used := quota.Status.Used[name]; used.Cmp(apiresource.MustParse(want)) != 0 {
			t.Errorf("%s of %s is used, want %s", used.String(), name, want)
		}
	}

	// The same policies refuse what the tenant does not bound.
	free := worlds.Pod(ns, "free")
	free.Spec = bounded()
	free.Spec.Containers[0].Resources = corev1.ResourceRequirements{}
	of.world.MakePod(t, free)
	waitForEvent(t, of, ns, "free", "Refused")
}

// bounded is the spec of a pod that passes all that an operator may demand.
func bounded() corev1.PodSpec {
	spec := worlds.Pod("", "").Spec
	yes, no := true, false
	spec.Containers[0].ImagePullPolicy = corev1.PullAlways
	spec.Containers[0].Resources = corev1.ResourceRequirements{Limits: compute("100m", "64Mi"), Requests: compute("100m", "64Mi")}
	spec.Containers[0].SecurityContext = &corev1.SecurityContext{
		RunAsNonRoot: &yes, AllowPrivilegeEscalation: &no, Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	return spec
}

// limitNamespace gives a super namespace a quota, counted as its controller does, and limits of containers.
func (r *running) limitNamespace(t *testing.T, namespace string) *corev1.ResourceQuota {
	t.Helper()
	limits := &corev1.LimitRange{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "limits"},
		Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{
			{Type: corev1.LimitTypeContainer, Min: compute("100m", "64Mi"), Max: compute("200m", "128Mi"), MaxLimitRequestRatio: compute("1", "1")},
			{Type: corev1.LimitTypePod, Max: compute("100m", "64Mi")},
		}},
	}
	hard := corev1.ResourceList{}
	none := corev1.ResourceList{}
	for _, name := range []corev1.ResourceName{"requests.cpu", "requests.memory", "limits.cpu", "limits.memory"} {
		hard[name], none[name] = apiresource.MustParse("1Gi"), apiresource.MustParse("0")
	}
	quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "quota"}, Spec: corev1.ResourceQuotaSpec{Hard: hard}}
	for _, o := range []client.Object{limits, quota} {
		if err := r.client.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	quota.Status = corev1.ResourceQuotaStatus{Hard: hard, Used: none}
	if err := r.client.Status().Update(t.Context(), quota); err != nil {
		t.Fatal(err)
	}
	r.awaitDenied(t, namespace, func(p *corev1.PodSpec) { p.Containers[0].Resources = corev1.ResourceRequirements{} })
	return quota
}

// demand makes the super cluster refuse pods of a namespace whose containers have no limits, or use images that were not
// pulled for them, or users that are not of the image, and volumes without a bound.
func (r *running) demand(t *testing.T, namespace string) {
	t.Helper()
	fail := admissionregistrationv1.Fail
	all := "(object.spec.containers + (has(object.spec.initContainers) ? object.spec.initContainers : []))"
	policy := &admissionregistrationv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: "demand"}, Spec: admissionregistrationv1.ValidatingAdmissionPolicySpec{
		FailurePolicy: &fail,
		MatchConstraints: &admissionregistrationv1.MatchResources{
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: namespace}},
			ResourceRules: []admissionregistrationv1.NamedRuleWithOperations{{RuleWithOperations: admissionregistrationv1.RuleWithOperations{
				Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
				Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
			}}},
		},
		Validations: []admissionregistrationv1.Validation{
			{Expression: all + ".all(c, has(c.resources.limits) && 'cpu' in c.resources.limits && 'memory' in c.resources.limits)", Message: "containers need limits"},
			{Expression: all + ".all(c, c.imagePullPolicy == 'Always')", Message: "images must be pulled"},
			{Expression: all + ".all(c, has(c.securityContext) && !has(c.securityContext.runAsUser))", Message: "users are those of images"},
			{Expression: "!has(object.spec.volumes) || object.spec.volumes.all(v, !has(v.emptyDir) || has(v.emptyDir.sizeLimit))", Message: "volumes need a bound"},
		},
	}}
	r.make(t, policy)
	r.make(t, &admissionregistrationv1.ValidatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: policy.Name}, Spec: admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec{
		PolicyName: policy.Name, ValidationActions: []admissionregistrationv1.ValidationAction{admissionregistrationv1.Deny},
	}})
	r.awaitDenied(t, namespace, func(p *corev1.PodSpec) { p.Containers[0].ImagePullPolicy = corev1.PullIfNotPresent })
}

// awaitDenied waits until the super cluster refuses a pod with a certain fault.
func (r *running) awaitDenied(t *testing.T, namespace string, fault func(*corev1.PodSpec)) {
	t.Helper()
	worlds.Eventually(t, limit, "the policy to be in force", func(ctx context.Context) error {
		pod := worlds.Pod(namespace, "probe")
		pod.Spec = bounded()
		fault(&pod.Spec)
		if err := r.client.Create(ctx, pod, client.DryRunAll); err == nil {
			return errors.New("the pod is let through")
		}
		return nil
	})
}
