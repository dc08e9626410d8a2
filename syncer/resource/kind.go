package resource

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// Kind is a Resource with its type erased, so that the engine can hold a list of them.
type Kind struct {
	// The fields up to the selectors are those of the Resource.
	Name                          string
	GVK                           schema.GroupVersionKind
	Cluster                       bool
	Plural                        string
	Optional                      bool
	Published                     *Published
	Keep                          bool
	Precious                      bool
	Origin                        Side
	SuperOnly                     bool
	UpdatesAffectReferrers        bool
	MetadataOnly                  bool
	ReferrerUpdatesMatter         bool
	Passing                       bool
	OnDemand                      func(Facts) bool
	TenantSelector, SuperSelector Selector

	New  func() Object
	Trim func(Object)
	// OfMetadata returns the object, without content, that has the metadata.
	OfMetadata          func(*metav1.ObjectMeta) Object
	SuperName           func(name string) string
	Decide              func(v View, key Key, tenant, super Object) ([]Op, error)
	Refused             func(v View, tenant, super Object, op Op, message string) ([]Op, error)
	References          func(tenant Object) []Ref
	Route               func(super Object) (Ref, bool)
	AffectsAllReferrers func(old, now Object) bool
	Customized          func(tenant Object) bool
	AffectedRefs        func(super Object) []Ref
	NodeRequests        func(super Object) (node string, requests corev1.ResourceList)
	// Everyone says that each tenant has a replica of each object.
	Everyone bool
	Home     func(super Object) string

	// Definition is the kind whose tenant objects make a tenant's API server serve this one; empty when every API server
	// does. Served says, for the tenant of the view, why it does not yet (a Wait) or never will (a Reject).
	Definition string
	Served     func(View) error
}

// Of erases the type of a Resource. Every function of the result is set.
func Of[T Object](r Resource[T]) Kind {
	cast := func(o Object) T {
		t, _ := o.(T) // nil, or an object of another type, is absent
		return t
	}
	k := Kind{
		Name: r.Name, GVK: r.GVK, Cluster: r.Cluster, Origin: r.Origin, SuperOnly: r.SuperOnly, UpdatesAffectReferrers: r.UpdatesAffectReferrers,
		MetadataOnly: r.MetadataOnly, ReferrerUpdatesMatter: r.ReferrerUpdatesMatter, Passing: r.Passing, OnDemand: r.OnDemand,
		Plural: r.Plural, Optional: r.Optional, Published: r.Published, Keep: r.Keep, Precious: r.Precious,
		TenantSelector: r.TenantSelector, SuperSelector: r.SuperSelector,
		New:       func() Object { return r.New() },
		SuperName: r.SuperName,
		Decide: func(v View, key Key, tenant, super Object) ([]Op, error) {
			return r.Decide(v, key, Pair[T]{Tenant: cast(tenant), Super: cast(super)})
		},
		Trim: func(o Object) {
			trimMetadata(o)
			if t := cast(o); r.Trim != nil && present(t) {
				r.Trim(t)
			}
		},
		Refused: func(v View, tenant, super Object, op Op, message string) ([]Op, error) {
			if r.Refused == nil {
				return nil, nil
			}
			return r.Refused(v, Pair[T]{Tenant: cast(tenant), Super: cast(super)}, op, message)
		},
		References:   refs(r.References),
		AffectedRefs: refs(r.AffectedRefs),
		Route: func(o Object) (Ref, bool) {
			if t := cast(o); r.Route != nil && present(t) {
				return r.Route(t)
			}
			return Ref{}, false
		},
	}
	k.OfMetadata = func(in *metav1.ObjectMeta) Object {
		o := r.New()
		copyMetadata(in, o)
		if r.Content != nil && foreign(in.ManagedFields, in.Annotations[names.AnnotationContent]) {
			annotations := maps.Clone(in.Annotations)
			delete(annotations, names.AnnotationContent)
			o.SetAnnotations(annotations)
		}
		k.Trim(o)
		return o
	}
	k.AffectsAllReferrers = func(old, now Object) bool {
		return r.AffectsAllReferrers != nil && r.AffectsAllReferrers(cast(old), cast(now))
	}
	k.Customized = func(o Object) bool {
		t := cast(o)
		return r.Customized != nil && present(t) && r.Customized(t)
	}
	k.NodeRequests = func(o Object) (string, corev1.ResourceList) {
		if t := cast(o); r.NodeRequests != nil && present(t) {
			return r.NodeRequests(t)
		}
		return "", nil
	}
	k.Everyone = r.Origin == Super && r.Home == nil && (r.Cluster || r.Published != nil)
	k.Home = func(o Object) string {
		if t := cast(o); r.Home != nil && present(t) {
			return r.Home(t)
		}
		return o.GetNamespace()
	}
	return k
}

func refs[T Object](f func(T) []Ref) func(Object) []Ref {
	return func(o Object) []Ref {
		if t, ok := o.(T); ok && f != nil && present(t) {
			return f(t)
		}
		return nil
	}
}
