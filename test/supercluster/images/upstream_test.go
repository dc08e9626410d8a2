package images

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

// original is what matters about an upstream image: an entry of upstream.yaml.
type original struct {
	Repository string              `json:"repository"`
	Source     string              `json:"source,omitempty"`
	Module     string              `json:"module,omitempty"`
	Dockerfile string              `json:"dockerfile,omitempty"`
	Lines      []string            `json:"lines,omitempty"`
	User       string              `json:"user"`
	Entrypoint []string            `json:"entrypoint,omitempty"`
	Cmd        []string            `json:"cmd,omitempty"`
	WorkingDir string              `json:"workingDir"`
	Shell      bool                `json:"shell,omitempty"`
	Programs   map[string][]string `json:"programs"`
}

// shells are programs that run scripts, and those that are many programs.
var shells = []string{"sh", "ash", "bash", "dash", "busybox", "toybox"}

func originals(t *testing.T) map[string]original {
	t.Helper()
	content, err := os.ReadFile("upstream.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var list []original
	if err := yaml.UnmarshalStrict(content, &list); err != nil {
		t.Fatal(err)
	}
	found := map[string]original{}
	for _, o := range list {
		found[o.Repository] = o
	}
	return found
}

// entries returns the files and links of all layers by path.
func entries(t *testing.T, img Image) map[string]*tar.Header {
	t.Helper()
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]*tar.Header{}
	for _, layer := range layers {
		content, err := layer.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		for r := tar.NewReader(content); ; {
			header, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if header.Typeflag != tar.TypeDir {
				found["/"+header.Name] = header
			}
		}
	}
	return found
}

// TestStandInsAreLikeTheirOriginals finds stand-ins that are more lenient than the upstream image: faults that only the
// upstream image shows would otherwise reach users.
func TestStandInsAreLikeTheirOriginals(t *testing.T) {
	specs, err := List()
	if err != nil {
		t.Fatal(err)
	}
	upstream := originals(t)
	for _, spec := range specs {
		repository, _, _ := strings.Cut(spec.Ref, ":")
		if strings.HasPrefix(repository, "ghcr.io/virtualcluster-io/") {
			continue
		}
		t.Run(path.Base(repository), func(t *testing.T) {
			want, ok := upstream[repository]
			if !ok {
				t.Fatalf("upstream.yaml does not say what %s is like", repository)
			}
			delete(upstream, repository)
			compare(t, want, build(t, stubs(t, &spec), spec)[0])
		})
	}
	for repository := range upstream {
		t.Errorf("there is no stand-in for %s of upstream.yaml", repository)
	}
}

// stubs returns a builder with an empty file for each program of an image, and changes the image to take it.
func stubs(t *testing.T, spec *Spec) Builder {
	t.Helper()
	dir := t.TempDir()
	spec.Applets = false
	for i := range spec.Files {
		file := &spec.Files[i]
		file.From = filepath.Base(file.From)
		if err := os.WriteFile(filepath.Join(dir, file.From), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return Builder{BinDir: dir}
}

func compare(t *testing.T, want original, img Image) {
	t.Helper()
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	got := want
	got.User, got.Entrypoint, got.Cmd, got.WorkingDir = config.Config.User, config.Config.Entrypoint, config.Config.Cmd, config.Config.WorkingDir
	got.Programs = map[string][]string{}
	files := entries(t, img)
	for path := range want.Programs {
		if files[path] != nil {
			got.Programs[path] = []string{}
		}
	}
	for path, header := range files {
		if names := capabilitiesOf(t, header); names != nil {
			got.Programs[path] = names
		}
		if name := filepath.Base(path); slices.Contains(shells, name) && !want.Shell {
			t.Errorf("has %s; the original has no shell", path)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("is not like its original (-original +stand-in):\n%s", diff)
	}
}

// capabilitiesOf returns the file capabilities in a header.
func capabilitiesOf(t *testing.T, header *tar.Header) []string {
	t.Helper()
	value, ok := header.PAXRecords[capabilityRecord]
	if !ok {
		return nil
	}
	for name := range capabilityBits() {
		only, err := fileCapabilities([]string{name})
		if err != nil {
			t.Fatal(err)
		}
		if value == string(only) {
			return []string{name}
		}
	}
	return []string{"unknown"}
}

// TestOriginalsAreAsTheirDockerfilesSay looks up the lines of upstream.yaml in the Dockerfiles of the versions that the
// stand-ins are made of.
func TestOriginalsAreAsTheirDockerfilesSay(t *testing.T) {
	versions, err := os.ReadFile("../../../hack/versions.mk")
	if err != nil {
		t.Fatal(err)
	}
	pinned := func(name string) string {
		match := regexp.MustCompile(name + `\s*:= (\S+)`).FindSubmatch(versions)
		if match == nil {
			t.Fatalf("hack/versions.mk has no %s", name)
		}
		return "@" + string(match[1])
	}
	modules := map[string]string{
		"k8s.io/kubernetes":                         "k8s.io/kubernetes",
		"github.com/coredns/coredns":                "github.com/coredns/coredns" + pinned("COREDNS_VERSION"),
		"github.com/rancher/local-path-provisioner": "github.com/rancher/local-path-provisioner" + pinned("LOCAL_PATH_VERSION"),
	}
	for repository, o := range originals(t) {
		if (o.Source == "") == (o.Module == "") {
			t.Errorf("%s has a source and a module, or neither", repository)
		}
		if o.Module == "" {
			continue
		}
		content, err := os.ReadFile(filepath.Join(download(t, modules[o.Module]), o.Dockerfile))
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(string(content), "\n")
		for _, line := range o.Lines {
			if !slices.Contains(lines, line) {
				t.Errorf("%s: %s does not say %q any more", repository, o.Dockerfile, line)
			}
		}
	}
}

// download returns the folder of a module's source.
func download(t *testing.T, module string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", module).Output()
	if err != nil {
		t.Fatalf("downloading %s: %v: %s", module, err, out)
	}
	var result struct{ Dir string }
	if err := json.Unmarshal(out, &result); err != nil {
		t.Fatal(err)
	}
	return result.Dir
}

// TestFileCapabilities compares with what setcap cap_net_bind_service=+ep writes.
func TestFileCapabilities(t *testing.T) {
	got, err := fileCapabilities([]string{"cap_net_bind_service"})
	if err != nil {
		t.Fatal(err)
	}
	want := []byte{0x01, 0, 0, 0x02, 0, 0x04, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	if !bytes.Equal(got, want) {
		t.Errorf("got % x, want % x", got, want)
	}
	if _, err := fileCapabilities([]string{"cap_everything"}); err == nil {
		t.Error("an unknown capability is no error")
	}
}

func TestArchiveHasFileCapabilities(t *testing.T) {
	spec, b := fixture(t)
	spec.Files[0].Capabilities = []string{"cap_net_bind_service"}
	files := entries(t, build(t, b, spec)[0])
	want, err := fileCapabilities(spec.Files[0].Capabilities)
	if err != nil {
		t.Fatal(err)
	}
	for path, header := range files {
		value, has := header.PAXRecords[capabilityRecord]
		if path == spec.Files[0].To && value != string(want) {
			t.Errorf("%s has the attribute % x, want % x", path, value, want)
		}
		if path != spec.Files[0].To && has {
			t.Errorf("%s has file capabilities", path)
		}
	}
}
