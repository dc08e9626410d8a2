package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/controllers/servicecidr"
	"github.com/virtualcluster-io/virtualcluster/internal/iprange"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/test/figures"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

const (
	// tenantsNamespace is where the VirtualClusters are, loadNamespace where tenants have Services.
	tenantsNamespace, loadNamespace = "tenants", "load"
	// setupTimeout bounds the start, settledTimeout how long the last Services may take.
	setupTimeout, settledTimeout = 10 * time.Minute, 3 * time.Minute
	// requests are how many are in flight to make or replace Services of others.
	requests = 8
	// reasonChanged is the reason of the event by which vc-syncer tells a tenant.
	reasonChanged = "ClusterIPChanged"
)

// collisionOptions say how Services of tenants and of the operator meet.
type collisionOptions struct {
	Super         netip.Prefix // range of the super cluster
	Size          int          // prefix length of the tenants' ranges
	Tenants, Real int
	Each          int // Services of each tenant
	Created, Rate int // Services that the real tenants create, and how many of them per second
	Operator      int
	Churn         int // percent per second
	Limit         time.Duration
}

// collisions are what came of it.
type collisions struct {
	options  collisionOptions
	Took     time.Duration
	CPU      time.Duration // of the super cluster's API server meanwhile
	Replaced int64         // Services of the operator
	Expected float64
	Events   int // by which tenants were told
	outcome
}

// expected is how many of the created Services should meet one of the operator's. Each side's API server chooses at random, the
// super cluster's among the addresses that are free there, except for the first ones.
func (o collisionOptions) expected(created int) float64 {
	const left = 256 // see "static" of iprange.Free
	free := float64(uint64(1)<<(32-o.Super.Bits())) - left - 1 - float64(o.Tenants*(o.Each+len(known())))
	return float64(created) * float64(o.Operator) / free
}

// parts returns ranges for tenants that lie evenly in the super cluster's, not at its beginning.
func (o collisionOptions) parts() []netip.Prefix {
	count := uint64(1)<<(o.Size-o.Super.Bits()) - 1
	all := make([]netip.Prefix, o.Tenants)
	for i := range all {
		all[i] = iprange.Part(o.Super, o.Size, 1+uint64(i)*count/uint64(o.Tenants))
	}
	return all
}

func measureCollisions(ctx context.Context, root string, all []collisionOptions) ([]collisions, error) {
	var results []collisions
	for _, o := range all {
		one, err := collide(ctx, root, o)
		if one != nil {
			results = append(results, *one)
		}
		if err != nil {
			return results, fmt.Errorf("tenants in %s: %w", o.Super, err)
		}
	}
	return results, nil
}

// collisionBench is a super cluster with the API servers of a few tenants.
type collisionBench struct {
	options collisionOptions
	worlds  *worlds.Worlds
	parts   []netip.Prefix // of the real tenants first
	manager *manager
	super   kubernetes.Interface
	tenants []kubernetes.Interface
	ids     []names.TenantID // of real tenants
	ledger  *ledger
	syncer  *worlds.Process
	// mine are the super namespaces of real tenants.
	mine map[string]serviceKey

	replaced atomic.Int64
}

func collide(ctx context.Context, root string, o collisionOptions) (result *collisions, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	parts := o.parts()
	rand.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
	w, err := start(ctx, o, parts)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.Stop()) }()
	b := &collisionBench{options: o, worlds: w, parts: parts, ledger: newLedger(), mine: map[string]serviceKey{}}
	defer func() {
		if b.syncer != nil {
			b.syncer.Kill()
		}
	}()
	if b.manager, err = newManager(ctx, w.Super, servicecidr.Auto, o.Size); err != nil {
		return nil, err
	}
	if err := b.connect(); err != nil {
		return nil, err
	}
	setup, done := context.WithTimeout(ctx, setupTimeout)
	defer done()
	for _, step := range []func() error{
		func() error { return b.makeTenants(setup) },
		func() error { return b.makeOthers(setup) },
		func() error { return b.follow(ctx) },
		func() error { return b.startSyncer(setup, root) },
		func() error { return b.awaitTakeover(setup) },
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return b.load(ctx)
}

// start starts API servers that hand out addresses of the given ranges.
func start(ctx context.Context, o collisionOptions, parts []netip.Prefix) (*worlds.Worlds, error) {
	logf("collisions: starting the API servers of %s and of %d tenants", o.Super, o.Real)
	options := worlds.Options{Tenants: o.Real, APIServerArgs: []string{"--service-cluster-ip-range=" + o.Super.String()}}
	for _, part := range parts[:o.Real] {
		options.Variants = append(options.Variants, worlds.Variant{APIServerArgs: []string{"--service-cluster-ip-range=" + part.String()}})
	}
	return worlds.New(ctx, options)
}

