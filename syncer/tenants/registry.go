package tenants

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/continuity"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// Options of a Registry.
type Options struct {
	// Kinds to cache.
	Kinds []resource.Kind
	// Timeout of every call to a tenant.
	Timeout time.Duration
	// Probe is the interval between health and identity probes.
	Probe time.Duration
	// Super looks at the super cluster. A look that is younger than maxAge counts.
	Super func(ctx context.Context, maxAge time.Duration) (continuity.Super, error)
	// Listener is told what happens.
	Listener Listener
}

// Registry holds the connected tenants.
type Registry struct {
	options Options
	ctx     func() context.Context

	mu      sync.RWMutex
	tenants map[names.TenantID]*Tenant // guarded by mu, never held over I/O
}

// New returns an empty Registry. The life of connections ends with the context, which is that of the process, not of
// the call that asks for a connection.
func New(ctx context.Context, o Options) *Registry {
	return &Registry{options: o, ctx: func() context.Context { return ctx }, tenants: map[names.TenantID]*Tenant{}}
}

// Ensure makes the tenant connected as the spec says, replacing a connection made from another spec. It returns at
// once: connecting happens in the background.
func (r *Registry) Ensure(spec Spec) error {
	if t := r.Get(spec.Facts.ID); t != nil {
		if t.Hash == spec.Hash {
			return nil
		}
		r.Drop(spec.Facts.ID)
	}
	t, err := connect(spec, r.options)
	if err != nil {
		return fmt.Errorf("connecting to tenant %s: %w", spec.Facts.ID, err)
	}
	ctx, cancel := context.WithCancel(r.ctx())
	t.stop = cancel
	r.mu.Lock()
	r.tenants[spec.Facts.ID] = t
	r.mu.Unlock()
	go t.run(ctx) // ends with the context, which Drop cancels
	return nil
}

// Drop disconnects the tenant. Keys of it that are still queued find it gone.
func (r *Registry) Drop(id names.TenantID) {
	r.mu.Lock()
	t := r.tenants[id]
	delete(r.tenants, id)
	r.mu.Unlock()
	if t != nil {
		t.stop()
	}
}

// Get returns the tenant, nil if it is not connected.
func (r *Registry) Get(id names.TenantID) *Tenant {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.tenants[id]
}

// All returns the connected tenants.
func (r *Registry) All() []*Tenant {
	r.mu.RLock()
	defer r.mu.RUnlock()
	all := make([]*Tenant, 0, len(r.tenants))
	for _, t := range r.tenants {
		all = append(all, t)
	}
	return all
}
