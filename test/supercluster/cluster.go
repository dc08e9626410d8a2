package supercluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// Fixed ranges inside the cluster. They exist only in network namespaces, so that two clusters can use the same ones.
const (
	serviceRange  = "10.96.0.0/16"
	apiServiceIP  = "10.96.0.1"
	dnsServiceIP  = "10.96.0.10"
	podRange      = "10.244.0.0/16"
	clusterDomain = "cluster.local"
	apiServerPort = 6443
	registryPort  = 5000
	maxNodes      = 100
)

// namePattern keeps the names derived from a cluster name valid; "sc-" and the name must fit into the 15 characters of a
// network interface.
const namePattern = `^[a-z]([a-z0-9-]{0,10}[a-z0-9])?$`

// Config is what the user chooses.
type Config struct {
	// Name is unique on the machine: everything that is not a file in Dir is named after it.
	Name string
	// Dir holds the files of this cluster and nothing else.
	Dir string
	// Nodes is the number of nodes.
	Nodes int
	// BinDir holds the binaries of Kubernetes, etcd and containerd.
	BinDir string
	// Images is a folder of image archives that every node gets; may be absent.
	Images string
}

// Cluster is one local cluster.
type Cluster struct {
	Config
	subnet netip.Prefix
	steps  *Steps
}

// state is what must survive between two runs; it is written once, before anything else is made.
type state struct {
	Name   string       `json:"name"`
	Nodes  int          `json:"nodes"`
	Subnet netip.Prefix `json:"subnet"`
}

// New returns the cluster that config describes, without touching the machine.
func New(config Config, steps *Steps) (*Cluster, error) {
	dir, err := filepath.Abs(config.Dir)
	if err != nil {
		return nil, fmt.Errorf("resolving %s: %w", config.Dir, err)
	}
	config.Dir = dir
	c := &Cluster{Config: config, steps: steps}
	saved, err := c.readState()
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case c.Name != "" && c.Name != saved.Name:
		return nil, fmt.Errorf("%s holds the cluster %q, not %q", dir, saved.Name, c.Name)
	case c.Nodes != 0 && c.Nodes < saved.Nodes:
		return nil, fmt.Errorf("the cluster has %d nodes and cannot shrink: remove it with down first", saved.Nodes)
	default:
		c.Name, c.subnet = saved.Name, saved.Subnet
		if c.Nodes == 0 {
			c.Nodes = saved.Nodes
		}
	}
	if c.Name == "" {
		c.Name = filepath.Base(dir)
	}
	if c.Nodes == 0 {
		c.Nodes = 2
	}
	if !regexp.MustCompile(namePattern).MatchString(c.Name) {
		return nil, fmt.Errorf("cluster name %q: want at most 12 lower-case letters, digits and dashes", c.Name)
	}
	if c.Nodes < 1 || c.Nodes > maxNodes {
		return nil, fmt.Errorf("%d nodes: want 1 to %d", c.Nodes, maxNodes)
	}
	return c, nil
}

// stateFile is in the folder of each cluster.
const stateFile = "cluster.json"

func (c *Cluster) stateFile() string { return filepath.Join(c.Dir, stateFile) }

func (c *Cluster) readState() (state, error) {
	var s state
	data, err := os.ReadFile(c.stateFile())
	if err != nil {
		return s, fmt.Errorf("reading the cluster's state: %w", err)
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, fmt.Errorf("parsing %s: %w", c.stateFile(), err)
	}
	return s, nil
}

func (c *Cluster) writeState() error {
	data, err := json.MarshalIndent(state{Name: c.Name, Nodes: c.Nodes, Subnet: c.subnet}, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the cluster's state: %w", err)
	}
	return writeFile(c.stateFile(), append(data, '\n'), 0o644)
}

// Kubeconfig is the path of the administrator's kubeconfig.
func (c *Cluster) Kubeconfig() string { return filepath.Join(c.Dir, c.Name+".kubeconfig") }

// APIServer is the address of the API server, reachable from the machine and from the nodes.
func (c *Cluster) APIServer() string {
	return "https://" + netip.AddrPortFrom(c.controlPlaneIP(), apiServerPort).String()
}

// registryAddress is where nodes pull images.
func (c *Cluster) registryAddress() string {
	return netip.AddrPortFrom(c.controlPlaneIP(), registryPort).String()
}

