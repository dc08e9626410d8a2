package tenants

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync/atomic"
	"time"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// A tenant that has more than may be kept of it is read again after firstRefill, doubling up to lastRefill, or at once when its
// budget changes.
const (
	firstRefill = 30 * time.Second
	lastRefill  = 10 * time.Minute
)

// excess is about a tenant that has more than may be kept of it.
type excess struct {
	why atomic.Pointer[string] // nil while nothing exceeds

	// What only run uses: under which budget it was found, and when the tenant is read again.
	budget *resource.Budget
	again  time.Time
	after  time.Duration
}

// overfullError says that a cache would hold more than it may.
type overfullError struct{ why string }

// Error implements error.
func (e *overfullError) Error() string { return e.why }

// Budget returns what the tenant may cost.
func (t *Tenant) Budget() *resource.Budget {
	if b := t.budget.Load(); b != nil {
		return b
	}
	return &t.Spec.Budget
}

// SetBudget changes what the tenant may cost.
func (t *Tenant) SetBudget(b resource.Budget) {
	if reflect.DeepEqual(*t.Budget(), b) {
		return
	}
	t.budget.Store(&b)
	t.askProbe()
}

// admit says whether the cache of a kind may hold so many objects and bytes.
func (t *Tenant) admit(w *watch, objects, bytes int64) error {
	w.bytes.Store(bytes)
	budget := t.Budget()
	of := budget.Of(w.kind.Name)
	switch {
	case of.Cached > 0 && objects > of.Cached:
		return &overfullError{fmt.Sprintf("there are more than %d %s, which spec.budget.resources allows (cachedObjects)", of.Cached, w.kind.Name)}
	case of.CachedBytes > 0 && bytes > of.CachedBytes:
		return &overfullError{fmt.Sprintf("the %s have more than %d bytes, which spec.budget.resources allows (cachedBytes)", w.kind.Name, of.CachedBytes)}
	case budget.CachedBytes > 0 && bytes > 0:
		return t.admitAll(w, budget.CachedBytes)
	}
	return nil
}

// admitAll says whether all caches together are within a bound.
func (t *Tenant) admitAll(w *watch, bound int64) error {
	sum, most := w.bytes.Load(), w
	for _, other := range *t.watches.Load() {
		if other != w {
			sum += other.bytes.Load()
		}
		if other.bytes.Load() > most.bytes.Load() {
			most = other
		}
	}
	if sum <= bound {
		return nil
	}
	return &overfullError{fmt.Sprintf("all objects together have more than %d bytes, which spec.budget.cachedBytes allows; most of it are %s", bound, most.kind.Name)}
}

// overfills says whether a cache failed because it would hold more than it may. It takes in nothing more then.
func (t *Tenant) overfills(w *watch, err error) bool {
	var over *overfullError
	if !errors.As(err, &over) {
		return false
	}
	if stop := w.stop.Load(); stop != nil {
		(*stop)()
	}
	if t.watches.Load() != nil && (*t.watches.Load())[w.kind.Name] == w { // not one that was given up meanwhile
		t.excess.why.CompareAndSwap(nil, &over.why)
		t.askProbe()
	}
	return true
}

// overfull says whether the tenant is set aside because it has more than may be kept of it. Nothing of it is kept then, so that
// it costs nothing.
func (t *Tenant) overfull(ctx context.Context, w *runningWatches) bool {
	e := &t.excess
	why := e.why.Load()
	if why == nil {
		return false
	}
	if w.started {
		t.empty(ctx, w)
		if time.Since(e.again) > lastRefill { // it was within its budget for a while
			e.after = 0
		}
		e.after = min(max(firstRefill, 2*e.after), lastRefill)
		e.again, e.budget = time.Now().Add(e.after), t.Budget()
		t.move(Overfull, *why+"; nothing is synchronised until some are deleted or the budget is raised")
	}
	if time.Now().Before(e.again) && e.budget == t.Budget() {
		return true
	}
	e.why.Store(nil)
	return false
}
