// Package registry is the registry that nodes of the local cluster pull from. It serves, read-only, the images that were
// loaded into the cluster, out of the files that containerd keeps of them: nothing is stored twice, and nothing else can be
// pulled. Command registry runs it.
package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// Registry serves images under the names of any registry: as a mirror, it is told which one is meant.
type Registry struct {
	// Images is a file: a JSON object with the digest of each image by its full name.
	Images string
	// Blobs is the folder of containerd with a file for each digest.
	Blobs string
}

// ServeHTTP answers the part of the distribution protocol that pulling needs.
func (r Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		http.Error(w, "read-only", http.StatusMethodNotAllowed)
		return
	}
	path, ok := strings.CutPrefix(req.URL.Path, "/v2/")
	if ok && path == "" {
		return
	}
	var err error
	if name, digest, found := cutLast(path, "/blobs/"); ok && found && name != "" {
		err = r.serve(w, req, digest, "application/octet-stream")
	} else if name, ref, found := cutLast(path, "/manifests/"); ok && found && name != "" {
		err = r.manifest(w, req, req.URL.Query().Get("ns")+"/"+name, ref)
	} else {
		err = fs.ErrNotExist
	}
	switch {
	case err == nil:
	case errors.Is(err, fs.ErrNotExist):
		http.Error(w, "not found", http.StatusNotFound)
	default:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// manifest serves a manifest by tag or digest.
func (r Registry) manifest(w http.ResponseWriter, req *http.Request, name, ref string) error {
	digest := ref
	if !strings.Contains(ref, ":") {
		data, err := os.ReadFile(r.Images)
		if err != nil {
			return fmt.Errorf("reading the list of images: %w", err)
		}
		images := map[string]string{}
		if err := json.Unmarshal(data, &images); err != nil {
			return fmt.Errorf("parsing %s: %w", r.Images, err)
		}
		if digest = images[name+":"+ref]; digest == "" {
			return fs.ErrNotExist
		}
	}
	path, err := r.blob(digest)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading a manifest: %w", err)
	}
	var manifest struct {
		MediaType string `json:"mediaType"`
	}
	if err := json.Unmarshal(data, &manifest); err != nil {
		return fmt.Errorf("parsing %s: %w", digest, err)
	}
	return r.serve(w, req, digest, manifest.MediaType)
}

// serve sends the file of a digest.
func (r Registry) serve(w http.ResponseWriter, req *http.Request, digest, mediaType string) error {
	path, err := r.blob(digest)
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("opening a blob: %w", err)
	}
	defer func() { _ = f.Close() }()
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Docker-Content-Digest", digest)
	http.ServeContent(w, req, "", time.Time{}, f)
	return nil
}

// blob is the file of a digest. What is no digest has none: a path must not lead elsewhere.
func (r Registry) blob(digest string) (string, error) {
	if !regexp.MustCompile(`^sha256:[0-9a-f]{64}$`).MatchString(digest) {
		return "", fs.ErrNotExist
	}
	return filepath.Join(r.Blobs, strings.Replace(digest, ":", "/", 1)), nil
}

// cutLast splits at the last separator.
func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}
