package engine

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/virtualcluster-io/virtualcluster/syncer/tenants"
)

// metrics of the syncer. No label is chosen by a tenant.
type metrics struct {
	ops      *prometheus.CounterVec
	rejected *prometheus.CounterVec
	drift    *prometheus.CounterVec
	panics   *prometheus.CounterVec
	waited   prometheus.Histogram
}

func newMetrics(r prometheus.Registerer, e *Engine) (*metrics, error) {
	m := &metrics{
		ops: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vc_syncer_ops_total", Help: "Operations carried out, by result (an API status reason).",
		}, []string{"resource", "side", "verb", "result"}),
		rejected: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vc_syncer_rejected_total", Help: "Decisions that a tenant object cannot be synchronised as it is.",
		}, []string{"resource", "reason"}),
		drift: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vc_syncer_drift_total", Help: "Differences that the patrol found and no event had announced.",
		}, []string{"resource"}),
		panics: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vc_syncer_panics_total", Help: "Faults of the syncer that an object met. The object is set aside, and everything else goes on.",
		}, []string{"resource"}),
		waited: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "vc_syncer_super_call_wait_seconds", Help: "Time that calls to the super cluster waited for their tenant's turn.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 8),
		}),
	}
	collectors := []prometheus.Collector{m.ops, m.rejected, m.drift, m.panics, m.waited, queueDepth{engine: e, desc: prometheus.NewDesc("vc_syncer_queue_depth", "Keys that wait for a worker of their tenant.", []string{"resource"}, nil)}}
	for _, state := range tenants.States() {
		collectors = append(collectors, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "vc_syncer_tenants", Help: "Tenants by the state of their connection.",
			ConstLabels: prometheus.Labels{"state": string(state)},
		}, func() float64 { return float64(e.count(state)) }))
	}
	for _, c := range collectors {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("registering metrics: %w", err)
		}
	}
	return m, nil
}

// queueDepth collects how many keys of each kind are queued, of all tenants.
type queueDepth struct {
	engine *Engine
	desc   *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (q queueDepth) Describe(out chan<- *prometheus.Desc) { out <- q.desc }

// Collect implements prometheus.Collector.
func (q queueDepth) Collect(out chan<- prometheus.Metric) {
	for name := range q.engine.kinds() {
		depth := 0
		q.engine.eachPool(func(p *pool) { depth += p.queue.order.depth(name) })
		out <- prometheus.MustNewConstMetric(q.desc, prometheus.GaugeValue, float64(depth), name)
	}
}

func (e *Engine) count(state tenants.State) int {
	n := 0
	for _, t := range e.registry.All() {
		if t.State() == state {
			n++
		}
	}
	return n
}
