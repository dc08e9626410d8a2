package main

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

// Both sides are read so that the replicas that vc-syncer makes are the same, and others are not.
func TestSidesAreRead(t *testing.T) {
	const id names.TenantID = "vcs-tenant-0-0123456789abc"
	place := names.SuperNamespace(id, "shop")
	replica := func(o client.Object, name, uid string, more ...string) client.Object {
		o.SetNamespace(place)
		o.SetName(name)
		o.SetUID("")
		labels := map[string]string{names.LabelTenant: string(id), names.LabelManagedBy: names.Syncer}
		for k, text := range o.GetLabels() {
			labels[k] = text
		}
		annotations := map[string]string{names.AnnotationNamespace: "shop", names.AnnotationUID: uid}
		for i := 0; i < len(more); i += 2 {
			annotations[more[i]] = more[i+1]
		}
		o.SetLabels(labels)
		o.SetAnnotations(annotations)
		return o
	}
	of := &tenant{world: &worlds.World{Name: "tenant-0"}}
	var objects []client.Object
	for kind := range empties() {
		k := key{kind, "shop", "x"}
		if kind == kindNamespace {
			k = key{Kind: kind, Name: "shop"}
		}
		o := of.make(k)
		mark(o, 1)
		o.SetUID(types.UID("u-" + kind))
		objects = append(objects, o)
	}
	objects = append(objects, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "nobody-needs-me"}})

	var replicas []client.Object
	for _, o := range objects[:len(objects)-1] {
		uid, name := string(o.GetUID()), "x"
		switch r := o.DeepCopyObject().(type) {
		case *corev1.Namespace:
			r = &corev1.Namespace{}
			replicas = append(replicas, replica(r, place, uid))
			r.Namespace = ""
		case *corev1.ConfigMap:
			r.Labels = nil
			replicas = append(replicas, replica(r, names.SuperConfigMap(name), uid, names.AnnotationName, name))
		case *corev1.Secret:
			r.Labels = nil
			replicas = append(replicas, replica(r, names.SuperSecret(name), uid, names.AnnotationName, name))
		case client.Object:
			replicas = append(replicas, replica(r, name, uid))
		}
	}
	// Secrets and ConfigMaps carry their owner and revision in their data only, as their labels do not go down.
	ctx := t.Context()
	read := func(replicas []client.Object) []finding {
		t.Helper()
		s, err := tenantSide(ctx, "tenant-0", fake.NewClientBuilder().WithObjects(objects...).Build())
		if err != nil {
			t.Fatal(err)
		}
		super, err := superSide(ctx, fake.NewClientBuilder().WithObjects(replicas...).Build())
		if err != nil {
			t.Fatal(err)
		}
		return compare(map[names.TenantID]side{id: s}, super)
	}
	if got := read(replicas); len(got) > 0 {
		t.Errorf("both sides are the same: %v", got)
	}
	for i, r := range replicas {
		without := append(append([]client.Object{}, replicas[:i]...), replicas[i+1:]...)
		if got := read(without); len(got) != 1 || got[0].What != lost {
			t.Errorf("without %T: %v", r, got)
		}
	}
	token := replica(&corev1.Secret{}, "token", "u", names.AnnotationPod, "x")
	token.SetLabels(map[string]string{names.LabelTenant: string(id), names.LabelManagedBy: names.Syncer, names.LabelToken: "true"})
	if got := read(append(replicas, token)); len(got) != 1 || got[0].What != orphaned || got[0].Key.Kind != kindToken {
		t.Errorf("a token that no pod needs: %v", got)
	}
}
