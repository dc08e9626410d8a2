package engine

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/tenants"
)

// A thousand tenants that do nothing cost a small part of what their caches do.
func TestIdleTenantsCostLittle(t *testing.T) {
	const idle, most = 1000, 32 << 10
	e := &Engine{options: Options{Workers: 8}, superSynced: make(chan struct{}), crew: newCrew(), sent: &sent{}, vetted: &vetted{}, compared: &compared{}, gate: newGate(BrakeOptions{})}
	e.roster.Store(&map[string]*kindState{})
	close(e.superSynced)
	used := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	before := used()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var running sync.WaitGroup
	for i := range idle {
		id := names.TenantID(fmt.Sprint(i))
		serve := e.Connected(&tenants.Tenant{Spec: tenants.Spec{Facts: resource.Facts{ID: id}}})
		running.Go(func() { serve(ctx) })
	}
	if used, tenants := used()-before, 0; used > idle*most {
		t.Errorf("an idle tenant costs %d bytes, want at most %d", used/idle, most)
	} else {
		e.eachPool(func(*pool) { tenants++ })
		t.Logf("each of %d idle tenants costs %d bytes", tenants, used/idle)
	}
	cancel()
	running.Wait()
	e.eachPool(func(p *pool) { t.Errorf("tenant %s is still there", p.tenant.Facts.ID) })
}
