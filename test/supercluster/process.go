package supercluster

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Marks in the environment of everything we start. Children inherit them (containerd's shims too), and nobody can lose
// them, which a file with process ids can.
const (
	markCluster   = "SUPERCLUSTER"
	markComponent = "SUPERCLUSTER_COMPONENT"
	markConfig    = "SUPERCLUSTER_CONFIG"
)

// component is a process that has to run.
type component struct {
	name   string // also the log file's: "etcd", "node-1-kubelet"
	netns  string
	mntns  string // empty: the machine's
	path   string // as seen in mntns
	args   []string
	inputs []string // files whose change needs a restart
}

// fingerprint changes when the component has to be restarted.
func (p component) fingerprint() (string, error) {
	content := fmt.Appendf(nil, "%q %q %q %q\n", p.netns, p.mntns, p.path, p.args)
	for _, input := range p.inputs {
		data, err := os.ReadFile(input)
		if err != nil {
			return "", fmt.Errorf("reading an input of %s: %w", p.name, err)
		}
		content = fmt.Appendf(content, "%x\n", sha256.Sum256(data))
	}
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:8]), nil
}

// process is a running process that carries our mark.
type process struct {
	PID       int
	Component string
	Config    string
	Program   string // base name of the executable
	Netns     string // identity of the network namespace
}

// marked returns the processes of a cluster, oldest first. procfs is /proc.
func marked(procfs, cluster string) ([]process, error) {
	entries, err := os.ReadDir(procfs)
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	var found []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		// A process that ends while we look is none of ours any more.
		environ, err := os.ReadFile(filepath.Join(procfs, e.Name(), "environ"))
		if err != nil {
			continue
		}
		marks := parseEnviron(environ)
		if marks[markCluster] != cluster {
			continue
		}
		exe, err := os.Readlink(filepath.Join(procfs, e.Name(), "exe"))
		if err != nil {
			continue
		}
		netns, err := os.Readlink(filepath.Join(procfs, e.Name(), "ns", "net"))
		if err != nil {
			continue
		}
		found = append(found, process{
			PID:       pid,
			Component: marks[markComponent],
			Config:    marks[markConfig],
			Program:   filepath.Base(strings.TrimSuffix(exe, " (deleted)")),
			Netns:     netns,
		})
	}
	slices.SortFunc(found, func(a, b process) int { return a.PID - b.PID })
	return found, nil
}

func parseEnviron(environ []byte) map[string]string {
	marks := map[string]string{}
	for entry := range bytes.SplitSeq(environ, []byte{0}) {
		if key, value, ok := strings.Cut(string(entry), "="); ok && strings.HasPrefix(key, markCluster) {
			marks[key] = value
		}
	}
	return marks
}

// of returns the processes that are component p itself, not children that inherited its marks.
func (p component) of(all []process) []process {
	var own []process
	for _, proc := range all {
		if proc.Component == p.name && proc.Program == filepath.Base(p.path) {
			own = append(own, proc)
		}
	}
	return own
}

// ensure starts a component unless it runs already as wanted.
func (c *Cluster) ensure(ctx context.Context, p component) error {
	fingerprint, err := p.fingerprint()
	if err != nil {
		return err
	}
	netns, err := namespaceIdentity(c.netnsFile(p.netns))
	if err != nil {
		return err
	}
	all, err := marked("/proc", c.Name)
	if err != nil {
		return err
	}
	running := false
	for _, proc := range p.of(all) {
		if !running && proc.Config == fingerprint && proc.Netns == netns {
			running = true
			continue
		}
		c.steps.Say("Stopping %s (process %d): its configuration has changed", p.name, proc.PID)
		if err := stop(ctx, proc.PID); err != nil {
			return fmt.Errorf("stopping %s: %w", p.name, err)
		}
	}
	if running {
		return nil
	}
	return c.start(p, fingerprint)
}

// start runs a component detached from us, in its namespaces and in the cluster's cgroup.
func (c *Cluster) start(p component, fingerprint string) error {
	log, err := os.OpenFile(c.logFile(p.name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("opening the log of %s: %w", p.name, err)
	}
	defer func() { _ = log.Close() }()
	// Not "ip netns exec": that mounts a new /sys, which hides the cgroups.
	args := []string{"--net=" + c.netnsFile(p.netns)}
	if p.mntns != "" {
		args = append(args, "--mount="+p.mntns)
	}
	args = append(args, "--", p.path)
	// It outlives us and this run, so no context may end it.
	cmd := exec.CommandContext(context.Background(), "nsenter", append(args, p.args...)...)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Env = []string{
		"PATH=" + insideBin + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root",
		markCluster + "=" + c.Name,
		markComponent + "=" + p.name,
		markConfig + "=" + fingerprint,
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", p.name, err)
	}
	pid := cmd.Process.Pid
	// Reaped as long as we live, so that a component that dies at once does not look alive.
	go func() { _ = cmd.Wait() }()
	if err := joinCgroup(c.cgroupName()+"/daemons", pid); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("placing %s: %w", p.name, err)
	}
	return nil
}

