package resources_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/resources"
)

func TestVolumeAttributesClasses(t *testing.T) {
	in := func(public string) *storagev1.VolumeAttributesClass {
		return &storagev1.VolumeAttributesClass{
			ObjectMeta: class("gold", public, map[string]string{"note": "x"}), DriverName: "csi.example.com",
			Parameters: map[string]string{"iops": "4000", "csi.example.com/secret-name": "operators"},
		}
	}
	want := &storagev1.VolumeAttributesClass{ObjectMeta: offeredMeta("gold"), DriverName: "csi.example.com", Parameters: map[string]string{"iops": "4000"}}
	testClass(t, resources.VolumeAttributesClasses(), want, map[string]*storagev1.VolumeAttributesClass{"": in(""), "true": in("true"), "false": in("false")}, true)
}

// withAttributesClasses is a world in which the classes silver and gold are offered, hidden is not, and own is the tenant's.
func withAttributesClasses() world {
	offered := func(name, public string) (super, tenant resource.Object) {
		return &storagev1.VolumeAttributesClass{ObjectMeta: class(name, public, nil)}, &storagev1.VolumeAttributesClass{ObjectMeta: offeredMeta(name)}
	}
	var w world
	for name, public := range map[string]string{"silver": "", "gold": "true", "hidden": "false"} {
		super, tenant := offered(name, public)
		w.super, w.tenant = append(w.super, super), append(w.tenant, tenant)
	}
	w.tenant = append(w.tenant, &storagev1.VolumeAttributesClass{ObjectMeta: metav1.ObjectMeta{Name: "own"}})
	return w
}

// attributes gives a claim a class, and a volume that has another since the last change was done.
func attributes(class string, has ...string) func(*corev1.PersistentVolumeClaim) {
	return func(c *corev1.PersistentVolumeClaim) {
		c.Spec.VolumeAttributesClassName = &class
		for _, name := range has {
			c.Status.CurrentVolumeAttributesClassName = &name
		}
	}
}

func TestClaimsAreMadeWithTheirVolumeAttributesClass(t *testing.T) {
	const notOffered = "VolumeAttributesClassNotOffered"
	for name, tc := range map[string]struct{ class, reject string }{
		"Offered": {"gold", ""},
		"None":    {"", ""},
		"Hidden":  {"hidden", notOffered},
		"Own":     {"own", notOffered},
		"Nowhere": {"nowhere", notOffered},
	} {
		t.Run(name, func(t *testing.T) {
			in := claim(attributes(tc.class))
			ops, err := decide(t, resources.PersistentVolumeClaims(), withAttributesClasses(), "shop", "data", in, nil)
			if tc.reject != "" {
				rejectedWith(t, ops, err, tc.reject)
				return
			}
			got := created[*corev1.PersistentVolumeClaim](t, ops, err)
			if diff := cmp.Diff(in.Spec, got.Spec); diff != "" {
				t.Errorf("spec: -want +got\n%s", diff)
			}
		})
	}
	off := withAttributesClasses()
	off.facts.Disabled = []string{"volumeattributesclasses"}
	ops, err := decide(t, resources.PersistentVolumeClaims(), off, "shop", "data", claim(attributes("gold")), nil)
	rejectedWith(t, ops, err, notOffered)
}

// A claim that waits for its class is decided again when that comes.
func TestClaimsReferToTheirVolumeAttributesClass(t *testing.T) {
	want := []resource.Ref{{Kind: "volumeattributesclasses", Name: "gold"}}
	if diff := cmp.Diff(want, resources.PersistentVolumeClaims().References(claim(attributes("gold")))); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if refs := resources.PersistentVolumeClaims().References(claim(attributes(""))); len(refs) > 0 {
		t.Errorf("without a class it refers to %v", refs)
	}
}

