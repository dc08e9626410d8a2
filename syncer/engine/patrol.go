package engine

import (
	"context"
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/tenants"
)

const (
	// patrolParts is how many looks a patrol takes: each at another part of the objects of each tenant, so that its work is spread
	// over the interval.
	patrolParts = 10
	// patrolJitter spreads looks, as a share of the time between them.
	patrolJitter = 0.1
)

// part selects a share of the objects.
type part struct {
	seed   maphash.Seed
	number uint64
}

// has says whether an item belongs to the part. It does to everything, which is nil.
func (p *part) has(i item) bool {
	return p == nil || maphash.Comparable(p.seed, i)%patrolParts == p.number
}

// patrol decides about everything once in an interval, and queues what differs. It writes nothing.
func (e *Engine) patrol(ctx context.Context) {
	next := time.NewTimer(0)
	defer next.Stop()
	of := &part{seed: maphash.MakeSeed()}
	for {
		select {
		case <-ctx.Done():
			return
		case id := <-e.surveys.asked:
			if t := e.registry.Get(id); t != nil {
				e.look(ctx, t, nil)
			}
		case <-next.C:
			for _, t := range e.registry.All() {
				e.look(ctx, t, of)
			}
			e.notices.sweep(func(id names.TenantID) bool { return e.registry.Get(id) != nil })
			of.number = (of.number + 1) % patrolParts
			next.Reset(wait.Jitter(e.options.Patrol/patrolParts, patrolJitter))
		}
	}
}

// look patrols a part of one tenant, or surveys one that waits for a person. What is not known yet has to be explained as a
// whole.
func (e *Engine) look(ctx context.Context, t *tenants.Tenant, of *part) {
	switch state := t.State(); {
	case state == tenants.Synced && t.Known():
		e.patrolTenant(ctx, t, of)
	case state == tenants.Synced:
		e.patrolTenant(ctx, t, nil)
	case state.Halted():
		e.survey(ctx, t)
	}
}

func (e *Engine) patrolTenant(ctx context.Context, t *tenants.Tenant, of *part) {
	began, checked, found, unexplained := time.Now(), 0, 0, 0
	e.decideAll(ctx, t, of, func(w *kindState, d decision) {
		checked++
		if d.unexplained(w.Origin, func(side resource.Side) bool { return e.gate.saw(side, w.Name, d.key, e.now()) }) {
			unexplained++
		}
		if e.tried(w, d.key) {
			return
		}
		if _, incomplete := resource.AsIncomplete(d.err); incomplete && e.compared.get(witness{w.Name, d.key}) != versionsOf(d.tenant, d.super) {
			e.enqueueBacklog(w, d.key) // metadata does not tell whether there is a difference
			return
		}
		pointless := func(op resource.Op) bool { return e.pointless(w, d.key, op) }
		if ops := slices.DeleteFunc(d.ops, pointless); d.err == nil && len(ops) > 0 {
			found++
			e.metrics.drift.WithLabelValues(w.Name).Inc()
			e.enqueueBacklog(w, d.key)
		}
	})
	if !t.Known() && unexplained == 0 && !e.gate.braked(t.Facts.ID) && ctx.Err() == nil {
		t.Accept() // nothing is missing, so nothing is to be explained
	}
	log.FromContext(ctx).V(1).Info("Patrolled", "tenant", t.Facts.ID, "checked", checked, "found", found, "took", time.Since(began).String())
}

// decision is what was decided about a key.
type decision struct {
	key           resource.Key
	tenant, super resource.Object
	ops           []resource.Op
	err           error
}

// unexplained says whether an object is to be deleted, now or later, for a cause that is inferred: a replica may be kept for a
// while although its origin is gone. A deletion that was seen on the side that it rests on is explained.
func (d decision) unexplained(origin resource.Side, seen func(resource.Side) bool) bool {
	of, replica := d.tenant, d.super
	if origin == resource.Super {
		of, replica = d.super, d.tenant
	}
	if d.err != nil && of == nil && replica != nil && !seen(origin) {
		return true
	}
	return slices.ContainsFunc(d.ops, func(op resource.Op) bool { return infers(op) && !seen(other(op.Side)) })
}

