package resources_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

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
	return c
}

func TestPersistentVolumeClaimsDown(t *testing.T) {
	other := "other"
	from := claim(func(c *corev1.PersistentVolumeClaim) { c.Name, c.UID = "from", "from" })
	operators := claim(func(c *corev1.PersistentVolumeClaim) {
		c.Namespace, c.Name = names.SuperNamespace(tenantID, "shop"), "operators"
	})
	w := world{tenant: []resource.Object{from}, super: append(replicas(from), operators)}
	for name, tc := range map[string]struct {
		in     *corev1.PersistentVolumeClaim
		reject string
	}{
		"Dynamic": {claim(), ""},
		"CloneOfOperators": {claim(func(c *corev1.PersistentVolumeClaim) {
			c.Spec.DataSource = &corev1.TypedLocalObjectReference{Kind: "PersistentVolumeClaim", Name: "operators"}
		}), "DataSourceNotFound"},
		"CloneOfAnotherGroup": {claim(func(c *corev1.PersistentVolumeClaim) {
			c.Spec.DataSource = &corev1.TypedLocalObjectReference{APIGroup: &other, Kind: "PersistentVolumeClaim", Name: "from"}
		}), "DataSourceNotAllowed"},
		"Clone": {claim(func(c *corev1.PersistentVolumeClaim) {
			c.Spec.DataSource = &corev1.TypedLocalObjectReference{Kind: "PersistentVolumeClaim", Name: "from"}
		}), ""},
		// Attacks S-02 and S-05.
		"VolumeName": {claim(func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName = "somebodys" }), "VolumeNotOffered"},
		"ByHand":     {claim(func(c *corev1.PersistentVolumeClaim) { c.Spec.StorageClassName = new("") }), "VolumeNotOffered"},
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
			ops, err := decide(t, resources.PersistentVolumeClaims(), w, "shop", "data", tc.in, nil)
			if tc.reject != "" {
				rejectedWith(t, ops, err, tc.reject)
				return
			}
			got := created[*corev1.PersistentVolumeClaim](t, ops, err)
			if diff := cmp.Diff(tc.in.Spec, got.Spec); diff != "" {
				t.Errorf("spec: -want +got\n%s", diff)
			}
			want := map[string]string{names.AnnotationNamespace: "shop", names.AnnotationUID: "u"}
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
	newer := func(c *corev1.PersistentVolumeClaim) { c.UID = "newer" }
	for name, tc := range map[string]struct {
		tenant, super *corev1.PersistentVolumeClaim
		wantTenant    *corev1.PersistentVolumeClaim
		wantSuper     *corev1.PersistentVolumeClaim
	}{
		"InSync":      {claim(bound), superClaim(bound), claim(bound), superClaim(bound)},
		"Grows":       {claim(bound, grown("2Gi")), superClaim(bound), claim(bound, grown("2Gi")), superClaim(bound, grown("2Gi"))},
		"Resizing":    {claim(bound), superClaim(bound, resizing), claim(bound, resizing), superClaim(bound, resizing)},
		"Unbound":     {claim(), superClaim(bound), claim(), superClaim(bound)},
		"Predecessor": {claim(bound, newer), superClaim(bound, resizing), claim(bound, newer), superClaim(bound, resizing)},
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

// realVolume is the volume of the super cluster that the claim data in shop is bound to.
func realVolume(edit ...func(*corev1.PersistentVolume)) *corev1.PersistentVolume {
	pv := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "pvc-1", UID: "real", ResourceVersion: "4", Annotations: map[string]string{"secret": "x"}},
		Spec: corev1.PersistentVolumeSpec{
			Capacity: storage("1Gi"), AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: "fast",
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimDelete,
			ClaimRef:                      &corev1.ObjectReference{Kind: "PersistentVolumeClaim", Namespace: names.SuperNamespace(tenantID, "shop"), Name: "data", UID: "super"},
			PersistentVolumeSource:        corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/srv/data"}},
		},
	}
	for _, f := range edit {
		f(pv)
	}
	return pv
}

