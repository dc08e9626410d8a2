package engine

import (
	"context"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// work serves one queue until it is shut down.
func (e *Engine) work(ctx context.Context, w *worker) {
	for {
		key, quit := w.queue.Get()
		if quit {
			return
		}
		if w.share.enter(key) {
			e.settle(ctx, w, key, e.process(ctx, w, key))
			if parked, ok := w.share.leave(key.Tenant); ok {
				w.queue.Add(parked)
			}
		}
		w.queue.Done(key)
	}
}

// process decides about one key and carries the decision out.
func (e *Engine) process(ctx context.Context, w *worker, key resource.Key) error {
	t := e.registry.Get(key.Tenant)
	if t == nil || !e.ready(t, w) {
		return nil // everything of a tenant is queued when it gets in sync
	}
	tenantObject, superObject := e.pair(t, w.Kind, key)
	v := e.view(t)
	v.Withdrawn = w.withdrawn(key.Tenant)
	ops, tenantObject, superObject, err := e.decide(ctx, t, w, v, key, tenantObject, superObject)
	ops, vetErr := e.vet(ctx, t, w, key, tenantObject, superObject, ops)
	if vetErr != nil {
		err = vetErr
	}
	for _, op := range ops {
		if op.Why == resource.Unwanted {
			if err := e.settled(t); err != nil {
				return resource.Waiting(retryUnsettled, "%v", err)
			}
		}
		opErr := e.execute(ctx, t, w, key, v, tenantObject, superObject, op)
		if _, refused := resource.AsReject(opErr); refused && len(op.Patch) > 0 {
			err = opErr // what else has changed flows all the same
			continue
		}
		if opErr != nil {
			return opErr
		}
	}
	if err == nil {
		w.cache.Forget(superObject)
	}
	return err
}
