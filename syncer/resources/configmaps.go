package resources

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// +kubebuilder:rbac:groups="",resources=configmaps,verbs=get;list;watch;create;patch;delete

// ConfigMaps copies tenant config maps down while something synced refers to them, under names that the ConfigMaps of
// operators and of the super cluster itself do not have.
func ConfigMaps() resource.Kind {
	return resource.Of(resource.Resource[*corev1.ConfigMap]{
		Name:   "configmaps",
		GVK:    corev1.SchemeGroupVersion.WithKind("ConfigMap"),
		New:    func() *corev1.ConfigMap { return &corev1.ConfigMap{} },
		Rename: names.SuperConfigMap,
		// They may be large, and most are used by no pod.
		MetadataOnly: true,
		Content: func(in *corev1.ConfigMap) int {
			return len(in.Data) + len(in.BinaryData) + immutableField(in.Immutable)
		},
		Needed: func(v resource.View, in *corev1.ConfigMap) bool {
			return v.Referenced(resource.Ref{Kind: "configmaps", Namespace: in.Namespace, Name: in.Name})
		},
		Down: func(v resource.View, in *corev1.ConfigMap) (*corev1.ConfigMap, error) {
			out := &corev1.ConfigMap{Data: in.Data, BinaryData: in.BinaryData, Immutable: in.Immutable}
			v.CopyMeta(in, out)
			return out, nil
		},
		Merge: func(existing, want *corev1.ConfigMap) {
			existing.Data, existing.BinaryData, existing.Immutable = want.Data, want.BinaryData, want.Immutable
		},
	})
}
