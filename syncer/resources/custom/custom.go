// Package custom describes custom resources of the super cluster that an admin offers to tenants by a SyncPolicy, in the
// vocabulary of package resource: no code knows what they are. It is pure, like the other kinds, and is called when a
// policy or a CustomResourceDefinition changes.
package custom

import (
	"fmt"
	"maps"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// Custom is what a policy makes of a custom resource.
type Custom struct {
	// Definition brings the CustomResourceDefinition to tenants, Objects synchronises the objects that it defines.
	Definition, Objects resource.Kind
	// Version that is synchronised.
	Version string
	// Hash of what Definition and Objects are made from.
	DefinitionHash, ObjectsHash string
	// Note is what the admin should know, empty when nothing.
	Note string
}

// Kinds returns the name of a built-in kind of the syncer; false if there is none.
type Kinds func(schema.GroupKind) (string, bool)

// policy is a SyncPolicy with a CustomResourceDefinition, read.
type policy struct {
	name     string
	gvk      schema.GroupVersionKind
	plural   string
	status   bool // has the subresource
	selector labels.Selector

	allow, drop, refuse, up, verbatim *tree
	references                        []reference
	kinds                             Kinds
	label                             *regexp.Regexp
}

// New reads a policy and the CustomResourceDefinition that it is about. The error is a Problem.
func New(p *tenancyv1alpha1.SyncPolicy, u *unstructured.Unstructured, kinds Kinds) (*Custom, error) {
	var d definition
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &d); err != nil {
		return nil, problem(tenancyv1alpha1.ReasonInvalid, "reading CustomResourceDefinition %s: %v", u.GetName(), err)
	}
	if !Established(u) {
		return nil, problem(tenancyv1alpha1.ReasonCRDNotFound, "the super cluster does not serve CustomResourceDefinition %s yet", u.GetName())
	}
	if group := d.Spec.Group; group == tenancyv1alpha1.Group || strings.HasSuffix(group, "."+tenancyv1alpha1.Group) {
		return nil, problem(tenancyv1alpha1.ReasonResourceNotAllowed, "resources of group %s cannot be offered", group)
	}
	if err := fits(p, d.Spec.Scope); err != nil {
		return nil, err
	}
	chosen, err := d.pick(p.Spec.Version)
	if err != nil {
		return nil, err
	}
	read, err := readPolicy(p, &d, chosen, kinds)
	if err != nil {
		return nil, problem(tenancyv1alpha1.ReasonInvalid, "%v", err)
	}
	raw, _, err := unstructured.NestedMap(u.Object, "spec")
	if err != nil {
		return nil, problem(tenancyv1alpha1.ReasonInvalid, "reading the spec of CustomResourceDefinition %s: %v", u.GetName(), err)
	}
	spec, annotations := forTenants(raw, &d, chosen), definitionAnnotations(u.GetAnnotations(), d.Spec.Group)
	out := &Custom{
		Version:        chosen.Name,
		Definition:     definitions(spec, u.GetName(), annotations),
		DefinitionHash: digest([]any{spec, annotations}),
		Objects:        read.objects(p),
		ObjectsHash:    digest([]any{u.GetUID(), read.gvk, read.plural, read.status, d.Spec.Scope, withoutTenants(p.Spec)}),
	}
	if d.converts() && len(d.Spec.Versions) > 1 {
		out.Note = fmt.Sprintf("tenants are served version %s only, because the versions of %s are converted by a webhook", chosen.Name, u.GetName())
	}
	return out, nil
}

// withoutTenants is what of a policy says how objects are synchronised, rather than whose.
func withoutTenants(spec tenancyv1alpha1.SyncPolicySpec) tenancyv1alpha1.SyncPolicySpec {
	spec.Tenants = nil
	return spec
}

