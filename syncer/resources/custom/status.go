package custom

import (
	"strconv"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// upward brings the status of a replica to the tenant's object, and the fields that the super cluster decides.
func (p *policy) upward(v resource.View, pair resource.Pair[*unstructured.Unstructured]) ([]resource.Op, error) {
	tenant, super := pair.Tenant, pair.Super
	status := resource.Op{Side: resource.Tenant, Verb: resource.PatchStatus, Why: resource.Status}
	if !p.status {
		status.Verb = resource.Patch
	}
	refersTo := func() []resource.Ref { return p.refs(tenant) }
	ops, err := resource.Change(status, tenant, resource.SameObject, func(to *unstructured.Unstructured) {
		p.setStatus(v, super, to, refersTo, p.generations(tenant, super))
	})
	if err != nil || p.up == nil {
		return ops, err
	}
	fill := resource.Op{Side: resource.Tenant, Verb: resource.Patch, Why: resource.FieldsUp}
	filled, err := resource.Change(fill, tenant, resource.SameObject, func(to *unstructured.Unstructured) {
		content := map[string]any{}
		set(contentOf(super, false), content, p.up)
		p.forTenant(v, tenant.GetNamespace(), refersTo, content)
		set(content, to.Object, p.up)
	})
	return append(ops, filled...), err
}

// publishStatus brings the status of an object of the super cluster to its replica in a tenant.
func (p *policy) publishStatus(v resource.View, pair resource.Pair[*unstructured.Unstructured]) ([]resource.Op, error) {
	tenant, super := pair.Tenant, pair.Super
	return resource.ReportStatus(tenant, func(to *unstructured.Unstructured) {
		p.setStatus(v, super, to, nil, func(observed int64) int64 {
			if observed >= super.GetGeneration() {
				return tenant.GetGeneration()
			}
			return min(observed, tenant.GetGeneration()-1)
		})
	})
}

// setStatus gives a tenant's object, which refers to others, the status of the super cluster's, as far as it passes.
func (p *policy) setStatus(v resource.View, super, tenant *unstructured.Unstructured, refersTo func() []resource.Ref, generation func(int64) int64) {
	if p.drop.below("status").ends() {
		return
	}
	value, ok := super.Object["status"]
	if !ok {
		delete(tenant.Object, "status")
		return
	}
	status := map[string]any{"status": copyOf(value)}
	without(status, p.drop)
	p.forTenant(v, tenant.GetNamespace(), refersTo, status)
	if p.status {
		generations(status, generation)
	}
	tenant.Object["status"] = status["status"]
}

// generations returns what generation of the tenant's object a generation of its replica stands for: its own, once the
// replica was made from it and that was observed, and one before it until then.
func (p *policy) generations(tenant, super *unstructured.Unstructured) func(int64) int64 {
	current := super.GetAnnotations()[names.AnnotationGeneration] == strconv.FormatInt(tenant.GetGeneration(), 10)
	return func(observed int64) int64 {
		if current && observed >= super.GetGeneration() {
			return tenant.GetGeneration()
		}
		return min(observed, tenant.GetGeneration()-1)
	}
}

// generations replaces every observed generation, in place.
func generations(value any, f func(int64) int64) {
	eachField(value, func(name string, element any, set func(any), _ func()) {
		if observed, ok := element.(int64); ok && name == "observedGeneration" {
			set(f(observed))
			return
		}
		generations(element, f)
	})
}

// forTenant replaces, in every text, names of the super cluster by the tenant's, in place: of all of its namespaces, and of
// what the object in the given namespace refers to.
func (p *policy) forTenant(v resource.View, namespace string, refersTo func() []resource.Ref, value any) {
	texts(value, func(text string) string {
		text = p.label.ReplaceAllStringFunc(text, func(label string) string {
			if namespace, ours := v.TenantNamespace(label); ours {
				return namespace
			}
			return label
		})
		return v.ForTenant(text, namespace, refersTo)
	})
}

// labelPattern finds what may be the name of a super namespace in a text: those names end in a hash and are long.
const labelPattern = `[a-z0-9][-a-z0-9]{13,62}`

func texts(value any, f func(string) string) {
	eachField(value, func(_ string, element any, set func(any), _ func()) {
		text, ok := element.(string)
		if !ok {
			texts(element, f)
			return
		}
		if replaced := f(text); replaced != text {
			set(replaced)
		}
	})
}
