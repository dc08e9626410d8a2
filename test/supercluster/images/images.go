// Package images builds container images from binaries, files of the machine and Debian packages, without a daemon. The
// lists of images are data (images.yaml says what they can contain); the same inputs give the same digest. It builds
// archives only: test/supercluster loads them into nodes.
package images

import (
	"archive/tar"
	"bytes"
	"cmp"
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

// Spec is one entry of a list: an image and its variants, which go into one archive.
type Spec struct {
	Ref        string            `json:"ref"`
	File       string            `json:"file,omitempty"`
	Packages   []string          `json:"packages,omitempty"`
	Files      []File            `json:"files,omitempty"`
	Links      map[string]string `json:"links,omitempty"`
	Dirs       []string          `json:"dirs,omitempty"`
	Users      []string          `json:"users,omitempty"`
	Groups     []string          `json:"groups,omitempty"`
	Applets    bool              `json:"applets,omitempty"`
	Entrypoint []string          `json:"entrypoint,omitempty"`
	Cmd        []string          `json:"cmd,omitempty"`
	User       string            `json:"user,omitempty"`
	Variants   []Spec            `json:"variants,omitempty"`
}

// File is one file of an image, from a file or with the given content.
type File struct {
	From    string `json:"from,omitempty"`
	Content string `json:"content,omitempty"`
	To      string `json:"to"`
	Mode    int64  `json:"mode,omitempty"`
	// Capabilities are file capabilities: permitted and effective, as setcap NAME=+ep sets them.
	Capabilities []string `json:"capabilities,omitempty"`
}

// Image is an image and the name it gets.
type Image struct {
	Ref string
	v1.Image
}

// List returns the images of the local cluster.
func List() ([]Spec, error) { return parse(list) }

// ReadList returns the images of another list.
func ReadList(path string) ([]Spec, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the list of images: %w", err)
	}
	return parse(content)
}

func parse(content []byte) ([]Spec, error) {
	var specs []Spec
	if err := yaml.UnmarshalStrict(content, &specs); err != nil {
		return nil, fmt.Errorf("parsing the list of images: %w", err)
	}
	return specs, nil
}

// Refs returns the names of the images of an entry.
func (s Spec) Refs() []string {
	refs := []string{s.Ref}
	for _, variant := range s.Variants {
		refs = append(refs, variant.Refs()...)
	}
	return refs
}

// Builder makes images.
type Builder struct {
	// BinDir is where the files of a list come from.
	BinDir string
	// Debian is where packages come from.
	Debian Debian
}

func (b Builder) source(f File) string {
	if filepath.IsAbs(f.From) {
		return f.From
	}
	return filepath.Join(b.BinDir, f.From)
}

// Inputs returns the files that the images of an entry are made of.
func (b Builder) Inputs(spec Spec) []string {
	var inputs []string
	for _, f := range spec.Files {
		if f.From != "" {
			inputs = append(inputs, b.source(f))
		}
	}
	for _, variant := range spec.Variants {
		inputs = append(inputs, b.Inputs(variant)...)
	}
	return inputs
}

// Build makes the images of an entry.
func (b Builder) Build(ctx context.Context, spec Spec) ([]Image, error) {
	root := tree{}
	root.dir("/root", 0o700)
	root.dir("/tmp", 0o1777)
	if err := b.fill(ctx, root, spec); err != nil {
		return nil, err
	}
	root.file("/etc/passwd", 0o644, lines(append([]string{"root:x:0:0:root:/root:/bin/sh", "nonroot:x:65532:65532:nonroot:/:/bin/sh"}, spec.Users...)))
	root.file("/etc/group", 0o644, lines(append([]string{"root:x:0:", "nonroot:x:65532:"}, spec.Groups...)))
	root.file("/etc/nsswitch.conf", 0o644, []byte("hosts: files dns\n"))
	config := v1.Config{
		Entrypoint: spec.Entrypoint,
		Cmd:        spec.Cmd,
		User:       cmp.Or(spec.User, nonroot),
		WorkingDir: "/",
		Env:        []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
	}
	start := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	first, err := extend(start, spec.Ref, root, config)
	if err != nil {
		return nil, err
	}
	made := []Image{first}
	for _, variant := range spec.Variants {
		more := tree{}
		if err := b.fill(ctx, more, variant); err != nil {
			return nil, err
		}
		changed := config
		if variant.Cmd != nil {
			changed.Cmd = variant.Cmd
		}
		img, err := extend(first.Image, variant.Ref, more, changed)
		if err != nil {
			return nil, err
		}
		made = append(made, img)
	}
	return made, nil
}

func lines(list []string) []byte { return []byte(strings.Join(list, "\n") + "\n") }

