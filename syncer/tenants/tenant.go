// Package tenants keeps a connection to every tenant control plane that is ready: its caches, its health, and the
// proof that it still is the one it was. Connecting, probing and reconnecting happen in goroutines of the tenant, so
// that one that hangs delays nobody else. What is to be done about objects is package engine's business.
package tenants

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/virtualcluster-io/virtualcluster/internal/connection"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/cluster"
	"github.com/virtualcluster-io/virtualcluster/syncer/continuity"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// IndexReferences files objects under the objects they refer to, see RefKey. IndexNamespace files them under their
// namespace. indexOdd files those that are odd.
const (
	IndexReferences = "references"
	IndexNamespace  = cache.NamespaceIndex
	indexCustomized = "odd"
)

// RefKey is the value under which IndexReferences files the objects that refer to ref.
func RefKey(ref resource.Ref) string { return ref.Kind + "/" + ref.Namespace + "/" + ref.Name }

// State of the connection to a tenant.
type State string

// The states.
const (
	// Connecting means that the caches are being filled.
	Connecting State = "Connecting"
	// Synced means that all caches are current and the tenant's identity was verified.
	Synced State = "Synced"
	// Lost means that the API server does not answer; its objects are left as they are.
	Lost State = "Lost"
	// Foreign means that another control plane answers than the one that was pinned; nothing is synced.
	Foreign State = "Foreign"
	// Rewound means that the control plane was restored from a backup; nothing is synced until a person says so.
	Rewound State = "Rewound"
	// SuperChanged means that the super cluster was restored from a backup, or is not the one that the tenant was synced with;
	// nothing is synced until a person says so.
	SuperChanged State = "SuperChanged"
	// Overfull means that the tenant has more objects than may be kept of it; nothing is synced until it has less.
	Overfull State = "Overfull"
)

// States returns all states.
func States() []State {
	return []State{Connecting, Synced, Lost, Foreign, Rewound, SuperChanged, Overfull}
}

// Halted says whether a person is waited for.
func (s State) Halted() bool { return s == Rewound || s == SuperChanged }

// Spec says which tenant to connect to, and how.
type Spec struct {
	Facts resource.Facts
	// Config reaches the control plane.
	Config *rest.Config
	// Identity is the UID of the kube-system namespace of the control plane that is this tenant's.
	Identity types.UID
	// Hash changes when anything above does.
	Hash string
	// Memory is what is remembered of the tenant.
	Memory Memory
	// Budget is what the tenant may cost. It changes without a new connection, see SetBudget.
	Budget resource.Budget
}

// Listener is told what happens in a tenant. Its methods must not block.
type Listener interface {
	// Connected is called before anything else is reported of a tenant. What it returns works for the tenant until its context
	// ends, and returns when nothing is written on behalf of the tenant any more.
	Connected(t *Tenant) (serve func(context.Context))
	ObjectListener
	// Moved reports a new state, with a sentence for people, or that the caches of a tenant that waits for a person are current.
	Moved(t *Tenant, state State, message string)
	// Remember asks to store the Memory of the tenant outside of the syncer.
	Remember(t *Tenant)
}

// ObjectListener is told of the objects of a tenant.
type ObjectListener interface {
	// Changed reports an object that appeared (old is nil) or was updated.
	Changed(t *Tenant, kind string, old, now resource.Object)
	// Gone reports an object that disappeared; see cluster.Handler.
	Gone(t *Tenant, kind string, last resource.Object, seen bool)
	// CacheSynced reports that the cache of a kind is current that was added later, or that the tenant is in sync without.
	CacheSynced(t *Tenant, kind string)
}

// Tenant is a connected tenant.
type Tenant struct {
	Spec
	Client   *cluster.Client
	options  Options
	listener Listener
	watches  atomic.Pointer[map[string]*watch] // by kind; replaced as a whole, never changed
	state    atomic.Value                      // State
	stop     context.CancelFunc
	released chan struct{} // closed when nothing is written on behalf of the tenant any more
	probes   chan struct{}
	marks    chan struct{} // says that a mark is due
	changed  chan struct{} // says that the watches are not those that run
	known    atomic.Bool   // says that the control plane is not newer than the types that we know
	stale    atomic.Bool   // see Stale
	asked    time.Time     // when the version was last asked for; only used by run
	since    time.Time     // when the tenant got in sync; only used by run
	budget   atomic.Pointer[resource.Budget]
	excess   excess

	mu       sync.Mutex // also held while watches are replaced
	verified time.Time  // guarded by mu: when the identity was last verified
	message  string     // guarded by mu: explains the state
	history  history    // guarded by mu
}

