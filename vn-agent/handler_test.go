package vnagent

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

const thisNode = "node-1"

func tenantA() names.TenantID {
	return names.Tenant(types.NamespacedName{Namespace: "default", Name: "a"}, "1")
}

func tenantB() names.TenantID {
	return names.Tenant(types.NamespacedName{Namespace: "default", Name: "b"}, "2")
}

// authority issues certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{certificate, key}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.certificate.Raw})
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	return pool
}

// issue returns a client certificate of the tenant, changed by the given functions.
func (a *authority) issue(t *testing.T, tenant names.TenantID, change ...func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: string(tenant), Organization: []string{names.VNAgentOrganization}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, c := range change {
		c(template)
	}
	key := newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func servingCertificate(t *testing.T, a *authority) tls.Certificate {
	return a.issue(t, "", func(c *x509.Certificate) {
		c.IPAddresses, c.ExtKeyUsage = []net.IP{net.IPv4(127, 0, 0, 1)}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	})
}

// superCluster is a kube-apiserver as far as vn-agent sees one.
type superCluster struct {
	objects map[string]any
	// answer answers subresources of pods.
	answer http.HandlerFunc

	mu       sync.Mutex
	requests []*http.Request
}

func (s *superCluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if object, ok := s.objects[r.URL.Path]; ok {
		w.Header().Set("Content-Type", "application/json")
		encode(w, object)
		return
	}
	if parts := strings.Split(r.URL.Path, "/"); len(parts) < 8 {
		status(w, http.StatusNotFound, fmt.Sprintf("%s not found", r.URL.Path))
		return
	}
	s.mu.Lock()
	s.requests = append(s.requests, r)
	s.mu.Unlock()
	w.Header().Set("Audit-Id", "super-audit")
	s.answer(w, r)
}

// last returns the last request for a subresource, nil if there was none.
func (s *superCluster) last() *http.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.requests) == 0 {
		return nil
	}
	return s.requests[len(s.requests)-1]
}

// encode writes JSON. A client that went away is what some tests are about.
func encode(w io.Writer, object any) { _ = json.NewEncoder(w).Encode(object) }

func status(w http.ResponseWriter, code int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	encode(w, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Message: message, Code: int32(code)})
}

// addNamespace makes a super namespace as the syncer does.
func (s *superCluster) addNamespace(tenant names.TenantID, namespace string, change ...func(*corev1.Namespace)) {
	object := &corev1.Namespace{
		TypeMeta: metav1.TypeMeta{Kind: "Namespace", APIVersion: "v1"},
		ObjectMeta: metav1.ObjectMeta{
			Name:        names.SuperNamespace(tenant, namespace),
			Labels:      map[string]string{names.LabelTenant: string(tenant)},
			Annotations: map[string]string{names.AnnotationNamespace: namespace},
		},
	}
	for _, c := range change {
		c(object)
	}
	s.objects["/api/v1/namespaces/"+object.Name] = object
}

// addPod makes a super pod as the syncer does.
func (s *superCluster) addPod(tenant names.TenantID, namespace, name string, change ...func(*corev1.Pod)) {
	object := &corev1.Pod{
		TypeMeta: metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"},
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: names.SuperNamespace(tenant, namespace),
			Labels:      map[string]string{names.LabelTenant: string(tenant)},
			Annotations: map[string]string{names.AnnotationUID: "tenant-uid"},
		},
		Spec: corev1.PodSpec{NodeName: thisNode},
	}
	for _, c := range change {
		c(object)
	}
	s.objects["/api/v1/namespaces/"+object.Namespace+"/pods/"+name] = object
}

// world is a super cluster and a vn-agent in front of it, both over TLS.
type world struct {
	super *superCluster
	// clients may vouch for tenants; servers vouches for the serving certificate of vn-agent.
	clients, servers *authority
	caFile, address  string
	kubelet          *kubeletServer
}

