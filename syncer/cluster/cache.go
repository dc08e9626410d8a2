package cluster

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/cache"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// Handler is told of changes. It is called by the goroutine that fills the cache and must only take notes.
type Handler struct {
	// Changed is called after an object was added (old is nil) or updated.
	Changed func(old, now resource.Object)
	// Gone is called after an object disappeared; seen is false when the deletion itself was missed and the absence was
	// found by listing.
	Gone func(last resource.Object, seen bool)
}

// CacheOptions says what to cache.
type CacheOptions struct {
	Kind     resource.Kind
	Selector resource.Selector
	Handler  Handler
	Indexers cache.Indexers
	// Keep says which objects are of interest, nil that all are. It is asked once about each version of an object.
	Keep func(resource.Object) bool
	// Failed is told of errors of list and watch.
	Failed func(error)
	// Admit bounds the cache; nil for none. What it returns goes to Failed, and the cache is to be stopped then.
	Admit Admit
}

// Cache holds the objects of one kind of one cluster, kept current by a watch. Objects are read-only.
type Cache struct {
	store *store
	run   func(context.Context)
}

// NewCache returns a Cache that is empty until Run.
func (c *Client) NewCache(o CacheOptions) (*Cache, error) {
	held := newStore(o)
	lw, err := c.listerWatcher(o, held)
	if err != nil {
		return nil, err
	}
	objectType := runtime.Object(o.Kind.New())
	if o.Kind.MetadataOnly {
		objectType = &metav1.PartialObjectMetadata{}
	}
	reflector := cache.NewReflectorWithOptions(lw, objectType, held, cache.ReflectorOptions{Name: o.Kind.Name})
	return &Cache{store: held, run: func(ctx context.Context) { reflector.RunWithContext(ctx) }}, nil
}

// trimmed returns what is kept of an object. What it returned it may be asked about again.
func trimmed(k resource.Kind, in any) any {
	switch o := in.(type) {
	case *metav1.PartialObjectMetadata:
		return k.OfMetadata(&o.ObjectMeta)
	case resource.Object:
		k.Trim(o)
	}
	return in
}

// Run fills the cache and keeps it current until the context ends.
func (c *Cache) Run(ctx context.Context) { c.run(ctx) }

// Failing returns since when the cache has not been kept current, and why; nil while it is.
func (c *Cache) Failing() (time.Time, error) {
	f := c.store.failing.Load()
	if f == nil {
		return time.Time{}, nil
	}
	return f.since, f.err
}

// Synced says whether the cache has been filled once.
func (c *Cache) Synced() bool {
	select {
	case <-c.store.filled:
		return true
	default:
		return false
	}
}

// SyncDone returns a channel that is closed once the cache has been filled.
func (c *Cache) SyncDone() <-chan struct{} { return c.store.filled }

// Forget drops an object that was decided about, if it is of a kind that is Passing and has not changed since.
func (c *Cache) Forget(o resource.Object) {
	if o != nil && c.store.passing {
		c.store.forget(o)
	}
}

// Get returns the object, nil when it is not there.
func (c *Cache) Get(namespace, name string) resource.Object {
	key := name
	if namespace != "" {
		key = namespace + "/" + name
	}
	o, exists, err := c.store.objects.GetByKey(key)
	if err != nil || !exists {
		return nil
	}
	obj, _ := o.(resource.Object)
	return obj
}

// Each calls f for every object.
func (c *Cache) Each(f func(resource.Object)) { each(c.store.objects.List(), f) }

// By calls f for every object that the index files under value.
func (c *Cache) By(index, value string, f func(resource.Object)) {
	list, err := c.store.objects.ByIndex(index, value)
	if err != nil {
		return // no such index on this kind: nothing is filed under it
	}
	each(list, f)
}

// Has says whether the index files anything under value.
func (c *Cache) Has(index, value string) bool {
	keys, err := c.store.objects.IndexKeys(index, value)
	return err == nil && len(keys) > 0
}

// Len returns the number of objects.
func (c *Cache) Len() int { return len(c.store.objects.ListKeys()) }

// Count returns how many objects the index files under value.
func (c *Cache) Count(index, value string) int {
	keys, err := c.store.objects.IndexKeys(index, value)
	if err != nil {
		return 0 // no such index on this kind: nothing is filed under it
	}
	return len(keys)
}

