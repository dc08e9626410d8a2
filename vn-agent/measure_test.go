package vnagent

import (
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// kubeletServer is a kubelet as far as vn-agent sees one.
type kubeletServer struct {
	url    string
	caFile string

	mu sync.Mutex
	// answers by request URI; others are not found.
	answers  map[string]http.HandlerFunc
	requests []*http.Request
}

func newKubeletServer(t *testing.T) *kubeletServer {
	t.Helper()
	k := &kubeletServer{caFile: filepath.Join(t.TempDir(), "kubelet-ca.crt"), answers: map[string]http.HandlerFunc{}}
	server := httptest.NewTLSServer(k)
	t.Cleanup(server.Close)
	k.url = server.URL
	if err := os.WriteFile(k.caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return k
}

func (k *kubeletServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	k.requests = append(k.requests, r)
	answer, ok := k.answers[r.URL.RequestURI()]
	k.mu.Unlock()
	if !ok {
		http.NotFound(w, r)
		return
	}
	answer(w, r)
}

// answer makes the kubelet answer with a text.
func (k *kubeletServer) answer(uri, text string) {
	k.answerWith(uri, func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, text) })
}

func (k *kubeletServer) answerWith(uri string, handler http.HandlerFunc) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.answers[uri] = handler
}

// asked returns what was asked, in order.
func (k *kubeletServer) asked() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []string
	for _, r := range k.requests {
		out = append(out, r.Method+" "+r.URL.RequestURI())
	}
	return out
}

// addNode makes the node whose kubelet is the given one.
func (s *superCluster) addNode(t *testing.T, k *kubeletServer, change ...func(*corev1.Node)) {
	t.Helper()
	address, err := url.Parse(k.url)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.ParseInt(address.Port(), 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	node := &corev1.Node{
		TypeMeta:   metav1.TypeMeta{Kind: "Node", APIVersion: "v1"},
		ObjectMeta: metav1.ObjectMeta{Name: thisNode},
		Status: corev1.NodeStatus{
			Addresses:       []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: thisNode}, {Type: corev1.NodeInternalIP, Address: address.Hostname()}},
			DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: int32(port)}},
		},
	}
	for _, c := range change {
		c(node)
	}
	s.objects["/api/v1/nodes/"+thisNode] = node
}

func memory(namespace, pod string, value int) string {
	return fmt.Sprintf("pod_memory_working_set_bytes{namespace=%q,pod=%q} %d 5\n", namespace, pod, value)
}

func withUID(uid types.UID) func(*corev1.Pod) { return func(p *corev1.Pod) { p.UID = uid } }