// watch is the cache of one kind.
type watch struct {
	kind  resource.Kind
	cache *cluster.Cache
	// late means that the tenant is in sync without it.
	late bool
	// unserved means that the API server does not serve the kind, because it is of another version than we expect: the tenant
	// is in sync without it.
	unserved atomic.Bool
	// failure is the last reason why it could not be read.
	failure atomic.Pointer[string]
	// bytes is what it holds, or what is being read; stop ends it.
	bytes atomic.Int64
	stop  atomic.Pointer[context.CancelFunc]
}

// State returns the state of the connection.
func (t *Tenant) State() State {
	s, _ := t.state.Load().(State)
	return s
}

// Message explains the state in a sentence for people.
func (t *Tenant) Message() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.message
}

// Cache returns the cache of a kind, nil if the kind is not watched in tenants.
func (t *Tenant) Cache(kind string) *cluster.Cache {
	if w := (*t.watches.Load())[kind]; w != nil {
		return w.cache
	}
	return nil
}

// CacheSynced says whether there is a cache of the kind that is current.
func (t *Tenant) CacheSynced(kind string) bool {
	c := t.Cache(kind)
	return c != nil && c.Synced()
}

// Watch adds a cache of a kind, unless there is one. The listener is told when it is filled.
func (t *Tenant) Watch(k resource.Kind) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if (*t.watches.Load())[k.Name] != nil {
		return nil
	}
	w, err := t.newWatch(k)
	if err != nil {
		return err
	}
	w.late = true
	watches := maps.Clone(*t.watches.Load())
	watches[k.Name] = w
	t.setWatches(watches)
	return nil
}

// Unwatch removes the cache of a kind, if there is one.
func (t *Tenant) Unwatch(kind string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if (*t.watches.Load())[kind] == nil {
		return
	}
	watches := maps.Clone(*t.watches.Load())
	delete(watches, kind)
	t.setWatches(watches)
}

// setWatches replaces the watches and asks run to bring in line with them what runs.
func (t *Tenant) setWatches(watches map[string]*watch) {
	t.watches.Store(&watches)
	select {
	case t.changed <- struct{}{}:
	default: // it is asked already
	}
}

// Get returns an object from the caches, nil when absent.
func (t *Tenant) Get(ref resource.Ref) resource.Object {
	c := t.Cache(ref.Kind)
	if c == nil {
		return nil
	}
	return c.Get(ref.Namespace, ref.Name)
}

// Referenced says whether any object in the caches refers to ref.
func (t *Tenant) Referenced(ref resource.Ref) bool {
	key := RefKey(ref)
	for _, w := range *t.watches.Load() {
		if w.cache.Has(IndexReferences, key) {
			return true
		}
	}
	return false
}

// EachCustomized calls f for every object of the kind that is odd, see resource.Resource.
func (t *Tenant) EachCustomized(kind string, f func(resource.Object)) {
	if c := t.Cache(kind); c != nil {
		c.By(indexCustomized, indexCustomized, f)
	}
}

// Referrers calls f for every object in the caches that refers to ref.
func (t *Tenant) Referrers(ref resource.Ref, f func(kind string, o resource.Object)) {
	key := RefKey(ref)
	for kind, w := range *t.watches.Load() {
		w.cache.By(IndexReferences, key, func(o resource.Object) { f(kind, o) })
	}
}

// Suspect asks for a probe now, because a call failed: whatever answers next may not be what answered before.
func (t *Tenant) Suspect() {
	t.mu.Lock()
	t.verified = time.Time{}
	t.mu.Unlock()
	t.askProbe()
}

// askProbe asks for a probe now.
func (t *Tenant) askProbe() {
	select {
	case t.probes <- struct{}{}:
	default: // one is pending
	}
}

