package syncer_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	psa "k8s.io/pod-security-admission/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer"
	"github.com/virtualcluster-io/virtualcluster/syncer/continuity"
	"github.com/virtualcluster-io/virtualcluster/syncer/engine"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/resources"
	"github.com/virtualcluster-io/virtualcluster/syncer/tenants"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

// An object on which our own code fails is set aside and told about, wherever it fails, and everything else is served.
func TestObjectsThatBreakTheSyncerAreSetAside(t *testing.T) {
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, "fragile")
	r.stop()

	kinds := resources.All(resources.Options{AgentNamespace: agentNamespace})
	for i := range kinds {
		k := kinds[i]
		if k.Name != "configmaps" {
			continue
		}
		breaks := func(o resource.Object, where string) {
			if o != nil && o.GetName() == where {
				panic("a fault in " + where)
			}
		}
		kinds[i].Trim = func(o resource.Object) { breaks(o, "trim"); k.Trim(o) }
		kinds[i].References = func(o resource.Object) []resource.Ref { breaks(o, "references"); return k.References(o) }
		kinds[i].Decide = func(v resource.View, key resource.Key, tenant, super resource.Object) ([]resource.Op, error) {
			breaks(tenant, "decide")
			return k.Decide(v, key, tenant, super)
		}
	}
	registry := prometheus.NewRegistry()
	runEngine(t, r, of, engine.Options{Kinds: kinds, Registerer: registry, Patrol: time.Second})

	broken := []string{"trim", "references", "decide"}
	for _, name := range append(broken, "fine") {
		if _, err := of.CoreV1().ConfigMaps("fragile").Create(t.Context(), worlds.ConfigMap("fragile", name, nil), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	usingPod(t, of, "fragile", "user", "fine", "")
	worlds.Eventually(t, limit, "the ConfigMap beside them", func(ctx context.Context) error {
		return r.client.Get(ctx, client.ObjectKey{Namespace: of.super("fragile"), Name: names.SuperConfigMap("fine")}, &corev1.ConfigMap{})
	})
	for _, name := range broken {
		worlds.Eventually(t, limit, "an event on "+name, func(ctx context.Context) error {
			list, err := of.CoreV1().Events("fragile").List(ctx, metav1.ListOptions{FieldSelector: "reason=InternalError,involvedObject.name=" + name})
			if err == nil && len(list.Items) != 1 {
				err = fmt.Errorf("there are %d", len(list.Items))
			}
			return err
		})
	}
	if got := counted(t, registry, "vc_syncer_panics_total"); got < float64(len(broken)) {
		t.Errorf("%v panics are counted", got)
	}
}

// runEngine runs an engine alone, with one of the tenants, until the test ends.
func runEngine(t *testing.T, r *running, of tenant, o engine.Options) {
	t.Helper()
	system, err := of.CoreV1().Namespaces().Get(t.Context(), metav1.NamespaceSystem, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	vc := vcOf(of)
	if err := r.client.Get(t.Context(), of.vc, vc); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background()) // the engine must still run when the test cleans up
	o.Super, o.Timeout, o.Probe = asSyncer(r.worlds.Super), 2*time.Second, time.Second
	e, err := engine.New(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the engine ended with %v", err)
		}
	})
	memory := tenants.Memory{} // what other syncers have left
	if sync := vc.Status.Sync; sync != nil {
		memory.Record = continuity.Record{Sequence: sync.Mark, Next: sync.NextMark, Revision: sync.Revision}
		if sync.RevisionTime != nil {
			memory.At = sync.RevisionTime.Time
		}
	}
	err = e.Tenants().Ensure(tenants.Spec{
		Facts: resource.Facts{
			ID: of.id, VirtualCluster: of.vc, UID: vc.UID, ClusterDomain: "cluster.local",
			ServiceRanges: of.world.ServiceRanges, PodSecurity: psa.LevelBaseline,
		},
		Config: of.world.Config, Identity: system.UID, Memory: memory,
	})
	if err != nil {
		t.Fatal(err)
	}
}

// counted returns the sum of a metric.
func counted(t *testing.T, registry *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}

