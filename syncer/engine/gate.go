package engine

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"k8s.io/utils/lru"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/tenants"
)

// BrakeOptions bound deletions whose cause is inferred while nothing tells whether a tenant deleted its objects or lost
// them: at the first contact, and when somebody removed the mark from the tenant.
type BrakeOptions struct {
	// Limit of such deletions per tenant and Window. What holds data or other objects always waits for a person. Default 100.
	Limit int
	// Window in which deletions are counted. Default one hour.
	Window time.Duration
}

// ground is what a deletion rests on.
type ground struct {
	side  resource.Side
	cause string
	// precious says that more would be lost than the object.
	precious bool
	// known says that the control plane went on from where it was last seen.
	known bool
	// witnessed says that the deletion of the origin was seen as it happened.
	witnessed bool
	// explained says that the namespace of the object is to be deleted, too.
	explained bool
}

// permission is what a ground is good for.
type permission uint8

const (
	// permitted deletions happen.
	permitted permission = iota
	// counted deletions happen up to a limit.
	counted
	// withheld deletions wait for a person.
	withheld
)

// permission says whether a deletion may happen. It is the only place that decides that, for every cause, kind and side.
func (g ground) permission() permission {
	switch g.cause {
	case resource.Deleted, resource.Withdrawn, resource.Superseded, resource.Readdressed:
		return permitted // the origin is there and says so, or the operator does
	}
	switch {
	case g.known || g.witnessed:
		return permitted
	case g.precious || g.explained:
		return withheld
	default:
		return counted
	}
}

// inferred says whether a cause is the absence of something, or something else in its place.
func (g ground) inferred() bool {
	return ground{cause: g.cause}.permission() != permitted
}

// Held is a deletion that waits for a person.
type Held struct {
	Side            resource.Side
	Resource        string
	Namespace, Name string
	Cause           string
	// Precious says that more would be lost than the object.
	Precious bool
}

// maxHeld bounds how many deletions of a tenant are held by name.
const maxHeld = 1000

// A witnessed deletion is remembered for as long as a key may take from the event to its operation, and only so many are. One
// that is forgotten is counted.
const (
	memory     = 10 * time.Minute
	maxWitness = 10000
)

// gate holds back deletions for each tenant.
type gate struct {
	options BrakeOptions

	mu      sync.Mutex
	tenants map[names.TenantID]*ledger // guarded by mu
}

// ledger is what the gate knows of one tenant. There is one only while nothing tells whether its objects were deleted.
type ledger struct {
	seen    *lru.Cache // of the time by sighting
	counted map[witness]time.Time
	held    map[witness]Held
	more    map[witness]bool // held, not by name
	// tripped means that no counted deletion happens until a person says so.
	tripped bool
}

// sighting is a deletion that was seen on one side.
type sighting struct {
	witness
	side resource.Side
}

// other returns the side whose object a deletion on the given one rests on.
func other(side resource.Side) resource.Side {
	if side == resource.Super {
		return resource.Tenant
	}
	return resource.Super
}

// witness names a key of a kind.
type witness struct {
	kind string
	key  resource.Key
}

func newGate(o BrakeOptions) *gate {
	if o.Limit <= 0 {
		o.Limit = 100
	}
	if o.Window <= 0 {
		o.Window = time.Hour
	}
	return &gate{options: o, tenants: map[names.TenantID]*ledger{}}
}

// of returns the ledger of a tenant. The caller holds g.mu.
func (g *gate) of(tenant names.TenantID) *ledger {
	l := g.tenants[tenant]
	if l == nil {
		l = &ledger{seen: lru.New(maxWitness), counted: map[witness]time.Time{}, held: map[witness]Held{}, more: map[witness]bool{}}
		g.tenants[tenant] = l
	}
	return l
}

// witnessed notes that the deletion of an object was seen on one side.
func (g *gate) witnessed(side resource.Side, kind string, key resource.Key, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.of(key.Tenant).seen.Add(sighting{witness{kind, key}, side}, now)
}

