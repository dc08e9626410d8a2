package resources_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/resources"
)

func storage(size string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceStorage: apiresource.MustParse(size)}
}

func claim(edit ...func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
	class := "fast"
	c := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "data", UID: "u", ResourceVersion: "3",
			Annotations: map[string]string{"a": "b", "volume.kubernetes.io/storage-provisioner": "x", "pv.kubernetes.io/bind-completed": "yes"},
		},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: &class,
			Resources: corev1.VolumeResourceRequirements{Requests: storage("1Gi")},
		},
	}
	for _, f := range edit {
		f(c)
	}
	return c
}

func bound(c *corev1.PersistentVolumeClaim) {
	c.Spec.VolumeName, c.Status.Phase, c.Status.Capacity = "pvc-1", corev1.ClaimBound, storage("1Gi")
}

func superClaim(edit ...func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
	c := claim(edit...)
	c.ObjectMeta = replicaMeta("shop", "data", "u")
	c.Annotations["a"], c.Annotations[names.AnnotationKeys] = "b", "a:a"
	return c
}

func TestPersistentVolumeClaimsDown(t *testing.T) {
	other := "other"
	for name, tc := range map[string]struct {
		in     *corev1.PersistentVolumeClaim
		reject string
	}{
		"Dynamic": {claim(), ""},
		"Clone": {claim(func(c *corev1.PersistentVolumeClaim) {
			c.Spec.DataSource = &corev1.TypedLocalObjectReference{Kind: "PersistentVolumeClaim", Name: "from"}
		}), ""},
		// Attacks S-02 and S-05.
		"VolumeName": {claim(func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName = "somebodys" }), "VolumeNameNotAllowed"},
		"Selector":   {claim(func(c *corev1.PersistentVolumeClaim) { c.Spec.Selector = &metav1.LabelSelector{} }), "SelectorNotAllowed"},
		"Snapshot": {claim(func(c *corev1.PersistentVolumeClaim) {
			c.Spec.DataSource = &corev1.TypedLocalObjectReference{Kind: "VolumeSnapshot", Name: "s"}
		}), "DataSourceNotAllowed"},
		"SnapshotNotThere": {claim(func(c *corev1.PersistentVolumeClaim) { c.Spec.DataSource = snapshot() }), "DataSourceNotFound"},
		"OtherThanReference": {claim(func(c *corev1.PersistentVolumeClaim) {
			c.Spec.DataSource = snapshot()
			c.Spec.DataSourceRef = &corev1.TypedObjectReference{Kind: "Populator", Name: "s"}
		}), "DataSourceNotAllowed"},
		"OtherNamespace": {claim(func(c *corev1.PersistentVolumeClaim) {
			c.Spec.DataSourceRef = &corev1.TypedObjectReference{Kind: "PersistentVolumeClaim", Name: "s", Namespace: &other}
		}), "DataSourceNotAllowed"},
		"Lost": {claim(bound), "VolumeLost"},
	} {
		t.Run(name, func(t *testing.T) {
			ops, err := decide(t, resources.PersistentVolumeClaims(), world{}, "shop", "data", tc.in, nil)
			if tc.reject != "" {
				rejectedWith(t, ops, err, tc.reject)
				return
			}
			got := created[*corev1.PersistentVolumeClaim](t, ops, err)
			if diff := cmp.Diff(tc.in.Spec, got.Spec); diff != "" {
				t.Errorf("spec: -want +got\n%s", diff)
			}
			want := map[string]string{"a": "b", names.AnnotationKeys: "a:a", names.AnnotationNamespace: "shop", names.AnnotationUID: "u"}
			if diff := cmp.Diff(want, got.Annotations); diff != "" {
				t.Errorf("annotations: -want +got\n%s", diff)
			}
		})
	}
}

func TestPersistentVolumeClaimsLive(t *testing.T) {
	grown := func(size string) func(*corev1.PersistentVolumeClaim) {
		return func(c *corev1.PersistentVolumeClaim) { c.Spec.Resources.Requests = storage(size) }
	}
	resizing := func(c *corev1.PersistentVolumeClaim) {
		c.Status.Conditions = []corev1.PersistentVolumeClaimCondition{{Type: corev1.PersistentVolumeClaimResizing, Status: corev1.ConditionTrue}}
	}
	for name, tc := range map[string]struct {
		tenant, super *corev1.PersistentVolumeClaim
		wantTenant    *corev1.PersistentVolumeClaim
		wantSuper     *corev1.PersistentVolumeClaim
	}{
		"InSync":   {claim(bound), superClaim(bound), claim(bound), superClaim(bound)},
		"Grows":    {claim(bound, grown("2Gi")), superClaim(bound), claim(bound, grown("2Gi")), superClaim(bound, grown("2Gi"))},
		"Resizing": {claim(bound), superClaim(bound, resizing), claim(bound, resizing), superClaim(bound, resizing)},
		"Unbound":  {claim(), superClaim(bound), claim(), superClaim(bound)},
	} {
		t.Run(name, func(t *testing.T) {
			w := world{super: []resource.Object{tc.super}}
			ops, err := decide(t, resources.PersistentVolumeClaims(), w, "shop", "data", tc.tenant, tc.super)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.wantTenant, patched(t, tc.tenant, resource.Tenant, ops)); diff != "" {
				t.Errorf("tenant: -want +got\n%s", diff)
			}
			if diff := cmp.Diff(tc.wantSuper, patched(t, tc.super, resource.Super, ops)); diff != "" {
				t.Errorf("super: -want +got\n%s", diff)
			}
		})
	}
}

