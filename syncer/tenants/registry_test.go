package tenants

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/rest"

	"github.com/virtualcluster-io/virtualcluster/syncer/continuity"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// working is a listener whose work for a tenant takes a while to end, like a call that is in flight.
type working struct {
	takes time.Duration

	mu     sync.Mutex
	begun  []string // guarded by mu
	active int      // guarded by mu
	most   int      // guarded by mu
}

func (w *working) Connected(t *Tenant) func(context.Context) {
	return func(ctx context.Context) {
		w.mu.Lock()
		w.begun = append(w.begun, t.Hash)
		w.active++
		w.most = max(w.most, w.active)
		w.mu.Unlock()
		<-ctx.Done()
		<-time.After(w.takes) // of the fake clock
		w.mu.Lock()
		w.active--
		w.mu.Unlock()
	}
}
func (w *working) Changed(*Tenant, string, resource.Object, resource.Object) {}
func (w *working) Gone(*Tenant, string, resource.Object, bool)               {}
func (w *working) CacheSynced(*Tenant, string)                               {}
func (w *working) Moved(*Tenant, State, string)                              {}
func (w *working) Remember(*Tenant)                                          {}

func (w *working) now() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.active
}

// specOf describes a tenant at an address where nobody answers.
func specOf(hash string) Spec {
	return Spec{Facts: resource.Facts{ID: "a"}, Config: &rest.Config{Host: "http://127.0.0.1:1"}, Hash: hash}
}

// vc-manager removes what a dropped tenant had in the super cluster; a write in flight would bring it back.
func TestDropWaitsForWorkInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		w := &working{takes: 3 * time.Second}
		r := New(ctx, Options{Timeout: time.Second, Probe: time.Hour, Super: noSuper, Listener: w})
		if err := r.Ensure(specOf("1")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if w.now() != 1 {
			t.Fatal("nobody works for the tenant")
		}
		r.Drop("a")
		if w.now() != 0 || r.Get("a") != nil {
			t.Error("a tenant that was dropped is still worked for")
		}
		r.Drop("a") // again: nothing is left to wait for
	})
}

// What the old connection still writes does not come after what the new one writes.
func TestConnectionsFollowEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		w := &working{takes: 3 * time.Second}
		r := New(ctx, Options{Timeout: time.Second, Probe: time.Hour, Super: noSuper, Listener: w})
		for _, hash := range []string{"1", "2"} {
			if err := r.Ensure(specOf(hash)); err != nil { // returns at once
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if now := r.Get("a"); now == nil || now.Hash != "2" {
			t.Fatalf("connected is %v", now)
		}
		<-time.After(2 * w.takes)
		synctest.Wait()
		r.Close()
		if len(w.begun) != 2 || w.most != 1 || w.now() != 0 {
			t.Errorf("worked for %v, %d at a time, and %d now", w.begun, w.most, w.now())
		}
		if err := r.Ensure(specOf("3")); err == nil || r.Get("a") != nil {
			t.Error("a tenant is connected after the end")
		}
	})
}

// noSuper is a super cluster that is the same for ever.
func noSuper(context.Context, time.Duration) (continuity.Super, error) {
	return continuity.Super{Identity: "super", Revision: 1}, nil
}