// versionAge is how long the version of a control plane counts as known while it answers.
const versionAge = time.Minute

// Newer says whether objects of the tenant may have fields that the syncer does not know. While its version is not known,
// they may.
func (t *Tenant) Newer() bool { return !t.known.Load() }

// learn finds out whether the control plane is newer than the types that we know.
func (t *Tenant) learn(ctx context.Context) {
	if time.Since(t.asked) < versionAge {
		return
	}
	newer, err := t.Client.Newer(ctx)
	t.known.Store(err == nil && !newer)
	if err == nil {
		t.asked = time.Now()
	}
}

// errForeign says that another control plane answered.
var errForeign = errors.New("another control plane answers")

// anyAge is more than the age of anything.
const anyAge = time.Duration(math.MaxInt64)

// Verify proves by a live read that the control plane still is the pinned one, and went on from where it was last seen. A
// proof younger than maxAge counts.
func (t *Tenant) Verify(ctx context.Context, maxAge time.Duration) error {
	t.mu.Lock()
	fresh := time.Since(t.verified) < maxAge && t.history.halt == "" && !t.history.accepting
	before := t.history.record
	t.mu.Unlock()
	if fresh {
		return nil
	}
	super, err := t.options.Super(ctx, anyAge)
	if err != nil {
		return err
	}
	at := time.Now()
	sight, err := t.Client.Look(ctx)
	if err != nil {
		return fmt.Errorf("reading namespace %s of tenant %s: %w", metav1.NamespaceSystem, t.Facts.ID, err)
	}
	if uid := sight.System.UID; uid != t.Identity {
		return fmt.Errorf("tenant %s: %w: its %s namespace has UID %s, recorded is %s", t.Facts.ID, errForeign, metav1.NamespaceSystem, uid, t.Identity)
	}
	seen := continuity.Sight{
		Revision: sight.Revision, Super: super, At: at,
		Mark: continuity.ParseMark(sight.System.Annotations[names.AnnotationMark], t.Facts.UID),
	}
	accepted, err := t.accept(ctx, seen)
	if err == nil && !accepted {
		err = t.judge(ctx, before, seen)
	}
	if err != nil {
		return err
	}
	t.mu.Lock()
	t.verified = at
	t.mu.Unlock()
	return nil
}

// systemNamespace returns the namespace whose UID is the identity of a control plane.
func systemNamespace() *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: metav1.NamespaceSystem}}
}

// connect builds a Tenant without talking to it.
func connect(spec Spec, o Options) (*Tenant, error) {
	client, err := cluster.NewUntrusted(spec.Config, o.Timeout)
	if err != nil {
		return nil, err
	}
	t := &Tenant{
		Spec: spec, Client: client, options: o, listener: o.Listener,
		history:  newHistory(spec.Memory),
		marks:    make(chan struct{}, 1),
		released: make(chan struct{}),
		probes:   make(chan struct{}, 1),
		changed:  make(chan struct{}, 1),
	}
	t.state.Store(Connecting)
	t.budget.Store(&spec.Budget)
	watches := map[string]*watch{}
	for _, k := range o.Kinds {
		if k.SuperOnly {
			continue
		}
		if watches[k.Name], err = t.newWatch(k); err != nil {
			return nil, err
		}
	}
	t.watches.Store(&watches)
	return t, nil
}

func (t *Tenant) newWatch(k resource.Kind) (*watch, error) {
	w := &watch{kind: k}
	var err error
	w.cache, err = t.Client.NewCache(cluster.CacheOptions{
		Kind: k, Selector: k.TenantSelector,
		Admit: func(objects, bytes int64) error { return t.admit(w, objects, bytes) },
		Failed: func(err error) {
			if t.overfills(w, err) {
				return
			}
			if k.GVK.Group != corev1.GroupName && cluster.NotServed(err) {
				w.unserved.Store(true)
				return
			}
			w.failure.Store(new(connection.Message(err)))
			t.Suspect()
		},
		Handler: cluster.Handler{
			Changed: func(old, now resource.Object) { t.listener.Changed(t, k.Name, old, now) },
			Gone:    func(last resource.Object, seen bool) { t.listener.Gone(t, k.Name, last, seen) },
		},
		Indexers: cache.Indexers{IndexNamespace: cache.MetaNamespaceIndexFunc, IndexReferences: references(t.Facts, k), indexCustomized: customized(k)},
	})
	if err != nil {
		return nil, fmt.Errorf("watching %s of tenant %s: %w", k.Name, t.Facts.ID, err)
	}
	return w, nil
}

