package vnagent

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// tenantAPI is the API server of a tenant as far as vn-agent sees one. It knows holders of tokens and what they may get.
type tenantAPI struct {
	tenant names.TenantID
	server *httptest.Server
	// rights of the holder of a token: subresources of nodes.
	rights map[string][]string

	mu    sync.Mutex
	asked []string
}

// addTenantAPI makes one whose tokens are signed with the key.
func (w *world) addTenantAPI(t *testing.T, tenant names.TenantID, keyID string, rights map[string][]string) *tenantAPI {
	t.Helper()
	api := &tenantAPI{tenant: tenant, rights: rights}
	api.server = httptest.NewTLSServer(api)
	t.Cleanup(api.server.Close)
	w.super.addIssuer(tenant, keyID, func(data map[string]string) {
		data[names.VNAgentAddressKey] = strings.TrimPrefix(api.server.URL, "https://")
		data[names.VNAgentServerCAKey] = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.server.Certificate().Raw}))
	})
	return api
}

func (s *superCluster) addIssuer(tenant names.TenantID, keyID string, change func(map[string]string)) {
	object := &corev1.ConfigMap{
		TypeMeta:   metav1.TypeMeta{Kind: "ConfigMap", APIVersion: "v1"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "vc-system", Name: names.VNAgentTenantConfigMap(keyID)},
		// The certificate of the test's API servers is for this name, and nothing resolves it.
		Data: map[string]string{names.VNAgentTenantKey: string(tenant), names.VNAgentServerKey: "https://example.com:443"},
	}
	change(object.Data)
	s.objects["/api/v1/namespaces/vc-system/configmaps/"+object.Name] = object
}

func (a *tenantAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	a.mu.Lock()
	a.asked = append(a.asked, token)
	a.mu.Unlock()
	rights, ok := a.rights[token]
	if r.Method != http.MethodPost || r.URL.Path != "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews" {
		status(w, http.StatusNotFound, "not found")
		return
	}
	if !ok {
		status(w, http.StatusUnauthorized, "Unauthorized")
		return
	}
	review := authorizationv1.SelfSubjectAccessReview{}
	if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
		status(w, http.StatusBadRequest, err.Error())
		return
	}
	asked := review.Spec.ResourceAttributes
	for _, right := range rights {
		if right == asked.Subresource && asked.Verb == "get" && asked.Resource == "nodes" && asked.Group == "" && asked.Name == thisNode {
			review.Status.Allowed = true
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	encode(w, review)
}

// tokensSeen returns what was presented to the API server.
func (a *tenantAPI) tokensSeen() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]string(nil), a.asked...)
}

// tokenOf returns a token that names a key.
func tokenOf(keyID, holder string) string {
	encode := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	return encode(fmt.Sprintf(`{"alg":"ES256","kid":%q}`, keyID)) + "." + encode(holder) + "." + encode("signature")
}

func withToken(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }

// Attack V-02 with tokens: they open measurements, those of the tenant whose API server vouches for them, and nothing
// else.
func TestTokens(t *testing.T) {
	w := newWorld(t, hello)
	metrics, statsOnly, nobody := tokenOf("key-a", "metrics"), tokenOf("key-a", "stats"), tokenOf("key-a", "nobody")
	b := tokenOf("key-b", "metrics")
	// What A signed, with the name of B's key in it; and what B accepts, with the name of A's.
	forged, lent := tokenOf("key-b", "forged"), tokenOf("key-a", "lent")
	apiA := w.addTenantAPI(t, tenantA(), "key-a", map[string][]string{metrics: {"metrics", "healthz"}, statsOnly: {"stats"}, nobody: nil, forged: {"metrics"}})
	apiB := w.addTenantAPI(t, tenantB(), "key-b", map[string][]string{b: {"metrics"}, lent: {"metrics"}})
	w.kubelet.answer("/stats/summary", `{"node": {"nodeName": "node-1"}, "pods": []}`)
	w.kubelet.answer("/metrics/resource", memory(names.SuperNamespace(tenantA(), "shop"), "web", 111)+memory(names.SuperNamespace(tenantB(), "shop"), "web", 222))

	for name, tc := range map[string]struct {
		token, path string
		wantCode    int
		wantBody    string
	}{
		"Metrics":           {metrics, "/metrics/resource", 200, "111"},
		"OfTheOther":        {b, "/metrics/resource", 200, "222"},
		"Healthz":           {metrics, "/healthz", 200, "ok"},
		"Stats":             {statsOnly, "/stats/summary", 200, "node-1"},
		"StatsNotAllowed":   {metrics, "/stats/summary", 403, "subresource=stats"},
		"MetricsNotAllowed": {statsOnly, "/metrics/resource", 403, "subresource=metrics"},
		"NothingAllowed":    {nobody, "/metrics/resource", 403, "subresource=metrics"},
		"UnknownToken":      {tokenOf("key-a", "unknown"), "/metrics/resource", 401, "Unauthorized"},
		"UnknownKey":        {tokenOf("key-c", "metrics"), "/metrics/resource", 401, "Unauthorized"},
		"NameOfOthersKey":   {forged, "/metrics/resource", 401, "Unauthorized"},
		"LentToOthers":      {lent, "/metrics/resource", 401, "Unauthorized"},
		"NoKey":             {tokenOf("", "metrics"), "/metrics/resource", 401, "Unauthorized"},
		"PathInKey":         {tokenOf("../secrets/x", "metrics"), "/metrics/resource", 401, "Unauthorized"},
		"NotAToken":         {"secret", "/metrics/resource", 401, "Unauthorized"},
		"NotBase64":         {"!.!.!", "/metrics/resource", 401, "Unauthorized"},
		"NotJSON":           {"YQ.YQ.YQ", "/metrics/resource", 401, "Unauthorized"},
		"TooLong":           {metrics + strings.Repeat("a", maxToken), "/metrics/resource", 401, "Unauthorized"},
		"Empty":             {"", "/metrics/resource", 401, "Unauthorized"},
		"Logs":              {metrics, "/containerLogs/shop/web/app", 401, "Unauthorized"},
		"Exec":              {metrics, "/exec/shop/web/app?command=ls", 401, "Unauthorized"},
		"Unknown":           {metrics, "/pods", 401, "Unauthorized"},
	} {
		t.Run(name, func(t *testing.T) {
			code, body, err := w.do(t, w.tls(), "GET", tc.path, withToken(tc.token))
			if err != nil || code != tc.wantCode || !strings.Contains(body, tc.wantBody) {
				t.Errorf("got %d %q %v", code, body, err)
			}
			if other := map[string]string{"111": "222", "222": "111"}[tc.wantBody]; other != "" && strings.Contains(body, other) {
				t.Errorf("got what belongs to another: %q", body)
			}
		})
	}
	for _, api := range []*tenantAPI{apiA, apiB} {
		own := map[names.TenantID]string{tenantA(): "key-a", tenantB(): "key-b"}[api.tenant]
		for _, token := range api.tokensSeen() {
			if keyID, err := keyIDOf(token); err != nil || keyID != own {
				t.Errorf("the API server of %s was given a token of the key %s, %v", api.tenant, keyID, err)
			}
		}
	}
	if r := w.super.last(); r != nil {
		t.Errorf("%s reached the super cluster", r.URL)
	}
}