func (b *collisionBench) connect() error {
	var err error
	if b.super, err = connect(b.worlds.Super); err != nil {
		return err
	}
	for _, world := range b.worlds.Tenants {
		c, err := connect(world)
		if err != nil {
			return err
		}
		b.tenants = append(b.tenants, c)
	}
	return nil
}

// makeTenants makes External VirtualClusters of the real tenants and claims their ranges.
func (b *collisionBench) makeTenants(ctx context.Context) error {
	for _, name := range []string{tenantsNamespace, operatorNamespace} {
		if err := b.manager.live.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
			return fmt.Errorf("creating namespace %s: %w", name, err)
		}
	}
	for i, world := range b.worlds.Tenants {
		vc := &tenancyv1alpha1.VirtualCluster{
			ObjectMeta: metav1.ObjectMeta{Namespace: tenantsNamespace, Name: world.Name},
			Spec: tenancyv1alpha1.VirtualClusterSpec{ServiceCIDR: b.parts[i].String(), ControlPlane: tenancyv1alpha1.ControlPlaneSpec{
				Type:     tenancyv1alpha1.External,
				External: &tenancyv1alpha1.ExternalControlPlane{KubeconfigSecret: tenancyv1alpha1.SecretKeyReference{Name: world.Name}},
			}},
		}
		secret := &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: tenantsNamespace, Name: world.Name},
			Data:       map[string][]byte{names.KubeconfigKey: world.Kubeconfig},
		}
		for _, object := range []client.Object{secret, vc} {
			if err := b.manager.live.Create(ctx, object); err != nil {
				return fmt.Errorf("creating what belongs to VirtualCluster %s: %w", world.Name, err)
			}
		}
		id := names.Tenant(client.ObjectKeyFromObject(vc), vc.UID)
		b.ids = append(b.ids, id)
		if _, err := b.manager.ensure(ctx, id, b.parts[i:i+1], nil); err != nil {
			return fmt.Errorf("claiming the range of %s: %w", world.Name, err)
		}
		for _, namespace := range []string{metav1.NamespaceDefault, metav1.NamespaceSystem, loadNamespace} {
			b.mine[names.SuperNamespace(id, namespace)] = serviceKey{i, types.NamespacedName{Namespace: namespace}}
		}
		core := b.tenants[i].CoreV1()
		if _, err := core.Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: loadNamespace}}, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("creating a namespace in %s: %w", world.Name, err)
		}
		dns := worlds.Service(metav1.NamespaceSystem, "kube-dns")
		dns.Spec.ClusterIP = iprange.DNS(b.parts[i]).String()
		if _, err := core.Services(metav1.NamespaceSystem).Create(ctx, dns, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("creating kube-dns in %s: %w", world.Name, err)
		}
	}
	return nil
}

// makeOthers makes what vc-syncer would have made of the Services of the other tenants.
func (b *collisionBench) makeOthers(ctx context.Context) error {
	others := b.parts[b.options.Real:]
	logf("collisions: making %d Services of %d other tenants", len(others)*(b.options.Each+len(known())), len(others))
	return parallel(ctx, requests, len(others), func(ctx context.Context, i int) error {
		key := types.NamespacedName{Namespace: tenantsNamespace, Name: fmt.Sprintf("other-%d", i)}
		id := names.Tenant(key, types.UID("uid-of-"+key.Name))
		if _, err := b.manager.ensure(ctx, id, others[i:i+1], nil); err != nil {
			return err
		}
		first := 1 << (32 - b.options.Size) / 16 // a tenant's API server begins there, too
		for n, position := range rand.Perm(1<<(32-b.options.Size) - 1 - first)[:b.options.Each] {
			address := iprange.Nth(others[i], uint64(first+position))
			if err := b.manager.replicate(ctx, id, loadNamespace, fmt.Sprintf("s-%d", n), address); err != nil {
				return err
			}
		}
		return nil
	})
}

// parallel calls do with each number below n, as many at the same time as there are workers.
func parallel(ctx context.Context, workers, n int, do func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var next atomic.Int64
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for worker := range errs {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if errs[worker] = do(ctx, i); errs[worker] != nil {
					cancel()
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(append(errs, ctx.Err())...)
}

// startSyncer builds vc-syncer from this tree, starts it, and waits until it serves all tenants.
func (b *collisionBench) startSyncer(ctx context.Context, root string) error {
	logf("collisions: building and starting vc-syncer")
	binary := filepath.Join(b.worlds.Dir(), "vc-syncer")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-w", "-o", binary, "./cmd/vc-syncer")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building vc-syncer: %w: %s", err, out)
	}
	var err error
	b.syncer, err = worlds.StartProcess(filepath.Join(b.worlds.Dir(), "vc-syncer.log"), binary, "--kubeconfig="+b.worlds.Super.KubeconfigPath(),
		"--health-probe-bind-address=0", "--metrics-bind-address=0", "--trace-bind-address=0")
	if err != nil {
		return err
	}
	return b.syncer.AwaitReady(ctx, func(ctx context.Context) error {
		var list tenancyv1alpha1.VirtualClusterList
		if err := b.manager.live.List(ctx, &list); err != nil {
			return fmt.Errorf("listing VirtualClusters: %w", err)
		}
		for _, vc := range list.Items {
			if !apimeta.IsStatusConditionTrue(vc.Status.Conditions, tenancyv1alpha1.ConditionSyncing) {
				return fmt.Errorf("VirtualCluster %s is not synchronised: %v", vc.Name, vc.Status.Conditions)
			}
		}
		return nil
	})
}

