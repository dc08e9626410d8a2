package syncer

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/engine"
)

// serveTraces serves at an address, while this replica leads, what is known about single objects. The address should be a
// loopback one: whoever may forward a port to the pod then reaches it, and nobody else.
func serveTraces(mgr manager.Manager, address string, trace tracer) error {
	mux := http.NewServeMux()
	mux.Handle("GET "+names.TracePath, trace)
	timeout := 10 * time.Second
	server := &http.Server{Addr: address, Handler: mux, ReadTimeout: timeout, WriteTimeout: timeout, MaxHeaderBytes: 1 << 14}
	if err := mgr.Add(&manager.Server{Name: "traces", Server: server, OnlyServeWhenLeader: true, ShutdownTimeout: &timeout}); err != nil {
		return fmt.Errorf("adding the server of traces: %w", err)
	}
	return nil
}

// tracer answers GET requests about one object with a Trace.
type tracer func(id names.TenantID, kind, namespace, name string) (*engine.Trace, error)

// ServeHTTP implements http.Handler.
func (f tracer) ServeHTTP(out http.ResponseWriter, in *http.Request) {
	asked := in.URL.Query()
	trace, err := f(names.TenantID(asked.Get("tenant")), asked.Get("kind"), asked.Get("namespace"), asked.Get("name"))
	if err != nil {
		http.Error(out, err.Error(), http.StatusNotFound)
		return
	}
	out.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(out).Encode(trace); err != nil {
		log.FromContext(in.Context()).V(1).Info("Cannot answer", "error", err.Error())
	}
}
