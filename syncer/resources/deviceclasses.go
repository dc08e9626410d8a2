package resources

import (
	resourcev1 "k8s.io/api/resource/v1"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// +kubebuilder:rbac:groups=resource.k8s.io,resources=deviceclasses,verbs=get;list;watch

// DeviceClasses offers the super cluster's classes to each tenant. Devices are allocated in the super cluster by the class of
// that name there, with the operator's configuration of them, which stays where it is.
func DeviceClasses() resource.Kind {
	return resource.Of(resource.Resource[*resourcev1.DeviceClass]{
		Name:          resource.DeviceClasses,
		GVK:           resourcev1.SchemeGroupVersion.WithKind("DeviceClass"),
		Optional:      true,
		Cluster:       true,
		Origin:        resource.Super,
		SuperSelector: resource.Selector{All: true},
		New:           func() *resourcev1.DeviceClass { return &resourcev1.DeviceClass{} },
		Needed: func(_ resource.View, in *resourcev1.DeviceClass) bool {
			return resource.ClassOffered(resource.DeviceClasses, in)
		},
		Down: func(_ resource.View, in *resourcev1.DeviceClass) (*resourcev1.DeviceClass, error) {
			return &resourcev1.DeviceClass{Spec: resourcev1.DeviceClassSpec{
				Selectors: in.Spec.Selectors, ExtendedResourceName: in.Spec.ExtendedResourceName,
			}}, nil
		},
		Merge: func(existing, want *resourcev1.DeviceClass) { existing.Spec = want.Spec },
	})
}