func TestPersistentVolumes(t *testing.T) {
	volume := func(namespace string) *corev1.PersistentVolume {
		return &corev1.PersistentVolume{
			ObjectMeta: metav1.ObjectMeta{Name: "pvc-1", UID: "real", Annotations: map[string]string{"secret": "x"}},
			Spec: corev1.PersistentVolumeSpec{
				Capacity: storage("1Gi"), AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: "fast",
				PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimDelete,
				ClaimRef:                      &corev1.ObjectReference{Kind: "PersistentVolumeClaim", Namespace: namespace, Name: "data", UID: "super"},
				PersistentVolumeSource:        corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/srv/data"}},
			},
		}
	}
	w := world{tenant: []resource.Object{claim()}}
	ours := names.SuperNamespace(tenantID, "shop")
	ops, err := decide(t, resources.PersistentVolumes(), w, "", "pvc-1", nil, volume(ours))
	want := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "pvc-1", Labels: map[string]string{}, Annotations: map[string]string{
			"pv.kubernetes.io/provisioned-by": "volume.csi.k8s.io", names.AnnotationKeys: "a:pv.kubernetes.io/provisioned-by", names.AnnotationUID: "real",
		}},
		Spec: corev1.PersistentVolumeSpec{
			Capacity: storage("1Gi"), AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: "fast",
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimDelete,
			ClaimRef:                      &corev1.ObjectReference{APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: "shop", Name: "data", UID: "u"},
			PersistentVolumeSource:        corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "volume.csi.k8s.io", VolumeHandle: "pvc-1"}},
		},
	}
	got := created[*corev1.PersistentVolume](t, ops, err)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	replica := got.DeepCopy()
	replica.UID, replica.ResourceVersion = "replica", "1"

	bigger := volume(ours)
	bigger.Spec.Capacity = storage("2Gi")
	ops, err = decide(t, resources.PersistentVolumes(), w, "", "pvc-1", replica, bigger)
	if err != nil {
		t.Fatal(err)
	}
	if size := patched(t, replica, resource.Tenant, ops).Spec.Capacity.Storage(); size.String() != "2Gi" {
		t.Errorf("after growing it has %s", size)
	}
	ops, err = decide(t, resources.PersistentVolumes(), w, "", "pvc-1", replica, nil)
	if err != nil || len(ops) != 1 || ops[0].Verb != resource.Delete || ops[0].Side != resource.Tenant {
		t.Errorf("when it is gone: %s, %v", encode(t, ops), err)
	}
	if ops, err = decide(t, resources.PersistentVolumes(), w, "", "pvc-1", nil, volume("somebody-elses")); len(ops) > 0 || err != nil {
		t.Errorf("the volume of another tenant: %s, %v", encode(t, ops), err)
	}
	// Attack S-01.
	own := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "mine", UID: "x"}}
	if ops, err = decide(t, resources.PersistentVolumes(), w, "", "mine", own, nil); len(ops) > 0 || err != nil {
		t.Errorf("a volume that the tenant made: %s, %v", encode(t, ops), err)
	}
}

func TestStorageClasses(t *testing.T) {
	yes := true
	class := &storagev1.StorageClass{
		ObjectMeta:  metav1.ObjectMeta{Name: "fast", UID: "real", Labels: map[string]string{"operator": "x"}, Annotations: map[string]string{"storageclass.kubernetes.io/is-default-class": "true", "note": "x"}},
		Provisioner: "csi.example.com", AllowVolumeExpansion: &yes,
		Parameters: map[string]string{"type": "ssd", "csi.storage.k8s.io/provisioner-secret-name": "operators"},
	}
	ops, err := decide(t, resources.StorageClasses(), world{}, "", "fast", nil, class)
	got := created[*storagev1.StorageClass](t, ops, err)
	if diff := cmp.Diff(map[string]string{"type": "ssd"}, got.Parameters); diff != "" {
		t.Errorf("parameters: -want +got\n%s", diff)
	}
	if got.Annotations["storageclass.kubernetes.io/is-default-class"] != "true" || got.Annotations["note"] != "" || len(got.Labels) > 0 || got.Provisioner != class.Provisioner {
		t.Errorf("got %s", encode(t, got))
	}
	replica := got.DeepCopy()
	replica.UID = "replica"
	if ops, err = decide(t, resources.StorageClasses(), world{}, "", "fast", replica, class); len(ops) > 0 || err != nil {
		t.Errorf("in sync: %s, %v", encode(t, ops), err)
	}
}

func snapshot() *corev1.TypedLocalObjectReference {
	group := "snapshot.storage.k8s.io"
	return &corev1.TypedLocalObjectReference{APIGroup: &group, Kind: "VolumeSnapshot", Name: "daily"}
}

func TestClaimsWaitForTheirSnapshots(t *testing.T) {
	inTenant := &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"namespace": "shop", "name": "daily"}}}
	inSuper := inTenant.DeepCopy()
	inSuper.SetNamespace(names.SuperNamespace(tenantID, "shop"))
	in := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "data", UID: "claim"},
		Spec:       corev1.PersistentVolumeClaimSpec{DataSource: snapshot()},
	}
	ops, err := decide(t, resources.PersistentVolumeClaims(), world{tenant: []resource.Object{inTenant}}, "shop", "data", in, nil)
	if _, waits := resource.AsWait(err); !waits || len(ops) > 0 {
		t.Errorf("before the snapshot is there: ops are %v, error is %v", ops, err)
	}
	ops, err = decide(t, resources.PersistentVolumeClaims(), world{tenant: []resource.Object{inTenant}, super: []resource.Object{inSuper}}, "shop", "data", in, nil)
	got := created[*corev1.PersistentVolumeClaim](t, ops, err)
	if diff := cmp.Diff(snapshot(), got.Spec.DataSource); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}
