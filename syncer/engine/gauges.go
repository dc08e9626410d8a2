package engine

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/tenants"
)

// describe makes a description.
func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// gauge sends a value.
func gauge(out chan<- prometheus.Metric, desc *prometheus.Desc, value float64, labels ...string) {
	out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
}

func number(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// gauges say at each scrape how the engine stands.
type gauges struct {
	engine                              *Engine
	active, held, depth, oldest, cached *prometheus.Desc
	over                                *prometheus.Desc
}

func newGauges(e *Engine) *gauges {
	return &gauges{
		engine: e,
		active: describe("vc_syncer_active", "1 if this replica leads and its caches of the super cluster are current."),
		held:   describe("vc_syncer_tenants_deletions_held", "Tenants whose deletions are held back until a person releases them."),
		depth:  describe("vc_syncer_queue_depth", "Keys waiting for a worker.", "resource"),
		oldest: describe("vc_syncer_queue_oldest_seconds", "Age of the key that waits longest for a worker.", "resource"),
		cached: describe("vc_syncer_cache_objects", "Objects in the caches, of all tenants together.", "resource", "side"),
		over:   describe("vc_syncer_tenants_over_budget", "Tenants that are not within their budget.", "reason"),
	}
}

// Describe implements prometheus.Collector.
func (g *gauges) Describe(out chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{g.active, g.held, g.depth, g.oldest, g.cached, g.over} {
		out <- desc
	}
}

// Collect implements prometheus.Collector.
func (g *gauges) Collect(out chan<- prometheus.Metric) {
	e, now := g.engine, g.engine.now()
	gauge(out, g.active, number(e.active()))
	gauge(out, g.held, float64(e.count(e.waits)))
	for _, reason := range []string{CacheExhausted, ObjectsExhausted, Throttled} {
		gauge(out, g.over, float64(e.count(func(t *tenants.Tenant) bool { return e.OverBudget(t).Reason == reason })), reason)
	}
	all := e.registry.All()
	for name, w := range e.kinds() {
		depth := 0
		e.eachPool(func(p *pool) { depth += p.queue.order.depth(name) })
		gauge(out, g.depth, float64(depth), name)
		gauge(out, g.oldest, age(now, w.stamps.total().oldest), name)
		gauge(out, g.cached, float64(w.cache.Len()), name, resource.Super.String())
		if w.SuperOnly {
			continue
		}
		n := 0
		for _, t := range all {
			if c := t.Cache(name); c != nil {
				n += c.Len()
			}
		}
		gauge(out, g.cached, float64(n), name, resource.Tenant.String())
	}
}

// tenantGauges say at each scrape how each tenant stands. There are as many series as tenants, so they are for those who
// ask for them.
type tenantGauges struct {
	engine                            *Engine
	state, held, keys, lag, objectsOf *prometheus.Desc
	paced                             *prometheus.Desc
}

func newTenantGauges(e *Engine) *tenantGauges {
	return &tenantGauges{
		engine:    e,
		state:     describe("vc_syncer_tenant_state", "1 for the state of the connection to the tenant.", "tenant", "state"),
		held:      describe("vc_syncer_tenant_deletions_held", "1 if deletions of the tenant are held back until a person releases them.", "tenant"),
		keys:      describe("vc_syncer_tenant_queue_depth", "Keys of the tenant waiting for a worker.", "tenant"),
		lag:       describe("vc_syncer_tenant_lag_seconds", "Age of the oldest change whose effect on the other side is not written.", "tenant", "direction"),
		objectsOf: describe("vc_syncer_tenant_cache_objects", "Objects of the tenant in the caches, of all kinds together.", "tenant", "side"),
		paced:     describe("vc_syncer_tenant_throttled_seconds_total", "Time that workers waited because the tenant was over its budget.", "tenant"),
	}
}

// Describe implements prometheus.Collector.
func (g *tenantGauges) Describe(out chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{g.state, g.held, g.keys, g.lag, g.objectsOf, g.paced} {
		out <- desc
	}
}

// Collect implements prometheus.Collector.
func (g *tenantGauges) Collect(out chan<- prometheus.Metric) {
	e, now := g.engine, g.engine.now()
	backlogs := map[names.TenantID]*unfinished{}
	for _, w := range e.kinds() {
		w.stamps.byTenant(backlogs)
	}
	for _, t := range e.registry.All() {
		id := string(t.Facts.ID)
		b := backlogs[t.Facts.ID]
		if b == nil {
			b = &unfinished{}
		}
		gauge(out, g.state, 1, id, string(t.State()))
		gauge(out, g.held, number(e.waits(t)), id)
		gauge(out, g.keys, float64(b.queued), id)
		gauge(out, g.lag, age(now, b.changed[resource.Tenant]), id, "down")
		gauge(out, g.lag, age(now, b.changed[resource.Super]), id, "up")
		out <- prometheus.MustNewConstMetric(g.paced, prometheus.CounterValue, e.throttled(t).Seconds(), id)
		ofTenant, ofSuper := e.objects(t)
		gauge(out, g.objectsOf, float64(ofTenant), id, resource.Tenant.String())
		gauge(out, g.objectsOf, float64(ofSuper), id, resource.Super.String())
	}
}

// objects counts what the caches of both sides hold of a tenant.
func (e *Engine) objects(t *tenants.Tenant) (ofTenant, ofSuper int) {
	for name, w := range e.kinds() {
		if c := t.Cache(name); c != nil {
			ofTenant += c.Len()
		}
		ofSuper += w.cache.Count(indexTenant, string(t.Facts.ID))
	}
	return ofTenant, ofSuper
}
