package resources

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

const kindVolumeClaims = "persistentvolumeclaims"

// +kubebuilder:rbac:groups="",resources=persistentvolumeclaims,verbs=get;list;watch;create;patch;delete

// PersistentVolumeClaims asks for volumes in the super cluster, where they are provisioned. A claim can name a volume only
// if that was retained when an earlier claim of the tenant went. The tenant binds its claim to the replica of the volume,
// see PersistentVolumes; what it holds and how it grows comes back.
func PersistentVolumeClaims() resource.Kind {
	return resource.Of(resource.Resource[*corev1.PersistentVolumeClaim]{
		Name: kindVolumeClaims,
		GVK:  corev1.SchemeGroupVersion.WithKind("PersistentVolumeClaim"),
		New:  func() *corev1.PersistentVolumeClaim { return &corev1.PersistentVolumeClaim{} },
		// The volume goes with its claim, by its reclaim policy.
		Precious: true,
		Hold:     claimHold,
		Down:     claimDown,
		Prepare:  claimPrepare,
		Merge: func(existing, want *corev1.PersistentVolumeClaim) {
			existing.Spec.Resources.Requests = want.Spec.Resources.Requests
			mergeAttributesClass(existing, want) // all else is immutable
		},
		Up:         claimUp,
		Unpaired:   reserve,
		References: claimReferences,
	})
}

// claimReferences names the volume of a claim, its class of volume attributes, and what it is filled from.
func claimReferences(in *corev1.PersistentVolumeClaim) []resource.Ref {
	refs := sourceOf(in)
	if class, asked := attributesClassOf(in); asked {
		refs = append(refs, class)
	}
	if in.Spec.VolumeName != "" {
		refs = append(refs, volumeRef(in.Spec.VolumeName))
	}
	return refs
}

// claimHold keeps the claim of the super cluster until its volume has the reclaim policy that the tenant wants.
func claimHold(v resource.View, super *corev1.PersistentVolumeClaim) ([]resource.Object, error) {
	pv, _ := v.Get(resource.Super, volumeRef(super.Spec.VolumeName)).(*corev1.PersistentVolume)
	if pv == nil {
		return nil, nil
	}
	return policySettled(v, pv)
}

// retrySource is when a claim that waits for what it is filled from is looked at again although no event arrived.
const retrySource = time.Minute

// volumeSnapshots is the kind of snapshots, when a SyncPolicy offers them.
const volumeSnapshots = "volumesnapshots.snapshot.storage.k8s.io"

// sourceOf names the snapshot or claim that a claim is filled from.
func sourceOf(in *corev1.PersistentVolumeClaim) []resource.Ref {
	from := in.Spec.DataSource
	if from == nil {
		return nil
	}
	group := ""
	if from.APIGroup != nil {
		group = *from.APIGroup
	}
	switch {
	case from.Kind == "VolumeSnapshot" && group == "snapshot.storage.k8s.io":
		return []resource.Ref{{Kind: volumeSnapshots, Namespace: in.Namespace, Name: from.Name}}
	case from.Kind == "PersistentVolumeClaim" && group == "":
		return []resource.Ref{{Kind: "persistentvolumeclaims", Namespace: in.Namespace, Name: from.Name}}
	default:
		return nil
	}
}

func claimDown(v resource.View, in *corev1.PersistentVolumeClaim) (*corev1.PersistentVolumeClaim, error) {
	retained := ""
	if v.Get(resource.Super, claimRef(in.Namespace, in.Name)) == nil {
		pv, err := claimable(v, in)
		if err != nil {
			return nil, err
		}
		if pv != nil {
			retained = pv.Name
		}
	}
	attributes, refused := attributesClass(v, in)
	out := &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes:               in.Spec.AccessModes,
		Resources:                 corev1.VolumeResourceRequirements{Requests: in.Spec.Resources.Requests},
		StorageClassName:          in.Spec.StorageClassName,
		VolumeMode:                in.Spec.VolumeMode,
		DataSource:                in.Spec.DataSource,
		VolumeName:                retained,
		VolumeAttributesClassName: attributes,
	}}
	v.CopyMeta(in, out)
	return out, refused
}