func TestClaimsChangeTheirVolumeAttributesClass(t *testing.T) {
	modifying := func(c *corev1.PersistentVolumeClaim) {
		c.Status.ModifyVolumeStatus = &corev1.ModifyVolumeStatus{TargetVolumeAttributesClassName: "gold", Status: corev1.PersistentVolumeClaimModifyVolumeInProgress}
	}
	pending := func(c *corev1.PersistentVolumeClaim) { c.Status.Phase = corev1.ClaimPending }
	none := func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeAttributesClassName = nil }
	type edits = []func(*corev1.PersistentVolumeClaim)
	for name, tc := range map[string]struct {
		tenant, super edits
		// class is that of the super claim then, current and target those that the tenant sees.
		class, current, target string
		reject                 bool
	}{
		"InSync":         {edits{bound, attributes("silver", "silver")}, edits{bound, attributes("silver", "silver")}, "silver", "silver", "", false},
		"Changed":        {edits{bound, attributes("gold", "silver")}, edits{bound, attributes("silver", "silver")}, "gold", "silver", "", false},
		"First":          {edits{bound, attributes("gold")}, edits{bound}, "gold", "", "", false},
		"InProgress":     {edits{bound, attributes("gold", "silver")}, edits{bound, attributes("gold", "silver"), modifying}, "gold", "silver", "gold", false},
		"Done":           {edits{bound, attributes("gold", "silver"), modifying}, edits{bound, attributes("gold", "gold")}, "gold", "gold", "", false},
		"Hidden":         {edits{bound, attributes("hidden", "silver")}, edits{bound, attributes("silver", "silver")}, "silver", "silver", "", true},
		"OfferedNoMore":  {edits{bound, attributes("hidden", "silver")}, edits{bound, attributes("hidden", "hidden")}, "hidden", "hidden", "", false},
		"NotBoundYet":    {edits{attributes("gold")}, edits{pending}, "", "", "", false},
		"Cancelled":      {edits{bound}, edits{bound, attributes("gold")}, "", "", "", false},
		"OfTheOperator":  {edits{bound}, edits{bound, attributes("platinum", "platinum")}, "platinum", "", "", false},
		"TakenAwayAgain": {edits{bound, attributes("gold"), none}, edits{bound, attributes("gold", "gold")}, "gold", "", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			tenant, super := claim(tc.tenant...), superClaim(tc.super...)
			w := withAttributesClasses()
			w.super = append(w.super, super)
			ops, err := decide(t, resources.PersistentVolumeClaims(), w, "shop", "data", tenant, super)
			reject, rejected := resource.AsReject(err)
			if rejected != tc.reject || rejected && reject.Reason != "VolumeAttributesClassNotOffered" || !rejected && err != nil {
				t.Errorf("got %v", err)
			}
			if got := ptr.Deref(patched(t, super, resource.Super, ops).Spec.VolumeAttributesClassName, ""); got != tc.class {
				t.Errorf("the class in the super cluster is %q, want %q", got, tc.class)
			}
			status := patched(t, tenant, resource.Tenant, ops).Status
			if got := ptr.Deref(status.CurrentVolumeAttributesClassName, ""); got != tc.current {
				t.Errorf("the current class is %q, want %q", got, tc.current)
			}
			if got := ptr.Deref(status.ModifyVolumeStatus, corev1.ModifyVolumeStatus{}).TargetVolumeAttributesClassName; got != tc.target {
				t.Errorf("the target is %q, want %q", got, tc.target)
			}
		})
	}
}

// The tenant's control plane binds a claim with a class only to a volume that has the same class.
func TestVolumesShowTheirVolumeAttributesClass(t *testing.T) {
	with := func(class string) func(*corev1.PersistentVolume) {
		return func(pv *corev1.PersistentVolume) { pv.Spec.VolumeAttributesClassName = &class }
	}
	for name, tc := range map[string]struct {
		claim   *corev1.PersistentVolumeClaim
		volume  *corev1.PersistentVolume
		replica *corev1.PersistentVolume
		want    string
	}{
		"New":                  {claim(attributes("gold")), realVolume(with("gold")), nil, "gold"},
		"Changed":              {claim(bound, attributes("gold")), realVolume(with("gold")), shownVolume(with("silver")), "gold"},
		"ChosenByTheOperator":  {claim(), realVolume(with("platinum")), nil, ""},
		"ChangedByTheOperator": {claim(bound), realVolume(with("platinum")), shownVolume(), ""},
		"Never":                {claim(bound), realVolume(), shownVolume(with("tenants")), "tenants"}, // the API server lets nobody remove it
	} {
		t.Run(name, func(t *testing.T) {
			w := world{tenant: []resource.Object{tc.claim}, super: []resource.Object{superClaim()}}
			var tenant resource.Object
			if tc.replica != nil {
				tenant, w.tenant = tc.replica, append(w.tenant, tc.replica)
			}
			ops, err := decide(t, resources.PersistentVolumes(), w, "", "pvc-1", tenant, tc.volume)
			got := tc.replica
			if got == nil {
				got = created[*corev1.PersistentVolume](t, ops, err)
			} else {
				got = patched(t, got, resource.Tenant, ops)
			}
			if class := ptr.Deref(got.Spec.VolumeAttributesClassName, ""); class != tc.want || err != nil {
				t.Errorf("the class is %q, %v; want %q", class, err, tc.want)
			}
			if got.Annotations[names.AnnotationUID] == "" {
				t.Error("it is not the replica")
			}
		})
	}
}
