package engine

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// Only what the annotations prove to be ours counts as ours without its labels.
func TestStripped(t *testing.T) {
	replica := func(edit ...func(labels, annotations map[string]string)) *corev1.Secret {
		s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{
			Labels:      map[string]string{names.LabelTenant: "a", names.LabelManagedBy: names.Syncer},
			Annotations: map[string]string{names.AnnotationNamespace: "shop", names.AnnotationName: "db", names.AnnotationUID: "u"},
		}}
		for _, f := range edit {
			f(s.Labels, s.Annotations)
		}
		return s
	}
	unmanaged := func(labels, _ map[string]string) { delete(labels, names.LabelManagedBy) }
	unowned := func(labels, _ map[string]string) { delete(labels, names.LabelTenant) }
	others := func(labels, _ map[string]string) { labels[names.LabelTenant] = "b" }
	older := func(_, annotations map[string]string) { annotations[names.AnnotationUID] = "older" }
	operators := func(_, annotations map[string]string) { clear(annotations) }
	elsewhere := func(_, annotations map[string]string) { annotations[names.AnnotationNamespace] = "other" }
	renamed := func(_, annotations map[string]string) { annotations[names.AnnotationName] = "other" }
	for name, tc := range map[string]struct {
		existing *corev1.Secret
		want     bool
	}{
		"Whole":                  {replica(), false},
		"Unmanaged":              {replica(unmanaged), true},
		"Unowned":                {replica(unowned), true},
		"Both":                   {replica(unmanaged, unowned), true},
		"UnmanagedPredecessors":  {replica(unmanaged, older), true},
		"UnownedPredecessors":    {replica(unowned, older), false},
		"AnotherTenants":         {replica(unmanaged, others), false},
		"Operators":              {replica(unmanaged, unowned, operators), false},
		"OperatorsWithTheLabel":  {replica(unmanaged, operators), false},
		"OfAnotherNamespace":     {replica(unmanaged, elsewhere), false},
		"OfAnotherName":          {replica(unmanaged, renamed), false},
		"UnownedOfAnotherObject": {replica(unowned, renamed), false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := stripped(tc.existing, replica()); got != tc.want {
				t.Errorf("got %v", got)
			}
		})
	}
}
