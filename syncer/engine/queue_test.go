package engine

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

func keyOf(tenant, name string) resource.Key {
	return resource.Key{Tenant: names.TenantID(tenant), Namespace: "n", Name: name}
}

func TestFairTakesTenantsInTurn(t *testing.T) {
	f := newFair()
	for _, name := range []string{"1", "2", "3", "4"} {
		f.Push(keyOf("greedy", name))
	}
	f.Push(keyOf("modest", "1"))
	f.Push(keyOf("modest", "2"))
	var got []string
	for f.Len() > 0 {
		k := f.Pop()
		got = append(got, string(k.Tenant)+k.Name)
	}
	want := []string{"greedy1", "modest1", "greedy2", "modest2", "greedy3", "greedy4"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if len(f.waiting) != 0 || len(f.turns) != 0 {
		t.Errorf("an empty queue still holds %v, %v", f.waiting, f.turns)
	}
}

func TestQueueKeepsAKeyThatChangesWhileItIsWorkedOn(t *testing.T) {
	q := newQueue("test")
	defer q.ShutDown()
	k := keyOf("a", "1")
	q.Add(k)
	got, _ := q.Get()
	q.Add(k)
	if q.Len() != 0 {
		t.Errorf("a key is handed out twice at a time")
	}
	q.Done(got)
	if again, _ := q.Get(); again != k {
		t.Errorf("got %v, want %v once more", again, k)
	}
}

func TestShareParksWhatIsOverTheBound(t *testing.T) {
	s := newShare(4)
	if !s.enter(keyOf("a", "1")) || !s.enter(keyOf("a", "2")) {
		t.Fatal("half of the workers are for everybody")
	}
	if s.enter(keyOf("a", "3")) {
		t.Fatal("a tenant took more than half of the workers")
	}
	if !s.enter(keyOf("b", "1")) {
		t.Fatal("one tenant's bound is another's")
	}
	if parked, ok := s.leave("a"); !ok || parked != keyOf("a", "3") {
		t.Errorf("got %v, %v; want the parked key back", parked, ok)
	}
	if !s.enter(keyOf("a", "3")) {
		t.Error("the place that was given back is not free")
	}
	for _, tenant := range []names.TenantID{"a", "a", "b"} {
		if parked, ok := s.leave(tenant); ok {
			t.Errorf("%v was parked twice", parked)
		}
	}
	if len(s.busy) != 0 || len(s.parked) != 0 {
		t.Errorf("an idle share still holds %v, %v", s.busy, s.parked)
	}
}
