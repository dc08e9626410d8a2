package resource

import (
	"maps"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// CopyMeta gives a replica the labels and annotations of the tenant's object that may pass. Reserved keys are taken out
// when the replica is stamped.
func (v View) CopyMeta(in, out Object) {
	out.SetLabels(v.passing(in.GetLabels()))
	out.SetAnnotations(v.passing(in.GetAnnotations()))
}

func (v View) passing(in map[string]string) map[string]string {
	out := maps.Clone(in)
	maps.DeleteFunc(out, func(key, _ string) bool {
		if key == corev1.LastAppliedConfigAnnotation { // a whole copy of the object
			return true
		}
		for _, prefix := range v.Tenant.Opaque {
			if strings.HasPrefix(key, prefix) {
				return true
			}
		}
		return false
	})
	return out
}
