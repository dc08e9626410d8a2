package pods

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
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

// annotationRoom is what the annotations of a replica may take in all. The rest of what the API allows is for those that the
// syncer, and network plugins of the super cluster, add.
const annotationRoom = validation.TotalAnnotationSizeLimitB - 4<<10

// addShown adds what containers read to the annotations of a replica. When they take too much together, annotations of the
// tenant's are left out, the largest first: containers read the others, and nothing else reads them in the super cluster. If
// that is not enough, the pod is refused; one that exists keeps showing what it showed.
func addShown(v resource.View, pod, out *corev1.Pod, shown map[string]string) error {
	size := annotationSize(out.Annotations) + annotationSize(shown) + keysSize(out.Labels)
	if size <= annotationRoom { // as nearly always: nothing has to be put in order
		maps.Copy(out.Annotations, shown)
		return nil
	}
	for _, key := range largestFirst(out.Annotations) {
		if size <= annotationRoom {
			break
		}
		size -= annotationSize(map[string]string{key: out.Annotations[key]})
		delete(out.Annotations, key)
	}
	var err error
	if size > annotationRoom {
		err = resource.Rejected("AnnotationsTooLong",
			"What the containers read of metadata.labels and metadata.annotations takes %d bytes, and %d are allowed: all annotations of a pod together are limited to %d bytes. Shorten the annotations of the pod, or read fewer of them.",
			size, annotationRoom, validation.TotalAnnotationSizeLimitB)
		keepShown(v, pod, shown, size)
	}
	maps.Copy(out.Annotations, shown)
	return err
}

// keepShown sets annotations that containers read to what the replica of the pod has, the largest first, until they fit.
func keepShown(v resource.View, pod *corev1.Pod, shown map[string]string, size int) {
	replica := v.Get(resource.Super, resource.Ref{Kind: "pods", Namespace: pod.Namespace, Name: pod.Name})
	if replica == nil {
		return
	}
	for _, key := range largestFirst(shown) {
		if size <= annotationRoom {
			return
		}
		size -= len(shown[key])
		shown[key] = replica.GetAnnotations()[key]
		size += len(shown[key])
	}
}

// annotationSize is what annotations take in a replica, where their keys are noted, too.
func annotationSize(in map[string]string) int {
	size := keysSize(in)
	for key, value := range in {
		size += len(key) + len(value)
	}
	return size
}

// keysSize is what the note of keys takes.
func keysSize(in map[string]string) int {
	size := 0
	for key := range in {
		size += len("a:,") + len(key)
	}
	return size
}

// largestFirst returns the keys of a map by the sizes of the entries.
func largestFirst(in map[string]string) []string {
	return slices.SortedFunc(maps.Keys(in), func(a, b string) int {
		return cmp.Or(cmp.Compare(len(b)+len(in[b]), len(a)+len(in[a])), strings.Compare(a, b))
	})
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
