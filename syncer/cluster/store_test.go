package cluster

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

func event(namespace, name, version string) *corev1.Event {
	return &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, ResourceVersion: version}}
}

func kindOf(passing bool) resource.Kind {
	return resource.Of(resource.Resource[*corev1.Event]{
		Name: "events", GVK: corev1.SchemeGroupVersion.WithKind("Event"), Passing: passing, New: func() *corev1.Event { return &corev1.Event{} },
	})
}

// The handler is told of every change after the store shows it, with what was there before, and of what a list does not have
// any more.
func TestStoreTellsChanges(t *testing.T) {
	var told []string
	var s *store
	version := func(o resource.Object) string {
		if o == nil {
			return "nothing"
		}
		return o.GetResourceVersion()
	}
	shown := func(o resource.Object) string {
		current, _, _ := s.objects.Get(o)
		now, _ := current.(resource.Object)
		return version(now)
	}
	s = newStore(CacheOptions{Kind: kindOf(false), Handler: Handler{
		Changed: func(old, now resource.Object) {
			told = append(told, fmt.Sprintf("%s: %s -> %s", now.GetName(), version(old), version(now)))
			if shown(now) != version(now) {
				t.Errorf("%s is told at %s, and is %s", now.GetName(), version(now), shown(now))
			}
		},
		Gone: func(last resource.Object, seen bool) {
			told = append(told, fmt.Sprintf("%s: %s is gone, seen: %v", last.GetName(), version(last), seen))
			if shown(last) != "nothing" {
				t.Errorf("%s is gone, and is %s", last.GetName(), shown(last))
			}
		},
	}})
	for _, tc := range []struct {
		name   string
		change func() error
		want   []string
	}{
		{"filled", func() error { return s.Replace([]any{event("a", "x", "1"), event("a", "y", "1")}, "1") }, []string{"x: nothing -> 1", "y: nothing -> 1"}},
		{"added", func() error { return s.Add(event("a", "z", "2")) }, []string{"z: nothing -> 2"}},
		{"updated", func() error { return s.Update(event("a", "x", "3")) }, []string{"x: 1 -> 3"}},
		{"deleted", func() error { return s.Delete(event("a", "y", "4")) }, []string{"y: 4 is gone, seen: true"}},
		{"unknown", func() error { return s.Delete(event("a", "y", "5")) }, nil},
		{
			"listed anew", func() error { return s.Replace([]any{event("a", "x", "6"), event("a", "w", "6")}, "6") },
			[]string{"w: nothing -> 6", "x: 3 -> 6", "z: 2 is gone, seen: false"},
		},
		{"nothing left", func() error { return s.Replace(nil, "7") }, []string{"w: 6 is gone, seen: false", "x: 6 is gone, seen: false"}},
	} {
		told = nil
		if err := tc.change(); err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		slices.Sort(told)
		if diff := cmp.Diff(tc.want, told); diff != "" {
			t.Errorf("%s: -want +got\n%s", tc.name, diff)
		}
	}
}

// A version of an object is kept until it is forgotten, and told of once each time that it arrives.
func TestPassing(t *testing.T) {
	var told []string
	p := newStore(CacheOptions{Kind: kindOf(true), Handler: Handler{
		Changed: func(old, now resource.Object) {
			if old != nil {
				t.Errorf("%s is not new", now.GetName())
			}
			told = append(told, now.GetName()+"@"+now.GetResourceVersion())
		},
		Gone: func(last resource.Object, _ bool) { t.Errorf("%s is gone", last.GetName()) },
	}})
	c := &Cache{store: p}
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
