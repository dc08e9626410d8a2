package engine

import (
	"context"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/tenants"
)

// patrol decides about everything now and then, and queues what differs. It writes nothing.
func (e *Engine) patrol(ctx context.Context) {
	wait.JitterUntilWithContext(ctx, func(ctx context.Context) {
		for _, t := range e.registry.All() {
			if t.State() == tenants.Synced {
				e.patrolTenant(ctx, t)
			}
		}
	}, e.options.Patrol, 0.1, true)
}

func (e *Engine) patrolTenant(ctx context.Context, t *tenants.Tenant) {
	began, checked, found := time.Now(), 0, 0
	v := e.view(t)
	e.eachKey(t, func(w *worker, key resource.Key) {
		if ctx.Err() != nil || !e.ready(t, w) {
			return
		}
		checked++
		v.Withdrawn = w.withdrawn(key.Tenant)
		tenant, super := e.pair(t, w.Kind, key)
		ops, err := w.Decide(v, key, tenant, super)
		pointless := func(op resource.Op) bool { return e.sent.changesNothing(w.Name, key, op, e.now()) }
		_, incomplete := resource.AsIncomplete(err)
		if incomplete && e.compared.get(witness{w.Name, key}) != versionsOf(tenant, super) {
			e.enqueue(w, key) // metadata does not tell whether there is a difference
			return
		}
		if ops = slices.DeleteFunc(ops, pointless); err == nil && len(ops) > 0 {
			found++
			e.metrics.drift.WithLabelValues(w.Name).Inc()
			e.enqueue(w, key)
		}
	})
	log.FromContext(ctx).V(1).Info("Patrolled", "tenant", t.Facts.ID, "checked", checked, "found", found, "took", time.Since(began).String())
}

// Release lets deletions of a tenant pass again after its brake had tripped, and looks at everything anew.
func (e *Engine) Release(t *tenants.Tenant) {
	e.brake.release(t.Facts.ID)
	e.enqueueAll(t)
}

// Braked reports whether deletions of the tenant are held back until a person releases them.
func (e *Engine) Braked(t *tenants.Tenant) bool { return e.brake.isTripped(t.Facts.ID) }
