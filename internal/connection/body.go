package connection

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
)

// ErrTooLarge says that an API server sent more than is taken from it.
var ErrTooLarge = errors.New("answer too large")

// light is what an answer may weigh while others are read from the same API server. Of those that are heavier, one is read
// at a time, so that many at once do not weigh more together than one may.
const light = 1 << 20

// tally is what an answer weighs, or the current event of a watch. A watch is closed while it is read.
type tally struct {
	what  string
	max   int64
	heavy chan struct{}
	done  <-chan struct{}

	mu     sync.Mutex
	weight int64 // guarded by mu
	held   bool  // guarded by mu: heavy is
	closed bool  // guarded by mu
}

// add fails when it gets too much, and waits while another heavy answer is read.
func (t *tally) add(weight int64) error {
	t.mu.Lock()
	t.weight += weight
	weight, held := t.weight, t.held
	t.mu.Unlock()
	if weight > t.max {
		return fmt.Errorf("%w: what the API server sends for %s weighs more than %d bytes", ErrTooLarge, t.what, t.max)
	}
	if weight <= light || held {
		return nil
	}
	select {
	case t.heavy <- struct{}{}:
	case <-t.done:
		return fmt.Errorf("waiting for another large answer of the API server to end: %w", context.DeadlineExceeded)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.held = true
	if t.closed {
		t.release()
	}
	return nil
}

// reset begins a new event.
func (t *tally) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.weight = 0
	t.release()
}

// close ends the answer.
func (t *tally) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	t.release()
}

// release lets another heavy answer be read. The caller holds mu.
func (t *tally) release() {
	if t.held {
		<-t.heavy
		t.held = false
	}
}

// body is the body of an answer.
type body struct {
	*tally
	in     io.ReadCloser
	cancel context.CancelFunc
	next   func([]byte) (int, error)
	err    error // that ended it

	rest int64 // how many bytes may follow
	over error // what happens after them
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.next(p)
	b.err = err
	return n, err
}

// Close implements io.Closer.
func (b *body) Close() error {
	defer b.cancel()
	defer b.close()
	return b.in.Close()
}

// raw reads what the API server sends.
func (b *body) raw(p []byte) (int, error) {
	if b.rest == 0 {
		return 0, b.over
	}
	n, err := b.in.Read(p[:min(int64(len(p)), b.rest)])
	b.rest -= int64(n)
	return n, err
}
