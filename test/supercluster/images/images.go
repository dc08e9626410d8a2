// Package images builds container images from binaries and files of the machine, without a registry or a daemon. The list
// of images is data (images.yaml); the same inputs give the same digest. It builds archives only: test/supercluster loads
// them into nodes.
package images

import (
	"archive/tar"
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"sigs.k8s.io/yaml"
)

//go:embed images.yaml
var list []byte

// Annotation of an image in an archive's index that containerd takes as its name.
const nameAnnotation = "io.containerd.image.name"

// indexFile is where an OCI archive lists its images.
const indexFile = "index.json"

const nonroot = "65532"

// Spec is one image of the list.
type Spec struct {
	Ref        string   `json:"ref"`
	File       string   `json:"file"`
	Files      []File   `json:"files"`
	Applets    bool     `json:"applets,omitempty"`
	Entrypoint []string `json:"entrypoint,omitempty"`
	Cmd        []string `json:"cmd,omitempty"`
	User       string   `json:"user,omitempty"`
}

// File is one file of an image.
type File struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// List returns the images of the local cluster.
func List() ([]Spec, error) {
	var specs []Spec
	if err := yaml.UnmarshalStrict(list, &specs); err != nil {
		return nil, fmt.Errorf("parsing the list of images: %w", err)
	}
	return specs, nil
}

// Inputs returns the files an image is made of.
func (s Spec) Inputs(binDir string) []string {
	var inputs []string
	for _, f := range s.Files {
		if !filepath.IsAbs(f.From) {
			f.From = filepath.Join(binDir, f.From)
		}
		inputs = append(inputs, f.From)
	}
	return inputs
}

// Build makes one image.
func Build(ctx context.Context, spec Spec, binDir string) (v1.Image, error) {
	layer, err := layer(ctx, spec, binDir)
	if err != nil {
		return nil, err
	}
	img, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.OCIManifestSchema1),
		static.NewLayer(layer, types.OCIUncompressedLayer))
	if err != nil {
		return nil, fmt.Errorf("appending the layer: %w", err)
	}
	img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
	config, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config = v1.Config{
		Entrypoint: spec.Entrypoint,
		Cmd:        spec.Cmd,
		User:       spec.user(),
		WorkingDir: "/",
		Env:        []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
	}
	img, err = mutate.ConfigFile(img, config)
	if err != nil {
		return nil, fmt.Errorf("setting the configuration: %w", err)
	}
	return img, nil
}

func (s Spec) user() string {
	if s.User == "" {
		return nonroot
	}
	return s.User
}

// layer is the file system of an image: deterministic, so without times and in a fixed order.
func layer(ctx context.Context, spec Spec, binDir string) ([]byte, error) {
	t := tree{}
	t.dir("/tmp", 0o1777)
	t.file("/etc/passwd", 0o644, []byte("root:x:0:0:root:/:/bin/sh\nnonroot:x:65532:65532:nonroot:/:/bin/sh\n"))
	t.file("/etc/group", 0o644, []byte("root:x:0:\nnonroot:x:65532:\n"))
	t.file("/etc/nsswitch.conf", 0o644, []byte("hosts: files dns\n"))
	inputs := spec.Inputs(binDir)
	for i, f := range spec.Files {
		content, err := os.ReadFile(inputs[i])
		if err != nil {
			return nil, fmt.Errorf("reading a file of the image: %w", err)
		}
		t.file(f.To, 0o755, content)
		if filepath.IsAbs(f.From) {
			if err := t.libraries(ctx, f.From); err != nil {
				return nil, err
			}
		}
		if spec.Applets && filepath.Base(f.To) == "busybox" {
			applets, err := exec.CommandContext(ctx, inputs[i], "--list").Output()
			if err != nil {
				return nil, fmt.Errorf("listing the commands of %s: %w", inputs[i], err)
			}
			for name := range strings.FieldsSeq(string(applets)) {
				if to := "/bin/" + name; to != f.To {
					t.link(to, f.To)
				}
			}
		}
	}
	return t.archive()
}

// libraries adds the shared libraries of a program of the machine; a static one has none.
func (t tree) libraries(ctx context.Context, program string) error {
	out, err := exec.CommandContext(ctx, "ldd", program).CombinedOutput()
	if err != nil && !strings.Contains(string(out), "not a dynamic executable") {
		return fmt.Errorf("listing the libraries of %s: %w: %s", program, err, out)
	}
	for field := range strings.FieldsSeq(string(out)) {
		if !filepath.IsAbs(field) {
			continue
		}
		content, err := os.ReadFile(field)
		if err != nil {
			return fmt.Errorf("reading a library: %w", err)
		}
		t.file(field, 0o755, content)
	}
	return nil
}

// tree is a file system by path.
type tree map[string]entry

type entry struct {
	header  tar.Header
	content []byte
}

func (t tree) put(path string, header tar.Header, content []byte) {
	header.Name = strings.TrimPrefix(path, "/")
	header.Format = tar.FormatPAX
	header.Size = int64(len(content))
	t[path] = entry{header: header, content: content}
	if parent := filepath.Dir(path); parent != "/" {
		if _, ok := t[parent]; !ok {
			t.dir(parent, 0o755)
		}
	}
}

