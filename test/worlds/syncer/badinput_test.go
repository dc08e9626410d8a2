package syncer_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

// In the super cluster an object carries annotations of the syncer's, too: one that is just small enough for the tenant is
// too large there. Of a pod a copy that nobody reads is left out. Where that is not enough the tenant is told, and whatever
// else it has is served.
func TestObjectsTooLargeForTheSuperCluster(t *testing.T) {
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, "large")
	large := func(name string, size int) *corev1.Pod {
		pod := worlds.Pod("large", name)
		pod.Annotations = map[string]string{"example.com/a": strings.Repeat("x", size-len("example.com/a"))}
		return pod
	}
	const limitOfAnnotations = 256 * 1024
	of.world.MakePod(t, large("unread", limitOfAnnotations))
	of.world.MakePod(t, readingAnnotations(large("read", 140*1024)))
	of.world.MakePod(t, readingAnnotations(large("large", limitOfAnnotations)))
	r.superPod(t, of, "large", "unread")
	if shown := len(shownAnnotations(r.superPod(t, of, "large", "read"))); shown < 140*1024 {
		t.Errorf("the containers of a pod with an annotation of 140 KiB read %d bytes", shown)
	}
	if told := waitForEvent(t, of, "large", "large", "AnnotationsTooLong"); !strings.Contains(told.Message, strconv.Itoa(limitOfAnnotations)) {
		t.Errorf("the tenant is told %s", told.Message)
	}
	of.world.MakePod(t, worlds.Pod("large", "small"))
	r.superPod(t, of, "large", "small")
	if err := gone(r.client.Get(t.Context(), client.ObjectKey{Namespace: of.super("large"), Name: "large"}, &corev1.Pod{})); err != nil {
		t.Errorf("the large pod in the super cluster: %v", err)
	}

	// Once it fits it is served, without anybody doing anything else.
	_, err := of.CoreV1().Pods("large").Patch(t.Context(), "large", types.MergePatchType, []byte(`{"metadata":{"annotations":null}}`), metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r.superPod(t, of, "large", "large")
}

// readingAnnotations makes a pod read its annotations from a volume.
func readingAnnotations(pod *corev1.Pod) *corev1.Pod {
	pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: "info", VolumeSource: corev1.VolumeSource{
		DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{
			{Path: "annotations", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.annotations"}},
		}},
	}})
	return pod
}

// shownAnnotations is what the volume that readingAnnotations makes contains.
func shownAnnotations(super *corev1.Pod) string {
	for _, volume := range super.Spec.Volumes {
		if volume.Name == "info" {
			path := volume.DownwardAPI.Items[0].FieldRef.FieldPath
			return super.Annotations[strings.TrimSuffix(strings.TrimPrefix(path, "metadata.annotations['"), "']")]
		}
	}
	return ""
}

// An annotation of a running pod may grow. When it gets too large the tenant is told, and nothing else of the pod stands still.
func TestAnnotationsGrowInARunningPod(t *testing.T) {
	const ns = "growing"
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, ns)
	super := r.runningPod(t, of, readingAnnotations(worlds.Pod(ns, "web")))
	grow := func(size int) {
		t.Helper()
		patchPod(t, of, ns, "web", fmt.Sprintf(`{"metadata":{"annotations":{"a":%q}}}`, strings.Repeat("x", size)))
	}
	shows := func(size int) {
		t.Helper()
		worlds.Eventually(t, limit, fmt.Sprintf("%d bytes to be shown", size), func(ctx context.Context) error {
			now := &corev1.Pod{}
			if err := r.client.Get(ctx, client.ObjectKeyFromObject(super), now); err != nil {
				return err
			}
			if got := strings.Count(shownAnnotations(now), "x"); got != size || now.UID != super.UID {
				return fmt.Errorf("pod %s shows %d", now.UID, got)
			}
			return nil
		})
	}
	grow(140 * 1024)
	shows(140 * 1024)
	grow(255 * 1024)
	waitForEvent(t, of, ns, "web", "AnnotationsTooLong")
	r.followsLabel(t, of, super, ns, "after-annotations-grew")
	shows(140 * 1024)
	grow(10)
	shows(10)
}

