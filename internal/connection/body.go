package connection

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// ErrTooLarge says that an API server sent more than is taken from it.
var ErrTooLarge = errors.New("answer too large")

// light is what an answer may weigh while others are read from the same API server. Of those that are heavier, one is read
// at a time, so that many at once do not weigh more together than one may.
const light = 1 << 20

// tally is what an answer weighs, or the current event of a watch.
type tally struct {
	what   string
	max    int64
	weight int64
	heavy  chan struct{}
	held   bool
	done   <-chan struct{}
}

// add fails when it gets too much, and waits while another heavy answer is read.
func (t *tally) add(weight int64) error {
	t.weight += weight
	if t.weight > t.max {
		return fmt.Errorf("%w: what the API server sends for %s weighs more than %d bytes", ErrTooLarge, t.what, t.max)
	}
	if t.weight <= light || t.held {
		return nil
	}
	select {
	case t.heavy <- struct{}{}:
		t.held = true
		return nil
	case <-t.done:
		return fmt.Errorf("waiting for another large answer of the API server to end: %w", context.DeadlineExceeded)
	}
}

// reset begins a new event.
func (t *tally) reset() {
	t.weight = 0
	if t.held {
		<-t.heavy
		t.held = false
	}
}

// body is the body of an answer.
type body struct {
	tally
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
	defer b.reset()
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