func newWorld(t *testing.T, answer http.HandlerFunc, change ...func(*Options)) *world {
	t.Helper()
	w := &world{
		super:   &superCluster{objects: map[string]any{}, answer: answer},
		clients: newAuthority(t, "vn-agent-clients"), servers: newAuthority(t, "servers"),
		caFile: filepath.Join(t.TempDir(), "client-ca.crt"),
	}
	for _, tenant := range []names.TenantID{tenantA(), tenantB()} {
		w.super.addNamespace(tenant, "shop")
		w.super.addPod(tenant, "shop", "web")
	}
	w.super.addPod(tenantA(), "shop", "only-a")

	api := httptest.NewTLSServer(w.super)
	t.Cleanup(api.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.Certificate().Raw})
	config := &rest.Config{Host: api.URL, BearerToken: "vn-agent-token", QPS: -1, TLSClientConfig: rest.TLSClientConfig{CAData: ca}}

	w.kubelet = newKubeletServer(t)
	w.super.addNode(t, w.kubelet)
	options := Options{NodeName: thisNode, Namespace: "vc-system", KubeletCAFile: w.kubelet.caFile}
	for _, c := range change {
		c(&options)
	}

	w.trust(t, w.clients)
	logger := testr.New(t)
	trust, err := clientCAs(w.caFile, logger)
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	handler, err := newHandler(config, options, metrics, logger)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.address = listener.Addr().String()
	certificate := servingCertificate(t, w.servers)

	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- serve(ctx, logger, endpoint{newServer(handler, logger), tls.NewListener(listener, tlsConfig(trust.get, func() *tls.Certificate { return &certificate }))})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("serving: %v", err)
		}
	})
	return w
}

// trust makes exactly the given authority able to vouch for tenants.
func (w *world) trust(t *testing.T, a *authority) {
	t.Helper()
	if err := os.WriteFile(w.caFile, a.pem(), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (w *world) tls(certificates ...tls.Certificate) *tls.Config {
	return &tls.Config{RootCAs: w.servers.pool(), Certificates: certificates, MinVersion: tls.VersionTLS12}
}

// do sends one request and returns status and body.
func (w *world) do(t *testing.T, config *tls.Config, method, path string, header http.Header) (int, string, error) {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}
	request, err := http.NewRequestWithContext(t.Context(), method, "https://"+w.address+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if header != nil {
		request.Header = header
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return 0, "", err
	}
	defer closing(t, response.Body)
	if response.StatusCode == http.StatusSwitchingProtocols {
		return response.StatusCode, "", nil
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if id := response.Header.Get("Audit-Id"); id != "" {
		t.Errorf("the tenant was told the super audit ID %s", id)
	}
	return response.StatusCode, strings.TrimSpace(string(body)), nil
}

// closing closes what a test has read.
func closing(t *testing.T, closer io.Closer) {
	t.Helper()
	if err := closer.Close(); err != nil {
		t.Errorf("closing: %v", err)
	}
}

func hello(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, "hello") }

// Attacks V-01 and V-02: identities that nobody vouches for.
func TestOnlyTheClientCAMakesTenants(t *testing.T) {
	w := newWorld(t, hello)
	// What a tenant can do: sign with a CA of its own, named like ours.
	forged := newAuthority(t, "vn-agent-clients")
	for name, tc := range map[string]struct {
		certificates []tls.Certificate
		// wantCode is 0 when the TLS handshake must fail. A certificate of a CA that vn-agent does not name is not sent.
		wantCode int
	}{
		"Good":           {[]tls.Certificate{w.clients.issue(t, tenantA())}, 200},
		"None":           {nil, 401},
		"OtherCA":        {[]tls.Certificate{forged.issue(t, tenantA())}, 0},
		"ServersCA":      {[]tls.Certificate{w.servers.issue(t, tenantA())}, 401},
		"Expired":        {[]tls.Certificate{w.clients.issue(t, tenantA(), func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })}, 0},
		"NotYet":         {[]tls.Certificate{w.clients.issue(t, tenantA(), func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) })}, 0},
		"NoOrganization": {[]tls.Certificate{w.clients.issue(t, tenantA(), func(c *x509.Certificate) { c.Subject.Organization = nil })}, 401},
		"Masters":        {[]tls.Certificate{w.clients.issue(t, tenantA(), func(c *x509.Certificate) { c.Subject.Organization = []string{"system:masters"} })}, 401},
		"NoUsage":        {[]tls.Certificate{w.clients.issue(t, tenantA(), func(c *x509.Certificate) { c.ExtKeyUsage = nil })}, 401},
		"ServerUsage":    {[]tls.Certificate{w.clients.issue(t, tenantA(), func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })}, 0},
		"NoName":         {[]tls.Certificate{w.clients.issue(t, "")}, 401},
		"NotAName":       {[]tls.Certificate{w.clients.issue(t, "a/b")}, 401},
		"UnknownTenant":  {[]tls.Certificate{w.clients.issue(t, "nobody")}, 404},
	} {
		t.Run(name, func(t *testing.T) {
			code, _, err := w.do(t, w.tls(tc.certificates...), "GET", "/containerLogs/shop/web/app", nil)
			if code != tc.wantCode || (err != nil) != (tc.wantCode == 0) {
				t.Errorf("got %d, %v; want %d", code, err, tc.wantCode)
			}
		})
	}
}

