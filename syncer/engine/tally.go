package engine

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// tally counts the objects of one kind in the super cluster that were made for each tenant. Those that were made and that the
// cache has not shown yet count, too.
type tally struct {
	mu sync.Mutex
	of map[names.TenantID]*count // guarded by mu
}

type count struct {
	shown  int64
	making map[types.NamespacedName]time.Time
}

// reserve makes room for an object, false if the tenant has as many as it may have.
func (c *tally) reserve(id names.TenantID, op resource.Op, bound int64, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	of, name := c.get(id), nameOf(op.Object)
	if _, made := of.making[name]; !made && of.used(now) >= bound {
		return false
	}
	of.making[name] = now
	return true
}

// release gives back the room for an object that could not be made.
func (c *tally) release(id names.TenantID, op resource.Op) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.get(id).making, nameOf(op.Object))
	c.sweep(id)
}

// free says whether there is room.
func (c *tally) free(id names.TenantID, bound int64, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.sweep(id)
	return c.get(id).used(now) < bound
}

// shows counts a change that the cache shows, for the tenants of the object before and after; empty for none.
func (c *tally) shows(before, after names.TenantID, name types.NamespacedName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if before != "" {
		c.get(before).shown--
	}
	if after != "" {
		of := c.get(after)
		of.shown++
		delete(of.making, name)
	}
	c.sweep(before)
}

// used returns how many there are. What was made and is not shown after a while was removed at once, or shown before.
func (o *count) used(now time.Time) int64 {
	for name, at := range o.making {
		if now.Sub(at) > awaitShown {
			delete(o.making, name)
		}
	}
	return o.shown + int64(len(o.making))
}

// get returns those of a tenant. The caller holds c.mu.
func (c *tally) get(id names.TenantID) *count {
	if c.of == nil {
		c.of = map[names.TenantID]*count{}
	}
	of := c.of[id]
	if of == nil {
		of = &count{making: map[types.NamespacedName]time.Time{}}
		c.of[id] = of
	}
	return of
}

// sweep forgets a tenant that has none. The caller holds c.mu.
func (c *tally) sweep(id names.TenantID) {
	if of := c.of[id]; of != nil && of.shown == 0 && len(of.making) == 0 {
		delete(c.of, id)
	}
}

// tallied counts a change of the cache. It returns the tenant of an object that is gone.
func (w *kindState) tallied(old, now resource.Object) names.TenantID {
	before, after := w.madeFor(old), w.madeFor(now)
	o := now
	if o == nil {
		o = old
	}
	w.tally.shows(before, after, nameOf(o))
	if before != after {
		return before
	}
	return ""
}

// madeFor returns the tenant that a super object is a replica for, empty if it is none, or belongs to one of another kind.
func (w *kindState) madeFor(o resource.Object) names.TenantID {
	if o == nil || w.Origin != resource.Tenant {
		return ""
	}
	if _, routed := w.Route(o); routed {
		return ""
	}
	return names.TenantID(o.GetLabels()[names.LabelTenant])
}

func nameOf(o resource.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
}
