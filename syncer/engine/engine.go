// Package engine is the generic loop of the syncer. Tenant events, super events and the patrol only put keys into the
// queues of tenants; workers read both caches, ask the kind to decide, and one executor carries out what it returns. It holds no
// knowledge of any kind; package syncer composes it with the list of kinds.
package engine

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/lru"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/cluster"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/tenants"
)

// Options of an Engine.
type Options struct {
	// Kinds to synchronise.
	Kinds []resource.Kind
	// Super reaches the super cluster.
	Super *rest.Config
	// Workers is how many objects of one tenant are worked on at the same time. Default 8.
	Workers int
	// SuperCalls is how many calls to the super cluster are made at the same time, for all tenants. Default 32.
	SuperCalls int
	// Timeout of every call to an API server.
	Timeout time.Duration
	// Probe is the interval between health and identity probes of a tenant.
	Probe time.Duration
	// Patrol is the interval in which the patrol looks at everything once.
	Patrol time.Duration
	// Brake bounds deletions whose cause was not witnessed, see gate.
	Brake BrakeOptions
	// Registerer receives the metrics.
	Registerer prometheus.Registerer
	// PerTenant adds metrics of each tenant.
	PerTenant bool
	// KindProgressed is told when an offered kind may have made progress with a tenant. It must not block.
	KindProgressed func(kind string)
	// OnBehalf notes in a context for which tenant the super cluster is written to.
	OnBehalf func(context.Context, names.TenantID) context.Context
	// Moved is told when the connection to a tenant changes its state, or there is something to remember. It must not block.
	Moved func(id names.TenantID, state tenants.State, message string)
}

func (o *Options) complete() error {
	if len(o.Kinds) == 0 || o.Super == nil || o.Registerer == nil {
		return fmt.Errorf("an engine needs kinds, a super cluster and a metrics registerer")
	}
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{{&o.Timeout, 10 * time.Second}, {&o.Probe, 10 * time.Second}, {&o.Patrol, 10 * time.Minute}} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	if o.Workers <= 0 {
		o.Workers = 8
	}
	if o.SuperCalls <= 0 {
		o.SuperCalls = 32
	}
	if o.KindProgressed == nil {
		o.KindProgressed = func(string) {}
	}
	if o.OnBehalf == nil {
		o.OnBehalf = func(ctx context.Context, _ names.TenantID) context.Context { return ctx }
	}
	if o.Moved == nil {
		o.Moved = func(names.TenantID, tenants.State, string) {}
	}
	return nil
}

// Engine synchronises every kind of every tenant.
type Engine struct {
	options Options
	roster  atomic.Pointer[map[string]*kindState] // replaced as a whole, never changed
	changed chan struct{}                         // says that the roster is not what runs
	super   *cluster.Client
	// superHistory tells whether the super cluster is still what it was.
	superHistory *superHistory
	registry     *tenants.Registry
	gate         *gate
	surveys      surveys
	pools        sync.Map // of *pool, by names.TenantID
	turns        *turns
	crew         *crew
	notices      *notices
	sent         *sent
	vetted       *vetted
	compared     *compared
	broken       *lru.Cache // of errors, by version
	metrics      *metrics
	now          func() time.Time
	// superSynced is closed once the caches of the kinds that the engine was made with are current.
	superSynced chan struct{}
	onDemand    []*kindState // kinds of the super cluster that not every tenant needs; never changed
	// suspected says that a call to the super cluster failed.
	suspected chan struct{}
	running   atomic.Bool // says that Run has begun and not ended

	mu    sync.Mutex       // also held while the roster is replaced
	holds sets.Set[string] // guarded by mu
}

// kindState is what the engine holds for one kind.
type kindState struct {
	resource.Kind
	cache *cluster.Cache // of the super cluster
	// stamps are for metrics.
	stamps stamps
	// tally counts the replicas of each tenant.
	tally tally
	// demand is closed once a tenant needs the kind.
	demand   chan struct{}
	demanded sync.Once
	// hash and to are those of the Offer; to is nil for a kind that the engine was made with.
	hash string
	to   atomic.Pointer[sets.Set[names.TenantID]]
}

// indexTenant files super objects under the tenant they were made for; indexOwner under the UIDs of their owners;
// indexAddress files nodes under their addresses; indexNode files pods under the tenant they were made for and their node,
// indexHost under their node alone; indexHome files objects whose truth is in the super cluster under the namespace that
// they belong to.
const (
	indexTenant  = "tenant"
	indexOwner   = "owner"
	indexAddress = "address"
	indexNode    = "node"
	indexHost    = "host"
	indexHome    = "home"
)

