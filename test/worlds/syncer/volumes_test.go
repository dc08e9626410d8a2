package syncer_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtualcluster-io/virtualcluster/syncer"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

// storageDriver is a driver of volumes that runs outside of Kubernetes: the tests play it.
const storageDriver = "csi.example.com"

// storageClass offers a class to tenants until the test ends.
func (r *running) storageClass(t *testing.T, of tenant, name string, policy corev1.PersistentVolumeReclaimPolicy) {
	t.Helper()
	r.make(t, &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Provisioner: storageDriver, ReclaimPolicy: &policy})
	worlds.Eventually(t, limit, "the class in the tenant", func(ctx context.Context) error {
		_, err := of.StorageV1().StorageClasses().Get(ctx, name, metav1.GetOptions{})
		return err
	})
}

func volumeClaim(name, class string) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: &class,
		Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: apiresource.MustParse("1Gi")}},
	}}
}

func makeClaim(t *testing.T, of tenant, namespace string, claim *corev1.PersistentVolumeClaim) {
	t.Helper()
	if _, err := of.CoreV1().PersistentVolumeClaims(namespace).Create(t.Context(), claim, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// provision plays the external provisioner for a claim, until both sides have bound it, and returns the name of the volume.
func (r *running) provision(t *testing.T, of tenant, namespace, name string) string {
	t.Helper()
	claim := &corev1.PersistentVolumeClaim{}
	key := client.ObjectKey{Namespace: of.super(namespace), Name: name}
	worlds.Eventually(t, limit, "the claim in the super cluster", func(ctx context.Context) error { return r.client.Get(ctx, key, claim) })
	class := &storagev1.StorageClass{}
	if err := r.client.Get(t.Context(), client.ObjectKey{Name: *claim.Spec.StorageClassName}, class); err != nil {
		t.Fatal(err)
	}
	volume := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "pvc-" + string(claim.UID), Annotations: map[string]string{"pv.kubernetes.io/provisioned-by": storageDriver}},
		Spec: corev1.PersistentVolumeSpec{
			Capacity: claim.Spec.Resources.Requests, AccessModes: claim.Spec.AccessModes, StorageClassName: class.Name,
			PersistentVolumeReclaimPolicy: *class.ReclaimPolicy, VolumeAttributesClassName: claim.Spec.VolumeAttributesClassName,
			ClaimRef:               &corev1.ObjectReference{APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: key.Namespace, Name: name, UID: claim.UID},
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: storageDriver, VolumeHandle: "disk"}},
		},
	}
	if err := r.client.Create(t.Context(), volume); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.discard(t, of, volume.Name) })
	worlds.Eventually(t, limit, "both sides to bind the claim", func(ctx context.Context) error { return r.bound(ctx, of, namespace, name, volume.Name) })
	return volume.Name
}

