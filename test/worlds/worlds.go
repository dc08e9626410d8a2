package worlds

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

// startTimeout bounds the start of all servers. They need one to three seconds on an idle machine; the rest is for
// machines that build and test other things at the same time. Each tenant adds moreTimeout.
const (
	startTimeout = 90 * time.Second
	moreTimeout  = 10 * time.Second
)

// Options say what to start.
type Options struct {
	// Tenants is the number of tenant control planes, in addition to the super cluster.
	Tenants int
	// TenantControllers, when not empty, are the controllers that a kube-controller-manager runs in every tenant, for
	// instance DefaultControllers().
	TenantControllers []string
	// SuperControllers is the same for the super cluster.
	SuperControllers []string
	// APIServerArgs are added to the command line of every kube-apiserver.
	APIServerArgs []string
	// Variants say what is special about the first tenants.
	Variants []Variant
	// OwnEtcd gives each world an etcd of its own, so that it can be backed up and restored.
	OwnEtcd bool
	// EtcdDirs, when not nil, names for a world the directory in which its own etcd has its data; empty for the usual one.
	EtcdDirs func(world string) string
}

// Variant is what is special about a tenant.
type Variant struct {
	// Kubernetes is the minor version of its control plane, for instance 1.34; empty for that of the super cluster.
	Kubernetes string
	// APIServerArgs are added to the command line of its kube-apiserver.
	APIServerArgs []string
}

// Worlds are one super cluster and its tenants.
type Worlds struct {
	// Super has the CRDs of VirtualCluster installed.
	Super *World
	// Tenants are named tenant-0, tenant-1 and so on.
	Tenants []*World

	dir     string
	etcd    *etcd // shared, nil when each world has its own
	cleaner *cleaner
}

// Start starts the worlds for one test and stops them when it ends. Packages with many tests start one set of servers
// with New in TestMain instead.
func Start(t testing.TB, opts Options) *Worlds {
	t.Helper()
	w, err := New(t.Context(), opts)
	if err != nil {
		t.Fatalf("starting the worlds: %v", err)
	}
	t.Cleanup(func() {
		if err := w.Stop(); err != nil {
			t.Errorf("stopping the worlds: %v", err)
		}
	})
	return w
}

// New starts the worlds; the caller calls Stop. The context bounds the start only.
func New(ctx context.Context, opts Options) (*Worlds, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout+time.Duration(opts.Tenants)*moreTimeout)
	defer cancel()

	binaries, err := findBinaries("")
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "worlds-")
	if err != nil {
		return nil, fmt.Errorf("creating a directory for the servers: %w", err)
	}
	cleaner, err := startCleaner(dir)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	w := &Worlds{dir: dir, cleaner: cleaner}
	if err := w.start(ctx, binaries, opts); err != nil {
		return nil, errors.Join(err, w.Stop())
	}
	return w, nil
}

func (w *Worlds) start(ctx context.Context, binaries binaries, opts Options) error {
	shared := newEtcd(binaries.etcd, w.dir, w.dir)
	if !opts.OwnEtcd {
		w.etcd = shared
		if err := shared.start(ctx); err != nil {
			return err
		}
	}
	etcdOf := func(name string) *etcd {
		if !opts.OwnEtcd {
			return shared
		}
		dir := filepath.Join(w.dir, name)
		if opts.EtcdDirs != nil {
			return newEtcd(binaries.etcd, dir, cmp.Or(opts.EtcdDirs(name), dir))
		}
		return newEtcd(binaries.etcd, dir, dir)
	}
	var err error
	w.Super = newWorld("super", 0, w.dir, binaries, etcdOf("super"), opts.APIServerArgs)
	for i := range opts.Tenants {
		args := opts.APIServerArgs
		if i < len(opts.Variants) {
			if binaries, err = findBinaries(opts.Variants[i].Kubernetes); err != nil {
				return err
			}
			args = slices.Concat(args, opts.Variants[i].APIServerArgs)
		}
		name := fmt.Sprintf("tenant-%d", i)
		w.Tenants = append(w.Tenants, newWorld(name, i+1, w.dir, binaries, etcdOf(name), args))
	}

	worlds := w.All()
	errs := make([]error, len(worlds))
	var wg sync.WaitGroup
	for i, world := range worlds {
		wg.Go(func() {
			controllers := opts.TenantControllers
			if world == w.Super {
				controllers = opts.SuperControllers
			}
			if opts.OwnEtcd {
				if errs[i] = world.etcd.start(ctx); errs[i] != nil {
					return
				}
			}
			errs[i] = bring(ctx, world, world == w.Super, controllers)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func bring(ctx context.Context, world *World, crds bool, controllers []string) error {
	if err := world.create(ctx); err != nil {
		return fmt.Errorf("starting %s: %w", world.Name, err)
	}
	if crds {
		if err := installCRDs(ctx, world); err != nil {
			return fmt.Errorf("installing CRDs into %s: %w", world.Name, err)
		}
	}
	if len(controllers) > 0 {
		if err := world.StartControllers(ctx, controllers...); err != nil {
			return fmt.Errorf("starting the controllers of %s: %w", world.Name, err)
		}
	}
	return nil
}

// All returns the super cluster and then the tenants.
func (w *Worlds) All() []*World {
	return slices.Concat([]*World{w.Super}, w.Tenants)
}

// Dir holds the logs and files of the servers until Stop.
func (w *Worlds) Dir() string { return w.dir }

// EtcdPID is the process of the etcd that all worlds share, if they do.
func (w *Worlds) EtcdPID() int { return w.etcd.process.cmd.Process.Pid }

// Stop ends all servers and removes their files. State is worth nothing afterwards, so they are killed.
func (w *Worlds) Stop() error {
	for _, world := range w.All() {
		if world != nil {
			world.killAll()
			world.etcd.kill()
		}
	}
	if w.etcd != nil {
		w.etcd.kill()
	}
	return w.cleaner.run()
}