// fits says whether resources of a scope can go in the direction of a policy.
func fits(p *tenancyv1alpha1.SyncPolicy, scope string) error {
	namespaced := scope == "Namespaced"
	switch {
	case p.Spec.Direction == tenancyv1alpha1.ToTenant && namespaced && p.Spec.Publish == nil:
		return problem(tenancyv1alpha1.ReasonScopeUnsupported, "%s is namespaced: spec.publish must name the namespace whose objects tenants get", p.Spec.Resource)
	case p.Spec.Direction == tenancyv1alpha1.ToTenant && !namespaced && p.Spec.Publish != nil:
		return problem(tenancyv1alpha1.ReasonScopeUnsupported, "%s is not namespaced: spec.publish is not for it", p.Spec.Resource)
	case p.Spec.Direction == tenancyv1alpha1.ToSuper && !namespaced:
		return problem(tenancyv1alpha1.ReasonScopeUnsupported, "%s is not namespaced: tenants' objects of it would share one space of names; only direction ToTenant is possible", p.Spec.Resource)
	}
	return nil
}

func readPolicy(p *tenancyv1alpha1.SyncPolicy, d *definition, chosen version, kinds Kinds) (*policy, error) {
	out := &policy{
		name: p.Spec.Resource, gvk: d.gvk(chosen), plural: d.Spec.Names.Plural, status: chosen.Subresources.Status != nil,
		selector: labels.Everything(), kinds: kinds, label: regexp.MustCompile(labelPattern),
	}
	var err error
	for _, f := range []struct {
		tree  **tree
		paths []tenancyv1alpha1.FieldPath
	}{
		{&out.allow, p.Spec.Fields.Allow}, {&out.drop, p.Spec.Fields.Drop}, {&out.refuse, p.Spec.Fields.Refuse},
		{&out.up, p.Spec.Fields.Up}, {&out.verbatim, p.Spec.Fields.Verbatim},
	} {
		if *f.tree, err = parse(f.paths); err != nil {
			return nil, err
		}
	}
	if out.references, err = readReferences(p.Spec.References); err != nil {
		return nil, err
	}
	if p.Spec.Selector != nil {
		if out.selector, err = metav1.LabelSelectorAsSelector(p.Spec.Selector); err != nil {
			return nil, fmt.Errorf("reading spec.selector: %w", err)
		}
	}
	return out, nil
}

func (p *policy) objects(from *tenancyv1alpha1.SyncPolicy) resource.Kind {
	r := resource.Resource[*unstructured.Unstructured]{
		Name: p.name, GVK: p.gvk, Plural: p.plural,
		New: p.new,
		Needed: func(_ resource.View, u *unstructured.Unstructured) bool {
			return p.selector.Matches(labels.Set(u.GetLabels()))
		},
		Generation: p.status,
	}
	if from.Spec.Direction == tenancyv1alpha1.ToTenant {
		p.toTenant(&r, from.Spec.Publish)
	} else {
		p.toSuper(&r)
	}
	k := resource.Of(r)
	k.Definition, k.Served = DefinitionKind(p.name), served(p.name)
	return k
}

func (p *policy) new() *unstructured.Unstructured {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(p.gvk)
	return u
}

func (p *policy) toSuper(r *resource.Resource[*unstructured.Unstructured]) {
	r.References = p.refs
	r.Down = p.down
	r.Merge = func(existing, want *unstructured.Unstructured) {
		content := runtime.DeepCopyJSON(contentOf(want, false))
		if p.allow != nil {
			keepOther(contentOf(existing, false), content, p.allow)
		}
		keep(existing.Object, content, p.drop.union(p.up).but("metadata", "status"))
		replace(existing, content, false)
	}
	r.Up = p.upward
}

// down returns what of a tenant's object passes.
func (p *policy) down(v resource.View, in *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	if path, found := first(in.Object, p.refuse); found {
		return nil, resource.Rejected("FieldNotAllowed", "%s is not offered here: remove it", path)
	}
	out := p.new()
	passing := runtime.DeepCopyJSON(contentOf(in, false))
	if p.allow != nil {
		only(passing, p.allow)
	}
	without(passing, p.drop.union(p.up))
	if err := p.lead(v, in, passing); err != nil {
		return nil, err
	}
	namespaces(passing, p.verbatim, func(name string) string { return names.SuperNamespace(v.Tenant.ID, name) })
	replace(out, passing, false)
	v.CopyMeta(in, out)
	without(out.Object, p.drop)
	return out, nil
}

