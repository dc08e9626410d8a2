package cluster

import (
	"sync"
	"sync/atomic"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// Admit is asked whether a cache may hold so many objects, of so many bytes in sum. It is called while a list is read and after
// each change, by several goroutines.
type Admit func(objects int64, bytes int64) error

// overhead is what an object costs beside its content: structs, pointers, and entries in the indexes.
const overhead = 1 << 10

// sizeOf returns about how much memory an object takes: the size of its content in protobuf, or what that of a custom resource
// would be, and what it costs besides.
func sizeOf(o resource.Object) int64 {
	switch o := o.(type) {
	case *unstructured.Unstructured:
		return overhead + sizeOfValue(o.Object)
	case *metav1.PartialObjectMetadata: // who manages which fields is not kept
		kept := *o
		kept.ManagedFields = nil
		return overhead + int64(kept.Size())
	case interface{ Size() int }:
		return overhead + int64(o.Size())
	default:
		return overhead
	}
}

func sizeOfValue(in any) int64 {
	const scalar = 8
	switch in := in.(type) {
	case map[string]any:
		sum := int64(scalar)
		for key, value := range in {
			sum += int64(len(key)) + sizeOfValue(value)
		}
		return sum
	case []any:
		sum := int64(scalar)
		for _, value := range in {
			sum += sizeOfValue(value)
		}
		return sum
	case string:
		return scalar + int64(len(in))
	default:
		return scalar
	}
}

// sum is what a cache holds.
type sum struct{ objects, bytes atomic.Int64 }

// changed counts a change; old is nil for a new object, now for one that is gone.
func (s *sum) changed(old, now resource.Object) (objects, bytes int64) {
	if old != nil {
		objects, bytes = objects-1, bytes-sizeOf(old)
	}
	if now != nil {
		objects, bytes = objects+1, bytes+sizeOf(now)
	}
	return s.objects.Add(objects), s.bytes.Add(bytes)
}

// weigh counts what was in the store and what is instead, and tells failed when that is more than there may be.
func (s *store) weigh(was, is []any) {
	if s.admit == nil {
		return
	}
	for _, in := range was {
		if o, ok := in.(resource.Object); ok {
			s.held.changed(o, nil)
		}
	}
	for _, in := range is {
		if o, ok := in.(resource.Object); ok {
			s.held.changed(nil, o)
		}
	}
	if err := s.admit(s.held.objects.Load(), s.held.bytes.Load()); err != nil {
		s.failed(err)
	}
}

// countedWatch is a watch that ends when the objects that it begins with are more than the cache may hold.
type countedWatch struct {
	watch.Interface
	events chan watch.Event
	done   chan struct{}
	stop   sync.Once
}

// counted returns such a watch.
func counted(w watch.Interface, k resource.Kind, admit Admit, failed func(error)) watch.Interface {
	c := &countedWatch{Interface: w, events: make(chan watch.Event), done: make(chan struct{})}
	go c.run(k, admit, failed) // ends with the watch
	return c
}

// ResultChan implements watch.Interface.
func (c *countedWatch) ResultChan() <-chan watch.Event { return c.events }

// Stop implements watch.Interface.
func (c *countedWatch) Stop() {
	c.stop.Do(func() { close(c.done) })
	c.Interface.Stop()
}

func (c *countedWatch) run(k resource.Kind, admit Admit, failed func(error)) {
	defer close(c.events)
	held, begun := &sum{}, false
	for event := range c.Interface.ResultChan() {
		obj, ok := event.Object.(resource.Object)
		switch {
		case begun || !ok:
		case event.Type == watch.Added:
			if !k.MetadataOnly {
				k.Trim(obj)
			}
			if err := admit(held.changed(nil, obj)); err != nil {
				failed(err)
				c.Interface.Stop()
				return
			}
		case event.Type == watch.Bookmark:
			begun = obj.GetAnnotations()[metav1.InitialEventsAnnotationKey] == "true"
		}
		select {
		case c.events <- event:
		case <-c.done:
			return
		}
	}
}
