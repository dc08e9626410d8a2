package pods

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// downwardPrefix begins the annotations of a replica that hold what its containers are to see of the tenant's metadata.
// It is no reserved prefix, because those are taken from everything that a translation returns; what a tenant writes
// under it is not copied.
const downwardPrefix = "downward." + names.Prefix

// finishFieldRef leads a reference to the pod's own fields to the tenant's view of them.
func finishFieldRef(t *translation, dst, src *corev1.ObjectFieldSelector) error {
	path, ok := t.fieldPath(src.FieldPath)
	if !ok && !t.lenient {
		return &refusal{path: "fieldPath", why: "the field " + strconv.Quote(src.FieldPath) + " is not known here"}
	}
	dst.FieldPath = path
	return nil
}

// fieldPath returns the path that holds in the super cluster what the given one holds in the tenant's.
func (t *translation) fieldPath(path string) (string, bool) {
	switch path {
	case "metadata.name", "spec.nodeName", "spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs":
		return path, true
	case "metadata.namespace":
		return annotationPath(names.AnnotationNamespace), true
	case "metadata.uid":
		return annotationPath(names.AnnotationUID), true
	case "metadata.labels":
		return t.show("labels", format(visible(t.pod.Labels))), true
	case "metadata.annotations":
		return t.show("annotations", format(visible(t.pod.Annotations))), true
	}
	if key, ok := subscript(path, "metadata.labels"); ok {
		if key == corev1.LabelTopologyZone || key == corev1.LabelTopologyRegion {
			return path, true // set together with the node, too late to be copied before a container starts
		}
		return t.showKey("label-", key, visible(t.pod.Labels)), true
	}
	if key, ok := subscript(path, "metadata.annotations"); ok {
		return t.showKey("annotation-", key, visible(t.pod.Annotations)), true
	}
	return "", false
}

// showKey shows one value of a map. The key itself would show what the super cluster puts under it.
func (t *translation) showKey(kind, key string, values map[string]string) string {
	name := kind + names.Hash(key)
	if value, ok := values[key]; ok {
		return t.show(name, value)
	}
	return annotationPath(downwardPrefix + name)
}

// show puts a value into an annotation of the replica and returns the path to it.
func (t *translation) show(name, value string) string {
	t.annotations[downwardPrefix+name] = value
	return annotationPath(downwardPrefix + name)
}

func annotationPath(key string) string {
	return "metadata.annotations['" + key + "']"
}

// subscript returns k of a path field['k'].
func subscript(path, field string) (string, bool) {
	rest, ok := strings.CutPrefix(path, field+"['")
	if !ok {
		return "", false
	}
	return strings.CutSuffix(rest, "']")
}

// visible leaves out the keys that are ours.
func visible(in map[string]string) map[string]string {
	out := maps.Clone(in)
	maps.DeleteFunc(out, func(key, _ string) bool { return ours(key) })
	return out
}

// ours says whether a key of labels or annotations is for us to write, whatever a tenant wrote there.
func ours(key string) bool {
	return names.Reserved(key) || strings.HasPrefix(key, downwardPrefix) || strings.HasPrefix(key, names.OpaquePrefix)
}

// format writes a map as the kubelet does.
func format(in map[string]string) string {
	lines := make([]string, 0, len(in))
	for _, key := range slices.Sorted(maps.Keys(in)) {
		lines = append(lines, key+"="+strconv.Quote(in[key]))
	}
	return strings.Join(lines, "\n")
}