// shownVolume is its replica in the tenant.
func shownVolume(edit ...func(*corev1.PersistentVolume)) *corev1.PersistentVolume {
	pv := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "pvc-1", UID: "replica", ResourceVersion: "1", Annotations: map[string]string{
			"pv.kubernetes.io/provisioned-by": "volume.csi.k8s.io", names.AnnotationReclaimPolicy: "Delete", names.AnnotationUID: "real",
			names.AnnotationKeys: "a:pv.kubernetes.io/provisioned-by,a:" + names.AnnotationReclaimPolicy,
		}},
		Spec: corev1.PersistentVolumeSpec{
			Capacity: storage("1Gi"), AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: "fast",
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimDelete,
			ClaimRef:                      &corev1.ObjectReference{APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: "shop", Name: "data", UID: "u"},
			PersistentVolumeSource:        corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "volume.csi.k8s.io", VolumeHandle: "pvc-1"}},
		},
	}
	for _, f := range edit {
		f(pv)
	}
	return pv
}

func policy(p corev1.PersistentVolumeReclaimPolicy) func(*corev1.PersistentVolume) {
	return func(pv *corev1.PersistentVolume) { pv.Spec.PersistentVolumeReclaimPolicy = p }
}

func compared(p corev1.PersistentVolumeReclaimPolicy) func(*corev1.PersistentVolume) {
	return func(pv *corev1.PersistentVolume) { pv.Annotations[names.AnnotationReclaimPolicy] = string(p) }
}

func claimedBy(namespace, name, uid string) func(*corev1.PersistentVolume) {
	return func(pv *corev1.PersistentVolume) {
		pv.Spec.ClaimRef = &corev1.ObjectReference{APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: namespace, Name: name, UID: types.UID(uid)}
	}
}

// markedRetained is how the super cluster's volume says whose it is.
func markedRetained(pv *corev1.PersistentVolume) {
	pv.Labels = map[string]string{names.LabelTenant: string(tenantID)}
	pv.Annotations[names.AnnotationNamespace] = "shop"
}

func TestPersistentVolumes(t *testing.T) {
	w := world{tenant: []resource.Object{claim()}, super: []resource.Object{superClaim()}}
	ops, err := decide(t, resources.PersistentVolumes(), w, "", "pvc-1", nil, realVolume())
	want := shownVolume(func(pv *corev1.PersistentVolume) { pv.UID, pv.ResourceVersion, pv.Labels = "", "", map[string]string{} })
	if diff := cmp.Diff(want, created[*corev1.PersistentVolume](t, ops, err)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	replica := shownVolume()
	w.tenant = append(w.tenant, replica)
	ops, err = decide(t, resources.PersistentVolumes(), w, "", "pvc-1", replica, realVolume(func(pv *corev1.PersistentVolume) { pv.Spec.Capacity = storage("2Gi") }))
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
	if ops, err = decide(t, resources.PersistentVolumes(), w, "", "pvc-1", nil, realVolume(claimedBy("somebody-elses", "data", "super"))); len(ops) > 0 || err != nil {
		t.Errorf("the volume of another tenant: %s, %v", encode(t, ops), err)
	}
	// A claim of the same name that is not the one that the volume is bound to must never get its data.
	ops, err = decide(t, resources.PersistentVolumes(), world{tenant: []resource.Object{claim()}, super: []resource.Object{superClaim()}}, "", "pvc-1", nil,
		realVolume(claimedBy(names.SuperNamespace(tenantID, "shop"), "data", "predecessor")))
	if _, waits := resource.AsWait(err); !waits || len(ops) > 0 {
		t.Errorf("the volume of a claim's predecessor: %s, %v", encode(t, ops), err)
	}
	// Attack S-01.
	own := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "mine", UID: "x"}}
	ops, err = decide(t, resources.PersistentVolumes(), w, "", "mine", own, nil)
	rejectedWith(t, ops, err, "VolumeNotOffered")
}

