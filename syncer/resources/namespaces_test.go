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
