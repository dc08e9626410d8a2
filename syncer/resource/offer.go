package resource

import (
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// PriorityClasses is the name of the kind whose objects are offered only when they say so: a priority is an advantage
// over others.
const PriorityClasses = "priorityclasses"

// DeviceClasses is the name of the kind that pods get devices of, by a claim or by an extended resource.
const DeviceClasses = "deviceclasses"

// ClassOffered says whether an administrator offers a class of the super cluster to tenants.
func ClassOffered(kind string, class Object) bool {
	switch class.GetLabels()[names.LabelPublic] {
	case "true":
		return true
	case "false":
		return false
	default:
		return kind != PriorityClasses
	}
}

// OffersClass says whether the class that the tenant knows by a name is one of the super cluster's, and may be used.
func (v View) OffersClass(kind, name string) bool {
	ref := Ref{Kind: kind, Name: name}
	super, tenant := v.Get(Super, ref), v.Get(Tenant, ref)
	return v.Enabled(kind) && super != nil && tenant != nil && ClassOffered(kind, super) &&
		tenant.GetAnnotations()[names.AnnotationUID] == string(super.GetUID())
}