// New returns an Engine. Connections to tenants live until the context ends.
func New(ctx context.Context, o Options) (*Engine, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	super, err := cluster.NewClient(o.Super, o.Timeout) //nolint:forbidigo // Of the super cluster.
	if err != nil {
		return nil, err
	}
	e := &Engine{
		options: o, super: super, superHistory: newSuperHistory(super),
		gate:     newGate(o.Brake),
		surveys:  surveys{asked: make(chan names.TenantID, maxSurveys)},
		notices:  &notices{},
		sent:     &sent{},
		vetted:   &vetted{},
		compared: &compared{},
		crew:     newCrew(),
		broken:   lru.New(maxRemembered),
		now:      time.Now,
		holds:    sets.New[string](),

		changed:     make(chan struct{}, 1),
		superSynced: make(chan struct{}),
		suspected:   make(chan struct{}, 1),
	}
	if e.metrics, err = newMetrics(o.Registerer, e); err != nil {
		return nil, err
	}
	e.turns = newTurns(o.SuperCalls, e.metrics.waited)
	roster := map[string]*kindState{}
	for _, k := range o.Kinds {
		w, err := e.newKindState(k)
		if err != nil {
			return nil, err
		}
		roster[k.Name] = w
		if w.OnDemand != nil {
			e.onDemand = append(e.onDemand, w)
		}
	}
	e.roster.Store(&roster)
	guarded := make([]resource.Kind, len(o.Kinds))
	for i, k := range o.Kinds {
		guarded[i] = e.guarded(k)
	}
	e.registry = tenants.New(ctx, tenants.Options{Kinds: guarded, Timeout: o.Timeout, Probe: o.Probe, Super: e.superHistory.look, Listener: e})
	return e, nil
}

// newKindState returns what is held for a kind. It does nothing yet.
func (e *Engine) newKindState(k resource.Kind) (*kindState, error) {
	k = e.guarded(k)
	w := &kindState{Kind: k, demand: make(chan struct{})}
	if k.OnDemand == nil {
		w.needed()
	}
	selector := k.SuperSelector
	if selector == (resource.Selector{}) {
		selector.Labels = names.LabelManagedBy + "=" + names.Syncer
	}
	var err error
	options := cluster.CacheOptions{
		Kind: k, Selector: selector,
		Indexers: cache.Indexers{
			indexTenant: byTenant, indexOwner: byOwner, indexAddress: byAddress, indexNode: byNode, indexHost: byHost,
			indexHome: byHome(k),
		},
		Handler: cluster.Handler{
			Changed: func(old, now resource.Object) {
				w.tallied(old, now)
				e.superChanged(w, old, now)
			},
			Gone: func(last resource.Object, seen bool) {
				if seen {
					e.superGone(w, last)
				}
				e.superChanged(w, last, nil)
				if id := w.tallied(last, nil); id != "" {
					e.room(w, id)
				}
			},
		},
	}
	if k.Passing {
		options.Keep = func(o resource.Object) bool {
			_, _, tenants := e.tenantNamespace(k.Home(o))
			return tenants
		}
	}
	w.cache, err = e.super.NewCache(options)
	if err != nil {
		return nil, fmt.Errorf("watching %s of the super cluster: %w", k.Name, err)
	}
	return w, nil
}

// needed starts the watch of the super cluster, if it has not been started.
func (w *kindState) needed() { w.demanded.Do(func() { close(w.demand) }) }

// demandedYet says whether a tenant needs the kind.
func (w *kindState) demandedYet() bool {
	select {
	case <-w.demand:
		return true
	default:
		return false
	}
}

// kinds returns what is synchronised now, by name. The map is read-only.
func (e *Engine) kinds() map[string]*kindState { return *e.roster.Load() }

// cache returns the cache of a kind in the super cluster, nil if it is not synchronised.
func (e *Engine) cache(kind string) *cluster.Cache {
	if w := e.kinds()[kind]; w != nil {
		return w.cache
	}
	return nil
}

func byTenant(in any) ([]string, error) {
	if o, ok := in.(resource.Object); ok {
		if id := o.GetLabels()[names.LabelTenant]; id != "" {
			return []string{id}, nil
		}
	}
	return nil, nil
}

func byHome(k resource.Kind) cache.IndexFunc {
	return func(in any) ([]string, error) {
		o, ok := in.(resource.Object)
		if !ok || k.Origin != resource.Super || k.Everyone {
			return nil, nil
		}
		if home := k.Home(o); home != "" {
			return []string{home}, nil
		}
		return nil, nil
	}
}

func byOwner(in any) ([]string, error) {
	o, ok := in.(resource.Object)
	if !ok {
		return nil, nil
	}
	var owners []string
	for _, owner := range o.GetOwnerReferences() {
		owners = append(owners, string(owner.UID))
	}
	return owners, nil
}

func byNode(in any) ([]string, error) {
	if pod, ok := in.(*corev1.Pod); ok && pod.Spec.NodeName != "" {
		return []string{pod.Labels[names.LabelTenant] + "/" + pod.Spec.NodeName}, nil
	}
	return nil, nil
}

func byHost(in any) ([]string, error) {
	if pod, ok := in.(*corev1.Pod); ok && pod.Spec.NodeName != "" {
		return []string{pod.Spec.NodeName}, nil
	}
	return nil, nil
}

