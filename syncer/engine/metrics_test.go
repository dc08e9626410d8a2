package engine

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/resources"
)

// A webhook of a tenant answers with whatever reason it likes. It is not a label.
func TestNoTenantChoosesAResult(t *testing.T) {
	gr := schema.GroupResource{Resource: "pods"}
	for name, tc := range map[string]struct {
		err  error
		want string
	}{
		"Success":  {nil, "ok"},
		"Network":  {errors.New("connection refused"), "error"},
		"Conflict": {apierrors.NewConflict(gr, "a", errors.New("changed")), "Conflict"},
		"Webhook": {&apierrors.StatusError{ErrStatus: metav1.Status{
			Status: metav1.StatusFailure, Code: http.StatusTeapot, Reason: "chosen-by-a-webhook-1",
		}}, "error"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := result(tc.err); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// measured returns an engine whose clock stands and that has tenant a, and its registry.
func measured(t *testing.T, now *time.Time, perTenant bool) (*Engine, *prometheus.Registry) {
	t.Helper()
	registry := prometheus.NewRegistry()
	e, err := New(t.Context(), Options{
		Kinds: resources.All(resources.Options{}), Super: &rest.Config{Host: "https://127.0.0.1:1"}, Registerer: registry, PerTenant: perTenant,
	})
	if err != nil {
		t.Fatal(err)
	}
	e.now = func() time.Time { return *now }
	e.metrics.now = e.now
	e.pools.Store(names.TenantID("a"), &pool{queue: newQueue()})
	return e, registry
}

// sums returns the counts and sums of the histograms of one metric by its labels.
func sums(t *testing.T, registry *prometheus.Registry, metric string) map[string][2]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][2]float64{}
	for _, family := range families {
		if family.GetName() != metric {
			continue
		}
		for _, m := range family.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			out[strings.Join(labels, " ")] = [2]float64{float64(m.GetHistogram().GetSampleCount()), m.GetHistogram().GetSampleSum()}
		}
	}
	return out
}

// The life of a key is measured by phase: how long it was queued, until its effect was written, and nothing after that.
func TestPhasesOfAKey(t *testing.T) {
	start := time.Now()
	now := start
	at := func(seconds int) { now = start.Add(time.Duration(seconds) * time.Second) }
	e, registry := measured(t, &now, false)
	w, key := e.kinds()["pods"], keyOf("a", "1")

	w.stamps.changed(key, resource.Tenant, now)
	e.enqueue(w, key)
	at(2)
	w.stamps.changed(key, resource.Tenant, now) // it is the first change that waits
	e.enqueue(w, key)
	at(3)
	e.metrics.taken(w, key)
	e.metrics.taken(w, key) // nothing is counted twice
	at(4)
	e.metrics.done(w, key, resource.Op{Side: resource.Super, Verb: resource.Create}, start.Add(3*time.Second), errors.New("no answer"))
	at(10)
	e.metrics.done(w, key, resource.Op{Side: resource.Super, Verb: resource.Create}, start.Add(9*time.Second), nil)
	e.metrics.done(w, key, resource.Op{Side: resource.Super, Verb: resource.Create}, start.Add(10*time.Second), nil)
	w.stamps.changed(key, resource.Super, now)
	e.finish(t.Context(), e.pool("a"), w, key, nil) // it was the echo of that write
	at(20)
	w.stamps.changed(key, resource.Super, now)
	at(21)
	e.metrics.done(w, key, resource.Op{Side: resource.Tenant, Verb: resource.PatchStatus}, start.Add(20*time.Second), nil)

	for metric, want := range map[string]map[string][2]float64{
		"vc_syncer_queue_duration_seconds": {"pods": {1, 3}},
		"vc_syncer_op_duration_seconds":    {"pods super Create": {3, 2}, "pods tenant PatchStatus": {1, 1}},
		"vc_syncer_sync_duration_seconds":  {"down pods": {1, 10}, "up pods": {1, 1}},
	} {
		if diff := cmp.Diff(want, sums(t, registry, metric)); diff != "" {
			t.Errorf("%s: -want +got\n%s", metric, diff)
		}
	}
	if len(w.stamps.keys) != 0 {
		t.Errorf("stamps are left: %v", w.stamps.keys)
	}
}

// A rejected key and one that waits for its tenant are no lag of the syncer; one that failed is.
func TestWhatCountsAsLag(t *testing.T) {
	now := time.Now()
	e, _ := measured(t, &now, false)
	w := e.kinds()["pods"]
	for name, tc := range map[string]struct {
		err  error
		want bool
	}{
		"Converged":         {nil, false},
		"Rejected":          {resource.Rejected("Reason", "why"), false},
		"WaitsForTheTenant": {resource.Blocked(time.Second, "Reason", "a Secret"), false},
		"Waits":             {resource.Waiting(time.Second, "a namespace"), true},
		"Failed":            {errors.New("no answer"), true},
	} {
		t.Run(name, func(t *testing.T) {
			key := keyOf("a", name)
			w.stamps.changed(key, resource.Tenant, now)
			e.finish(t.Context(), e.pool("a"), w, key, tc.err)
			if _, got := w.stamps.effective(key, resource.Tenant); got != tc.want {
				t.Errorf("its change waits: %v, want %v", got, tc.want)
			}
		})
	}
	if got := testutil.ToFloat64(e.metrics.retries.WithLabelValues("pods")); got != 1 {
		t.Errorf("%v retries, want 1", got)
	}
}

func TestBacklogOfTenants(t *testing.T) {
	start := time.Now()
	var s stamps
	s.queued(keyOf("a", "1"), start)
	s.queued(keyOf("a", "2"), start.Add(time.Second))
	s.changed(keyOf("a", "2"), resource.Super, start.Add(time.Second))
	s.queued(keyOf("b", "1"), start.Add(2*time.Second))
	sums := map[names.TenantID]*unfinished{}
	s.byTenant(sums)
	want := map[names.TenantID]unfinished{
		"a": {queued: 2, oldest: start, changed: [2]time.Time{resource.Super: start.Add(time.Second)}},
		"b": {queued: 1, oldest: start.Add(2 * time.Second)},
	}
	for id, b := range want {
		if *sums[id] != b {
			t.Errorf("tenant %s: got %+v, want %+v", id, *sums[id], b)
		}
	}
	if total := s.total(); total.queued != 3 || !total.oldest.Equal(start) {
		t.Errorf("in total: %+v", total)
	}
}

// Metrics of each tenant are only for those who ask: there are as many series as tenants.
func TestMetricsPerTenantAreOnRequest(t *testing.T) {
	now := time.Now()
	for _, perTenant := range []bool{false, true} {
		_, registry := measured(t, &now, perTenant)
		descriptions := make(chan *prometheus.Desc)
		go func() {
			defer close(descriptions)
			registry.Describe(descriptions)
		}()
		got := false
		for d := range descriptions {
			got = got || strings.Contains(d.String(), "vc_syncer_tenant_")
		}
		if got != perTenant {
			t.Errorf("with PerTenant=%v there are some: %v", perTenant, got)
		}
	}
}