func customized(k resource.Kind) cache.IndexFunc {
	return func(in any) ([]string, error) {
		if o, ok := in.(resource.Object); ok && k.Customized(o) {
			return []string{indexCustomized}, nil
		}
		return nil, nil
	}
}

// references files what is synchronised under what it refers to.
func references(facts resource.Facts, k resource.Kind) cache.IndexFunc {
	off := slices.Contains(facts.Disabled, k.Name)
	return func(in any) ([]string, error) {
		o, ok := in.(resource.Object)
		if !ok || off {
			return nil, nil
		}
		refs := k.References(o)
		keys := make([]string, len(refs))
		for i, ref := range refs {
			keys[i] = RefKey(ref)
		}
		return keys, nil
	}
}

// syncCheckInterval is how often the caches are looked at while they are being filled.
const syncCheckInterval = 20 * time.Millisecond

// run serves the tenant until the context ends.
func (t *Tenant) run(ctx context.Context) {
	defer t.Client.Close()
	watches := &runningWatches{stops: map[*watch]context.CancelFunc{}}
	defer watches.running.Wait()
	ticker := time.NewTicker(t.options.Probe)
	defer ticker.Stop()
	filled := time.NewTicker(syncCheckInterval) // while the caches are being filled
	defer filled.Stop()
	filled.Stop()
	t.move(Connecting, "connecting")
	t.askProbe()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-t.probes:
		case <-t.marks:
			if err := t.mark(ctx); err != nil {
				t.Touched(true)
				t.Suspect()
			}
			continue
		case <-t.changed:
			if watches.started {
				t.align(ctx, watches)
			}
			continue
		case <-filled.C:
			if t.report(watches) {
				filled.Stop()
			}
			continue
		}
		if filled.Stop(); t.probe(ctx, watches) {
			filled.Reset(syncCheckInterval)
		}
	}
}

// runningWatches are the watches that run.
type runningWatches struct {
	running sync.WaitGroup
	stops   map[*watch]context.CancelFunc
	started bool
	// halted is the state of a tenant that waits for a person whose caches are not filled yet.
	halted State
}

// report moves the tenant once its caches are filled, and says whether it did.
func (t *Tenant) report(w *runningWatches) bool {
	if !w.started || !t.cachesSynced() {
		return false
	}
	switch {
	case w.halted != "":
		w.halted = ""
		t.listener.Moved(t, t.State(), t.Message())
	case t.State() == Connecting || t.State() == Overfull:
		t.move(Synced, "all caches are current")
	default:
		return false
	}
	return true
}

// probe looks at the control plane and moves the tenant accordingly. It says whether the caches are being filled.
func (t *Tenant) probe(ctx context.Context, w *runningWatches) bool {
	if t.overfull(ctx, w) {
		return false
	}
	err := t.Verify(ctx, 0)
	if err == nil {
		t.learn(ctx)
	} else {
		t.asked = time.Time{} // it may come back as another version
	}
	halt, waits := halted(err)
	switch {
	case ctx.Err() != nil:
		return false
	case errors.Is(err, errForeign):
		t.empty(ctx, w)
		t.move(Foreign, err.Error())
		return false
	case waits:
		if w.started && t.State().Halted() {
			return w.halted != ""
		}
		// What the caches hold is from before, and watches that lived through it may never hear of anything again.
		t.empty(ctx, w)
		t.start(ctx, w)
		w.halted = halt.state
		t.move(halt.state, halt.why)
		return true
	case err != nil:
		t.move(Lost, err.Error())
		return false
	}
	w.halted = ""
	if !w.started {
		t.start(ctx, w)
	}
	if t.cachesSynced() {
		t.synced()
		return false
	}
	if t.State() != Overfull { // else it may be so again
		t.move(Connecting, t.filling())
	}
	return true
}

