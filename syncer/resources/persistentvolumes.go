package resources

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// provisionedBy is the annotation that tells a volume controller that somebody else deletes the volume.
const provisionedBy = "pv.kubernetes.io/provisioned-by"

// volumeDriver is the driver of volumes whose real one is not named to tenants.
const volumeDriver = "volume.csi.k8s.io"

const kindVolumes = "persistentvolumes"

// retryVolume is when a volume or a claim that waits for the other is looked at again although no event arrived.
const retryVolume = 10 * time.Second

// +kubebuilder:rbac:groups="",resources=persistentvolumes,verbs=get;list;watch;patch

// PersistentVolumes gives a tenant a replica of each volume that one of its claims is bound to in the super cluster. It is
// a shell: size, modes and class, and the tenant's claim, to which the tenant's own volume controller then binds it. What
// would lead to the storage behind it stays in the super cluster. The tenant may change the reclaim policy, and claim a
// volume again that was retained. Volumes that a tenant makes go nowhere.
func PersistentVolumes() resource.Kind {
	return resource.Of(resource.Resource[*corev1.PersistentVolume]{
		Name:          kindVolumes,
		GVK:           corev1.SchemeGroupVersion.WithKind("PersistentVolume"),
		Cluster:       true,
		Precious:      true, // a claim without its volume is lost
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
		UpdatesAffectReferrers: true, // to claims that name the volume
		Needed: func(v resource.View, pv *corev1.PersistentVolume) bool {
			ref, ours := claimOf(v, pv)
			// The tenant may delete a volume that was retained: its data stays, and nothing brings the object back.
			return ours && (v.Get(resource.Tenant, ref) != nil || v.Get(resource.Tenant, volumeRef(pv.Name)) != nil)
		},
		Down:  volumeDown,
		Merge: volumeMerge,
		Up:    volumeUp,
		Unpaired: func(_ resource.View, p resource.Pair[*corev1.PersistentVolume]) ([]resource.Op, error) {
			if p.Tenant == nil || p.Super != nil || p.Tenant.Annotations[names.AnnotationUID] != "" || p.Tenant.DeletionTimestamp != nil {
				return nil, nil
			}
			return nil, resource.Rejected("VolumeNotOffered",
				"volumes that are made by hand are not offered here: no pod can use this one; make a PersistentVolumeClaim with a StorageClass, and a volume is provisioned for it")
		},
	})
}

func volumeRef(name string) resource.Ref { return resource.Ref{Kind: kindVolumes, Name: name} }

func claimRef(namespace, name string) resource.Ref {
	return resource.Ref{Kind: kindVolumeClaims, Namespace: namespace, Name: name}
}

// claimOf names the tenant's claim of a volume: the one that the volume is bound to or, of a volume that was retained, was
// bound to last. A volume that outlives its namespace still belongs to the tenant, which its label says.
func claimOf(v resource.View, pv *corev1.PersistentVolume) (resource.Ref, bool) {
	claim := pv.Spec.ClaimRef
	if claim == nil {
		return resource.Ref{}, false
	}
	namespace, ours := v.TenantNamespace(claim.Namespace)
	if !ours && pv.Labels[names.LabelTenant] == string(v.Tenant.ID) {
		namespace = pv.Annotations[names.AnnotationNamespace]
		ours = names.SuperNamespace(v.Tenant.ID, namespace) == claim.Namespace
	}
	return claimRef(namespace, claim.Name), ours
}

// boundTo returns the tenant's claim that a volume of the super cluster is bound to, by the replica of the claim; nil when
// there is none any more.
func boundTo(v resource.View, pv *corev1.PersistentVolume) *corev1.PersistentVolumeClaim {
	ref, ours := claimOf(v, pv)
	if !ours {
		return nil
	}
	if !v.Replicated(ref) || pv.Spec.ClaimRef.UID != "" && pv.Spec.ClaimRef.UID != v.Get(resource.Super, ref).GetUID() {
		return nil
	}
	claim, _ := v.Get(resource.Tenant, ref).(*corev1.PersistentVolumeClaim)
	return claim
}