// awaitTakeover waits until the Services that were made ahead are replicas of the real tenants'.
func (b *collisionBench) awaitTakeover(ctx context.Context) error {
	for _, id := range b.ids {
		for _, of := range known() {
			err := poll(ctx, setupTimeout, "vc-syncer to take over the Service "+of.name+" of "+string(id), func(ctx context.Context) (bool, error) {
				service, err := b.super.CoreV1().Services(names.SuperNamespace(id, of.namespace)).Get(ctx, of.name, metav1.GetOptions{})
				if err != nil {
					return false, fmt.Errorf("reading a Service: %w", err)
				}
				return service.Annotations[names.AnnotationUID] != names.UIDAhead, nil
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// follow watches the Services of the real tenants on both sides.
func (b *collisionBench) follow(ctx context.Context) error {
	for i, c := range b.tenants {
		err := b.ledger.watch(ctx, c, inTenant, "", func(s *corev1.Service) (serviceKey, bool) {
			return serviceKey{i, types.NamespacedName{Namespace: s.Namespace, Name: s.Name}}, true
		})
		if err != nil {
			return err
		}
	}
	return b.ledger.watch(ctx, b.super, inSuper, names.LabelManagedBy+"="+names.Syncer, func(s *corev1.Service) (serviceKey, bool) {
		key, ok := b.mine[s.Namespace]
		key.Name = s.Name
		return key, ok
	})
}

// load has the operator replace Services while tenants create and delete theirs, and finds out what became of these.
func (b *collisionBench) load(ctx context.Context) (*collisions, error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	logf("collisions: creating %d Services of the operator", b.options.Operator)
	err := parallel(ctx, requests, b.options.Operator, func(ctx context.Context, i int) error { return b.operatorCreates(ctx, i) })
	if err != nil {
		return nil, err
	}
	churning, end := context.WithCancel(ctx)
	var churn sync.WaitGroup
	churn.Go(func() {
		if err := b.churn(churning); err != nil && churning.Err() == nil {
			stop(err) // nobody needs the rest
		}
	})
	result := &collisions{options: b.options}
	created, err := b.timed(ctx, result)
	if err == nil {
		err = b.settled(ctx, created)
	}
	end()
	churn.Wait()
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	result.outcome = sumUp(b.ledger.all(loadNamespace))
	result.Expected = b.options.expected(result.Created)
	if err != nil {
		return result, err
	}
	return result, b.check(ctx, result)
}

// timed has tenants create Services and notes what is used meanwhile.
func (b *collisionBench) timed(ctx context.Context, result *collisions) ([]serviceKey, error) {
	before, err := figures.CPU(b.worlds.Super.PID())
	if err != nil {
		return nil, err
	}
	begin, replaced := time.Now(), b.replaced.Load()
	created, err := b.tenantsCreate(ctx)
	if err != nil {
		return nil, err
	}
	result.Took, result.Replaced = time.Since(begin), b.replaced.Load()-replaced
	after, err := figures.CPU(b.worlds.Super.PID())
	result.CPU = after - before
	return created, err
}

func (b *collisionBench) operatorCreates(ctx context.Context, i int) error {
	service := worlds.Service(operatorNamespace, fmt.Sprintf("s-%d", i))
	if _, err := b.super.CoreV1().Services(operatorNamespace).Create(ctx, service, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("creating a Service of the operator: %w", err)
	}
	return nil
}

// churn replaces Services of the operator one after the other until the context ends, at the rate that was asked for or as fast as the
// API server allows.
func (b *collisionBench) churn(ctx context.Context) error {
	tick := time.NewTicker(time.Second * 100 / time.Duration(b.options.Operator*b.options.Churn))
	defer tick.Stop()
	var next atomic.Int64
	return parallel(ctx, requests, requests, func(ctx context.Context, _ int) error {
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-tick.C:
			}
			i := int(next.Add(1))
			old := fmt.Sprintf("s-%d", i-1)
			err := b.super.CoreV1().Services(operatorNamespace).Delete(ctx, old, metav1.DeleteOptions{})
			if err != nil && !apierrors.IsNotFound(err) {
				return fmt.Errorf("deleting a Service of the operator: %w", err)
			}
			if err := b.operatorCreates(ctx, b.options.Operator+i-1); err != nil {
				return err
			}
			b.replaced.Add(1)
		}
	})
}

// tenantsCreate has each real tenant create Services and delete the oldest when it has enough. It returns those that exist.
func (b *collisionBench) tenantsCreate(ctx context.Context) ([]serviceKey, error) {
	o := b.options
	logf("collisions: %d tenants create %d Services, %d per second", o.Real, o.Created, o.Rate)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	end := time.Now().Add(o.Limit)
	lived := make([][]serviceKey, o.Real)
	errs := make([]error, o.Real)
	var made atomic.Int64
	var wg sync.WaitGroup
	for i := range o.Real {
		wg.Go(func() {
			tick := time.NewTicker(time.Second * time.Duration(o.Real) / time.Duration(o.Rate))
			defer tick.Stop()
			for n := 0; n < (o.Created+o.Real-1)/o.Real && time.Now().Before(end) && errs[i] == nil; n++ {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				lived[i], errs[i] = b.tenantCreates(ctx, i, n, lived[i])
				if total := made.Add(1); total%1000 == 0 {
					logf("collisions: %d Services of tenants created", total)
				}
			}
			if errs[i] != nil {
				cancel()
			}
		})
	}
	wg.Wait()
	var all []serviceKey
	for _, keys := range lived {
		all = append(all, keys...)
	}
	return all, errors.Join(errs...)
}

// tenantCreates creates a Service of a tenant, deletes its oldest ones when there are too many, and returns those that it has. One
// whose addresses differ stays: it is to be seen when they agree.
func (b *collisionBench) tenantCreates(ctx context.Context, tenant, n int, has []serviceKey) ([]serviceKey, error) {
	core := b.tenants[tenant].CoreV1().Services(loadNamespace)
	key := serviceKey{tenant, types.NamespacedName{Namespace: loadNamespace, Name: fmt.Sprintf("s-%d", n)}}
	b.ledger.begin(key)
	if _, err := core.Create(ctx, worlds.Service(key.Namespace, key.Name), metav1.CreateOptions{}); err != nil {
		return has, fmt.Errorf("creating a Service of a tenant: %w", err)
	}
	has = append(has, key)
	var keep []serviceKey
	for i, old := range has {
		agreed, err := b.ledger.agreed(old)
		if err != nil {
			return has, err
		}
		if len(keep)+len(has)-i <= b.options.Each || !agreed {
			keep = append(keep, old)
			continue
		}
		if err := core.Delete(ctx, old.Name, metav1.DeleteOptions{}); err != nil {
			return has, fmt.Errorf("deleting a Service of a tenant: %w", err)
		}
	}
	return keep, nil
}

// settled waits until the Services that exist have the same address on both sides.
func (b *collisionBench) settled(ctx context.Context, keys []serviceKey) error {
	return poll(ctx, settledTimeout, "Services to have the same address on both sides", func(context.Context) (bool, error) {
		for _, key := range keys {
			if ok, err := b.ledger.agreed(key); err != nil || !ok {
				return false, err
			}
		}
		return true, nil
	})
}

// check counts the events and looks for what must not be: a Service that is still being readdressed, different addresses, and a
// kubernetes or kube-dns that was touched.
func (b *collisionBench) check(ctx context.Context, result *collisions) error {
	var wrong []error
	if result.Unfinished > 0 {
		wrong = append(wrong, fmt.Errorf("%d Services of tenants are unfinished", result.Unfinished))
	}
	for i, c := range b.tenants {
		services, err := c.CoreV1().Services("").List(ctx, metav1.ListOptions{})
		if err != nil {
			return fmt.Errorf("listing Services: %w", err)
		}
		for _, s := range services.Items {
			if s.Annotations[names.AnnotationReaddress] != "" || s.Spec.Type != corev1.ServiceTypeClusterIP {
				wrong = append(wrong, fmt.Errorf("tenant %d: Service %s/%s is still being readdressed", i, s.Namespace, s.Name))
			}
		}
		events, err := c.CoreV1().Events("").List(ctx, metav1.ListOptions{FieldSelector: "reason=" + reasonChanged})
		if err != nil {
			return fmt.Errorf("listing events: %w", err)
		}
		for _, e := range events.Items {
			result.Events += int(max(1, e.Count))
		}
	}
	for _, of := range known() {
		for _, s := range b.ledger.all(of.namespace) {
			if how := s.touched(); how != "" {
				wrong = append(wrong, fmt.Errorf("service %s/%s was touched: %s", of.namespace, of.name, how))
			}
		}
	}
	return errors.Join(wrong...)
}
