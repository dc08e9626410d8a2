package supercluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"
)

// The network of a cluster: a namespace with a bridge, where the control plane runs; a cable from it to every node's
// namespace; one cable to the machine, which gets no route but the one to the nodes' own addresses. Nobody has a default
// route, so that an address nobody serves is unreachable at once and nothing ever leaves.
const bridge = "br0"

// allServices holds the cluster's own service range and those of tenants.
const allServices = "10.96.0.0/11"

// subnets a cluster can use: 172.31.0.0/24 to 172.31.255.0/24.
func candidateSubnets() []netip.Prefix {
	list := make([]netip.Prefix, 0, 256)
	for i := range 256 {
		list = append(list, netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 31, byte(i), 0}), 24))
	}
	return list
}

// chooseSubnet returns the first candidate that overlaps nothing in use.
func chooseSubnet(candidates, used []netip.Prefix) (netip.Prefix, error) {
	for _, candidate := range candidates {
		free := true
		for _, u := range used {
			free = free && !candidate.Overlaps(u)
		}
		if free {
			return candidate, nil
		}
	}
	return netip.Prefix{}, errors.New("no free subnet: the machine has routes to all of 172.31.0.0/16")
}

// usedSubnets reads the destinations of the machine's routes.
func usedSubnets(ctx context.Context) ([]netip.Prefix, error) {
	out, err := run(ctx, "ip", "-4", "route", "show", "table", "all")
	if err != nil {
		return nil, err
	}
	return parseRoutes(out), nil
}

func parseRoutes(out string) []netip.Prefix {
	var used []netip.Prefix
	for line := range strings.Lines(out) {
		for _, field := range strings.Fields(line) {
			// The destination comes first, perhaps after a route type; "default" is no subnet in use.
			if addr, err := netip.ParseAddr(field); err == nil {
				used = append(used, netip.PrefixFrom(addr, addr.BitLen()))
				break
			}
			if prefix, err := netip.ParsePrefix(field); err == nil {
				used = append(used, prefix)
				break
			}
			if field == "default" {
				break
			}
		}
	}
	return used
}

// ensureNetwork makes the namespaces, cables, addresses and routes.
func (c *Cluster) ensureNetwork(ctx context.Context) error {
	cp := c.controlPlaneNetns()
	if err := ensureNetns(ctx, cp); err != nil {
		return err
	}
	if err := ensureLink(ctx, cp, bridge, "type", "bridge"); err != nil {
		return err
	}
	if err := ipBatch(ctx,
		"-n "+cp+" link set "+bridge+" up",
		fmt.Sprintf("-n %s addr replace %s/24 dev %s", cp, c.controlPlaneIP(), bridge),
	); err != nil {
		return err
	}
	for _, n := range c.nodes() {
		if err := c.ensureNodeNetwork(ctx, n); err != nil {
			return err
		}
	}
	return c.ensureMachineLink(ctx)
}

func (c *Cluster) ensureNodeNetwork(ctx context.Context, n node) error {
	cp := c.controlPlaneNetns()
	if err := ensureNetns(ctx, n.netns); err != nil {
		return err
	}
	if _, err := run(ctx, "ip", "-n", n.netns, "link", "show", "eth0"); err != nil {
		// A new namespace: what ran in an old one is cut off, and so is the other end of its cable.
		if err := killCgroup(ctx, n.cgroup); err != nil {
			return err
		}
		if _, err := run(ctx, "ip", "-n", cp, "link", "show", n.links); err == nil {
			if err := ipBatch(ctx, "-n "+cp+" link delete "+n.links); err != nil {
				return err
			}
		}
	}
	if err := ensureLink(ctx, cp, n.links, "type", "veth", "peer", "name", "eth0", "netns", n.netns); err != nil {
		return err
	}
	commands := []string{
		fmt.Sprintf("-n %s link set %s master %s up", cp, n.links, bridge),
		fmt.Sprintf("-n %s link set eth0 up", n.netns),
		fmt.Sprintf("-n %s addr replace %s/24 dev eth0", n.netns, n.IP),
		// The API server calls webhooks and aggregated APIs at their pods.
		fmt.Sprintf("-n %s route replace %s via %s", cp, n.PodCIDR, n.IP),
		// The node's own processes need a route to service addresses before kube-proxy rewrites them.
		fmt.Sprintf("-n %s route replace %s dev eth0 src %s", n.netns, allServices, n.IP),
	}
	for _, other := range c.nodes() {
		if other.Name != n.Name {
			commands = append(commands, fmt.Sprintf("-n %s route replace %s via %s", n.netns, other.PodCIDR, other.IP))
		}
	}
	if err := ipBatch(ctx, commands...); err != nil {
		return err
	}
	// What a pod sends to an address that kube-proxy has not programmed is refused rather than lost.
	rule := []string{"-n", n.netns, "rule", "add", "priority", "100", "iif", "cni0", "to", allServices, "unreachable"}
	rules, err := run(ctx, "ip", "-n", n.netns, "rule", "show", "priority", "100")
	if err != nil {
		return err
	}
	if strings.TrimSpace(rules) == "" {
		if _, err := run(ctx, "ip", rule...); err != nil {
			return err
		}
	}
	for _, sysctl := range []string{"net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables"} {
		write := "echo 1 > /proc/sys/" + sysctl
		if _, err := run(ctx, "nsenter", "--net="+c.netnsFile(n.netns), "--", "sh", "-c", write); err != nil {
			return fmt.Errorf("setting %s (is the kernel module br_netfilter loaded?): %w", sysctl, err)
		}
	}
	return nil
}

