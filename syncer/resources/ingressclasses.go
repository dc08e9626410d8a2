package resources

import (
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

const kindIngressClasses = "ingressclasses"

// +kubebuilder:rbac:groups=networking.k8s.io,resources=ingressclasses,verbs=get;list;watch

// IngressClasses offers the super cluster's classes to each tenant. How a class is configured is the operator's, so its
// parameters stay where they are.
func IngressClasses() resource.Kind {
	return resource.Of(resource.Resource[*networkingv1.IngressClass]{
		Name:          kindIngressClasses,
		GVK:           networkingv1.SchemeGroupVersion.WithKind("IngressClass"),
		Cluster:       true,
		Origin:        resource.Super,
		SuperSelector: resource.Selector{All: true},
		New:           func() *networkingv1.IngressClass { return &networkingv1.IngressClass{} },
		Needed: func(_ resource.View, in *networkingv1.IngressClass) bool {
			return resource.ClassOffered(kindIngressClasses, in)
		},
		Down: func(_ resource.View, in *networkingv1.IngressClass) (*networkingv1.IngressClass, error) {
			out := &networkingv1.IngressClass{Spec: networkingv1.IngressClassSpec{Controller: in.Spec.Controller}}
			if value, ok := in.Annotations[networkingv1.AnnotationIsDefaultIngressClass]; ok {
				out.Annotations = map[string]string{networkingv1.AnnotationIsDefaultIngressClass: value}
			}
			return out, nil
		},
		Merge: func(existing, want *networkingv1.IngressClass) {
			existing.Spec.Parameters = want.Spec.Parameters // the controller is immutable
		},
	})
}