func byAddress(in any) ([]string, error) {
	node, ok := in.(*corev1.Node)
	if !ok {
		return nil, nil
	}
	addresses := make([]string, 0, len(node.Status.Addresses))
	for _, a := range node.Status.Addresses {
		addresses = append(addresses, a.Address)
	}
	return addresses, nil
}

// Tenants returns the connections, to which tenants are added and from which they are dropped.
func (e *Engine) Tenants() *tenants.Registry { return e.registry }

// Run synchronises until the context ends. It fails when the super cluster turns out to be another one, or to be restored from
// a backup: everything has to be read anew.
func (e *Engine) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	e.running.Store(true)
	defer e.running.Store(false)
	defer e.registry.Close() // nothing writes after Run has returned
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stops := map[*kindState]context.CancelFunc{}
	e.alignKinds(ctx, &running, stops)
	running.Go(func() { e.begin(ctx) })
	running.Go(func() { e.watchSuper(ctx) })
	running.Go(func() { e.watchBudgets(ctx) })
	running.Go(func() { e.superHistory.watch(ctx, e.options.Probe) })
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-e.superHistory.broken:
			return e.superHistory.err()
		case <-e.changed:
			e.alignKinds(ctx, &running, stops)
		}
	}
}

// alignKinds starts the kinds that do not run and stops those that are not in the roster any more.
func (e *Engine) alignKinds(ctx context.Context, running *sync.WaitGroup, stops map[*kindState]context.CancelFunc) {
	roster := e.kinds()
	for w, stop := range stops {
		if roster[w.Name] != w {
			stop()
			delete(stops, w)
		}
	}
	for _, w := range roster {
		if stops[w] == nil {
			serving, stop := context.WithCancel(ctx)
			stops[w] = stop
			running.Go(func() { e.serve(serving, w) })
		}
	}
}

// begin waits for the caches of the super cluster, and then patrols until the context ends.
func (e *Engine) begin(ctx context.Context) {
	if !e.awaitSuper(ctx) {
		return
	}
	log.FromContext(ctx).Info("Caches of the super cluster are current")
	close(e.superSynced)
	for _, t := range e.registry.All() { // those that were in sync before the super cluster was
		e.enqueueAll(t)
	}
	e.patrol(ctx)
}

// pair reads both caches.
func (e *Engine) pair(t *tenants.Tenant, k resource.Kind, key resource.Key) (tenant, super resource.Object) {
	ref := resource.Ref{Kind: k.Name, Namespace: key.Namespace, Name: key.Name}
	return t.Get(ref), e.superObject(t.Facts.ID, ref)
}

// superObject reads the cache of the super cluster by the tenant's names.
func (e *Engine) superObject(id names.TenantID, ref resource.Ref) resource.Object {
	w := e.kinds()[ref.Kind]
	if w == nil {
		return nil
	}
	namespace, name := superName(w.Kind, id, ref)
	return w.cache.Get(namespace, name)
}

// superName maps the tenant's names to the super cluster's.
func superName(k resource.Kind, id names.TenantID, ref resource.Ref) (namespace, name string) {
	switch {
	case k.Name == kindNamespaces:
		return "", names.SuperNamespace(id, ref.Name)
	case k.Published != nil:
		return k.Published.Super, ref.Name
	case k.Cluster:
		return "", k.SuperName(ref.Name)
	default:
		return names.SuperNamespace(id, ref.Namespace), k.SuperName(ref.Name)
	}
}

// kindNamespaces is the kind in whose replicas the others live.
const kindNamespaces = "namespaces"

// kindNodes is the kind that others run on.
const kindNodes = "nodes"

func (e *Engine) view(t *tenants.Tenant) resource.View {
	return resource.View{
		Tenant: t.Facts,
		Now:    e.now(),
		Get: func(side resource.Side, ref resource.Ref) resource.Object {
			if side == resource.Super {
				return e.superObject(t.Facts.ID, ref)
			}
			return t.Get(ref)
		},
		Whole: e.whole(t, nil),
		Each: func(side resource.Side, kind string, f func(resource.Object)) {
			c := e.cache(kind)
			if side == resource.Tenant {
				c = t.Cache(kind)
			}
			if c != nil {
				c.Each(f)
			}
		},
		Owned: func(kind string, owner types.UID, f func(resource.Object)) {
			if c := e.cache(kind); c != nil {
				c.By(indexOwner, string(owner), f)
			}
		},
		EachCustomized: t.EachCustomized,
		Referenced:     t.Referenced,
		TenantNamespace: func(super string) (string, bool) {
			id, namespace, ok := e.tenantNamespace(super)
			return namespace, ok && id == t.Facts.ID
		},
		HasPodsOn: func(node string) bool {
			pods := e.cache("pods")
			return pods != nil && pods.Has(indexNode, string(t.Facts.ID)+"/"+node)
		},
		RequestedByOthers: func(node string) corev1.ResourceList { return e.requestedByOthers(t.Facts.ID, node) },
		NodeAddress: func(ip string) bool {
			nodes := e.cache(kindNodes)
			return nodes != nil && nodes.Has(indexAddress, ip)
		},
	}
}
