package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// pod returns a tenant's pod, and its replica.
func podOf(tenant names.TenantID, name string) (object, object) {
	content, status := map[string]string{owner: string(tenant), "rev": "1"}, map[string]string{"phase": "Running"}
	o := object{Key: key{kindPod, "shop", name}, UID: "u-" + name, Content: content, Status: status}
	replica := o
	replica.Tenant, replica.Place, replica.Replica = tenant, names.SuperNamespace(tenant, "shop"), name+" r-"+name
	return o, replica
}

func TestCompare(t *testing.T) {
	pod, replica := podOf("a", "p")
	edit := func(o object, change func(*object)) object { change(&o); return o }
	for name, tc := range map[string]struct {
		tenant, super []object
		want          []string
	}{
		"Same":       {[]object{pod}, []object{replica}, nil},
		"NothingYet": {nil, nil, nil},
		"Lost":       {[]object{pod}, nil, []string{lost}},
		"Doubled": {[]object{pod}, []object{replica, edit(replica, func(o *object) { o.Replica = "p r-2" })},
			[]string{doubled}},
		"Orphaned":           {nil, []object{replica}, []string{orphaned}},
		"OfAnEarlierObject":  {[]object{pod}, []object{edit(replica, func(o *object) { o.UID = "before" })}, []string{orphaned}},
		"OfAnUnknownTenant":  {nil, []object{edit(replica, func(o *object) { o.Tenant = "x" })}, []string{orphaned}},
		"NotNeeded":          {[]object{edit(pod, func(o *object) { o.Unneeded = true })}, []object{replica}, []string{orphaned}},
		"NotNeededAndGone":   {[]object{edit(pod, func(o *object) { o.Unneeded = true })}, nil, nil},
		"InAWrongNamespace":  {[]object{pod}, []object{edit(replica, func(o *object) { o.Place = names.SuperNamespace("b", "shop") })}, []string{misplaced}},
		"ByAnotherTenant":    {[]object{pod}, []object{edit(replica, func(o *object) { o.Content = map[string]string{owner: "b", "rev": "1"} })}, []string{misplaced, different}},
		"InAnotherTenant":    {[]object{edit(pod, func(o *object) { o.Content = map[string]string{owner: "b"}; o.Unneeded = true })}, nil, []string{misplaced}},
		"OtherContent":       {[]object{pod}, []object{edit(replica, func(o *object) { o.Content = map[string]string{owner: "a", "rev": "0"} })}, []string{different}},
		"OtherStatus":        {[]object{pod}, []object{edit(replica, func(o *object) { o.Status = map[string]string{"phase": "Failed"} })}, []string{different}},
		"StuckInTheTenant":   {[]object{edit(pod, func(o *object) { o.Deleting = true })}, []object{replica}, []string{stuck}},
		"StuckInTheCluster":  {[]object{pod}, []object{edit(replica, func(o *object) { o.Deleting = true })}, []string{stuck}},
		"AnotherOneIsntHere": {[]object{edit(pod, func(o *object) { o.Key.Name = "q" })}, []object{replica}, []string{lost, orphaned}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, f := range compare(map[names.TenantID]side{"a": {"a", tc.tenant}, "b": {"b", nil}}, tc.super) {
				got = append(got, f.What)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("findings: %s", diff)
			}
		})
	}
}

// Two tenants may use the same names.
func TestCompareOfTwoTenants(t *testing.T) {
	a, ofA := podOf("a", "p")
	b, ofB := podOf("b", "p")
	tenants := map[names.TenantID]side{"a": {"a", []object{a}}, "b": {"b", []object{b}}}
	if got := compare(tenants, []object{ofA, ofB}); len(got) > 0 {
		t.Errorf("they are told apart by nothing: %v", got)
	}
	if got := compare(tenants, []object{ofA}); len(got) != 1 || got[0].What != lost || got[0].Of != "b" {
		t.Errorf("the replica of one stands for the other's: %v", got)
	}
}
