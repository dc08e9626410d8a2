package vnagent

import (
	"fmt"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of vn-agent. No label value can be chosen by a tenant.
type metrics struct {
	calls *prometheus.CounterVec
	open  *prometheus.GaugeVec
}

func newMetrics(registerer prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vc_vnagent_calls_total",
			Help: "Calls of the kubelet API by verb and HTTP status. The verb is empty when the call was none of those offered.",
		}, []string{"verb", "code"}),
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "vc_vnagent_open_calls",
			Help: "Calls of the kubelet API being answered.",
		}, []string{"verb"}),
	}
	for _, collector := range []prometheus.Collector{m.calls, m.open} {
		if err := registerer.Register(collector); err != nil {
			return nil, fmt.Errorf("registering metrics: %w", err)
		}
	}
	return m, nil
}

// begin counts a call as open until the returned function is called.
func (m *metrics) begin(verb Verb) func() {
	gauge := m.open.WithLabelValues(string(verb))
	gauge.Inc()
	return gauge.Dec
}

func (m *metrics) done(verb Verb, status int) {
	m.calls.WithLabelValues(string(verb), strconv.Itoa(status)).Inc()
}
