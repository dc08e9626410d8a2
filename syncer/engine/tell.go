package engine

import (
	"context"

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
