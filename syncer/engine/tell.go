package engine

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// told remembers what each object was last told, so that saying it again costs nothing.
type told struct{ remembered[witness, string] }

// again reports whether the object was told just that before. Each object is handled by one worker at a time.
func (t *told) again(w witness, what string) bool {
	if t.get(w) == what {
		return true
	}
	t.put(w, what)
	return false
}

// patience is how long an object may wait for something that may never come before the tenant is told.
const patience = 10 * time.Second

// blocked remembers since when an object waits for something that may never come.
type blocked struct{ remembered[witness, blockage] }

type blockage struct {
	what  string
	since time.Time
}

// left returns how much longer an object may wait for something before the tenant is told.
func (b *blocked) left(w witness, what string, now time.Time) time.Duration {
	last := b.get(w)
	if last.what != what {
		last = blockage{what, now}
		b.put(w, last)
	}
	return patience - now.Sub(last.since)
}

// await returns when an object that waits is looked at again, and tells the tenant once that has lasted.
func (e *Engine) await(ctx context.Context, w *worker, key resource.Key, wait *resource.Wait) time.Duration {
	if wait.Told == nil {
		return wait.After
	}
	if left := e.blocked.left(witness{w.Name, key}, wait.Told.Error(), e.now()); left > 0 {
		return min(wait.After, left)
	}
	e.tell(ctx, w, key, wait.Told)
	return wait.After
}

// tell records an event on the tenant's object.
func (e *Engine) tell(ctx context.Context, w *worker, key resource.Key, r *resource.Reject) {
	t := e.registry.Get(key.Tenant)
	if t == nil {
		return
	}
	o := t.Get(resource.Ref{Kind: w.Name, Namespace: key.Namespace, Name: key.Name})
	if o == nil || e.told.again(witness{w.Name, key}, string(o.GetUID())+r.Error()) {
		return
	}
	op := resource.Tell(e.view(t), o, w.GVK, corev1.EventTypeWarning, r.Reason, r.Message)
	if err := t.Client.Do(ctx, op); err != nil {
		log.FromContext(ctx).Error(err, "Cannot record an event", "resource", w.Name, "key", key.String())
		t.Suspect()
	}
}
