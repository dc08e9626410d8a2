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
	retryRejected = 30 * time.Second
	retryBraked   = 5 * time.Minute
	// retryUnsettled is when something that nothing seems to need is looked at again, while not everything is known that
	// may need it.
	retryUnsettled = 5 * time.Second
	// retryUnserved is when an API server is asked again for a kind that it does not serve.
	retryUnserved = time.Minute
)

// settle finishes a key: it converged, waits, was rejected, or is retried. It is never dropped.
func (e *Engine) settle(ctx context.Context, w *worker, key resource.Key, err error) {
	wait, waits := resource.AsWait(err)
	if !waits || wait.Told == nil {
		e.blocked.forget(witness{w.Name, key})
	}
	switch {
	case err == nil:
		w.stamps.settled(key)
		w.queue.Forget(key)
		return
	case waits:
		if wait.Told != nil { // it takes as long as the tenant takes
			w.stamps.settled(key)
		}
		e.enqueueAfter(w, key, e.await(ctx, w, key, wait))
		return
	}
	if reject, ok := resource.AsReject(err); ok {
		w.stamps.settled(key)
		e.metrics.rejected.WithLabelValues(w.Name, reject.Reason).Inc()
		e.tell(ctx, w, key, reject)
		e.enqueueAfter(w, key, retryRejected)
		return
	}
	e.metrics.retries.WithLabelValues(w.Name).Inc()
	w.queue.AddRateLimited(key)
	if errors.Is(err, errStale) || apierrors.IsConflict(err) || ctx.Err() != nil {
		return
	}
	if w.queue.NumRequeues(key) > 3 { // a few failures are life
		log.FromContext(ctx).Error(err, "Cannot synchronise yet", "resource", w.Name, "key", key.String())
	}
}
