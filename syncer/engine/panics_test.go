package engine

import (
	"errors"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/lru"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

func TestSafely(t *testing.T) {
	if err := safely(func() error { return errStale }); !errors.Is(err, errStale) {
		t.Errorf("got %v", err)
	}
	err := safely(func() error { panic("boom") })
	if p, ok := asPanicked(err); !ok || p.value != "boom" || len(p.stack) == 0 {
		t.Errorf("got %v", err)
	}
}

// Every function of a kind that an object of a tenant can break is contained.
func TestGuardedKindsDoNotPanic(t *testing.T) {
	e := &Engine{broken: lru.New(maxRemembered)}
	var err error
	if e.metrics, err = newMetrics(prometheus.NewRegistry(), e); err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "uid", ResourceVersion: "7"}}
	boom := func() { panic("boom") }
	k := e.guarded(resource.Kind{
		Name:       "pods",
		Trim:       func(resource.Object) { boom() },
		References: func(resource.Object) []resource.Ref { boom(); return nil },
		Touches:    func(resource.Object) []resource.Ref { boom(); return nil },
		Route:      func(resource.Object) (resource.Ref, bool) { boom(); return resource.Ref{}, false },
		Home:       func(resource.Object) string { boom(); return "" },
		Odd:        func(resource.Object) bool { boom(); return false },
		Loads:      func(resource.Object) (string, corev1.ResourceList) { boom(); return "", nil },
		Stirs:      func(_, _ resource.Object) bool { boom(); return false },
		Served:     func(resource.View) error { boom(); return nil },
		Decide: func(resource.View, resource.Key, resource.Object, resource.Object) ([]resource.Op, error) {
			boom()
			return nil, nil
		},
	})
	k.Trim(pod)
	k.References(pod)
	k.Touches(pod)
	k.Route(pod)
	k.Home(pod)
	k.Odd(pod)
	k.Loads(pod)
	k.Stirs(pod, nil)
	if _, ok := asPanicked(k.Served(resource.View{})); !ok {
		t.Error("a kind of which we do not know counts as served")
	}
	if _, err := k.Decide(resource.View{}, resource.Key{}, pod, nil); err == nil {
		t.Error("a decision that broke counts as made")
	}
	if got := testutil.ToFloat64(e.metrics.panics.WithLabelValues("pods")); got != 9 {
		t.Errorf("%v panics are counted, want 9: who decides counts its own", got)
	}
	if e.brokenBefore(nil, pod) == nil {
		t.Error("who decides does not learn of it")
	}
	fixed := pod.DeepCopy()
	fixed.ResourceVersion = "8"
	if err := e.brokenBefore(fixed, nil); err != nil {
		t.Errorf("another version counts as broken: %v", err)
	}
}