// await polls a component's health; a component that has died fails at once with the end of its log.
func (c *Cluster) await(ctx context.Context, p component, healthy func(context.Context) error) error {
	missed := 0
	err := poll(ctx, patience, func(ctx context.Context) error {
		if err := c.running(p); err != nil {
			// While nsenter becomes the component its environment is empty for a moment.
			if missed++; missed > 3 {
				return fatal{err}
			}
			return err
		}
		missed = 0
		return healthy(ctx)
	})
	if err != nil {
		return fmt.Errorf("waiting for %s: %w\n%s", p.name, err, c.logTail(p.name))
	}
	return nil
}

// running fails when a component has no process. Until nsenter has become the component its program has another name, so
// only the mark counts.
func (c *Cluster) running(p component) error {
	all, err := marked("/proc", c.Name)
	if err != nil {
		return err
	}
	for _, proc := range all {
		if proc.Component == p.name {
			return nil
		}
	}
	return fmt.Errorf("the process of %s has ended", p.name)
}

// fatal is an error that waiting longer does not cure.
type fatal struct{ error }

// poll calls check until it succeeds; the last error is the one reported.
func poll(ctx context.Context, timeout time.Duration, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		var f fatal
		if errors.As(err, &f) {
			return f.error
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("giving up after %s: %w", timeout, err)
		case <-ticker.C:
		}
	}
}

// logTail is the end of a component's log and where the rest is.
func (c *Cluster) logTail(name string) string {
	const keep = 15
	data, err := os.ReadFile(c.logFile(name))
	if err != nil {
		return "no log: " + err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	if len(lines) > keep {
		lines = lines[len(lines)-keep:]
	}
	return "  | " + strings.Join(lines, "\n  | ") + "\nthe whole log: " + c.logFile(name)
}

// stop ends one process: politely, then not.
func stop(ctx context.Context, pid int) error {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if err := syscall.Kill(pid, signal); err != nil {
			return ignoreGone(err)
		}
		err := poll(ctx, 10*time.Second, func(context.Context) error {
			if !alive(pid) {
				return nil
			}
			return fmt.Errorf("process %d is still there", pid)
		})
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
	return fmt.Errorf("process %d survives SIGKILL", pid)
}

// alive is false for zombies too: somebody else's child that is not reaped yet holds nothing.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(after, "Z")
}

func ignoreGone(err error) error {
	if errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}

// killAll ends every process of the cluster: those that carry the mark and those in its cgroups (containers do not carry
// it).
func (c *Cluster) killAll(ctx context.Context) (int, error) {
	return kill(ctx, func() ([]int, error) {
		procs, err := marked("/proc", c.Name)
		if err != nil {
			return nil, err
		}
		pids, err := cgroupProcesses(c.cgroupName())
		if err != nil {
			return nil, err
		}
		for _, p := range procs {
			pids = append(pids, p.PID)
		}
		return pids, nil
	})
}

// killCgroup ends every process in a cgroup and below.
func killCgroup(ctx context.Context, name string) error {
	_, err := kill(ctx, func() ([]int, error) { return cgroupProcesses(name) })
	return err
}

// kill ends what list returns and repeats until that is nothing, because processes fork while we look.
func kill(ctx context.Context, list func() ([]int, error)) (int, error) {
	killed := map[int]bool{}
	err := poll(ctx, 30*time.Second, func(context.Context) error {
		pids, err := list()
		if err != nil {
			return fatal{err}
		}
		left := 0
		for _, pid := range pids {
			if !alive(pid) {
				continue
			}
			left++
			killed[pid] = true
			if err := ignoreGone(syscall.Kill(pid, syscall.SIGKILL)); err != nil {
				return fatal{fmt.Errorf("ending process %d: %w", pid, err)}
			}
		}
		if left > 0 {
			return fmt.Errorf("%d processes are left", left)
		}
		return nil
	})
	return len(killed), err
}

// run executes a short command and returns its output; an error carries what the command said.
func run(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("running %s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}
