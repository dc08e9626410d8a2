package engine

import (
	"context"
	"time"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/tenants"
)

// pool is the work of one tenant: its queue, and what is known of items that are not done. Nothing in it is shared with
// other tenants, so that a tenant whose API server is slow, or whose objects change without end, delays only itself.
type pool struct {
	tenant  *tenants.Tenant
	queue   *queue
	retries retries
	account account
}

// Connected implements tenants.Listener.
func (e *Engine) Connected(t *tenants.Tenant) (serve func(context.Context)) {
	p := &pool{tenant: t, queue: newQueue()}
	e.pools.Store(t.Facts.ID, p)
	return func(ctx context.Context) { e.servePool(ctx, p) }
}

// pool returns the work of a tenant, nil if it is not connected.
func (e *Engine) pool(id names.TenantID) *pool {
	v, _ := e.pools.Load(id)
	p, _ := v.(*pool)
	return p
}

// eachPool calls f for the work of every tenant.
func (e *Engine) eachPool(f func(*pool)) {
	e.pools.Range(func(_, v any) bool {
		if p, ok := v.(*pool); ok {
			f(p)
		}
		return true
	})
}

// servePool works for a tenant until the context ends. It returns when no call is in flight. A worker is a goroutine that is
// lent for one item, so that idle tenants have none.
func (e *Engine) servePool(ctx context.Context, p *pool) {
	defer e.forget(p)
	defer context.AfterFunc(ctx, p.queue.ShutDown)()
	select {
	case <-ctx.Done():
		return
	case <-e.superSynced:
	}
	places := make(chan struct{}, e.options.Workers)
	for {
		places <- struct{}{} // before an item is taken: what is more urgent may come until then
		i, quit := p.queue.Get()
		if quit || ctx.Err() != nil {
			<-places
			break
		}
		e.crew.run(func() { // awaited below
			defer func() { <-places }()
			e.work(ctx, p, i)
		})
	}
	for range cap(places) {
		places <- struct{}{}
	}
}

// forget forgets a tenant that is not served any more.
func (e *Engine) forget(p *pool) {
	id := p.tenant.Facts.ID
	if !e.pools.CompareAndDelete(id, p) {
		return // it is connected anew
	}
	for _, w := range e.kinds() {
		w.stamps.drop(id)
	}
	e.sent.drop(id)
	e.vetted.drop(id)
	e.compared.drop(id)
	e.gate.release(id)
}

// work serves one item.
func (e *Engine) work(ctx context.Context, p *pool, i item) {
	defer p.queue.Done(i)
	w := e.kinds()[i.kind]
	if w == nil { // it is not offered any more
		p.retries.done(i)
		return
	}
	if e.pace(ctx, p, decisions) != nil {
		return // the tenant is let go of
	}
	e.metrics.taken(w, i.key)
	err := safely(func() error { return e.process(ctx, p.tenant, w, i.key) })
	if ctx.Err() != nil {
		return // the tenant is let go of
	}
	if err := safely(func() error { e.finish(ctx, p, w, i.key, err); return nil }); err != nil {
		e.survived(i.kind, err)
		p.queue.addAfter(i, backlog, retryPanicked)
	}
}

// retryAll retries what failed, spread over a while.
func (p *pool) retryAll(spread time.Duration) {
	for _, i := range p.retries.fresh() {
		p.queue.addAfter(i, live, jitter(spread))
	}
}