// saw says whether the deletion of an object was seen on one side not long ago.
func (g *gate) saw(side resource.Side, kind string, key resource.Key, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.tenants[key.Tenant]
	return l != nil && l.saw(sighting{witness{kind, key}, side}, now)
}

func (l *ledger) saw(w sighting, now time.Time) bool {
	at, ok := l.seen.Get(w)
	seen, _ := at.(time.Time)
	return ok && now.Sub(seen) <= memory
}

// trip holds back deletions of a tenant from now on, because they were held back before.
func (g *gate) trip(tenant names.TenantID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.of(tenant).tripped = true
}

// allow reports whether a deletion may happen, and notes it when it may not. An object counts once, however often it is tried.
func (g *gate) allow(kind string, key resource.Key, on ground, now time.Time) bool {
	if on.known || !on.inferred() {
		return true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	l, w := g.of(key.Tenant), witness{kind, key}
	on.witnessed = l.saw(sighting{w, other(on.side)}, now)
	switch on.permission() {
	case permitted:
		return true
	case counted:
		if !l.tripped && l.count(w, g.options, now) {
			return true
		}
		l.tripped = true
	case withheld:
	}
	l.hold(w, on)
	return false
}

// count counts an object, and says whether it is within the limit.
func (l *ledger) count(w witness, o BrakeOptions, now time.Time) bool {
	if at, again := l.counted[w]; again && now.Sub(at) <= o.Window {
		return true
	}
	for other, at := range l.counted {
		if now.Sub(at) > o.Window {
			delete(l.counted, other)
		}
	}
	if len(l.counted) >= o.Limit {
		return false
	}
	l.counted[w] = now
	return true
}

func (l *ledger) hold(w witness, on ground) {
	if _, named := l.held[w]; !named && len(l.held) >= maxHeld {
		l.more[w] = true
		return
	}
	l.held[w] = Held{
		Side: on.side, Resource: w.kind, Namespace: w.key.Namespace, Name: w.key.Name, Cause: on.cause, Precious: on.precious,
	}
}

// forget forgets that a deletion is held, because it is not wanted any more.
func (g *gate) forget(kind string, key resource.Key) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if l := g.tenants[key.Tenant]; l != nil {
		delete(l.held, witness{kind, key})
		delete(l.more, witness{kind, key})
	}
}

// release forgets everything about a tenant: it is known again, or gone.
func (g *gate) release(tenant names.TenantID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.tenants, tenant)
}

// braked says whether deletions of the tenant wait for a person.
func (g *gate) braked(tenant names.TenantID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.tenants[tenant]
	return l != nil && (l.tripped || len(l.held) > 0)
}

// list returns what is held of a tenant, and how much it is.
func (g *gate) list(tenant names.TenantID) ([]Held, int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.tenants[tenant]
	if l == nil {
		return nil, 0
	}
	out := make([]Held, 0, len(l.held))
	for _, h := range l.held {
		out = append(out, h)
	}
	return sorted(out), len(l.held) + len(l.more)
}

// sorted puts what matters most first.
func sorted(held []Held) []Held {
	slices.SortFunc(held, func(a, b Held) int {
		if a.Precious != b.Precious {
			if a.Precious {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(a.Side, b.Side), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Resource, b.Resource), cmp.Compare(a.Name, b.Name))
	})
	return held
}

// groundOf returns what a deletion rests on. What is in a namespace that is absent goes with it.
func groundOf(t *tenants.Tenant, w *kindState, key resource.Key, op resource.Op) ground {
	return ground{
		side: op.Side, cause: op.Why, precious: w.Precious, known: t.Known(),
		explained: op.Side == resource.Super && key.Namespace != "" && t.Get(resource.Ref{Kind: kindNamespaces, Name: key.Namespace}) == nil,
	}
}
