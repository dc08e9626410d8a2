package resources_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/resources"
)

func TestConfigMaps(t *testing.T) {
	yes := true
	in := func(name string) *corev1.ConfigMap {
		return &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: "shop", Name: name, UID: "u", ResourceVersion: "5", OwnerReferences: []metav1.OwnerReference{{Name: "x"}}, Finalizers: []string{"x/y"},
				Labels:      map[string]string{"app.kubernetes.io/name": "web"},
				Annotations: map[string]string{"kubectl.kubernetes.io/last-applied-configuration": "{}", "a": "b"},
			},
			Data: map[string]string{"k": "v"}, BinaryData: map[string][]byte{"b": {1}}, Immutable: &yes,
		}
	}
	for name, tc := range map[string]struct {
		name, superName string
		referenced      bool
	}{
		"Used":   {"conf", names.SuperConfigMap("conf"), true},
		"RootCA": {names.RootCAConfigMap, names.SuperConfigMap(names.RootCAConfigMap), true},
		"Unused": {"conf", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			w := world{}
			if tc.referenced {
				w.referenced = []resource.Ref{{Kind: "configmaps", Namespace: "shop", Name: tc.name}}
			}
			ops, err := decide(t, resources.ConfigMaps(), w, "shop", tc.name, in(tc.name), nil)
			if !tc.referenced {
				if len(ops) > 0 || err != nil {
					t.Errorf("got %s, %v; want nothing", encode(t, ops), err)
				}
				return
			}
			want := &corev1.ConfigMap{ObjectMeta: replicaMeta("shop", tc.superName, "u"), Data: map[string]string{"k": "v"}, BinaryData: map[string][]byte{"b": {1}}, Immutable: &yes}
			want.UID, want.ResourceVersion = "", ""
			want.Annotations[names.AnnotationContent] = "5.3"
			if tc.superName != tc.name {
				want.Annotations[names.AnnotationName] = tc.name
			}
			if diff := cmp.Diff(want, created[*corev1.ConfigMap](t, ops, err)); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}