// An API server is asked once in a while, not for each scrape.
func TestVerdictsAreKept(t *testing.T) {
	w := newWorld(t, hello)
	token := tokenOf("key-a", "metrics")
	api := w.addTenantAPI(t, tenantA(), "key-a", map[string][]string{token: {"healthz"}})
	for range 5 {
		if code, body, err := w.do(t, w.tls(), "GET", "/healthz", withToken(token)); err != nil || code != http.StatusOK {
			t.Errorf("got %d %q %v", code, body, err)
		}
	}
	if seen := api.tokensSeen(); len(seen) != 1 {
		t.Errorf("it was asked %d times", len(seen))
	}
}

// A certificate says who asks; a token beside it changes nothing.
func TestCertificateBeforeToken(t *testing.T) {
	w := newWorld(t, hello)
	token := tokenOf("key-b", "metrics")
	api := w.addTenantAPI(t, tenantB(), "key-b", map[string][]string{token: {"metrics"}})
	w.kubelet.answer("/metrics/resource", memory(names.SuperNamespace(tenantA(), "shop"), "web", 111)+memory(names.SuperNamespace(tenantB(), "shop"), "web", 222))
	code, body, err := w.do(t, w.tls(w.clients.issue(t, tenantA())), "GET", "/metrics/resource", withToken(token))
	if err != nil || code != http.StatusOK || !strings.Contains(body, "111") || strings.Contains(body, "222") {
		t.Errorf("got %d %q %v", code, body, err)
	}
	if seen := api.tokensSeen(); len(seen) > 0 {
		t.Errorf("the API server of the other was asked: %v", seen)
	}
}

// What a tenant's API server may do to vn-agent: refuse, redirect, be another one, or not be described well.
func TestIssuersThatFail(t *testing.T) {
	elsewhere := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the redirect was followed") }))
	t.Cleanup(elsewhere.Close)
	redirecting := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
	}))
	t.Cleanup(redirecting.Close)
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: redirecting.Certificate().Raw}))
	address := strings.TrimPrefix(redirecting.URL, "https://")
	for name, change := range map[string]func(map[string]string){
		"Redirect": func(data map[string]string) {
			data[names.VNAgentAddressKey], data[names.VNAgentServerCAKey] = address, ca
		},
		"AnotherCA": func(data map[string]string) {
			data[names.VNAgentAddressKey], data[names.VNAgentServerCAKey] = address, string(newAuthority(t, "other").pem())
		},
		"AnotherName": func(data map[string]string) {
			data[names.VNAgentAddressKey], data[names.VNAgentServerCAKey], data[names.VNAgentServerKey] = address, ca, "https://other.example.org"
		},
		"NoCA":      func(data map[string]string) { data[names.VNAgentAddressKey] = address },
		"NoAddress": func(data map[string]string) { data[names.VNAgentServerCAKey] = ca },
		"NoTenant": func(data map[string]string) {
			data[names.VNAgentAddressKey], data[names.VNAgentServerCAKey], data[names.VNAgentTenantKey] = address, ca, ""
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, hello)
			w.super.addIssuer(tenantA(), "key-a", change)
			code, body, err := w.do(t, w.tls(), "GET", "/healthz", withToken(tokenOf("key-a", "x")))
			if err != nil || code != http.StatusServiceUnavailable || body != messageUnavailable {
				t.Errorf("got %d %q %v", code, body, err)
			}
		})
	}
}

// Strangers who name keys cannot make vn-agent flood the super cluster.
func TestLookupsOfIssuersAreLimited(t *testing.T) {
	super, err := kubernetes.NewForConfig(&rest.Config{Host: "https://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	tokens := newTokens(super, Options{Namespace: "vc-system"})
	tokens.lookups = flowcontrol.NewTokenBucketPassiveRateLimiter(1e-6, 1)
	var codes []int
	for _, keyID := range []string{"key-1", "key-2"} {
		_, err := tokens.tenant(t.Context(), tokenOf(keyID, "x"), Healthz)
		codes = append(codes, forTenant(err).Code)
	}
	if want := []int{http.StatusServiceUnavailable, http.StatusTooManyRequests}; !slices.Equal(codes, want) {
		t.Errorf("got %v, want %v", codes, want)
	}
}
