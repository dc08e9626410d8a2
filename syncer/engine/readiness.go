package engine

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/log"
)

// sayUnfilled is how often the log says which kinds keep the engine from working.
const sayUnfilled = 10 * time.Second

// CheckFilled returns why the cache of a kind of the super cluster is not current, nil when it is, or when no tenant needs the
// kind. As long as one of the kinds that every tenant needs is not current, nothing is synchronised.
func (e *Engine) CheckFilled(kind string) error {
	w := e.kinds()[kind]
	if w == nil || w.cache.Synced() || !w.demandedYet() {
		return nil
	}
	if err := w.failure.Load(); err != nil {
		return fmt.Errorf("reading %s of the super cluster: %w", kind, *err)
	}
	return fmt.Errorf("%s of the super cluster are still being read", kind)
}

// active says whether keys are worked on.
func (e *Engine) active() bool {
	select {
	case <-e.superFilled:
		return e.running.Load()
	default:
		return false
	}
}

// awaitSuper waits for the caches of the super cluster, and says meanwhile what is missing; false when the context ended.
func (e *Engine) awaitSuper(ctx context.Context) bool {
	ticker := time.NewTicker(sayUnfilled)
	defer ticker.Stop()
	for _, w := range e.kinds() {
		for filled := w.offered() || w.OnDemand != nil; !filled; {
			select {
			case <-ctx.Done():
				return false
			case <-w.cache.Filled():
				filled = true
			case <-ticker.C:
				e.logUnfilled(ctx)
			}
		}
	}
	return true
}

func (e *Engine) logUnfilled(ctx context.Context) {
	kinds := e.kinds()
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		if err := e.CheckFilled(kind); err != nil && !kinds[kind].offered() {
			log.FromContext(ctx).Error(err, "Nothing is synchronised until the super cluster lets this kind be read", "resource", kind)
		}
	}
}
