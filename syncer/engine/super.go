package engine

import (
	"context"
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/virtualcluster-io/virtualcluster/syncer/cluster"
	"github.com/virtualcluster-io/virtualcluster/syncer/continuity"
)

// superHistory is what was seen of the super cluster.
type superHistory struct {
	client *cluster.Client

	mu   sync.Mutex
	seen continuity.Super // guarded by mu
	at   time.Time        // guarded by mu
	// broken is closed, and why set before, when the super cluster is not what it was.
	broken chan struct{}
	why    error // guarded by mu
}

func newSuperHistory(client *cluster.Client) *superHistory {
	return &superHistory{client: client, broken: make(chan struct{})}
}

// look returns how far the super cluster is. A look that is younger than maxAge counts. It fails for good once the super
// cluster turns out to be another one, or to be restored from a backup: what the caches hold is of no use then.
func (s *superHistory) look(ctx context.Context, maxAge time.Duration) (continuity.Super, error) {
	s.mu.Lock()
	before, why, fresh := s.seen, s.why, s.seen.Identity != "" && time.Since(s.at) < maxAge
	s.mu.Unlock()
	if why != nil {
		return continuity.Super{}, why
	}
	if fresh {
		return before, nil
	}
	at := time.Now()
	sight, err := s.client.Look(ctx)
	if err != nil {
		return continuity.Super{}, fmt.Errorf("looking at the super cluster: %w", err)
	}
	now := continuity.Super{Identity: sight.System.UID, Revision: sight.Revision}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.why != nil:
	case before.Identity != "" && before.Identity != now.Identity:
		s.why = fmt.Errorf("another super cluster answers: its kube-system namespace has UID %s, before it was %s; vc-syncer reads everything anew", now.Identity, before.Identity)
		close(s.broken)
	case now.Revision < before.Revision:
		s.why = fmt.Errorf("the super cluster was restored from a backup: its resource version is %d, and was %d before; vc-syncer reads everything anew", now.Revision, before.Revision)
		close(s.broken)
	default:
		if now.Revision > s.seen.Revision {
			s.seen, s.at = now, at
		}
		if at.After(s.at) {
			s.at = at
		}
		return s.seen, nil
	}
	return continuity.Super{}, s.why
}

// watch looks at the super cluster now and then until the context ends.
func (s *superHistory) watch(ctx context.Context, interval time.Duration) {
	wait.UntilWithContext(ctx, func(ctx context.Context) {
		_, _ = s.look(ctx, 0) // one that does not answer is looked at again
	}, interval)
}

// err returns how the super cluster is not what it was.
func (s *superHistory) err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.why
}