// Names may be as long as Kubernetes allows, on both sides.
func TestLongestNames(t *testing.T) {
	r := start(t)
	of := r.tenants[0]
	const label, subdomain = 63, 253
	namespace := strings.Repeat("n", label)
	r.namespace(t, of, namespace)
	long := strings.Repeat(strings.Repeat("a", label-1)+".", 4)[:subdomain-1] + "a"
	core := of.CoreV1()
	if _, err := core.ConfigMaps(namespace).Create(t.Context(), worlds.ConfigMap(namespace, long, nil), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: long}}
	if _, err := core.Secrets(namespace).Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: long}}
	if _, err := core.ServiceAccounts(namespace).Create(t.Context(), account, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	service := worlds.Service(namespace, strings.Repeat("s", label))
	if _, err := core.Services(namespace).Create(t.Context(), service, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pod := worlds.Pod(namespace, long)
	pod.Labels = nil // values are labels, and so shorter
	pod.Spec.ServiceAccountName = long
	pod.Spec.Volumes = []corev1.Volume{
		{Name: strings.Repeat("v", label), VolumeSource: corev1.VolumeSource{
			ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: long}},
		}},
		{Name: "secret", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: long}}},
	}
	of.world.MakePod(t, pod)
	r.superPod(t, of, namespace, long)
	for name, objects := range map[string][]client.Object{
		long: {&corev1.ServiceAccount{}}, names.SuperConfigMap(long): {&corev1.ConfigMap{}, &corev1.Secret{}},
	} {
		for _, object := range objects {
			if err := r.client.Get(t.Context(), client.ObjectKey{Namespace: of.super(namespace), Name: name}, object); err != nil {
				t.Errorf("%T: %v", object, err)
			}
		}
	}
	worlds.Eventually(t, limit, "the Service with the longest name", func(ctx context.Context) error {
		return r.client.Get(ctx, client.ObjectKey{Namespace: of.super(namespace), Name: service.Name}, &corev1.Service{})
	})
}

// The super object always ends as the replica of the newest tenant object, however fast its predecessors came and went.
func TestRecreationWithinMilliseconds(t *testing.T) {
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, "again")
	now := int64(0)
	var last types.UID
	for i := range 30 {
		pod := worlds.Pod("again", "web")
		pod.Labels = map[string]string{"round": fmt.Sprint(i)}
		last = of.world.MakePod(t, pod).UID
		if i == 29 {
			break
		}
		if err := of.CoreV1().Pods("again").Delete(t.Context(), "web", metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
			t.Fatal(err)
		}
	}
	replicates := func(ctx context.Context) error {
		var super corev1.Pod
		if err := r.client.Get(ctx, client.ObjectKey{Namespace: of.super("again"), Name: "web"}, &super); err != nil {
			return err
		}
		if got := super.Annotations[names.AnnotationUID]; got != string(last) || super.Labels["round"] != "29" || super.DeletionTimestamp != nil {
			return fmt.Errorf("it is of %s, round %s, deleted %v", got, super.Labels["round"], super.DeletionTimestamp)
		}
		return nil
	}
	worlds.Eventually(t, limit, "the replica of the last pod", replicates)
	worlds.Throughout(t, time.Second, "the replica of the last pod stays", replicates)
}

