package supercluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// The kernel's limits on watching files count per user and so over all nodes and clusters; usual defaults are made for one
// kubelet. They are raised while there are clusters, and the machine gets its own values back with the last one.

// savedLimits holds the machine's own values. A dot cannot be part of a cluster's name.
const savedLimits = "/run/supercluster.limits"

func wantedLimits() map[string]int {
	return map[string]int{
		"/proc/sys/fs/inotify/max_user_instances": 8192,
		"/proc/sys/fs/inotify/max_user_watches":   1 << 20,
	}
}

// raiseLimits raises what is too low.
func (c *Cluster) raiseLimits(context.Context) error {
	machine, err := lockFile("/run")
	if err != nil {
		return err
	}
	defer func() { _ = machine.Close() }()
	own, err := readLimits(savedLimits)
	if err != nil {
		return err
	}
	low := map[string]int{}
	for file, wanted := range wantedLimits() {
		data, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("reading a limit of the kernel: %w", err)
		}
		value, err := strconv.Atoi(strings.TrimSpace(string(data)))
		if err != nil {
			return fmt.Errorf("parsing %s: %w", file, err)
		}
		if value >= wanted {
			continue
		}
		low[file] = wanted
		// What is saved already is older than what a cluster has set.
		if _, ok := own[file]; !ok {
			own[file] = value
		}
	}
	if len(low) == 0 {
		return nil
	}
	data, err := json.Marshal(own)
	if err != nil {
		return fmt.Errorf("encoding the machine's limits: %w", err)
	}
	if err := writeFile(savedLimits, data, 0o644); err != nil {
		return err
	}
	return setLimits(low)
}

// restoreLimits gives the machine its own values back, unless other clusters are left.
func (c *Cluster) restoreLimits(context.Context) error {
	machine, err := lockFile("/run")
	if err != nil {
		return err
	}
	defer func() { _ = machine.Close() }()
	others, err := filepath.Glob("/run/supercluster-*")
	if err != nil {
		return fmt.Errorf("looking for other clusters: %w", err)
	}
	for _, other := range others {
		if other != c.runDir() {
			return nil
		}
	}
	own, err := readLimits(savedLimits)
	if err != nil {
		return err
	}
	if err := setLimits(own); err != nil {
		return err
	}
	if err := os.Remove(savedLimits); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the saved limits: %w", err)
	}
	return nil
}

func readLimits(path string) (map[string]int, error) {
	limits := map[string]int{}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return limits, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the saved limits: %w", err)
	}
	if err := json.Unmarshal(data, &limits); err != nil {
		return nil, fmt.Errorf("parsing %s: %w", path, err)
	}
	return limits, nil
}

func setLimits(limits map[string]int) error {
	for file, value := range limits {
		if err := os.WriteFile(file, []byte(strconv.Itoa(value)), 0o644); err != nil {
			return fmt.Errorf("setting a limit of the kernel: %w", err)
		}
	}
	return nil
}
