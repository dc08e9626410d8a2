// Package progress holds the three kinds of error a reconciliation ends with: something is not there yet (Wait), a
// person has to act (Stall), or a plain error, which is retried with backoff. It decides nothing and talks to nobody;
// the steps of vc-manager return these errors and its reconciler turns them into conditions.
package progress

import (
	"errors"
	"net"
	"time"
)

// ReasonError is the reason of an error that carries none.
const ReasonError = "Error"

// Wait says that something is not there yet. It is not a failure and is not logged as one.
type Wait struct {
	// Reason is one CamelCase word, Message a sentence for people. Both are stable while the cause is the same.
	Reason, Message string
	// After is when to look again. Zero means that a watch will tell.
	After time.Duration
}

// Error implements error.
func (w *Wait) Error() string { return w.Message }

// Stall says that nothing will change until a person acts; a watch tells when they did.
type Stall struct {
	// Reason is one CamelCase word, Message a sentence that says what is wrong and what to do.
	Reason, Message string
}

// Error implements error.
func (s *Stall) Error() string { return s.Message }

// because gives a plain error a reason.
type because struct {
	reason string
	err    error
}

func (b *because) Error() string { return b.err.Error() }
func (b *because) Unwrap() error { return b.err }

// Because gives a plain error a reason for the condition it ends up in.
func Because(reason string, err error) error {
	if err == nil {
		return nil
	}
	return &because{reason: reason, err: err}
}

// Reason returns the reason of an error.
func Reason(err error) string {
	var (
		wait   *Wait
		stall  *Stall
		reason *because
	)
	switch {
	case errors.As(err, &wait):
		return wait.Reason
	case errors.As(err, &stall):
		return stall.Reason
	case errors.As(err, &reason):
		return reason.reason
	default:
		return ReasonError
	}
}

// Classify returns the part of an error, which may be several joined together, that decides what happens next: a plain
// error before a Stall before a Wait, and the first of each.
func Classify(err error) error {
	var stall, wait error
	for _, part := range flatten(err) {
		switch {
		case errors.As(part, new(*Stall)):
			stall = first(stall, part)
		case errors.As(part, new(*Wait)):
			wait = first(wait, part)
		default:
			return part
		}
	}
	return first(stall, wait)
}

func first(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// flatten returns the errors that were joined.
func flatten(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, part := range joined.Unwrap() {
		all = append(all, flatten(part)...)
	}
	return all
}

// Stable returns the error without what changes from one attempt to the next, such as the local port of a connection,
// so that a condition made from it does not flap.
func Stable(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		op = &net.OpError{Op: op.Op, Net: op.Net, Addr: op.Addr, Err: op.Err}
		return op
	}
	return err
}