// A tenant that updates an object without pause costs the super cluster fewer writes than it makes itself, and the last
// state arrives.
func TestHundredUpdatesPerSecond(t *testing.T) {
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, "busy")
	if _, err := of.CoreV1().ConfigMaps("busy").Create(t.Context(), worlds.ConfigMap("busy", "c", map[string]string{"n": "0"}), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	usingPod(t, of, "busy", "user", "c", "")
	r.superPod(t, of, "busy", "user")
	const updates = 300
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for i := range updates {
		<-tick.C
		patch := fmt.Appendf(nil, `{"data":{"n":"%d"}}`, i+1)
		if _, err := of.CoreV1().ConfigMaps("busy").Patch(t.Context(), "c", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	worlds.Eventually(t, limit, "the last update", func(ctx context.Context) error {
		var super corev1.ConfigMap
		if err := r.client.Get(ctx, client.ObjectKey{Namespace: of.super("busy"), Name: names.SuperConfigMap("c")}, &super); err != nil {
			return err
		}
		if super.Data["n"] != fmt.Sprint(updates) {
			return fmt.Errorf("data is %v", super.Data)
		}
		return nil
	})
}

// A thousand Services in one namespace arrive, each under the address that the tenant knows.
func TestThousandServices(t *testing.T) {
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, "thousand")
	const services = 1000
	addresses := map[string]string{}
	for i := range services {
		made, err := of.CoreV1().Services("thousand").Create(t.Context(), worlds.Service("thousand", fmt.Sprintf("s%d", i)), metav1.CreateOptions{})
		if apierrors.IsInternalError(err) || apierrors.IsInvalid(err) {
			t.Fatalf("after %d services the range of %s is full: %v", i, of.world.ServiceRanges, err)
		}
		if err != nil {
			t.Fatal(err)
		}
		addresses[made.Name] = made.Spec.ClusterIP
	}
	worlds.Eventually(t, 3*limit, "all Services", func(ctx context.Context) error {
		var list corev1.ServiceList
		if err := r.client.List(ctx, &list, client.InNamespace(of.super("thousand"))); err != nil {
			return err
		}
		if len(list.Items) != services {
			return fmt.Errorf("there are %d", len(list.Items))
		}
		for _, s := range list.Items {
			if s.Spec.ClusterIP != addresses[s.Name] {
				return fmt.Errorf("%s has %s, in the tenant %s", s.Name, s.Spec.ClusterIP, addresses[s.Name])
			}
		}
		return nil
	})
}

// A finalizer in the tenant keeps the tenant's object, and nothing in the super cluster.
func TestFinalizersThatNeverGoAway(t *testing.T) {
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, "kept")
	pod := worlds.Pod("kept", "web")
	pod.Finalizers = []string{"example.com/never"}
	of.world.MakePod(t, pod)
	r.kubelet(t, r.superPod(t, of, "kept", "web"), "node-kept", "10.9.3.1")
	now := int64(0)
	if err := of.CoreV1().Pods("kept").Delete(t.Context(), "web", metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
		t.Fatal(err)
	}
	super := client.ObjectKey{Namespace: of.super("kept"), Name: "web"}
	worlds.Eventually(t, limit, "the super pod to go", func(ctx context.Context) error {
		return gone(r.client.Get(ctx, super, &corev1.Pod{}))
	})
	worlds.Throughout(t, time.Second, "nothing runs for a pod that is being deleted", func(ctx context.Context) error {
		if err := gone(r.client.Get(ctx, super, &corev1.Pod{})); err != nil {
			return err
		}
		_, err := of.CoreV1().Pods("kept").Get(ctx, "web", metav1.GetOptions{})
		return err
	})
	if _, err := of.CoreV1().Pods("kept").Patch(t.Context(), "web", types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	worlds.Eventually(t, limit, "the tenant pod to go", func(ctx context.Context) error {
		_, err := of.CoreV1().Pods("kept").Get(ctx, "web", metav1.GetOptions{})
		return gone(err)
	})
}

// Admission of the tenant's own may change pods before the syncer sees them, and may refuse what the syncer brings up. The
// syncer goes on trying, for that tenant alone.
func TestAdmissionOfTheTenant(t *testing.T) {
	r := start(t)
	of, other := r.tenants[0], r.tenants[1]
	r.namespace(t, of, "guarded")
	r.namespace(t, other, "guarded")
	failing, all := admissionv1.Fail, admissionv1.AllScopes
	policies := of.AdmissionregistrationV1().ValidatingAdmissionPolicies()
	bindings := of.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings()
	policy := &admissionv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "no-reports"},
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			FailurePolicy: &failing,
			MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{
				RuleWithOperations: admissionv1.RuleWithOperations{
					Operations: []admissionv1.OperationType{admissionv1.OperationAll},
					Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods/status", "pods/binding", "bindings"}, Scope: &all},
				},
			}}},
			Validations: []admissionv1.Validation{{Expression: "false", Message: "nobody reports here"}},
		},
	}
	if _, err := policies.Create(t.Context(), policy, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	binding := &admissionv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "no-reports"},
		Spec:       admissionv1.ValidatingAdmissionPolicyBindingSpec{PolicyName: "no-reports", ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny}},
	}
	if _, err := bindings.Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	removed := false
	remove := func() {
		if removed {
			return
		}
		removed = true
		ctx := context.WithoutCancel(t.Context())
		err := errors.Join(bindings.Delete(ctx, "no-reports", metav1.DeleteOptions{}), policies.Delete(ctx, "no-reports", metav1.DeleteOptions{}))
		if err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(remove)
	worlds.Eventually(t, limit, "the policy to be enforced", func(ctx context.Context) error {
		probe := worlds.Pod("guarded", "probe")
		_, err := of.CoreV1().Pods("guarded").Create(ctx, probe, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
		_, err = of.CoreV1().Pods("guarded").Patch(ctx, "probe", types.MergePatchType, []byte(`{"status":{"message":"x"}}`), metav1.PatchOptions{}, "status")
		if err == nil || !strings.Contains(err.Error(), "nobody reports here") {
			return fmt.Errorf("the policy does not answer a report, but: %w", cmp.Or(err, errors.New("nobody")))
		}
		return nil
	})

	phase := func(in tenant) func(context.Context) error {
		return func(ctx context.Context) error {
			now, err := in.CoreV1().Pods("guarded").Get(ctx, "web", metav1.GetOptions{})
			if err == nil && now.Status.Phase != corev1.PodRunning {
				err = fmt.Errorf("phase is %s, node %q", now.Status.Phase, now.Spec.NodeName)
			}
			return err
		}
	}
	for i, in := range []tenant{of, other} {
		in.world.MakePod(t, worlds.Pod("guarded", "web"))
		r.kubelet(t, r.superPod(t, in, "guarded", "web"), "node-guarded", fmt.Sprintf("10.9.4.%d", i+1))
	}
	worlds.Eventually(t, limit, "the other tenant to be served", phase(other))
	worlds.Throughout(t, time.Second, "the pod is not reported where that is forbidden", func(ctx context.Context) error {
		if phase(of)(ctx) == nil {
			return errors.New("it runs")
		}
		return nil
	})
	remove()
	worlds.Eventually(t, limit, "the pod to be reported once that is allowed", phase(of))
}
