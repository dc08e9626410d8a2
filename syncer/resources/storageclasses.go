package resources

import (
	"maps"
	"strings"

	storagev1 "k8s.io/api/storage/v1"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

const kindStorageClasses = "storageclasses"

// defaultClass is the annotation of the class that claims without one get.
const defaultClass = "storageclass.kubernetes.io/is-default-class"

// +kubebuilder:rbac:groups=storage.k8s.io,resources=storageclasses,verbs=get;list;watch

// StorageClasses offers the super cluster's classes to each tenant. Volumes are provisioned in the super cluster by the
// class of that name there, so what a tenant does to its own replica changes nothing.
func StorageClasses() resource.Kind {
	return resource.Of(resource.Resource[*storagev1.StorageClass]{
		Name:          kindStorageClasses,
		GVK:           storagev1.SchemeGroupVersion.WithKind("StorageClass"),
		Cluster:       true,
		Origin:        resource.Super,
		SuperSelector: resource.Selector{All: true},
		New:           func() *storagev1.StorageClass { return &storagev1.StorageClass{} },
		Down: func(_ resource.View, in *storagev1.StorageClass) (*storagev1.StorageClass, error) {
			out := &storagev1.StorageClass{
				Provisioner: in.Provisioner, Parameters: withoutSecrets(in.Parameters), ReclaimPolicy: in.ReclaimPolicy,
				VolumeBindingMode: in.VolumeBindingMode, AllowVolumeExpansion: in.AllowVolumeExpansion, AllowedTopologies: in.AllowedTopologies,
			}
			if value, ok := in.Annotations[defaultClass]; ok {
				out.Annotations = map[string]string{defaultClass: value}
			}
			return out, nil
		},
		Merge: func(existing, want *storagev1.StorageClass) {
			existing.AllowVolumeExpansion = want.AllowVolumeExpansion // all else is immutable
		},
	})
}

// withoutSecrets returns the parameters of a class that do not name Secrets of the operator.
func withoutSecrets(parameters map[string]string) map[string]string {
	out := maps.Clone(parameters)
	maps.DeleteFunc(out, func(key, _ string) bool { return strings.Contains(key, "secret") })
	return out
}