// bound says whether a claim is bound to the volume on both sides.
func (r *running) bound(ctx context.Context, of tenant, namespace, name, volume string) error {
	super := &corev1.PersistentVolumeClaim{}
	if err := r.client.Get(ctx, client.ObjectKey{Namespace: of.super(namespace), Name: name}, super); err != nil {
		return err
	}
	claim, err := of.CoreV1().PersistentVolumeClaims(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	for side, c := range map[string]*corev1.PersistentVolumeClaim{"super": super, "tenant": claim} {
		if c.Spec.VolumeName != volume || c.Status.Phase != corev1.ClaimBound {
			return fmt.Errorf("in the %s it is %s to %q", side, c.Status.Phase, c.Spec.VolumeName)
		}
	}
	if super.DeletionTimestamp != nil {
		return fmt.Errorf("in the super cluster it is being deleted")
	}
	return nil
}

// volumeIs says whether a volume has the phase and the reclaim policy on both sides.
func (r *running) volumeIs(ctx context.Context, of tenant, name string, phase corev1.PersistentVolumePhase, policy corev1.PersistentVolumeReclaimPolicy) error {
	super := &corev1.PersistentVolume{}
	if err := r.client.Get(ctx, client.ObjectKey{Name: name}, super); err != nil {
		return err
	}
	shown, err := of.CoreV1().PersistentVolumes().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	for side, v := range map[string]*corev1.PersistentVolume{"super": super, "tenant": shown} {
		if v.Status.Phase != phase || v.Spec.PersistentVolumeReclaimPolicy != policy {
			return fmt.Errorf("in the %s it is %s, %s", side, v.Status.Phase, v.Spec.PersistentVolumeReclaimPolicy)
		}
	}
	return nil
}

// discard plays the external provisioner that deletes a volume, on a claim or not.
func (r *running) discard(t *testing.T, of tenant, name string) {
	t.Helper()
	ctx := context.Background() // the test's context may have ended
	volume := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if err := r.client.Delete(ctx, volume); client.IgnoreNotFound(err) != nil {
		t.Error(err)
	}
	body := []byte(`{"metadata":{"finalizers":null}}`)
	if err := r.client.Patch(ctx, volume, client.RawPatch(types.MergePatchType, body)); client.IgnoreNotFound(err) != nil {
		t.Error(err)
	}
	_ = of.CoreV1().PersistentVolumes().Delete(ctx, name, metav1.DeleteOptions{})
	_, _ = of.CoreV1().PersistentVolumes().Patch(ctx, name, types.MergePatchType, body, metav1.PatchOptions{})
}

func patchVolume(t *testing.T, of tenant, name, body string) {
	t.Helper()
	if _, err := of.CoreV1().PersistentVolumes().Patch(t.Context(), name, types.MergePatchType, []byte(body), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
}

func deleteClaim(t *testing.T, of tenant, namespace, name string) {
	t.Helper()
	if err := of.CoreV1().PersistentVolumeClaims(namespace).Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// claimGone says whether a claim is gone on both sides.
func (r *running) claimGone(ctx context.Context, of tenant, namespace, name string) error {
	_, err := of.CoreV1().PersistentVolumeClaims(namespace).Get(ctx, name, metav1.GetOptions{})
	if err := gone(err); err != nil {
		return fmt.Errorf("in the tenant: %w", err)
	}
	return gone(r.client.Get(ctx, client.ObjectKey{Namespace: of.super(namespace), Name: name}, &corev1.PersistentVolumeClaim{}))
}

const (
	patchRetain = `{"spec":{"persistentVolumeReclaimPolicy":"Retain"}}`
	patchDelete = `{"spec":{"persistentVolumeReclaimPolicy":"Delete"}}`
)

// A claim whose finalizers are not done keeps its volume.
func TestVolumesWaitForTheFinalizersOfTheirClaims(t *testing.T) {
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, "finalized")
	r.storageClass(t, of, "finalized", corev1.PersistentVolumeReclaimDelete)
	claim := volumeClaim("data", "finalized")
	claim.Finalizers = []string{"example.com/backup-first"}
	makeClaim(t, of, "finalized", claim)
	volume := r.provision(t, of, "finalized", "data")
	deleteClaim(t, of, "finalized", "data")
	worlds.Throughout(t, 3*time.Second, "that the claim stays bound", func(ctx context.Context) error { // longer than a patrol
		if err := r.bound(ctx, of, "finalized", "data", volume); err != nil {
			return err
		}
		return r.volumeIs(ctx, of, volume, corev1.VolumeBound, corev1.PersistentVolumeReclaimDelete)
	})
	body := []byte(`{"metadata":{"finalizers":null}}`)
	if _, err := of.CoreV1().PersistentVolumeClaims("finalized").Patch(t.Context(), "data", types.MergePatchType, body, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	worlds.Eventually(t, limit, "the claim to go", func(ctx context.Context) error { return r.claimGone(ctx, of, "finalized", "data") })
	r.discard(t, of, volume)
	worlds.Eventually(t, limit, "the volume to go", func(ctx context.Context) error {
		_, err := of.CoreV1().PersistentVolumes().Get(ctx, volume, metav1.GetOptions{})
		return gone(err)
	})
}

// The reclaim policy that the tenant gives a volume holds, also when its claim or its namespace is deleted at once.
func TestVolumesAreRetained(t *testing.T) {
	r := start(t, func(o *syncer.Options) { o.Patrol = time.Hour }) // events alone do it
	of := r.tenants[0]
	r.storageClass(t, of, "retained", corev1.PersistentVolumeReclaimDelete)
	r.namespace(t, of, "retained")
	r.namespace(t, of, "retained-elsewhere")
	released := func(volume string) func(context.Context) error {
		return func(ctx context.Context) error {
			return r.volumeIs(ctx, of, volume, corev1.VolumeReleased, corev1.PersistentVolumeReclaimRetain)
		}
	}
	var volumes []string
	for i := range 5 {
		name := fmt.Sprintf("data-%d", i)
		makeClaim(t, of, "retained", volumeClaim(name, "retained"))
		volumes = append(volumes, r.provision(t, of, "retained", name))
	}
	for i, volume := range volumes[:4] {
		patchVolume(t, of, volume, patchRetain)
		deleteClaim(t, of, "retained", fmt.Sprintf("data-%d", i))
	}
	for i, volume := range volumes[:4] {
		worlds.Eventually(t, limit, "the claim to go", func(ctx context.Context) error {
			return r.claimGone(ctx, of, "retained", fmt.Sprintf("data-%d", i))
		})
		worlds.Eventually(t, limit, "the volume to be released", released(volume))
	}
	patchVolume(t, of, volumes[4], patchRetain)
	if err := of.CoreV1().Namespaces().Delete(t.Context(), "retained", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	worlds.Eventually(t, 2*limit, "the namespace to go", func(ctx context.Context) error {
		return gone(r.client.Get(ctx, client.ObjectKey{Name: of.super("retained")}, &corev1.Namespace{}))
	})
	for _, volume := range volumes {
		worlds.Eventually(t, limit, "the volume to outlive its namespace", released(volume))
	}
	worlds.Throughout(t, 3*time.Second, "that the volumes stay", func(ctx context.Context) error { // longer than a patrol
		for _, volume := range volumes {
			if err := released(volume)(ctx); err != nil {
				return err
			}
		}
		return nil
	})

	// Another tenant cannot have it.
	other := r.tenants[1]
	r.namespace(t, other, "retained")
	stolen := volumeClaim("stolen", "retained")
	stolen.Spec.VolumeName = volumes[0]
	makeClaim(t, other, "retained", stolen)
	waitForEvent(t, other, "retained", "stolen", "VolumeNotOffered")

	// As the documentation of Kubernetes says: the claim is taken out of the volume, and a new one names it.
	patchVolume(t, of, volumes[0], `{"spec":{"claimRef":null}}`)
	again := volumeClaim("again", "retained")
	again.Spec.VolumeName = volumes[0]
	makeClaim(t, of, "retained-elsewhere", again)
	worlds.Eventually(t, limit, "the volume to be claimed again", func(ctx context.Context) error {
		return r.bound(ctx, of, "retained-elsewhere", "again", volumes[0])
	})
	// A claim that a volume is reserved for need not name it.
	patchVolume(t, of, volumes[1], `{"spec":{"claimRef":{"namespace":"retained-elsewhere","name":"reserved","uid":null,"resourceVersion":null}}}`)
	makeClaim(t, of, "retained-elsewhere", volumeClaim("reserved", "retained"))
	worlds.Eventually(t, limit, "the reserved volume to be claimed", func(ctx context.Context) error {
		return r.bound(ctx, of, "retained-elsewhere", "reserved", volumes[1])
	})

	patchVolume(t, of, volumes[0], patchDelete)
	deleteClaim(t, of, "retained-elsewhere", "again")
	worlds.Eventually(t, limit, "the volume to be up for deletion", func(ctx context.Context) error {
		return r.volumeIs(ctx, of, volumes[0], corev1.VolumeReleased, corev1.PersistentVolumeReclaimDelete)
	})
}

// A claim that is gone keeps its volume until the reclaim policy that the tenant gave it has reached the super cluster.
func TestVolumesWaitForTheirReclaimPolicy(t *testing.T) {
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, "policy")
	r.storageClass(t, of, "policy", corev1.PersistentVolumeReclaimDelete)
	makeClaim(t, of, "policy", volumeClaim("data", "policy"))
	volume := r.provision(t, of, "policy", "data")
	allow := r.deny(t, "persistentvolumes", `object.spec.persistentVolumeReclaimPolicy == oldObject.spec.persistentVolumeReclaimPolicy`,
		&corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: volume}}, func(o client.Object) {
			if pv, ok := o.(*corev1.PersistentVolume); ok {
				pv.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain
			}
		})
	patchVolume(t, of, volume, patchRetain)
	deleteClaim(t, of, "policy", "data")
	worlds.Eventually(t, limit, "the claim to go in the tenant", func(ctx context.Context) error {
		_, err := of.CoreV1().PersistentVolumeClaims("policy").Get(ctx, "data", metav1.GetOptions{})
		return gone(err)
	})
	waitForEvent(t, of, metav1.NamespaceDefault, volume, "Refused")
	worlds.Throughout(t, 3*time.Second, "that the claim of the super cluster stays", func(ctx context.Context) error { // longer than a patrol
		claim := &corev1.PersistentVolumeClaim{}
		err := r.client.Get(ctx, client.ObjectKey{Namespace: of.super("policy"), Name: "data"}, claim)
		if err == nil && claim.DeletionTimestamp != nil {
			err = errors.New("it is being deleted")
		}
		return err
	})
	allow()
	worlds.Eventually(t, limit, "the volume to be released", func(ctx context.Context) error {
		return r.volumeIs(ctx, of, volume, corev1.VolumeReleased, corev1.PersistentVolumeReclaimRetain)
	})
}

// What an operator's class retains, a tenant does not delete, and is told.
func TestVolumesThatTheOperatorRetains(t *testing.T) {
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, "kept")
	r.storageClass(t, of, "kept", corev1.PersistentVolumeReclaimRetain)
	makeClaim(t, of, "kept", volumeClaim("data", "kept"))
	volume := r.provision(t, of, "kept", "data")
	patchVolume(t, of, volume, patchDelete)
	waitForEvent(t, of, metav1.NamespaceDefault, volume, "ReclaimPolicyNotAllowed")
	waitForEvent(t, of, "kept", "data", "ReclaimPolicyNotAllowed")
	worlds.Eventually(t, limit, "the volume to have its policy again", func(ctx context.Context) error {
		return r.volumeIs(ctx, of, volume, corev1.VolumeBound, corev1.PersistentVolumeReclaimRetain)
	})
}

// Volumes that a tenant makes are refused in sight.
func TestVolumesMadeByHandAreRefused(t *testing.T) {
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, "by-hand")
	volume := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "by-hand"}, Spec: corev1.PersistentVolumeSpec{
		Capacity: corev1.ResourceList{corev1.ResourceStorage: apiresource.MustParse("1Gi")}, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/srv"}},
	}}
	if _, err := of.CoreV1().PersistentVolumes().Create(t.Context(), volume, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = of.CoreV1().PersistentVolumes().Delete(context.Background(), volume.Name, metav1.DeleteOptions{}) // the test's context has ended
	})
	makeClaim(t, of, "by-hand", volumeClaim("data", ""))
	waitForEvent(t, of, "by-hand", "data", "VolumeNotOffered")
	waitForEvent(t, of, metav1.NamespaceDefault, "by-hand", "VolumeNotOffered")
	claims := &corev1.PersistentVolumeClaimList{}
	if err := r.client.List(t.Context(), claims, client.InNamespace(of.super("by-hand"))); err != nil || len(claims.Items) > 0 {
		t.Errorf("the super cluster has %d claims, %v", len(claims.Items), err)
	}
}
