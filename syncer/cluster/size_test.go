package cluster

import (
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

var errFull = errors.New("full")

// atMost admits so many objects.
func atMost(most int64) Admit {
	return func(objects, _ int64) error {
		if objects > most {
			return errFull
		}
		return nil
	}
}

func configMapKind() resource.Kind {
	return resource.Of(resource.Resource[*corev1.ConfigMap]{
		Name: "configmaps", GVK: corev1.SchemeGroupVersion.WithKind("ConfigMap"), New: func() *corev1.ConfigMap { return &corev1.ConfigMap{} },
	})
}

func namedMap(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: name}}
}

func TestSizes(t *testing.T) {
	const text = 5000
	content := map[string]string{"a": strings.Repeat("x", text)}
	meta := metav1.ObjectMeta{Name: "x", ManagedFields: []metav1.ManagedFieldsEntry{{FieldsV1: metav1.NewFieldsV1(strings.Repeat("x", text))}}}
	for name, tc := range map[string]struct {
		of  resource.Object
		min int64
	}{
		"Empty":    {of: &corev1.ConfigMap{}},
		"Typed":    {of: &corev1.ConfigMap{Data: content}, min: text},
		"Custom":   {of: &unstructured.Unstructured{Object: map[string]any{"a": []any{content["a"], int64(1)}}}, min: text},
		"Metadata": {of: &metav1.PartialObjectMetadata{ObjectMeta: meta}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := sizeOf(tc.of); got < overhead+tc.min || got > overhead+tc.min+200 {
				t.Errorf("size is %d, want a little more than %d", got, overhead+tc.min)
			}
		})
	}
}

// A store is weighed as a whole when it is replaced: what is new does not count beside what it replaces.
func TestStoresAreBounded(t *testing.T) {
	var failed error
	s := newStore(CacheOptions{
		Kind: configMapKind(), Admit: atMost(2), Failed: func(err error) { failed = err },
		Handler: Handler{Changed: func(_, _ resource.Object) {}, Gone: func(resource.Object, bool) {}},
	})
	steps := []struct {
		name string
		do   func() error
		full bool
	}{
		{"fill", func() error { return s.Replace([]any{namedMap("a"), namedMap("b")}, "1") }, false},
		{"update", func() error { return s.Update(namedMap("a")) }, false},
		{"replace with others", func() error { return s.Replace([]any{namedMap("c"), namedMap("d")}, "2") }, false},
		{"delete", func() error { return s.Delete(namedMap("c")) }, false},
		{"add", func() error { return s.Add(namedMap("e")) }, false},
		{"add one more", func() error { return s.Add(namedMap("f")) }, true},
	}
	for _, step := range steps {
		failed = nil
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		if full := errors.Is(failed, errFull); full != step.full {
			t.Errorf("%s: full is %t, want %t", step.name, full, step.full)
		}
	}
	for _, name := range []string{"d", "e", "f"} {
		if err := s.Delete(namedMap(name)); err != nil {
			t.Fatal(err)
		}
	}
	if objects, bytes := s.held.objects.Load(), s.held.bytes.Load(); objects != 0 || bytes != 0 {
		t.Errorf("an empty store holds %d objects of %d bytes", objects, bytes)
	}
}

// A streamed list is bounded while it is read. What comes later is the store's.
func TestStreamedListsAreBounded(t *testing.T) {
	end := namedMap("")
	end.Annotations = map[string]string{metav1.InitialEventsAnnotationKey: "true"}
	for name, tc := range map[string]struct {
		events []watch.Event
		want   int
		full   bool
	}{
		"Fits": {events: []watch.Event{
			{Type: watch.Added, Object: namedMap("a")}, {Type: watch.Added, Object: namedMap("b")}, {Type: watch.Bookmark, Object: end},
			{Type: watch.Added, Object: namedMap("c")},
		}, want: 4},
		"TooMany": {events: []watch.Event{
			{Type: watch.Added, Object: namedMap("a")}, {Type: watch.Added, Object: namedMap("b")}, {Type: watch.Added, Object: namedMap("c")},
			{Type: watch.Bookmark, Object: end},
		}, want: 2, full: true},
	} {
		t.Run(name, func(t *testing.T) {
			source := watch.NewFakeWithChanSize(len(tc.events), false)
			for _, event := range tc.events {
				source.Action(event.Type, event.Object)
			}
			var failed error
			w := counted(source, configMapKind(), atMost(2), func(err error) { failed = err })
			defer w.Stop()
			got := 0
			for range w.ResultChan() {
				if got++; got == len(tc.events) {
					source.Stop()
				}
			}
			if got != tc.want || errors.Is(failed, errFull) != tc.full {
				t.Errorf("got %d events and %v", got, failed)
			}
		})
	}
}
