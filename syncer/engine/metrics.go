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
	collectors := []prometheus.Collector{m.ops, m.rejected, m.drift}
	for _, state := range []tenants.State{tenants.Connecting, tenants.Synced, tenants.Lost, tenants.Foreign} {
		collectors = append(collectors, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "vc_syncer_tenants", Help: "Tenants by the state of their connection.",
			ConstLabels: prometheus.Labels{"state": string(state)},
		}, func() float64 { return float64(e.count(state)) }))
	}
	for name, w := range e.kinds {
		collectors = append(collectors, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "vc_syncer_queue_depth", Help: "Keys waiting for a worker.",
			ConstLabels: prometheus.Labels{"resource": name},
		}, func() float64 { return float64(w.queue.Len()) }))
	}
	for _, c := range collectors {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("registering metrics: %w", err)
		}
	}
	return m, nil
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
