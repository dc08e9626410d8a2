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
	}
	collectors := []prometheus.Collector{m.ops, m.rejected, m.drift, queueDepth{engine: e, desc: prometheus.NewDesc("vc_syncer_queue_depth", "Keys waiting for a worker.", []string{"resource"}, nil)}}
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

// queueDepth collects the length of each kind's queue.
type queueDepth struct {
	engine *Engine
	desc   *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (q queueDepth) Describe(out chan<- *prometheus.Desc) { out <- q.desc }

// Collect implements prometheus.Collector.
func (q queueDepth) Collect(out chan<- prometheus.Metric) {
	for name, w := range q.engine.kinds() {
		out <- prometheus.MustNewConstMetric(q.desc, prometheus.GaugeValue, float64(w.queue.Len()), name)
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