// claimable says what keeps a new claim from getting a volume. It returns the volume of the super cluster that the claim asks
// for, nil when one is to be provisioned.
func claimable(v resource.View, in *corev1.PersistentVolumeClaim) (*corev1.PersistentVolume, error) {
	pv, replica := retainedFor(v, in)
	switch {
	case pv != nil:
		return pv, reclaimable(v, in, pv, replica)
	case in.Status.Phase == corev1.ClaimBound && !madeByHand(v, in.Spec.VolumeName):
		return nil, resource.Rejected("VolumeLost", "the volume of this claim does not exist any more; delete the claim to start with an empty one")
	case in.Spec.VolumeName != "":
		return nil, resource.Rejected("VolumeNotOffered", "volume %s is none that was provisioned and retained here: delete the claim, and make it without spec.volumeName and with a StorageClass", in.Spec.VolumeName)
	case in.Spec.StorageClassName != nil && *in.Spec.StorageClassName == "":
		return nil, resource.Rejected("VolumeNotOffered", "an empty spec.storageClassName asks for a volume that somebody made by hand, which is not offered here: delete the claim, and make it with a StorageClass")
	case in.Spec.Selector != nil:
		return nil, resource.Rejected("SelectorNotAllowed", "spec.selector is not offered here: volumes are provisioned for the claim; remove it")
	case !cloneable(in):
		return nil, resource.Rejected("DataSourceNotAllowed", "only a PersistentVolumeClaim or a VolumeSnapshot of the same namespace can be spec.dataSource here")
	}
	for _, source := range sourceOf(in) {
		kind := in.Spec.DataSource.Kind
		if v.Replicated(source) {
			continue
		}
		if v.Get(resource.Tenant, source) != nil {
			return nil, resource.Blocked(retrySource, "DataSourceNotFound", "%s %q, which this claim is to be filled from and the underlying cluster does not have yet", kind, source.Name)
		}
		return nil, resource.Rejected("DataSourceNotFound", "%s %q, which this claim is to be filled from, does not exist, or its kind is not offered here", kind, source.Name)
	}
	return nil, nil
}

// madeByHand says whether the tenant made a volume, which is then no replica.
func madeByHand(v resource.View, name string) bool {
	volume := v.Get(resource.Tenant, volumeRef(name))
	return volume != nil && volume.GetAnnotations()[names.AnnotationUID] == ""
}

// retainedFor returns the volume that a claim names, or that is reserved for it, and its replica in the tenant; nil if that is
// none of the tenant's.
func retainedFor(v resource.View, in *corev1.PersistentVolumeClaim) (pv, replica *corev1.PersistentVolume) {
	name := in.Spec.VolumeName
	if name == "" {
		v.Each(resource.Tenant, kindVolumes, func(o resource.Object) {
			if candidate, ok := o.(*corev1.PersistentVolume); ok && reservedFor(candidate, in) && (name == "" || candidate.Name < name) {
				name = candidate.Name
			}
		})
	}
	if name == "" {
		return nil, nil
	}
	pv, _ = v.Get(resource.Super, volumeRef(name)).(*corev1.PersistentVolume)
	if pv == nil {
		return nil, nil
	}
	if _, ours := claimOf(v, pv); !ours {
		return nil, nil
	}
	if replica = shownAs(v, pv); replica == nil {
		return nil, nil
	}
	return pv, replica
}

// reservedFor says whether a volume of the tenant is for the claim and for no other.
func reservedFor(replica *corev1.PersistentVolume, in *corev1.PersistentVolumeClaim) bool {
	claim := replica.Spec.ClaimRef
	return claim != nil && claim.Namespace == in.Namespace && claim.Name == in.Name && (claim.UID == "" || claim.UID == in.UID)
}

// unclaimed says whether a volume of the tenant waits for whatever claim names it: nobody but us has reserved it.
func unclaimed(v resource.View, pv, replica *corev1.PersistentVolume) bool {
	claim := replica.Spec.ClaimRef
	last, _ := claimOf(v, pv)
	return claim == nil || claim.UID == "" && claim.Namespace == last.Namespace && claim.Name == last.Name
}

