package engine

import (
	"sync"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// share bounds how many workers of one kind a tenant may occupy at a time, so that one whose API server hangs cannot
// take them all. Keys over the bound are parked, and come back as soon as one of that tenant is done.
type share struct {
	bound int

	mu     sync.Mutex
	busy   map[names.TenantID]int            // guarded by mu
	parked map[names.TenantID][]resource.Key // guarded by mu
}

func newShare(workers int) *share {
	return &share{
		bound:  max(1, workers/2),
		busy:   map[names.TenantID]int{},
		parked: map[names.TenantID][]resource.Key{},
	}
}

// enter reports whether the key may be worked on now; if not, it is parked.
func (s *share) enter(k resource.Key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy[k.Tenant] >= s.bound {
		s.parked[k.Tenant] = append(s.parked[k.Tenant], k)
		return false
	}
	s.busy[k.Tenant]++
	return true
}

// leave gives the place back and returns the parked key to queue again, if any.
func (s *share) leave(tenant names.TenantID) (resource.Key, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy[tenant]--; s.busy[tenant] == 0 {
		delete(s.busy, tenant)
	}
	parked := s.parked[tenant]
	if len(parked) == 0 {
		return resource.Key{}, false
	}
	if len(parked) == 1 {
		delete(s.parked, tenant)
	} else {
		s.parked[tenant] = parked[1:]
	}
	return parked[0], true
}
