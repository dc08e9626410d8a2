package syncer_test

import (
	"context"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

// attributesClass makes a class of volume attributes in the super cluster until the test ends, and waits for it in the tenant
// unless it is hidden.
func (r *running) attributesClass(t *testing.T, of tenant, name, public string) *storagev1.VolumeAttributesClass {
	t.Helper()
	class := &storagev1.VolumeAttributesClass{ObjectMeta: metav1.ObjectMeta{Name: name}, DriverName: storageDriver, Parameters: map[string]string{"iops": name}}
	if public != "" {
		class.Labels = map[string]string{names.LabelPublic: public}
	}
	r.make(t, class)
	if public == "false" {
		return class
	}
	worlds.Eventually(t, limit, "the class in the tenant", func(ctx context.Context) error {
		_, err := of.StorageV1().VolumeAttributesClasses().Get(ctx, name, metav1.GetOptions{})
		return err
	})
	return class
}

// A claim gets a volume with the attributes of its class. When the tenant changes the class, the volume is changed, and the tenant
// sees how far that is.
func TestClaimsHaveVolumeAttributesClasses(t *testing.T) {
	const ns, silver, gold, hidden = "attributes", "attributes-silver", "attributes-gold", "attributes-hidden"
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, ns)
	r.storageClass(t, of, ns, corev1.PersistentVolumeReclaimDelete)
	r.attributesClass(t, of, silver, "")
	r.attributesClass(t, of, gold, "")
	withheld := r.attributesClass(t, of, hidden, "false")

	claims := of.CoreV1().PersistentVolumeClaims(ns)
	claim := volumeClaim("data", ns)
	claim.Spec.VolumeAttributesClassName = new(silver)
	makeClaim(t, of, ns, claim)
	volume := r.provision(t, of, ns, "data")
	seen := func(what, current, target string) {
		t.Helper()
		worlds.Eventually(t, limit, what, func(ctx context.Context) error {
			now, err := claims.Get(ctx, "data", metav1.GetOptions{})
			if err != nil {
				return err
			}
			has, change := ptr.Deref(now.Status.CurrentVolumeAttributesClassName, ""), ptr.Deref(now.Status.ModifyVolumeStatus, corev1.ModifyVolumeStatus{})
			if has != current || change.TargetVolumeAttributesClassName != target {
				return fmt.Errorf("the volume has %q, the target is %q", has, change.TargetVolumeAttributesClassName)
			}
			return nil
		})
	}
	inSuper := func(what, class string) {
		t.Helper()
		worlds.Eventually(t, limit, what, func(ctx context.Context) error {
			super := &corev1.PersistentVolumeClaim{}
			err := r.client.Get(ctx, client.ObjectKey{Namespace: of.super(ns), Name: "data"}, super)
			if got := ptr.Deref(super.Spec.VolumeAttributesClassName, ""); err == nil && got != class {
				err = fmt.Errorf("it is %q", got)
			}
			return err
		})
	}
	change := func(class string) {
		t.Helper()
		body := fmt.Appendf(nil, `{"spec":{"volumeAttributesClassName":%q}}`, class)
		if _, err := claims.Patch(t.Context(), "data", types.MergePatchType, body, metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	seen("the class of the volume", silver, "")

	change(gold)
	inSuper("the class in the super cluster", gold)
	r.modify(t, of, ns, `{"status":{"modifyVolumeStatus":{"targetVolumeAttributesClassName":"`+gold+`","status":"InProgress"}}}`)
	seen("the change in progress", silver, gold)
	body := []byte(`{"spec":{"volumeAttributesClassName":"` + gold + `"}}`)
	if err := r.client.Patch(t.Context(), &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: volume}}, client.RawPatch(types.MergePatchType, body)); err != nil {
		t.Fatal(err)
	}
	r.modify(t, of, ns, `{"status":{"modifyVolumeStatus":null,"currentVolumeAttributesClassName":"`+gold+`"}}`)
	seen("the end of the change", gold, "")
	worlds.Eventually(t, limit, "the class on the tenant's volume", func(ctx context.Context) error {
		shown, err := of.CoreV1().PersistentVolumes().Get(ctx, volume, metav1.GetOptions{})
		if err == nil && ptr.Deref(shown.Spec.VolumeAttributesClassName, "") != gold {
			err = fmt.Errorf("it is %v", shown.Spec.VolumeAttributesClassName)
		}
		return err
	})

	// A class that is not offered is refused, until it is.
	change(hidden)
	waitForEvent(t, of, ns, "data", "VolumeAttributesClassNotOffered")
	inSuper("the claim to keep its class", gold)
	refused := volumeClaim("refused", ns)
	refused.Spec.VolumeAttributesClassName = new(hidden)
	makeClaim(t, of, ns, refused)
	waitForEvent(t, of, ns, "refused", "VolumeAttributesClassNotOffered")
	if err := gone(r.client.Get(t.Context(), client.ObjectKey{Namespace: of.super(ns), Name: "refused"}, &corev1.PersistentVolumeClaim{})); err != nil {
		t.Errorf("the refused claim in the super cluster: %v", err)
	}
	offer := []byte(`{"metadata":{"labels":{"` + names.LabelPublic + `":"true"}}}`)
	if err := r.client.Patch(t.Context(), withheld, client.RawPatch(types.MergePatchType, offer)); err != nil {
		t.Fatal(err)
	}
	inSuper("the class that is offered now", hidden)
	r.provision(t, of, ns, "refused")
}

// modify plays the external resizer, which changes volumes.
func (r *running) modify(t *testing.T, of tenant, namespace, status string) {
	t.Helper()
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: of.super(namespace), Name: "data"}}
	if err := r.client.Status().Patch(t.Context(), claim, client.RawPatch(types.MergePatchType, []byte(status))); err != nil {
		t.Fatal(err)
	}
}
