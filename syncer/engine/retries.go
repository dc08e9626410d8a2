package engine

import (
	"errors"
	"math/rand/v2"
	"sync"
	"time"
)

// Items that failed are retried after firstRetry, doubling up to lastRetry. There is no bucket that one tenant could empty
// for others.
const (
	firstRetry = 20 * time.Millisecond
	lastRetry  = time.Minute
)

// Items that wait or were rejected are looked at again although nothing happened: not everything that they depend on has
// events that reach us. The longer that lasts, the rarer it is.
const (
	firstRejected = 2 * time.Second
	lastRejected  = 10 * time.Minute
	lastWait      = time.Minute
)

// retries remembers what keeps the items of a tenant from being done. It is bounded by the tenant's objects: an item that
// is done, or whose object is gone, is forgotten.
type retries struct {
	mu   sync.Mutex
	open map[item]obstacle // guarded by mu
}

// obstacle is what keeps an item from being done.
type obstacle struct {
	what  string
	since time.Time
	// tried says that it was met when an operation was carried out: decisions do not see it.
	tried bool
	// failures in a row.
	failures int
}

// done forgets an item.
func (r *retries) done(i item) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, i)
}

// lasting notes what an item waits for, or why it was rejected, and returns for how long that has been so.
func (r *retries) lasting(i item, err error, now time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.open[i]
	if what := err.Error(); o.what != what || o.since.IsZero() {
		o = obstacle{what: what, since: now}
	}
	var tried *opError
	o.tried, o.failures = errors.As(err, &tried), 0
	r.put(i, o)
	return now.Sub(o.since)
}

// failed notes a failure and returns when to try again, and how many failures in a row there were.
func (r *retries) failed(i item) (time.Duration, int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.open[i]
	delay := lastRetry
	if o.failures < 12 {
		delay = min(firstRetry<<o.failures, lastRetry)
	}
	o.failures++
	r.put(i, o)
	return delay, o.failures
}

func (r *retries) put(i item, o obstacle) {
	if r.open == nil {
		r.open = map[item]obstacle{}
	}
	r.open[i] = o
}

// tried says whether an item is known to fail when what was decided is carried out.
func (r *retries) tried(i item) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.open[i].tried
}

// fresh returns the items that failed or were refused, and counts their failures anew.
func (r *retries) fresh() []item {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []item
	for i, o := range r.open {
		if o.failures > 0 || o.tried {
			o.failures = 0
			r.open[i] = o
			out = append(out, i)
		}
	}
	return out
}

// backoff returns when to look again at what has lasted for a while: after the same while again, within limits.
func backoff(lasted, first, last time.Duration) time.Duration {
	return max(first, min(lasted, last))
}

// jitter returns a part of a duration.
func jitter(d time.Duration) time.Duration { return rand.N(d) } //nolint:gosec // no secret

// opError says that an error was met when an operation was carried out.
type opError struct{ error }

// Unwrap returns the error.
func (e *opError) Unwrap() error { return e.error }
