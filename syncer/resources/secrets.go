package resources

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// +kubebuilder:rbac:groups="",resources=secrets,verbs=get;list;watch;create;patch;delete

// Secrets copies tenant secrets down while something synced refers to them. Service account token Secrets become
// opaque ones, because the super cluster would bind the type to an account of its own.
func Secrets() resource.Kind {
	return resource.Of(resource.Resource[*corev1.Secret]{
		Name: "secrets",
		GVK:  corev1.SchemeGroupVersion.WithKind("Secret"),
		New:  func() *corev1.Secret { return &corev1.Secret{} },
		// Most are used by no pod, and those that are hold what only pods should know.
		MetadataOnly: true,
		Content: func(in *corev1.Secret) int {
			return len(in.Data) + immutableField(in.Immutable)
		},
		// Operators' Secrets have other names, so what refers to a Secret that is not there never reaches one of theirs.
		Rename: names.SuperSecret,
		// Tokens are a kind of their own.
		SuperSelector: resource.Selector{Labels: names.LabelManagedBy + "=" + names.Syncer + ",!" + names.LabelToken},
		Needed: func(v resource.View, in *corev1.Secret) bool {
			return v.Referenced(resource.Ref{Kind: "secrets", Namespace: in.Namespace, Name: in.Name})
		},
		Down: func(v resource.View, in *corev1.Secret) (*corev1.Secret, error) {
			out := &corev1.Secret{Data: in.Data, Immutable: in.Immutable, Type: in.Type}
			v.CopyMeta(in, out)
			if in.Type == corev1.SecretTypeServiceAccountToken {
				out.Type = corev1.SecretTypeOpaque
			}
			return out, nil
		},
		Merge: func(existing, want *corev1.Secret) {
			existing.Data, existing.Immutable = want.Data, want.Immutable
		},
	})
}

// immutableField counts the field that says whether content may change.
func immutableField(immutable *bool) int {
	if immutable == nil {
		return 0
	}
	return 1
}
