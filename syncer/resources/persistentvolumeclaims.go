package resources

import (
	"maps"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// +kubebuilder:rbac:groups="",resources=persistentvolumeclaims,verbs=get;list;watch;create;patch;delete

// PersistentVolumeClaims asks for volumes in the super cluster, where they are provisioned. Which volume a claim gets is
// never the tenant's choice. The tenant binds its claim to the replica of the volume, see PersistentVolumes; what it
// holds and how it grows comes back.
func PersistentVolumeClaims() resource.Kind {
	return resource.Of(resource.Resource[*corev1.PersistentVolumeClaim]{
		Name: "persistentvolumeclaims",
		GVK:  corev1.SchemeGroupVersion.WithKind("PersistentVolumeClaim"),
		New:  func() *corev1.PersistentVolumeClaim { return &corev1.PersistentVolumeClaim{} },
		Down: claimDown,
		Merge: func(existing, want *corev1.PersistentVolumeClaim) {
			existing.Spec.Resources.Requests = want.Spec.Resources.Requests // all else is immutable
		},
		Up:         claimUp,
		References: snapshotOf,
	})
}

// retrySnapshot is when a claim that waits for its snapshot is looked at again although no event arrived.
const retrySnapshot = time.Minute

// volumeSnapshots is the kind of snapshots, when a SyncPolicy offers them.
const volumeSnapshots = "volumesnapshots.snapshot.storage.k8s.io"

// snapshotOf names the snapshot that a claim is filled from.
func snapshotOf(in *corev1.PersistentVolumeClaim) []resource.Ref {
	from := in.Spec.DataSource
	if from == nil || from.Kind != "VolumeSnapshot" || from.APIGroup == nil || *from.APIGroup != "snapshot.storage.k8s.io" {
		return nil
	}
	return []resource.Ref{{Kind: volumeSnapshots, Namespace: in.Namespace, Name: from.Name}}
}

func claimDown(v resource.View, in *corev1.PersistentVolumeClaim) (*corev1.PersistentVolumeClaim, error) {
	exists := v.Get(resource.Super, resource.Ref{Kind: "persistentvolumeclaims", Namespace: in.Namespace, Name: in.Name}) != nil
	switch {
	case exists:
	case in.Status.Phase == corev1.ClaimBound:
		return nil, resource.Rejected("VolumeLost", "the volume of this claim does not exist any more; delete the claim to start with an empty one")
	case in.Spec.VolumeName != "":
		return nil, resource.Rejected("VolumeNameNotAllowed", "spec.volumeName is not offered here: volumes are provisioned for the claim; remove it")
	case in.Spec.Selector != nil:
		return nil, resource.Rejected("SelectorNotAllowed", "spec.selector is not offered here: volumes are provisioned for the claim; remove it")
	case !cloneable(in):
		return nil, resource.Rejected("DataSourceNotAllowed", "only a PersistentVolumeClaim or a VolumeSnapshot of the same namespace can be spec.dataSource here")
	default:
		for _, snapshot := range snapshotOf(in) {
			if v.Get(resource.Super, snapshot) != nil {
				continue
			}
			if v.Get(resource.Tenant, snapshot) != nil {
				return nil, resource.Waiting(retrySnapshot, "snapshot %s/%s", in.Namespace, snapshot.Name)
			}
			return nil, resource.Rejected("DataSourceNotFound", "VolumeSnapshot %q, which this claim is to be filled from, does not exist, or snapshots are not offered here", snapshot.Name)
		}
	}
	out := &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes:      in.Spec.AccessModes,
		Resources:        corev1.VolumeResourceRequirements{Requests: in.Spec.Resources.Requests},
		StorageClassName: in.Spec.StorageClassName,
		VolumeMode:       in.Spec.VolumeMode,
		DataSource:       in.Spec.DataSource,
	}}
	copyMeta(v, in, out)
	// What the tenant's volume controller notes is about the tenant's volumes.
	annotations := out.GetAnnotations()
	maps.DeleteFunc(annotations, func(key, _ string) bool {
		return strings.HasPrefix(key, "pv.kubernetes.io/") || strings.HasPrefix(key, "volume.kubernetes.io/") || strings.HasPrefix(key, "volume.beta.kubernetes.io/")
	})
	out.SetAnnotations(annotations)
	return out, nil
}

// cloneable says whether what a claim is filled from is the tenant's own, and is under the same name in the super cluster.
func cloneable(in *corev1.PersistentVolumeClaim) bool {
	from, ref := in.Spec.DataSource, in.Spec.DataSourceRef
	if ref != nil && (from == nil || ref.Kind != from.Kind || ref.Name != from.Name || ref.Namespace != nil) {
		return false // the API server sets both to the same, where it can
	}
	return from == nil || from.Kind == "PersistentVolumeClaim" || snapshotOf(in) != nil
}

// claimUp brings back the size that a bound claim has, and how far growing it is. That it is bound, the tenant finds out
// by itself.
func claimUp(_ resource.View, p resource.Pair[*corev1.PersistentVolumeClaim]) ([]resource.Op, error) {
	if p.Tenant == nil || p.Super == nil || p.Tenant.Status.Phase != corev1.ClaimBound || p.Super.Status.Phase != corev1.ClaimBound {
		return nil, nil
	}
	current := p.Tenant.DeepCopy()
	current.Status.Capacity = p.Super.Status.Capacity
	current.Status.AllocatedResources = p.Super.Status.AllocatedResources
	current.Status.AllocatedResourceStatuses = p.Super.Status.AllocatedResourceStatuses
	current.Status.Conditions = p.Super.Status.Conditions
	patch, err := resource.Diff(p.Tenant, current, resource.SameObject)
	if err != nil || patch == nil {
		return nil, err
	}
	return []resource.Op{{Side: resource.Tenant, Verb: resource.PatchStatus, Object: p.Tenant, Patch: patch, Why: resource.Status}}, nil
}
