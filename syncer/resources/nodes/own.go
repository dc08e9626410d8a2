package nodes

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// Annotations of a virtual node that list what came from the real one. What they do not list is the tenant's. They have
// no reserved prefix, because those are taken from everything that a translation returns.
const (
	prefix = "node." + names.Prefix
	// annotationTaints lists taints as key:effect.
	annotationTaints = prefix + "taints"
	// annotationCordoned is there when the node is unschedulable because the real one is.
	annotationCordoned = prefix + "cordoned"
	// annotationResources lists extended resources.
	annotationResources = prefix + "resources"
)

// marks returns the annotations of a new virtual node.
func marks(in *corev1.Node) map[string]string {
	out := map[string]string{}
	if len(in.Spec.Taints) > 0 {
		var taints []string
		for _, taint := range in.Spec.Taints {
			taints = append(taints, taintID(taint))
		}
		slices.Sort(taints)
		out[annotationTaints] = strings.Join(taints, ",")
	}
	if in.Spec.Unschedulable {
		out[annotationCordoned] = "true"
	}
	if resources := extended(in); resources != "" {
		out[annotationResources] = resources
	}
	return out
}

func taintID(taint corev1.Taint) string { return taint.Key + ":" + string(taint.Effect) }

func extended(in *corev1.Node) string {
	var out []string
	for name := range in.Status.Capacity {
		if Extended(name) {
			out = append(out, string(name))
		}
	}
	slices.Sort(out)
	return strings.Join(out, ",")
}

// Added returns the extended resources that the tenant added to a virtual node.
func Added(virtual *corev1.Node) []corev1.ResourceName {
	ours := list(virtual, annotationResources)
	var out []corev1.ResourceName
	for name := range virtual.Status.Capacity {
		if Extended(name) && !slices.Contains(ours, string(name)) {
			out = append(out, name)
		}
	}
	return out
}

// list reads an annotation that is a list.
func list(n *corev1.Node, annotation string) []string {
	if n.Annotations[annotation] == "" {
		return nil
	}
	return strings.Split(n.Annotations[annotation], ",")
}

// Own is what the tenant put on one of its virtual nodes, as far as it decides where pods may run.
type Own struct {
	Labels   []string
	Taints   []corev1.Taint
	Cordoned bool
}

func (o Own) empty() bool { return len(o.Labels) == 0 && len(o.Taints) == 0 && !o.Cordoned }

// OwnOf returns what the tenant put on a virtual node. A node that stands for no real one has nothing that matters.
func OwnOf(virtual *corev1.Node) Own {
	var out Own
	if virtual.Annotations[names.AnnotationUID] == "" {
		return out
	}
	ours := list(virtual, names.AnnotationKeys)
	for key := range virtual.Labels {
		if !slices.Contains(ours, "l:"+key) {
			out.Labels = append(out.Labels, key)
		}
	}
	slices.Sort(out.Labels)
	taints := list(virtual, annotationTaints)
	for _, taint := range virtual.Spec.Taints {
		if !slices.Contains(taints, taintID(taint)) {
			out.Taints = append(out.Taints, taint)
		}
	}
	_, cordoned := virtual.Annotations[annotationCordoned]
	out.Cordoned = virtual.Spec.Unschedulable && !cordoned
	return out
}

// sameToPods says that a change of a virtual node cannot change where pods may run.
func sameToPods(old, now *corev1.Node) bool {
	if old == nil || now == nil {
		return false
	}
	return old.Spec.Unschedulable == now.Spec.Unschedulable && maps.Equal(old.Labels, now.Labels) &&
		equality.Semantic.DeepEqual(old.Spec.Taints, now.Spec.Taints) &&
		old.Annotations[annotationTaints] == now.Annotations[annotationTaints] &&
		old.Annotations[annotationCordoned] == now.Annotations[annotationCordoned] &&
		old.Annotations[names.AnnotationKeys] == now.Annotations[names.AnnotationKeys]
}
