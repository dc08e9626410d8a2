package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/controllers/servicecidr"
	"github.com/virtualcluster-io/virtualcluster/internal/iprange"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/test/figures"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

const (
	// superRange is the range that the super cluster is started with, objectRange the one that ServiceCIDR objects divide.
	superRange, objectRange = "10.96.0.0/12", "10.112.0.0/12"
	// operatorNamespace is where the operator of the super cluster has Services.
	operatorNamespace = "operator"
	// claimTimeout bounds the claims of all tenants, stepTimeout each other step.
	claimTimeout, stepTimeout = 20 * time.Minute, 5 * time.Minute
	// settleTimeout bounds how long an API server may take to be quiet.
	settleTimeout = 3 * time.Minute
	// eventPause is between two events.
	eventPause = 50 * time.Millisecond
	// quiet is how little CPU time an API server that has nothing to do uses in a second.
	quiet = 150 * time.Millisecond
)

// rangeOptions say how to measure what ranges cost.
type rangeOptions struct {
	Tenants                              []int // one measurement for each number
	Size                                 int   // prefix length of a range
	Window                               time.Duration
	Events, Services, Released, Parallel int
}

// Two sides: ranges by ServiceCIDR objects and ranges by Services.
const (
	byObjects  = "ServiceCIDR"
	byServices = "Services"
)

// rangeCost is what one number of ranges costs.
type rangeCost struct {
	Side    string
	Tenants int
	// Claim is how long all claims took, Keep how long it took to find that they are still there, and Replicas how long the rest of
	// what vc-syncer would make of the same Services.
	Claim, Keep, Replicas cost
	// ClaimManager and KeepManager are the CPU time of what stands for vc-manager.
	ClaimManager, KeepManager time.Duration
	// Start is until /readyz, Settle from then until the API server is quiet.
	Start, Settle cost
	Quiet         cost
	Memory        int64
	// Event is one change of one ServiceCIDR.
	Event cost
	// Created are the latencies of the operator's Services, Inside how many of them have an address of a tenant's range, and
	// Ranges how many ranges those are in. A ServiceCIDR object stays as long as there is one.
	Created        []time.Duration
	Inside, Ranges int
	// Release is how long it took to give back some ranges, Controllers the CPU time of kube-controller-manager for it.
	Release, Controllers time.Duration
}

// cost is what an API server used.
type cost struct {
	Took, CPU time.Duration
	Log       lines
}

func (c cost) by(n int) cost {
	if n == 0 {
		return cost{}
	}
	d := time.Duration(n)
	return cost{c.Took / d, c.CPU / d, lines{c.Log.All / int64(n), c.Log.Allocator / int64(n), c.Log.Bytes / int64(n)}}
}

// measureRanges measures every number of tenants on both sides, each with servers of its own.
func measureRanges(ctx context.Context, o rangeOptions) ([]rangeCost, error) {
	var all []rangeCost
	for _, n := range o.Tenants {
		for _, side := range []string{byObjects, byServices} {
			if n == 0 && side == byServices {
				continue // the same
			}
			one, err := measureRange(ctx, o, side, n)
			if err != nil {
				return all, fmt.Errorf("%d tenants with %s: %w", n, side, err)
			}
			all = append(all, *one)
		}
	}
	return all, nil
}

// rangeBench is a super cluster whose API server is measured.
type rangeBench struct {
	options rangeOptions
	world   *worlds.World
	typed   kubernetes.Interface
	log     *logLines
	manager *manager
	ids     []names.TenantID
	ranges  map[names.TenantID]netip.Prefix
	// controllers is a kube-controller-manager.
	controllers *worlds.Process
}

func measureRange(ctx context.Context, o rangeOptions, side string, n int) (result *rangeCost, err error) {
	logf("ranges: %d tenants, %s: starting an API server", n, side)
	w, err := worlds.New(ctx, worlds.Options{APIServerArgs: []string{"--service-cluster-ip-range=" + superRange}})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.Stop()) }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	b, err := newRangeBench(ctx, o, w, side, n)
	if err != nil {
		return nil, err
	}
	defer b.controllers.Kill()
	r := &rangeCost{Side: side, Tenants: n}
	for _, step := range []struct {
		what    string
		timeout time.Duration
		do      func(context.Context, *rangeCost) error
	}{
		{"claiming", claimTimeout, b.claim},
		{"looking at the claims again", claimTimeout, b.keep},
		{"making what vc-syncer makes", claimTimeout, b.replicate},
		{"starting the API server again", stepTimeout, b.restart},
		{"being quiet", o.Window + stepTimeout, b.quiet},
		{"changing a ServiceCIDR", stepTimeout, b.events},
		{"releasing", stepTimeout, b.release},
		{"creating Services of the operator", stepTimeout, b.create},
	} {
		start := time.Now()
		limited, cancel := context.WithTimeout(ctx, step.timeout)
		err := step.do(limited, r)
		cancel()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", step.what, err)
		}
		logf("ranges: %d tenants, %s: %s: %.1f s", n, side, step.what, time.Since(start).Seconds())
	}
	return r, nil
}