// infers says whether an operation is a deletion whose cause is inferred.
func infers(op resource.Op) bool { return deletes(op) && ground{cause: op.Why}.inferred() }

// decideAll decides about every key in a part of a tenant of which enough is known, and carries nothing out.
func (e *Engine) decideAll(ctx context.Context, t *tenants.Tenant, of *part, f func(*kindState, decision)) {
	v := e.view(t)
	e.eachKey(t, func(w *kindState, key resource.Key) {
		if ctx.Err() != nil || !of.has(item{w.Name, key}) || !e.ready(t, w) && (!t.State().Halted() || !current(t, w)) {
			return
		}
		v.Withdrawn = w.withdrawn(key.Tenant)
		d := decision{key: key}
		d.tenant, d.super = e.pair(t, w.Kind, key)
		d.ops, d.err = w.Decide(v, key, d.tenant, d.super)
		f(w, d)
	})
}

// surveys are lists of what would be deleted for tenants that wait for a person.
type surveys struct {
	asked chan names.TenantID // tenants to look at soon

	mu   sync.Mutex
	done map[names.TenantID]survey // guarded by mu
}

type survey struct {
	held  []Held
	count int
}

// maxSurveys bounds how many surveys wait. The patrol makes those that are over it.
const maxSurveys = 1024

// askLook asks to look at a tenant soon.
func (e *Engine) askLook(t *tenants.Tenant) {
	select {
	case e.surveys.asked <- t.Facts.ID:
	default:
	}
}

// survey lists what would be deleted if a tenant that waits for a person were released.
func (e *Engine) survey(ctx context.Context, t *tenants.Tenant) {
	var s survey
	e.decideAll(ctx, t, nil, func(w *kindState, d decision) {
		for _, op := range d.ops {
			if !infers(op) {
				continue
			}
			if s.count++; len(s.held) < maxHeld {
				s.held = append(s.held, Held{
					Side: op.Side, Resource: w.Name, Namespace: d.key.Namespace, Name: d.key.Name, Cause: op.Why, Precious: w.Precious,
				})
			}
		}
	})
	sorted(s.held)
	e.surveys.mu.Lock()
	if e.surveys.done == nil {
		e.surveys.done = map[names.TenantID]survey{}
	}
	e.surveys.done[t.Facts.ID] = s
	e.surveys.mu.Unlock()
	e.options.Moved(t.Facts.ID, t.State(), t.Message())
}

// Held returns deletions that wait for a person, what matters most first, and how many there are in all.
func (e *Engine) Held(t *tenants.Tenant) ([]Held, int) {
	if t.Memory().Halt == "" {
		return e.gate.list(t.Facts.ID)
	}
	e.surveys.mu.Lock()
	defer e.surveys.mu.Unlock()
	s := e.surveys.done[t.Facts.ID]
	return s.held, s.count
}

// Release goes on with a tenant that waits for a person, or whose deletions do, with the control plane as it is now. It takes a
// moment: the tenant is marked first.
func (e *Engine) Release(t *tenants.Tenant) { t.Accept() }

// Remember implements tenants.Listener.
func (e *Engine) Remember(t *tenants.Tenant) {
	if id := t.Facts.ID; t.Known() {
		braked := e.gate.braked(id)
		e.gate.release(id)
		e.surveys.mu.Lock()
		delete(e.surveys.done, id)
		e.surveys.mu.Unlock()
		if braked {
			e.enqueueAll(t)
		}
	}
	e.options.Moved(t.Facts.ID, t.State(), t.Message())
}

// Braked reports whether deletions of the tenant are held back until a person releases them.
func (e *Engine) Braked(t *tenants.Tenant) bool { return e.gate.braked(t.Facts.ID) }

// waits says whether anything about a tenant waits for a person.
func (e *Engine) waits(t *tenants.Tenant) bool { return e.Braked(t) || t.Memory().Halt != "" }
