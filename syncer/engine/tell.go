package engine

import (
	"context"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// maxTold bounds how many objects the memory of what was told covers; past it, it starts anew.
const maxTold = 10000

// told remembers what each object was last told, so that saying it again costs nothing.
type told struct {
	mu   sync.Mutex
	last map[witness]string // guarded by mu
}

func newTold() *told { return &told{last: map[witness]string{}} }

// again reports whether the object was told just that before.
func (t *told) again(w witness, what string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last[w] == what {
		return true
	}
	if len(t.last) >= maxTold {
		t.last = map[witness]string{}
	}
	t.last[w] = what
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
