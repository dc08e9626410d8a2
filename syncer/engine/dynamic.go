package engine

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/tenants"
)

// DynamicKind is a kind that comes and goes while the engine runs, and is synchronised with some tenants only.
type DynamicKind struct {
	Kind resource.Kind
	// Hash changes when Kind does.
	Hash string
	// To are the tenants that it is offered to.
	To sets.Set[names.TenantID]
}

// SetDynamic synchronises kinds from now on, in place of what was offered under the same names before. Where one is offered no
// more its replicas are removed.
func (e *Engine) SetDynamic(offers ...DynamicKind) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	roster := maps.Clone(e.kinds())
	changed := false
	for _, o := range offers {
		old := roster[o.Kind.Name]
		if old != nil && old.hash == o.Hash {
			if !old.to.Load().Equal(o.To) {
				old.to.Store(&o.To)
				changed = true
			}
			continue
		}
		w, err := e.newKindState(o.Kind)
		if err != nil {
			return err
		}
		w.hash = o.Hash
		w.to.Store(&o.To)
		roster[o.Kind.Name] = w
		changed = true
		if old != nil { // the tenants' caches are of another version, perhaps
			for _, t := range e.registry.All() {
				t.Unwatch(o.Kind.Name)
			}
		}
	}
	if !changed {
		return nil
	}
	e.setRoster(roster)
	for _, t := range e.registry.All() {
		e.align(t)
		for _, o := range offers {
			e.enqueueKind(t, roster[o.Kind.Name])
		}
	}
	return nil
}

// RemoveDynamic stops synchronising kinds that were offered. What there is of them stays as it is.
func (e *Engine) RemoveDynamic(kinds ...string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	roster := maps.Clone(e.kinds())
	maps.DeleteFunc(roster, func(name string, w *kindState) bool { return w.dynamic() && slices.Contains(kinds, name) })
	if len(roster) == len(e.kinds()) {
		return
	}
	e.setRoster(roster)
	for _, t := range e.registry.All() {
		for _, kind := range kinds {
			t.Unwatch(kind)
		}
	}
}

// setRoster replaces the kinds and asks Run to bring in line with them what runs. The caller holds e.mu.
func (e *Engine) setRoster(roster map[string]*kindState) {
	e.roster.Store(&roster)
	select {
	case e.changed <- struct{}{}:
	default: // it is asked already
	}
}

// Progress is how far an offered kind is with one tenant.
type Progress uint8

// The steps of Progress.
const (
	// Pending means that it is not synchronised yet.
	Pending Progress = iota
	// Serving means that it is synchronised.
	Serving
	// Refused means that the tenant has something in its place.
	Refused
)

// Progress returns how far a kind is with the tenants that it is offered to.
func (e *Engine) Progress(kind string) map[names.TenantID]Progress {
	w := e.kinds()[kind]
	if w == nil || !w.dynamic() {
		return nil
	}
	out := map[names.TenantID]Progress{}
	for id := range *w.to.Load() {
		out[id] = Pending
		if t := e.registry.Get(id); t != nil {
			out[id] = e.progress(t, w)
		}
	}
	return out
}

func (e *Engine) progress(t *tenants.Tenant, w *kindState) Progress {
	if w.Served != nil {
		err := w.Served(e.view(t))
		if _, refused := resource.AsReject(err); refused {
			return Refused
		}
		if err != nil {
			return Pending
		}
	}
	if e.ready(t, w) {
		return Serving
	}
	return Pending
}

// Left counts the replicas of an offered kind in tenants' places that it is not offered to; false if that is not known yet.
func (e *Engine) Left(kind string) (int, bool) {
	w := e.kinds()[kind]
	if w == nil {
		return 0, true
	}
	if !w.cache.Synced() {
		return 0, false
	}
	left := 0
	if w.Origin == resource.Tenant {
		w.cache.Each(func(o resource.Object) {
			if !w.to.Load().Has(names.TenantID(o.GetLabels()[names.LabelTenant])) {
				left++
			}
		})
		return left, true
	}
	for _, t := range e.registry.All() {
		if !w.to.Load().Has(t.Facts.ID) {
			left += replicas(t, w)
		}
	}
	return left, true
}

// replicas counts the replicas in a tenant of a kind whose truth is in the super cluster.
func replicas(t *tenants.Tenant, w *kindState) int {
	n := 0
	if c := t.Cache(w.Name); c != nil && w.Origin == resource.Super {
		c.Each(func(o resource.Object) {
			if o.GetAnnotations()[names.AnnotationUID] != "" {
				n++
			}
		})
	}
	return n
}

// dynamic says whether the kind came at run time.
func (w *kindState) dynamic() bool { return w.to.Load() != nil }

// withdrawn says whether the kind is not for this tenant.
func (w *kindState) withdrawn(id names.TenantID) bool {
	to := w.to.Load()
	return to != nil && !to.Has(id)
}

