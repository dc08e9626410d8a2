package syncer_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

// deviceClass makes a class in the super cluster until the test ends, and waits for it in the tenant unless it is hidden.
func (r *running) deviceClass(t *testing.T, of tenant, name, public string) {
	t.Helper()
	class := &resourcev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if public != "" {
		class.Labels = map[string]string{names.LabelPublic: public}
	}
	r.make(t, class)
	if public == "false" {
		return
	}
	worlds.Eventually(t, limit, "the class in the tenant", func(ctx context.Context) error {
		_, err := of.ResourceV1().DeviceClasses().Get(ctx, name, metav1.GetOptions{})
		return err
	})
}

// deviceSpec asks for one device of a class.
func deviceSpec(class string) resourcev1.ResourceClaimSpec {
	return resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{{
		Name:    "one",
		Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: class, AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: 1},
	}}}}
}

func deviceClaim(namespace, name, class string) *resourcev1.ResourceClaim {
	return &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: deviceSpec(class)}
}

// claimingPod is a pod whose container uses a claim.
func claimingPod(namespace, name string, claim corev1.PodResourceClaim) *corev1.Pod {
	pod := worlds.Pod(namespace, name)
	claim.Name = "device"
	pod.Spec.ResourceClaims = []corev1.PodResourceClaim{claim}
	pod.Spec.Containers[0].Resources.Claims = []corev1.ResourceClaim{{Name: claim.Name}}
	return pod
}

// allocate plays the scheduler of the super cluster.
func (r *running) allocate(t *testing.T, of tenant, namespace, name, device string, pods ...*corev1.Pod) {
	t.Helper()
	claim := &resourcev1.ResourceClaim{}
	worlds.Eventually(t, limit, "the allocation of claim "+name, func(ctx context.Context) error {
		if err := r.client.Get(ctx, client.ObjectKey{Namespace: of.super(namespace), Name: name}, claim); err != nil {
			return err
		}
		if !slices.Contains(claim.Finalizers, resourcev1.Finalizer) {
			claim.Finalizers = append(claim.Finalizers, resourcev1.Finalizer)
			if err := r.client.Update(ctx, claim); err != nil {
				return err
			}
		}
		claim.Status.Allocation = &resourcev1.AllocationResult{Devices: resourcev1.DeviceAllocationResult{
			Results: []resourcev1.DeviceRequestAllocationResult{{Request: "one", Driver: "gpu.example.com", Pool: "node-dra", Device: device}},
		}}
		claim.Status.ReservedFor = nil
		for _, pod := range pods {
			claim.Status.ReservedFor = append(claim.Status.ReservedFor, resourcev1.ResourceClaimConsumerReference{Resource: "pods", Name: pod.Name, UID: pod.UID})
		}
		return r.client.Status().Update(ctx, claim)
	})
}

// end deletes a pod in the tenant and plays the kubelet that stops it.
func (r *running) end(t *testing.T, of tenant, namespace, name string) {
	t.Helper()
	now := int64(0)
	if err := of.CoreV1().Pods(namespace).Delete(t.Context(), name, metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
		t.Fatal(err)
	}
	worlds.Eventually(t, limit, "the super pod to be deleted", func(ctx context.Context) error {
		pod := &corev1.Pod{}
		err := r.client.Get(ctx, client.ObjectKey{Namespace: of.super(namespace), Name: name}, pod)
		if err == nil && pod.DeletionTimestamp != nil {
			err = r.client.Delete(ctx, pod, client.GracePeriodSeconds(0))
		}
		return gone(err)
	})
}