// shownAs returns the tenant's replica of a volume of the super cluster, nil if there is none.
func shownAs(v resource.View, pv *corev1.PersistentVolume) *corev1.PersistentVolume {
	replica, _ := v.Get(resource.Tenant, volumeRef(pv.Name)).(*corev1.PersistentVolume)
	if replica == nil || replica.Annotations[names.AnnotationUID] != string(pv.UID) {
		return nil
	}
	return replica
}

func volumeDown(v resource.View, in *corev1.PersistentVolume) (*corev1.PersistentVolume, error) {
	ref, _ := claimOf(v, in)
	claim, replica := boundTo(v, in), shownAs(v, in)
	if claim == nil && replica == nil {
		return nil, resource.Waiting(retryVolume, "claim %s/%s of volume %s", ref.Namespace, ref.Name, in.Name)
	}
	policy, _ := reclaimPolicy(v, in, replica)
	driver := volumeDriver
	if in.Spec.CSI != nil {
		driver = in.Spec.CSI.Driver
	}
	out := &corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{
		Capacity:                      in.Spec.Capacity,
		AccessModes:                   in.Spec.AccessModes,
		VolumeMode:                    in.Spec.VolumeMode,
		StorageClassName:              in.Spec.StorageClassName,
		PersistentVolumeReclaimPolicy: policy,
		NodeAffinity:                  in.Spec.NodeAffinity,
		VolumeAttributesClassName:     shownAttributesClass(in, claim),
		ClaimRef:                      &corev1.ObjectReference{APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: ref.Namespace, Name: ref.Name},
		PersistentVolumeSource:        corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: driver, VolumeHandle: in.Name}},
	}}
	if claim != nil {
		out.Spec.ClaimRef.UID = claim.UID
	}
	out.Annotations = map[string]string{provisionedBy: driver, names.AnnotationReclaimPolicy: string(in.Spec.PersistentVolumeReclaimPolicy)}
	return out, nil
}

// volumeMerge leaves to the tenant who is to claim a volume that was retained. A volume without any claim would be given to
// whatever claim fits it, so it stays reserved for the claim that it had.
func volumeMerge(existing, want *corev1.PersistentVolume) {
	existing.Spec.Capacity, existing.Spec.NodeAffinity = want.Spec.Capacity, want.Spec.NodeAffinity
	existing.Spec.PersistentVolumeReclaimPolicy = want.Spec.PersistentVolumeReclaimPolicy
	if want.Spec.VolumeAttributesClassName != nil { // which cannot be removed
		existing.Spec.VolumeAttributesClassName = want.Spec.VolumeAttributesClassName
	}
	if is, of := existing.Spec.ClaimRef, want.Spec.ClaimRef; is == nil || of.UID != "" && !sameClaim(is, of) {
		existing.Spec.ClaimRef = of
	}
}

func sameClaim(a, b *corev1.ObjectReference) bool {
	return a.Namespace == b.Namespace && a.Name == b.Name && a.UID == b.UID
}

// reclaimPolicy returns the reclaim policy that a volume of the super cluster is to have: its own or, when the tenant has
// changed that of the replica since, the tenant's. A tenant may retain every volume, but have only those deleted that the
// operator's class does not retain; otherwise refused says why not.
func reclaimPolicy(v resource.View, in, replica *corev1.PersistentVolume) (wanted corev1.PersistentVolumeReclaimPolicy, refused string) {
	is := in.Spec.PersistentVolumeReclaimPolicy
	if replica == nil || replica.Spec.PersistentVolumeReclaimPolicy == is {
		return is, ""
	}
	asked, base := replica.Spec.PersistentVolumeReclaimPolicy, replica.Annotations[names.AnnotationReclaimPolicy]
	if base != "" && (string(asked) == base || string(is) != base) {
		return is, "" // it is the operator who changed it
	}
	switch asked {
	case corev1.PersistentVolumeReclaimRetain:
		return asked, ""
	case corev1.PersistentVolumeReclaimDelete:
		class, _ := v.Get(resource.Super, resource.Ref{Kind: kindStorageClasses, Name: in.Spec.StorageClassName}).(*storagev1.StorageClass)
		if class != nil && (class.ReclaimPolicy == nil || *class.ReclaimPolicy == corev1.PersistentVolumeReclaimDelete) {
			return asked, ""
		}
		return is, "volumes of this class are retained by the operator of the cluster"
	default:
		return is, "it is not offered here; use Retain or Delete"
	}
}

