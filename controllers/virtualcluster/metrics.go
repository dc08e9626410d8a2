package virtualcluster

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are what the reconciler counts.
type Metrics struct {
	readySeconds prometheus.Histogram
}

// NewMetrics registers the metrics.
func NewMetrics(registerer prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{readySeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "vc_manager_virtualcluster_ready_seconds",
		Help:    "Time from the creation of a VirtualCluster until it was ready for the first time.",
		Buckets: []float64{1, 2, 4, 6, 8, 10, 12, 15, 20, 30, 45, 60, 120, 300, 600},
	})}
	if err := registerer.Register(m.readySeconds); err != nil {
		return nil, fmt.Errorf("registering metrics: %w", err)
	}
	return m, nil
}

func (m *Metrics) ready(after time.Duration) { m.readySeconds.Observe(after.Seconds()) }
