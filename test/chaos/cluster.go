package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

const (
	// system is the namespace of our own programs, vcs that of the VirtualClusters.
	system, vcs = "vc-system", "tenants"
	// setupTimeout bounds the start of everything, once our programs are built.
	setupTimeout = 5 * time.Minute
	nodes        = 3
	// diskSize is that of the disk of a tenant's etcd, in bytes. Two files of its log take 128 MiB.
	diskSize = 192 << 20
)

// harness is everything that runs.
type harness struct {
	options  options
	worlds   *worlds.Worlds
	super    client.Client
	tenants  map[string]*tenant
	links    map[string]*proxy
	programs map[string]*program
	disks    map[string]string // mount points
	helpers  []*worlds.Process

	end  context.CancelFunc
	kept sync.WaitGroup

	mu       sync.Mutex
	findings []finding // guarded by mu
}

// found notes what was found while faults last.
func (h *harness) found(f finding) {
	progress("FOUND %s", f)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.findings = append(h.findings, f)
}

// newHarness starts everything. The caller calls stop, also when there is an error.
func newHarness(ctx context.Context, o options) (*harness, error) {
	running, end := context.WithCancel(ctx)
	h := &harness{
		options: o, end: end, tenants: map[string]*tenant{}, links: map[string]*proxy{}, programs: map[string]*program{}, disks: map[string]string{},
	}
	if err := h.build(ctx); err != nil {
		return h, err
	}
	ctx, cancel := context.WithTimeout(ctx, setupTimeout)
	defer cancel()
	for _, step := range []func(context.Context) error{h.mountDisks, h.startWorlds, h.makeVirtualClusters, h.addPrograms} {
		if err := step(ctx); err != nil {
			return h, err
		}
	}
	for _, p := range h.programs {
		h.kept.Go(func() {
			if err := p.keep(running); err != nil {
				h.found(finding{What: "cannot run", Of: p.name, Have: err.Error()})
			}
		})
	}
	return h, h.awaitSynced(ctx)
}

// stop ends everything and removes what it made.
func (h *harness) stop() error {
	h.end()
	h.kept.Wait()
	for _, p := range h.helpers {
		p.Kill()
	}
	for _, p := range h.links {
		p.close()
	}
	var errs []error
	for _, dir := range h.disks {
		errs = append(errs, unix.Unmount(dir, unix.MNT_DETACH), os.Remove(dir))
	}
	if h.worlds != nil {
		errs = append(errs, h.keepLogs(), h.worlds.Stop())
	}
	return errors.Join(append(errs, os.RemoveAll(h.bin()))...)
}

// keepLogs copies the logs of the API servers and etcds to the results.
func (h *harness) keepLogs() error {
	return filepath.WalkDir(h.worlds.Dir(), func(path string, _ os.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".log" {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(h.options.out, filepath.Base(filepath.Dir(path))+"-"+filepath.Base(path)), text, 0o600)
	})
}

// mountDisks gives the etcd of each tenant a small disk, which ends with the mount namespace of this process.
func (h *harness) mountDisks(context.Context) error {
	if !h.options.setting.Disks {
		return nil
	}
	for i := range h.options.setting.Tenants {
		dir, err := filepath.Abs(filepath.Join(h.options.out, "disk-of-"+tenantName(i)))
		if err != nil {
			return fmt.Errorf("finding the directory of a disk: %w", err)
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("making the directory of a disk: %w", err)
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", diskSize)); err != nil {
			return errors.Join(fmt.Errorf("mounting a disk: %w", err), os.Remove(dir))
		}
		h.disks[tenantName(i)] = dir
	}
	return nil
}

func (h *harness) startWorlds(ctx context.Context) error {
	progress("starting %d control planes", h.options.setting.Tenants+1)
	controllers := []string{
		"namespace-controller", "serviceaccount-controller", "root-ca-certificate-publisher-controller", "garbage-collector-controller",
		"persistentvolumeclaim-protection-controller",
	}
	var err error
	h.worlds, err = worlds.New(ctx, worlds.Options{
		Tenants: h.options.setting.Tenants, TenantControllers: controllers, SuperControllers: controllers,
		// It gives nodes a taint that no controller takes away here.
		APIServerArgs: []string{"--disable-admission-plugins=TaintNodesByCondition"},
		OwnEtcd:       true, EtcdDirs: func(world string) string { return h.disks[world] },
	})
	if err != nil {
		return err
	}
	if h.super, err = connect(h.worlds.Super); err != nil {
		return err
	}
	h.helpers, err = h.worlds.StartNodes(ctx, nodes, h.options.out)
	return err
}