// Attack V-04: each tenant gets its own part of what the kubelet measures, and nothing about pods that are not provably
// its own and here.
func TestMeasurementsAreReduced(t *testing.T) {
	w := newWorld(t, hello)
	a, b := names.SuperNamespace(tenantA(), "shop"), names.SuperNamespace(tenantB(), "shop")
	w.super.addPod(tenantA(), "shop", "web", withUID("super-a"))
	w.super.addPod(tenantB(), "shop", "web", withUID("super-b"))
	w.super.addPod(tenantA(), "shop", "elsewhere", func(p *corev1.Pod) { p.Spec.NodeName = "node-2" })
	w.super.addPod(tenantA(), "shop", "relabelled", func(p *corev1.Pod) { p.Labels[names.LabelTenant] = string(tenantB()) })
	w.super.addPod(tenantA(), "shop", "unlabelled", func(p *corev1.Pod) { p.Labels = nil })
	w.super.addNamespace(tenantA(), "squatted", func(n *corev1.Namespace) { n.Labels, n.Annotations = nil, nil })
	w.super.addPod(tenantA(), "squatted", "web")
	w.super.addNamespace(tenantA(), "renamed", func(n *corev1.Namespace) { n.Annotations[names.AnnotationNamespace] = "shop" })
	w.super.addPod(tenantA(), "renamed", "web")
	// A root namespace has the label of the tenant, too.
	root := &corev1.Namespace{TypeMeta: metav1.TypeMeta{Kind: "Namespace", APIVersion: "v1"}, ObjectMeta: metav1.ObjectMeta{Name: string(tenantA()), Labels: map[string]string{names.LabelTenant: string(tenantA())}}}
	w.super.objects["/api/v1/namespaces/"+root.Name] = root

	text := "node_memory_working_set_bytes 100000 4\n" + memory(a, "web", 1000) + memory(b, "web", 7777) + memory("kube-system", "dns", 7777) + memory(root.Name, "etcd-0", 7777)
	for _, pod := range []string{"elsewhere", "relabelled", "unlabelled", "deleted"} {
		text += memory(a, pod, 7777)
	}
	for _, namespace := range []string{"squatted", "renamed", "missing"} {
		text += memory(names.SuperNamespace(tenantA(), namespace), "web", 7777)
	}
	w.kubelet.answer("/metrics/resource", text)
	w.kubelet.answer("/metrics/probes", `p{namespace="`+a+`",pod="web",pod_uid="super-a"} 1`+"\n"+`p{namespace="`+a+`",pod="web",pod_uid="super-b"} 7777`+"\n")
	w.kubelet.answer("/metrics/cadvisor", `c{id="/",namespace="",pod=""} 7777`+"\n"+`c{id="/x",namespace="`+a+`",pod="web"} 1`+"\n")
	summary := fmt.Sprintf(`{"node": {"nodeName": "node-1"}, "pods": [{"podRef": {"name": "web", "namespace": %q, "uid": "super-a"}, "network": {"name": "eth0"}}, {"podRef": {"name": "web", "namespace": %q, "uid": "super-b"}}]}`, a, b)
	w.kubelet.answer("/stats/summary", summary)
	w.kubelet.answer("/stats/summary?only_cpu_and_memory=true", summary)

	config := w.tls(w.clients.issue(t, tenantA()))
	for path, want := range map[string]string{
		"/metrics/resource": "node_memory_working_set_bytes 1000 5\n" + `pod_memory_working_set_bytes{namespace="shop",pod="web"} 1000 5`,
		"/metrics/probes":   `p{namespace="shop",pod="web",pod_uid="tenant-uid"} 1`,
		"/metrics/cadvisor": `c{namespace="shop",pod="web"} 1`,
		"/healthz":          "ok",
	} {
		code, body, err := w.do(t, config, "GET", path+"?x=../y", nil)
		if err != nil || code != http.StatusOK {
			t.Errorf("%s: %d %q %v", path, code, body, err)
		}
		if diff := cmp.Diff(want, body); diff != "" {
			t.Errorf("%s: -want +got:\n%s", path, diff)
		}
	}
	for path, network := range map[string]bool{"/stats/summary": true, "/stats/summary?only_cpu_and_memory=true": false} {
		code, body, err := w.do(t, config, "GET", path, nil)
		if err != nil || code != http.StatusOK || !strings.Contains(body, `{"name":"web","namespace":"shop","uid":"tenant-uid"}`) || strings.Contains(body, "eth0") != network {
			t.Errorf("%s: %d %q %v", path, code, body, err)
		}
		for _, foreign := range []string{a, b, "super-"} {
			if strings.Contains(body, foreign) {
				t.Errorf("%s names %s: %s", path, foreign, body)
			}
		}
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "HEAD", "OPTIONS"} {
		if code, _, err := w.do(t, config, method, "/metrics/resource", nil); err != nil || code != http.StatusNotFound {
			t.Errorf("%s: %d %v", method, code, err)
		}
	}
	_, other, err := w.do(t, w.tls(w.clients.issue(t, tenantB())), "GET", "/metrics/resource", nil)
	if want := "node_memory_working_set_bytes 7777 5\n" + `pod_memory_working_set_bytes{namespace="shop",pod="web"} 7777 5`; err != nil || other != want {
		t.Errorf("the other tenant got %q, %v", other, err)
	}
	nobody, _, err := w.do(t, w.tls(w.clients.issue(t, "nobody")), "GET", "/metrics/resource", nil)
	if err != nil || nobody != http.StatusOK {
		t.Errorf("a tenant without pods got %d, %v", nobody, err)
	}
	for _, r := range w.kubelet.requests {
		if got := r.Header.Get("Authorization"); got != "Bearer vn-agent-token" {
			t.Errorf("the kubelet was asked with %q", got)
		}
	}
	if r := w.super.last(); r != nil {
		t.Errorf("%s reached the super cluster", r.URL)
	}
}

// A pod that was made again under its name is a new pod at once where the kubelet tells its UID.
func TestPodMadeAgain(t *testing.T) {
	w := newWorld(t, hello)
	config := w.tls(w.clients.issue(t, tenantA()))
	a := names.SuperNamespace(tenantA(), "shop")
	for i, path := range []string{"/stats/summary", "/stats/summary?only_cpu_and_memory=true"} {
		uid := fmt.Sprintf("%d", i)
		w.super.addPod(tenantA(), "shop", "web", withUID(types.UID("super-"+uid)), func(p *corev1.Pod) { p.Annotations[names.AnnotationUID] = "tenant-" + uid })
		w.kubelet.answer(path, fmt.Sprintf(`{"node": {}, "pods": [{"podRef": {"name": "web", "namespace": %q, "uid": "super-%s"}}]}`, a, uid))
		if _, body, err := w.do(t, config, "GET", path, nil); err != nil || !strings.Contains(body, "tenant-"+uid) {
			t.Errorf("%d: %q %v", i, body, err)
		}
	}
}

