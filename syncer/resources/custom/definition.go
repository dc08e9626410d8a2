package custom

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// Problem says why a policy cannot be followed.
type Problem struct {
	// Reason is one of the reasons of a SyncPolicy.
	Reason  string
	Message string
}

// Error implements error.
func (p *Problem) Error() string { return p.Message }

func problem(reason, format string, args ...any) error {
	return &Problem{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// definition is what is needed of a CustomResourceDefinition.
type definition struct {
	Spec struct {
		Group string `json:"group"`
		Scope string `json:"scope"`
		Names struct {
			Plural string `json:"plural"`
			Kind   string `json:"kind"`
		} `json:"names"`
		Conversion struct {
			Strategy string `json:"strategy"`
		} `json:"conversion"`
		Versions []version `json:"versions"`
	} `json:"spec"`
}

type version struct {
	Name         string `json:"name"`
	Served       bool   `json:"served"`
	Storage      bool   `json:"storage"`
	Subresources struct {
		Status *struct{} `json:"status"`
	} `json:"subresources"`
}

func (d *definition) converts() bool { return d.Spec.Conversion.Strategy == "Webhook" }

func (d *definition) gvk(v version) schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: d.Spec.Group, Version: v.Name, Kind: d.Spec.Names.Kind}
}

// pick returns the version that is synchronised.
func (d *definition) pick(wanted string) (version, error) {
	i := slices.IndexFunc(d.Spec.Versions, func(v version) bool {
		return v.Name == wanted || wanted == "" && v.Storage
	})
	if i < 0 || !d.Spec.Versions[i].Served {
		return version{}, problem(tenancyv1alpha1.ReasonVersionNotServed, "the super cluster does not serve version %q; set spec.version to one that it serves", wanted)
	}
	return d.Spec.Versions[i], nil
}

// CRD is the kind of CustomResourceDefinitions.
func CRD() schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"}
}

func newCRD() *unstructured.Unstructured {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(CRD())
	return u
}

// DefinitionKind returns the name of the kind that brings the CustomResourceDefinition of that name to tenants.
func DefinitionKind(name string) string { return "customresourcedefinitions/" + name }

// definitions brings one CustomResourceDefinition to tenants. It is never removed from them, because their objects would go
// with it. One that a tenant made itself is left alone.
func definitions(spec map[string]any, name string, annotations map[string]string) resource.Kind {
	only := resource.Selector{Fields: "metadata.name=" + name}
	return resource.Of(resource.Resource[*unstructured.Unstructured]{
		Name:           DefinitionKind(name),
		GVK:            CRD(),
		Plural:         "customresourcedefinitions",
		Cluster:        true,
		Origin:         resource.Super,
		TenantSelector: only,
		SuperSelector:  only,
		Keep:           true,
		New:            newCRD,
		Trim: func(u *unstructured.Unstructured) {
			if spec, ok := u.Object["spec"].(map[string]any); ok { // schemas are large, and only whether they differ counts
				if versions, ok := spec["versions"].([]any); ok && !trimmed(versions) {
					spec["versions"] = []any{digest(versions)}
				}
			}
			if status, ok := u.Object["status"].(map[string]any); ok {
				u.Object["status"] = map[string]any{"conditions": status["conditions"]}
			}
		},
		Down: func(resource.View, *unstructured.Unstructured) (*unstructured.Unstructured, error) {
			out := newCRD()
			out.Object["spec"] = runtime.DeepCopyJSON(spec)
			out.SetAnnotations(annotations)
			return out, nil
		},
		Merge: func(existing, _ *unstructured.Unstructured) {
			spec := runtime.DeepCopyJSON(spec)
			same := []any{digest(spec["versions"])}
			if have, ok := existing.Object["spec"].(map[string]any); ok && reflect.DeepEqual(have["versions"], same) {
				spec["versions"] = same
			}
			existing.Object["spec"] = spec
		},
	})
}

// trimmed says whether a digest stands for the versions already: an object may be trimmed twice.
func trimmed(versions []any) bool {
	if len(versions) != 1 {
		return false
	}
	_, ok := versions[0].(string)
	return ok
}

// forTenants returns the spec of the definition that tenants get: without a conversion webhook, which runs in the super
// cluster. The versions stay when they convert without one; otherwise only the one that is synchronised does.
func forTenants(spec map[string]any, d *definition, chosen version) map[string]any {
	out := runtime.DeepCopyJSON(spec)
	if d.converts() {
		var only []any
		versions, _ := out["versions"].([]any)
		for _, v := range versions {
			if version, ok := v.(map[string]any); ok && version["name"] == chosen.Name {
				version["storage"] = true
				only = append(only, version)
			}
		}
		out["versions"] = only
	}
	out["conversion"] = map[string]any{"strategy": "None"}
	return out
}

// definitionAnnotations are those that mean something to whoever reads a definition: the approval of a protected group, and
// what the group itself notes.
func definitionAnnotations(in map[string]string, group string) map[string]string {
	out := map[string]string{}
	for key, value := range in {
		if prefix, _, ok := strings.Cut(key, "/"); ok && (prefix == group || prefix == "api-approved.kubernetes.io") {
			out[key] = value
		} else if key == "api-approved.kubernetes.io" {
			out[key] = value
		}
	}
	return out
}

// retryDefinition is when a definition in a tenant is looked at again although no event arrived.
const retryDefinition = time.Minute

// served says whether a tenant serves the resource by the definition that it got from us.
func served(name string) func(resource.View) error {
	return func(v resource.View) error {
		o := v.Get(resource.Tenant, resource.Ref{Kind: DefinitionKind(name), Name: name})
		u, ok := o.(*unstructured.Unstructured)
		switch {
		case !ok || u == nil:
			return resource.Waiting(retryDefinition, "the CustomResourceDefinition %s", name)
		case u.GetAnnotations()[names.AnnotationUID] == "":
			return resource.Rejected("DefinedByTenant", "the tenant has a CustomResourceDefinition %s of its own", name)
		case u.GetDeletionTimestamp() != nil || !Established(u):
			return resource.Waiting(retryDefinition, "the CustomResourceDefinition %s to be established", name)
		}
		return nil
	}
}

// Established says whether an API server serves what a CustomResourceDefinition defines.
func Established(u *unstructured.Unstructured) bool {
	conditions, _, err := unstructured.NestedSlice(u.Object, "status", "conditions")
	return err == nil && slices.ContainsFunc(conditions, func(c any) bool {
		condition, ok := c.(map[string]any)
		return ok && condition["type"] == "Established" && condition["status"] == "True"
	})
}

// digest is a hash over a JSON value.
func digest(value any) string {
	data, err := json.Marshal(value)
	if err != nil {
		return "" // what came as JSON can be encoded as JSON
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
