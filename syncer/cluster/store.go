package cluster

import (
	"sync"
	"sync/atomic"
	"time"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// store holds what a Cache holds, and tells its handler. A reflector fills it without a queue between: that would be two more
// goroutines and another copy of each list for every kind of every tenant.
type store struct {
	handler   Handler
	transform cache.TransformFunc
	// passing says that objects may be forgotten, so that each version is new and nobody asks what is gone.
	passing bool
	filled  chan struct{}
	once    sync.Once

	// admit bounds the store, failed is told when it holds more; nil for no bound.
	admit  Admit
	failed func(error)

	// failing is set while nobody keeps the store current.
	failing atomic.Pointer[failure]

	mu      sync.Mutex // serialises writes
	objects cache.Indexer
	held    sum
}

func newStore(o CacheOptions) *store {
	indexers := o.Indexers
	if indexers == nil {
		indexers = cache.Indexers{}
	}
	s := &store{
		handler: o.Handler, passing: o.Kind.Passing, filled: make(chan struct{}),
		transform: func(in any) (any, error) { return trimmed(o.Kind, in), nil },
		objects:   cache.NewIndexer(cache.MetaNamespaceKeyFunc, indexers),
	}
	if !s.passing {
		s.admit, s.failed = o.Admit, o.Failed
	}
	return s
}

// Transformer implements cache.TransformingStore.
func (s *store) Transformer() cache.TransformFunc { return s.transform }

// Add implements cache.ReflectorStore.
func (s *store) Add(in any) error { return s.Update(in) }

// Update implements cache.ReflectorStore.
func (s *store) Update(in any) error {
	in, err := s.transform(in)
	if err != nil {
		return err
	}
	s.mu.Lock()
	old, _, err := s.objects.Get(in)
	if err == nil {
		err = s.objects.Update(in)
	}
	s.mu.Unlock()
	s.weigh([]any{old}, []any{in})
	s.changed(old, in)
	return err
}

// Delete implements cache.ReflectorStore.
func (s *store) Delete(in any) error {
	in, err := s.transform(in)
	if err != nil {
		return err
	}
	s.mu.Lock()
	old, found, err := s.objects.Get(in)
	if found {
		err = s.objects.Delete(in)
	}
	s.mu.Unlock()
	if found {
		s.weigh([]any{old}, nil)
		s.gone(in, true)
	}
	return err
}

// Replace implements cache.ReflectorStore.
func (s *store) Replace(in []any, version string) error {
	for i, o := range in {
		var err error
		if in[i], err = s.transform(o); err != nil {
			return err
		}
	}
	s.mu.Lock()
	before := s.objects.List()
	err := s.objects.Replace(in, version)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	s.weigh(before, in)
	was := make(map[string]any, len(before))
	for _, o := range before {
		was[key(o)] = o
	}
	for _, o := range in {
		s.changed(was[key(o)], o)
		delete(was, key(o))
	}
	for _, o := range was {
		s.gone(o, false)
	}
	s.works()
	s.once.Do(func() { close(s.filled) })
	return nil
}

// failure is why a store is not kept current.
type failure struct {
	since time.Time
	err   error
}

// fails notes that the API server could not be listed or watched.
func (s *store) fails(err error) {
	since := time.Now()
	if before := s.failing.Load(); before != nil {
		since = before.since
	}
	s.failing.Store(&failure{since, err})
}

// works notes that the store is, or will be kept, current.
func (s *store) works() { s.failing.Store(nil) }

// Resync implements cache.ReflectorStore.
func (s *store) Resync() error { return nil }

func key(in any) string {
	key, _ := cache.MetaNamespaceKeyFunc(in) // an object has metadata
	return key
}

func (s *store) changed(before, after any) {
	old, _ := before.(resource.Object)
	if s.passing {
		old = nil
	}
	if now, ok := after.(resource.Object); ok {
		s.handler.Changed(old, now)
	}
}

func (s *store) gone(in any, seen bool) {
	if last, ok := in.(resource.Object); ok && !s.passing {
		s.handler.Gone(last, seen)
	}
}

// forget drops an object, unless there is another version of it.
func (s *store) forget(o resource.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in, found, err := s.objects.Get(o)
	if current, ok := in.(resource.Object); err == nil && found && ok && current.GetResourceVersion() == o.GetResourceVersion() {
		_ = s.objects.Delete(o) // it has a key: it was found by it
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
