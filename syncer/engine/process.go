package engine

import (
	"context"
	"slices"
	"time"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/tenants"
)

// process decides about one key and carries the decision out.
func (e *Engine) process(ctx context.Context, t *tenants.Tenant, w *kindState, key resource.Key) error {
	if t.State().Halted() || !e.ready(t, w) {
		return nil // everything of a tenant is queued when it gets in sync
	}
	tenantObject, superObject := e.pair(t, w.Kind, key)
	v := e.view(t)
	v.Withdrawn = w.withdrawn(key.Tenant)
	v.Again = func(at time.Time) { e.lookAgain(w, key, at.Sub(v.Now)) }
	e.notices.begin(witness{w.Name, key})
	ops, tenantObject, superObject, err := e.decide(ctx, t, w, v, key, tenantObject, superObject)
	ops, vetErr := e.vet(ctx, t, w, key, tenantObject, superObject, ops)
	if vetErr != nil {
		err = vetErr
	}
	if !slices.ContainsFunc(ops, infers) {
		e.gate.forget(w.Name, key)
	}
	for _, op := range ops {
		if op.Why == resource.Unwanted {
			if err := e.referrersKnown(t); err != nil {
				return resource.Waiting(retryReferrersUnknown, "%v", err)
			}
		}
		opErr := e.execute(ctx, t, w, key, v, tenantObject, superObject, op)
		if _, refused := resource.AsReject(opErr); refused && len(op.Patch) > 0 {
			err = &opError{opErr} // what else has changed flows all the same
			continue
		}
		if opErr != nil {
			return &opError{opErr}
		}
	}
	if err == nil {
		err = e.brokenBefore(tenantObject, superObject)
	}
	if err == nil {
		w.cache.Forget(superObject)
	}
	return err
}