// ensureMachineLink connects the machine, so that its clients reach the API server and node ports.
func (c *Cluster) ensureMachineLink(ctx context.Context) error {
	link := c.networkName()
	if _, err := run(ctx, "ip", "link", "show", link); err != nil {
		if _, err := run(ctx, "ip", "link", "add", link, "type", "veth", "peer", "name", "machine", "netns", c.controlPlaneNetns()); err != nil {
			return err
		}
	}
	return ipBatch(ctx,
		fmt.Sprintf("-n %s link set machine master %s up", c.controlPlaneNetns(), bridge),
		"link set "+link+" up",
		fmt.Sprintf("addr replace %s/24 dev %s", c.machineIP(), link),
	)
}

// ensureNetns creates a named network namespace. A file without a namespace behind it, left by a killed run, is replaced.
func ensureNetns(ctx context.Context, name string) error {
	if _, err := run(ctx, "ip", "-n", name, "link", "set", "lo", "up"); err == nil {
		return nil
	}
	if err := deleteNetns(ctx, name); err != nil {
		return err
	}
	if _, err := run(ctx, "ip", "netns", "add", name); err != nil {
		return err
	}
	_, err := run(ctx, "ip", "-n", name, "link", "set", "lo", "up")
	return err
}

func deleteNetns(ctx context.Context, name string) error {
	file := "/run/netns/" + name
	if _, err := os.Lstat(file); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if _, err := run(ctx, "ip", "netns", "delete", name); err == nil {
		return nil
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing network namespace %s: %w", name, err)
	}
	return nil
}

func ensureLink(ctx context.Context, netns, link string, spec ...string) error {
	if _, err := run(ctx, "ip", "-n", netns, "link", "show", link); err == nil {
		return nil
	}
	_, err := run(ctx, "ip", append([]string{"-n", netns, "link", "add", link}, spec...)...)
	return err
}

func ipBatch(ctx context.Context, commands ...string) error {
	for _, command := range commands {
		if _, err := run(ctx, "ip", strings.Fields(command)...); err != nil {
			return err
		}
	}
	return nil
}

// removeNetwork removes the namespaces with all that is in them, and the machine's end of the cable.
func (c *Cluster) removeNetwork(ctx context.Context) error {
	if _, err := run(ctx, "ip", "link", "show", c.networkName()); err == nil {
		if _, err := run(ctx, "ip", "link", "delete", c.networkName()); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir("/run/netns")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("listing network namespaces: %w", err)
	}
	for _, e := range entries {
		if e.Name() != c.controlPlaneNetns() && !strings.HasPrefix(e.Name(), c.networkName()+"-node-") {
			continue
		}
		if err := deleteNetns(ctx, e.Name()); err != nil {
			return err
		}
	}
	return nil
}

// namespaceIdentity returns what /proc/PID/ns/net shows for the processes in a named network namespace.
func namespaceIdentity(file string) (string, error) {
	id, err := inode(file)
	if err != nil {
		return "", fmt.Errorf("looking at network namespace: %w", err)
	}
	return fmt.Sprintf("net:[%d]", id), nil
}