// reclaimable waits until a volume that was retained may go to the claim: no other claim has it, on either side.
func reclaimable(v resource.View, in *corev1.PersistentVolumeClaim, pv, replica *corev1.PersistentVolume) error {
	if last, _ := claimOf(v, pv); last != claimRef(in.Namespace, in.Name) {
		if holder := v.Get(resource.Super, last); holder != nil && holder.GetUID() == pv.Spec.ClaimRef.UID {
			return resource.Rejected("VolumeInUse", "volume %s belongs to claim %s/%s", pv.Name, last.Namespace, last.Name)
		}
	}
	if !reservedFor(replica, in) {
		return resource.Blocked(retryVolume, "Waiting", "volume %q to be released by its last claim", pv.Name)
	}
	return nil
}

// claimPrepare gives a volume that was retained to the claim that is about to be made in the super cluster.
func claimPrepare(v resource.View, in *corev1.PersistentVolumeClaim) ([]resource.Op, error) {
	pv, _ := retainedFor(v, in)
	if pv == nil {
		return nil, nil
	}
	op := resource.Op{Side: resource.Super, Verb: resource.Patch, Why: resource.Bound}
	return resource.Change(op, pv, resource.Guarded, func(to *corev1.PersistentVolume) {
		to.Spec.ClaimRef = &corev1.ObjectReference{
			APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: names.SuperNamespace(v.Tenant.ID, in.Namespace), Name: in.Name,
		}
		markRetained(v, to, in.Namespace)
	})
}

// reserve gives a volume that the tenant has released to the claim that names it, as the tenant's own volume controller
// does with a volume that no claim has.
func reserve(v resource.View, p resource.Pair[*corev1.PersistentVolumeClaim]) ([]resource.Op, error) {
	in := p.Tenant
	if p.Super != nil || in == nil || in.DeletionTimestamp != nil || in.Spec.VolumeName == "" {
		return nil, nil
	}
	pv, replica := retainedFor(v, in)
	if pv == nil || reservedFor(replica, in) || !unclaimed(v, pv, replica) {
		return nil, nil
	}
	op := resource.Op{Side: resource.Tenant, Verb: resource.Patch, Why: resource.Bound}
	return resource.Change(op, replica, resource.Guarded, func(to *corev1.PersistentVolume) {
		to.Spec.ClaimRef = &corev1.ObjectReference{APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: in.Namespace, Name: in.Name, UID: in.UID}
	})
}

// cloneable says whether what a claim is filled from is the tenant's own, and is under the same name in the super cluster.
func cloneable(in *corev1.PersistentVolumeClaim) bool {
	from, ref := in.Spec.DataSource, in.Spec.DataSourceRef
	if ref != nil && (from == nil || ref.Kind != from.Kind || ref.Name != from.Name || ref.Namespace != nil) {
		return false // the API server sets both to the same, where it can
	}
	return from == nil || sourceOf(in) != nil
}

// claimUp brings back the size and the class of volume attributes that a bound claim has, and how far a change of them is. That
// it is bound, the tenant finds out by itself.
func claimUp(_ resource.View, p resource.Pair[*corev1.PersistentVolumeClaim]) ([]resource.Op, error) {
	if p.Tenant.Status.Phase != corev1.ClaimBound || p.Super.Status.Phase != corev1.ClaimBound {
		return nil, claimIgnored(p)
	}
	ops, err := resource.ReportStatus(p.Tenant, func(to *corev1.PersistentVolumeClaim) {
		to.Status.Capacity = p.Super.Status.Capacity
		to.Status.AllocatedResources = p.Super.Status.AllocatedResources
		to.Status.AllocatedResourceStatuses = p.Super.Status.AllocatedResourceStatuses
		to.Status.Conditions = p.Super.Status.Conditions
		reportAttributesClass(to, p.Super)
	})
	if err != nil {
		return nil, err
	}
	return ops, claimIgnored(p)
}

// claimIgnored tells what a claim asks for and does not get.
func claimIgnored(p resource.Pair[*corev1.PersistentVolumeClaim]) error {
	inTenant, inSuper := p.Tenant.Spec.VolumeName, p.Super.Spec.VolumeName
	if inTenant == "" || inSuper == "" || inTenant == inSuper {
		return nil
	}
	return resource.Rejected("VolumeMismatch",
		"pods that use this claim get volume %s, not %s: to get that one, delete the claim and make it again with spec.volumeName, after volume %s was released", inSuper, inTenant, inTenant)
}
