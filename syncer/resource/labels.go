package resource

import (
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// Pods have the same labels on both sides, so that a selector selects the same pods on both sides. Labels whose keys do not
// go down would break that, whether they were left out of the pods alone or out of the selectors, too. So keys and values
// of such labels are replaced, on pods and in every selector over pods alike, by others that say nothing about them.

// OpaqueLabel says whether a label of the tenant's pods does not go down under its own key: the key is one of ours, or one
// that does not pass. Labels that come up instead are the super cluster's, whose keys stay.
func (v View) OpaqueLabel(key string) bool {
	if names.Reserved(key) || strings.HasPrefix(key, names.OpaquePrefix) {
		return true
	}
	return !v.transparent(key) && !v.labelPasses(Pods, key)
}

// PodLabels returns what stands, in the super cluster, for labels of the tenant's pods: for those of a pod, and for those
// that a selector asks for.
func (v View) PodLabels(in map[string]string) map[string]string {
	if in == nil {
		return nil
	}
	out := make(map[string]string, len(in))
	for key, value := range in {
		out[v.podKey(key)] = v.podValue(key, value)
	}
	return out
}

// PodKeys does so for the keys of labels.
func (v View) PodKeys(in []string) []string {
	var out []string
	for _, key := range in {
		out = append(out, v.podKey(key))
	}
	return out
}

// PodSelector returns the selector that selects, in the super cluster, the pods that the given one selects in the tenant.
func (v View) PodSelector(in *metav1.LabelSelector) *metav1.LabelSelector {
	out := in.DeepCopy()
	if out == nil {
		return nil
	}
	out.MatchLabels = v.PodLabels(in.MatchLabels)
	for i := range out.MatchExpressions {
		e := &out.MatchExpressions[i]
		for j, value := range e.Values {
			e.Values[j] = v.podValue(e.Key, value)
		}
		e.Key = v.podKey(e.Key)
	}
	return out
}

func (v View) podKey(key string) string {
	if v.OpaqueLabel(key) {
		return names.OpaqueKey(v.Tenant.ID, key)
	}
	return key
}

func (v View) podValue(key, value string) string {
	if v.OpaqueLabel(key) {
		return names.OpaqueValue(v.Tenant.ID, key, value)
	}
	return value
}
