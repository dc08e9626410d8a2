package engine

import (
	"context"
	"maps"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

const (
	// patience is how long an object may wait before the tenant is told.
	patience = 10 * time.Second
	// patienceFailing is how long calls about an object may fail before the tenant is told.
	patienceFailing = time.Minute
	// tellAgain is when the tenant is told once more what is still true. An API server forgets an event an hour after it was
	// last written, by default.
	tellAgain = 20 * time.Minute
	// tellRetry is when something that could not be told is tried again.
	tellRetry = 30 * time.Second
	// tellGap is the least time between two different things that the tenant is told about one object.
	tellGap = 10 * time.Second
)

// notices remembers, about each object that waits, fails, is refused, or has something told about it, since when, and what the
// tenant was told. It has no more entries than there are such objects in the caches.
type notices struct {
	mu sync.Mutex
	of map[witness]*notice // guarded by mu
}

// notice is about one object, which one worker handles at a time.
type notice struct {
	since time.Time          // since when it waits or fails, zero when it does not
	last  time.Time          // when something was told last
	told  map[string]telling // by the name of the event

	// What came of the decisions in a row that left the object unlike it should be.
	outcome outcome
}

// outcome is what came of the last decision about an object.
type outcome struct {
	kind  string // as in a Trace
	err   string
	at    time.Time
	tries int
}

// telling is one event.
type telling struct {
	at      time.Time // when it was written last, zero when it never was
	current bool      // says that the last decision said it
}

// begin prepares for a decision about an object.
func (n *notices) begin(who witness) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if of := n.of[who]; of != nil {
		for name, t := range of.told {
			of.told[name] = telling{at: t.at}
		}
	}
}

// unresolvedFor returns for how long an object has been waiting or failing.
func (n *notices) unresolvedFor(who witness, now time.Time) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	of := n.get(who)
	if of.since.IsZero() {
		of.since = now
	}
	return now.Sub(of.since)
}

// failed notes what came of a decision that left the object unlike it should be.
func (n *notices) failed(who witness, err error, now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	of := n.get(who)
	of.outcome = outcome{kind: kindOf(err), err: err.Error(), at: now, tries: of.outcome.tries + 1}
}

// recall returns since when an object has been waiting or failing, zero when it has not, and what came of the last decision.
func (n *notices) recall(who witness) (since time.Time, last outcome) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if of := n.of[who]; of != nil {
		return of.since, of.outcome
	}
	return since, last
}

// converged notes that an object is as it should be.
func (n *notices) converged(who witness) {
	n.mu.Lock()
	if of := n.of[who]; of != nil {
		of.outcome = outcome{}
	}
	n.mu.Unlock()
	n.resolved(who)
}

// resolved notes that an object neither waits nor fails, and forgets what the last decision did not say any more: should it
// become true once more, the tenant is told again.
func (n *notices) resolved(who witness) {
	n.mu.Lock()
	defer n.mu.Unlock()
	of := n.of[who]
	if of == nil {
		return
	}
	of.since = time.Time{}
	maps.DeleteFunc(of.told, func(_ string, t telling) bool { return !t.current })
	if len(of.told) == 0 {
		delete(n.of, who)
	}
}

// says notes that a decision says what an operation tells.
func (n *notices) says(who witness, op resource.Op) {
	if op.Tells() {
		n.mu.Lock()
		defer n.mu.Unlock()
		of := n.get(who)
		of.told[op.Object.GetName()] = telling{at: of.told[op.Object.GetName()].at, current: true}
	}
}

// repeats says whether the tenant has heard not long ago what an operation tells.
func (n *notices) repeats(who witness, op resource.Op, now time.Time) bool {
	if !op.Tells() {
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	of := n.of[who]
	return of != nil && now.Sub(of.told[op.Object.GetName()].at) < tellAgain
}

// quiet returns for how long the tenant is not told what an operation tells: it has heard it, or something else about the
// object, not long ago.
func (n *notices) quiet(who witness, op resource.Op, now time.Time) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	of := n.of[who]
	if of == nil {
		return 0
	}
	return max(0, tellAgain-now.Sub(of.told[op.Object.GetName()].at), tellGap-now.Sub(of.last))
}

// wrote notes that the tenant was told what an operation tells.
func (n *notices) wrote(who witness, op resource.Op, now time.Time) {
	if op.Tells() {
		n.mu.Lock()
		defer n.mu.Unlock()
		of := n.get(who)
		maps.DeleteFunc(of.told, func(_ string, t telling) bool { return !t.current && now.Sub(t.at) >= tellAgain })
		of.last, of.told[op.Object.GetName()] = now, telling{at: now, current: true}
	}
}

// sweep forgets the objects of tenants that are not known any more.
func (n *notices) sweep(known func(names.TenantID) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	maps.DeleteFunc(n.of, func(who witness, _ *notice) bool { return !known(who.key.Tenant) })
}

// get returns the notice of an object, and makes one when there is none. The caller holds n.mu.
func (n *notices) get(who witness) *notice {
	of := n.of[who]
	if of == nil {
		of = &notice{told: map[string]telling{}}
		if n.of == nil {
			n.of = map[witness]*notice{}
		}
		n.of[who] = of
	}
	return of
}

// await returns when an object that has waited for the same for a while is looked at again, and tells the tenant once it has
// waited for long.
func (e *Engine) await(ctx context.Context, w *kindState, key resource.Key, wait *resource.Wait, lasted time.Duration) time.Duration {
	after := backoff(lasted, wait.After, lastWait)
	if wait.Due {
		after = wait.After
	}
	if left := patience - e.notices.unresolvedFor(witness{w.Name, key}, e.now()); left > 0 {
		return min(after, left)
	}
	log.FromContext(ctx).V(1).Info("Waits", "resource", w.Name, "key", key.String(), "for", wait.Reason)
	return min(after, e.tell(ctx, w, key, wait.Notice()))
}

// fails tells the tenant, without what only the operator can know, that calls about an object fail, once that has lasted.
func (e *Engine) fails(ctx context.Context, w *kindState, key resource.Key) {
	if e.notices.unresolvedFor(witness{w.Name, key}, e.now()) >= patienceFailing && ctx.Err() == nil {
		e.tell(ctx, w, key, resource.Delayed())
	}
}

// tell records an event on the tenant's object, unless the tenant has heard it not long ago. It returns when it is due again,
// if it is still true then: soon, when it could not be written.
func (e *Engine) tell(ctx context.Context, w *kindState, key resource.Key, r *resource.Reject) time.Duration {
	t := e.registry.Get(key.Tenant)
	if t == nil {
		return tellAgain
	}
	o := t.Get(resource.Ref{Kind: w.Name, Namespace: key.Namespace, Name: key.Name})
	if o == nil {
		return tellAgain
	}
	op, who := resource.Tell(e.view(t), o, w.GVK, corev1.EventTypeWarning, r.Reason, r.Message), witness{w.Name, key}
	e.notices.says(who, op)
	if left := e.notices.quiet(who, op, e.now()); left > 0 {
		return left
	}
	if err := t.Client.Do(ctx, op); apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return tellAgain // nothing new can be recorded there
	} else if err != nil {
		log.FromContext(ctx).Error(err, "Cannot record an event", "resource", w.Name, "key", key.String())
		if unreachable(err) {
			t.Suspect()
		}
		return tellRetry
	}
	e.notices.wrote(who, op, e.now())
	return tellAgain
}
