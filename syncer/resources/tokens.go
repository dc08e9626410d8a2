package resources

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// Tokens removes the Secrets with service account tokens that pods do not need any more. Pods make and renew theirs.
func Tokens() resource.Kind {
	return resource.Of(resource.Resource[*corev1.Secret]{
		Name:          "tokens",
		GVK:           corev1.SchemeGroupVersion.WithKind("Secret"),
		New:           func() *corev1.Secret { return &corev1.Secret{} },
		SuperOnly:     true,
		SuperSelector: resource.Selector{Labels: names.LabelManagedBy + "=" + names.Syncer + "," + names.LabelToken},
		MetadataOnly:  true, // when they expire is in an annotation
		Unpaired: func(v resource.View, p resource.Pair[*corev1.Secret]) ([]resource.Op, error) {
			if p.Super == nil || p.Super.DeletionTimestamp != nil {
				return nil, nil
			}
			ref := resource.Ref{Kind: "pods", Namespace: v.Key.Namespace, Name: p.Super.Annotations[names.AnnotationPod]}
			op := resource.Op{Side: resource.Super, Verb: resource.Delete, Object: p.Super, Why: resource.Orphaned, Absent: true, AbsentRef: &ref}
			if pod := v.Get(resource.Tenant, ref); pod != nil {
				if string(pod.GetUID()) == p.Super.Annotations[names.AnnotationUID] {
					return nil, nil
				}
				op.Why, op.Absent, op.AbsentRef = resource.Replaced, false, nil
			}
			return []resource.Op{op}, nil
		},
	})
}
