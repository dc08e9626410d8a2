package cluster

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

func event(namespace, name, version string) *corev1.Event {
	return &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, ResourceVersion: version}}
}

// A version of an object is kept until it is forgotten, and told of once each time that it arrives.
func TestPassing(t *testing.T) {
	var told []string
	p := &passing{
		handler: Handler{Changed: func(old, now resource.Object) {
			if old != nil {
				t.Errorf("%s is not new", now.GetName())
			}
			told = append(told, now.GetName()+"@"+now.GetResourceVersion())
		}},
		transform: func(in any) (any, error) { return in, nil },
		filled:    make(chan struct{}),
		store:     cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{}),
	}
	c := &Cache{store: p.store, filled: p.filled, forget: p.forget}
	held := func(want ...string) {
		t.Helper()
		var got []string
		c.Each(func(o resource.Object) { got = append(got, o.GetName()+"@"+o.GetResourceVersion()) })
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("held: -want +got\n%s", diff)
		}
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	if c.Synced() {
		t.Error("it is filled before it was")
	}
	check(p.Replace([]any{event("a", "x", "1"), event("a", "y", "1")}, "1"))
	if !c.Synced() {
		t.Error("it is not filled")
	}
	held("x@1", "y@1")
	c.Forget(event("a", "x", "1"))
	c.Forget(nil)
	held("y@1")
	check(p.Update(event("a", "y", "2")))
	c.Forget(event("a", "y", "1")) // what was decided about is not what is there
	held("y@2")
	check(p.Add(event("a", "x", "3")))
	check(p.Delete(event("a", "x", "4")))
	check(p.Delete(event("a", "z", "4")))
	held("y@2")
	check(p.Replace([]any{event("a", "z", "5")}, "5"))
	held("z@5")
	if diff := cmp.Diff([]string{"x@1", "y@1", "y@2", "x@3", "z@5"}, told); diff != "" {
		t.Errorf("told: -want +got\n%s", diff)
	}
}

// What is of no interest does not come in, and what is not an object does.
func TestKeep(t *testing.T) {
	keep := func(o resource.Object) bool { return o.GetNamespace() == "tenants" }
	list := &corev1.EventList{Items: []corev1.Event{*event("operators", "x", "1"), *event("tenants", "y", "1")}}
	if err := keepItems(list, keep); err != nil || len(list.Items) != 1 || list.Items[0].Name != "y" {
		t.Errorf("got %v, %v", list.Items, err)
	}
	for name, tc := range map[string]struct {
		in   watch.Event
		want bool
	}{
		"Ours":     {watch.Event{Type: watch.Added, Object: event("tenants", "y", "1")}, true},
		"Others":   {watch.Event{Type: watch.Modified, Object: event("operators", "x", "1")}, false},
		"Bookmark": {watch.Event{Type: watch.Bookmark, Object: event("", "", "1")}, true},
		"Error":    {watch.Event{Type: watch.Error, Object: &metav1.Status{}}, true},
	} {
		if got := kept(tc.in, keep); got != tc.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}