// usedBy says whether the tenant's claim is allocated and reserved for exactly these pods of the tenant.
func usedBy(ctx context.Context, of tenant, namespace, name string, pods ...string) error {
	claim, err := of.ResourceV1().ResourceClaims(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	want, got := sets.New[types.UID](), sets.New[types.UID]()
	for _, name := range pods {
		pod, err := of.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		want.Insert(pod.UID)
	}
	for _, reference := range claim.Status.ReservedFor {
		got.Insert(reference.UID)
	}
	allocated := claim.Status.Allocation != nil
	if !want.Equal(got) || allocated != (len(pods) > 0) || slices.Contains(claim.Finalizers, resourcev1.Finalizer) != allocated {
		return fmt.Errorf("finalizers are %v, status is %v", claim.Finalizers, claim.Status)
	}
	if strings.Contains(claim.String(), of.super(namespace)) {
		return fmt.Errorf("it shows names of the super cluster: %v", claim)
	}
	return nil
}

// Two pods share a device. The super cluster allocates it, the tenant sees for whom, and nobody undoes what the other wrote; it is
// released when its pods have gone, and the claim goes only then.
func TestPodsShareADevice(t *testing.T) {
	r := start(t)
	of := r.tenants[0]
	const namespace = "dra"
	r.namespace(t, of, namespace)
	r.deviceClass(t, of, "shared-gpu", "")
	claims := of.ResourceV1().ResourceClaims(namespace)
	claim := "shared"
	users := func(names ...string) {
		t.Helper()
		for _, name := range names {
			of.world.MakePod(t, claimingPod(namespace, name, corev1.PodResourceClaim{ResourceClaimName: &claim}))
		}
	}
	users("one", "two")
	worlds.Throughout(t, 300*time.Millisecond, "that there are no super pods before the claim", func(ctx context.Context) error {
		return gone(r.client.Get(ctx, client.ObjectKey{Namespace: of.super(namespace), Name: "one"}, &corev1.Pod{}))
	})
	made, err := claims.Create(t.Context(), deviceClaim(namespace, claim, "shared-gpu"), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := claims.Create(t.Context(), deviceClaim(namespace, "unused", "shared-gpu"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	one, two := r.superPod(t, of, namespace, "one"), r.superPod(t, of, namespace, "two")
	if diff := cmp.Diff(claimingPod("", "", corev1.PodResourceClaim{ResourceClaimName: &claim}).Spec.ResourceClaims, one.Spec.ResourceClaims); diff != "" {
		t.Errorf("claims of the super pod: -want +got\n%s", diff)
	}
	r.allocate(t, of, namespace, claim, "gpu-1", one, two)
	both := func(ctx context.Context) error { return usedBy(ctx, of, namespace, claim, "one", "two") }
	worlds.Eventually(t, limit, "the allocation in the tenant", both)
	r.kubelet(t, one, "node-dra", "10.9.8.1")
	worlds.Eventually(t, limit, "the pod of the tenant to run", func(ctx context.Context) error {
		pod, err := of.CoreV1().Pods(namespace).Get(ctx, "one", metav1.GetOptions{})
		if err == nil && pod.Status.Phase != corev1.PodRunning {
			err = fmt.Errorf("it is %s", pod.Status.Phase)
		}
		return err
	})
	settled, err := claims.Get(t.Context(), claim, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	worlds.Throughout(t, 2500*time.Millisecond, "the tenant's claim", func(ctx context.Context) error { // longer than a patrol
		now, err := claims.Get(ctx, claim, metav1.GetOptions{})
		if err == nil && now.ResourceVersion != settled.ResourceVersion {
			err = fmt.Errorf("it was written without need: %s", cmp.Diff(settled, now))
		}
		return errors.Join(err, both(ctx))
	})

	// What the tenant invents does not stay.
	settled.Status.ReservedFor = append(settled.Status.ReservedFor, resourcev1.ResourceClaimConsumerReference{Resource: "pods", Name: "ghost", UID: "ghost"})
	if _, err := claims.UpdateStatus(t.Context(), settled, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	worlds.Eventually(t, limit, "an invented reservation to go", both)

	remove := func(pod string) {
		t.Helper()
		r.end(t, of, namespace, pod)
	}
	remove("two")
	worlds.Eventually(t, limit, "the reservation of a pod that is gone to go", func(ctx context.Context) error {
		return usedBy(ctx, of, namespace, claim, "one")
	})
	if err := claims.Delete(t.Context(), claim, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	superClaim := &resourcev1.ResourceClaim{}
	key := client.ObjectKey{Namespace: of.super(namespace), Name: claim}
	worlds.Eventually(t, limit, "the replica to be deleted", func(ctx context.Context) error {
		if err := r.client.Get(ctx, key, superClaim); err != nil {
			return err
		}
		if superClaim.DeletionTimestamp == nil || superClaim.Status.Allocation == nil {
			return fmt.Errorf("it is %v", superClaim)
		}
		return nil
	})
	worlds.Throughout(t, 500*time.Millisecond, "the claim of a running pod", func(ctx context.Context) error {
		return usedBy(ctx, of, namespace, claim, "one")
	})
	remove("one")
	worlds.Eventually(t, limit, "the claim to go on both sides", func(ctx context.Context) error {
		_, err := claims.Get(ctx, claim, metav1.GetOptions{})
		return errors.Join(gone(err), gone(r.client.Get(ctx, key, superClaim)))
	})

	// A claim that stays when its pods have gone is released, and not kept in the super cluster.
	again, err := claims.Create(t.Context(), deviceClaim(namespace, claim, "shared-gpu"), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if again.UID == made.UID {
		t.Fatal("the claim is the old one")
	}
	users("three")
	r.allocate(t, of, namespace, claim, "gpu-2", r.superPod(t, of, namespace, "three"))
	worlds.Eventually(t, limit, "the allocation of the successor", func(ctx context.Context) error {
		return usedBy(ctx, of, namespace, claim, "three")
	})
	remove("three")
	worlds.Eventually(t, limit, "the claim to be released", func(ctx context.Context) error {
		return errors.Join(usedBy(ctx, of, namespace, claim), gone(r.client.Get(ctx, key, superClaim)))
	})
	if err := gone(r.client.Get(t.Context(), client.ObjectKey{Namespace: of.super(namespace), Name: "unused"}, superClaim)); err != nil {
		t.Errorf("a claim that no pod uses: %v", err)
	}
}

// The tenant's control plane makes claims of templates, and the super cluster makes none.
func TestClaimsOfTemplates(t *testing.T) {
	r := start(t)
	of := r.tenants[0]
	const namespace = "dra-template"
	r.namespace(t, of, namespace)
	r.deviceClass(t, of, "templated-gpu", "")
	template := &resourcev1.ResourceClaimTemplate{
		ObjectMeta: metav1.ObjectMeta{Name: "template"}, Spec: resourcev1.ResourceClaimTemplateSpec{Spec: deviceSpec("templated-gpu")},
	}
	if _, err := of.ResourceV1().ResourceClaimTemplates(namespace).Create(t.Context(), template, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	of.world.MakePod(t, claimingPod(namespace, "web", corev1.PodResourceClaim{ResourceClaimTemplateName: &template.Name}))
	super := r.superPod(t, of, namespace, "web")
	claimed := func(ctx context.Context) (string, error) {
		pod, err := of.CoreV1().Pods(namespace).Get(ctx, "web", metav1.GetOptions{})
		if err != nil {
			return "", err
		}
		statuses := pod.Status.ResourceClaimStatuses
		if len(statuses) != 1 || statuses[0].ResourceClaimName == nil {
			return "", fmt.Errorf("statuses are %v", statuses)
		}
		return *statuses[0].ResourceClaimName, nil
	}
	name, err := claimed(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]corev1.PodResourceClaim{{Name: "device", ResourceClaimName: &name}}, super.Spec.ResourceClaims); diff != "" {
		t.Errorf("claims of the super pod: -want +got\n%s", diff)
	}
	if diff := cmp.Diff([]corev1.ResourceClaim{{Name: "device"}}, super.Spec.Containers[0].Resources.Claims); diff != "" {
		t.Errorf("claims of its container: -want +got\n%s", diff)
	}
	r.allocate(t, of, namespace, name, "gpu-1", super)
	r.kubelet(t, super, "node-dra", "10.9.8.2")
	worlds.Eventually(t, limit, "the allocation in the tenant", func(ctx context.Context) error {
		return usedBy(ctx, of, namespace, name, "web")
	})
	worlds.Throughout(t, 500*time.Millisecond, "the one claim", func(ctx context.Context) error {
		var list resourcev1.ResourceClaimList
		if err := r.client.List(ctx, &list, client.InNamespace(of.super(namespace))); err != nil {
			return err
		}
		if len(list.Items) != 1 || list.Items[0].Name != name {
			return fmt.Errorf("the super cluster has %v", list.Items)
		}
		if now, err := claimed(ctx); err != nil || now != name {
			return fmt.Errorf("the pod has %q, %w", now, err)
		}
		return nil
	})
	r.end(t, of, namespace, "web")
	worlds.Eventually(t, limit, "the claim to go with its pod", func(ctx context.Context) error {
		_, err := of.ResourceV1().ResourceClaims(namespace).Get(ctx, name, metav1.GetOptions{})
		return errors.Join(gone(err), gone(r.client.Get(ctx, client.ObjectKey{Namespace: of.super(namespace), Name: name}, &resourcev1.ResourceClaim{})))
	})
}

// What would reach devices that are not for the tenant is refused, and what is offered later is not.
func TestDevicesThatAreNotOffered(t *testing.T) {
	r := start(t)
	of := r.tenants[0]
	const namespace = "dra-refused"
	r.namespace(t, of, namespace)
	r.deviceClass(t, of, "offered-gpu", "")
	r.deviceClass(t, of, "hidden-gpu", "false")
	body := fmt.Appendf(nil, `{"metadata":{"labels":{%q:"true"}}}`, resourcev1.DRAAdminNamespaceLabelKey)
	if _, err := of.CoreV1().Namespaces().Patch(t.Context(), namespace, types.MergePatchType, body, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	admin := deviceClaim(namespace, "admin", "offered-gpu")
	yes := true
	admin.Spec.Devices.Requests[0].Exactly.AdminAccess = &yes
	for _, claim := range []*resourcev1.ResourceClaim{admin, deviceClaim(namespace, "hidden", "hidden-gpu")} {
		if _, err := of.ResourceV1().ResourceClaims(namespace).Create(t.Context(), claim, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		of.world.MakePod(t, claimingPod(namespace, "user-of-"+claim.Name, corev1.PodResourceClaim{ResourceClaimName: &claim.Name}))
	}
	extended := worlds.Pod(namespace, "extended")
	one := corev1.ResourceList{corev1.ResourceName(resourcev1.ResourceDeviceClassPrefix + "hidden-gpu"): apiresource.MustParse("1")}
	extended.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: one, Limits: one}
	of.world.MakePod(t, extended)

	waitForEvent(t, of, namespace, "admin", "AdminAccessNotAllowed")
	waitForEvent(t, of, namespace, "hidden", "DeviceClassNotOffered")
	waitForEvent(t, of, namespace, "extended", "Unsupported")
	for _, o := range []client.Object{
		&resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Name: "admin"}}, &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Name: "hidden"}},
		&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "user-of-admin"}}, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "user-of-hidden"}},
		&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "extended"}},
	} {
		if err := gone(r.client.Get(t.Context(), client.ObjectKey{Namespace: of.super(namespace), Name: o.GetName()}, o)); err != nil {
			t.Errorf("%T %s in the super cluster: %v", o, o.GetName(), err)
		}
	}
	offer := fmt.Appendf(nil, `{"metadata":{"labels":{%q:"true"}}}`, names.LabelPublic)
	if err := r.client.Patch(t.Context(), &resourcev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "hidden-gpu"}}, client.RawPatch(types.MergePatchType, offer)); err != nil {
		t.Fatal(err)
	}
	r.superPod(t, of, namespace, "user-of-hidden")
}
