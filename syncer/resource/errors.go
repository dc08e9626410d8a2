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
	// Due says that something is to be done after exactly that delay. Else what lasts is looked at more and more rarely.
	Due bool
	// Told is what the tenant is told when it lasts; nil for what passes by itself, see Notice.
	Told *Reject
}

// Error implements error.
func (w *Wait) Error() string { return "waiting for " + w.Reason }

// Notice returns what the tenant is told when the Wait lasts. Nobody waits in silence, not even for what was expected to
// come soon, of which the tenant learns no more than that.
func (w *Wait) Notice() *Reject {
	if w.Told != nil {
		return w.Told
	}
	return Delayed()
}

// Delayed is what a tenant is told about an object when only the operator can know more.
func Delayed() *Reject {
	return &Reject{Reason: "Delayed", Message: "This object is not in step with the underlying cluster yet, which is tried again. If this lasts, ask the operator of the cluster"}
}

// Waiting returns a Wait for something that comes by itself and soon, or that no object of the tenant shows, in words for the
// operator, with the delay after which to look again whatever happens.
func Waiting(after time.Duration, format string, args ...any) error {
	return &Wait{Reason: fmt.Sprintf(format, args...), After: after}
}

// Due makes a Wait one whose delay is exact.
func Due(err error) error {
	if w, ok := AsWait(err); ok {
		w.Due = true
	}
	return err
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
