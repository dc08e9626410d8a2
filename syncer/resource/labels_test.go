package resource_test

import (
	"maps"
	"math/rand/v2"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// Whatever a tenant writes into labels and selectors, the same pods are selected on both sides.
func TestSelectorsSelectTheSamePodsOnBothSides(t *testing.T) {
	v := resource.View{Tenant: resource.Facts{
		ID: tenantID, Opaque: []string{"tier", "both.example.com/"}, Transparent: []string{"both.example.com/", names.Prefix},
	}}
	keys := []string{
		"app", "app.kubernetes.io/name", "tier", "team.example.com/role", "both.example.com/zone", names.LabelTenant, names.Prefix + "x",
		names.OpaqueKey(tenantID, "team.example.com/role"),
	}
	values := []string{"", "a", string(tenantID), names.OpaqueValue(tenantID, "team.example.com/role", "a")}
	random := rand.New(rand.NewPCG(9, 5))
	pick := func(from []string) string { return from[random.IntN(len(from))] }
	pairs := func() map[string]string {
		out := map[string]string{}
		for range random.IntN(4) {
			out[pick(keys)] = pick(values)
		}
		return out
	}
	matched := 0
	for range 20000 {
		pod, selector := pairs(), &metav1.LabelSelector{}
		if random.IntN(2) == 0 {
			selector.MatchLabels = pairs()
		}
		for range random.IntN(3) {
			r := metav1.LabelSelectorRequirement{Key: pick(keys), Operator: metav1.LabelSelectorOpExists}
			switch random.IntN(4) {
			case 0:
				r.Operator = metav1.LabelSelectorOpDoesNotExist
			case 1:
				r.Operator, r.Values = metav1.LabelSelectorOpIn, []string{pick(values), pick(values)}
			case 2:
				r.Operator, r.Values = metav1.LabelSelectorOpNotIn, []string{pick(values)}
			}
			selector.MatchExpressions = append(selector.MatchExpressions, r)
		}
		replica := maps.Clone(v.PodLabels(pod))
		replica[names.LabelTenant], replica[names.LabelManagedBy] = string(tenantID), names.Syncer
		in, super := matches(t, selector, pod), matches(t, v.PodSelector(selector), replica)
		if in != super {
			t.Fatalf("%v selects %v in the tenant: %v, in the super cluster: %v", selector, pod, in, super)
		}
		if in {
			matched++
		}
	}
	if matched < 1000 {
		t.Errorf("only %d selected anything", matched)
	}
	if v.PodSelector(nil) != nil || v.PodLabels(nil) != nil || v.PodKeys(nil) != nil {
		t.Error("nothing became something")
	}
}

func matches(t *testing.T, selector *metav1.LabelSelector, pod map[string]string) bool {
	t.Helper()
	s, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		t.Fatal(err)
	}
	return s.Matches(labels.Set(pod))
}

// The operator learns nothing from labels that do not go down.
func TestOpaqueLabelsSayNothing(t *testing.T) {
	v := resource.View{Tenant: resource.Facts{ID: tenantID}}
	other := resource.View{Tenant: resource.Facts{ID: "other"}}
	in := map[string]string{"team.example.com/role": "secret"}
	for key, value := range v.PodLabels(in) {
		if strings.Contains(key, "role") || strings.Contains(value, "secret") || names.Reserved(key) {
			t.Errorf("got %s=%s", key, value)
		}
		if errs := append(validation.IsQualifiedName(key), validation.IsValidLabelValue(value)...); len(errs) > 0 {
			t.Errorf("%s=%s: %v", key, value, errs)
		}
		if _, same := other.PodLabels(in)[key]; same {
			t.Errorf("%s is that of another tenant, too", key)
		}
	}
}
