package resources_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/resources"
)

func TestNamespaces(t *testing.T) {
	in := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: "shop", UID: "u",
		Labels:      map[string]string{"pod-security.kubernetes.io/enforce": "privileged", "istio-injection": "enabled"},
		Annotations: map[string]string{"scheduler.alpha.kubernetes.io/node-selector": "x=y"},
	}}
	w := world{facts: resource.Facts{VirtualCluster: types.NamespacedName{Namespace: "tenants", Name: "acme"}, UID: "vc"}}
	ops, err := decide(t, resources.Namespaces("vc-system"), w, "", "shop", in, nil)
	want := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name:   names.SuperNamespace(tenantID, "shop"),
		Labels: map[string]string{"pod-security.kubernetes.io/enforce": "baseline", names.LabelTenant: string(tenantID), names.LabelManagedBy: names.Syncer},
		Annotations: map[string]string{
			names.AnnotationNamespace: "shop", names.AnnotationUID: "u", names.AnnotationKeys: "l:pod-security.kubernetes.io/enforce",
			names.AnnotationVirtualCluster: "tenants/acme", names.AnnotationVirtualClusterUID: "vc",
		},
	}}
	if diff := cmp.Diff(want, created[*corev1.Namespace](t, ops, err)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}

	super := want.DeepCopy()
	super.UID = "super"
	ops, err = decide(t, resources.Namespaces("vc-system"), w, "", "shop", in, super)
	binding := created[*rbacv1.RoleBinding](t, ops, err)
	if binding.Namespace != super.Name || binding.RoleRef.Name != names.VNAgentStreamsRole || binding.Subjects[0].Namespace != "vc-system" {
		t.Errorf("the rights of vn-agent are %s", encode(t, binding))
	}
	if of, ok := resources.StreamRights().Route(binding); !ok || of != (resource.Ref{Kind: "namespaces", Name: "shop"}) {
		t.Errorf("a change of the rights is one of %s", of)
	}
	w.super = []resource.Object{binding}
	if ops, err = decide(t, resources.Namespaces("vc-system"), w, "", "shop", in, super); len(ops) > 0 || err != nil {
		t.Errorf("in sync: got %s, %v", encode(t, ops), err)
	}

	deleting := in.DeepCopy()
	at := metav1.NewTime(now())
	deleting.DeletionTimestamp = &at
	if ops, err = decide(t, resources.Namespaces("vc-system"), w, "", "shop", deleting, super); len(ops) > 0 || err != nil {
		t.Errorf("while the tenant empties it: got %s, %v", encode(t, ops), err)
	}
	ops, err = decide(t, resources.Namespaces("vc-system"), w, "", "shop", nil, super)
	if err != nil || len(ops) != 1 || ops[0].Verb != resource.Delete || !ops[0].Absent {
		t.Errorf("when it is gone: got %s, %v", encode(t, ops), err)
	}
}

// A namespace that was made ahead has nothing but the marks of ownership. Taken over, it is as the syncer makes them, and has
// the rights of vn-agent only then.
func TestNamespacesMadeAhead(t *testing.T) {
	in := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default", UID: "u"}}
	ahead := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: names.SuperNamespace(tenantID, "default"), UID: "super", ResourceVersion: "9",
		Labels:      map[string]string{names.LabelTenant: string(tenantID), names.LabelManagedBy: names.Syncer},
		Annotations: map[string]string{names.AnnotationNamespace: "default", names.AnnotationUID: names.UIDAhead},
	}}
	kind := resources.Namespaces("vc-system")
	if ops, err := decide(t, kind, world{}, "", "default", nil, ahead); len(ops) > 0 || err != nil {
		t.Errorf("before there is one of the tenant: got %s, %v", encode(t, ops), err)
	}
	made, err := decide(t, kind, world{}, "", "default", in, nil)
	want := created[*corev1.Namespace](t, made, err)
	ops, err := decide(t, kind, world{}, "", "default", in, ahead)
	if err != nil || len(ops) != 1 {
		t.Fatalf("got %s, %v", encode(t, ops), err)
	}
	got := patched(t, ahead, resource.Super, ops)
	if diff := cmp.Diff([]map[string]string{want.Labels, want.Annotations}, []map[string]string{got.Labels, got.Annotations}); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	ops, err = decide(t, kind, world{}, "", "default", in, got)
	created[*rbacv1.RoleBinding](t, ops, err)
	if ops, _ = decide(t, kind, world{}, "", "default", nil, got); len(ops) != 1 || ops[0].Why != resource.Orphaned {
		t.Errorf("once taken over it goes like any other: got %s", encode(t, ops))
	}
}
