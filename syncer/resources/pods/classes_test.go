package pods

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// public is the metadata of a class of the super cluster with a label that offers it, or not.
func public(name, label string) metav1.ObjectMeta {
	m := metav1.ObjectMeta{Name: name, UID: types.UID("super-" + name)}
	if label != "" {
		m.Labels = map[string]string{names.LabelPublic: label}
	}
	return m
}

// copyOf is the metadata of the tenant's replica of it.
func copyOf(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, UID: types.UID("tenant-" + name), Annotations: map[string]string{names.AnnotationUID: "super-" + name}}
}

func TestPriorityClassesThatAreOfferedPass(t *testing.T) {
	class := func(m metav1.ObjectMeta) *schedulingv1.PriorityClass {
		return &schedulingv1.PriorityClass{ObjectMeta: m}
	}
	for name, tc := range map[string]struct {
		super, tenant *schedulingv1.PriorityClass
		disabled      []string
		want          string
	}{
		"Offered":     {class(public("high", "true")), class(copyOf("high")), nil, "high"},
		"NotLabelled": {class(public("high", "")), class(copyOf("high")), nil, ""},
		"Hidden":      {class(public("high", "false")), class(copyOf("high")), nil, ""},
		"TenantsOwn":  {class(public("high", "true")), class(metav1.ObjectMeta{Name: "high"}), nil, ""},
		"Forged":      {class(public("high", "true")), class(metav1.ObjectMeta{Name: "high", Annotations: map[string]string{names.AnnotationUID: "x"}}), nil, ""},
		"OnlyTenant":  {nil, class(copyOf("high")), nil, ""},
		"Disabled":    {class(public("high", "true")), class(copyOf("high")), []string{"priorityclasses"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			w.facts.Disabled = tc.disabled
			if tc.super != nil {
				w.put(resource.Super, "priorityclasses", "", "high", tc.super)
			}
			w.put(resource.Tenant, "priorityclasses", "", "high", tc.tenant)
			got := mustDown(t, w, pod(spec(func(s *corev1.PodSpec) {
				s.PriorityClassName, s.Priority, s.PreemptionPolicy = "high", to(int32(1000)), to(corev1.PreemptNever)
			}))).Spec
			if got.PriorityClassName != tc.want || got.Priority != nil || got.PreemptionPolicy != nil {
				t.Errorf("class %q, priority %v, preemption %v; want class %q", got.PriorityClassName, got.Priority, got.PreemptionPolicy, tc.want)
			}
		})
	}
}

func TestRuntimeClassesThatAreOfferedPass(t *testing.T) {
	class := func(m metav1.ObjectMeta, handler string) *nodev1.RuntimeClass {
		return &nodev1.RuntimeClass{ObjectMeta: m, Handler: handler}
	}
	own := metav1.ObjectMeta{Name: "mine"}
	for name, tc := range map[string]struct {
		super    []*nodev1.RuntimeClass
		tenant   *nodev1.RuntimeClass
		disabled []string
		want     string
	}{
		"Offered":        {[]*nodev1.RuntimeClass{class(public("kata", ""), "k")}, class(copyOf("kata"), "k"), nil, "kata"},
		"Hidden":         {[]*nodev1.RuntimeClass{class(public("kata", "false"), "k")}, class(copyOf("kata"), "k"), nil, ""},
		"Disabled":       {[]*nodev1.RuntimeClass{class(public("kata", ""), "k")}, class(copyOf("kata"), "k"), []string{"runtimeclasses"}, ""},
		"OwnSameHandler": {[]*nodev1.RuntimeClass{class(public("z", ""), "k"), class(public("a", ""), "k"), class(public("0", "false"), "k")}, class(own, "k"), nil, "a"},
		"OwnHandler":     {[]*nodev1.RuntimeClass{class(public("kata", ""), "k")}, class(own, "gvisor"), nil, ""},
		"OwnOfThatName":  {[]*nodev1.RuntimeClass{class(public("mine", ""), "k")}, class(own, "gvisor"), nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			w.facts.Disabled = tc.disabled
			for _, c := range tc.super {
				w.put(resource.Super, "runtimeclasses", "", c.Name, c)
			}
			w.put(resource.Tenant, "runtimeclasses", "", tc.tenant.Name, tc.tenant)
			got, err := down(t, w, pod(spec(func(s *corev1.PodSpec) {
				s.RuntimeClassName, s.Overhead = &tc.tenant.Name, corev1.ResourceList{corev1.ResourceCPU: {}}
			})))
			if tc.want == "" {
				if r, ok := resource.AsReject(err); !ok || r.Reason != "Unsupported" {
					t.Errorf("got %v, %v; want a rejection", got, err)
				}
				return
			}
			if err != nil || got.Spec.RuntimeClassName == nil || *got.Spec.RuntimeClassName != tc.want || got.Spec.Overhead != nil {
				t.Errorf("got %v, %v; want class %s", got, err, tc.want)
			}
		})
	}
}

func TestNamespaceSelectorsOfAffinity(t *testing.T) {
	w := newWorld()
	w.put(resource.Tenant, "namespaces", "", "web", &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "web", Labels: map[string]string{"team": "a"}}})
	w.put(resource.Tenant, "namespaces", "", "db", &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "db", Labels: map[string]string{"team": "b"}}})
	got := mustDown(t, w, pod(spec(func(s *corev1.PodSpec) {
		s.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{
			TopologyKey: "zone", NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"team": "a"}},
		}}}}
	})))
	want := &metav1.LabelSelector{
		MatchLabels: map[string]string{names.LabelTenant: string(tenantID)},
		MatchExpressions: []metav1.LabelSelectorRequirement{{
			Key: corev1.LabelMetadataName, Operator: metav1.LabelSelectorOpIn, Values: []string{names.SuperNamespace(tenantID, "web")},
		}},
	}
	if diff := cmp.Diff(want, got.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution[0].NamespaceSelector); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}
