package resources

import (
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/utils/ptr"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

const kindAttributesClasses = "volumeattributesclasses"

// +kubebuilder:rbac:groups=storage.k8s.io,resources=volumeattributesclasses,verbs=get;list;watch

// VolumeAttributesClasses offers the super cluster's classes to each tenant, whose claims can name them. Volumes are changed in
// the super cluster by the class of that name there.
func VolumeAttributesClasses() resource.Kind {
	return resource.Of(resource.Resource[*storagev1.VolumeAttributesClass]{
		Name:          kindAttributesClasses,
		GVK:           storagev1.SchemeGroupVersion.WithKind("VolumeAttributesClass"),
		Optional:      true,
		Cluster:       true,
		Origin:        resource.Super,
		SuperSelector: resource.Selector{All: true},
		New:           func() *storagev1.VolumeAttributesClass { return &storagev1.VolumeAttributesClass{} },
		Needed: func(_ resource.View, in *storagev1.VolumeAttributesClass) bool {
			return resource.ClassOffered(kindAttributesClasses, in)
		},
		Down: func(_ resource.View, in *storagev1.VolumeAttributesClass) (*storagev1.VolumeAttributesClass, error) {
			return &storagev1.VolumeAttributesClass{DriverName: in.DriverName, Parameters: withoutSecrets(in.Parameters)}, nil
		},
		Merge: func(_, _ *storagev1.VolumeAttributesClass) {}, // all is immutable
	})
}

// attributesClassOf names the class that a claim asks for.
func attributesClassOf(in *corev1.PersistentVolumeClaim) (ref resource.Ref, asked bool) {
	name := ptr.Deref(in.Spec.VolumeAttributesClassName, "")
	return resource.Ref{Kind: kindAttributesClasses, Name: name}, name != ""
}

// attributesClass returns the class that the claim of the super cluster is to have: the one that the tenant asks for, if that is
// offered. A claim that has a class keeps it.
func attributesClass(v resource.View, in *corev1.PersistentVolumeClaim) (*string, error) {
	var has *string
	if super, _ := v.Get(resource.Super, claimRef(in.Namespace, in.Name)).(*corev1.PersistentVolumeClaim); super != nil {
		has = super.Spec.VolumeAttributesClassName
	}
	class, asked := attributesClassOf(in)
	if !asked || class.Name == ptr.Deref(has, "") || v.OffersClass(class.Kind, class.Name) {
		return in.Spec.VolumeAttributesClassName, nil
	}
	return has, resource.Rejected("VolumeAttributesClassNotOffered",
		"VolumeAttributesClass %q is not offered here; `kubectl get volumeattributesclasses` shows those that are, except those that you made", class.Name)
}

// mergeAttributesClass changes the class of a claim where the API server lets it be changed. A class that the tenant does not ask
// for and that the volume has is the operator's.
func mergeAttributesClass(existing, want *corev1.PersistentVolumeClaim) {
	if existing.Status.Phase != corev1.ClaimBound {
		return
	}
	if _, asked := attributesClassOf(want); asked || existing.Status.CurrentVolumeAttributesClassName == nil {
		existing.Spec.VolumeAttributesClassName = want.Spec.VolumeAttributesClassName
	}
}

// reportAttributesClass says in the status of the tenant's claim what the volume has, and how far the change to another class is.
func reportAttributesClass(to, super *corev1.PersistentVolumeClaim) {
	if _, asked := attributesClassOf(to); asked {
		to.Status.CurrentVolumeAttributesClassName = super.Status.CurrentVolumeAttributesClassName
		to.Status.ModifyVolumeStatus = super.Status.ModifyVolumeStatus
	}
}

// shownAttributesClass returns the class that the tenant's replica of a volume has. The tenant's control plane binds a claim only
// to a volume of the class that the claim asks for, so the class of a volume whose claim asks for none is not shown.
func shownAttributesClass(pv *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) *string {
	if claim == nil {
		return nil
	}
	if _, asked := attributesClassOf(claim); !asked {
		return nil
	}
	return pv.Spec.VolumeAttributesClassName
}