func TestClientCAIsReloaded(t *testing.T) {
	w := newWorld(t, hello)
	next := newAuthority(t, "next")
	old, renewed := w.tls(w.clients.issue(t, tenantA())), w.tls(next.issue(t, tenantA()))
	// A client that could resume a session would not be verified again.
	old.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	get := func(config *tls.Config) int {
		code, _, _ := w.do(t, config, "GET", "/containerLogs/shop/web/app", nil)
		return code
	}
	if before := []int{get(old), get(renewed)}; !cmp.Equal(before, []int{200, 401}) {
		t.Errorf("before: %v", before)
	}
	w.trust(t, next)
	if after := []int{get(old), get(renewed)}; !cmp.Equal(after, []int{401, 200}) {
		t.Errorf("after: %v", after)
	}
	if err := os.WriteFile(w.caFile, []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if broken := []int{get(old), get(renewed)}; !cmp.Equal(broken, []int{401, 200}) {
		t.Errorf("with a broken file: %v", broken)
	}
}

func TestRefusesToStartWithoutAClientCA(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"", empty, empty + "-missing"} {
		err := Run(t.Context(), Options{Super: &rest.Config{Host: "https://127.0.0.1:1"}, NodeName: thisNode, ClientCAFile: path, BindAddress: "127.0.0.1:0", HealthAddress: "127.0.0.1:0"})
		if err == nil {
			t.Errorf("started with the client CA file %q", path)
		}
	}
}

func TestRefusesAnUnverifiedSuperCluster(t *testing.T) {
	err := Run(t.Context(), Options{Super: &rest.Config{Host: "https://127.0.0.1:1", TLSClientConfig: rest.TLSClientConfig{Insecure: true}}, NodeName: thisNode})
	if err == nil || !strings.Contains(err.Error(), "insecure-skip-tls-verify") {
		t.Errorf("got %v", err)
	}
}

// Attack V-04, V-05: nothing but the verbs, not even for a good tenant, and nothing reaches the super cluster.
func TestOnlyKnownVerbs(t *testing.T) {
	w := newWorld(t, hello)
	config := w.tls(w.clients.issue(t, tenantA()))
	for _, path := range []string{"/pods", "/runningpods/", "/spec", "/stats", "/stats/", "/stats/container", "/stats/summary/", "/stats/summary/web",
		"//stats/summary", "/metrics", "/metrics/", "/metrics/cadvisor/v1", "/metrics%2Fcadvisor", "/metrics/../stats/summary", "/metrics/slis", "/logs/", "/configz",
		"/debug/pprof/", "/checkpoint/shop/web/app", "/run/shop/web/app", "/healthz/syncloop", "/api/v1/nodes", "/containerLogs/shop/..%2f..%2fweb/app",
		"/containerLogs/shop/web%2Fexec/app", "/containerLogs/shop%2Fweb/app"} {
		code, body, err := w.do(t, config, "GET", path, nil)
		if err != nil || code != http.StatusNotFound {
			t.Errorf("%s: %d %q %v", path, code, body, err)
		}
	}
	if r := w.super.last(); r != nil {
		t.Errorf("%s reached the super cluster", r.URL)
	}
}

