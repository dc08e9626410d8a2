package virtualcluster

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
)

// countTimeout bounds a scrape. The count is read from a cache.
const countTimeout = 5 * time.Second

// conditionKey is what conditions are counted by. Only vc-manager and vc-syncer write conditions, with reasons of their own.
type conditionKey struct {
	kind   string
	status metav1.ConditionStatus
	reason string
}

// Metrics are what the reconciler counts.
type Metrics struct {
	readySeconds prometheus.Histogram
	phases       *prometheus.Desc
	conditions   *prometheus.Desc
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
		conditions: prometheus.NewDesc("vc_manager_virtualcluster_conditions", "Number of VirtualClusters by type, status and reason of their conditions.",
			[]string{"type", "status", "reason"}, nil),
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
func (m *Metrics) Describe(descriptions chan<- *prometheus.Desc) {
	descriptions <- m.phases
	descriptions <- m.conditions
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(metrics chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), countTimeout)
	defer cancel()
	var list tenancyv1alpha1.VirtualClusterList
	if err := m.reader.List(ctx, &list); err != nil {
		metrics <- prometheus.NewInvalidMetric(m.phases, err)
		return
	}
	counts, conditions := map[tenancyv1alpha1.VirtualClusterPhase]int{}, map[conditionKey]int{}
	for i := range list.Items {
		counts[cmp.Or(list.Items[i].Status.Phase, tenancyv1alpha1.PhasePending)]++
		for _, c := range list.Items[i].Status.Conditions {
			conditions[conditionKey{c.Type, c.Status, c.Reason}]++
		}
	}
	for c, count := range conditions {
		metrics <- prometheus.MustNewConstMetric(m.conditions, prometheus.GaugeValue, float64(count), c.kind, string(c.status), c.reason)
	}
	for phase, count := range counts {
		metrics <- prometheus.MustNewConstMetric(m.phases, prometheus.GaugeValue, float64(count), string(phase))
	}
}

// ready counts a VirtualCluster that became ready for the first time.
func (m *Metrics) ready(after time.Duration) { m.readySeconds.Observe(after.Seconds()) }
