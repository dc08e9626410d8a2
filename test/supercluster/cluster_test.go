package supercluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// newCluster returns a cluster in an empty folder with a subnet, as after its first steps.
func newCluster(t *testing.T) *Cluster {
	t.Helper()
	c, err := New(Config{Dir: filepath.Join(t.TempDir(), "dev"), BinDir: "/bin", Nodes: 2}, NewSteps(os.Stderr))
	if err != nil {
		t.Fatal(err)
	}
	c.subnet = candidateSubnets()[7]
	return c
}

func TestNew(t *testing.T) {
	cases := map[string]struct {
		reason string
		config Config
		saved  string
		name   string
		nodes  int
		err    string
	}{
		"Defaults": {
			reason: "a cluster is named after its folder and has two nodes",
			config: Config{Dir: "super"},
			name:   "super",
			nodes:  2,
		},
		"Chosen": {
			reason: "flags win",
			config: Config{Dir: "x", Name: "other", Nodes: 5},
			name:   "other",
			nodes:  5,
		},
		"Saved": {
			reason: "an existing cluster keeps its name and size",
			config: Config{Dir: "x"},
			saved:  `{"name": "first", "nodes": 3, "subnet": "172.31.4.0/24"}`,
			name:   "first",
			nodes:  3,
		},
		"Grown": {
			reason: "an existing cluster can be resized",
			config: Config{Dir: "x", Nodes: 4},
			saved:  `{"name": "first", "nodes": 3, "subnet": "172.31.4.0/24"}`,
			name:   "first",
			nodes:  4,
		},
		"Shrunk": {
			reason: "a node that nobody lists would run on",
			config: Config{Dir: "x", Nodes: 2},
			saved:  `{"name": "first", "nodes": 3, "subnet": "172.31.4.0/24"}`,
			err:    "cannot shrink",
		},
		"Renamed": {
			reason: "a folder holds one cluster",
			config: Config{Dir: "x", Name: "second"},
			saved:  `{"name": "first", "nodes": 3, "subnet": "172.31.4.0/24"}`,
			err:    `holds the cluster "first", not "second"`,
		},
		"TooLong": {
			reason: "an interface is named after the cluster",
			config: Config{Dir: "x", Name: "a-very-long-name"},
			err:    "at most 12",
		},
		"TooMany": {
			reason: "node addresses share one octet",
			config: Config{Dir: "x", Nodes: 500},
			err:    "want 1 to 100",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			tc.config.Dir = filepath.Join(t.TempDir(), tc.config.Dir)
			if tc.saved != "" {
				if err := writeFile(filepath.Join(tc.config.Dir, "cluster.json"), []byte(tc.saved), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			c, err := New(tc.config, NewSteps(os.Stderr))
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Fatalf("%s: error %v, want %q", tc.reason, err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatalf("%s: %v", tc.reason, err)
			}
			if c.Name != tc.name || c.Nodes != tc.nodes {
				t.Errorf("%s: %s with %d nodes, want %s with %d", tc.reason, c.Name, c.Nodes, tc.name, tc.nodes)
			}
		})
	}
}

func TestStateSurvives(t *testing.T) {
	c := newCluster(t)
	if err := c.writeState(); err != nil {
		t.Fatal(err)
	}
	again, err := New(Config{Dir: c.Dir}, NewSteps(os.Stderr))
	if err != nil {
		t.Fatal(err)
	}
	if again.subnet != c.subnet || again.Name != c.Name || again.Nodes != c.Nodes {
		t.Errorf("state is %s %s %d, want %s %s %d", again.Name, again.subnet, again.Nodes, c.Name, c.subnet, c.Nodes)
	}
}

func TestClustersShareNothing(t *testing.T) {
	names := func(name string) []string {
		c := &Cluster{Config: Config{Name: name, Dir: "/tmp/" + name, Nodes: 2}}
		list := []string{c.runDir(), c.networkName(), c.cgroupName(), c.controlPlaneNetns(), c.exportedKubeconfig(), c.exportedLogs()}
		for _, n := range c.nodes() {
			list = append(list, n.netns, n.mntns, n.cgroup, n.data, n.run)
		}
		return list
	}
	seen := map[string]bool{}
	for _, name := range append(names("one"), names("two")...) {
		if seen[name] {
			t.Errorf("%s is used twice", name)
		}
		seen[name] = true
	}
}

func TestSocketPathsFit(t *testing.T) {
	c := &Cluster{Config: Config{Name: "twelveletter", Dir: "/" + strings.Repeat("deep/", 60), Nodes: maxNodes}}
	for _, n := range c.nodes() {
		if socket := n.containerdSocket(); len(socket) >= 108 {
			t.Errorf("%s has %d characters", socket, len(socket))
		}
	}
}

func TestRender(t *testing.T) {
	c := newCluster(t)
	entries, err := templates.ReadDir("templates")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		out, err := render(e.Name(), c.templateData(c.nodes()[1]))
		if err != nil {
			t.Errorf("rendering %s: %v", e.Name(), err)
			continue
		}
		if strings.Contains(string(out), "<no value>") || strings.Contains(string(out), "node-1") {
			t.Errorf("%s of node-2:\n%s", e.Name(), out)
		}
	}
	out, err := render("cni.conflist.tmpl", c.templateData(c.nodes()[1]))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(out), `"subnet": "10.244.2.0/24"`) {
		t.Errorf("no pod range of node-2 in\n%s", out)
	}
}

func TestMountScriptBindsSourcesFirst(t *testing.T) {
	// A checkout below /opt or /run must stay visible while its folders are bound.
	c := &Cluster{Config: Config{Name: "dev", Dir: "/opt/it's here/_local/dev", BinDir: "/opt/bin", Nodes: 1}}
	var targets []string
	for line := range strings.Lines(c.mountScript(c.nodes()[0])) {
		fields := strings.Fields(line)
		if target := fields[len(fields)-1]; !strings.HasPrefix(target, "/proc/") {
			targets = append(targets, target)
		}
	}
	want := []string{
		"'/run/supercluster-dev/node-1/data'", "'/run/supercluster-dev/node-1/bin'",
		"/var/lib", "/var/log", "/opt", "/run", "/",
	}
	if diff := cmp.Diff(want, targets); diff != "" {
		t.Errorf("targets (-want +got):\n%s", diff)
	}
}

func TestQuote(t *testing.T) {
	if got, want := quote(`it's`), `'it'\''s'`; got != want {
		t.Errorf("quote is %s, want %s", got, want)
	}
}

// A cluster whose folder was removed does not keep its name for ever.
func TestOwner(t *testing.T) {
	dir := t.TempDir()
	claim := filepath.Join(dir, "owner")
	check := func(what string, want owner) {
		t.Helper()
		got, err := readOwner(claim)
		if err != nil || got != want {
			t.Errorf("%s: got %+v, %v, want %+v", what, got, err, want)
		}
	}
	check("nobody", owner{})
	if err := os.WriteFile(claim, []byte(dir), 0o600); err != nil {
		t.Fatal(err)
	}
	check("without files", owner{dir: dir, abandoned: true})
	if err := os.WriteFile(filepath.Join(dir, stateFile), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	check("with its files", owner{dir: dir})
}