// Attack V-07 and the ownership rules: everything that is not provably the tenant's pod on this node looks missing, in
// the tenant's words.
func TestOnlyOwnPodsOnThisNode(t *testing.T) {
	w := newWorld(t, hello)
	shop := names.SuperNamespace(tenantA(), "shop")
	w.super.addPod(tenantA(), "shop", "elsewhere", func(p *corev1.Pod) { p.Spec.NodeName = "node-2" })
	w.super.addPod(tenantA(), "shop", "pending", func(p *corev1.Pod) { p.Spec.NodeName = "" })
	w.super.addPod(tenantA(), "shop", "relabelled", func(p *corev1.Pod) { p.Labels[names.LabelTenant] = string(tenantB()) })
	w.super.addPod(tenantA(), "shop", "unlabelled", func(p *corev1.Pod) { p.Labels = nil })
	w.super.addNamespace(tenantA(), "stolen", func(n *corev1.Namespace) { n.Labels[names.LabelTenant] = string(tenantB()) })
	w.super.addPod(tenantA(), "stolen", "web")
	w.super.addNamespace(tenantA(), "squatted", func(n *corev1.Namespace) { n.Labels, n.Annotations = nil, nil })
	w.super.addPod(tenantA(), "squatted", "web")
	w.super.addNamespace(tenantA(), "renamed", func(n *corev1.Namespace) { n.Annotations[names.AnnotationNamespace] = "shop" })
	w.super.addPod(tenantA(), "renamed", "web")

	for name, tc := range map[string]struct {
		tenant names.TenantID
		path   string
		want   int
	}{
		"Own":                {tenantA(), "/containerLogs/shop/web/app", 200},
		"OwnOfB":             {tenantB(), "/containerLogs/shop/web/app", 200},
		"PodOfA":             {tenantB(), "/containerLogs/shop/only-a/app", 404},
		"SuperNameOfA":       {tenantB(), "/containerLogs/" + shop + "/only-a/app", 404},
		"OwnSuperName":       {tenantA(), "/containerLogs/" + shop + "/web/app", 404},
		"RootNamespace":      {tenantA(), "/containerLogs/" + string(tenantA()) + "/etcd-0/etcd", 404},
		"KubeSystemOfSuper":  {tenantA(), "/containerLogs/kube-system/kube-proxy/kube-proxy", 404},
		"OtherNode":          {tenantA(), "/containerLogs/shop/elsewhere/app", 404},
		"NoNode":             {tenantA(), "/containerLogs/shop/pending/app", 404},
		"Missing":            {tenantA(), "/containerLogs/shop/gone/app", 404},
		"MissingNamespace":   {tenantA(), "/containerLogs/gone/web/app", 404},
		"LabelOfOther":       {tenantA(), "/containerLogs/shop/relabelled/app", 404},
		"NoLabel":            {tenantA(), "/containerLogs/shop/unlabelled/app", 404},
		"NamespaceOfOther":   {tenantA(), "/containerLogs/stolen/web/app", 404},
		"NamespaceOfNobody":  {tenantA(), "/containerLogs/squatted/web/app", 404},
		"NamespaceOfAnother": {tenantA(), "/containerLogs/renamed/web/app", 404},
	} {
		t.Run(name, func(t *testing.T) {
			code, body, err := w.do(t, w.tls(w.clients.issue(t, tc.tenant)), "GET", tc.path, nil)
			if err != nil || code != tc.want {
				t.Fatalf("got %d %q %v, want %d", code, body, err, tc.want)
			}
			if code != 200 && strings.Contains(body, names.Hash("namespace", string(tc.tenant), "shop")) {
				t.Errorf("%q names a super namespace", body)
			}
		})
	}
	for uid, want := range map[string]int{"tenant-uid": 101, "older-uid": 404} {
		w.super.answer = echo
		code, _, err := w.do(t, w.tls(w.clients.issue(t, tenantA())), "POST", "/exec/shop/web/"+uid+"/app?output=1&command=ls", upgrade("SPDY/3.1"))
		if err != nil || code != want {
			t.Errorf("UID %s: got %d %v, want %d", uid, code, err, want)
		}
	}
}

