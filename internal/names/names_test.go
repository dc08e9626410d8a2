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

// A tenant's Secret or ConfigMap never has the name that the operator's has, whatever the tenant calls it.
func TestNamesOfSecretsAndConfigMaps(t *testing.T) {
	long := strings.Repeat(strings.Repeat("a", 62)+".", 4)[:252] + "a"
	for of, f := range map[string]func(string) string{"Secret": names.SuperSecret, "ConfigMap": names.SuperConfigMap} {
		seen := map[string]string{}
		for _, name := range []string{
			"db", "db.tenant", "kube-root-ca.crt", "token-0123456789abc", "db" + names.Marker,
			long[:235] + "a", long[:236] + "a", long, long[:252] + "b", long[:221] + "-" + strings.Repeat("b", 30), long[:221] + "." + strings.Repeat("b", 30),
		} {
			got := f(name)
			if other, dup := seen[got]; dup {
				t.Errorf("%s: %s and %s both map to %s", of, name, other, got)
			}
			seen[got] = name
			if errs := validation.IsDNS1123Subdomain(got); len(errs) > 0 || !strings.HasSuffix(got, names.Marker) {
				t.Errorf("%s %s maps to %q: %v", of, name, got, errs)
			}
		}
		if got := f("db"); got != "db"+names.Marker {
			t.Errorf("%s db maps to %q", of, got)
		}
		if got := f(""); got != "" { // an optional reference to nothing stays one
			t.Errorf("%s without a name maps to %q", of, got)
		}
	}
}

func TestAbsentServiceIsAServiceName(t *testing.T) {
	a, b := names.AbsentService("a"), names.AbsentService(strings.Repeat("b", 63))
	if errs := append(validation.IsDNS1035Label(a), validation.IsDNS1035Label(b)...); len(errs) > 0 || a == b {
		t.Errorf("%q and %q: %v", a, b, errs)
	}
}
