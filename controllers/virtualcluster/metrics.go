package virtualcluster

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/client"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
)

// countTimeout bounds a scrape. The count is read from a cache.
const countTimeout = 5 * time.Second

// Metrics are what the reconciler counts.
type Metrics struct {
	readySeconds prometheus.Histogram
	phases       *prometheus.Desc
	reader       client.Reader
}

// NewMetrics registers the metrics. The number of VirtualClusters is read from the reader at each scrape.
func NewMetrics(registerer prometheus.Registerer, reader client.Reader) (*Metrics, error) {
	m := &Metrics{
		readySeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "vc_manager_virtualcluster_ready_seconds",
			Help:    "Time from the creation of a VirtualCluster until it was ready for the first time.",
			Buckets: []float64{1, 2, 4, 6, 8, 10, 12, 15, 20, 30, 45, 60, 120, 300, 600},
		}),
		phases: prometheus.NewDesc("vc_manager_virtualclusters", "Number of VirtualClusters by phase.", []string{"phase"}, nil),
		reader: reader,
	}
	for _, collector := range []prometheus.Collector{m.readySeconds, m} {
		if err := registerer.Register(collector); err != nil {
			return nil, fmt.Errorf("registering metrics: %w", err)
		}
	}
	return m, nil
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(descriptions chan<- *prometheus.Desc) { descriptions <- m.phases }

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(metrics chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), countTimeout)
	defer cancel()
	var list tenancyv1alpha1.VirtualClusterList
	if err := m.reader.List(ctx, &list); err != nil {
		metrics <- prometheus.NewInvalidMetric(m.phases, err)
		return
	}
	counts := map[tenancyv1alpha1.VirtualClusterPhase]int{}
	for i := range list.Items {
		counts[cmp.Or(list.Items[i].Status.Phase, tenancyv1alpha1.PhasePending)]++
	}
	for phase, count := range counts {
		metrics <- prometheus.MustNewConstMetric(m.phases, prometheus.GaugeValue, float64(count), string(phase))
	}
}

// ready counts a VirtualCluster that became ready for the first time.
func (m *Metrics) ready(after time.Duration) { m.readySeconds.Observe(after.Seconds()) }
