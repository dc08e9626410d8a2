package engine

import (
	"context"
	"errors"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// Delays after which a key is looked at again although nothing happened.
const (
	retryBraked = 5 * time.Minute
	// retryUnproven is when an API server is asked again who it is.
	retryUnproven = 5 * time.Second
	// retryReferrersUnknown is when something that nothing seems to need is looked at again, while not everything is known that
	// may need it.
	retryReferrersUnknown = 5 * time.Second
	// retryUnserved is when an API server is asked again for a kind that it does not serve.
	retryUnserved = time.Minute
	// retryEnding is when something in a namespace of the tenant that ends is looked at again.
	retryEnding = 10 * time.Second
)

// finish finishes a key: it converged, waits, was rejected, or is retried. It is never dropped.
func (e *Engine) finish(ctx context.Context, p *pool, w *kindState, key resource.Key, err error) {
	i, who := item{w.Name, key}, witness{w.Name, key}
	e.awaitRoom(p, w, key, err)
	if err == nil {
		w.stamps.finished(key)
		e.notices.converged(who)
		p.retries.done(i)
		return
	}
	e.notices.failed(who, err, e.now())
	if broken, ok := asPanicked(err); ok {
		e.setAside(ctx, p, w, i, broken)
		return
	}
	if wait, ok := resource.AsWait(err); ok {
		if wait.Told != nil { // it takes as long as the tenant takes
			w.stamps.finished(key)
		}
		lasted := p.retries.lasting(i, err, e.now())
		p.queue.addAfter(i, backlog, e.await(ctx, w, key, wait, lasted))
		return
	}
	if reject, ok := resource.AsReject(err); ok {
		w.stamps.finished(key)
		e.metrics.rejected.WithLabelValues(w.Name, reject.Reason).Inc()
		lasted := p.retries.lasting(i, err, e.now())
		due := e.tell(ctx, w, key, reject)
		e.notices.resolved(who)
		p.queue.addAfter(i, backlog, min(backoff(lasted, firstRejected, lastRejected), due))
		return
	}
	e.metrics.retries.WithLabelValues(w.Name).Inc()
	e.fails(ctx, w, key)
	delay, failures := p.retries.failed(i)
	p.queue.addAfter(i, live, delay)
	if errors.Is(err, errStale) || apierrors.IsConflict(err) {
		return
	}
	if failures > 3 { // a few failures are life
		log.FromContext(ctx).Error(err, "Cannot synchronise yet", "resource", w.Name, "key", key.String())
	}
}