func each(list []any, f func(resource.Object)) {
	for _, o := range list {
		if obj, ok := o.(resource.Object); ok {
			f(obj)
		}
	}
}

// listerWatcher lists and watches the kind on the server side of the selector.
func (c *Client) listerWatcher(o CacheOptions, held *store) (cache.ListerWatcher, error) {
	if o.Kind.Plural != "" {
		c.learn(o.Kind.GVK, o.Kind.Plural)
	}
	from, err := c.source(o.Kind)
	if err != nil {
		return nil, err
	}
	limit := func(opts *metav1.ListOptions) {
		opts.LabelSelector, opts.FieldSelector = o.Selector.Labels, o.Selector.Fields
	}
	failed := func(err error) error {
		if err != nil {
			held.fails(err)
			if o.Failed != nil {
				o.Failed(err)
			}
		}
		return err
	}
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
			limit(&opts)
			list, err := c.list(ctx, from, o.Kind, opts, o.Admit)
			if o.Kind.Optional && NotServed(err) {
				return newList(o.Kind) // there are none
			}
			if err == nil && o.Keep != nil {
				err = keepItems(list, o.Keep)
			}
			return list, failed(err)
		},
		WatchFuncWithContext: func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
			limit(&opts)
			opts.Watch = true
			w, err := from.watch(ctx, opts)
			if o.Kind.Optional && NotServed(err) {
				if opts.ResourceVersion != "" || opts.SendInitialEvents != nil {
					return nil, err // it is listed next
				}
				return quiet(), nil
			}
			if err == nil && opts.SendInitialEvents != nil && o.Admit != nil {
				w = counted(w, o.Kind, o.Admit, o.Failed)
			}
			if err == nil && opts.SendInitialEvents == nil { // else it is current when they have come
				held.works()
			}
			if err == nil && o.Keep != nil {
				w = watch.Filter(w, func(in watch.Event) (watch.Event, bool) { return in, kept(in, o.Keep) })
			}
			return w, failed(err)
		},
	}, nil
}

// source is where a cache gets its objects from.
type source struct {
	// list reads one list, or one page of it, and returns it with its size in bytes.
	list  func(context.Context, metav1.ListOptions) (runtime.Object, int64, error)
	watch func(context.Context, metav1.ListOptions) (watch.Interface, error)
}

// source returns where a cache of the kind gets its objects from: whole ones or, of a kind that is MetadataOnly, their
// metadata.
func (c *Client) source(k resource.Kind) (source, error) {
	r, plural, err := c.forObject(k.New())
	if err != nil {
		return source{}, err
	}
	if k.MetadataOnly {
		of := c.metadata.Resource(k.GVK.GroupVersion().WithResource(plural))
		return source{
			list: func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, int64, error) {
				list, err := of.List(ctx, opts)
				if err != nil {
					return nil, 0, err // a nil pointer would be a list
				}
				return list, int64(list.Size()), nil
			},
			watch: of.Watch,
		}, nil
	}
	return source{
		list: func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, int64, error) {
			list, err := newList(k)
			if err != nil {
				return nil, 0, err
			}
			answer := r.Get().Resource(plural).SpecificallyVersionedParams(&opts, scheme.ParameterCodec, parametersVersion()).Do(ctx)
			if err := answer.Into(list); err != nil {
				return nil, 0, err
			}
			body, err := answer.Raw()
			return list, int64(len(body)), err
		},
		watch: func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
			return r.Get().Resource(plural).SpecificallyVersionedParams(&opts, scheme.ParameterCodec, parametersVersion()).Watch(ctx)
		},
	}, nil
}

// lookAgain is when an API server is asked again about a kind that it does not serve.
const lookAgain = time.Minute

// quiet returns a watch that ends without an event.
func quiet() watch.Interface {
	w := watch.NewFake()
	time.AfterFunc(lookAgain, w.Stop)
	return w
}

// NotServed says whether an API server answered that it does not know the kind.
func NotServed(err error) bool {
	return apierrors.IsNotFound(err) && apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse)
}

// newList returns an empty list of a kind.
func newList(k resource.Kind) (runtime.Object, error) {
	gvk := k.GVK.GroupVersion().WithKind(k.GVK.Kind + "List")
	if isUnstructured(k.New()) {
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(gvk)
		return list, nil
	}
	list, err := scheme.Scheme.New(gvk)
	if err != nil {
		return nil, fmt.Errorf("creating a list of %s: %w", k.Name, err)
	}
	return list, nil
}
