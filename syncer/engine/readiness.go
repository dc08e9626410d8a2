package engine

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/log"
)

// unsyncedInterval is how often the log says which kinds keep the engine from working.
const unsyncedInterval = 10 * time.Second

// CheckCacheSynced returns why the cache of a kind of the super cluster is not current, nil when it is, or when no tenant needs the
// kind. As long as one of the kinds that every tenant needs is not current, nothing is synchronised.
func (e *Engine) CheckCacheSynced(kind string) error {
	w := e.kinds()[kind]
	if w == nil || w.cache.Synced() || !w.demandedYet() {
		return nil
	}
	if _, err := w.cache.Failing(); err != nil {
		return fmt.Errorf("reading %s of the super cluster: %w", kind, err)
	}
	return fmt.Errorf("%s of the super cluster are still being read", kind)
}

// Current returns a channel that is closed once the caches of the super cluster that every tenant needs are current.
func (e *Engine) Current() <-chan struct{} { return e.superSynced }

// active says whether keys are worked on.
func (e *Engine) active() bool {
	select {
	case <-e.superSynced:
		return e.running.Load()
	default:
		return false
	}
}

// awaitSuper waits for the caches of the super cluster, and says meanwhile what is missing; false when the context ended.
func (e *Engine) awaitSuper(ctx context.Context) bool {
	ticker := time.NewTicker(unsyncedInterval)
	defer ticker.Stop()
	for _, w := range e.kinds() {
		for filled := w.dynamic() || w.OnDemand != nil; !filled; {
			select {
			case <-ctx.Done():
				return false
			case <-w.cache.SyncDone():
				filled = true
			case <-ticker.C:
				e.logUnsynced(ctx)
			}
		}
	}
	return true
}

func (e *Engine) logUnsynced(ctx context.Context) {
	kinds := e.kinds()
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		if err := e.CheckCacheSynced(kind); err != nil && !kinds[kind].dynamic() {
			log.FromContext(ctx).Error(err, "Nothing is synchronised until the super cluster lets this kind be read", "resource", kind)
		}
	}
}
