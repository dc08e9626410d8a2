package vnagent

import (
	"context"
	"sync"
	"time"
)

// maxFailureTTL is how long a failure is kept at most.
const maxFailureTTL = time.Second

// recent keeps what was made a moment ago, and makes it once for all who ask at the same time: floods of requests become
// few. Failures are kept, too, but not for long.
type recent[K comparable, V any] struct {
	// ttl is how long a value is kept after it was made; timeout is how long making it may take.
	ttl, timeout time.Duration

	mu     sync.Mutex
	values map[K]*made[V]
}

type made[V any] struct {
	// done is closed when value and err are set.
	done  chan struct{}
	value V
	err   error
}

// get returns the value of the key. It is made in a context that does not end with that of the one who asked first.
func (r *recent[K, V]) get(ctx context.Context, key K, produce func(context.Context) (V, error)) (V, error) {
	r.mu.Lock()
	m, found := r.values[key]
	if !found {
		m = &made[V]{done: make(chan struct{})}
		if r.values == nil {
			r.values = map[K]*made[V]{}
		}
		r.values[key] = m
		// It ends by its own timeout.
		go r.produce(context.WithoutCancel(ctx), key, m, produce)
	}
	r.mu.Unlock()

	select {
	case <-m.done:
		return m.value, m.err
	case <-ctx.Done():
		var none V
		return none, ctx.Err()
	}
}

func (r *recent[K, V]) produce(ctx context.Context, key K, m *made[V], produce func(context.Context) (V, error)) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	m.value, m.err = produce(ctx)
	close(m.done)
	ttl := r.ttl
	if m.err != nil {
		ttl = min(ttl, maxFailureTTL)
	}
	// The value is forgotten by itself, because some take megabytes.
	time.AfterFunc(ttl, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.values, key)
	})
}
