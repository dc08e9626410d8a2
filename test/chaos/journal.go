package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// journal is what a tenant was told by its API server: which objects of the load exist, and what is in them. What was neither
// confirmed nor refused may be either way; it is not touched again, so that a request which is carried out late does no harm.
type journal struct {
	mu      sync.Mutex
	entries map[key]entry
}

// entry is what is known of an object.
type entry struct {
	// Revision is of the content, 0 when the object does not exist. UID is empty when it is not known.
	Revision int
	UID      string
	// Doubt holds the revisions that it may have instead, 0 for none.
	Doubt []int
}

func (e entry) exists() bool  { return e.Revision > 0 && len(e.Doubt) == 0 }
func (e entry) certain() bool { return len(e.Doubt) == 0 }

func newJournal() *journal { return &journal{entries: map[key]entry{}} }

func (j *journal) get(k key) (entry, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	e, ok := j.entries[k]
	return e, ok
}

// told notes that an object exists with a revision, or 0 that it does not. What was in a namespace goes with it.
func (j *journal) told(k key, revision int, uid string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.entries[k] = entry{Revision: revision, UID: uid}
	if k.Kind == kindNamespace && revision == 0 {
		for inside := range j.entries {
			if inside.Namespace == k.Name {
				j.entries[inside] = entry{}
			}
		}
	}
}

// doubt notes that an object may have another revision than before, or that it may not exist.
func (j *journal) doubt(k key, revision int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	note := func(k key) {
		e := j.entries[k]
		e.Doubt = append(slices.Clone(e.Doubt), revision)
		j.entries[k] = e
	}
	note(k)
	for inside, e := range j.entries {
		if k.Kind == kindNamespace && revision == 0 && inside.Namespace == k.Name && (e.Revision > 0 || !e.certain()) {
			note(inside)
		}
	}
}

// existing lists the objects that certainly exist, of a kind and in a namespace, in order.
func (j *journal) existing(kind, namespace string) []key {
	j.mu.Lock()
	defer j.mu.Unlock()
	var out []key
	for k, e := range j.entries {
		if k.Kind == kind && k.Namespace == namespace && e.exists() {
			out = append(out, k)
		}
	}
	slices.SortFunc(out, func(a, b key) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// save returns what is known, for load.
func (j *journal) save() map[key]entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	return maps.Clone(j.entries)
}

// load goes back to what was known, when the control plane does. What came since does not exist any more. A pod that was deleted
// since ran already, and does not run again: vc-syncer may end it, as its node would.
func (j *journal) load(saved map[key]entry) {
	j.mu.Lock()
	defer j.mu.Unlock()
	now := maps.Clone(saved)
	for k := range j.entries {
		if _, known := now[k]; !known {
			now[k] = entry{}
		}
	}
	for k, e := range now {
		if since := j.entries[k]; k.Kind == kindPod && e.exists() && (!since.exists() || since.UID != e.UID) {
			e.Doubt = []int{0}
			now[k] = e
		}
	}
	j.entries = now
}

// judge compares what a tenant has with what it was told.
func (j *journal) judge(of string, objects []object) []finding {
	j.mu.Lock()
	defer j.mu.Unlock()
	var out []finding
	have := map[key]object{}
	for _, o := range objects {
		if !o.Unneeded || o.Content[owner] != "" {
			have[o.Key] = o
		}
	}
	for k, e := range j.entries {
		o, exists := have[k]
		if f, bad := e.judge(k, o, exists); bad {
			f.Of = of
			out = append(out, f)
		}
	}
	for k, o := range have {
		if _, known := j.entries[k]; !known && o.Content[owner] != "" {
			out = append(out, finding{returned, k, of, show(o), "it was never made"})
		}
	}
	slices.SortFunc(out, func(a, b finding) int { return strings.Compare(a.Key.String(), b.Key.String()) })
	return out
}

func (e entry) judge(k key, o object, exists bool) (finding, bool) {
	may := append(slices.Clone(e.Doubt), e.Revision)
	want := fmt.Sprintf("UID %s, revision %v", e.UID, may)
	switch {
	case !exists && !slices.Contains(may, 0):
		return finding{What: vanished, Key: k, Want: want}, true
	case !exists:
		return finding{}, false
	case e.Revision == 0 && e.certain():
		return finding{What: returned, Key: k, Have: show(o)}, true
	case e.UID != "" && o.UID != e.UID && e.certain():
		return finding{What: changed, Key: k, Have: show(o), Want: want}, true
	}
	revision, err := strconv.Atoi(o.Content[revisionKey])
	if hasRevision(k.Kind) && (err != nil || !slices.Contains(may, revision)) {
		return finding{What: changed, Key: k, Have: show(o), Want: want}, true
	}
	return finding{}, false
}
