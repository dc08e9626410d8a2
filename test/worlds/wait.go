package worlds

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
)

// Eventually calls check until it returns nil, and fails the test at the deadline with the last error, which therefore
// says what the state was: fmt.Errorf("phase is %s", pod.Status.Phase). The context given to check ends at the
// deadline, so a call to a server that hangs cannot outlive it.
func Eventually(t testing.TB, timeout time.Duration, what string, check func(context.Context) error) {
	t.Helper()
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	if err := poll(ctx, check, 20*time.Millisecond); err != nil {
		t.Fatalf("waited %s for %s: %v", time.Since(start).Round(time.Millisecond), what, err)
	}
}

// Throughout calls check again and again for the given time and fails the test when it returns an error: for what must
// not happen.
func Throughout(t testing.TB, duration time.Duration, what string, check func(context.Context) error) {
	t.Helper()
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), duration)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			t.Fatalf("%s did not hold after %s: %v", what, time.Since(start).Round(time.Millisecond), err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// poll calls check until it returns nil or the context ends. The pause grows, so that quick things are seen quickly and
// slow ones do not keep a small machine busy.
func poll(ctx context.Context, check func(context.Context) error, pause time.Duration) error {
	var last error
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		// An error that only says that time is up would hide the state that was seen before.
		if last == nil || !errors.Is(err, context.DeadlineExceeded) {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; last: %w", ctx.Err(), last)
		case <-time.After(pause):
		}
		pause = min(pause*3/2, 500*time.Millisecond)
	}
}