func (p *policy) toTenant(r *resource.Resource[*unstructured.Unstructured], publish *tenancyv1alpha1.Publish) {
	r.Origin = resource.Super
	r.Generation = false
	r.SuperSelector = resource.Selector{All: true}
	r.Cluster = publish == nil
	if publish != nil {
		r.Published = &resource.Published{Super: publish.Namespace, Tenant: publish.TenantNamespace}
		if r.Published.Tenant == "" {
			r.Published.Tenant = publish.Namespace
		}
		r.SuperSelector.Fields = "metadata.namespace=" + publish.Namespace
		r.Prepare = makeNamespace(r.Published.Tenant)
	}
	r.Down = func(v resource.View, in *unstructured.Unstructured) (*unstructured.Unstructured, error) {
		out := p.new()
		passing := runtime.DeepCopyJSON(contentOf(in, !p.status))
		if p.allow != nil {
			only(passing, p.allow)
		}
		p.forTenant(v, "", nil, passing)
		replace(out, passing, !p.status)
		out.SetLabels(published(in.GetLabels()))
		out.SetAnnotations(published(in.GetAnnotations()))
		without(out.Object, p.drop)
		return out, nil
	}
	r.Merge = func(existing, want *unstructured.Unstructured) {
		replace(existing, runtime.DeepCopyJSON(contentOf(want, !p.status)), !p.status)
	}
	if p.status {
		r.Up = p.publishStatus
	}
}

// makeNamespace makes the namespace in which a tenant sees what is published.
func makeNamespace(name string) func(resource.View, *unstructured.Unstructured) ([]resource.Op, error) {
	return func(v resource.View, _ *unstructured.Unstructured) ([]resource.Op, error) {
		if v.Get(resource.Tenant, resource.Ref{Kind: "namespaces", Name: name}) != nil {
			return nil, nil
		}
		return []resource.Op{{Side: resource.Tenant, Verb: resource.Create, Why: resource.Missing, Object: &corev1.Namespace{
			ObjectMeta: metav1.ObjectMeta{Name: name},
		}}}, nil
	}
}

// published returns the labels or annotations of an object of the super cluster that tenants see: not those by which
// tools of the operator find what they manage.
func published(in map[string]string) map[string]string {
	out := maps.Clone(in)
	maps.DeleteFunc(out, func(key, _ string) bool {
		return key == corev1.LastAppliedConfigAnnotation || key == "app.kubernetes.io/managed-by" ||
			strings.HasPrefix(key, "meta.helm.sh/") || strings.HasPrefix(key, "argocd.argoproj.io/")
	})
	return out
}

// contentOf returns the fields of an object that are neither type nor metadata nor, unless asked for, status. They are
// those of the object.
func contentOf(u *unstructured.Unstructured, status bool) map[string]any {
	out := map[string]any{}
	for name, value := range u.Object {
		if isContent(name, status) {
			out[name] = value
		}
	}
	return out
}

func isContent(name string, status bool) bool {
	switch name {
	case "apiVersion", "kind", "metadata":
		return false
	case "status":
		return status
	default:
		return true
	}
}

// replace replaces the content of an object.
func replace(u *unstructured.Unstructured, content map[string]any, status bool) {
	maps.DeleteFunc(u.Object, func(name string, _ any) bool { return isContent(name, status) })
	maps.Copy(u.Object, content)
}

// namespaces replaces the names of namespaces, in place: the strings in fields whose name says that they hold one.
func namespaces(value any, verbatim *tree, f func(string) string) {
	eachField(value, func(name string, element any, set func(any), _ func()) {
		below := verbatim.below(name)
		if below.ends() {
			return
		}
		switch element := element.(type) {
		case string:
			if element != "" && (name == "namespace" || strings.HasSuffix(name, "Namespace")) {
				set(f(element))
			}
		case []any:
			if name == "namespaces" || strings.HasSuffix(name, "Namespaces") {
				for i := range element {
					if s, ok := element[i].(string); ok && s != "" {
						element[i] = f(s)
					}
				}
			}
			namespaces(element, below, f)
		default:
			namespaces(element, below, f)
		}
	})
}
