package resources_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/resources"
)

// operatorsOwn is the name of an object of the super cluster, of any kind, that is not the tenant's.
const operatorsOwn = "operators-own"

// harmless are the fields that look like names of objects and may pass as they are, by type and field, with the reason.
func harmless() map[string]string {
	return map[string]string{
		"ContainerResizePolicy.ResourceName":          "cpu or memory",
		"Endpoint.NodeName":                           "only says where an address is",
		"EphemeralContainer.TargetContainerName":      "a container of the same pod",
		"FileKeySelector.VolumeName":                  "a volume of the same pod",
		"PersistentVolumeClaimSpec.StorageClassName":  "every class is offered",
		"PodSpec.NodeName":                            "on nodes that the tenant may not use, no scheduler puts the pod",
		"PodSpec.Subdomain":                           "a part of the pod's own name in DNS",
		"ResourceFieldSelector.ContainerName":         "a container of the same pod",
		"WindowsSecurityContextOptions.RunAsUserName": "a user of the image",
	}
}

// field is a way to a field of an object: the indexes of fields, and -1 for an element of a list.
type field struct {
	steps []int
	of    reflect.Type // the struct that has it
	name  string
	path  string
}

func (f field) String() string { return f.of.Name() + "." + f.name }

// referenceFields finds every field of a type that may name another object: it is called SomethingName, or Name in a struct
// that is a reference by its own name. Whatever a version of Kubernetes adds is found, too.
func referenceFields(of reflect.Type) []field {
	var out []field
	var walk func(of reflect.Type, steps []int, path string)
	walk = func(of reflect.Type, steps []int, path string) {
		switch of.Kind() {
		case reflect.Pointer:
			walk(of.Elem(), steps, path)
		case reflect.Slice:
			walk(of.Elem(), append(slices.Clone(steps), -1), path+"[*]")
		case reflect.Struct:
			if !strings.HasPrefix(of.PkgPath(), "k8s.io/api/") {
				return
			}
			for i := range of.NumField() {
				f := of.Field(i)
				here := field{steps: append(slices.Clone(steps), i), of: of, name: f.Name, path: path + "." + f.Name}
				switch {
				case f.Name == "Status" && path == "" || f.Type == reflect.TypeFor[metav1.ObjectMeta]():
				case isText(f.Type) && refers(of, f.Name):
					out = append(out, here)
				default:
					walk(f.Type, here.steps, here.path)
				}
			}
		}
	}
	walk(of, nil, "")
	return out
}

// isText says whether a type is text, or a list of it.
func isText(of reflect.Type) bool {
	for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice {
		of = of.Elem()
	}
	return of.Kind() == reflect.String
}

// refers says whether a field of text may name an object.
func refers(of reflect.Type, name string) bool {
	has := func(text string, suffixes ...string) bool {
		return slices.ContainsFunc(suffixes, func(suffix string) bool { return strings.HasSuffix(text, suffix) })
	}
	if name == "Name" {
		return has(of.Name(), "Reference", "Projection", "Source", "Selector", "Backend")
	}
	return has(name, "Name", "Names", "Ref", "ServiceAccount", "Class", "Subdomain")
}

// kinds are those that a name may be of, if that is said beside it.
func (f field) kinds() []string {
	if kind, has := f.of.FieldByName("Kind"); !has || kind.Type.Kind() != reflect.String {
		return []string{""}
	}
	var out []string
	for _, k := range resources.All(resources.Options{}) {
		out = append(out, k.GVK.Kind)
	}
	return out
}

// set writes a name into the field, and its kind beside it, and makes what is on the way there.
func (f field) set(o resource.Object, kind string) {
	at := reflect.ValueOf(o).Elem()
	into := func() {
		for at.Kind() == reflect.Pointer {
			if at.IsNil() {
				at.Set(reflect.New(at.Type().Elem()))
			}
			at = at.Elem()
		}
	}
	for _, step := range f.steps {
		into()
		if step >= 0 {
			if at.Type() == f.of && kind != "" {
				at.FieldByName("Kind").SetString(kind)
			}
			at = at.Field(step)
			continue
		}
		if at.Len() == 0 {
			at.Set(reflect.MakeSlice(at.Type(), 1, 1))
		}
		at = at.Index(0)
	}
	into()
	if at.Kind() == reflect.Slice {
		at.Set(reflect.MakeSlice(at.Type(), 1, 1))
		at = at.Index(0)
	}
	at.SetString(operatorsOwn)
}

