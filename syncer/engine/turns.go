package engine

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/cluster"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/tenants"
)

// turns hands out a bounded number of places to tenants in turn. A tenant that asks for many places at a time gets no more
// than its part while others wait.
type turns struct {
	waited prometheus.Observer // seconds

	mu      sync.Mutex
	free    int                               // guarded by mu
	waiting map[names.TenantID]*waitingTenant // guarded by mu
	order   []names.TenantID                  // guarded by mu: tenants that wait, next first
}

// waitingTenant is a tenant that waits for places.
type waitingTenant struct {
	weight  int
	left    int // places that it gets before it is the next one's turn
	tickets []chan struct{}
}

func newTurns(places int, waited prometheus.Observer) *turns {
	return &turns{waited: waited, free: places, waiting: map[names.TenantID]*waitingTenant{}}
}

// take returns once the tenant has a place, which the caller gives back, or with the error of the context. Weight is how
// many places the tenant gets in each of its turns.
func (t *turns) take(ctx context.Context, tenant names.TenantID, weight int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	began := time.Now()
	ticket := t.ask(tenant, max(weight, 1))
	select {
	case <-ticket:
	case <-ctx.Done():
		if !t.withdraw(tenant, ticket) {
			t.give() // it was handed out meanwhile
		}
		return ctx.Err()
	}
	t.waited.Observe(time.Since(began).Seconds())
	return nil
}

// ask returns a channel that is closed when the tenant has a place.
func (t *turns) ask(tenant names.TenantID, weight int) chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	ticket := make(chan struct{})
	w := t.waiting[tenant]
	if w == nil {
		w = &waitingTenant{weight: weight, left: weight}
		t.waiting[tenant] = w
		t.order = append(t.order, tenant)
	}
	w.tickets = append(w.tickets, ticket)
	t.handOut()
	return ticket
}

// withdraw takes a ticket back; false if a place was handed out to it.
func (t *turns) withdraw(tenant names.TenantID, ticket chan struct{}) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	w := t.waiting[tenant]
	if w == nil {
		return false
	}
	i := slices.Index(w.tickets, ticket)
	if i < 0 {
		return false
	}
	w.tickets = slices.Delete(w.tickets, i, i+1)
	if len(w.tickets) == 0 {
		delete(t.waiting, tenant)
		t.order = slices.DeleteFunc(t.order, func(id names.TenantID) bool { return id == tenant })
	}
	return true
}

// give returns a place.
func (t *turns) give() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.free++
	t.handOut()
}

// handOut hands out the places that are free. The caller holds t.mu.
func (t *turns) handOut() {
	for t.free > 0 && len(t.order) > 0 {
		tenant := t.order[0]
		w := t.waiting[tenant]
		close(w.tickets[0])
		w.tickets = w.tickets[1:]
		t.free--
		w.left--
		switch {
		case len(w.tickets) == 0:
			delete(t.waiting, tenant)
			t.order = t.order[1:]
		case w.left == 0:
			w.left = w.weight
			t.order = append(t.order[1:], tenant)
		}
	}
}

// caller makes calls to an API server.
type caller interface {
	Get(ctx context.Context, namespace, name string, out resource.Object) error
	Do(ctx context.Context, op resource.Op) error
}

// inTurn makes calls to the super cluster on behalf of a tenant. A call that has begun ends with an answer, or at its
// deadline, whatever happens to the context: one that is given up may still be carried out.
type inTurn struct {
	super    *cluster.Client
	onBehalf func(context.Context, names.TenantID) context.Context
	turns    *turns
	tenant   names.TenantID
	weight   int
}

// superFor returns how to call the super cluster on behalf of a tenant.
func (e *Engine) superFor(t *tenants.Tenant) caller {
	return inTurn{super: e.super, onBehalf: e.options.OnBehalf, turns: e.turns, tenant: t.Facts.ID, weight: t.Budget().Weight}
}

// Get implements caller.
func (c inTurn) Get(ctx context.Context, namespace, name string, out resource.Object) error {
	if err := c.turns.take(ctx, c.tenant, c.weight); err != nil {
		return err
	}
	defer c.turns.give()
	return c.super.Get(context.WithoutCancel(ctx), namespace, name, out)
}

// Do implements caller.
func (c inTurn) Do(ctx context.Context, op resource.Op) error {
	if err := c.turns.take(ctx, c.tenant, c.weight); err != nil {
		return err
	}
	defer c.turns.give()
	return c.super.Do(c.onBehalf(context.WithoutCancel(ctx), c.tenant), op)
}