// empty stops all watches and replaces their caches with empty ones.
func (t *Tenant) empty(ctx context.Context, w *runningWatches) {
	if !w.started {
		return
	}
	w.started = false
	t.mu.Lock()
	watches := map[string]*watch{}
	for name, old := range *t.watches.Load() {
		now, err := t.newWatch(old.kind)
		if err != nil { // it could be made before
			continue
		}
		now.late = old.late
		watches[name] = now
	}
	t.watches.Store(&watches)
	t.mu.Unlock()
	t.align(ctx, w)
}

// start starts the watches.
func (t *Tenant) start(ctx context.Context, w *runningWatches) {
	w.started = true
	t.align(ctx, w)
}

// align starts the watches that do not run, if they are to run, and stops those that are not wanted any more.
func (t *Tenant) align(ctx context.Context, running *runningWatches) {
	watches := *t.watches.Load()
	for w, stop := range running.stops {
		if watches[w.kind.Name] != w {
			stop()
			delete(running.stops, w)
		}
	}
	if !running.started {
		return
	}
	for _, w := range watches {
		if running.stops[w] != nil {
			continue
		}
		watching, stop := context.WithCancel(ctx)
		running.stops[w] = stop
		w.stop.Store(&stop)
		running.running.Go(func() { w.cache.Run(watching) })
		running.running.Go(func() {
			select {
			case <-watching.Done():
			case <-w.cache.SyncDone():
				if w.late || w.unserved.Load() {
					t.listener.CacheSynced(t, w.kind.Name)
				}
			}
		})
	}
}

func (t *Tenant) cachesSynced() bool {
	for _, w := range *t.watches.Load() {
		if !w.late && !w.unserved.Load() && !w.cache.Synced() {
			return false
		}
	}
	return true
}

// filling says which cache is not filled, and why, if it failed.
func (t *Tenant) filling() string {
	watches := *t.watches.Load()
	for _, kind := range slices.Sorted(maps.Keys(watches)) {
		w := watches[kind]
		if failure := w.failure.Load(); failure != nil && !w.late && !w.unserved.Load() && !w.cache.Synced() {
			return fmt.Sprintf("filling the caches; reading %s failed: %s", kind, *failure)
		}
	}
	return "filling the caches"
}

// staleProbes is how many probes may pass while a cache that was filled cannot be kept current, before that is told.
const staleProbes = 6

// synced moves the tenant when its caches are filled, and tells when they are not kept current. What is known goes on being
// synchronised then: deletions are proven by live reads.
func (t *Tenant) synced() {
	if t.State() != Synced {
		t.since = time.Now()
	}
	why := t.staleness()
	switch stale := why != ""; {
	case t.stale.Swap(stale) == stale && t.State() == Synced: // what the control plane says meanwhile is no news
	case stale:
		t.restate(why)
	default:
		t.restate("all caches are current")
	}
}

// restate moves the tenant to Synced, or tells the listener that it is so in another way.
func (t *Tenant) restate(message string) {
	again := t.State() == Synced
	t.move(Synced, message)
	if again {
		t.listener.Moved(t, Synced, t.Message())
	}
}

// staleness returns which cache has not been kept current for a while, and why; empty if all are.
func (t *Tenant) staleness() string {
	watches := *t.watches.Load()
	for _, kind := range slices.Sorted(maps.Keys(watches)) {
		w := watches[kind]
		since, err := w.cache.Failing()
		if t.since.After(since) { // a watch that has failed for long is not tried again at once
			since = t.since
		}
		if err != nil && !w.unserved.Load() && time.Since(since) > staleProbes*t.options.Probe {
			return fmt.Sprintf("%s of the control plane cannot be read since %s: %s", kind, since.UTC().Format(time.RFC3339), connection.Message(err))
		}
	}
	return ""
}

// Stale says whether the caches of a tenant that is in sync have not been kept current for a while; the message says why.
func (t *Tenant) Stale() bool { return t.stale.Load() }

func (t *Tenant) move(to State, message string) {
	message = connection.Shorten(message) // the control plane may have a say in it
	t.mu.Lock()
	t.message = message
	t.mu.Unlock()
	if t.state.Swap(to) != any(to) || to == Connecting {
		t.listener.Moved(t, to, message)
	}
}
