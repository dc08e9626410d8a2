package engine

import (
	"crypto/sha256"
	"reflect"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// sendAgain is when a patch that changed nothing is tried again: the API server may have been upgraded since.
const sendAgain = 10 * time.Minute

// A replica that was made is awaited in the cache for awaitShown, looking again after awaitAgain, before it is made once more.
const (
	awaitShown = 5 * time.Second
	awaitAgain = time.Second
)

// making says whether a replica was made that the cache has not shown yet. To make it again would fail, and would still be
// counted by the quotas of the super cluster.
func (s *sent) making(kind string, key resource.Key, side resource.Side, now time.Time) bool {
	last := s.get(place{kind: kind, key: key, side: side, verb: resource.Create})
	return !last.at.IsZero() && now.Sub(last.at) < awaitShown
}

// made notes that a replica was made.
func (s *sent) made(kind string, key resource.Key, side resource.Side, now time.Time) {
	s.put(place{kind: kind, key: key, side: side, verb: resource.Create}, patch{at: now})
}

// shown notes that the cache has shown a replica.
func (s *sent) shown(kind string, key resource.Key, side resource.Side) {
	s.forget(place{kind: kind, key: key, side: side, verb: resource.Create})
}

// makes says whether an operation makes the object of the key itself.
func makes(w *kindState, op resource.Op) bool {
	return op.Verb == resource.Create && reflect.TypeOf(op.Object) == reflect.TypeOf(w.New())
}

// sent remembers the last patch of each object. An API server leaves out of a patch what it does not know, because it is
// older or a feature is off. Nothing changes then, and the same difference would be found and written by every patrol.
type sent struct{ remembered[place, patch] }

// place is where a patch goes.
type place struct {
	kind string
	key  resource.Key
	side resource.Side
	verb resource.Verb
}

// patch is what was written, onto which version of the object.
type patch struct {
	uid     types.UID
	version string
	body    [sha256.Size]byte
	at      time.Time
}

// patchOf describes an operation, if it is a patch.
func patchOf(kind string, key resource.Key, op resource.Op, now time.Time) (place, patch, bool) {
	if len(op.Patch) == 0 {
		return place{}, patch{}, false
	}
	return place{kind: kind, key: key, side: op.Side, verb: op.Verb},
		patch{uid: op.Object.GetUID(), version: op.Object.GetResourceVersion(), body: sha256.Sum256(op.Patch), at: now}, true
}

// changesNothing says whether the same patch was accepted and left the object as it was, or has not been seen to change it
// yet.
func (s *sent) changesNothing(kind string, key resource.Key, op resource.Op, now time.Time) bool {
	where, p, ok := patchOf(kind, key, op, now)
	if !ok {
		return false
	}
	last := s.get(where)
	return last.uid == p.uid && last.version == p.version && last.body == p.body && now.Sub(last.at) < sendAgain
}

// pointless says whether there is no point in an operation: it would change nothing, or say what was said not long ago.
func (e *Engine) pointless(w *kindState, key resource.Key, op resource.Op) bool {
	return e.sent.changesNothing(w.Name, key, op, e.now()) || e.notices.repeats(witness{w.Name, key}, op, e.now())
}

// accepted notes that an API server accepted a patch.
func (s *sent) accepted(kind string, key resource.Key, op resource.Op, now time.Time) {
	if where, p, ok := patchOf(kind, key, op, now); ok {
		s.put(where, p)
	}
}
