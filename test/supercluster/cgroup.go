package supercluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// cgroupMounts returns the mount point of every cgroup hierarchy, and whether there is only the unified one.
func cgroupMounts() (mounts []string, unified bool, err error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, false, fmt.Errorf("listing mounts: %w", err)
	}
	mounts, unified = parseCgroupMounts(string(data))
	if len(mounts) == 0 {
		return nil, false, errors.New("no cgroup hierarchy is mounted")
	}
	return mounts, unified, nil
}

func parseCgroupMounts(mountinfo string) (mounts []string, unified bool) {
	unified = true
	for line := range strings.Lines(mountinfo) {
		left, right, ok := strings.Cut(line, " - ")
		fields, kind := strings.Fields(left), strings.Fields(right)
		if !ok || len(fields) < 5 || len(kind) == 0 {
			continue
		}
		switch kind[0] {
		case "cgroup":
			unified = false
			mounts = append(mounts, fields[4])
		case "cgroup2":
			mounts = append(mounts, fields[4])
		}
	}
	return mounts, unified && len(mounts) > 0
}

// ensureCgroup creates a cgroup in every hierarchy: the kubelet wants its root in all of them.
func ensureCgroup(name string) error {
	mounts, unified, err := cgroupMounts()
	if err != nil {
		return err
	}
	for _, mount := range mounts {
		at := mount
		for part := range strings.SplitSeq(name, "/") {
			if unified {
				enable := []byte("+cpu +cpuset +memory +pids +io")
				if err := os.WriteFile(filepath.Join(at, "cgroup.subtree_control"), enable, 0o644); err != nil {
					return fmt.Errorf("enabling controllers in %s: %w", at, err)
				}
			}
			parent := at
			at = filepath.Join(at, part)
			if err := os.Mkdir(at, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("creating cgroup: %w", err)
			}
			if err := inheritCpuset(parent, at); err != nil {
				return err
			}
		}
	}
	return nil
}

// weighCgroup gives a cgroup the share of the processors of so many machines, each as busy as four processes.
func weighCgroup(name string, machines int) error {
	mounts, _, err := cgroupMounts()
	if err != nil {
		return err
	}
	for _, mount := range mounts {
		// Of version 1 and of version 2, in units of one process each.
		for file, unit := range map[string]int{"cpu.shares": 1024, "cpu.weight": 100} {
			path := filepath.Join(mount, name, file)
			if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err := os.WriteFile(path, []byte(strconv.Itoa(min(4*machines*unit, 100*unit))), 0o644); err != nil {
				return fmt.Errorf("setting the share of the processors: %w", err)
			}
		}
	}
	return nil
}

// inheritCpuset fills what a new version 1 cpuset leaves empty; an empty one takes no process.
func inheritCpuset(parent, child string) error {
	if _, err := os.Stat(filepath.Join(child, "cgroup.clone_children")); errors.Is(err, fs.ErrNotExist) {
		return nil // version 2
	}
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		current, err := os.ReadFile(filepath.Join(child, file))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading cpuset: %w", err)
		}
		if strings.TrimSpace(string(current)) != "" {
			continue
		}
		wanted, err := os.ReadFile(filepath.Join(parent, file))
		if err != nil {
			return fmt.Errorf("reading cpuset: %w", err)
		}
		if err := os.WriteFile(filepath.Join(child, file), wanted, 0o644); err != nil {
			return fmt.Errorf("setting cpuset: %w", err)
		}
	}
	return nil
}

// joinCgroup moves a process into a cgroup of every hierarchy.
func joinCgroup(name string, pid int) error {
	mounts, _, err := cgroupMounts()
	if err != nil {
		return err
	}
	for _, mount := range mounts {
		file := filepath.Join(mount, name, "cgroup.procs")
		if err := os.WriteFile(file, []byte(strconv.Itoa(pid)), 0o644); err != nil {
			return fmt.Errorf("moving process %d: %w", pid, err)
		}
	}
	return nil
}

// cgroupProcesses returns the processes in a cgroup and below, over all hierarchies.
func cgroupProcesses(name string) ([]int, error) {
	var pids []int
	err := walkCgroups(name, func(dir string) error {
		data, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
			return nil // removed while we look
		}
		if err != nil {
			return fmt.Errorf("listing processes of a cgroup: %w", err)
		}
		for field := range strings.FieldsSeq(string(data)) {
			// 0 is a process of another PID namespace, which we cannot signal and did not start.
			if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids, err
}

// removeCgroup removes a cgroup and everything below in every hierarchy.
func removeCgroup(name string) error {
	return walkCgroups(name, func(dir string) error {
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing cgroup: %w", err)
		}
		return nil
	})
}

// walkCgroups visits children before parents.
func walkCgroups(name string, visit func(dir string) error) error {
	mounts, _, err := cgroupMounts()
	if err != nil {
		return err
	}
	for _, mount := range mounts {
		if err := walkDirs(filepath.Join(mount, name), visit); err != nil {
			return err
		}
	}
	return nil
}

func walkDirs(dir string, visit func(dir string) error) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("listing %s: %w", dir, err)
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := walkDirs(filepath.Join(dir, e.Name()), visit); err != nil {
				return err
			}
		}
	}
	return visit(dir)
}
