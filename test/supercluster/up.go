package supercluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// Patience with one component; a cold machine under load is slow.
const patience = 3 * time.Minute

// Up makes the cluster run: it creates what is missing, restarts what has died or changed, and leaves the rest alone.
func (c *Cluster) Up(ctx context.Context) error {
	if owner, err := c.owner(); err != nil {
		return err
	} else if owner.abandoned {
		c.steps.Say("Removing what is left of cluster %s, whose files in %s are gone", c.Name, owner.dir)
		if err := c.Down(ctx); err != nil {
			return err
		}
	}
	release, err := c.lock()
	if err != nil {
		return err
	}
	defer release()
	began := time.Now()
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"Checking the machine", c.checkMachine},
		{"Claiming name and subnet", c.claim},
		{"Raising limits on watching files", c.raiseLimits},
		{"Writing certificates and configuration", c.ensureFiles},
		{"Connecting network namespaces", c.ensureNetwork},
		{"Preparing nodes", c.prepareNodes},
		{"Starting the control plane and containerd", c.startFoundation},
		{"Starting nodes and loading images", c.startNodes},
		{"Installing DNS and storage", c.installAddons},
		{"Waiting until everything is ready", c.awaitReady},
	} {
		if err := c.steps.Run(ctx, step.name, step.do); err != nil {
			return err
		}
	}
	c.steps.Say("Cluster %s is up after %.1fs: kubectl --kubeconfig %s get nodes", c.Name, time.Since(began).Seconds(), c.exportedKubeconfig())
	return nil
}

// owner is who claims a name of a cluster.
type owner struct {
	// dir is the folder of the cluster, empty when nobody claims the name.
	dir string
	// abandoned says that the folder holds no cluster any more: it was removed without Down.
	abandoned bool
}

// owner returns who claims the cluster's name.
func (c *Cluster) owner() (owner, error) { return readOwner(c.ownerFile()) }

func readOwner(file string) (owner, error) {
	dir, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return owner{}, nil
	}
	if err != nil {
		return owner{}, fmt.Errorf("reading who claims the cluster: %w", err)
	}
	_, err = os.Stat(filepath.Join(string(dir), stateFile))
	return owner{dir: string(dir), abandoned: errors.Is(err, fs.ErrNotExist)}, nil
}

// lock keeps a second run for the same cluster out.
func (c *Cluster) lock() (func(), error) {
	for {
		if err := os.MkdirAll(c.runDir(), 0o755); err != nil {
			return nil, fmt.Errorf("creating %s: %w", c.runDir(), err)
		}
		f, err := lockFile(c.runDir())
		if err != nil {
			return nil, err
		}
		locked, err := f.Stat()
		if err != nil {
			return nil, fmt.Errorf("looking at the lock: %w", err)
		}
		// Down removes the folder: who waited for it then holds something that is gone.
		if current, err := os.Stat(c.runDir()); err == nil && os.SameFile(locked, current) {
			return func() { _ = f.Close() }, nil
		}
		_ = f.Close()
	}
}

// lockFile waits for the exclusive use of a file or folder. The kernel releases it when it is closed or the process ends,
// however it ends.
func lockFile(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening the lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("taking the lock: %w", err), f.Close())
	}
	return f, nil
}

// checkMachine reports everything that is missing at once.
func (c *Cluster) checkMachine(ctx context.Context) error {
	// Where these are part of the kernel there is nothing to load; where they are missing, the step that needs one says so.
	_, _ = run(ctx, "modprobe", "--all", "overlay", "br_netfilter", "nf_conntrack")
	var missing []string
	for _, program := range []string{
		"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl",
		"containerd", "containerd-shim-runc-v2", "ctr", "netpol", "registry",
	} {
		if _, err := os.Stat(c.program(program)); err != nil {
			missing = append(missing, c.program(program))
		}
	}
	for _, program := range []string{"ip", "nsenter", "unshare", "mount", "runc", "iptables", "conntrack", "nft"} {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, program)
		}
	}
	if _, err := os.Stat(filepath.Join(cniBinaries, "bridge")); err != nil {
		missing = append(missing, cniBinaries+"/bridge")
	}
	if len(missing) > 0 {
		return fmt.Errorf("missing: %s (make up installs and builds them)", strings.Join(missing, ", "))
	}
	return nil
}

// claim fixes the cluster's name and subnet, so that no other cluster on the machine takes them.
func (c *Cluster) claim(ctx context.Context) error {
	owner, err := c.owner()
	if err != nil {
		return err
	}
	if owner.dir != "" && owner.dir != c.Dir {
		return fmt.Errorf("a cluster named %q runs from %s: choose another name", c.Name, owner.dir)
	}
	if !c.subnet.IsValid() {
		if entries, err := os.ReadDir(c.Dir); err == nil && len(entries) > 0 {
			return fmt.Errorf("%s is not empty and holds no cluster", c.Dir)
		}
		// One cluster at a time chooses; the folder serves as lock because it is always there.
		machine, err := lockFile("/run")
		if err != nil {
			return err
		}
		defer func() { _ = machine.Close() }()
		used, err := usedSubnets(ctx)
		if err != nil {
			return err
		}
		if c.subnet, err = chooseSubnet(candidateSubnets(), used); err != nil {
			return err
		}
		// The address on the machine's cable is what tells others that the subnet is taken.
		if err := ensureNetns(ctx, c.controlPlaneNetns()); err != nil {
			return err
		}
		if err := ensureLink(ctx, c.controlPlaneNetns(), bridge, "type", "bridge"); err != nil {
			return err
		}
		if err := c.ensureMachineLink(ctx); err != nil {
			return err
		}
	}
	if err := c.writeState(); err != nil {
		return err
	}
	return writeFile(c.ownerFile(), []byte(c.Dir), 0o644)
}

