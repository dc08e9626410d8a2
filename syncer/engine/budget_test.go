package engine

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

func TestWritesOfATenantArePaced(t *testing.T) {
	at := time.Unix(1_000_000, 0)
	for name, tc := range map[string]struct {
		budget resource.Budget
		writes []time.Duration // when
		want   []time.Duration // how long each waits
	}{
		"BurstThenRate": {
			budget: resource.Budget{Writes: 10, WriteBurst: 2},
			writes: []time.Duration{0, 0, 0, 0},
			want:   []time.Duration{0, 0, 100 * time.Millisecond, 200 * time.Millisecond},
		},
		"Rests": {
			budget: resource.Budget{Writes: 10, WriteBurst: 1},
			writes: []time.Duration{0, time.Second, time.Second},
			want:   []time.Duration{0, 0, 100 * time.Millisecond},
		},
		"Unbounded": {writes: []time.Duration{0, 0, 0}, want: []time.Duration{0, 0, 0}},
		"NoBurst": {
			budget: resource.Budget{Writes: 1},
			writes: []time.Duration{0, 0},
			want:   []time.Duration{0, time.Second},
		},
	} {
		t.Run(name, func(t *testing.T) {
			a, got := &account{}, []time.Duration{}
			for _, after := range tc.writes {
				got = append(got, a.delay(&tc.budget, writes, at.Add(after)).Round(time.Millisecond))
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestABudgetChangesAtOnce(t *testing.T) {
	at, a := time.Unix(1_000_000, 0), &account{}
	slow, fast := &resource.Budget{Writes: 1, WriteBurst: 1}, &resource.Budget{Writes: 100, WriteBurst: 1}
	a.delay(slow, writes, at)
	if d := a.delay(slow, writes, at); d != time.Second {
		t.Errorf("a write waits %s, want 1s", d)
	}
	if d := a.delay(fast, writes, at); d > 50*time.Millisecond {
		t.Errorf("a write waits %s after the budget was raised", d)
	}
}

func TestDecisionsPayWithTheirTime(t *testing.T) {
	at, a := time.Unix(1_000_000, 0), &account{}
	b := &resource.Budget{Decision: 0.5}
	for range 10 { // a burst of ten seconds at half a core
		if d := a.delay(b, decisions, at); d != 0 {
			t.Fatalf("a decision within the budget waits %s", d)
		}
		a.spent(b, 500*time.Millisecond, at)
	}
	a.spent(b, time.Second, at)
	if d := a.delay(b, decisions, at).Round(time.Millisecond); d != 2*time.Second {
		t.Errorf("after a second too much, a decision waits %s, want 2s", d)
	}
	if d := a.delay(b, decisions, at.Add(2*time.Second)).Round(time.Millisecond); d != 0 {
		t.Errorf("after the wait, a decision waits %s", d)
	}
	if d := a.delay(b, writes, at); d != 0 {
		t.Errorf("a write waits %s for decisions", d)
	}
}

// Two tenants that always have calls waiting share them by weight.
func TestGreedyTenantsShareByWeight(t *testing.T) {
	turns := newTurns(1, prometheus.NewHistogram(prometheus.HistogramOpts{}))
	weights := map[names.TenantID]int{"heavy": 3, "light": 1}
	type call struct {
		of     names.TenantID
		ticket chan struct{}
	}
	var calls []call
	for of, weight := range weights {
		for range 8 {
			calls = append(calls, call{of, turns.ask(of, weight)})
		}
	}
	served := map[names.TenantID]int{}
	const all = 4000
	for range all {
		for i, c := range calls {
			select {
			case <-c.ticket: // it has the only place, and its tenant has the next call
				served[c.of]++
				calls[i].ticket = turns.ask(c.of, weights[c.of])
				turns.give()
			default:
			}
		}
	}
	if heavy, light := served["heavy"], served["light"]; light == 0 || float64(heavy)/float64(light) < 2.9 || float64(heavy)/float64(light) > 3.1 {
		t.Errorf("the tenant of weight 3 made %d calls, that of weight 1 %d", heavy, light)
	}
}

func TestWhatLastsIsTold(t *testing.T) {
	const yes, no = true, false
	for name, tc := range map[string]struct{ is, want []bool }{
		"Comes and goes": {[]bool{yes, no, yes, no}, []bool{no, no, no, no}},
		"Lasts":          {[]bool{yes, yes, yes}, []bool{no, yes, yes}},
		"Ends":           {[]bool{yes, yes, no, no, no, no}, []bool{no, yes, yes, yes, no, no}},
		"Pauses":         {[]bool{yes, yes, no, no, yes, no, no, no}, []bool{no, yes, yes, yes, yes, yes, yes, no}},
	} {
		t.Run(name, func(t *testing.T) {
			s, got := streak{}, []bool{}
			for _, is := range tc.is {
				got = append(got, s.look(is, 2, 3))
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestATenantOverItsBudgetIsTold(t *testing.T) {
	a := &account{}
	b := &resource.Budget{Writes: 5, Each: resource.KindBudget{Replicated: 3}}
	key := resource.Key{Tenant: "t", Name: "x"}
	a.refuse("configmaps", key)
	a.waited[writes] = 5 * time.Second
	if changed, again := a.look(b, 5*time.Second); !changed || a.told.Reason != ObjectsExhausted || len(again) != 1 {
		t.Errorf("told %+v, looks again at %v", a.told, again)
	}
	a.waited[writes] = 5 * time.Second
	a.settled("configmaps", key)
	if changed, _ := a.look(b, 5*time.Second); !changed || a.told.Reason != ObjectsExhausted {
		t.Errorf("told %+v", a.told)
	}
	for range endsAfter - 1 {
		a.waited[writes] = 5 * time.Second
		a.look(b, 5*time.Second)
	}
	if a.told.Reason != Throttled || len(a.refused) != 0 {
		t.Errorf("told %+v, remembers %v", a.told, a.refused)
	}
	for range endsAfter {
		a.look(b, 5*time.Second)
	}
	if a.told != (OverBudget{}) {
		t.Errorf("told %+v", a.told)
	}
}

func TestRoomIsGivenInOrder(t *testing.T) {
	a := &account{}
	key := func(i int) resource.Key { return resource.Key{Tenant: "t", Name: fmt.Sprint(i)} }
	for i := range 3 {
		a.refuse("pods", key(i))
		a.refuse("pods", key(i))
	}
	a.settled("pods", key(0))
	var got []string
	for {
		next, ok := a.next("pods")
		if !ok {
			break
		}
		got = append(got, next.Name)
	}
	if diff := cmp.Diff([]string{"1", "2"}, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	for i := range 10_000 { // who makes and deletes objects without end is not remembered
		a.refuse("pods", key(i))
		a.settled("pods", key(i))
	}
	if n := len(a.refused["pods"].line); n > 100 {
		t.Errorf("%d keys are remembered", n)
	}
}

func TestReplicasAreCounted(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	op := func(name string) resource.Op {
		return resource.Op{Object: &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}}
	}
	c := &tally{}
	reserve := func(name string, want bool) {
		t.Helper()
		if got := c.reserve("t", op(name), 2, now); got != want {
			t.Errorf("room for %s: %t, want %t", name, got, want)
		}
	}
	reserve("a", true)
	reserve("b", true)
	reserve("c", false)
	reserve("a", true) // once more, after an error
	c.release("t", op("a"))
	reserve("c", true)
	c.shows("", "t", types.NamespacedName{Name: "c"})
	reserve("d", false)
	if !c.reserve("other", op("d"), 2, now) {
		t.Error("another tenant has no room")
	}
	c.shows("t", "", types.NamespacedName{Name: "c"})
	reserve("d", true)
	now = now.Add(2 * awaitShown) // neither was ever shown
	reserve("e", true)
	c.release("t", op("e"))
	c.release("other", op("d"))
	if len(c.of) != 0 {
		t.Errorf("remembers %v", c.of)
	}
}
