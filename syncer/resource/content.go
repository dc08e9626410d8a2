package resource

import (
	"encoding/json"
	"maps"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// A kind that is MetadataOnly decides from metadata whether a replica has the content that it should have. The annotation
// names.AnnotationContent says which version of the tenant object was copied; the managed fields of the replica say whether
// all of the copy still is what we wrote. Neither is derived from the content, so that neither tells anything about it.

// contentNote returns the value of names.AnnotationContent.
func contentNote(version string, fields int) string { return version + "." + strconv.Itoa(fields) }

// complete asks for the content of a pair, unless metadata tells that the replica is what it should be.
func (r *Resource[T]) complete(v View, key Key, side Side, origin, replica T) error {
	if present(replica) && r.current(v, key, side, origin, replica) {
		return nil
	}
	return &Incomplete{}
}

// current says whether a replica is what it should be, as far as metadata tells. Origin and replica have no content.
func (r *Resource[T]) current(v View, key Key, side Side, origin, replica T) bool {
	note := replica.GetAnnotations()[names.AnnotationContent]
	version, _, noted := strings.Cut(note, ".")
	if !noted || version != origin.GetResourceVersion() {
		return false
	}
	want, err := r.Down(v, origin)
	if err != nil {
		return false
	}
	r.stamp(v, key, side, origin, want)
	annotations := want.GetAnnotations()
	annotations[names.AnnotationContent] = note
	want.SetAnnotations(annotations)
	merged, err := copyOf(replica)
	if err != nil {
		return false
	}
	mergeMeta(merged, want)
	return maps.Equal(merged.GetLabels(), replica.GetLabels()) && maps.Equal(merged.GetAnnotations(), replica.GetAnnotations())
}

// foreign says whether the content of a replica may be other than what we wrote: somebody else manages a field of it, or we
// do not manage as many as the note says.
func foreign(managed []metav1.ManagedFieldsEntry, note string) bool {
	ours := 0
	for _, entry := range managed {
		if entry.FieldsV1 == nil {
			continue
		}
		fields, err := contentFields(entry.FieldsV1.GetRawBytes())
		if err != nil || fields > 0 && entry.Manager != names.Syncer {
			return true
		}
		ours += fields
	}
	_, noted, _ := strings.Cut(note, ".")
	return noted != strconv.Itoa(ours)
}

// contentFields counts the fields that are content in a set of managed fields.
func contentFields(raw []byte) (int, error) {
	var set map[string]map[string]json.RawMessage
	if err := json.Unmarshal(raw, &set); err != nil {
		return 0, err
	}
	n := 0
	for name, fields := range set {
		switch name {
		case "f:metadata", "f:type": // the type is immutable
			continue
		case "f:immutable":
			n++
		}
		for field := range fields {
			if strings.HasPrefix(field, "f:") {
				n++
			}
		}
	}
	return n, nil
}

// copyMetadata gives an object all of the metadata.
func copyMetadata(in *metav1.ObjectMeta, out Object) {
	if to, ok := out.(metav1.ObjectMetaAccessor); ok {
		if meta, ok := to.GetObjectMeta().(*metav1.ObjectMeta); ok {
			*meta = *in
		}
	}
}

// trimMetadata drops the metadata that nobody reads: who manages the fields, and the copy of the whole object that kubectl
// keeps in an annotation, which does not go down.
func trimMetadata(o Object) {
	o.SetManagedFields(nil)
	annotations := o.GetAnnotations()
	if _, found := annotations[corev1.LastAppliedConfigAnnotation]; !found {
		return
	}
	annotations = maps.Clone(annotations)
	delete(annotations, corev1.LastAppliedConfigAnnotation)
	if len(annotations) == 0 {
		annotations = nil // an untyped object tells the difference
	}
	o.SetAnnotations(annotations)
}
