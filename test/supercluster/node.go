package supercluster

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/template"
)

//go:embed templates
var templates embed.FS

// sandboxImage is what holds the namespaces of a pod.
const sandboxImage = "registry.k8s.io/pause:3.10.1"

// cniBinaries is where Debian installs the CNI plugins.
const cniBinaries = "/usr/lib/cni"

// sysctls the kubelet wants. They belong to the machine, so that the node is shown these values instead of setting them.
const sysctlDir = "sysctl"

func nodeSysctls() map[string]string {
	return map[string]string{
		"vm/overcommit_memory":      "1",
		"vm/panic_on_oom":           "0",
		"kernel/panic":              "10",
		"kernel/panic_on_oops":      "1",
		"kernel/keys/root_maxkeys":  "1000000",
		"kernel/keys/root_maxbytes": "25000000",
	}
}

// templateData is what configuration templates can use.
type templateData struct {
	Node        templateNode
	Containerd  string
	Sandbox     string
	CNIBinaries string
	DNS         string
	Domain      string
	Pods        string
	Registry    string
}

type templateNode struct {
	Name, IP, PodCIDR, Cgroup string
}

// Inside is the path of a configuration file as the node sees it.
func (templateNode) Inside(name string) string { return filepath.Join(insideData, "etc", name) }

func (c *Cluster) templateData(n node) templateData {
	return templateData{
		Node:        templateNode{Name: n.Name, IP: n.IP.String(), PodCIDR: n.PodCIDR.String(), Cgroup: n.cgroup},
		Containerd:  insideContainerd,
		Sandbox:     sandboxImage,
		CNIBinaries: cniBinaries,
		DNS:         dnsServiceIP,
		Domain:      clusterDomain,
		Pods:        podRange,
		Registry:    "http://" + c.registryAddress(),
	}
}

func render(name string, data templateData) ([]byte, error) {
	t, err := template.New(name).Option("missingkey=error").ParseFS(templates, "templates/"+name)
	if err != nil {
		return nil, fmt.Errorf("parsing template: %w", err)
	}
	var out bytes.Buffer
	if err := t.Execute(&out, data); err != nil {
		return nil, fmt.Errorf("rendering template: %w", err)
	}
	return out.Bytes(), nil
}

