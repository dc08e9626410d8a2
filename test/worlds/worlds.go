package worlds

import (
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
	etcd    *process
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
	etcd, endpoint, err := startEtcd(ctx, binaries.etcd, w.dir)
	if err != nil {
		return fmt.Errorf("starting etcd: %w", err)
	}
	w.etcd = etcd

	w.Super = newWorld("super", 0, w.dir, binaries, endpoint, opts.APIServerArgs)
	for i := range opts.Tenants {
		args := opts.APIServerArgs
		if i < len(opts.Variants) {
			if binaries, err = findBinaries(opts.Variants[i].Kubernetes); err != nil {
				return err
			}
			args = slices.Concat(args, opts.Variants[i].APIServerArgs)
		}
		w.Tenants = append(w.Tenants, newWorld(fmt.Sprintf("tenant-%d", i), i+1, w.dir, binaries, endpoint, args))
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

// Stop ends all servers and removes their files. State is worth nothing afterwards, so they are killed.
func (w *Worlds) Stop() error {
	for _, world := range w.All() {
		if world != nil {
			world.killAll()
		}
	}
	if w.etcd != nil {
		w.etcd.kill()
	}
	return w.cleaner.run()
}

// startEtcd starts etcd at a free port and returns its client URL.
func startEtcd(ctx context.Context, binary, dir string) (*process, string, error) {
	for {
		client, err := FreePort(ctx)
		if err != nil {
			return nil, "", err
		}
		peer, err := FreePort(ctx)
		if err != nil {
			return nil, "", err
		}
		endpoint := fmt.Sprintf("http://127.0.0.1:%d", client)
		p, err := startProcess(filepath.Join(dir, "etcd.log"), binary,
			"--name=worlds",
			"--data-dir="+filepath.Join(dir, "etcd"),
			"--listen-client-urls="+endpoint,
			"--advertise-client-urls="+endpoint,
			"--listen-peer-urls="+fmt.Sprintf("http://127.0.0.1:%d", peer),
			// Nothing has to survive a power cut; syncing to disk would dominate the time of every write.
			"--unsafe-no-fsync",
			"--log-level=warn",
		)
		if err != nil {
			return nil, "", err
		}
		err = p.awaitReady(ctx, func(ctx context.Context) error { return httpOK(ctx, endpoint+"/health") })
		if errors.Is(err, errPortTaken) {
			continue
		}
		if err != nil {
			p.kill()
			return nil, "", err
		}
		return p, endpoint, nil
	}
}