func (t tree) dir(path string, mode int64) {
	t.put(path, tar.Header{Typeflag: tar.TypeDir, Mode: mode}, nil)
}

func (t tree) file(path string, mode int64, content []byte) {
	t.put(path, tar.Header{Typeflag: tar.TypeReg, Mode: mode}, content)
}

func (t tree) link(path, target string) {
	if _, ok := t[path]; !ok {
		t.put(path, tar.Header{Typeflag: tar.TypeSymlink, Mode: 0o777, Linkname: target}, nil)
	}
}

func (t tree) archive() ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, path := range slices.Sorted(maps.Keys(t)) {
		e := t[path]
		if err := w.WriteHeader(&e.header); err != nil {
			return nil, fmt.Errorf("archiving %s: %w", path, err)
		}
		if _, err := w.Write(e.content); err != nil {
			return nil, fmt.Errorf("archiving %s: %w", path, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("closing the archive: %w", err)
	}
	return out.Bytes(), nil
}

// Write writes an OCI archive that containerd imports under the given name. The file appears when it is complete. The
// index comes first, so that Names need not read the layers.
func Write(path, ref string, img v1.Image) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("creating the folder of images: %w", err)
	}
	f, err := os.Create(path + ".new")
	if err != nil {
		return fmt.Errorf("creating the archive: %w", err)
	}
	if err := errors.Join(writeArchive(f, ref, img), f.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("replacing %s: %w", path, err)
	}
	return nil
}

func writeArchive(out io.Writer, ref string, img v1.Image) error {
	manifest, err := img.RawManifest()
	if err != nil {
		return fmt.Errorf("encoding the manifest: %w", err)
	}
	digest, err := img.Digest()
	if err != nil {
		return fmt.Errorf("computing the digest: %w", err)
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return fmt.Errorf("encoding the configuration: %w", err)
	}
	configDigest, err := img.ConfigName()
	if err != nil {
		return fmt.Errorf("computing the digest: %w", err)
	}
	index, err := json.Marshal(v1.IndexManifest{
		SchemaVersion: 2,
		MediaType:     types.OCIImageIndex,
		Manifests: []v1.Descriptor{{
			MediaType:   types.OCIManifestSchema1,
			Digest:      digest,
			Size:        int64(len(manifest)),
			Platform:    &v1.Platform{OS: "linux", Architecture: runtime.GOARCH},
			Annotations: map[string]string{nameAnnotation: ref},
		}},
	})
	if err != nil {
		return fmt.Errorf("encoding the index: %w", err)
	}
	w := tar.NewWriter(out)
	put := func(name string, content []byte) error {
		header := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), Typeflag: tar.TypeReg}
		if err := w.WriteHeader(header); err != nil {
			return err
		}
		_, err := w.Write(content)
		return err
	}
	blob := func(h v1.Hash, content []byte) error { return put("blobs/"+h.Algorithm+"/"+h.Hex, content) }
	errs := []error{
		put(indexFile, index),
		put("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)),
		blob(digest, manifest),
		blob(configDigest, config),
	}
	layers, err := img.Layers()
	if err != nil {
		return fmt.Errorf("listing layers: %w", err)
	}
	for _, layer := range layers {
		digest, err := layer.Digest()
		if err != nil {
			return fmt.Errorf("computing the digest: %w", err)
		}
		r, err := layer.Compressed()
		if err != nil {
			return fmt.Errorf("reading a layer: %w", err)
		}
		content, err := io.ReadAll(r)
		errs = append(errs, err, r.Close(), blob(digest, content))
	}
	return errors.Join(append(errs, w.Close())...)
}

// Names returns the images in an OCI archive, name to digest; none for an archive of another kind, which must be loaded
// to be known.
func Names(path string) (map[string]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening image archive: %w", err)
	}
	defer func() { _ = f.Close() }()
	r := tar.NewReader(f)
	for {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", path, err)
		}
		if header.Name != indexFile {
			continue
		}
		var index v1.IndexManifest
		if err := json.NewDecoder(r).Decode(&index); err != nil {
			return nil, fmt.Errorf("parsing the index of %s: %w", path, err)
		}
		names := map[string]string{}
		for _, m := range index.Manifests {
			name, ok := m.Annotations[nameAnnotation]
			if !ok {
				return nil, nil
			}
			names[name] = m.Digest.String()
		}
		return names, nil
	}
}

// Stale tells whether an archive is missing or older than what it is made of.
func Stale(archive string, inputs []string) (bool, error) {
	made, err := os.Stat(archive)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("looking at the archive: %w", err)
	}
	for _, input := range inputs {
		info, err := os.Stat(input)
		if err != nil {
			return false, fmt.Errorf("looking at a file of the image: %w", err)
		}
		if info.ModTime().After(made.ModTime()) {
			return true, nil
		}
	}
	return false, nil
}

// Selected returns the images with the given file names; all without names.
func Selected(specs []Spec, files []string) []Spec {
	if len(files) == 0 {
		return specs
	}
	var selected []Spec
	for _, spec := range specs {
		if slices.Contains(files, spec.File) {
			selected = append(selected, spec)
		}
	}
	return selected
}
