package resources_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/resources"
)

func TestSecrets(t *testing.T) {
	for name, tc := range map[string]struct {
		reason string
		in     *corev1.Secret
		want   corev1.SecretType
		absent []string
	}{
		"Opaque":    {"types pass", &corev1.Secret{Type: corev1.SecretTypeOpaque}, corev1.SecretTypeOpaque, nil},
		"Registry":  {"the kubelet needs the type", &corev1.Secret{Type: corev1.SecretTypeDockerConfigJson}, corev1.SecretTypeDockerConfigJson, nil},
		"TokenType": {"the super cluster would bind it to an account of its own (attack I-07)", &corev1.Secret{Type: corev1.SecretTypeServiceAccountToken, ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{corev1.ServiceAccountNameKey: "admin", corev1.ServiceAccountUIDKey: "1"}}}, corev1.SecretTypeOpaque, []string{corev1.ServiceAccountNameKey, corev1.ServiceAccountUIDKey}},
	} {
		t.Run(name, func(t *testing.T) {
			tc.in.Namespace, tc.in.Name, tc.in.UID, tc.in.Data = "shop", "s", "u", map[string][]byte{"k": []byte("v")}
			w := world{referenced: []resource.Ref{{Kind: "secrets", Namespace: "shop", Name: "s"}}}
			ops, err := decide(t, resources.Secrets(), w, "shop", "s", tc.in, nil)
			got := created[*corev1.Secret](t, ops, err)
			if got.Name != names.SuperSecret("s") || got.Annotations[names.AnnotationName] != "s" {
				t.Errorf("it is called %s, of %s", got.Name, got.Annotations[names.AnnotationName])
			}
			if got.Type != tc.want {
				t.Errorf("%s: type is %s, want %s", tc.reason, got.Type, tc.want)
			}
			if diff := cmp.Diff(tc.in.Data, got.Data); diff != "" {
				t.Errorf("data: -want +got\n%s", diff)
			}
			for _, key := range tc.absent {
				if _, there := got.Annotations[key]; there {
					t.Errorf("%s: annotation %s went down", tc.reason, key)
				}
			}
		})
	}
}

func TestTokensGoWithTheirPod(t *testing.T) {
	token := &corev1.Secret{ObjectMeta: replicaMeta("shop", "token-x", "u")}
	token.Annotations[names.AnnotationPod] = "web-0"
	pod := func(uid types.UID) world {
		return world{tenant: []resource.Object{&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-0", UID: uid}}}}
	}
	for name, tc := range map[string]struct {
		world world
		want  int
	}{
		"PodExists": {pod("u"), 0},
		"Successor": {pod("other"), 1},
		"NoPod":     {world{}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			ops, err := decide(t, resources.Tokens(), tc.world, "shop", "token-x", nil, token)
			if err != nil || len(ops) != tc.want || (tc.want == 1 && (ops[0].Verb != resource.Delete || ops[0].Side != resource.Super)) {
				t.Errorf("got %s, %v", encode(t, ops), err)
			}
		})
	}
}
