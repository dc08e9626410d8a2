package resources

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// defaultServiceAccount is the account that every Kubernetes cluster makes in every namespace by itself.
const defaultServiceAccount = "default"

// +kubebuilder:rbac:groups="",resources=serviceaccounts,verbs=get;list;watch;create;patch;delete

// ServiceAccounts copies the identity of the accounts that pods run under, because the super cluster admits no pod
// whose account does not exist. They get no rights and no tokens there.
func ServiceAccounts() resource.Kind {
	no := false
	return resource.Of(resource.Resource[*corev1.ServiceAccount]{
		Name: resource.ServiceAccounts,
		GVK:  corev1.SchemeGroupVersion.WithKind("ServiceAccount"),
		New:  func() *corev1.ServiceAccount { return &corev1.ServiceAccount{} },
		Skip: func(in *corev1.ServiceAccount) bool { return in.Name == defaultServiceAccount },
		Needed: func(v resource.View, in *corev1.ServiceAccount) bool {
			return v.Referenced(resource.Ref{Kind: resource.ServiceAccounts, Namespace: in.Namespace, Name: in.Name})
		},
		Down: func(v resource.View, in *corev1.ServiceAccount) (*corev1.ServiceAccount, error) {
			out := &corev1.ServiceAccount{AutomountServiceAccountToken: &no}
			v.CopyMeta(in, out)
			return out, nil
		},
		Merge: func(existing, want *corev1.ServiceAccount) {
			existing.AutomountServiceAccountToken = want.AutomountServiceAccountToken
		},
	})
}