func (c *Cluster) ensureFiles(context.Context) error {
	if err := c.ensurePKI(); err != nil {
		return err
	}
	if err := os.MkdirAll(c.logDir(), 0o755); err != nil {
		return fmt.Errorf("creating the folder of logs: %w", err)
	}
	for _, who := range []string{"kube-controller-manager", "kube-scheduler"} {
		if err := c.writeKubeconfig(c.kubeconfig(who), who); err != nil {
			return err
		}
	}
	for _, path := range []string{c.Kubeconfig(), c.exportedKubeconfig()} {
		if err := c.writeKubeconfig(path, "admin"); err != nil {
			return err
		}
	}
	for _, n := range c.nodes() {
		if err := c.ensureNodeFiles(n); err != nil {
			return err
		}
	}
	return replaceLink(c.logDir(), c.exportedLogs())
}

func replaceLink(target, link string) error {
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		return fmt.Errorf("creating the folder of %s: %w", link, err)
	}
	if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("replacing %s: %w", link, err)
	}
	if err := os.Symlink(target, link); err != nil {
		return fmt.Errorf("linking %s: %w", link, err)
	}
	return nil
}

func (c *Cluster) prepareNodes(ctx context.Context) error {
	if err := ensureCgroup(c.cgroupName() + "/daemons"); err != nil {
		return err
	}
	// All of a cluster would otherwise get no more of the processors than any single process outside, a compiler for
	// instance, and probes that wait for a second would fail.
	if err := weighCgroup(c.cgroupName(), 1+len(c.nodes())); err != nil {
		return err
	}
	for _, n := range c.nodes() {
		if err := ensureCgroup(n.cgroup); err != nil {
			return err
		}
		if err := c.ensureMountNamespace(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// startFoundation starts what everything else needs: an API server that answers, and containerd on every node.
func (c *Cluster) startFoundation(ctx context.Context) error {
	starts := []component{c.etcd(), c.apiServer(), c.registry()}
	for _, n := range c.nodes() {
		starts = append(starts, c.containerd(n))
	}
	for _, p := range starts {
		if err := c.ensure(ctx, p); err != nil {
			return err
		}
	}
	client, err := c.adminHTTP()
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	ready := func(ctx context.Context) error { return get(ctx, client, c.APIServer()+"/readyz") }
	group.Go(func() error { return c.await(ctx, c.apiServer(), ready) })
	// An API server without etcd gives up at last; etcd that has ended is to blame first.
	group.Go(func() error { return c.await(ctx, c.etcd(), ready) })
	group.Go(func() error {
		return c.await(ctx, c.registry(), func(ctx context.Context) error {
			return get(ctx, http.DefaultClient, "http://"+c.registryAddress()+"/v2/")
		})
	})
	for _, n := range c.nodes() {
		group.Go(func() error {
			return c.await(ctx, c.containerd(n), func(ctx context.Context) error {
				conn, err := (&net.Dialer{}).DialContext(ctx, "unix", n.containerdSocket())
				if err != nil {
					return err
				}
				return conn.Close()
			})
		})
	}
	return group.Wait()
}

func (c *Cluster) startNodes(ctx context.Context) error {
	for _, p := range []component{c.controllerManager(), c.scheduler()} {
		if err := c.ensure(ctx, p); err != nil {
			return err
		}
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	for _, n := range c.nodes() {
		if err := registerNode(ctx, client, n); err != nil {
			return err
		}
		for _, p := range []component{c.kubelet(n), c.kubeProxy(n), c.netpol(n)} {
			if err := c.ensure(ctx, p); err != nil {
				return err
			}
		}
	}
	archives, err := filepath.Glob(filepath.Join(c.Images, "*.tar"))
	if err != nil || c.Images == "" {
		return err
	}
	return c.load(ctx, archives)
}

// adminHTTP is a plain HTTPS client with the administrator's certificate.
func (c *Cluster) adminHTTP() (*http.Client, error) {
	cert, err := tls.LoadX509KeyPair(c.pki("admin.crt"), c.pki("admin.key"))
	if err != nil {
		return nil, fmt.Errorf("loading the administrator's certificate: %w", err)
	}
	ca, err := os.ReadFile(c.pki(clusterCA + ".crt"))
	if err != nil {
		return nil, fmt.Errorf("loading the cluster's CA: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	return &http.Client{
		Timeout: 5 * time.Second,
		Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12},
		},
	}, nil
}

func get(ctx context.Context, client *http.Client, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("preparing a request: %w", err)
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, response.Status)
	}
	return nil
}