// ensureNodeFiles writes the configuration of a node's processes.
func (c *Cluster) ensureNodeFiles(n node) error {
	for file, source := range map[string]string{
		"kubelet.yaml":                   "kubelet.yaml.tmpl",
		"kube-proxy.yaml":                "kube-proxy.yaml.tmpl",
		"containerd.toml":                "containerd.toml.tmpl",
		"cni/10-net.conflist":            "cni.conflist.tmpl",
		"registries/_default/hosts.toml": "hosts.toml.tmpl",
	} {
		content, err := render(source, c.templateData(n))
		if err != nil {
			return err
		}
		if err := writeFile(n.etc(file), content, 0o644); err != nil {
			return err
		}
	}
	// Nothing outside can be reached, but a node has a name server: a CoreDNS that forwards to the node's does not start
	// without. This is the node itself, which refuses, so that names outside fail at once. At a loopback address, a CoreDNS on
	// port 53 would ask itself.
	if err := writeFile(n.etc("resolv.conf"), []byte("nameserver "+n.IP.String()+"\nsearch "+clusterDomain+"\n"), 0o644); err != nil {
		return err
	}
	for from, to := range map[string]string{
		clusterCA + ".crt": "ca.crt",
		n.Name + ".crt":    "kubelet.crt",
		n.Name + ".key":    "kubelet.key",
	} {
		if err := copyFile(c.pki(from), n.etc(to), 0o600); err != nil {
			return err
		}
	}
	for file, identity := range map[string]string{
		"kubelet.kubeconfig":    n.Name,
		"kube-proxy.kubeconfig": "kube-proxy",
		"netpol.kubeconfig":     "netpol",
	} {
		if err := c.writeKubeconfig(n.etc(file), identity); err != nil {
			return err
		}
	}
	for _, dir := range []string{"lib", "log", "opt", sysctlDir} {
		if err := os.MkdirAll(filepath.Join(n.data, dir), 0o755); err != nil {
			return fmt.Errorf("creating a folder of %s: %w", n.Name, err)
		}
	}
	for name, value := range nodeSysctls() {
		if err := writeFile(filepath.Join(n.data, sysctlDir, name), []byte(value+"\n"), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// ensureMountNamespace gives a node its own /run, /var/lib, /var/log and /opt. All mounts of its containers live there too,
// and go away with it.
func (c *Cluster) ensureMountNamespace(ctx context.Context, n node) error {
	complete := filepath.Join(n.run, "complete")
	if mounted(n.mntns) {
		if _, err := os.Stat(complete); err == nil {
			return nil
		}
		// A run was killed in the middle.
		if _, err := run(ctx, "umount", n.mntns); err != nil {
			return err
		}
	}
	for _, dir := range []string{c.mountNamespaceDir(), filepath.Join(n.run, "data"), filepath.Join(n.run, "bin")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("creating the mount namespace of %s: %w", n.Name, err)
		}
	}
	// A mount namespace can only be kept on a mount that does not propagate.
	if !mounted(c.mountNamespaceDir()) {
		if _, err := run(ctx, "mount", "--bind", c.mountNamespaceDir(), c.mountNamespaceDir()); err != nil {
			return err
		}
	}
	if _, err := run(ctx, "mount", "--make-private", c.mountNamespaceDir()); err != nil {
		return err
	}
	if err := os.WriteFile(n.mntns, nil, 0o644); err != nil {
		return fmt.Errorf("creating the mount namespace of %s: %w", n.Name, err)
	}
	if _, err := run(ctx, "unshare", "--mount="+n.mntns, "--propagation=private", "sh", "-euc", c.mountScript(n)); err != nil {
		return err
	}
	if err := os.WriteFile(complete, nil, 0o644); err != nil {
		return fmt.Errorf("creating the mount namespace of %s: %w", n.Name, err)
	}
	return nil
}

// mountScript arranges a node's files. Sources are bound below the new /run first, because they may lie in a folder that
// the later mounts hide.
func (c *Cluster) mountScript(n node) string {
	commands := []string{
		"mount --bind " + quote(n.data) + " " + quote(n.run+"/data"),
		"mount --bind " + quote(c.BinDir) + " " + quote(n.run+"/bin"),
	}
	for name := range nodeSysctls() {
		commands = append(commands, "mount --bind "+quote(filepath.Join(n.run, "data", sysctlDir, name))+" /proc/sys/"+name)
	}
	commands = append(commands,
		"mount --bind "+quote(n.run+"/data/lib")+" /var/lib",
		"mount --bind "+quote(n.run+"/data/log")+" /var/log",
		"mount --bind "+quote(n.run+"/data/opt")+" /opt",
		"mount --rbind "+quote(n.run)+" /run",
		// Mounts inside must reach containers that ask for it (mountPropagation), but never the machine.
		"mount --make-rshared /",
	)
	return strings.Join(commands, "\n")
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// mounted tells whether something is mounted exactly at path.
func mounted(path string) bool {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) > 4 && fields[4] == path {
			return true
		}
	}
	return false
}

// removeMountNamespaces lets go of the nodes' mount namespaces; with their last process all their mounts disappear.
func (c *Cluster) removeMountNamespaces(ctx context.Context) error {
	entries, err := os.ReadDir(c.mountNamespaceDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("listing mount namespaces: %w", err)
	}
	var paths []string
	for _, e := range entries {
		paths = append(paths, filepath.Join(c.mountNamespaceDir(), e.Name()))
	}
	for _, path := range append(paths, c.mountNamespaceDir()) {
		for mounted(path) {
			if _, err := run(ctx, "umount", path); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *Cluster) containerd(n node) component {
	return component{
		name: n.Name + "-containerd", netns: n.netns, mntns: n.mntns, path: insideBin + "/containerd",
		args:   []string{"--config", n.inside("containerd.toml"), "--log-level", "info"},
		inputs: []string{n.etc("containerd.toml")},
	}
}

func (c *Cluster) kubelet(n node) component {
	return component{
		name: n.Name + "-kubelet", netns: n.netns, mntns: n.mntns, path: insideBin + "/kubelet",
		args: []string{
			"--config=" + n.inside("kubelet.yaml"),
			"--kubeconfig=" + n.inside("kubelet.kubeconfig"),
			"--hostname-override=" + n.Name,
			"--node-ip=" + n.IP.String(),
			"--v=1",
		},
		inputs: []string{n.etc("kubelet.yaml"), n.etc("kubelet.kubeconfig"), n.etc("kubelet.crt"), n.etc("ca.crt")},
	}
}

func (c *Cluster) kubeProxy(n node) component {
	return component{
		name: n.Name + "-kube-proxy", netns: n.netns, mntns: n.mntns, path: insideBin + "/kube-proxy",
		args:   []string{"--config=" + n.inside("kube-proxy.yaml"), "--v=1"},
		inputs: []string{n.etc("kube-proxy.yaml"), n.etc("kube-proxy.kubeconfig")},
	}
}

func (c *Cluster) netpol(n node) component {
	return component{
		name: n.Name + "-netpol", netns: n.netns, mntns: n.mntns, path: insideBin + "/netpol",
		args:   []string{"--kubeconfig=" + n.inside("netpol.kubeconfig"), "--node=" + n.Name},
		inputs: []string{n.etc("netpol.kubeconfig")},
	}
}