// extend adds a layer, if there is something in it, and a configuration.
func extend(from v1.Image, ref string, files tree, runs v1.Config) (Image, error) {
	img := from
	if len(files) > 0 {
		layer, err := files.archive()
		if err != nil {
			return Image{}, err
		}
		if img, err = mutate.AppendLayers(from, static.NewLayer(layer, types.OCIUncompressedLayer)); err != nil {
			return Image{}, fmt.Errorf("appending the layer: %w", err)
		}
	}
	config, err := img.ConfigFile()
	if err != nil {
		return Image{}, fmt.Errorf("reading the configuration: %w", err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	// The name makes every image another one: containerd reports a container's image by any name that the same one has.
	runs.Labels = map[string]string{"org.opencontainers.image.ref.name": ref}
	config.Config = runs
	if img, err = mutate.ConfigFile(img, config); err != nil {
		return Image{}, fmt.Errorf("setting the configuration: %w", err)
	}
	return Image{Ref: ref, Image: img}, nil
}

// fill adds what the list says to the file system of an image.
func (b Builder) fill(ctx context.Context, t tree, spec Spec) error {
	if len(spec.Packages) > 0 {
		archives, err := b.Debian.download(ctx, spec.Packages)
		if err != nil {
			return err
		}
		for _, archive := range archives {
			if err := t.unpack(ctx, archive); err != nil {
				return err
			}
		}
	}
	for _, path := range spec.Dirs {
		t.dir(path, 0o755)
	}
	for _, path := range slices.Sorted(maps.Keys(spec.Links)) {
		t.link(path, spec.Links[path])
	}
	for _, f := range spec.Files {
		if f.From == "" {
			t.file(f.To, cmp.Or(f.Mode, 0o644), []byte(f.Content))
			continue
		}
		from := b.source(f)
		content, err := os.ReadFile(from)
		if err != nil {
			return fmt.Errorf("reading a file of the image: %w", err)
		}
		t.file(f.To, cmp.Or(f.Mode, 0o755), content)
		if err := t.capabilities(f.To, f.Capabilities); err != nil {
			return err
		}
		if filepath.IsAbs(f.From) {
			if err := t.libraries(ctx, f.From); err != nil {
				return err
			}
		}
		if spec.Applets && filepath.Base(f.To) == "busybox" {
			if err := t.applets(ctx, from, f.To); err != nil {
				return err
			}
		}
	}
	return nil
}

// applets adds the commands of a busybox that nothing else provides.
func (t tree) applets(ctx context.Context, program, path string) error {
	names, err := exec.CommandContext(ctx, program, "--list").Output()
	if err != nil {
		return fmt.Errorf("listing the commands of %s: %w", program, err)
	}
	for name := range strings.FieldsSeq(string(names)) {
		to := t.resolve("/bin/" + name)
		if _, ok := t[to]; !ok {
			t.link(to, path)
		}
	}
	return nil
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

// put adds a file; what is below a link goes where it leads, like the folders of a Debian system.
func (t tree) put(path string, header tar.Header, content []byte) {
	path = t.resolve(path)
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

// resolve follows the links in the folders of a path.
func (t tree) resolve(path string) string {
	parent, name := filepath.Split(path)
	if parent == "/" {
		return path
	}
	parent = t.resolve(filepath.Clean(parent))
	if e, ok := t[parent]; ok && e.header.Typeflag == tar.TypeSymlink {
		target := e.header.Linkname
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(parent), target)
		}
		parent = t.resolve(target)
	}
	return filepath.Join(parent, name)
}

func (t tree) dir(path string, mode int64) {
	t.put(path, tar.Header{Typeflag: tar.TypeDir, Mode: mode}, nil)
}

func (t tree) file(path string, mode int64, content []byte) {
	t.put(path, tar.Header{Typeflag: tar.TypeReg, Mode: mode}, content)
}

func (t tree) link(path, target string) {
	t.put(path, tar.Header{Typeflag: tar.TypeSymlink, Mode: 0o777, Linkname: target}, nil)
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

// Write writes an OCI archive that containerd imports under the images' names. The file appears when it is complete. The
// index comes first, so that Names need not read the layers.
func Write(path string, images []Image) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("creating the folder of images: %w", err)
	}
	f, err := os.Create(path + ".new")
	if err != nil {
		return fmt.Errorf("creating the archive: %w", err)
	}
	if err := errors.Join(writeArchive(f, images), f.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("replacing %s: %w", path, err)
	}
	return nil
}

func writeArchive(out io.Writer, images []Image) error {
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
	for _, img := range images {
		manifest, err := img.RawManifest()
		if err != nil {
			return fmt.Errorf("encoding the manifest: %w", err)
		}
		digest, err := img.Digest()
		if err != nil {
			return fmt.Errorf("computing the digest: %w", err)
		}
		index.Manifests = append(index.Manifests, v1.Descriptor{
			MediaType:   types.OCIManifestSchema1,
			Digest:      digest,
			Size:        int64(len(manifest)),
			Platform:    &v1.Platform{OS: "linux", Architecture: runtime.GOARCH},
			Annotations: map[string]string{nameAnnotation: img.Ref},
		})
	}
	encoded, err := json.Marshal(index)
	if err != nil {
		return fmt.Errorf("encoding the index: %w", err)
	}
	a := archiver{Writer: tar.NewWriter(out), has: map[string]bool{}}
	if err := errors.Join(a.put(indexFile, encoded), a.put("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))); err != nil {
		return err
	}
	for _, img := range images {
		if err := a.image(img); err != nil {
			return err
		}
	}
	return a.Close()
}

// archiver writes files once.
type archiver struct {
	*tar.Writer
	has map[string]bool
}

func (a archiver) put(name string, content []byte) error {
	if a.has[name] {
		return nil
	}
	a.has[name] = true
	header := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), Typeflag: tar.TypeReg}
	if err := a.WriteHeader(header); err != nil {
		return err
	}
	_, err := a.Write(content)
	return err
}

// blob writes a part of an image below its digest.
func (a archiver) blob(digest v1.Hash, content []byte) error { return a.put(blobFile(digest), content) }

func blobFile(h v1.Hash) string { return "blobs/" + h.Algorithm + "/" + h.Hex }

func (a archiver) image(img Image) error {
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
	errs := []error{a.blob(digest, manifest), a.blob(configDigest, config)}
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
		errs = append(errs, err, r.Close(), a.blob(digest, content))
	}
	return errors.Join(errs...)
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
