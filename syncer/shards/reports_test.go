package shards

import (
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// reporting returns the Lease of a replica that reports.
func reporting(t *testing.T, name string, said map[string]Report) *coordinationv1.Lease {
	t.Helper()
	c := &Coordinator{}
	for about, r := range said {
		c.Report(about, r)
	}
	l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: prefixReplica + id(name)}, Spec: coordinationv1.LeaseSpec{HolderIdentity: &name}}
	c.reports.publish(l)
	return l
}

func TestReportsAreAddedUp(t *testing.T) {
	done := func(n int) map[string]Report {
		return map[string]Report{"p": {Of: "1", Serving: n, Refused: 1, Done: true}}
	}
	for _, test := range []struct {
		name    string
		holders []string // of the shards
		said    map[string]map[string]Report
		want    Report
	}{
		{"all", []string{"a_1", "b_2", "a_1"}, map[string]map[string]Report{"a_1": done(2), "b_2": done(3)}, Report{Of: "1", Serving: 5, Refused: 2, Done: true}},
		{"a replica without shards does not count", []string{"a_1"}, map[string]map[string]Report{"a_1": done(2), "b_2": done(3)}, Report{Of: "1", Serving: 2, Refused: 1, Done: true}},
		{"one has said nothing", []string{"a_1", "b_2"}, map[string]map[string]Report{"a_1": done(2), "b_2": nil}, Report{Of: "1", Serving: 2, Refused: 1}},
		{"one speaks of an older version", []string{"a_1", "b_2"}, map[string]map[string]Report{"a_1": done(2), "b_2": {"p": {Of: "0", Done: true}}}, Report{Of: "1", Serving: 2, Refused: 1}},
		{"one is not done", []string{"a_1", "b_2"}, map[string]map[string]Report{"a_1": done(2), "b_2": {"p": {Of: "1", Serving: 1}}}, Report{Of: "1", Serving: 3, Refused: 1}},
		{"one has no Lease", []string{"a_1", "b_2"}, map[string]map[string]Report{"a_1": done(2)}, Report{Of: "1", Serving: 2, Refused: 1}},
		{"a shard is free", []string{"a_1", ""}, map[string]map[string]Report{"a_1": done(2)}, Report{Of: "1", Serving: 2, Refused: 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			leases := map[string]*coordinationv1.Lease{}
			for shard, who := range test.holders {
				leases[LeaseOfShard(shard)] = &coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{HolderIdentity: &who}}
			}
			for name, said := range test.said {
				leases[prefixReplica+id(name)] = reporting(t, name, said)
			}
			c := &Coordinator{}
			if c.Reported("p", "1").Done {
				t.Error("done before anything was read")
			}
			c.reports.read(len(test.holders), leases)
			if got := c.Reported("p", "1"); got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}