// referring returns an object of a kind that goes down, and what it needs.
func referring(t *testing.T, k resource.Kind) (resource.Object, world) {
	t.Helper()
	if k.Name == "pods" {
		kubernetes := &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "kubernetes"},
			Spec:       corev1.ServiceSpec{ClusterIP: "10.112.0.1", Ports: []corev1.ServicePort{{Port: 443}}},
		}
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "x", UID: "u"},
			Spec: corev1.PodSpec{
				ServiceAccountName: "default", DNSPolicy: corev1.DNSClusterFirst,
				InitContainers: []corev1.Container{{Name: "init", Image: "a"}}, Containers: []corev1.Container{{Name: "main", Image: "a"}},
			},
		}, world{facts: ranged().facts, tenant: []resource.Object{kubernetes}}
	}
	for _, s := range specimens() {
		if s.kind.Name == k.Name {
			return s.build(), s.world
		}
	}
	t.Fatalf("%s has no specimen", k.Name)
	return nil, world{}
}

// Whatever a tenant's object names, its replica never names an object of that name that is the operator's.
func TestReplicasNeverNameWhatIsTheOperators(t *testing.T) {
	unused := harmless()
	for _, k := range resources.All(resources.Options{}) {
		if k.Origin == resource.Super || k.SuperOnly || k.Cluster {
			continue
		}
		for _, f := range referenceFields(reflect.TypeOf(k.New()).Elem()) {
			if _, passes := harmless()[f.String()]; passes {
				delete(unused, f.String())
				continue
			}
			for _, owned := range []bool{false, true} { // by the tenant, in the tenant
				t.Run(fmt.Sprintf("%s%s/owned=%v", k.Name, f.path, owned), func(t *testing.T) { neverNames(t, k, f, owned) })
			}
		}
	}
	for f, why := range unused {
		t.Errorf("there is no %s (%s)", f, why)
	}
}

func neverNames(t *testing.T, k resource.Kind, f field, owned bool) {
	t.Helper()
	if names.SuperSecret(operatorsOwn) == operatorsOwn || names.SuperConfigMap(operatorsOwn) == operatorsOwn {
		t.Fatal("the replica of a Secret or ConfigMap has the name of the operator's")
	}
	base, w := referring(t, k)
	v := w.view()
	v.EachCustomized = func(string, func(resource.Object)) {}
	v.Referenced = func(resource.Ref) bool { return true }
	get := v.Get
	v.Get = func(side resource.Side, ref resource.Ref) resource.Object {
		if ref.Name != operatorsOwn {
			return get(side, ref)
		}
		switch {
		case side == resource.Super && ref.Kind != resource.Secrets && ref.Kind != resource.ConfigMaps: // of those, it has another name
			return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: operatorsOwn, UID: "operators"}}
		case side == resource.Tenant && owned:
			return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: ref.Namespace, Name: operatorsOwn, UID: "own"}}
		default:
			return nil
		}
	}
	key := resource.Key{Tenant: tenantID, Namespace: base.GetNamespace(), Name: base.GetName()}
	replica := created[resource.Object](t, mustOps(k.Decide(v, key, base, nil)), nil)
	replica.SetUID("super")

	for _, kind := range f.kinds() {
		changed, ok := base.DeepCopyObject().(resource.Object)
		if !ok {
			t.Fatalf("copying a %T", base)
		}
		f.set(changed, kind)
		notNamed(t, v, k, changed, nil)
		notNamed(t, v, k, changed, replica)
	}
}

// notNamed decides about an object that names what is the operator's.
func notNamed(t *testing.T, v resource.View, k resource.Kind, changed, replica resource.Object) {
	t.Helper()
	if !strings.Contains(encode(t, changed), operatorsOwn) {
		t.Fatal("the name is not in the object")
	}
	key := resource.Key{Tenant: tenantID, Namespace: changed.GetNamespace(), Name: changed.GetName()}
	ops, err := k.Decide(v, key, changed, replica)
	for _, op := range ops {
		if op.Side != resource.Super {
			continue
		}
		for _, text := range []string{encode(t, op.Object), string(op.Patch)} {
			text = strings.ReplaceAll(text, names.SuperSecret(operatorsOwn), "")
			text = strings.ReplaceAll(text, names.SuperConfigMap(operatorsOwn), "")
			if strings.Contains(text, operatorsOwn) {
				t.Errorf("the replica names it: %s (%v)", text, err)
			}
		}
	}
}

// mustOps is for decisions that are tested for their operations alone.
func mustOps(ops []resource.Op, err error) []resource.Op {
	if err != nil {
		panic(err)
	}
	return ops
}