// Attack V-10, and what else may be wrong with the kubelet: the tenant is told nothing of it.
func TestKubeletFails(t *testing.T) {
	other := newKubeletServer(t)
	for name, tc := range map[string]struct {
		options func(*Options)
		node    func(*corev1.Node)
		answer  http.HandlerFunc
		want    int
		// reached says whether the kubelet may have been asked.
		reached bool
	}{
		"Good":        {answer: hello, want: 200, reached: true},
		"OtherCA":     {options: func(o *Options) { o.KubeletCAFile = otherCA(t) }, answer: hello, want: 503},
		"NotVerified": {options: func(o *Options) { o.KubeletCAFile, o.KubeletInsecureTLS = "", true }, answer: hello, want: 200, reached: true},
		"NotVerifiedAndNotHere": {
			options: func(o *Options) { o.KubeletCAFile, o.KubeletInsecureTLS = "", true },
			node:    func(n *corev1.Node) { n.Status.Addresses[1].Address = "192.0.2.1" }, answer: hello, want: 503,
		},
		"NoAddress": {node: func(n *corev1.Node) { n.Status.Addresses = nil }, answer: hello, want: 503},
		"Forbidden": {answer: func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "secret", http.StatusForbidden) }, want: 503, reached: true},
		"Redirect": {answer: func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other.url+"/metrics/resource", http.StatusFound)
		}, want: 503, reached: true},
		"TooLong": {answer: func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(make([]byte, maxMeasured+1))
		}, want: 503, reached: true},
	} {
		t.Run(name, func(t *testing.T) {
			var options []func(*Options)
			if tc.options != nil {
				options = append(options, tc.options)
			}
			w := newWorld(t, hello, options...)
			if tc.node != nil {
				w.super.addNode(t, w.kubelet, tc.node)
			}
			w.kubelet.answerWith("/metrics/resource", tc.answer)
			code, body, err := w.do(t, w.tls(w.clients.issue(t, tenantA())), "GET", "/metrics/resource", nil)
			if err != nil || code != tc.want || code != http.StatusOK && body != messageUnavailable {
				t.Errorf("got %d %q %v", code, body, err)
			}
			if asked := w.kubelet.asked(); (len(asked) > 0) != tc.reached {
				t.Errorf("the kubelet was asked for %v", asked)
			}
			if asked := other.asked(); len(asked) > 0 {
				t.Errorf("the redirect was followed: %v", asked)
			}
		})
	}
}

// otherCA is a CA that has not signed the kubelet's certificate.
func otherCA(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(file, newAuthority(t, "other").pem(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// A flood of requests asks the kubelet once, and looks up a pod once.
func TestFloodAsksTheKubeletOnce(t *testing.T) {
	w := newWorld(t, hello)
	a := names.SuperNamespace(tenantA(), "shop")
	release := make(chan struct{})
	w.kubelet.answerWith("/metrics/cadvisor", func(w http.ResponseWriter, _ *http.Request) {
		<-release
		_, _ = fmt.Fprint(w, memory(a, "web", 1))
	})
	configs := []names.TenantID{tenantA(), tenantB()}
	var waiting sync.WaitGroup
	for i := range 20 {
		config := w.tls(w.clients.issue(t, configs[i%2]))
		waiting.Go(func() {
			if code, body, err := w.do(t, config, "GET", "/metrics/cadvisor", nil); err != nil || code != http.StatusOK {
				t.Errorf("got %d %q %v", code, body, err)
			}
		})
	}
	close(release)
	waiting.Wait()
	if asked := w.kubelet.asked(); len(asked) > 2 {
		t.Errorf("the kubelet was asked %d times", len(asked))
	}
}

func TestKubeletOptionsExclude(t *testing.T) {
	if _, err := newKubelet(nil, nil, Options{KubeletCAFile: "f", KubeletInsecureTLS: true}); err == nil {
		t.Error("a kubelet was both verified and not")
	}
}

func TestLocalAddresses(t *testing.T) {
	for address, want := range map[string]bool{"127.0.0.1": true, net.IPv6loopback.String(): true, "192.0.2.1": false, "": false, "localhost": false} {
		if err := local(address); (err == nil) != want {
			t.Errorf("%q: %v", address, err)
		}
	}
}
