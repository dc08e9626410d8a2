package tenants

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"

	"github.com/virtualcluster-io/virtualcluster/syncer/cluster"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// told is a listener that notes what it is told of a tenant that is in sync.
type told struct {
	working
	messages []string
}

func (l *told) Moved(_ *Tenant, state State, message string) {
	l.messages = append(l.messages, string(state)+": "+message)
}

// A control plane may answer, and let nobody read what changes in it. That is told once it lasts, and when it is over.
func TestCachesThatAreNotKeptCurrent(t *testing.T) {
	broken, failed, filled := atomic.Bool{}, make(chan struct{}, 100), make(chan struct{}, 100)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case broken.Load():
			http.Error(w, "the storage is broken", http.StatusInternalServerError)
		case r.URL.Query().Get("watch") != "" && r.URL.Query().Get("sendInitialEvents") != "":
			http.Error(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Invalid","code":422}`, http.StatusUnprocessableEntity)
		case r.URL.Query().Get("watch") != "":
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
			filled <- struct{}{}
			<-r.Context().Done()
		default:
			_, _ = fmt.Fprint(w, `{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"7"},"items":[]}`) // the client is ours
		}
	}))
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel() // before the server waits for its watches
	client, err := cluster.NewUntrusted(&rest.Config{Host: server.URL}, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	kind := resource.Of(resource.Resource[*corev1.ConfigMap]{
		Name: "configmaps", GVK: corev1.SchemeGroupVersion.WithKind("ConfigMap"), New: func() *corev1.ConfigMap { return &corev1.ConfigMap{} },
	})
	w := &watch{kind: kind}
	if w.cache, err = client.NewCache(cluster.CacheOptions{Kind: kind, Failed: func(error) { failed <- struct{}{} }}); err != nil {
		t.Fatal(err)
	}
	listener := &told{}
	of := &Tenant{listener: listener, options: Options{Probe: time.Nanosecond}}
	of.state.Store(Connecting)
	of.watches.Store(&map[string]*watch{"configmaps": w})
	go w.cache.Run(ctx) // ends with the context
	<-filled
	of.synced()
	if of.Stale() {
		t.Fatalf("it is stale while it is watched: %s", of.Message())
	}
	broken.Store(true)
	server.CloseClientConnections()
	for len(failed) > 0 {
		<-failed
	}
	<-failed // and not at once: the second look is later than the failure
	of.synced()
	of.synced()
	if !of.Stale() || of.State() != Synced {
		t.Fatalf("it is %s, and not stale: %s", of.State(), of.Message())
	}
	broken.Store(false)
	<-filled // there was one watch before, and none since
	of.synced()
	if of.Stale() {
		t.Errorf("it is still stale: %s", of.Message())
	}
	want := []string{"Synced: all caches are current", "Synced: configmaps of the control plane cannot be read since ", "Synced: all caches are current"}
	if len(listener.messages) != len(want) {
		t.Fatalf("told %q", listener.messages)
	}
	for i, message := range listener.messages {
		if !strings.HasPrefix(message, want[i]) {
			t.Errorf("told %q, want %q", message, want[i])
		}
	}
}
