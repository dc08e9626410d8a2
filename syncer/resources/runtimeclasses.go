package resources

import (
	nodev1 "k8s.io/api/node/v1"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

const kindRuntimeClasses = "runtimeclasses"

// +kubebuilder:rbac:groups=node.k8s.io,resources=runtimeclasses,verbs=get;list;watch

// RuntimeClasses offers the super cluster's classes to each tenant, overhead and scheduling included, so that the
// tenant's admission counts what the super cluster's will.
func RuntimeClasses() resource.Kind {
	return resource.Of(resource.Resource[*nodev1.RuntimeClass]{
		Name:          kindRuntimeClasses,
		GVK:           nodev1.SchemeGroupVersion.WithKind("RuntimeClass"),
		Cluster:       true,
		Origin:        resource.Super,
		SuperSelector: resource.Selector{All: true},
		New:           func() *nodev1.RuntimeClass { return &nodev1.RuntimeClass{} },
		Needed: func(_ resource.View, in *nodev1.RuntimeClass) bool {
			return resource.ClassOffered(kindRuntimeClasses, in)
		},
		Down: func(_ resource.View, in *nodev1.RuntimeClass) (*nodev1.RuntimeClass, error) {
			return &nodev1.RuntimeClass{Handler: in.Handler, Overhead: in.Overhead, Scheduling: in.Scheduling}, nil
		},
		Merge: func(existing, want *nodev1.RuntimeClass) {
			existing.Overhead, existing.Scheduling = want.Overhead, want.Scheduling // the handler is immutable
		},
	})
}
