package syncer_test

import (
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/virtualcluster-io/virtualcluster/syncer"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

// hostile is an API server whose lists and watches of the core group do not end; whatever else it is asked, it answers as
// the API server behind it does.
type hostile struct {
	behind http.Handler
	sent   atomic.Int64 // bytes
}

// enough is how many bytes a hostile API server sends; after that it only hangs, for the sake of the machine.
const enough = 1 << 30

func (h *hostile) ServeHTTP(out http.ResponseWriter, in *http.Request) {
	collection, core := strings.CutPrefix(in.URL.Path, "/api/v1/")
	if !core || strings.Contains(collection, "/") || in.Method != http.MethodGet {
		h.behind.ServeHTTP(out, in)
		return
	}
	out.Header().Set("Content-Type", "application/json")
	begin, item := `{"kind":"List","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[`, `{"metadata":{"name":"x","annotations":{"a":"`+strings.Repeat("x", 64<<10)+`"}}},`
	if in.URL.Query().Get("watch") != "" {
		begin, item = `{"type":"ADDED","object":{"metadata":{"annotations":{"a":"`, strings.Repeat("x", 64<<10)
	}
	_, err := io.WriteString(out, begin)
	for err == nil && h.sent.Add(int64(len(item))) < enough {
		_, err = io.WriteString(out, item)
	}
	<-in.Context().Done()
}

// before puts a hostile API server before that of a world, and returns it with a kubeconfig that leads there.
func before(t *testing.T, world *worlds.World) (*hostile, []byte) {
	t.Helper()
	target, err := url.Parse(world.Config.Host)
	if err != nil {
		t.Fatal(err)
	}
	transport, err := rest.TransportFor(world.Config)
	if err != nil {
		t.Fatal(err)
	}
	h := &hostile{behind: &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Header.Del("Authorization")
		},
		Transport: transport, FlushInterval: -1,
	}}
	server := httptest.NewUnstartedServer(h)
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	config := clientcmdapi.NewConfig()
	config.Clusters["c"] = &clientcmdapi.Cluster{
		Server:                   server.URL,
		CertificateAuthorityData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}),
	}
	config.AuthInfos["u"] = &clientcmdapi.AuthInfo{Token: "t"}
	config.Contexts["x"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	config.CurrentContext = "x"
	kubeconfig, err := clientcmd.Write(*config)
	if err != nil {
		t.Fatal(err)
	}
	return h, kubeconfig
}

// heap returns how many bytes are in use, and not only not collected yet.
func heap() int64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

// An API server whose answers do not end harms its own tenant only: the memory of the syncer does not grow by what it sends,
// the condition says what is wrong, and another tenant is served as ever.
func TestHostileAPIServer(t *testing.T) {
	const most = 128 << 20
	// On a busy machine, a short deadline ends before an answer is too large.
	r := start(t, func(o *syncer.Options) { o.Timeout = 10 * time.Second })
	of := r.tenants[0]
	r.namespace(t, of, "beside-hostile")

	behind := r.tenants[1].world
	h, kubeconfig := before(t, behind)
	grown := make(chan int64)
	began, ctx := heap(), t.Context()
	watching, stop := context.WithCancel(ctx)
	go func() {
		peak := began
		for watching.Err() == nil {
			peak = max(peak, heap())
			select {
			case <-watching.Done():
			case <-time.After(50 * time.Millisecond):
			}
		}
		grown <- peak - began
	}()

	bad := r.virtualCluster(t, "tenants", &worlds.World{Name: "hostile", Kubeconfig: kubeconfig, Client: behind.Client, ServiceRanges: behind.ServiceRanges})
	t.Cleanup(func() {
		if err := r.client.Delete(context.Background(), vcOf(bad)); err != nil {
			t.Error(err)
		}
	})
	r.awaitSyncing(t, bad, "False because the answer is too large", func(c *metav1.Condition) bool {
		return c.Status == metav1.ConditionFalse && strings.Contains(c.Message, "answer too large") && len(c.Message) <= 1024
	})
	worlds.Eventually(t, limit, "the API server to have sent 256 MiB", func(context.Context) error {
		if sent := h.sent.Load(); sent < 256<<20 {
			return fmt.Errorf("it has sent %d bytes", sent)
		}
		return nil
	})
	of.world.MakePod(t, worlds.Pod("beside-hostile", "web"))
	r.superPod(t, of, "beside-hostile", "web")
	r.waitFor(t, of, metav1.ConditionTrue, "Synced")
	stop()
	if by := <-grown; by > most {
		t.Errorf("the memory in use grew by %d MiB while the API server sent %d MiB", by>>20, h.sent.Load()>>20)
	}
}