func upgrade(protocol string) http.Header {
	return http.Header{"Connection": {"Upgrade"}, "Upgrade": {protocol}}
}

// echo accepts an upgrade and sends back one line; then it ends the stream.
func echo(w http.ResponseWriter, r *http.Request) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	defer func() { _ = conn.Close() }()
	_, _ = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\nX-Super: secret\r\n\r\n", r.Header.Get("Upgrade"))
	if line, err := buffered.ReadString('\n'); err == nil {
		_, _ = io.WriteString(conn, line)
	}
}

func TestStreams(t *testing.T) {
	w := newWorld(t, echo)
	for name, tc := range map[string]struct {
		method, path, upgrade string
		wantPath              string
	}{
		"ExecSPDY":             {"POST", "/exec/shop/web/app?output=1&command=sh&command=-c", "SPDY/3.1", "exec?command=sh&command=-c&container=app&stdout=true"},
		"ExecWebSocket":        {"GET", "/exec/shop/web/app?output=1&command=ls", "websocket", "exec?command=ls&container=app&stdout=true"},
		"Attach":               {"POST", "/attach/shop/web/app?input=1&tty=1", "SPDY/3.1", "attach?container=app&stdin=true&tty=true"},
		"PortForwardSPDY":      {"POST", "/portForward/shop/web", "SPDY/3.1", "portforward"},
		"PortForwardWebSocket": {"GET", "/portForward/shop/web?port=80", "websocket", "portforward?ports=80"},
	} {
		t.Run(name, func(t *testing.T) {
			dialer := tls.Dialer{Config: w.tls(w.clients.issue(t, tenantA()))}
			conn, err := dialer.DialContext(t.Context(), "tcp", w.address)
			if err != nil {
				t.Fatal(err)
			}
			defer closing(t, conn)
			_, _ = fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: node\r\nConnection: Upgrade, Impersonate-User\r\nUpgrade: %s\r\nAuthorization: Bearer mine\r\nAuthorization: Bearer too\r\n"+
				"Impersonate-User: system:admin\r\nX-Remote-Group: system:masters\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n", tc.method, tc.path, tc.upgrade)
			reader := bufio.NewReader(conn)
			response, err := http.ReadResponse(reader, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer closing(t, response.Body)
			if response.StatusCode != http.StatusSwitchingProtocols || response.Header.Get("X-Stream-Protocol-Version") == "" {
				t.Fatalf("got %d %v", response.StatusCode, response.Header)
			}
			if response.Header.Get("X-Super") != "" {
				t.Errorf("a header of the super cluster passed: %v", response.Header)
			}
			_, _ = fmt.Fprint(conn, "ping\n")
			if line, err := reader.ReadString('\n'); err != nil || line != "ping\n" {
				t.Errorf("got %q %v", line, err)
			}
			if _, err := reader.ReadByte(); err != io.EOF {
				t.Errorf("the stream did not end: %v", err)
			}

			r := w.super.last()
			want := "/api/v1/namespaces/" + names.SuperNamespace(tenantA(), "shop") + "/pods/web/" + tc.wantPath
			if diff := cmp.Diff(want, r.URL.String()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			wantHeader := http.Header{
				"Accept": {"*/*"}, "Authorization": {"Bearer vn-agent-token"}, "Connection": {"Upgrade"}, "Upgrade": {tc.upgrade},
				"User-Agent": {fmt.Sprintf("vn-agent (tenant %s)", tenantA())},
			}
			if tc.upgrade == "websocket" {
				wantHeader["Sec-Websocket-Key"], wantHeader["Sec-Websocket-Version"] = []string{""}, []string{"13"}
			}
			if tc.method == "POST" {
				wantHeader["Content-Length"] = []string{"0"}
			}
			if diff := cmp.Diff(wantHeader, r.Header); diff != "" {
				t.Errorf("headers, -want +got:\n%s", diff)
			}
		})
	}
}

func TestRefusalsAreTranslated(t *testing.T) {
	super := names.SuperNamespace(tenantA(), "shop")
	w := newWorld(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("container") == "forbidden" {
			status(w, http.StatusForbidden, "vn-agent may not in "+super)
			return
		}
		status(w, http.StatusBadRequest, `container not found in `+super+`/web`)
	})
	config := w.tls(w.clients.issue(t, tenantA()))
	for name, tc := range map[string]struct {
		method, path string
		header       http.Header
		wantCode     int
		wantBody     string
	}{
		"Logs":         {"GET", "/containerLogs/shop/web/app", nil, 400, "container not found in shop/web"},
		"Exec":         {"POST", "/exec/shop/web/app?output=1&command=ls", upgrade("SPDY/3.1"), 400, "container not found in shop/web"},
		"Forbidden":    {"GET", "/containerLogs/shop/web/forbidden", nil, 403, messageForbidden},
		"NotAnUpgrade": {"POST", "/exec/shop/web/app?command=ls", nil, 400, "Upgrade request required"},
	} {
		t.Run(name, func(t *testing.T) {
			code, body, err := w.do(t, config, tc.method, tc.path, tc.header)
			if err != nil || code != tc.wantCode || body != tc.wantBody {
				t.Errorf("got %d %q %v", code, body, err)
			}
		})
	}
}

