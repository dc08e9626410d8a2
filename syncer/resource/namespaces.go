package resource

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// AllNamespaces is what an object refers to that selects namespaces of the tenant by their labels.
func AllNamespaces() Ref { return Ref{Kind: namespaces} }

// SelectNamespaces returns the selector that selects, in the super cluster, the namespaces that the given one selects in
// the tenant now. Labels of tenant namespaces do not go down, so it names the super namespaces; and whatever is selected,
// it never reaches beyond the tenant.
func (v View) SelectNamespaces(in *metav1.LabelSelector) (*metav1.LabelSelector, error) {
	selector, err := metav1.LabelSelectorAsSelector(in)
	if err != nil {
		return nil, Rejected("Unsupported", "a namespaceSelector cannot be read: %v", err)
	}
	out := &metav1.LabelSelector{MatchLabels: map[string]string{names.LabelTenant: string(v.Tenant.ID)}}
	if selector.Empty() {
		return out, nil
	}
	var selected []string
	v.Each(Tenant, namespaces, func(ns Object) {
		if selector.Matches(labels.Set(ns.GetLabels())) {
			selected = append(selected, names.SuperNamespace(v.Tenant.ID, ns.GetName()))
		}
	})
	slices.Sort(selected)
	only := metav1.LabelSelectorRequirement{Key: corev1.LabelMetadataName, Operator: metav1.LabelSelectorOpIn, Values: selected}
	if len(selected) == 0 { // every namespace has the label: none is selected
		only = metav1.LabelSelectorRequirement{Key: corev1.LabelMetadataName, Operator: metav1.LabelSelectorOpDoesNotExist}
	}
	out.MatchExpressions = []metav1.LabelSelectorRequirement{only}
	return out, nil
}
