package engine

import (
	"maps"
	"sync"
	"time"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// stamp says since when a key is unfinished; the zero time means that it is not.
type stamp struct {
	// queued is when the key was queued that no worker has taken yet.
	queued time.Time
	// changed is when the oldest change of each side was seen whose effect on the other side is not written yet.
	changed [2]time.Time // by resource.Side
}

// stamps are those of the unfinished keys of one kind. They are only for metrics: nothing is decided by them.
type stamps struct {
	mu   sync.Mutex
	keys map[resource.Key]stamp // guarded by mu
}

// edit changes the stamp of a key. One that says nothing is not kept.
func (s *stamps) edit(key resource.Key, f func(*stamp)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.keys[key]
	f(&st)
	if st == (stamp{}) {
		delete(s.keys, key)
		return
	}
	if s.keys == nil {
		s.keys = map[resource.Key]stamp{}
	}
	s.keys[key] = st
}

// queued notes that a key waits for a worker, unless it does already.
func (s *stamps) queued(key resource.Key, now time.Time) {
	s.edit(key, func(st *stamp) { first(&st.queued, now) })
}

// changed notes that an object of one side changed.
func (s *stamps) changed(key resource.Key, side resource.Side, now time.Time) {
	s.edit(key, func(st *stamp) { first(&st.changed[side], now) })
}

// taken returns since when a key that a worker takes has waited for it; false if it was put off before.
func (s *stamps) taken(key resource.Key) (since time.Time, ok bool) {
	s.edit(key, func(st *stamp) { since, st.queued = st.queued, time.Time{} })
	return since, !since.IsZero()
}

// effective returns when the change of one side was seen whose effect has been written to the other; false if there was
// none.
func (s *stamps) effective(key resource.Key, side resource.Side) (since time.Time, ok bool) {
	s.edit(key, func(st *stamp) { since, st.changed[side] = st.changed[side], time.Time{} })
	return since, !since.IsZero()
}

// finished forgets the changes of a key that needs nothing more.
func (s *stamps) finished(key resource.Key) {
	s.edit(key, func(st *stamp) { st.changed = [2]time.Time{} })
}

// unfinished is what is unfinished.
type unfinished struct {
	queued int
	oldest time.Time // when the key was queued that waits longest
	// changed is when the oldest change of each side was seen whose effect is not written.
	changed [2]time.Time // by resource.Side
}

func (b *unfinished) add(st stamp) {
	if !st.queued.IsZero() {
		b.queued++
	}
	oldest(&b.oldest, st.queued)
	for side := range b.changed {
		oldest(&b.changed[side], st.changed[side])
	}
}

// drop forgets the keys of a tenant.
func (s *stamps) drop(tenant names.TenantID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.keys, func(key resource.Key, _ stamp) bool { return key.Tenant == tenant })
}

// total returns the backlog of all tenants.
func (s *stamps) total() unfinished {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b unfinished
	for _, st := range s.keys {
		b.add(st)
	}
	return b
}

// byTenant adds the backlog of each tenant to sums.
func (s *stamps) byTenant(sums map[names.TenantID]*unfinished) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, st := range s.keys {
		if sums[key.Tenant] == nil {
			sums[key.Tenant] = &unfinished{}
		}
		sums[key.Tenant].add(st)
	}
}

// first sets a time that is not set.
func first(at *time.Time, now time.Time) {
	if at.IsZero() {
		*at = now
	}
}

// oldest moves a time back to one that is before it.
func oldest(at *time.Time, other time.Time) {
	if !other.IsZero() && (at.IsZero() || other.Before(*at)) {
		*at = other
	}
}

// age returns how long ago something was, zero if it never was.
func age(now, since time.Time) float64 {
	if since.IsZero() {
		return 0
	}
	return now.Sub(since).Seconds()
}
