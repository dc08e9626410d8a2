package cluster

import (
	"context"
	"sync"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// passing is the store of a Cache of a kind that is Passing: it holds an object until it is forgotten.
type passing struct {
	handler   Handler
	transform cache.TransformFunc
	filled    chan struct{}
	once      sync.Once

	mu    sync.Mutex // serialises writes
	store cache.Indexer
}

// newPassing returns a Cache that forgets.
func newPassing(lw cache.ListerWatcher, objectType runtime.Object, o CacheOptions, trim cache.TransformFunc) *Cache {
	p := &passing{
		handler: o.Handler, transform: trim, filled: make(chan struct{}),
		store: cache.NewIndexer(cache.MetaNamespaceKeyFunc, o.Indexers),
	}
	reflector := cache.NewReflectorWithOptions(lw, objectType, p, cache.ReflectorOptions{Name: o.Kind.Name})
	return &Cache{
		store: p.store, filled: p.filled, forget: p.forget,
		run: func(ctx context.Context) { reflector.RunWithContext(ctx) },
	}
}

// Transformer implements cache.TransformingStore.
func (p *passing) Transformer() cache.TransformFunc { return p.transform }

// Add implements cache.ReflectorStore.
func (p *passing) Add(in any) error { return p.Update(in) }

// Update implements cache.ReflectorStore.
func (p *passing) Update(in any) error {
	in, err := p.transform(in)
	if err != nil {
		return err
	}
	p.mu.Lock()
	err = p.store.Update(in)
	p.mu.Unlock()
	p.tell(in)
	return err
}

// Delete implements cache.ReflectorStore.
func (p *passing) Delete(in any) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.store.Delete(in)
}

// Replace implements cache.ReflectorStore.
func (p *passing) Replace(in []any, version string) error {
	for i, o := range in {
		var err error
		if in[i], err = p.transform(o); err != nil {
			return err
		}
	}
	p.mu.Lock()
	err := p.store.Replace(in, version)
	p.mu.Unlock()
	for _, o := range in {
		p.tell(o)
	}
	p.once.Do(func() { close(p.filled) })
	return err
}

// Resync implements cache.ReflectorStore.
func (p *passing) Resync() error { return nil }

func (p *passing) tell(in any) {
	if o, ok := in.(resource.Object); ok {
		p.handler.Changed(nil, o)
	}
}

// forget drops an object, unless there is another version of it.
func (p *passing) forget(o resource.Object) {
	p.mu.Lock()
	defer p.mu.Unlock()
	in, found, err := p.store.Get(o)
	if current, ok := in.(resource.Object); err == nil && found && ok && current.GetResourceVersion() == o.GetResourceVersion() {
		_ = p.store.Delete(o) // it has a key: it was found by it
	}
}

// keepItems drops from a list what is of no interest.
func keepItems(list runtime.Object, keep func(resource.Object) bool) error {
	items, err := apimeta.ExtractList(list)
	if err != nil {
		return err
	}
	var out []runtime.Object
	for _, item := range items {
		if o, ok := item.(resource.Object); !ok || keep(o) {
			out = append(out, item)
		}
	}
	return apimeta.SetList(list, out)
}

// kept says whether an event of a watch is of interest. Bookmarks are.
func kept(in watch.Event, keep func(resource.Object) bool) bool {
	o, ok := in.Object.(resource.Object)
	return !ok || in.Type == watch.Bookmark || in.Type == watch.Error || keep(o)
}
