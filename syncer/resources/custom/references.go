package custom

import (
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// reference is a field that names other objects.
type reference struct {
	path string
	at   *tree
	// of are the kinds that the policy says it names. The first is that of a name that says none.
	of []schema.GroupKind
}

// readReferences gathers what a policy says about each path.
func readReferences(in []tenancyv1alpha1.SyncReference) ([]reference, error) {
	var out []reference
	for _, r := range in {
		kind := schema.GroupKind{Group: r.Group, Kind: r.Kind}
		if i := slices.IndexFunc(out, func(o reference) bool { return o.path == string(r.Path) }); i >= 0 {
			out[i].of = append(out[i].of, kind)
			continue
		}
		at, err := parse([]tenancyv1alpha1.FieldPath{r.Path})
		if err != nil {
			return nil, err
		}
		out = append(out, reference{path: string(r.Path), at: at, of: []schema.GroupKind{kind}})
	}
	return out, nil
}

// named is an object that another one names.
type named struct {
	resource.Ref
	kind string // as people write it
	set  func(name string)
}

// named calls f for every object of a built-in kind that the content of an object in a namespace names. Custom resources
// go down by themselves, and what kind they are of is not known here.
func (p *policy) named(content map[string]any, namespace string, f func(named)) {
	for _, r := range p.references {
		visit(content, r.at, func(element any, set func(any)) {
			n := named{Ref: resource.Ref{Namespace: namespace}}
			kind := r.of[0]
			switch element := element.(type) {
			case string:
				n.Name = element
				n.set = func(name string) { set(name) }
			case map[string]any:
				kind = r.kindOf(element)
				n.Name, _ = element["name"].(string)
				n.set = func(name string) { element["name"] = name }
				if own, ok := element["namespace"].(string); ok && own != "" {
					n.Namespace = own
				}
			}
			name, builtIn := p.kinds(kind)
			if n.Name == "" || !builtIn {
				return
			}
			n.Kind, n.kind = name, kind.Kind
			f(n)
		})
	}
}

// kindOf returns the kind of what an element of a reference names: what it says, or what the policy says where it does not.
func (r reference) kindOf(element map[string]any) schema.GroupKind {
	kind, saysKind := element["kind"].(string)
	group, saysGroup := element["group"].(string)
	if !saysGroup {
		group, saysGroup = element["apiGroup"].(string)
	}
	for _, of := range r.of {
		if (!saysKind || kind == of.Kind) && (!saysGroup || group == of.Group) {
			return of
		}
	}
	out := r.of[0]
	if saysKind {
		out.Kind = kind
	}
	if saysGroup {
		out.Group = group
	}
	return out
}

// refs lists what a tenant's object refers to.
func (p *policy) refs(in *unstructured.Unstructured) []resource.Ref {
	var out []resource.Ref
	p.named(in.Object, in.GetNamespace(), func(n named) {
		if !slices.Contains(out, n.Ref) {
			out = append(out, n.Ref)
		}
	})
	return out
}

// retryReference is when an object that waits for what it refers to is looked at again although no event arrived.
const retryReference = time.Minute

// lead makes the content of a tenant's object, on its way down, refer to the tenant's own objects, in place. Secrets and
// ConfigMaps have names that only the tenant's have. Of other kinds it waits for the replica, because the operator may have an
// object of that name. What a replica refers to already may go again: then a Service becomes one that nobody has, and of other
// kinds the name stays.
func (p *policy) lead(v resource.View, in *unstructured.Unstructured, passing map[string]any) error {
	self := resource.Ref{Kind: p.name, Namespace: in.GetNamespace(), Name: in.GetName()}
	had := map[resource.Ref]bool{}
	replica, exists := v.Get(resource.Super, self).(*unstructured.Unstructured)
	if exists = exists && replica != nil; exists {
		p.named(replica.Object, replica.GetNamespace(), func(n named) {
			namespace, _ := v.TenantNamespace(n.Namespace)
			had[resource.Ref{Kind: n.Kind, Namespace: namespace, Name: n.Name}] = true
		})
	}
	var missing error
	p.named(passing, in.GetNamespace(), func(n named) {
		name, renamed := resource.Renamed(n.Kind, n.Name)
		switch {
		case renamed:
			n.set(name)
		case v.Replicated(n.Ref):
		case exists && n.Kind == resource.Services:
			n.set(names.AbsentService(n.Name))
		case had[n.Ref] || missing != nil:
		default:
			missing = resource.Blocked(retryReference, "ReferenceNotFound", "%s", lacking(v, n))
		}
	})
	return missing
}

// lacking names, for the tenant, something that the super cluster does not have.
func lacking(v resource.View, n named) string {
	if v.Get(resource.Tenant, n.Ref) == nil {
		return fmt.Sprintf("%s %q, which does not exist", n.kind, n.Name)
	}
	return fmt.Sprintf("%s %q, which the underlying cluster does not have yet; if that lasts, its events say why", n.kind, n.Name)
}
