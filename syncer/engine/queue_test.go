package engine

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

func keyOf(tenant, name string) resource.Key {
	return resource.Key{Tenant: names.TenantID(tenant), Namespace: "n", Name: name}
}

func itemOf(kind, name string) item { return item{kind, keyOf("a", name)} }

// drain takes everything that is queued.
func drain(q *queue) []string {
	var got []string
	for q.Len() > 0 {
		i, _ := q.Get()
		got = append(got, i.kind+i.key.Name)
		q.Done(i)
	}
	return got
}

func TestQueueOrder(t *testing.T) {
	type added struct {
		kind, name string
		priority   priority
	}
	for name, tc := range map[string]struct {
		reason string
		add    []added
		want   []string
	}{
		"KindsInTurn": {
			reason: "a storm of one kind does not delay the others",
			add: []added{
				{"configmaps", "1", live}, {"configmaps", "2", live}, {"configmaps", "3", live}, {"pods", "1", live}, {"pods", "2", live},
			},
			want: []string{"configmaps1", "pods1", "configmaps2", "pods2", "configmaps3"},
		},
		"LiveFirst": {
			reason: "what happens comes before the backlog of a start",
			add:    []added{{"pods", "1", backlog}, {"pods", "2", backlog}, {"pods", "3", live}},
			want:   []string{"pods3", "pods1", "pods2"},
		},
		"Promoted": {
			reason: "what is in the backlog and happens comes first, once",
			add:    []added{{"pods", "1", backlog}, {"pods", "2", backlog}, {"services", "1", backlog}, {"pods", "2", live}},
			want:   []string{"pods2", "pods1", "services1"},
		},
		"NotDemoted": {
			reason: "a patrol does not put off what happened",
			add:    []added{{"pods", "1", backlog}, {"pods", "2", live}, {"pods", "2", backlog}},
			want:   []string{"pods2", "pods1"},
		},
		"BacklogMovesOn": {
			reason: "a tenant in which something always happens is served completely",
			add: []added{
				{"pods", "old", backlog},
				{"pods", "1", live}, {"pods", "2", live}, {"pods", "3", live}, {"pods", "4", live},
				{"pods", "5", live}, {"pods", "6", live}, {"pods", "7", live}, {"pods", "8", live},
			},
			want: []string{"pods1", "pods2", "pods3", "pods4", "pods5", "pods6", "pods7", "podsold", "pods8"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			q := newQueue()
			defer q.ShutDown()
			for _, a := range tc.add {
				q.add(itemOf(a.kind, a.name), a.priority)
			}
			if got := q.order.depth("pods") + q.order.depth("services") + q.order.depth("configmaps"); got != len(tc.want) {
				t.Errorf("%d items are counted, want %d", got, len(tc.want))
			}
			if diff := cmp.Diff(tc.want, drain(q)); diff != "" {
				t.Errorf("%s: -want +got\n%s", tc.reason, diff)
			}
			q.order.next(backlog) // what was promoted is passed over
			if o := q.order; len(o.queued)+len(o.hurried)+len(o.counts)+len(o.lines[live].waiting)+len(o.lines[backlog].waiting) != 0 {
				t.Errorf("an empty queue still holds %+v", o)
			}
		})
	}
}

func TestQueueKeepsAnItemThatChangesWhileItIsWorkedOn(t *testing.T) {
	q := newQueue()
	defer q.ShutDown()
	changed := itemOf("pods", "1")
	q.add(changed, backlog)
	got, _ := q.Get()
	q.add(itemOf("pods", "2"), backlog)
	q.add(changed, live)
	if q.Len() != 1 {
		t.Errorf("an item is handed out twice at a time")
	}
	q.Done(got)
	if again, _ := q.Get(); again != changed {
		t.Errorf("got %v, want %v once more, before the backlog", again, changed)
	}
}

func TestTurns(t *testing.T) {
	for name, tc := range map[string]struct {
		reason string
		asked  []names.TenantID
		weight map[names.TenantID]int
		want   []names.TenantID
	}{
		"InTurn": {
			reason: "who asks for much waits for its turn",
			asked:  []names.TenantID{"greedy", "greedy", "greedy", "greedy", "modest", "other", "modest"},
			want:   []names.TenantID{"greedy", "modest", "other", "greedy", "modest", "greedy", "greedy"},
		},
		"Weighted": {
			reason: "who has the double weight gets two at a time",
			asked:  []names.TenantID{"heavy", "heavy", "heavy", "heavy", "light", "light"},
			weight: map[names.TenantID]int{"heavy": 2},
			want:   []names.TenantID{"heavy", "heavy", "light", "heavy", "heavy", "light"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			turns := newTurns(1, prometheus.NewHistogram(prometheus.HistogramOpts{}))
			if err := turns.take(t.Context(), "first", 1); err != nil {
				t.Fatal(err)
			}
			var tickets []chan struct{}
			for _, tenant := range tc.asked {
				tickets = append(tickets, turns.ask(tenant, max(tc.weight[tenant], 1)))
			}
			served := map[int]bool{}
			var got []names.TenantID
			for range tc.asked {
				turns.give()
				for i, ticket := range tickets {
					select {
					case <-ticket:
						if !served[i] {
							served[i] = true
							got = append(got, tc.asked[i])
						}
					default:
					}
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s: -want +got\n%s", tc.reason, diff)
			}
			turns.give()
			if turns.free != 1 || len(turns.waiting)+len(turns.order) != 0 {
				t.Errorf("nobody waits, but there are %+v", turns)
			}
		})
	}
}

func TestTurnsOfThoseWhoGiveUp(t *testing.T) {
	turns := newTurns(1, prometheus.NewHistogram(prometheus.HistogramOpts{}))
	if err := turns.take(t.Context(), "a", 1); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() { failed <- turns.take(ctx, "b", 1) }() // ends with the context
	for waits := false; !waits; {
		turns.mu.Lock()
		waits = turns.waiting["b"] != nil
		turns.mu.Unlock()
	}
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	turns.give()
	if err := turns.take(t.Context(), "c", 1); err != nil {
		t.Errorf("the place is lost: %v", err)
	}
	ticket := turns.ask("d", 1)
	turns.give()
	if turns.withdraw("d", ticket) {
		t.Error("a place that was handed out can be withdrawn")
	}
}
