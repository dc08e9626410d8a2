package resources

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// provisionedBy is the annotation that tells a volume controller that somebody else deletes the volume.
const provisionedBy = "pv.kubernetes.io/provisioned-by"

// volumeDriver is the driver of volumes whose real one is not named to tenants.
const volumeDriver = "volume.csi.k8s.io"

// +kubebuilder:rbac:groups="",resources=persistentvolumes,verbs=get;list;watch

// PersistentVolumes gives a tenant a replica of each volume that one of its claims is bound to in the super cluster. It is
// a shell: size, modes and class, and the tenant's claim, to which the tenant's own volume controller then binds it. What
// would lead to the storage behind it stays in the super cluster. Volumes that a tenant makes go nowhere.
func PersistentVolumes() resource.Kind {
	return resource.Of(resource.Resource[*corev1.PersistentVolume]{
		Name:          "persistentvolumes",
		GVK:           corev1.SchemeGroupVersion.WithKind("PersistentVolume"),
		Cluster:       true,
		Origin:        resource.Super,
		SuperSelector: resource.Selector{All: true},
		New:           func() *corev1.PersistentVolume { return &corev1.PersistentVolume{} },
		Trim: func(pv *corev1.PersistentVolume) {
			if pv.Spec.CSI != nil {
				pv.Spec.PersistentVolumeSource = corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: pv.Spec.CSI.Driver, VolumeHandle: pv.Spec.CSI.VolumeHandle}}
			}
		},
		Home: func(pv *corev1.PersistentVolume) string {
			if pv.Spec.ClaimRef == nil {
				return ""
			}
			return pv.Spec.ClaimRef.Namespace
		},
		Needed: func(v resource.View, pv *corev1.PersistentVolume) bool {
			_, ours := claimOf(v, pv)
			return ours
		},
		Down: volumeDown,
		Merge: func(existing, want *corev1.PersistentVolume) {
			existing.Spec.Capacity, existing.Spec.NodeAffinity = want.Spec.Capacity, want.Spec.NodeAffinity
			existing.Spec.PersistentVolumeReclaimPolicy = want.Spec.PersistentVolumeReclaimPolicy
		},
	})
}

// claimOf names the tenant's claim of a volume.
func claimOf(v resource.View, pv *corev1.PersistentVolume) (resource.Ref, bool) {
	if pv.Spec.ClaimRef == nil {
		return resource.Ref{}, false
	}
	namespace, ours := v.TenantNamespace(pv.Spec.ClaimRef.Namespace)
	return resource.Ref{Kind: "persistentvolumeclaims", Namespace: namespace, Name: pv.Spec.ClaimRef.Name}, ours
}

func volumeDown(v resource.View, in *corev1.PersistentVolume) (*corev1.PersistentVolume, error) {
	ref, _ := claimOf(v, in)
	claim := v.Get(resource.Tenant, ref)
	replica := v.Get(resource.Tenant, resource.Ref{Kind: "persistentvolumes", Name: in.Name})
	if claim == nil && replica == nil {
		return nil, resource.Waiting(time.Minute, "claim %s/%s of volume %s", ref.Namespace, ref.Name, in.Name)
	}
	var uid types.UID // of a claim that is gone while the volume waits for its end, nobody needs it
	if claim != nil {
		uid = claim.GetUID()
	}
	driver := volumeDriver
	if in.Spec.CSI != nil {
		driver = in.Spec.CSI.Driver
	}
	out := &corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{
		Capacity:                      in.Spec.Capacity,
		AccessModes:                   in.Spec.AccessModes,
		VolumeMode:                    in.Spec.VolumeMode,
		StorageClassName:              in.Spec.StorageClassName,
		PersistentVolumeReclaimPolicy: in.Spec.PersistentVolumeReclaimPolicy,
		NodeAffinity:                  in.Spec.NodeAffinity,
		ClaimRef: &corev1.ObjectReference{
			APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: ref.Namespace, Name: ref.Name, UID: uid,
		},
		PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: driver, VolumeHandle: in.Name}},
	}}
	out.Annotations = map[string]string{provisionedBy: driver}
	return out, nil
}
