package resources_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/resources"
)

// managedBy is an entry of managed fields.
func managedBy(manager, fields string) metav1.ManagedFieldsEntry {
	return metav1.ManagedFieldsEntry{
		Manager: manager, Operation: metav1.ManagedFieldsOperationUpdate, FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(fields),
	}
}

// metadataOf is what a cache holds of a Secret.
func metadataOf(k resource.Kind, s *corev1.Secret) resource.Object {
	return k.OfMetadata(s.ObjectMeta.DeepCopy())
}

// Whether a replica has the content that it should have is decided from metadata: it is read when the tenant's object or
// anybody's share of the replica has changed, and only then.
func TestContentIsReadWhenMetadataSaysSo(t *testing.T) {
	const ours = `{"f:metadata":{"f:annotations":{}},"f:data":{".":{},"f:a":{},"f:b":{}},"f:type":{}}`
	k := resources.Secrets()
	w := world{
		referenced: []resource.Ref{{Kind: "secrets", Namespace: "shop", Name: "s"}},
		facts:      resource.Facts{ID: tenantID, Metadata: []resource.Metadata{{Kind: "secrets", Labels: []string{"app"}}}},
	}
	in := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "s", UID: "u", ResourceVersion: "5", Labels: map[string]string{"app": "web"},
			Annotations: map[string]string{corev1.LastAppliedConfigAnnotation: "{}", corev1.ServiceAccountNameKey: "admin"},
		},
		Type: corev1.SecretTypeServiceAccountToken, Data: map[string][]byte{"a": []byte("1"), "b": nil},
	}
	ops, err := decide(t, k, w, "shop", "s", in, nil)
	replica := created[*corev1.Secret](t, ops, err)
	replica.UID, replica.ResourceVersion = "super", "9"
	replica.ManagedFields = []metav1.ManagedFieldsEntry{managedBy(names.Syncer, ours)}

	for name, tc := range map[string]struct {
		edit func(tenant, super *corev1.Secret)
		read bool
	}{
		"Same":          {edit: func(_, _ *corev1.Secret) {}},
		"TenantChanged": {edit: func(tenant, _ *corev1.Secret) { tenant.ResourceVersion = "6" }, read: true},
		"LastAppliedInSuper": {edit: func(_, super *corev1.Secret) {
			super.Annotations[corev1.LastAppliedConfigAnnotation] = "{}"
		}},
		"LabelOfSomebody": {edit: func(_, super *corev1.Secret) {
			super.Labels["theirs"] = "x"
			super.ManagedFields = append(super.ManagedFields, managedBy("kubectl-label", `{"f:metadata":{"f:labels":{"f:theirs":{}}}}`))
		}},
		"LabelRemoved": {edit: func(_, super *corev1.Secret) { delete(super.Labels, "app") }, read: true},
		"FieldChanged": {edit: func(_, super *corev1.Secret) {
			super.ManagedFields = []metav1.ManagedFieldsEntry{
				managedBy(names.Syncer, `{"f:data":{".":{},"f:b":{}},"f:type":{}}`), managedBy("kubectl-edit", `{"f:data":{"f:a":{}}}`),
			}
		}, read: true},
		"FieldAdded": {edit: func(_, super *corev1.Secret) {
			super.ManagedFields = append(super.ManagedFields, managedBy("kubectl-edit", `{"f:data":{"f:c":{}}}`))
		}, read: true},
		"FieldRemoved": {edit: func(_, super *corev1.Secret) {
			super.ManagedFields = []metav1.ManagedFieldsEntry{managedBy(names.Syncer, `{"f:data":{".":{},"f:b":{}},"f:type":{}}`)}
		}, read: true},
		"MadeImmutable": {edit: func(_, super *corev1.Secret) {
			super.ManagedFields = append(super.ManagedFields, managedBy("kubectl-patch", `{"f:immutable":{}}`))
		}, read: true},
		"NobodyManages":   {edit: func(_, super *corev1.Secret) { super.ManagedFields = nil }, read: true},
		"OfOlderSyncer":   {edit: func(_, super *corev1.Secret) { delete(super.Annotations, names.AnnotationContent) }, read: true},
		"UnreadableShare": {edit: func(_, super *corev1.Secret) { super.ManagedFields[0].FieldsV1 = metav1.NewFieldsV1("x") }, read: true},
	} {
		t.Run(name, func(t *testing.T) {
			tenant, super := in.DeepCopy(), replica.DeepCopy()
			tc.edit(tenant, super)
			v := w.view()
			v.Live = false
			key := resource.Key{Tenant: tenantID, Namespace: "shop", Name: "s"}
			ops, err := k.Decide(v, key, metadataOf(k, tenant), metadataOf(k, super))
			_, read := resource.AsIncomplete(err)
			if read != tc.read || len(ops) > 0 || err != nil && !read {
				t.Errorf("got %s, %v; want it to be read: %v", encode(t, ops), err, tc.read)
			}
		})
	}
}

// What needs no content is decided without it.
func TestMetadataIsEnoughToRemove(t *testing.T) {
	k := resources.Secrets()
	meta := replicaMeta("shop", names.SuperSecret("s"), "u")
	meta.Annotations[names.AnnotationName] = "s"
	super := k.OfMetadata(&meta)
	tenant := k.OfMetadata(&metav1.ObjectMeta{Namespace: "shop", Name: "s", UID: "u", ResourceVersion: "5"})
	for name, tc := range map[string]struct {
		tenant, super resource.Object
		want          string
	}{
		"Orphaned":     {nil, super, resource.Orphaned},
		"Unreferenced": {tenant, super, resource.Unwanted},
		"NeverUsed":    {tenant, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			v := world{}.view()
			v.Live = false
			ops, err := k.Decide(v, resource.Key{Tenant: tenantID, Namespace: "shop", Name: "s"}, tc.tenant, tc.super)
			why := ""
			for _, op := range ops {
				why += op.Why
			}
			if err != nil || why != tc.want {
				t.Errorf("got %s, %v; want %q", encode(t, ops), err, tc.want)
			}
		})
	}
}

// A cache keeps no copy of the whole object.
func TestNothingOfTheContentIsCached(t *testing.T) {
	o := resources.ConfigMaps().OfMetadata(&metav1.ObjectMeta{
		Name: "c", Annotations: map[string]string{corev1.LastAppliedConfigAnnotation: "{}"},
		ManagedFields: []metav1.ManagedFieldsEntry{managedBy("kubectl", "{}")},
	})
	if o.GetName() != "c" || len(o.GetAnnotations()) > 0 || len(o.GetManagedFields()) > 0 || o.GetObjectKind().GroupVersionKind() != (schema.GroupVersionKind{}) {
		t.Errorf("got %s", encode(t, o))
	}
}