func connect(world *worlds.World) (client.Client, error) {
	scheme := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
	utilruntime.Must(tenancyv1alpha1.AddToScheme(scheme))
	c, err := client.New(world.Config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("making a client of %s: %w", world.Name, err)
	}
	return c, nil
}

// link returns a kubeconfig that reaches a world through a new link.
func (h *harness) link(ctx context.Context, name string, world *worlds.World) ([]byte, error) {
	p, err := newProxy(ctx, strings.TrimPrefix(world.Config.Host, "https://"))
	if err != nil {
		return nil, err
	}
	h.links[linkName(name)] = p
	config, err := clientcmd.Load(world.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("reading a kubeconfig: %w", err)
	}
	for _, cluster := range config.Clusters {
		cluster.Server = "https://" + p.address()
	}
	text, err := clientcmd.Write(*config)
	if err != nil {
		return nil, fmt.Errorf("writing a kubeconfig: %w", err)
	}
	return text, nil
}

// makeVirtualClusters makes an External VirtualCluster of each tenant.
func (h *harness) makeVirtualClusters(ctx context.Context) error {
	for _, name := range []string{system, vcs} {
		if err := h.super.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
			return fmt.Errorf("creating namespace %s: %w", name, err)
		}
	}
	for _, world := range h.worlds.Tenants {
		kubeconfig, err := h.link(ctx, world.Name, world)
		if err != nil {
			return err
		}
		c, err := connect(world)
		if err != nil {
			return err
		}
		vc := &tenancyv1alpha1.VirtualCluster{
			ObjectMeta: metav1.ObjectMeta{Namespace: vcs, Name: world.Name},
			Spec: tenancyv1alpha1.VirtualClusterSpec{ServiceCIDR: world.ServiceRanges.String(), ControlPlane: tenancyv1alpha1.ControlPlaneSpec{
				Type:     tenancyv1alpha1.External,
				External: &tenancyv1alpha1.ExternalControlPlane{KubeconfigSecret: tenancyv1alpha1.SecretKeyReference{Name: world.Name}},
			}},
		}
		secret := &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: vcs, Name: world.Name}, Data: map[string][]byte{names.KubeconfigKey: kubeconfig},
		}
		for _, o := range []client.Object{secret, vc} {
			if err := h.super.Create(ctx, o); err != nil {
				return fmt.Errorf("creating what belongs to VirtualCluster %s: %w", world.Name, err)
			}
		}
		at := client.ObjectKeyFromObject(vc)
		h.tenants[world.Name] = &tenant{world: world, client: c, vc: at, id: names.Tenant(at, vc.UID), journal: newJournal()}
	}
	return nil
}

// build builds our programs from this tree.
func (h *harness) build(ctx context.Context) error {
	root, err := worlds.ModuleRoot()
	if err != nil {
		return err
	}
	progress("building vc-syncer and vc-manager")
	bin, err := filepath.Abs(h.bin())
	if err != nil {
		return fmt.Errorf("finding the directory of our programs: %w", err)
	}
	args := []string{"build", "-trimpath", "-o", bin + "/"}
	if h.options.race {
		args = append(args, "-race")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "./cmd/vc-syncer", "./cmd/vc-manager")...)
	cmd.Dir = root
	if h.options.race {
		cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building our programs: %w: %s", err, out)
	}
	return nil
}

// bin is where our programs are while they run.
func (h *harness) bin() string { return filepath.Join(h.options.out, "bin") }

