package images

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Debian downloads packages of one release of Debian, with all they depend on, whatever the machine itself runs. Nothing
// is installed: images get the files of packages, and no script of a package is run.
type Debian struct {
	// Dir keeps lists and packages.
	Dir string
}

const (
	debianRelease = "trixie"
	debianMirror  = "http://deb.debian.org/debian"
	debianKeyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
)

// download returns the archives of packages and of all they depend on, in a fixed order.
func (d Debian) download(ctx context.Context, packages []string) ([]string, error) {
	if _, err := os.Stat(d.path("complete")); err == nil {
		if archives, err := d.fetch(ctx, packages); err == nil {
			return archives, nil
		}
	}
	// There are no lists of packages, or they are old.
	if err := d.update(ctx); err != nil {
		return nil, err
	}
	return d.fetch(ctx, packages)
}

func (d Debian) fetch(ctx context.Context, packages []string) ([]string, error) {
	// Without a folder of downloads apt names all archives, also those that are there.
	out, err := d.apt(ctx, d.path("nothing"), append([]string{"--print-uris", "install"}, packages...)...)
	if err != nil {
		return nil, err
	}
	var archives []string
	complete := true
	for line := range strings.Lines(out) {
		// 'http://mirror/pool/main/b/bash/bash_5.2.deb' bash_5.2.deb 1500792 SHA256:...
		fields := strings.Fields(line)
		if len(fields) < 2 || !strings.HasPrefix(line, "'") {
			continue
		}
		archive := filepath.Join(d.path("archives"), fields[1])
		archives = append(archives, archive)
		_, err := os.Stat(archive)
		complete = complete && err == nil
	}
	if len(archives) == 0 {
		return nil, fmt.Errorf("apt names no archives for %s", strings.Join(packages, " "))
	}
	if !complete {
		if _, err := d.apt(ctx, d.path("archives"), append([]string{"--download-only", "install"}, packages...)...); err != nil {
			return nil, err
		}
	}
	return archives, nil
}

func (d Debian) path(name string) string { return filepath.Join(d.Dir, debianRelease, name) }

// update gets the lists of packages.
func (d Debian) update(ctx context.Context) error {
	for _, dir := range []string{"archives/partial", "nothing/partial", "lists/partial"} {
		if err := os.MkdirAll(d.path(dir), 0o755); err != nil {
			return fmt.Errorf("creating a folder for packages: %w", err)
		}
	}
	source := fmt.Sprintf("deb [signed-by=%s] %s %s main\n", debianKeyring, debianMirror, debianRelease)
	if err := os.WriteFile(d.path("sources.list"), []byte(source), 0o644); err != nil {
		return fmt.Errorf("writing the source of packages: %w", err)
	}
	if _, err := d.apt(ctx, d.path("archives"), "update"); err != nil {
		return err
	}
	if err := os.WriteFile(d.path("complete"), nil, 0o644); err != nil {
		return fmt.Errorf("marking lists as complete: %w", err)
	}
	return nil
}

// apt runs apt-get with files of its own and as if nothing were installed.
func (d Debian) apt(ctx context.Context, archives string, args ...string) (string, error) {
	options := []string{"-q", "-y", "--no-install-recommends"}
	for _, option := range []string{
		"APT::Sandbox::User=root",
		"Dir::Etc::sourcelist=" + d.path("sources.list"),
		"Dir::Etc::sourceparts=-",
		"Dir::State::lists=" + d.path("lists"),
		"Dir::State::status=/dev/null",
		"Dir::Cache::pkgcache=",
		"Dir::Cache::srcpkgcache=",
		"Dir::Cache::archives=" + archives,
	} {
		options = append(options, "-o", option)
	}
	cmd := exec.CommandContext(ctx, "apt-get", append(options, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("running apt-get %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}

// unpack adds the files of a package, without those that only people read.
func (t tree) unpack(ctx context.Context, archive string) error {
	content, err := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", archive).Output()
	if err != nil {
		return fmt.Errorf("unpacking %s: %w", archive, err)
	}
	if err := t.add(bytes.NewReader(content)); err != nil {
		return fmt.Errorf("unpacking %s: %w", archive, err)
	}
	return nil
}

// add adds the files of an archive to the tree.
func (t tree) add(archive io.Reader) error {
	r := tar.NewReader(archive)
	for {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		path := filepath.Join("/", header.Name)
		if path == "/" || forPeople(path) {
			continue
		}
		content, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		kept := tar.Header{Typeflag: header.Typeflag, Mode: header.Mode & 0o7777, Uid: header.Uid, Gid: header.Gid}
		switch header.Typeflag {
		case tar.TypeDir:
			// Packages share folders; the first one, or its link, stays.
			if _, ok := t[t.resolve(path)]; ok {
				continue
			}
		case tar.TypeSymlink:
			kept.Linkname = header.Linkname
		case tar.TypeLink:
			// A copy does, and may come first.
			other, ok := t[t.resolve(filepath.Join("/", header.Linkname))]
			if !ok {
				return fmt.Errorf("%s is a second name of %s, which is missing", path, header.Linkname)
			}
			kept, content = other.header, other.content
		}
		t.put(path, kept, content)
	}
}

func forPeople(path string) bool {
	for _, dir := range []string{"doc", "man", "info", "locale", "lintian", "bug"} {
		if strings.HasPrefix(path+"/", "/usr/share/"+dir+"/") {
			return true
		}
	}
	return false
}