// A line of a followed log arrives when it is written, and the super cluster notices when the reader goes away.
func TestLogsAreFollowed(t *testing.T) {
	next, gone := make(chan struct{}), make(chan struct{})
	w := newWorld(t, func(w http.ResponseWriter, r *http.Request) {
		for i := range 2 {
			_, _ = fmt.Fprintf(w, "line %d\n", i)
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
			<-next
		}
		<-r.Context().Done()
		close(gone)
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, "GET", "https://"+w.address+"/containerLogs/shop/web/app?follow=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := (&http.Transport{TLSClientConfig: w.tls(w.clients.issue(t, tenantA()))}).RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, response.Body)
	lines := bufio.NewReader(response.Body)
	for i := range 2 {
		if line, err := lines.ReadString('\n'); err != nil || line != fmt.Sprintf("line %d\n", i) {
			t.Fatalf("got %q %v", line, err)
		}
		next <- struct{}{}
	}
	cancel()
	<-gone
}

// Attack V-08: huge headers.
func TestHugeHeadersAreRefused(t *testing.T) {
	w := newWorld(t, hello)
	code, _, err := w.do(t, w.tls(w.clients.issue(t, tenantA())), "GET", "/containerLogs/shop/web/app", http.Header{"X-Big": {strings.Repeat("x", maxHeaderBytes+8192)}})
	if err == nil && code != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("got %d", code)
	}
	if r := w.super.last(); r != nil {
		t.Errorf("%s reached the super cluster", r.URL)
	}
}

// One tenant with too many streams does not keep another from opening one.
func TestOpenCallsAreLimitedPerTenant(t *testing.T) {
	c := &calls{}
	for range maxCallsPerTenant {
		if !c.begin(tenantA()) {
			t.Fatal("refused below the limit")
		}
	}
	if c.begin(tenantA()) {
		t.Error("accepted above the limit")
	}
	if !c.begin(tenantB()) {
		t.Error("another tenant was refused")
	}
	c.end(tenantA())
	if !c.begin(tenantA()) {
		t.Error("refused although one had ended")
	}
	for range maxCallsPerTenant {
		c.end(tenantA())
	}
	c.end(tenantB())
	if len(c.open) != 0 {
		t.Errorf("tenants without calls are remembered: %v", c.open)
	}
}

// sign issues the serving certificate that was asked for.
func (a *authority) sign(t *testing.T, request *x509.CertificateRequest) []byte {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(3), Subject: request.Subject, IPAddresses: request.IPAddresses, DNSNames: request.DNSNames,
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, request.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