// The side that changed the reclaim policy since the two were last compared wins; the operator, when both did.
func TestReclaimPolicy(t *testing.T) {
	const retain, remove, recycle = corev1.PersistentVolumeReclaimRetain, corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRecycle
	for name, tc := range map[string]struct {
		class                        corev1.PersistentVolumeReclaimPolicy
		tenant, super, base          corev1.PersistentVolumeReclaimPolicy
		wantTenant, wantSuper, noted corev1.PersistentVolumeReclaimPolicy
		told                         int
	}{
		"Same":                    {remove, remove, remove, remove, remove, remove, remove, 0},
		"TenantRetains":           {remove, retain, remove, remove, retain, retain, remove, 0},
		"TenantRetainedBefore":    {remove, retain, retain, remove, retain, retain, retain, 0},
		"TenantDeletesAgain":      {remove, remove, retain, retain, remove, remove, retain, 0},
		"OperatorRetains":         {remove, remove, retain, remove, retain, retain, retain, 0},
		"OperatorDeletes":         {remove, retain, remove, retain, remove, remove, remove, 0},
		"BothToTheSame":           {remove, retain, retain, remove, retain, retain, retain, 0},
		"ClassIsRetained":         {retain, remove, retain, retain, retain, retain, retain, 2},
		"Recycle":                 {remove, recycle, remove, remove, remove, remove, remove, 2},
		"MadeBeforeItWasCompared": {remove, retain, remove, "", retain, retain, remove, 0},
	} {
		t.Run(name, func(t *testing.T) {
			class := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "fast"}, ReclaimPolicy: &tc.class}
			super, tenant := realVolume(policy(tc.super)), shownVolume(policy(tc.tenant), compared(tc.base))
			w := world{tenant: []resource.Object{claim(), tenant}, super: []resource.Object{superClaim(), super, class}}
			ops, err := decide(t, resources.PersistentVolumes(), w, "", "pvc-1", tenant, super)
			if err != nil {
				t.Fatal(err)
			}
			got := patched(t, tenant, resource.Tenant, ops)
			if got.Spec.PersistentVolumeReclaimPolicy != tc.wantTenant || got.Annotations[names.AnnotationReclaimPolicy] != string(tc.noted) {
				t.Errorf("the tenant has %s, compared with %s", got.Spec.PersistentVolumeReclaimPolicy, got.Annotations[names.AnnotationReclaimPolicy])
			}
			after := patched(t, super, resource.Super, ops)
			if after.Spec.PersistentVolumeReclaimPolicy != tc.wantSuper {
				t.Errorf("the super cluster has %s", after.Spec.PersistentVolumeReclaimPolicy)
			}
			if marked := after.Labels[names.LabelTenant] != ""; marked != (tc.wantSuper == retain) {
				t.Errorf("its labels are %v", after.Labels)
			}
			told := 0
			for _, op := range ops {
				if op.Verb == resource.Record {
					told++
				}
			}
			if told != tc.told {
				t.Errorf("%d events, want %d", told, tc.told)
			}
		})
	}
}