func newRangeBench(ctx context.Context, o rangeOptions, w *worlds.Worlds, side string, n int) (*rangeBench, error) {
	b := &rangeBench{options: o, world: w.Super, log: &logLines{path: w.Super.LogPath()}, ranges: map[names.TenantID]netip.Prefix{}}
	var err error
	if b.typed, err = connect(w.Super); err != nil {
		return nil, err
	}
	pool := servicecidr.Auto
	if side == byObjects {
		pool = objectRange
	}
	if b.manager, err = newManager(ctx, w.Super, pool, o.Size); err != nil {
		return nil, err
	}
	for _, name := range []string{tenantsNamespace, operatorNamespace} {
		if err := b.manager.client.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
			return nil, fmt.Errorf("creating namespace %s: %w", name, err)
		}
	}
	b.ids = make([]names.TenantID, n)
	err = parallel(ctx, o.Parallel, n, func(ctx context.Context, i int) error {
		vc := &tenancyv1alpha1.VirtualCluster{ObjectMeta: metav1.ObjectMeta{Namespace: tenantsNamespace, Name: fmt.Sprintf("tenant-%d", i)}}
		if err := b.manager.client.Create(ctx, vc); err != nil {
			return fmt.Errorf("creating a VirtualCluster: %w", err)
		}
		b.ids[i] = names.Tenant(client.ObjectKeyFromObject(vc), vc.UID)
		return nil
	})
	if err != nil {
		return nil, err
	}
	binary, err := worlds.Binary("", "kube-controller-manager")
	if err != nil {
		return nil, err
	}
	b.controllers, err = worlds.StartProcess(filepath.Join(w.Dir(), "kube-controller-manager.log"), binary, "--kubeconfig="+w.Super.KubeconfigPath(),
		"--controllers=service-cidr-controller", "--leader-elect=false", "--secure-port=0", "--kube-api-qps=500", "--kube-api-burst=1000")
	return b, err
}

// connect makes a client of a world that costs little.
func connect(world *worlds.World) (kubernetes.Interface, error) {
	config := rest.CopyConfig(world.Config)
	config.ContentType = runtime.ContentTypeProtobuf
	c, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("making a client of %s: %w", world.Name, err)
	}
	return c, nil
}

// spend measures what the API server uses while something is done.
func (b *rangeBench) spend(do func() error) (cost, error) {
	if _, err := b.log.more(); err != nil {
		return cost{}, err
	}
	before, err := figures.CPU(b.world.PID())
	if err != nil {
		return cost{}, err
	}
	start := time.Now()
	if err := do(); err != nil {
		return cost{}, err
	}
	c := cost{Took: time.Since(start)}
	after, err := figures.CPU(b.world.PID())
	if err != nil {
		return cost{}, err
	}
	c.CPU = after - before
	c.Log, err = b.log.more()
	return c, err
}

// settle waits until the API server is quiet, but not for ever: a busy machine may not let it be.
func (b *rangeBench) settle(ctx context.Context) error {
	last, err := figures.CPU(b.world.PID())
	for end := time.Now().Add(settleTimeout); err == nil && time.Now().Before(end); {
		if err = pause(ctx, time.Second); err != nil {
			return err
		}
		var now time.Duration
		if now, err = figures.CPU(b.world.PID()); err == nil && now-last < quiet {
			return nil
		}
		last = now
	}
	if err == nil {
		logf("ranges: the API server is not quiet after %s", settleTimeout)
	}
	return err
}

// each calls do for every tenant, a few at the same time, and returns what the API server and this process used.
func (b *rangeBench) each(ctx context.Context, do func(context.Context, names.TenantID) error) (cost, time.Duration, error) {
	before, err := figures.CPU(os.Getpid())
	if err != nil {
		return cost{}, 0, err
	}
	var done atomic.Int64
	c, err := b.spend(func() error {
		return parallel(ctx, b.options.Parallel, len(b.ids), func(ctx context.Context, i int) error {
			if n := done.Add(1); n%250 == 0 {
				logf("ranges: %d of %d", n, len(b.ids))
			}
			return do(ctx, b.ids[i])
		})
	})
	if err != nil {
		return cost{}, 0, err
	}
	after, err := figures.CPU(os.Getpid())
	return c, after - before, err
}

func (b *rangeBench) claim(ctx context.Context, r *rangeCost) error {
	var mu sync.Mutex
	var err error
	r.Claim, r.ClaimManager, err = b.each(ctx, func(ctx context.Context, id names.TenantID) error {
		part, err := b.manager.ensure(ctx, id, nil, nil)
		mu.Lock()
		defer mu.Unlock()
		b.ranges[id] = part
		return err
	})
	return err
}

// keep asks for the ranges that tenants have, as vc-manager does again and again.
func (b *rangeBench) keep(ctx context.Context, r *rangeCost) error {
	var err error
	r.Keep, r.KeepManager, err = b.each(ctx, func(ctx context.Context, id names.TenantID) error {
		_, err := b.manager.ensure(ctx, id, nil, iprange.Ranges{b.ranges[id]})
		return err
	})
	return err
}

