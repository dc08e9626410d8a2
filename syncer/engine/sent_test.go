package engine

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

func TestSent(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	key := resource.Key{Tenant: "a", Namespace: "ns", Name: "web"}
	op := func(edit func(*resource.Op, *corev1.Pod)) resource.Op {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "1", ResourceVersion: "7"}}
		op := resource.Op{Side: resource.Tenant, Verb: resource.PatchStatus, Object: pod, Patch: []byte("x")}
		if edit != nil {
			edit(&op, pod)
		}
		return op
	}
	for name, tc := range map[string]struct {
		key   resource.Key
		op    resource.Op
		after time.Duration
		want  bool
	}{
		"Same":            {op: op(nil), want: true},
		"LongAgo":         {op: op(nil), after: sendAgain},
		"AnotherPatch":    {op: op(func(o *resource.Op, _ *corev1.Pod) { o.Patch = []byte("y") })},
		"ObjectChanged":   {op: op(func(_ *resource.Op, p *corev1.Pod) { p.ResourceVersion = "8" })},
		"ObjectReplaced":  {op: op(func(_ *resource.Op, p *corev1.Pod) { p.UID = "2" })},
		"OtherSide":       {op: op(func(o *resource.Op, _ *corev1.Pod) { o.Side = resource.Super })},
		"OtherPart":       {op: op(func(o *resource.Op, _ *corev1.Pod) { o.Verb = resource.Patch })},
		"OtherObject":     {key: resource.Key{Tenant: "a", Namespace: "ns", Name: "db"}, op: op(nil)},
		"WhatIsNotAPatch": {op: op(func(o *resource.Op, _ *corev1.Pod) { o.Verb, o.Patch = resource.Bind, nil })},
	} {
		t.Run(name, func(t *testing.T) {
			s := &sent{}
			s.accepted("pods", key, op(nil), now)
			if tc.key == (resource.Key{}) {
				tc.key = key
			}
			if got := s.changesNothing("pods", tc.key, tc.op, now.Add(tc.after)); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestSentIsBoundedPerTenant(t *testing.T) {
	s, now := &sent{}, time.Now()
	op := resource.Op{Verb: resource.Patch, Object: &corev1.Pod{}, Patch: []byte("x")}
	modest := resource.Key{Tenant: "modest", Name: "web"}
	s.accepted("pods", modest, op, now)
	for i := range 2 * maxRemembered {
		s.accepted("pods", resource.Key{Tenant: "greedy", Name: string(rune(i))}, op, now)
	}
	if n := s.of("greedy").Len(); n != maxRemembered {
		t.Errorf("%d are remembered", n)
	}
	if !s.changesNothing("pods", modest, op, now) {
		t.Error("one tenant's patches push out those of another")
	}
	s.drop("greedy")
	if n := s.of("greedy").Len(); n != 0 {
		t.Errorf("%d of a tenant that is gone are remembered", n)
	}
}

// A replica is made once until the cache has shown it, or does not show it for long.
func TestReplicasAreMadeOnce(t *testing.T) {
	now, s := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), &sent{}
	key, other := resource.Key{Tenant: "a", Name: "web"}, resource.Key{Tenant: "a", Name: "db"}
	making := func(key resource.Key, side resource.Side, after time.Duration) bool {
		return s.making("pods", key, side, now.Add(after))
	}
	if making(key, resource.Super, 0) {
		t.Error("nothing was made")
	}
	s.made("pods", key, resource.Super, now)
	if !making(key, resource.Super, time.Second) {
		t.Error("it was made, and the cache has not shown it")
	}
	if making(other, resource.Super, 0) || making(key, resource.Tenant, 0) {
		t.Error("something else was not made")
	}
	if making(key, resource.Super, awaitShown) {
		t.Error("the cache does not show it")
	}
	s.shown("pods", key, resource.Super)
	if making(key, resource.Super, 0) {
		t.Error("the cache has shown it: it may be made again once it is gone")
	}
}
