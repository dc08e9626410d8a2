package images

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestList(t *testing.T) {
	specs, err := List()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, spec := range specs {
		tag := spec.Ref[strings.LastIndex(spec.Ref, ":")+1:]
		if tag == "latest" || tag == spec.Ref {
			t.Errorf("%s: pods would try to pull it", spec.Ref)
		}
		if spec.File == "" || len(spec.Files) == 0 {
			t.Errorf("%s has no archive or no files", spec.Ref)
		}
		for _, unique := range []string{spec.Ref, spec.File} {
			if seen[unique] {
				t.Errorf("%s is listed twice", unique)
			}
			seen[unique] = true
		}
	}
}

// fixture is a folder of binaries with one program in it.
func fixture(t *testing.T) (Spec, string) {
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
	}, binDir
}

func TestBuildIsDeterministic(t *testing.T) {
	spec, binDir := fixture(t)
	digest := func() string {
		img, err := Build(t.Context(), spec, binDir)
		if err != nil {
			t.Fatal(err)
		}
		d, err := img.Digest()
		if err != nil {
			t.Fatal(err)
		}
		return d.String()
	}
	first := digest()
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(filepath.Join(binDir, "tool"), later, later); err != nil {
		t.Fatal(err)
	}
	if second := digest(); second != first {
		t.Errorf("digest is %s, then %s", first, second)
	}
}

func TestBuild(t *testing.T) {
	spec, binDir := fixture(t)
	img, err := Build(t.Context(), spec, binDir)
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.Config.User != "65532" || config.OS != "linux" {
		t.Errorf("user %q on %q, want 65532 on linux", config.Config.User, config.OS)
	}
	content, err := layer(t.Context(), spec, binDir)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int64{}
	for r := tar.NewReader(bytes.NewReader(content)); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got[header.Name] = header.Mode
	}
	want := map[string]int64{
		"etc": 0o755, "etc/passwd": 0o644, "etc/group": 0o644, "etc/nsswitch.conf": 0o644, "tmp": 0o1777,
		"usr": 0o755, "usr/local": 0o755, "usr/local/bin": 0o755, "usr/local/bin/tool": 0o755,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func TestArchiveNamesItsImage(t *testing.T) {
	spec, binDir := fixture(t)
	img, err := Build(t.Context(), spec, binDir)
	if err != nil {
		t.Fatal(err)
	}
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(t.TempDir(), "out", "tool.tar")
	if err := Write(archive, spec.Ref, img); err != nil {
		t.Fatal(err)
	}
	names, err := Names(archive)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{spec.Ref: digest.String()}, names); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
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
