package engine

import (
	"testing"
	"time"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// A wait counts from when it began, for as long as it is for the same.
func TestWaitsThatLast(t *testing.T) {
	b, at := &blocked{}, time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	web, other := witness{"pods", resource.Key{Name: "web"}}, witness{"pods", resource.Key{Name: "other"}}
	for _, step := range []struct {
		who   witness
		what  string
		after time.Duration
		want  time.Duration
	}{
		{web, "a claim", 0, patience},
		{web, "a claim", 4 * time.Second, patience - 4*time.Second},
		{other, "a claim", 0, patience},
		{web, "a claim", 6 * time.Second, 0},
		{web, "an account", time.Second, patience},
		{web, "a claim", time.Second, patience},
	} {
		at = at.Add(step.after)
		if got := b.left(step.who, step.what, at); got != step.want {
			t.Errorf("%s for %s: %s are left, want %s", step.who.key.Name, step.what, got, step.want)
		}
	}
	b.forget(web)
	if got := b.left(web, "a claim", at.Add(time.Hour)); got != patience {
		t.Errorf("after it was served: %s are left", got)
	}
}
