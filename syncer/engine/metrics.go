package engine

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/tenants"
)

// metrics of the syncer. No label is chosen by a tenant.
type metrics struct {
	ops      *prometheus.CounterVec
	rejected *prometheus.CounterVec
	retries  *prometheus.CounterVec
	drift    *prometheus.CounterVec
	panics   *prometheus.CounterVec
	waited   prometheus.Histogram
	paced    *prometheus.CounterVec
	queue    *prometheus.HistogramVec
	decision *prometheus.HistogramVec
	op       *prometheus.HistogramVec
	sync     *prometheus.HistogramVec
	now      func() time.Time
}

// The buckets of the histograms, in seconds: decisions only compute, the rest waits for workers and servers.
func fastBuckets() []float64 { return prometheus.ExponentialBuckets(10e-6, 4, 9) }   // 10 µs to 0.7 s
func slowBuckets() []float64 { return prometheus.ExponentialBuckets(1e-3, 2.5, 13) } // 1 ms to 60 s

func newMetrics(r prometheus.Registerer, e *Engine) (*metrics, error) {
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	}
	m := &metrics{
		now: e.now,
		ops: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vc_syncer_ops_total", Help: "Operations carried out, by result (an API status reason).",
		}, []string{"resource", "side", "verb", "result"}),
		rejected: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vc_syncer_rejected_total", Help: "Decisions that a tenant object cannot be synchronised as it is.",
		}, []string{"resource", "reason"}),
		retries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vc_syncer_retries_total", Help: "Keys that are tried again after an error.",
		}, []string{"resource"}),
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
		paced: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vc_syncer_throttled_seconds_total", Help: "Time that workers waited because their tenant was over its budget.",
		}, []string{"cause"}),
		queue: histogram("vc_syncer_queue_duration_seconds",
			"Time from queueing a key until a worker decides about it. Keys that were put off are not counted.", slowBuckets(), "resource"),
		decision: histogram("vc_syncer_decision_duration_seconds", "Time of a decision.", fastBuckets(), "resource"),
		op: histogram("vc_syncer_op_duration_seconds",
			"Time of an operation, with the live reads that it depends on.", slowBuckets(), "resource", "side", "verb"),
		sync: histogram("vc_syncer_sync_duration_seconds",
			"Time from seeing a change on one side until its effect was written to the other.", slowBuckets(), "resource", "direction"),
	}
	collectors := []prometheus.Collector{m.ops, m.rejected, m.retries, m.drift, m.panics, m.waited, m.paced, m.queue, m.decision, m.op, m.sync, newGauges(e)}
	if e.options.PerTenant {
		collectors = append(collectors, newTenantGauges(e))
	}
	for _, state := range tenants.States() {
		collectors = append(collectors, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "vc_syncer_tenants", Help: "Tenants by the state of their connection.",
			ConstLabels: prometheus.Labels{"state": string(state)},
		}, func() float64 { return float64(e.count(func(t *tenants.Tenant) bool { return t.State() == state })) }))
	}
	for _, c := range collectors {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("registering metrics: %w", err)
		}
	}
	return m, nil
}

// taken counts the wait of a key that a worker takes.
func (m *metrics) taken(w *kindState, key resource.Key) {
	if since, ok := w.stamps.taken(key); ok {
		m.queue.WithLabelValues(w.Name).Observe(m.now().Sub(since).Seconds())
	}
}

// decided counts a decision.
func (m *metrics) decided(w *kindState, began time.Time) {
	m.decision.WithLabelValues(w.Name).Observe(m.now().Sub(began).Seconds())
}

// done counts an operation, and what it is the effect of.
func (m *metrics) done(w *kindState, key resource.Key, op resource.Op, began time.Time, err error) {
	side, verb := op.Side.String(), string(op.Verb)
	m.ops.WithLabelValues(w.Name, side, verb, result(err)).Inc()
	m.op.WithLabelValues(w.Name, side, verb).Observe(m.now().Sub(began).Seconds())
	if err != nil {
		return
	}
	cause, direction := resource.Tenant, "down"
	if op.Side == resource.Tenant {
		cause, direction = resource.Super, "up"
	}
	if since, ok := w.stamps.effective(key, cause); ok {
		m.sync.WithLabelValues(w.Name, direction).Observe(m.now().Sub(since).Seconds())
	}
}

// result returns the label for the outcome of an operation. A webhook of a tenant can answer with any reason; only those
// that Kubernetes defines become labels.
func result(err error) string {
	if err == nil {
		return "ok"
	}
	switch reason := apierrors.ReasonForError(err); reason {
	case metav1.StatusReasonUnauthorized, metav1.StatusReasonForbidden, metav1.StatusReasonNotFound, metav1.StatusReasonAlreadyExists,
		metav1.StatusReasonConflict, metav1.StatusReasonGone, metav1.StatusReasonInvalid, metav1.StatusReasonServerTimeout,
		metav1.StatusReasonTimeout, metav1.StatusReasonTooManyRequests, metav1.StatusReasonBadRequest,
		metav1.StatusReasonMethodNotAllowed, metav1.StatusReasonNotAcceptable, metav1.StatusReasonRequestEntityTooLarge,
		metav1.StatusReasonUnsupportedMediaType, metav1.StatusReasonInternalError, metav1.StatusReasonExpired,
		metav1.StatusReasonServiceUnavailable:
		return string(reason)
	default:
		return "error"
	}
}

// count returns how many tenants are as asked.
func (e *Engine) count(is func(*tenants.Tenant) bool) int {
	n := 0
	for _, t := range e.registry.All() {
		if is(t) {
			n++
		}
	}
	return n
}
