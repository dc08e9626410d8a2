package names_test

import (
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

func TestTenantIsAValidNamespaceNameAndDependsOnTheUID(t *testing.T) {
	for name, vc := range map[string]types.NamespacedName{
		"Short":  {Namespace: "default", Name: "a"},
		"Dotted": {Namespace: "default", Name: "a.b"},
		"Long":   {Namespace: strings.Repeat("n", 63), Name: strings.Repeat("m", 63)},
		"Cut":    {Namespace: strings.Repeat("n", 48), Name: "m"},
	} {
		t.Run(name, func(t *testing.T) {
			first, second := names.Tenant(vc, "1"), names.Tenant(vc, "2")
			if first == second {
				t.Errorf("a VirtualCluster that was created again got the same ID %q", first)
			}
			if errs := validation.IsDNS1123Label(string(first)); len(errs) > 0 {
				t.Errorf("%q is not a namespace name: %v", first, errs)
			}
		})
	}
}

// Attack I-01 and I-02: names that could be cut or joined into another tenant's.
func TestSuperNamespaceIsInjective(t *testing.T) {
	tenants := []names.TenantID{
		"team", "team-a", "team-a-kube",
		names.Tenant(types.NamespacedName{Namespace: "d", Name: "team"}, "1"),
		names.Tenant(types.NamespacedName{Namespace: "d", Name: "team-a"}, "2"),
	}
	namespaces := []string{"a-kube-system", "kube-system", "system", "default", "a", strings.Repeat("a", 63), strings.Repeat("a", 62)}
	for i := range 500 {
		namespaces = append(namespaces, strings.Repeat("x", 55)+fmt.Sprint(i))
	}
	seen := map[string]string{}
	for _, tenant := range tenants {
		for _, namespace := range namespaces {
			got := names.SuperNamespace(tenant, namespace)
			from := string(tenant) + "/" + namespace
			if other, dup := seen[got]; dup {
				t.Fatalf("%s and %s both map to %s", from, other, got)
			}
			seen[got] = from
			if errs := validation.IsDNS1123Label(got); len(errs) > 0 {
				t.Fatalf("%s maps to %q, which is not a namespace name: %v", from, got, errs)
			}
		}
	}
}

func TestReserved(t *testing.T) {
	for key, want := range map[string]bool{
		names.LabelTenant:        true,
		"tenancy.x-k8s.io/other": true,
		"app.kubernetes.io/name": false,
		"tenancy.x-k8s.iox/name": false,
	} {
		if got := names.Reserved(key); got != want {
			t.Errorf("Reserved(%q) = %v, want %v", key, got, want)
		}
	}
}
