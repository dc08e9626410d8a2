package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/test/e2e/local"
)

// usage is the memory of one container: what is resident, and the part of it that no file backs.
type usage struct{ resident, anonymous int64 }

// ours are the processes that serve all tenants.
func ours() []string { return []string{names.Manager, names.Syncer, "vn-agent"} }

// measureMemory reads the memory of the components of the first tenant and of what serves all tenants.
func measureMemory(ctx context.Context, cluster *local.Cluster) ([]row, error) {
	used, err := containerMemory("/proc")
	if err != nil {
		return nil, err
	}
	list, err := cluster.Super.Client.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("listing pods: %w", err)
	}
	root := string(cluster.Tenants[0].ID())
	var rows []row
	for _, component := range slices.Concat([]string{"etcd", "kube-apiserver", "kube-controller-manager"}, ours()) {
		shared := slices.Contains(ours(), component)
		var found []usage
		for _, pod := range list.Items {
			if !shared && pod.Namespace != root || !runs(&pod, component) {
				continue
			}
			if u, ok := used[pod.UID]; ok {
				found = append(found, u)
			}
		}
		if len(found) == 0 {
			return nil, fmt.Errorf("no running container %s", component)
		}
		rows = append(rows, memoryRow(component, shared, len(cluster.Tenants), found))
	}
	return rows, nil
}

func memoryRow(component string, shared bool, tenants int, found []usage) row {
	what := fmt.Sprintf("Memory of a tenant's %s, idle", component)
	if shared {
		what = fmt.Sprintf("Memory of %s, idle, %d tenants", component, tenants)
	}
	biggest := slices.MaxFunc(found, func(a, b usage) int { return int(a.resident - b.resident) })
	detail := fmt.Sprintf("resident; %s of it anonymous", mebibytes(biggest.anonymous))
	if len(found) > 1 {
		detail += fmt.Sprintf("; the biggest of %d", len(found))
	}
	return row{what: what, figure: mebibytes(biggest.resident), detail: detail}
}

// runs says whether the pod has a container of the component, by its name or its image.
func runs(pod *corev1.Pod, component string) bool {
	return slices.ContainsFunc(pod.Spec.Containers, func(c corev1.Container) bool {
		repository, _, _ := strings.Cut(filepath.Base(c.Image), ":")
		return c.Name == component || repository == component
	})
}

// containerMemory returns, by pod, the memory of all processes of its containers. A process is known by its cgroup,
// whose path contains the UID of the pod.
func containerMemory(proc string) (map[types.UID]usage, error) {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	used := map[types.UID]usage{}
	for _, entry := range entries {
		if _, err := strconv.Atoi(entry.Name()); err != nil {
			continue
		}
		dir := filepath.Join(proc, entry.Name())
		uid, u, err := processMemory(dir)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			// It has just ended.
			continue
		}
		if err != nil {
			return nil, err
		}
		if uid != "" {
			sum := used[uid]
			used[uid] = usage{sum.resident + u.resident, sum.anonymous + u.anonymous}
		}
	}
	return used, nil
}

func processMemory(dir string) (types.UID, usage, error) {
	cgroup, err := os.ReadFile(filepath.Join(dir, "cgroup"))
	if err != nil {
		return "", usage{}, fmt.Errorf("reading a cgroup: %w", err)
	}
	uid := podUID(string(cgroup))
	if uid == "" {
		return "", usage{}, nil
	}
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return "", usage{}, fmt.Errorf("reading the status of a process: %w", err)
	}
	u, pause, err := parseStatus(status)
	if err != nil || pause {
		return "", usage{}, err
	}
	return uid, u, nil
}

// podUID finds the UID in a path like /kubepods/burstable/pod<uid>/<container>.
func podUID(cgroup string) types.UID {
	for segment := range strings.FieldsFuncSeq(cgroup, func(r rune) bool { return r == '/' || r == '\n' }) {
		if uid, ok := strings.CutPrefix(segment, "pod"); ok && len(uid) == len("00000000-0000-0000-0000-000000000000") {
			return types.UID(uid)
		}
	}
	return ""
}

// parseStatus reads /proc/<pid>/status and says whether it is the process that holds a pod's namespaces.
func parseStatus(status []byte) (usage, bool, error) {
	var u usage
	var pause bool
	lines := bufio.NewScanner(bytes.NewReader(status))
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimSpace(value)
		var into *int64
		switch key {
		case "Name":
			pause = value == "pause"
		case "VmRSS":
			into = &u.resident
		case "RssAnon":
			into = &u.anonymous
		}
		if into == nil {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSuffix(value, " kB"), 10, 64)
		if err != nil {
			return usage{}, false, fmt.Errorf("reading %s: %w", key, err)
		}
		*into = kib << 10
	}
	if err := lines.Err(); err != nil {
		return usage{}, false, fmt.Errorf("reading the status of a process: %w", err)
	}
	return u, pause, nil
}