// replicate makes the Services kubernetes and kube-dns where they are not the claim.
func (b *rangeBench) replicate(ctx context.Context, r *rangeCost) error {
	if r.Side == byServices {
		return nil
	}
	var err error
	r.Replicas, _, err = b.each(ctx, func(ctx context.Context, id names.TenantID) error {
		for _, of := range known() {
			if err := b.manager.replicate(ctx, id, of.namespace, of.name, of.address(b.ranges[id])); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

// restart starts the API server again, which is what a further one does, too.
func (b *rangeBench) restart(ctx context.Context, r *rangeCost) error {
	if _, err := b.log.more(); err != nil {
		return err
	}
	if err := b.settle(ctx); err != nil {
		return err
	}
	start := time.Now()
	if err := b.world.Restart(ctx); err != nil {
		return err
	}
	err := poll(ctx, stepTimeout, "/readyz", func(ctx context.Context) (bool, error) {
		return b.typed.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error() == nil, nil
	})
	if err != nil {
		return err
	}
	r.Start.Took = time.Since(start)
	if r.Start.CPU, err = figures.CPU(b.world.PID()); err != nil {
		return err
	}
	if r.Start.Log, err = b.log.more(); err != nil {
		return err
	}
	r.Settle, err = b.spend(func() error { return b.settle(ctx) })
	return err
}

func (b *rangeBench) quiet(ctx context.Context, r *rangeCost) error {
	var err error
	if r.Quiet, err = b.spend(func() error { return pause(ctx, b.options.Window) }); err != nil {
		return err
	}
	r.Memory, err = figures.Anonymous(b.world.PID())
	return err
}

// events changes a label of one ServiceCIDR again and again, and leaves the API server the time to act on each change.
func (b *rangeBench) events(ctx context.Context, r *rangeCost) error {
	var list networkingv1.ServiceCIDRList
	if err := b.manager.live.List(ctx, &list, client.Limit(1)); err != nil || len(list.Items) == 0 {
		return fmt.Errorf("listing ServiceCIDRs: %w", err)
	}
	object := &list.Items[0]
	all, err := b.spend(func() error {
		for i := range b.options.Events {
			patch := fmt.Appendf(nil, `{"metadata":{"labels":{"event":"%d"}}}`, i)
			if err := b.manager.live.Patch(ctx, object, client.RawPatch(types.MergePatchType, patch)); err != nil {
				return fmt.Errorf("labelling a ServiceCIDR: %w", err)
			}
			if err := pause(ctx, eventPause); err != nil {
				return err
			}
		}
		return nil
	})
	// What it uses anyway is not due to events.
	anyway := time.Duration(float64(r.Quiet.CPU) * all.Took.Seconds() / r.Quiet.Took.Seconds())
	all.CPU = max(0, all.CPU-anyway)
	r.Event = all.by(b.options.Events)
	return err
}

// release gives back the ranges of some tenants, which have no other Services.
func (b *rangeBench) release(ctx context.Context, r *rangeCost) error {
	gone := b.ids[:min(b.options.Released, len(b.ids))]
	if len(gone) == 0 {
		return nil
	}
	before, err := figures.CPU(b.controllers.PID())
	if err != nil {
		return err
	}
	start := time.Now()
	for _, id := range gone {
		if err := b.manager.release(ctx, id); err != nil {
			return err
		}
	}
	for _, id := range gone {
		err := poll(ctx, stepTimeout, "a range to be released", func(ctx context.Context) (bool, error) { return b.manager.released(ctx, id) })
		if err != nil {
			return err
		}
		delete(b.ranges, id)
	}
	r.Release = time.Since(start)
	after, err := figures.CPU(b.controllers.PID())
	r.Controllers = after - before
	return err
}

// create creates Services of the operator, one after the other.
func (b *rangeBench) create(ctx context.Context, r *rangeCost) error {
	held := map[netip.Prefix]bool{}
	parts := slices.Collect(maps.Values(b.ranges))
	for i := range b.options.Services {
		start := time.Now()
		service, err := b.typed.CoreV1().Services(operatorNamespace).Create(ctx, worlds.Service(operatorNamespace, fmt.Sprintf("s-%d", i)), metav1.CreateOptions{})
		if err != nil {
			return fmt.Errorf("creating a Service: %w", err)
		}
		r.Created = append(r.Created, time.Since(start))
		if part, ok := partOf(parts, service.Spec.ClusterIP); ok {
			r.Inside++
			held[part] = true
		}
	}
	r.Ranges = len(held)
	return nil
}

// partOf returns the range that has an address.
func partOf(parts []netip.Prefix, address string) (netip.Prefix, bool) {
	i := slices.IndexFunc(parts, func(p netip.Prefix) bool { return iprange.Ranges{p}.Contains(address) })
	if i < 0 {
		return netip.Prefix{}, false
	}
	return parts[i], true
}
