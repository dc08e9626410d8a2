package images

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
)

func TestList(t *testing.T) {
	for name, read := range map[string]func() ([]Spec, error){
		"Local":       List,
		"Conformance": func() ([]Spec, error) { return ReadList("../../conformance/images/images.yaml") },
	} {
		t.Run(name, func(t *testing.T) {
			specs, err := read()
			if err != nil {
				t.Fatal(err)
			}
			seen := map[string]bool{}
			for _, spec := range specs {
				if spec.File == "" || len(spec.Files)+len(spec.Packages) == 0 {
					t.Errorf("%s has no archive or no files", spec.Ref)
				}
				for _, ref := range spec.Refs() {
					if tag := ref[strings.LastIndex(ref, ":")+1:]; tag == "latest" || tag == ref {
						t.Errorf("%s: pods would try to pull it", ref)
					}
				}
				for _, unique := range append(spec.Refs(), spec.File) {
					if seen[unique] {
						t.Errorf("%s is listed twice", unique)
					}
					seen[unique] = true
				}
			}
		})
	}
}

// fixture is a builder with a folder of binaries with one program in it.
func fixture(t *testing.T) (Spec, Builder) {
	t.Helper()
	binDir := t.TempDir()
	if err := os.WriteFile(filepath.Join(binDir, "tool"), []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return Spec{
		Ref:        "example.org/tool:v1",
		File:       "tool",
		Files:      []File{{From: "tool", To: "/usr/local/bin/tool"}},
		Entrypoint: []string{"/usr/local/bin/tool"},
	}, Builder{BinDir: binDir}
}

func build(t *testing.T, b Builder, spec Spec) []Image {
	t.Helper()
	made, err := b.Build(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// files lists the files of the last layer, with mode and content or target.
func files(t *testing.T, img Image) []string {
	t.Helper()
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	content, err := layers[len(layers)-1].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for r := tar.NewReader(content); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, strings.TrimSpace(fmt.Sprintf("%o %s %s%s", header.Mode, header.Name, header.Linkname, data)))
	}
}

func TestBuildIsDeterministic(t *testing.T) {
	spec, b := fixture(t)
	digest := func() string {
		d, err := build(t, b, spec)[0].Digest()
		if err != nil {
			t.Fatal(err)
		}
		return d.String()
	}
	first := digest()
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(filepath.Join(b.BinDir, "tool"), later, later); err != nil {
		t.Fatal(err)
	}
	if second := digest(); second != first {
		t.Errorf("digest is %s, then %s", first, second)
	}
}

func TestBuild(t *testing.T) {
	spec, b := fixture(t)
	spec.Files = append(spec.Files, File{Content: "x", To: "/etc/conf"}, File{From: "tool", To: "/bin/sudo", Mode: 0o4755})
	spec.Links = map[string]string{"/tool": "bin/sudo"}
	spec.Dirs = []string{"/uploads"}
	spec.Users = []string{"u:x:1:2::/:/bin/sh"}
	spec.Groups = []string{"g:x:2:u"}
	img := build(t, b, spec)[0]
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.Config.User != "65532" || config.OS != "linux" {
		t.Errorf("user %q on %q, want 65532 on linux", config.Config.User, config.OS)
	}
	want := []string{
		"755 bin",
		"4755 bin/sudo #!/bin/sh",
		"755 etc",
		"644 etc/conf x",
		"644 etc/group root:x:0:\nnonroot:x:65532:\ng:x:2:u",
		"644 etc/nsswitch.conf hosts: files dns",
		"644 etc/passwd root:x:0:0:root:/root:/bin/sh\nnonroot:x:65532:65532:nonroot:/:/bin/sh\nu:x:1:2::/:/bin/sh",
		"700 root",
		"1777 tmp",
		"777 tool bin/sudo",
		"755 uploads",
		"755 usr",
		"755 usr/local",
		"755 usr/local/bin",
		"755 usr/local/bin/tool #!/bin/sh",
	}
	if diff := cmp.Diff(want, files(t, img)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func TestBuildVariants(t *testing.T) {
	spec, b := fixture(t)
	spec.Cmd = []string{"first"}
	spec.Variants = []Spec{
		{Ref: "example.org/same:v1"},
		{Ref: "example.org/more:v1", Files: []File{{Content: "x", To: "/more"}}, Cmd: []string{"second"}},
	}
	made := build(t, b, spec)
	var got []string
	digests := map[string]bool{}
	for _, img := range made {
		layers, err := img.Layers()
		if err != nil {
			t.Fatal(err)
		}
		config, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprint(img.Ref, " ", len(layers), config.Config.Entrypoint, config.Config.Cmd))
		name, err := img.ConfigName()
		if err != nil {
			t.Fatal(err)
		}
		digests[name.String()] = true
	}
	want := []string{
		"example.org/tool:v1 1 [/usr/local/bin/tool] [first]",
		"example.org/same:v1 1 [/usr/local/bin/tool] [first]",
		"example.org/more:v1 2 [/usr/local/bin/tool] [second]",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("images (-want +got):\n%s", diff)
	}
	if len(digests) != len(want) {
		t.Errorf("%d different images, want %d: containerd would mix up their names", len(digests), len(want))
	}
	if diff := cmp.Diff([]string{"644 more x"}, files(t, made[2])); diff != "" {
		t.Errorf("files of the variant (-want +got):\n%s", diff)
	}
}

func TestArchiveNamesItsImages(t *testing.T) {
	spec, b := fixture(t)
	spec.Variants = []Spec{{Ref: "example.org/same:v1"}}
	made := build(t, b, spec)
	want := map[string]string{}
	for _, img := range made {
		digest, err := img.Digest()
		if err != nil {
			t.Fatal(err)
		}
		want[img.Ref] = digest.String()
	}
	archive := filepath.Join(t.TempDir(), "out", "tool.tar")
	if err := Write(archive, made); err != nil {
		t.Fatal(err)
	}
	names, err := Names(archive)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
}

// TestPackagesMerge covers what makes the files of packages more than a list: folders that are links, second names of a
// file, files that only people read.
func TestPackagesMerge(t *testing.T) {
	packages := [][]tar.Header{{
		{Name: "./usr/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "./usr/bin/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "./bin", Typeflag: tar.TypeSymlink, Mode: 0o777, Linkname: "usr/bin"},
		{Name: "./usr/bin/perl", Typeflag: tar.TypeReg, Mode: 0o755},
		{Name: "./usr/bin/aperl", Typeflag: tar.TypeLink, Linkname: "./usr/bin/perl"},
		{Name: "./usr/share/doc/perl/copyright", Typeflag: tar.TypeReg, Mode: 0o644},
	}, {
		{Name: "./bin/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "./bin/su", Typeflag: tar.TypeReg, Mode: 0o4755},
	}}
	root := tree{}
	for _, headers := range packages {
		var archive bytes.Buffer
		w := tar.NewWriter(&archive)
		for _, header := range headers {
			if err := w.WriteHeader(&header); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if err := root.add(&archive); err != nil {
			t.Fatal(err)
		}
	}
	img, err := extend(empty.Image, "example.org/packages:v1", root, v1.Config{})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"777 bin usr/bin",
		"755 usr",
		"755 usr/bin",
		"755 usr/bin/aperl",
		"755 usr/bin/perl",
		"4755 usr/bin/su",
	}
	if diff := cmp.Diff(want, files(t, img)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func TestStale(t *testing.T) {
	dir := t.TempDir()
	archive, input := filepath.Join(dir, "a.tar"), filepath.Join(dir, "program")
	if err := os.WriteFile(input, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	stale := func() bool {
		got, err := Stale(archive, []string{input})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if !stale() {
		t.Error("a missing archive is not stale")
	}
	if err := os.WriteFile(archive, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		age  time.Duration
		want bool
	}{{time.Hour, false}, {-time.Hour, true}} {
		at := time.Now().Add(-tc.age)
		if err := os.Chtimes(input, at, at); err != nil {
			t.Fatal(err)
		}
		if got := stale(); got != tc.want {
			t.Errorf("with an input of %s ago stale is %v", tc.age, got)
		}
	}
	if _, err := Stale(archive, []string{filepath.Join(dir, "missing")}); err == nil {
		t.Error("a missing input is no error")
	}
}