// Neither a claim nor a namespace takes its volume with it before the tenant's reclaim policy counts.
func TestVolumesAreNotDeletedBeforeTheirPolicyCounts(t *testing.T) {
	settled, retained := shownVolume(), shownVolume(policy(corev1.PersistentVolumeReclaimRetain))
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: names.SuperNamespace(tenantID, "shop"), UID: "super",
		Labels:      map[string]string{names.LabelTenant: string(tenantID)},
		Annotations: map[string]string{names.AnnotationNamespace: "shop", names.AnnotationUID: "ns"},
	}}
	for name, tc := range map[string]struct {
		kind            resource.Kind
		namespace, name string
		super           resource.Object
	}{
		"Claim":     {resources.PersistentVolumeClaims(), "shop", "data", superClaim(bound)},
		"Namespace": {resources.Namespaces("vc-system"), "", "shop", ns},
	} {
		t.Run(name, func(t *testing.T) {
			ops, err := decide(t, tc.kind, world{tenant: []resource.Object{retained}, super: []resource.Object{realVolume()}}, tc.namespace, tc.name, nil, tc.super)
			if _, waits := resource.AsWait(err); !waits || len(ops) > 0 {
				t.Errorf("before: %s, %v", encode(t, ops), err)
			}
			ops, err = decide(t, tc.kind, world{tenant: []resource.Object{settled}, super: []resource.Object{realVolume()}}, tc.namespace, tc.name, nil, tc.super)
			if err != nil || len(ops) != 1 || ops[0].Verb != resource.Delete || !ops[0].Absent || len(ops[0].RestsOn) != 1 || ops[0].RestsOn[0] != resource.Object(settled) {
				t.Errorf("settled: %s, %v", encode(t, ops), err)
			}
			kept := realVolume(policy(corev1.PersistentVolumeReclaimRetain))
			ops, err = decide(t, tc.kind, world{tenant: []resource.Object{retained}, super: []resource.Object{kept}}, tc.namespace, tc.name, nil, tc.super)
			if err != nil || len(ops) != 1 || len(ops[0].RestsOn) != 0 {
				t.Errorf("retained: %s, %v", encode(t, ops), err)
			}
		})
	}
}

// A volume that was retained can be claimed again, by its tenant only.
func TestRetainedVolumesAreClaimedAgain(t *testing.T) {
	retain := policy(corev1.PersistentVolumeReclaimRetain)
	released := realVolume(retain, markedRetained, claimedBy(names.SuperNamespace(tenantID, "shop"), "old", "gone"))
	named := func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName = "pvc-1" }
	shown := func(edit ...func(*corev1.PersistentVolume)) *corev1.PersistentVolume {
		return shownVolume(append([]func(*corev1.PersistentVolume){retain, compared(corev1.PersistentVolumeReclaimRetain)}, edit...)...)
	}
	for name, tc := range map[string]struct {
		in     *corev1.PersistentVolumeClaim
		volume *corev1.PersistentVolume // in the tenant
		real   *corev1.PersistentVolume
		made   bool
		waits  bool
		// reserved says that the tenant's volume is given to the claim.
		reserved bool
		reject   string
	}{
		"GivenToTheClaim":    {in: claim(named), volume: shown(claimedBy("shop", "data", "u")), real: released, made: true},
		"GivenByName":        {in: claim(named), volume: shown(claimedBy("shop", "data", "")), real: released, made: true},
		"ClaimNamesNone":     {in: claim(), volume: shown(claimedBy("shop", "data", "")), real: released, made: true},
		"BoundInTheTenant":   {in: claim(bound), volume: shown(claimedBy("shop", "data", "u")), real: released, made: true},
		"NotReleasedYet":     {in: claim(named), volume: shown(claimedBy("shop", "old", "gone")), real: released, waits: true},
		"ReservedForTheLast": {in: claim(named), volume: shown(claimedBy("shop", "old", "")), real: released, waits: true, reserved: true},
		"Unclaimed":          {in: claim(named), volume: shown(func(pv *corev1.PersistentVolume) { pv.Spec.ClaimRef = nil }), real: released, waits: true, reserved: true},
		"ReservedForAnother": {in: claim(named), volume: shown(claimedBy("shop", "another", "")), real: released, waits: true},
		"AnotherTenants": {in: claim(named), volume: shown(claimedBy("shop", "data", "u")), reject: "VolumeNotOffered",
			real: realVolume(retain, claimedBy("somebody-elses", "old", "gone"))},
		"NotAReplica": {in: claim(named), real: released, reject: "VolumeNotOffered",
			volume: shown(claimedBy("shop", "data", "u"), func(pv *corev1.PersistentVolume) { delete(pv.Annotations, names.AnnotationUID) })},
	} {
		t.Run(name, func(t *testing.T) {
			w := world{tenant: []resource.Object{tc.volume}, super: []resource.Object{tc.real}}
			ops, err := decide(t, resources.PersistentVolumeClaims(), w, "shop", "data", tc.in, nil)
			if tc.reject != "" {
				rejectedWith(t, ops, err, tc.reject)
				return
			}
			if _, waits := resource.AsWait(err); waits != tc.waits || !waits && err != nil {
				t.Fatalf("got %s, %v", encode(t, ops), err)
			}
			var made *corev1.PersistentVolumeClaim
			for _, op := range ops {
				if op.Verb == resource.Create {
					made, _ = op.Object.(*corev1.PersistentVolumeClaim)
				}
			}
			if (made != nil) != tc.made || made != nil && made.Spec.VolumeName != "pvc-1" {
				t.Errorf("got %s", encode(t, ops))
			}
			to := patched(t, tc.real, resource.Super, ops).Spec.ClaimRef
			if given := to.Name == "data" && to.UID == ""; given != tc.made {
				t.Errorf("in the super cluster it is claimed by %v", to)
			}
			var claimant types.UID
			if ref := patched(t, tc.volume, resource.Tenant, ops).Spec.ClaimRef; ref != nil && ref.Name == "data" {
				claimant = ref.UID
			}
			if before := tc.volume.Spec.ClaimRef; tc.reserved && claimant != "u" || !tc.reserved && before != nil && claimant != "" && claimant != before.UID {
				t.Errorf("in the tenant it is claimed by %q", claimant)
			}
		})
	}
}