// addPrograms says how our programs are run. They start later.
func (h *harness) addPrograms(ctx context.Context) error {
	for i := range h.options.setting.Syncers {
		name := syncerName(i)
		kubeconfig, err := h.link(ctx, name, h.worlds.Super)
		if err != nil {
			return err
		}
		path := filepath.Join(h.worlds.Dir(), name+".kubeconfig")
		if err := os.WriteFile(path, kubeconfig, 0o600); err != nil {
			return fmt.Errorf("writing the kubeconfig of %s: %w", name, err)
		}
		h.programs[name] = h.program(name, filepath.Join(h.bin(), "vc-syncer"), "--kubeconfig="+path, "--leader-elect", "--namespace="+system,
			"--metrics-bind-address=0", "--health-probe-bind-address=0", "--trace-bind-address=0", "--probe-interval=5s")
	}
	h.programs[manager] = h.program(manager, filepath.Join(h.bin(), "vc-manager"), "--kubeconfig="+h.worlds.Super.KubeconfigPath(), "--namespace="+system,
		"--service-cidr-pool=", "--metrics-bind-address=0", "--health-probe-bind-address=0")
	return nil
}

func (h *harness) program(name, binary string, args ...string) *program {
	return &program{name: name, binary: binary, log: filepath.Join(h.options.out, name+".log"), args: args}
}

// awaitSynced waits until all tenants are synchronised.
func (h *harness) awaitSynced(ctx context.Context) error {
	return poll(ctx, "all tenants to be synchronised", func(ctx context.Context) error {
		for _, t := range h.tenants {
			if f, bad := h.waiting(ctx, t); bad {
				return errors.New(f.String())
			}
		}
		return nil
	})
}

// waiting says whether a tenant is not synchronised, and why.
func (h *harness) waiting(ctx context.Context, t *tenant) (finding, bool) {
	f := finding{What: halted, Key: key{"VirtualCluster", t.vc.Namespace, t.vc.Name}, Of: t.world.Name, Want: "condition Syncing True"}
	var vc tenancyv1alpha1.VirtualCluster
	if err := h.super.Get(ctx, t.vc, &vc); err != nil {
		f.Have = err.Error()
		return f, true
	}
	f.Have = fmt.Sprintf("%+v", vc.Status.Conditions)
	return f, !apimeta.IsStatusConditionTrue(vc.Status.Conditions, tenancyv1alpha1.ConditionSyncing)
}

// work puts load on all tenants until the context ends.
func (h *harness) work(ctx context.Context) *sync.WaitGroup {
	var wg sync.WaitGroup
	for i, world := range h.worlds.Tenants {
		t := h.tenants[world.Name]
		for worker := range workers {
			rng := rand.New(rand.NewPCG(h.options.Seed, uint64(1+i*workers+worker)))
			wg.Go(func() { t.work(ctx, worker, rng, h.options.interval) })
		}
	}
	return &wg
}

// look compares everything.
func (h *harness) look(ctx context.Context) []finding {
	failed := func(err error) []finding { return []finding{{What: "cannot be read", Have: err.Error()}} }
	var out []finding
	sides := map[names.TenantID]side{}
	for name, t := range h.tenants {
		if f, bad := h.waiting(ctx, t); bad {
			out = append(out, f)
		}
		s, err := tenantSide(ctx, name, t.client)
		if err != nil {
			return failed(err)
		}
		sides[t.id] = s
		out = append(out, t.journal.judge(name, s.Objects)...)
	}
	super, err := superSide(ctx, h.super)
	if err != nil {
		return failed(err)
	}
	return append(out, compare(sides, super)...)
}

// settle waits until nothing is wrong any more, twice in a row, and returns what still is when time is up.
func (h *harness) settle(ctx context.Context, within time.Duration) []finding {
	const pause = 3 * time.Second
	end := time.Now().Add(within)
	for clean := 0; ; {
		looking, cancel := context.WithTimeout(ctx, 30*time.Second)
		found := h.look(looking)
		cancel()
		clean++
		if len(found) > 0 {
			clean = 0
		}
		if clean == 2 || ctx.Err() != nil || time.Now().After(end) {
			return found
		}
		if len(found) > 0 {
			progress("%d things differ still, such as %s", len(found), found[0])
		}
		_ = wait(ctx, pause) // the loop ends with the context
	}
}

// poll calls check until it returns nil or the context ends.
func poll(ctx context.Context, what string, check func(context.Context) error) error {
	const pause = 250 * time.Millisecond
	for {
		trying, cancel := context.WithTimeout(ctx, callTimeout)
		err := check(trying)
		cancel()
		if err == nil {
			return nil
		}
		if wait(ctx, pause) != nil {
			return fmt.Errorf("waiting for %s: %w; last: %w", what, ctx.Err(), err)
		}
	}
}
