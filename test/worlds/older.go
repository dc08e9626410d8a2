package worlds

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// OlderThan133 returns how to reach a world as if it were of Kubernetes 1.32: without ServiceCIDRs and with the range in the
// error about an address that is not in it.
func OlderThan133(t *testing.T, world *World) *rest.Config {
	t.Helper()
	target, err := url.Parse(world.Config.Host)
	if err != nil {
		t.Fatal(err)
	}
	transport, err := rest.TransportFor(world.Config)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			// Neither protocol buffers nor aggregated discovery nor compression, so that answers can be changed.
			r.Out.Header.Set("Accept", "application/json")
			r.Out.Header.Del("Accept-Encoding")
		},
		ModifyResponse: func(r *http.Response) error { return age(r, world) },
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/apis/networking.k8s.io/v1/servicecidrs") {
			http.NotFound(w, r)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return &rest.Config{Host: server.URL, QPS: -1}
}

// age makes an answer one of Kubernetes 1.32.
func age(r *http.Response, world *World) error {
	path := r.Request.URL.Path
	if path != "/version" && path != "/apis/networking.k8s.io/v1" && r.StatusCode != http.StatusUnprocessableEntity {
		return nil
	}
	content, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	switch path {
	case "/version":
		content = []byte(`{"major":"1","minor":"32","gitVersion":"v1.32.1"}`)
	case "/apis/networking.k8s.io/v1":
		var list metav1.APIResourceList
		if err := json.Unmarshal(content, &list); err != nil {
			return err
		}
		list.APIResources = slices.DeleteFunc(list.APIResources, func(r metav1.APIResource) bool { return strings.HasPrefix(r.Name, "servicecidrs") })
		if content, err = json.Marshal(list); err != nil {
			return err
		}
	default:
		for i, elsewhere := range []string{"192.0.2.1", "2001:db8::1"} {
			told := fmt.Sprintf("failed to allocate IP %s: the provided IP (%s) is not in the valid range. The range of valid IPs is %s", elsewhere, elsewhere, world.ServiceRanges[i])
			content = regexp.MustCompile(`failed to allocate IP `+regexp.QuoteMeta(elsewhere)+`: [^"]*`).ReplaceAll(content, []byte(told))
		}
	}
	r.Body = io.NopCloser(bytes.NewReader(content))
	r.ContentLength = int64(len(content))
	r.Header.Set("Content-Length", strconv.Itoa(len(content)))
	return nil
}
