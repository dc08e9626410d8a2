// Package tenants keeps a connection to every tenant control plane that is ready: its caches, its health, and the
// proof that it still is the one it was. Connecting, probing and reconnecting happen in goroutines of the tenant, so
// that one that hangs delays nobody else. What is to be done about objects is package engine's business.
package tenants

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/virtualcluster-io/virtualcluster/syncer/cluster"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// IndexReferences files objects under the objects they refer to, see RefKey. IndexNamespace files them under their
// namespace. indexOdd files those that are odd.
const (
	IndexReferences = "references"
	IndexNamespace  = cache.NamespaceIndex
	indexOdd        = "odd"
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
)

// Spec says which tenant to connect to, and how.
type Spec struct {
	Facts resource.Facts
	// Config reaches the control plane.
	Config *rest.Config
	// Identity is the UID of the kube-system namespace of the control plane that is this tenant's.
	Identity types.UID
	// Hash changes when anything above does.
	Hash string
}

// Listener is told what happens in a tenant. Its methods must not block.
type Listener interface {
	// Changed reports an object that appeared (old is nil) or was updated.
	Changed(t *Tenant, kind string, old, now resource.Object)
	// Gone reports an object that disappeared; see cluster.Handler.
	Gone(t *Tenant, kind string, last resource.Object, seen bool)
	// Moved reports a new state, with a sentence for people.
	Moved(t *Tenant, state State, message string)
}

// Tenant is a connected tenant.
type Tenant struct {
	Spec
	Client *cluster.Client
	caches map[string]*cluster.Cache
	state  atomic.Value // State
	stop   context.CancelFunc
	done   chan struct{}
	probes chan struct{}

	mu       sync.Mutex
	verified time.Time // guarded by mu: when the identity was last verified
	message  string    // guarded by mu: explains the state
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
func (t *Tenant) Cache(kind string) *cluster.Cache { return t.caches[kind] }

// Get returns an object from the caches, nil when absent.
func (t *Tenant) Get(ref resource.Ref) resource.Object {
	c := t.caches[ref.Kind]
	if c == nil {
		return nil
	}
	return c.Get(ref.Namespace, ref.Name)
}

// Referenced says whether any object in the caches refers to ref.
func (t *Tenant) Referenced(ref resource.Ref) bool {
	key := RefKey(ref)
	for _, c := range t.caches {
		if c.Has(IndexReferences, key) {
			return true
		}
	}
	return false
}

// Odd calls f for every object of the kind that is odd, see resource.Resource.
func (t *Tenant) Odd(kind string, f func(resource.Object)) {
	if c := t.Cache(kind); c != nil {
		c.By(indexOdd, indexOdd, f)
	}
}

// Referrers calls f for every object in the caches that refers to ref.
func (t *Tenant) Referrers(ref resource.Ref, f func(kind string, o resource.Object)) {
	key := RefKey(ref)
	for kind, c := range t.caches {
		c.By(IndexReferences, key, func(o resource.Object) { f(kind, o) })
	}
}

// Suspect asks for a probe now, because a call failed.
func (t *Tenant) Suspect() {
	select {
	case t.probes <- struct{}{}:
	default: // one is pending
	}
}

// errForeign says that another control plane answered.
var errForeign = errors.New("another control plane answers")

// Verify proves by a live read that the control plane still is the pinned one. A proof younger than maxAge counts.
func (t *Tenant) Verify(ctx context.Context, maxAge time.Duration) error {
	t.mu.Lock()
	fresh := time.Since(t.verified) < maxAge
	t.mu.Unlock()
	if fresh {
		return nil
	}
	var ns corev1.Namespace
	if err := t.Client.Get(ctx, "", metav1.NamespaceSystem, &ns); err != nil {
		return fmt.Errorf("reading namespace %s of tenant %s: %w", metav1.NamespaceSystem, t.Facts.ID, err)
	}
	if ns.UID != t.Identity {
		return fmt.Errorf("tenant %s: %w: its %s namespace has UID %s, recorded is %s", t.Facts.ID, errForeign, metav1.NamespaceSystem, ns.UID, t.Identity)
	}
	t.mu.Lock()
	t.verified = time.Now()
	t.mu.Unlock()
	return nil
}

// connect builds a Tenant without talking to it.
func connect(spec Spec, kinds []resource.Kind, timeout time.Duration, l Listener) (*Tenant, error) {
	client, err := cluster.NewClient(spec.Config, timeout)
	if err != nil {
		return nil, err
	}
	t := &Tenant{
		Spec: spec, Client: client,
		caches: map[string]*cluster.Cache{},
		done:   make(chan struct{}),
		probes: make(chan struct{}, 1),
	}
	t.state.Store(Connecting)
	for _, k := range kinds {
		if k.SuperOnly {
			continue
		}
		c, err := client.NewCache(cluster.CacheOptions{
			Kind: k, Selector: k.TenantSelector, Failed: func(error) { t.Suspect() },
			Handler: cluster.Handler{
				Changed: func(old, now resource.Object) { l.Changed(t, k.Name, old, now) },
				Gone:    func(last resource.Object, seen bool) { l.Gone(t, k.Name, last, seen) },
			},
			Indexers: cache.Indexers{IndexNamespace: cache.MetaNamespaceIndexFunc, IndexReferences: references(spec.Facts, k), indexOdd: odd(k)},
		})
		if err != nil {
			return nil, fmt.Errorf("watching %s of tenant %s: %w", k.Name, spec.Facts.ID, err)
		}
		t.caches[k.Name] = c
	}
	return t, nil
}

func odd(k resource.Kind) cache.IndexFunc {
	return func(in any) ([]string, error) {
		if o, ok := in.(resource.Object); ok && k.Odd(o) {
			return []string{indexOdd}, nil
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

// run serves the tenant until the context ends.
func (t *Tenant) run(ctx context.Context, interval time.Duration, l Listener) {
	defer close(t.done)
	defer t.Client.Close()
	var watches sync.WaitGroup
	defer watches.Wait()
	started := false
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	synced := time.NewTicker(20 * time.Millisecond) // until the caches are filled
	defer synced.Stop()
	t.move(Connecting, "connecting", l)
	t.Suspect()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-t.probes:
		case <-synced.C:
			if !started || t.State() != Connecting || !t.filled() {
				continue
			}
			synced.Stop()
			t.move(Synced, "all caches are current", l)
			continue
		}
		err := t.Verify(ctx, 0)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, errForeign):
			t.move(Foreign, err.Error(), l)
		case err != nil:
			t.move(Lost, err.Error(), l)
		case !started:
			started = true
			for _, c := range maps.All(t.caches) {
				watches.Go(func() { c.Run(ctx) })
			}
			t.move(Connecting, "filling the caches", l)
		case t.filled():
			t.move(Synced, "all caches are current", l)
		default:
			t.move(Connecting, "filling the caches", l)
		}
	}
}

func (t *Tenant) filled() bool {
	for _, c := range t.caches {
		if !c.Synced() {
			return false
		}
	}
	return true
}

func (t *Tenant) move(to State, message string, l Listener) {
	t.mu.Lock()
	t.message = message
	t.mu.Unlock()
	if t.state.Swap(to) != any(to) || to == Connecting {
		l.Moved(t, to, message)
	}
}
