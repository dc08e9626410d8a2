package engine

import (
	"slices"
	"testing"
	"time"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// What lasts counts from when it began, for as long as it is the same.
func TestWhatLasts(t *testing.T) {
	r, at := &retries{}, time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	web, other := itemOf("pods", "web"), itemOf("pods", "other")
	claim, account := resource.Waiting(time.Second, "a claim"), resource.Waiting(time.Second, "an account")
	for _, step := range []struct {
		of    item
		what  error
		after time.Duration
		want  time.Duration
	}{
		{web, claim, 0, 0},
		{web, claim, 4 * time.Second, 4 * time.Second},
		{other, claim, 0, 0},
		{web, claim, 6 * time.Second, 10 * time.Second},
		{web, account, time.Second, 0},
		{web, claim, time.Second, 0},
	} {
		at = at.Add(step.after)
		if got := r.lasting(step.of, step.what, at); got != step.want {
			t.Errorf("%s has waited for %v for %s, want %s", step.of.key.Name, step.what, got, step.want)
		}
	}
	if r.failed(web); r.lasting(web, claim, at.Add(time.Minute)) != time.Minute {
		t.Error("a failure between makes it begin anew")
	}
	r.done(web)
	if got := r.lasting(web, claim, at.Add(time.Hour)); got != 0 {
		t.Errorf("after it was served: it has lasted %s", got)
	}
}

// What nothing changes about costs little, and what is new is looked at soon.
func TestBackoff(t *testing.T) {
	for name, tc := range map[string]struct {
		first, last time.Duration
		during      time.Duration
		most        int
	}{
		"Waits":    {first: 2 * time.Second, last: lastWait, during: time.Hour, most: 70},
		"Rejected": {first: firstRejected, last: lastRejected, during: 24 * time.Hour, most: 160},
		"Rare":     {first: 5 * time.Minute, last: lastWait, during: time.Hour, most: 12},
	} {
		t.Run(name, func(t *testing.T) {
			looked := 0
			for lasted := time.Duration(0); lasted < tc.during; looked++ {
				after := backoff(lasted, tc.first, tc.last)
				if lasted == 0 && after != tc.first {
					t.Errorf("it is looked at again after %s, want %s", after, tc.first)
				}
				lasted += after
			}
			if looked > tc.most {
				t.Errorf("it is looked at %d times in %s, want at most %d", looked, tc.during, tc.most)
			}
		})
	}
}

func TestFailuresAreRetried(t *testing.T) {
	r, i := &retries{}, itemOf("pods", "web")
	var waited time.Duration
	for range 20 {
		delay, _ := r.failed(i)
		waited += delay
	}
	if delay, failures := r.failed(i); delay != lastRetry || failures != 21 {
		t.Errorf("failure %d is retried after %s, want %s", failures, delay, lastRetry)
	}
	r.lasting(itemOf("pods", "refused"), &opError{resource.Rejected("Refused", "rights that are not known yet")}, time.Now())
	r.lasting(itemOf("pods", "waits"), resource.Waiting(time.Second, "a claim"), time.Now())
	if again := r.fresh(); len(again) != 2 || slices.Contains(again, itemOf("pods", "waits")) {
		t.Errorf("got %v, want what failed and what was refused", again)
	}
	if delay, _ := r.failed(i); delay > time.Second {
		t.Errorf("after an outage it is retried after %s", delay)
	}
}

// The patrol looks for what no event announced, not for what the super cluster refused.
func TestTried(t *testing.T) {
	r, now := &retries{}, time.Now()
	refused, decided := itemOf("pods", "refused"), itemOf("pods", "decided")
	r.lasting(refused, &opError{resource.Rejected("Refused", "a quota")}, now)
	r.lasting(decided, resource.Rejected("Unsupported", "a field"), now)
	if !r.tried(refused) || r.tried(decided) {
		t.Errorf("refused: %v, decided: %v", r.tried(refused), r.tried(decided))
	}
}