// align starts and stops the tenant's caches of the kinds that come and go.
func (e *Engine) align(t *tenants.Tenant) {
	for _, w := range e.kinds() {
		if !w.dynamic() || w.SuperOnly {
			continue
		}
		if w.Definition != "" && !w.withdrawn(t.Facts.ID) && t.Cache(w.Name) != nil && !t.CacheSynced(w.Definition) {
			continue // what it depends on is being read again
		}
		if !e.wanted(t, w) {
			t.Unwatch(w.Name)
			continue
		}
		if err := t.Watch(w.Kind); err != nil {
			t.Suspect()
		}
	}
}

// wanted says whether a tenant's objects of an offered kind are of interest.
func (e *Engine) wanted(t *tenants.Tenant, w *kindState) bool {
	if w.withdrawn(t.Facts.ID) {
		return !w.Keep && replicas(t, w) > 0 // until they are gone
	}
	return w.Served == nil || w.Served(e.view(t)) == nil
}

// ready says whether what is known of a kind and a tenant is enough to decide.
func (e *Engine) ready(t *tenants.Tenant, w *kindState) bool {
	if !w.cache.Synced() || !e.supplied(t) {
		return false
	}
	if w.withdrawn(t.Facts.ID) && w.Origin == resource.Tenant {
		return true // the replicas go, whatever the tenant says
	}
	return t.State() == tenants.Synced && current(t, w)
}

// current says whether the caches of a kind are filled on both sides.
func current(t *tenants.Tenant, w *kindState) bool {
	return w.cache.Synced() && (w.SuperOnly || t.CacheSynced(w.Name))
}

// supplied says whether there is everything of the super cluster that not every tenant needs, and this one does.
func (e *Engine) supplied(t *tenants.Tenant) bool {
	for _, w := range e.onDemand {
		if !w.cache.Synced() && w.OnDemand(t.Facts) {
			return false
		}
	}
	return true
}

// Hold keeps replicas that nothing seems to need any more, until Unhold: somebody who may refer to them is not known yet.
func (e *Engine) Hold(who string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.holds.Insert(who)
}

// Unhold ends a Hold.
func (e *Engine) Unhold(who string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.holds.Delete(who)
}

// referrersKnown says whether everything that may refer to a tenant's objects is known.
func (e *Engine) referrersKnown(t *tenants.Tenant) error {
	e.mu.Lock()
	holds := sets.List(e.holds)
	e.mu.Unlock()
	if len(holds) > 0 {
		return fmt.Errorf("%v is not known yet", holds)
	}
	for name, w := range e.kinds() {
		if w.dynamic() && !w.withdrawn(t.Facts.ID) && e.progress(t, w) == Pending {
			return fmt.Errorf("%s is not known yet", name)
		}
	}
	return nil
}

// CacheSynced implements tenants.Listener.
func (e *Engine) CacheSynced(t *tenants.Tenant, kind string) {
	defer e.survive(kind)
	if w := e.kinds()[kind]; w != nil {
		e.enqueueKind(t, w)
		e.options.KindProgressed(kind)
	}
}

// defined starts and stops caches after a tenant object changed that may define an offered kind.
func (e *Engine) defined(t *tenants.Tenant, w *kindState) {
	if w.dynamic() && (w.Keep || w.withdrawn(t.Facts.ID)) {
		e.align(t)
		e.options.KindProgressed(w.Name)
	}
}

// enqueueKind queues every key of one kind of a tenant.
func (e *Engine) enqueueKind(t *tenants.Tenant, w *kindState) {
	e.eachKeyOf(t, w, func(key resource.Key) { e.enqueueBacklog(w, key) })
}

// serve keeps the cache of one kind of the super cluster current until the context ends.
func (e *Engine) serve(ctx context.Context, w *kindState) {
	waits := []<-chan struct{}{w.demand}
	if w.Passing {
		waits = append(waits, e.cache(kindNamespaces).SyncDone()) // which say what is kept
	}
	if !await(ctx, waits...) {
		return
	}
	go w.cache.Run(ctx) // ends with the context, which a watch that has failed notices after up to 30 s; it only reads
	if !await(ctx, w.cache.SyncDone(), e.superSynced) {
		return
	}
	if w.OnDemand != nil {
		for _, t := range e.registry.All() {
			if w.OnDemand(t.Facts) {
				e.enqueueAll(t)
			}
		}
	}
	if w.dynamic() {
		for _, t := range e.registry.All() {
			e.align(t)
			e.enqueueKind(t, w)
		}
	}
	<-ctx.Done()
}

// await waits for everything, and returns false when the context ends before.
func await(ctx context.Context, all ...<-chan struct{}) bool {
	for _, done := range all {
		select {
		case <-ctx.Done():
			return false
		case <-done:
		}
	}
	return true
}