// loadedFile lists the images that were loaded into the nodes.
func (c *Cluster) loadedFile() string { return filepath.Join(c.Dir, "images.json") }

func (c *Cluster) runDir() string             { return "/run/supercluster-" + c.Name }
func (c *Cluster) mountNamespaceDir() string  { return filepath.Join(c.runDir(), "mnt") }
func (c *Cluster) pkiDir() string             { return filepath.Join(c.Dir, "pki") }
func (c *Cluster) logDir() string             { return filepath.Join(c.Dir, "logs") }
func (c *Cluster) logFile(name string) string { return filepath.Join(c.logDir(), name+".log") }
func (c *Cluster) pki(name string) string     { return filepath.Join(c.pkiDir(), name) }
func (c *Cluster) program(name string) string { return filepath.Join(c.BinDir, name) }
func (c *Cluster) networkName() string        { return "sc-" + c.Name }
func (c *Cluster) cgroupName() string         { return "supercluster-" + c.Name }
func (c *Cluster) controlPlaneNetns() string  { return c.networkName() + "-cp" }
func (c *Cluster) controlPlaneIP() netip.Addr { return hostAddr(c.subnet, 1) }
func (c *Cluster) machineIP() netip.Addr      { return hostAddr(c.subnet, 254) }
func (c *Cluster) config(name string) string  { return filepath.Join(c.Dir, "config", name) }
func (c *Cluster) exportedKubeconfig() string {
	return filepath.Dir(c.Dir) + "/" + c.Name + ".kubeconfig"
}
func (c *Cluster) exportedLogs() string         { return filepath.Join(filepath.Dir(c.Dir), "logs", c.Name) }
func (c *Cluster) ownerFile() string            { return filepath.Join(c.runDir(), "owner") }
func (c *Cluster) netnsFile(ns string) string   { return filepath.Join("/run/netns", ns) }
func (c *Cluster) kubeconfig(who string) string { return c.config(who + ".kubeconfig") }

// node is one worker. Inside its mount namespace /run, /var/lib, /var/log and /opt are its own, so that every path is the
// usual one; paths seen from outside start with outside.
type node struct {
	Name    string
	IP      netip.Addr
	PodCIDR netip.Prefix

	netns  string
	mntns  string
	cgroup string
	data   string // on disk, bound to /run/data inside
	run    string // bound to /run inside
	links  string // the end of its cable in the control plane's namespace
}

func (c *Cluster) nodes() []node {
	nodes := make([]node, 0, c.Nodes)
	for i := 1; i <= c.Nodes; i++ {
		name := "node-" + strconv.Itoa(i)
		nodes = append(nodes, node{
			Name:    name,
			IP:      hostAddr(c.subnet, byte(10+i)),
			PodCIDR: netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", i)),
			netns:   c.networkName() + "-" + name,
			mntns:   filepath.Join(c.mountNamespaceDir(), name),
			cgroup:  c.cgroupName() + "/" + name,
			data:    filepath.Join(c.Dir, "nodes", name),
			run:     filepath.Join(c.runDir(), name),
			links:   name,
		})
	}
	return nodes
}

// Paths inside a node.
const (
	insideData       = "/run/data"
	insideBin        = "/run/bin"
	insideContainerd = "/run/containerd/containerd.sock"
)

func (n node) etc(name string) string    { return filepath.Join(n.data, "etc", name) }
func (n node) inside(name string) string { return filepath.Join(insideData, "etc", name) }

func (n node) containerdSocket() string { return strings.Replace(insideContainerd, "/run", n.run, 1) }

// hostAddr returns the address with the last octet set.
func hostAddr(p netip.Prefix, last byte) netip.Addr {
	if !p.IsValid() {
		return netip.Addr{}
	}
	a := p.Masked().Addr().As4()
	a[3] = last
	return netip.AddrFrom4(a)
}

// writeFile replaces a file at once, so that a run that was killed leaves the old content or the new one.
func writeFile(path string, data []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("creating the folder of %s: %w", path, err)
	}
	next := path + ".new"
	if err := os.WriteFile(next, data, mode); err != nil {
		return fmt.Errorf("writing %s: %w", next, err)
	}
	if err := os.Rename(next, path); err != nil {
		return fmt.Errorf("replacing %s: %w", path, err)
	}
	return nil
}
