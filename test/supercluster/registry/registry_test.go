package registry

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRegistry(t *testing.T) {
	dir := t.TempDir()
	const manifest = `{"mediaType":"application/vnd.oci.image.manifest.v1+json"}`
	sum := sha256.Sum256([]byte(manifest))
	name := hex.EncodeToString(sum[:])
	digest := "sha256:" + name
	images, err := json.Marshal(map[string]string{"registry.example.com/team/web:v1": digest})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "sha256"), 0o755); err != nil {
		t.Fatal(err)
	}
	for file, content := range map[string]string{
		"images.json": string(images), "sha256/" + name: manifest, "secret": "not for everybody",
	} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := Registry{Images: filepath.Join(dir, "images.json"), Blobs: dir}

	type answer struct {
		Code            int
		Type, Digest, B string
	}
	found := answer{200, "application/vnd.oci.image.manifest.v1+json", digest, manifest}
	for name, tc := range map[string]struct {
		method, url string
		want        answer
	}{
		"Ping":           {"GET", "/v2/", answer{Code: 200}},
		"ByTag":          {"GET", "/v2/team/web/manifests/v1?ns=registry.example.com", found},
		"ByDigest":       {"GET", "/v2/team/web/manifests/" + digest + "?ns=registry.example.com", found},
		"Head":           {"HEAD", "/v2/team/web/manifests/v1?ns=registry.example.com", answer{200, found.Type, digest, ""}},
		"Blob":           {"GET", "/v2/team/web/blobs/" + digest, answer{200, "application/octet-stream", digest, manifest}},
		"OtherTag":       {"GET", "/v2/team/web/manifests/v2?ns=registry.example.com", answer{Code: 404}},
		"OtherRegistry":  {"GET", "/v2/team/web/manifests/v1?ns=example.org", answer{Code: 404}},
		"PathForDigest":  {"GET", "/v2/team/web/blobs/..%2Fsecret", answer{Code: 404}},
		"NotTheProtocol": {"GET", "/secret", answer{Code: 404}},
		"Push":           {"PUT", "/v2/team/web/manifests/v1", answer{Code: 405}},
	} {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			r.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), tc.method, tc.url, http.NoBody))
			got := answer{Code: w.Code}
			if w.Code == http.StatusOK && tc.want.Digest != "" {
				got = answer{w.Code, w.Header().Get("Content-Type"), w.Header().Get("Docker-Content-Digest"), w.Body.String()}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
