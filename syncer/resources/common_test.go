package resources_test

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	psa "k8s.io/pod-security-admission/api"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

const tenantID = names.TenantID("tenants-acme-aaaaaaaaaaaaa")

// now is the time of every decision.
func now() time.Time { return time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC) }

// world is what a decision sees besides the pair.
type world struct {
	facts      resource.Facts
	tenant     []resource.Object
	super      []resource.Object
	referenced []resource.Ref
	nodes      []string
	runs       bool
	taken      corev1.ResourceList
}

func (w world) view() resource.View {
	w.facts.ID = tenantID
	if w.facts.PodSecurity == "" {
		w.facts.PodSecurity = psa.LevelBaseline
	}
	if w.facts.ClusterDomain == "" {
		w.facts.ClusterDomain = "cluster.local"
	}
	find := func(in []resource.Object, namespace, name string) resource.Object {
		for _, o := range in {
			if o.GetNamespace() == namespace && o.GetName() == name {
				return o
			}
		}
		return nil
	}
	get := func(side resource.Side, ref resource.Ref) resource.Object {
		if ref.Namespace == "" && ref.Kind != "namespaces" {
			if side == resource.Super {
				return find(w.super, "", ref.Name)
			}
			return find(w.tenant, "", ref.Name)
		}
		if ref.Kind == "namespaces" {
			if own := find(w.tenant, "", ref.Name); own != nil && side == resource.Tenant {
				return own
			}
			return namespaceOn(side, ref.Name)
		}
		if side == resource.Super {
			return find(w.super, names.SuperNamespace(tenantID, ref.Namespace), ref.Name)
		}
		return find(w.tenant, ref.Namespace, ref.Name)
	}
	return resource.View{
		Tenant: w.facts, Now: now(), Live: true,
		Get:   get,
		Whole: func(ref resource.Ref) (resource.Object, error) { return get(resource.Tenant, ref), nil },
		Each: func(side resource.Side, _ string, f func(resource.Object)) {
			in := w.tenant
			if side == resource.Super {
				in = w.super
			}
			for _, o := range in {
				f(o)
			}
		},
		Owned: func(_ string, owner types.UID, f func(resource.Object)) {
			for _, o := range w.super {
				for _, ref := range o.GetOwnerReferences() {
					if ref.UID == owner {
						f(o)
					}
				}
			}
		},
		Referenced: func(ref resource.Ref) bool {
			for _, r := range w.referenced {
				if r == ref {
					return true
				}
			}
			return false
		},
		TenantNamespace: func(super string) (string, bool) {
			return "shop", super == names.SuperNamespace(tenantID, "shop")
		},
		HasPodsOn:         func(string) bool { return w.runs },
		RequestedByOthers: func(string) corev1.ResourceList { return w.taken },
		NodeAddress: func(ip string) bool {
			for _, n := range w.nodes {
				if n == ip {
					return true
				}
			}
			return false
		},
	}
}

// namespaceOn is any namespace, in sync.
func namespaceOn(side resource.Side, name string) resource.Object {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, UID: "ns"}}
	if side == resource.Super {
		ns.Name = names.SuperNamespace(tenantID, name)
		ns.Labels = map[string]string{names.LabelTenant: string(tenantID)}
		ns.Annotations = map[string]string{names.AnnotationNamespace: name, names.AnnotationUID: "ns"}
	}
	return ns
}

// decide runs a decision, and checks that it changed none of its inputs and comes out the same again.
func decide(t *testing.T, k resource.Kind, w world, namespace, name string, tenant, super resource.Object) ([]resource.Op, error) {
	t.Helper()
	key := resource.Key{Tenant: tenantID, Namespace: namespace, Name: name}
	before := []any{clone(tenant), clone(super)}
	ops, err := k.Decide(w.view(), key, tenant, super)
	if diff := cmp.Diff(before, []any{clone(tenant), clone(super)}); diff != "" {
		t.Errorf("the inputs were changed: %s", diff)
	}
	again, _ := k.Decide(w.view(), key, tenant, super)
	first, second := encode(t, ops), encode(t, again)
	if first != second {
		t.Errorf("two decisions about the same differ:\n%s\n%s", first, second)
	}
	return ops, err
}

func clone(o resource.Object) any {
	if o == nil {
		return nil
	}
	return o.DeepCopyObject()
}

func encode(t *testing.T, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// created returns the one object that is created.
func created[T resource.Object](t *testing.T, ops []resource.Op, err error) T {
	t.Helper()
	var zero T
	if err != nil || len(ops) == 0 || ops[0].Verb != resource.Create {
		t.Fatalf("got %s, %v; want a creation", encode(t, ops), err)
		return zero
	}
	o, ok := ops[0].Object.(T)
	if !ok {
		t.Fatalf("a %T is created", ops[0].Object)
	}
	return o
}

// patched applies the patches among the operations to an object.
func patched[T resource.Object](t *testing.T, o T, side resource.Side, ops []resource.Op) T {
	t.Helper()
	raw := []byte(encode(t, o))
	for _, op := range ops {
		if op.Side != side || (op.Verb != resource.Patch && op.Verb != resource.PatchStatus) {
			continue
		}
		var err error
		if raw, err = strategicpatch.StrategicMergePatch(raw, op.Patch, o); err != nil {
			t.Fatal(err)
		}
	}
	fresh, ok := reflect.New(reflect.TypeOf(o).Elem()).Interface().(T)
	if !ok {
		t.Fatalf("making a new %T", o)
	}
	if err := json.Unmarshal(raw, fresh); err != nil {
		t.Fatal(err)
	}
	return fresh
}

// rejectedWith checks that a decision is a rejection for the given reason.
func rejectedWith(t *testing.T, ops []resource.Op, err error, reason string) {
	t.Helper()
	r, ok := resource.AsReject(err)
	if !ok || r.Reason != reason || len(ops) > 0 {
		t.Errorf("got %s, %v; want a rejection for %s", encode(t, ops), err, reason)
	}
}

// replicas are the super cluster's replicas of objects of the tenant.
func replicas(of ...resource.Object) []resource.Object {
	var out []resource.Object
	for _, o := range of {
		out = append(out, &metav1.PartialObjectMetadata{ObjectMeta: replicaMeta(o.GetNamespace(), o.GetName(), string(o.GetUID()))})
	}
	return out
}

// replicaMeta is the metadata of a super object in sync.
func replicaMeta(namespace, name, uid string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: names.SuperNamespace(tenantID, namespace), Name: name, UID: "super", ResourceVersion: "9",
		Labels:      map[string]string{names.LabelTenant: string(tenantID), names.LabelManagedBy: names.Syncer},
		Annotations: map[string]string{names.AnnotationNamespace: namespace, names.AnnotationUID: uid},
	}
}
