package engine

import (
	"sync"
	"time"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// BrakeOptions bound deletions of super objects whose tenant objects disappeared without anybody seeing it happen, as
// they do when a control plane is restored from an older backup.
type BrakeOptions struct {
	// Limit of unwitnessed deletions per tenant and Window. Default 100.
	Limit int
	// Window in which deletions are counted. Default one hour.
	Window time.Duration
}

// memory is how long a witnessed deletion is remembered: the time a key may take from the event to its operation.
const memory = 10 * time.Minute

// brake stops a mass disappearance from becoming a mass deletion. Deletions that were seen as they happened pass;
// others are counted, and once there were too many, none passes until a person releases the brake of the tenant.
type brake struct {
	options BrakeOptions

	mu      sync.Mutex
	seen    map[witness]time.Time         // guarded by mu
	swept   time.Time                     // guarded by mu
	blind   map[names.TenantID]*blindness // guarded by mu
	tripped map[names.TenantID]bool       // guarded by mu
}

type witness struct {
	kind string
	key  resource.Key
}

type blindness struct {
	since time.Time
	count int
}

func newBrake(o BrakeOptions) *brake {
	if o.Limit <= 0 {
		o.Limit = 100
	}
	if o.Window <= 0 {
		o.Window = time.Hour
	}
	return &brake{options: o, seen: map[witness]time.Time{}, blind: map[names.TenantID]*blindness{}, tripped: map[names.TenantID]bool{}}
}

// witnessed notes that the deletion of the tenant object was seen.
func (b *brake) witnessed(kind string, key resource.Key, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seen[witness{kind, key}] = now
	if now.Sub(b.swept) < memory {
		return
	}
	b.swept = now
	for w, at := range b.seen {
		if now.Sub(at) > memory {
			delete(b.seen, w)
		}
	}
}

// allow reports whether a deletion may happen, and counts it if nobody saw its cause.
func (b *brake) allow(kind string, key resource.Key, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.seen[witness{kind, key}]; ok {
		return true
	}
	if b.tripped[key.Tenant] {
		return false
	}
	count := b.blind[key.Tenant]
	if count == nil || now.Sub(count.since) > b.options.Window {
		count = &blindness{since: now}
		b.blind[key.Tenant] = count
	}
	if count.count++; count.count > b.options.Limit {
		b.tripped[key.Tenant] = true
		return false
	}
	return true
}

// release lets deletions of the tenant pass again.
func (b *brake) release(tenant names.TenantID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.tripped, tenant)
	delete(b.blind, tenant)
}

// isTripped reports whether the brake of the tenant is on.
func (b *brake) isTripped(tenant names.TenantID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.tripped[tenant]
}
