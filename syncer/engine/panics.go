package engine

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/log"

	corev1 "k8s.io/api/core/v1"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// retryPanicked is when an object on which our own code failed is looked at again although nothing happened.
const retryPanicked = 5 * time.Minute

// reasonPanicked is the reason of the event that says so.
const reasonPanicked = "InternalError"

// panicked is an error that says: our own code failed on an object. The object is set aside, and everything else goes on.
type panicked struct {
	value any
	stack []byte
}

// Error implements error.
func (p *panicked) Error() string { return fmt.Sprintf("panic: %v", p.value) }

// asPanicked returns the panicked in err's chain.
func asPanicked(err error) (*panicked, bool) {
	var p *panicked
	return p, errors.As(err, &p)
}

// safely calls f, and returns a panic of f as an error.
func safely(f func() error) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = &panicked{value: value, stack: debug.Stack()}
		}
	}()
	return f()
}

// survive ends a panic in a function that client-go or a connection calls, which would end the process. It is deferred.
func (e *Engine) survive(kind string) {
	if value := recover(); value != nil {
		e.survived(kind, &panicked{value: value, stack: debug.Stack()})
	}
}

// survived counts and logs a panic that concerns no object that we know.
func (e *Engine) survived(kind string, err error) {
	e.metrics.panics.WithLabelValues(kind).Inc()
	if p, ok := asPanicked(err); ok {
		log.Log.Error(p, "Survived a panic", "resource", kind, "stack", string(p.stack))
	}
}

// version is one version of an object.
type version struct {
	uid     types.UID
	version string
}

// broke notes a panic about an object that nobody can be told of where it happened: in a function that files the object or
// finds what belongs to it. Who decides about the object next tells.
func (e *Engine) broke(kind string, o resource.Object, err error) {
	e.metrics.panics.WithLabelValues(kind).Inc()
	v := version{o.GetUID(), o.GetResourceVersion()}
	if _, known := e.broken.Get(v); known {
		return
	}
	e.broken.Add(v, err)
	if p, ok := asPanicked(err); ok {
		log.Log.Error(p, "Cannot handle an object", "resource", kind, "uid", v.uid, "stack", string(p.stack))
	}
}

// brokenBefore returns what broke about one of the objects.
func (e *Engine) brokenBefore(objects ...resource.Object) error {
	for _, o := range objects {
		if o == nil {
			continue
		}
		broken, _ := e.broken.Get(version{o.GetUID(), o.GetResourceVersion()})
		if err, ok := broken.(error); ok {
			return err
		}
	}
	return nil
}

// setAside tells about an object on which our own code failed.
func (e *Engine) setAside(ctx context.Context, p *pool, w *kindState, i item, err *panicked) {
	if e.brokenBefore(e.pair(p.tenant, w.Kind, i.key)) == nil { // else it is counted and logged
		e.metrics.panics.WithLabelValues(i.kind).Inc()
		if p.retries.lasting(i, err, e.now()) == 0 {
			log.FromContext(ctx).Error(err, "Cannot handle an object", "resource", i.kind, "key", i.key.String(), "stack", string(err.stack))
		}
	}
	e.tell(ctx, w, i.key, &resource.Reject{Reason: reasonPanicked, Message: "a fault of the cluster, which its operator finds in the logs, prevents that this object is synchronised"})
	p.queue.addAfter(i, backlog, retryPanicked)
}

// guarded returns the kind with functions that do not panic, because some are called by goroutines of client-go, where a
// panic ends the process.
func (e *Engine) guarded(k resource.Kind) resource.Kind {
	in := k
	guard := func(o resource.Object, f func()) {
		if err := safely(func() error { f(); return nil }); err != nil {
			e.broke(in.Name, o, err)
		}
	}
	k.Trim = func(o resource.Object) { guard(o, func() { in.Trim(o) }) }
	k.OfMetadata = func(meta *metav1.ObjectMeta) (out resource.Object) {
		out = &metav1.PartialObjectMetadata{ObjectMeta: *meta}
		guard(out, func() { out = in.OfMetadata(meta) })
		return out
	}
	k.References = func(o resource.Object) (out []resource.Ref) { guard(o, func() { out = in.References(o) }); return out }
	k.AffectedRefs = func(o resource.Object) (out []resource.Ref) {
		guard(o, func() { out = in.AffectedRefs(o) })
		return out
	}
	k.Route = func(o resource.Object) (ref resource.Ref, ok bool) {
		guard(o, func() { ref, ok = in.Route(o) })
		return ref, ok
	}
	k.Home = func(o resource.Object) (out string) { guard(o, func() { out = in.Home(o) }); return out }
	k.Customized = func(o resource.Object) (out bool) { guard(o, func() { out = in.Customized(o) }); return out }
	k.NodeRequests = func(o resource.Object) (node string, requests corev1.ResourceList) {
		guard(o, func() { node, requests = in.NodeRequests(o) })
		return node, requests
	}
	k.AffectsAllReferrers = func(old, now resource.Object) (out bool) {
		o := now
		if o == nil {
			o = old
		}
		guard(o, func() { out = in.AffectsAllReferrers(old, now) })
		return out
	}
	k.Decide = func(v resource.View, key resource.Key, tenant, super resource.Object) (ops []resource.Op, err error) {
		if broke := safely(func() error { ops, err = in.Decide(v, key, tenant, super); return nil }); broke != nil {
			return nil, broke
		}
		return ops, err
	}
	k.Refused = func(v resource.View, tenant, super resource.Object, op resource.Op, message string) (ops []resource.Op, err error) {
		if broke := safely(func() error { ops, err = in.Refused(v, tenant, super, op, message); return nil }); broke != nil {
			e.survived(in.Name, broke)
			return nil, nil
		}
		return ops, err
	}
	k.SuperName = func(name string) (out string) {
		if err := safely(func() error { out = in.SuperName(name); return nil }); err != nil {
			e.survived(in.Name, err)
		}
		return out
	}
	if in.OnDemand != nil {
		k.OnDemand = func(f resource.Facts) (out bool) {
			if err := safely(func() error { out = in.OnDemand(f); return nil }); err != nil {
				e.survived(in.Name, err)
			}
			return out
		}
	}
	if in.Served != nil {
		k.Served = func(v resource.View) (err error) {
			if broke := safely(func() error { err = in.Served(v); return nil }); broke != nil {
				e.survived(in.Name, broke)
				return broke
			}
			return err
		}
	}
	return k
}