// volumeUp brings the tenant's reclaim policy to the super cluster, and marks what is to outlive its claim as the tenant's.
func volumeUp(v resource.View, p resource.Pair[*corev1.PersistentVolume]) ([]resource.Op, error) {
	wanted, refused := reclaimPolicy(v, p.Super, p.Tenant)
	op := resource.Op{Side: resource.Super, Verb: resource.Patch, Why: resource.Drifted}
	ops, err := resource.Change(op, p.Super, resource.Guarded, func(to *corev1.PersistentVolume) {
		to.Spec.PersistentVolumeReclaimPolicy = wanted
		if ref, ours := claimOf(v, p.Super); ours && wanted == corev1.PersistentVolumeReclaimRetain {
			markRetained(v, to, ref.Namespace)
		}
	})
	if err != nil {
		return nil, err
	}
	if refused != "" {
		ops = append(ops, policyRefused(v, p, refused)...)
	}
	return ops, nil
}

// markRetained says on a volume of the super cluster whose it is, when its claim and its namespace do not any more.
func markRetained(v resource.View, pv *corev1.PersistentVolume, namespace string) {
	if pv.Labels == nil {
		pv.Labels = map[string]string{}
	}
	if pv.Annotations == nil {
		pv.Annotations = map[string]string{}
	}
	pv.Labels[names.LabelTenant] = string(v.Tenant.ID)
	pv.Annotations[names.AnnotationNamespace] = namespace
}

// policyRefused tells on the volume and on its claim that a reclaim policy is not taken over.
func policyRefused(v resource.View, p resource.Pair[*corev1.PersistentVolume], why string) []resource.Op {
	message := "the reclaim policy " + string(p.Tenant.Spec.PersistentVolumeReclaimPolicy) + " of volume " + p.Tenant.Name + " is not taken over: " + why
	tell := func(o resource.Object, kind string) resource.Op {
		return resource.Tell(v, o, corev1.SchemeGroupVersion.WithKind(kind), corev1.EventTypeWarning, "ReclaimPolicyNotAllowed", message)
	}
	ops := []resource.Op{tell(p.Tenant, "PersistentVolume")}
	if claim := boundTo(v, p.Super); claim != nil {
		ops = append(ops, tell(claim, "PersistentVolumeClaim"))
	}
	return ops
}

// policySettled waits until the reclaim policy of a volume, which is about to lose its claim, is what the tenant says. It
// returns the tenant's volume that this was read from.
func policySettled(v resource.View, pv *corev1.PersistentVolume) ([]resource.Object, error) {
	if pv.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRetain {
		return nil, nil
	}
	replica := shownAs(v, pv)
	if replica == nil {
		return nil, nil
	}
	if wanted, _ := reclaimPolicy(v, pv, replica); wanted != pv.Spec.PersistentVolumeReclaimPolicy {
		return nil, resource.Waiting(time.Second, "the reclaim policy of volume %s", pv.Name)
	}
	return []resource.Object{replica}, nil
}

// namespaceHold keeps a super namespace while the reclaim policy of a volume that is claimed in it is not what the tenant says.
func namespaceHold(v resource.View, super *corev1.Namespace) ([]resource.Object, error) {
	var restsOn []resource.Object
	var held error
	v.Each(resource.Super, kindVolumes, func(o resource.Object) {
		pv, ok := o.(*corev1.PersistentVolume)
		if !ok || held != nil || pv.Spec.ClaimRef == nil || pv.Spec.ClaimRef.Namespace != super.Name {
			return
		}
		var more []resource.Object
		more, held = policySettled(v, pv)
		restsOn = append(restsOn, more...)
	})
	return restsOn, held
}
