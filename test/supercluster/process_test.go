package supercluster

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// fakeProcess writes what /proc shows of a process.
func fakeProcess(t *testing.T, procfs string, pid int, exe, environ string) {
	t.Helper()
	dir := filepath.Join(procfs, strconv.Itoa(pid))
	if err := os.MkdirAll(filepath.Join(dir, "ns"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "environ"), []byte(environ), 0o644); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"exe": exe, "ns/net": "net:[1]"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMarked(t *testing.T) {
	procfs := t.TempDir()
	mark := func(cluster, component string) string {
		return "PATH=/bin\x00SUPERCLUSTER=" + cluster + "\x00SUPERCLUSTER_COMPONENT=" + component + "\x00SUPERCLUSTER_CONFIG=abc\x00"
	}
	fakeProcess(t, procfs, 300, "/run/bin/containerd-shim-runc-v2", mark("dev", "node-1-containerd"))
	fakeProcess(t, procfs, 20, "/x/_local/bin/containerd (deleted)", mark("dev", "node-1-containerd"))
	fakeProcess(t, procfs, 21, "/run/bin/containerd", mark("dev2", "node-1-containerd"))
	fakeProcess(t, procfs, 22, "/run/bin/containerd", "PATH=/bin\x00")
	fakeProcess(t, procfs, 23, "/usr/bin/vim", "NOTE=SUPERCLUSTER=dev\x00")
	if err := os.MkdirAll(filepath.Join(procfs, "24"), 0o755); err != nil { // a process that has just ended
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(procfs, "uptime"), nil, 0o644); err != nil {
		t.Fatal(err)
	}

	got, err := marked(procfs, "dev")
	if err != nil {
		t.Fatal(err)
	}
	want := []process{
		{PID: 20, Component: "node-1-containerd", Config: "abc", Program: "containerd", Netns: "net:[1]"},
		{PID: 300, Component: "node-1-containerd", Config: "abc", Program: "containerd-shim-runc-v2", Netns: "net:[1]"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("processes (-want +got):\n%s", diff)
	}

	// A shim inherits containerd's marks; it must not pass for containerd.
	own := component{name: "node-1-containerd", path: "/run/bin/containerd"}.of(got)
	if len(own) != 1 || own[0].PID != 20 {
		t.Errorf("containerd is %v, want process 20 only", own)
	}
}

func TestFingerprintFollowsInputs(t *testing.T) {
	input := filepath.Join(t.TempDir(), "config")
	fingerprint := func(content string, args ...string) string {
		if err := os.WriteFile(input, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := component{name: "x", args: args, inputs: []string{input}}.fingerprint()
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	base := fingerprint("a", "--v=1")
	if again := fingerprint("a", "--v=1"); again != base {
		t.Errorf("fingerprint of the same is %s, then %s", base, again)
	}
	if fingerprint("b", "--v=1") == base {
		t.Error("a changed file does not change the fingerprint")
	}
	if fingerprint("a", "--v=2") == base {
		t.Error("a changed flag does not change the fingerprint")
	}
}

func TestPoll(t *testing.T) {
	broken := errors.New("broken")
	cases := map[string]struct {
		results []error
		want    string
	}{
		"AtOnce":   {results: []error{nil}},
		"Later":    {results: []error{broken, broken, nil}},
		"Hopeless": {results: []error{broken, fatal{errors.New("ended")}, nil}, want: "ended"},
		"Never":    {results: []error{broken}, want: "giving up after 300ms: broken"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			calls := 0
			err := poll(t.Context(), 300*time.Millisecond, func(context.Context) error {
				result := tc.results[min(calls, len(tc.results)-1)]
				calls++
				return result
			})
			if got := message(err); got != tc.want {
				t.Errorf("error %q, want %q", got, tc.want)
			}
		})
	}
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestLogTailKeepsTheEnd(t *testing.T) {
	c := newCluster(t)
	lines := make([]string, 100)
	for i := range lines {
		lines[i] = "line " + strconv.Itoa(i)
	}
	if err := writeFile(c.logFile("etcd"), []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	tail := c.logTail("etcd")
	if !strings.Contains(tail, "line 99") || strings.Contains(tail, "line 50") || !strings.Contains(tail, c.logFile("etcd")) {
		t.Errorf("tail is\n%s", tail)
	}
}

func TestParseCgroupMounts(t *testing.T) {
	cases := map[string]struct {
		mountinfo string
		mounts    []string
		unified   bool
	}{
		"Unified": {
			mountinfo: "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 none rw\n",
			mounts:    []string{"/sys/fs/cgroup"},
			unified:   true,
		},
		"Hybrid": {
			mountinfo: "25 20 0:21 / /sys/fs/cgroup rw - tmpfs none rw\n" +
				"26 25 0:22 / /sys/fs/cgroup/cpu rw - cgroup none rw,cpu\n" +
				"27 25 0:23 / /sys/fs/cgroup/unified rw - cgroup2 none rw\n",
			mounts: []string{"/sys/fs/cgroup/cpu", "/sys/fs/cgroup/unified"},
		},
		"None": {mountinfo: "25 20 0:21 / / rw - ext4 /dev/vda rw\n"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			mounts, unified := parseCgroupMounts(tc.mountinfo)
			if diff := cmp.Diff(tc.mounts, mounts); diff != "" || unified != tc.unified {
				t.Errorf("unified %v, want %v; mounts (-want +got):\n%s", unified, tc.unified, diff)
			}
		})
	}
}

func TestParseImages(t *testing.T) {
	out := `REF TYPE DIGEST SIZE PLATFORMS LABELS
registry.k8s.io/pause:3.10.1 application/vnd.oci.image.manifest.v1+json sha256:aa 2.1 MiB linux/amd64 -
sha256:aa application/vnd.oci.image.manifest.v1+json sha256:aa 2.1 MiB linux/amd64 -
`
	want := map[string]string{"registry.k8s.io/pause:3.10.1": "sha256:aa", "sha256:aa": "sha256:aa"}
	if diff := cmp.Diff(want, parseImages(out)); diff != "" {
		t.Errorf("images (-want +got):\n%s", diff)
	}
}
