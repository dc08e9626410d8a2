package shards

import (
	"encoding/json"
	"maps"
	"sync"

	coordinationv1 "k8s.io/api/coordination/v1"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// annotationReports, on the Lease of a replica, holds what the replica reports.
const annotationReports = names.Prefix + "reports"

// Report is what one replica says about something that concerns all tenants: how far its own tenants are.
type Report struct {
	// Of tells versions of what is reported about apart.
	Of string `json:"of"`
	// Serving and Refused count tenants.
	Serving int `json:"serving,omitempty"`
	Refused int `json:"refused,omitempty"`
	// Done says that nothing is left.
	Done bool `json:"done,omitempty"`
}

// reports are those of this replica, and those of others as they were when the Leases were read last.
type reports struct {
	mu      sync.Mutex
	own     map[string]Report   // guarded by mu
	holders []map[string]Report // guarded by mu: of the replicas that hold shards, nil for one that is not known
}

// Report says something to the other replicas. They know it after a moment.
func (c *Coordinator) Report(name string, r Report) {
	c.reports.mu.Lock()
	defer c.reports.mu.Unlock()
	if c.reports.own == nil {
		c.reports.own = map[string]Report{}
	}
	c.reports.own[name] = r
}

// Forget ends a report.
func (c *Coordinator) Forget(name string) {
	c.reports.mu.Lock()
	defer c.reports.mu.Unlock()
	delete(c.reports.own, name)
}

// Reported adds up what all replicas that hold shards say about one version of something. Done says that all of them do, for
// all shards.
func (c *Coordinator) Reported(name, of string) Report {
	c.reports.mu.Lock()
	defer c.reports.mu.Unlock()
	sum := Report{Of: of, Done: len(c.reports.holders) > 0}
	for _, r := range c.reports.holders {
		one := r[name]
		if one.Of != of {
			sum.Done = false
			continue
		}
		sum.Serving += one.Serving
		sum.Refused += one.Refused
		sum.Done = sum.Done && one.Done
	}
	return sum
}

// publish writes the reports of this replica into its Lease.
func (r *reports) publish(lease *coordinationv1.Lease) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(lease.Annotations, annotationReports)
	if len(r.own) == 0 {
		return
	}
	text, err := json.Marshal(r.own)
	if err != nil {
		return // it has none that cannot be encoded
	}
	if lease.Annotations == nil {
		lease.Annotations = map[string]string{}
	}
	lease.Annotations[annotationReports] = string(text)
}

// read reads the reports of all replicas that hold shards.
func (r *reports) read(shards int, leases map[string]*coordinationv1.Lease) {
	byHolder := map[string]map[string]Report{}
	for shard := range shards {
		who := ""
		if l := leases[LeaseOfShard(shard)]; l != nil {
			who = holder(l)
		}
		byHolder[who] = nil // nobody, or one that is not known, reports nothing
		l := leases[prefixReplica+id(who)]
		if who == "" || l == nil {
			continue
		}
		var said map[string]Report
		if err := json.Unmarshal([]byte(l.Annotations[annotationReports]), &said); err == nil {
			byHolder[who] = said
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.holders = r.holders[:0]
	for said := range maps.Values(byHolder) {
		r.holders = append(r.holders, said)
	}
}