// The volume of a tenant that is claimed by nobody would be given to whatever claim fits it.
func TestRetainedVolumesStayReserved(t *testing.T) {
	released := realVolume(policy(corev1.PersistentVolumeReclaimRetain), markedRetained)
	cleared := shownVolume(policy(corev1.PersistentVolumeReclaimRetain), compared(corev1.PersistentVolumeReclaimRetain), func(pv *corev1.PersistentVolume) { pv.Spec.ClaimRef = nil })
	w := world{tenant: []resource.Object{cleared}, super: []resource.Object{released}}
	ops, err := decide(t, resources.PersistentVolumes(), w, "", "pvc-1", cleared, released)
	if err != nil {
		t.Fatal(err)
	}
	if ref := patched(t, cleared, resource.Tenant, ops).Spec.ClaimRef; ref == nil || ref.Namespace != "shop" || ref.Name != "data" || ref.UID != "" {
		t.Errorf("it is claimed by %v", ref)
	}
	// What the tenant deleted does not come back.
	if ops, err = decide(t, resources.PersistentVolumes(), world{super: []resource.Object{released}}, "", "pvc-1", nil, released); len(ops) > 0 || err != nil {
		t.Errorf("after it was deleted: %s, %v", encode(t, ops), err)
	}
}

// What a claim asks for and does not get is told.
func TestClaimsAreToldWhatHasNoEffect(t *testing.T) {
	elsewhere := func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName = "mine" }
	for name, tc := range map[string]struct {
		in     *corev1.PersistentVolumeClaim
		reason string
	}{
		"BoundToAnother": {claim(bound, elsewhere), "VolumeMismatch"},
	} {
		t.Run(name, func(t *testing.T) {
			super := superClaim(bound)
			ops, err := decide(t, resources.PersistentVolumeClaims(), world{super: []resource.Object{super}}, "shop", "data", tc.in, super)
			rejectedWith(t, ops, err, tc.reason)
		})
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
	inTenant.SetUID("daily")
	in := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "data", UID: "claim"},
		Spec:       corev1.PersistentVolumeClaimSpec{DataSource: snapshot()},
	}
	ops, err := decide(t, resources.PersistentVolumeClaims(), world{tenant: []resource.Object{inTenant}}, "shop", "data", in, nil)
	if wait, waits := resource.AsWait(err); !waits || wait.Told == nil || len(ops) > 0 {
		t.Errorf("before the snapshot is there: ops are %v, error is %v", ops, err)
	}
	ops, err = decide(t, resources.PersistentVolumeClaims(), world{tenant: []resource.Object{inTenant}, super: replicas(inTenant)}, "shop", "data", in, nil)
	got := created[*corev1.PersistentVolumeClaim](t, ops, err)
	if diff := cmp.Diff(snapshot(), got.Spec.DataSource); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}