// What tenants do while the super cluster is away happens as soon as it is back, not when its turn to be retried comes, and
// the syncer lives through it.
func TestSuperClusterThatWasAway(t *testing.T) {
	r := startIn(t, startWorlds(t, options(1)), func(o *syncer.Options) { o.Patrol = time.Hour })
	of := r.tenants[0]
	r.namespace(t, of, "outage")
	of.world.MakePod(t, worlds.Pod("outage", "before"))
	r.superPod(t, of, "outage", "before")

	r.worlds.Super.Kill()
	const pods = 30
	for i := range pods {
		of.world.MakePod(t, worlds.Pod("outage", fmt.Sprintf("p%d", i)))
	}
	worlds.Throughout(t, 50*time.Second, "the tenant serves", func(ctx context.Context) error { // retries back off meanwhile
		_, err := of.CoreV1().Pods("outage").Get(ctx, "before", metav1.GetOptions{})
		return err
	})
	if err := r.worlds.Super.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	back := time.Now()
	worlds.Eventually(t, 10*time.Second, "the pods that were made while the super cluster was away", func(ctx context.Context) error {
		var list corev1.PodList
		if err := r.client.List(ctx, &list, client.InNamespace(of.super("outage"))); err != nil {
			return err
		}
		if len(list.Items) != pods+1 {
			return fmt.Errorf("there are %d", len(list.Items))
		}
		return nil
	})
	t.Logf("%d pods that were made while the super cluster was away were there %s after it was back", pods, time.Since(back).Round(time.Millisecond))
}

// A tenant is in sync without a kind that its API server does not serve. When it serves it later, as after an upgrade, what
// was looked at in vain meanwhile is looked at again.
func TestKindThatATenantBeginsToServe(t *testing.T) {
	own := worlds.Start(t, worlds.Options{Tenants: 1, Variants: []worlds.Variant{{APIServerArgs: []string{"--runtime-config=policy/v1=false"}}}})
	world := own.Tenants[0]
	system, err := world.Client.CoreV1().Namespaces().Get(t.Context(), metav1.NamespaceSystem, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	heard := &hearing{moved: make(chan tenants.State, 100), filled: make(chan string, 100)}
	registry := tenants.New(t.Context(), tenants.Options{
		Kinds: resources.All(resources.Options{}), Timeout: 2 * time.Second, Probe: time.Second, Listener: heard,
		Super: func(context.Context, time.Duration) (continuity.Super, error) {
			return continuity.Super{Identity: "super", Revision: 1}, nil
		},
	})
	defer registry.Close()
	spec := tenants.Spec{Facts: resource.Facts{ID: "late"}, Config: world.Config, Identity: system.UID}
	if err := registry.Ensure(spec); err != nil {
		t.Fatal(err)
	}
	await(t, heard.moved, tenants.Synced)
	world.SetArgs()
	if err := world.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	await(t, heard.filled, "poddisruptionbudgets")
}

// hearing is a listener that passes on what it is told of the connection.
type hearing struct {
	moved  chan tenants.State
	filled chan string
}

// Connected implements tenants.Listener.
func (h *hearing) Connected(*tenants.Tenant) func(context.Context) {
	return func(ctx context.Context) { <-ctx.Done() }
}

// Changed implements tenants.Listener.
func (h *hearing) Changed(*tenants.Tenant, string, resource.Object, resource.Object) {}

// Gone implements tenants.Listener.
func (h *hearing) Gone(*tenants.Tenant, string, resource.Object, bool) {}

// Filled implements tenants.Listener.
func (h *hearing) CacheSynced(_ *tenants.Tenant, kind string) { h.filled <- kind }

// Moved implements tenants.Listener.
func (h *hearing) Moved(_ *tenants.Tenant, state tenants.State, _ string) { h.moved <- state }

// Remember implements tenants.Listener.
func (h *hearing) Remember(*tenants.Tenant) {}

// await waits until a value is sent.
func await[T comparable](t *testing.T, sent <-chan T, want T) {
	t.Helper()
	deadline := time.After(2 * limit) // a watch that failed is tried again after up to 30 s
	for {
		select {
		case got := <-sent:
			if got == want {
				return
			}
		case <-deadline:
			t.Fatalf("waited %s for %v", 2*limit, want)
		}
	}
}
