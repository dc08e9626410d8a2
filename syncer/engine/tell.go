package engine

import (
	"context"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
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
	namespace := o.GetNamespace()
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	now := metav1.NewTime(e.now())
	event := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace,
			Name:      eventName(o.GetName(), names.Hash(string(o.GetUID()), r.Reason, r.Message)),
		},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: w.GVK.GroupVersion().String(), Kind: w.GVK.Kind,
			Namespace: o.GetNamespace(), Name: o.GetName(), UID: o.GetUID(), ResourceVersion: o.GetResourceVersion(),
		},
		Type: corev1.EventTypeWarning, Reason: r.Reason, Message: truncate(r.Message, 1024),
		Source:              corev1.EventSource{Component: reporter},
		ReportingController: reporter,
		FirstTimestamp:      now, LastTimestamp: now, Count: 1,
	}
	if err := t.Client.Do(ctx, resource.Op{Verb: resource.Record, Object: event}); err != nil {
		log.FromContext(ctx).Error(err, "Cannot record an event", "resource", w.Name, "key", key.String())
		t.Suspect()
	}
}

// reporter is the name under which tenants see events about what could not be synchronised. To a tenant, it is the
// cluster that speaks.
const reporter = "cluster"

// eventName returns a valid name that ends in the suffix.
func eventName(object, suffix string) string {
	return truncate(object, 253-1-len(suffix)) + "." + suffix
}

func truncate(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n]
}
