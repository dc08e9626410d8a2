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
	closed  bool                       // guarded by mu
}

// New returns an empty Registry. The life of connections ends with the context, which is that of the process, not of
// the call that asks for a connection.
func New(ctx context.Context, o Options) *Registry {
	return &Registry{options: o, ctx: func() context.Context { return ctx }, tenants: map[names.TenantID]*Tenant{}}
}

// Ensure makes the tenant connected as the spec says, replacing a connection made from another spec. It returns at
// once: connecting happens in the background.
func (r *Registry) Ensure(spec Spec) error {
	before := r.Get(spec.Facts.ID)
	if before != nil {
		if before.Hash == spec.Hash {
			before.SetBudget(spec.Budget)
			return nil
		}
		r.remove(spec.Facts.ID)
	}
	t, err := connect(spec, r.options)
	if err != nil {
		return fmt.Errorf("connecting to tenant %s: %w", spec.Facts.ID, err)
	}
	ctx, cancel := context.WithCancel(r.ctx())
	t.stop = cancel
	serve := r.options.Listener.Connected(t)
	if !r.add(t) {
		cancel()
		serve(ctx) // returns at once
		return fmt.Errorf("connecting to tenant %s: the syncer is ending", spec.Facts.ID)
	}
	go func() { // ends with the context, which Drop cancels
		defer close(t.released)
		if before != nil {
			<-before.released // what it still writes must not come after what this one writes
		}
		serve(ctx)
	}()
	go t.run(ctx) // ends with the context, too
	return nil
}

// add notes a tenant, unless the registry is closed.
func (r *Registry) add(t *Tenant) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.tenants[t.Facts.ID] = t
	}
	return !r.closed
}

// Drop disconnects the tenant. Keys of it that are still queued find it gone. It returns when nothing is written on behalf
// of the tenant any more, which takes as long as one call to an API server.
func (r *Registry) Drop(id names.TenantID) {
	if t := r.remove(id); t != nil {
		<-t.released
	}
}

// Close disconnects all tenants as Drop does. None can be connected any more.
func (r *Registry) Close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	all := r.All()
	for _, t := range all {
		r.remove(t.Facts.ID)
	}
	for _, t := range all {
		<-t.released
	}
}

// remove begins to disconnect the tenant, and returns it, nil if it is not connected.
func (r *Registry) remove(id names.TenantID) *Tenant {
	r.mu.Lock()
	t := r.tenants[id]
	delete(r.tenants, id)
	r.mu.Unlock()
	if t != nil {
		t.stop()
	}
	return t
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
