package resource

import (
	"errors"
	"fmt"
	"time"
)

// Wait is an error that says: a dependency is not there yet. The key is decided again when the dependency changes, or
// after a delay, without noise.
type Wait struct {
	Reason string
	After  time.Duration
	// Told is what the tenant is told when it lasts; nil for what passes by itself, or is told otherwise.
	Told *Reject
}

// Error implements error.
func (w *Wait) Error() string { return "waiting for " + w.Reason }

// Waiting returns a Wait for something, with the delay after which to look again whatever happens.
func Waiting(after time.Duration, format string, args ...any) error {
	return &Wait{Reason: fmt.Sprintf(format, args...), After: after}
}

// Blocked returns a Wait for something that may never come: when it lasts, an event with the given reason says so on the
// tenant's object, in the tenant's words.
func Blocked(after time.Duration, reason, format string, args ...any) error {
	message := fmt.Sprintf(format, args...)
	return &Wait{Reason: message, After: after, Told: &Reject{Reason: reason, Message: "Waiting for " + message}}
}

// Reject is an error that says: the tenant must change the object. It becomes an event on the tenant object, in the
// tenant's words.
type Reject struct {
	// Reason is a CamelCase word for the event.
	Reason string
	// Message says what is wrong and what to do, without anything of the super cluster in it.
	Message string
}

// Error implements error.
func (r *Reject) Error() string { return r.Reason + ": " + r.Message }

// Rejected returns a Reject.
func Rejected(reason, format string, args ...any) error {
	return &Reject{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// AsReject returns the Reject in err's chain.
func AsReject(err error) (*Reject, bool) {
	var r *Reject
	return r, errors.As(err, &r)
}

// AsWait returns the Wait in err's chain.
func AsWait(err error) (*Wait, bool) {
	var w *Wait
	return w, errors.As(err, &w)
}

// Incomplete is an error that says: the decision depends on content that is not cached. The engine reads it and decides again.
type Incomplete struct {
	// Ref is the tenant object that is to be read; the zero Ref stands for the pair that is being decided.
	Ref Ref
}

// Error implements error.
func (i *Incomplete) Error() string {
	if i.Ref == (Ref{}) {
		return "the content of the pair is not cached"
	}
	return "the content of " + i.Ref.Kind + " " + i.Ref.Namespace + "/" + i.Ref.Name + " is not cached"
}

// AsIncomplete returns the Incomplete in err's chain.
func AsIncomplete(err error) (*Incomplete, bool) {
	var i *Incomplete
	return i, errors.As(err, &i)
}
