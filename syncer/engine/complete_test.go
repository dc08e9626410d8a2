package engine

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/virtualcluster-io/virtualcluster/syncer/cluster"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/tenants"
)

// What uses an object may go while the object is read, and come back: the object has not changed by then, and has no replica.
func TestUserGoesDuringTheRead(t *testing.T) {
	used, reads := true, 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if reads++; reads == 1 {
			used = false
		}
		w.Header().Set("Content-Type", "application/json")
		if _, err := w.Write([]byte(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"namespace":"ns","name":"c","uid":"1","resourceVersion":"7"}}`)); err != nil {
			t.Error(err)
		}
	}))
	defer server.Close()
	client, err := cluster.NewClient(&rest.Config{Host: server.URL}, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	roster := map[string]*kindState{}
	e := &Engine{super: client, compared: &compared{}, now: time.Now}
	if e.metrics, err = newMetrics(prometheus.NewRegistry(), e); err != nil {
		t.Fatal(err)
	}
	e.roster.Store(&roster)
	w := &kindState{Kind: resource.Kind{Name: "configmaps", Decide: func(v resource.View, _ resource.Key, _, _ resource.Object) ([]resource.Op, error) {
		switch {
		case !used:
			return nil, nil
		case !v.Live:
			return nil, &resource.Incomplete{}
		}
		return []resource.Op{{Verb: resource.Create}}, nil
	}}}
	decide := func() []resource.Op {
		cached := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "c", UID: "1", ResourceVersion: "7"}}
		ops, _, _, err := e.decide(t.Context(), &tenants.Tenant{Client: client}, w, resource.View{}, resource.Key{Namespace: "ns", Name: "c"}, cached, nil)
		if err != nil {
			t.Fatal(err)
		}
		return ops
	}
	if ops := decide(); len(ops) != 0 || used {
		t.Fatalf("unused: %v, used is %v", ops, used)
	}
	used = true
	if ops := decide(); len(ops) != 1 {
		t.Errorf("used again: %v, want its creation", ops)
	}
}
