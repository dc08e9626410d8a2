package resources_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/resources"
)

func TestServiceAccounts(t *testing.T) {
	used := world{referenced: []resource.Ref{
		{Kind: "serviceaccounts", Namespace: "shop", Name: "web"}, {Kind: "serviceaccounts", Namespace: "shop", Name: "default"},
	}}
	account := func(name string) *corev1.ServiceAccount {
		return &corev1.ServiceAccount{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: "u"},
			Secrets:    []corev1.ObjectReference{{Name: "token"}}, ImagePullSecrets: []corev1.LocalObjectReference{{Name: "pull"}},
		}
	}
	ops, err := decide(t, resources.ServiceAccounts(), used, "shop", "web", account("web"), nil)
	got := created[*corev1.ServiceAccount](t, ops, err)
	if got.AutomountServiceAccountToken == nil || *got.AutomountServiceAccountToken || len(got.Secrets) > 0 || len(got.ImagePullSecrets) > 0 {
		t.Errorf("more than the identity went down: %s", encode(t, got))
	}
	for name, tc := range map[string]struct {
		world world
		name  string
	}{
		"Unused":  {world{}, "web"},
		"Default": {used, "default"},
	} {
		t.Run(name, func(t *testing.T) {
			if ops, err := decide(t, resources.ServiceAccounts(), tc.world, "shop", tc.name, account(tc.name), nil); len(ops) > 0 || err != nil {
				t.Errorf("got %s, %v; want nothing", encode(t, ops), err)
			}
		})
	}
}
