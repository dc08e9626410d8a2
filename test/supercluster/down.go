package supercluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Down removes everything that Up and the cluster itself have made: processes, containers, mounts, namespaces, cables,
// cgroups and files. It works from the cluster's name and folder alone, whatever state they are in.
func (c *Cluster) Down(ctx context.Context) error {
	owner, err := c.owner()
	if err != nil {
		return err
	}
	if owner.dir != "" && owner.dir != c.Dir && !owner.abandoned {
		return fmt.Errorf("the cluster named %q runs from %s, not from %s", c.Name, owner.dir, c.Dir)
	}
	release, err := c.lock()
	if err != nil {
		return err
	}
	defer release()
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"Ending processes", func(ctx context.Context) error {
			killed, err := c.killAll(ctx)
			if killed > 0 {
				c.steps.Say("Ended %d processes", killed)
			}
			return err
		}},
		{"Removing mounts", c.removeMountNamespaces},
		{"Removing network namespaces", c.removeNetwork},
		{"Removing cgroups", func(ctx context.Context) error {
			// The kernel lets go of a cgroup a little after its last process.
			return poll(ctx, 10*time.Second, func(context.Context) error { return removeCgroup(c.cgroupName()) })
		}},
		{"Restoring limits", c.restoreLimits},
		{"Removing files", func(context.Context) error { return c.removeFiles() }},
	} {
		if err := c.steps.Run(ctx, step.name, step.do); err != nil {
			return err
		}
	}
	c.steps.Say("Nothing is left of cluster %s", c.Name)
	return nil
}

// removeFiles removes the cluster's folder only if it is one: a mistyped --dir must not cost somebody's files.
func (c *Cluster) removeFiles() error {
	for _, path := range []string{c.exportedKubeconfig(), c.exportedLogs()} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing %s: %w", path, err)
		}
	}
	// Empties the folder of links after the last cluster; fails, rightly, while there are others.
	_ = os.Remove(filepath.Dir(c.exportedLogs()))
	if _, err := os.Stat(c.stateFile()); err == nil {
		// The state goes last, so that a run that was killed can be repeated.
		entries, err := os.ReadDir(c.Dir)
		if err != nil {
			return fmt.Errorf("listing %s: %w", c.Dir, err)
		}
		for _, e := range entries {
			if path := filepath.Join(c.Dir, e.Name()); path != c.stateFile() {
				if err := os.RemoveAll(path); err != nil {
					return fmt.Errorf("removing the cluster's files: %w", err)
				}
			}
		}
		if err := os.RemoveAll(c.Dir); err != nil {
			return fmt.Errorf("removing the cluster's files: %w", err)
		}
	}
	if err := os.RemoveAll(c.runDir()); err != nil {
		return fmt.Errorf("removing %s: %w", c.runDir(), err)
	}
	return nil
}
