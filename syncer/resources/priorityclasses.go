package resources

import (
	"strings"

	schedulingv1 "k8s.io/api/scheduling/v1"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// +kubebuilder:rbac:groups=scheduling.k8s.io,resources=priorityclasses,verbs=get;list;watch

// PriorityClasses gives each tenant the super cluster's classes that are offered, which pods can then name. Those of the
// system, which every cluster has, are each side's own; and which class pods have that name none is the tenant's choice.
func PriorityClasses() resource.Kind {
	return resource.Of(resource.Resource[*schedulingv1.PriorityClass]{
		Name:          resource.PriorityClasses,
		GVK:           schedulingv1.SchemeGroupVersion.WithKind("PriorityClass"),
		Cluster:       true,
		Origin:        resource.Super,
		SuperSelector: resource.Selector{All: true},
		New:           func() *schedulingv1.PriorityClass { return &schedulingv1.PriorityClass{} },
		Skip: func(in *schedulingv1.PriorityClass) bool {
			return strings.HasPrefix(in.Name, "system-")
		},
		Needed: func(_ resource.View, in *schedulingv1.PriorityClass) bool {
			return resource.ClassOffered(resource.PriorityClasses, in)
		},
		Down: func(_ resource.View, in *schedulingv1.PriorityClass) (*schedulingv1.PriorityClass, error) {
			return &schedulingv1.PriorityClass{Value: in.Value, Description: in.Description, PreemptionPolicy: in.PreemptionPolicy}, nil
		},
		Merge: func(existing, want *schedulingv1.PriorityClass) {
			existing.GlobalDefault, existing.Description = want.GlobalDefault, want.Description // all else is immutable
		},
	})
}
