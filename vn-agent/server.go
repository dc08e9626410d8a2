package vnagent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

const (
	// maxHeaderBytes also bounds the request line, which carries the command of an exec.
	maxHeaderBytes    = 256 << 10
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 90 * time.Second
	// shutdownTimeout is how long requests may go on after the end was asked for. Upgraded connections end at once.
	shutdownTimeout = 10 * time.Second
)

// Options of a vn-agent.
type Options struct {
	// Super reaches the super kube-apiserver.
	Super *rest.Config
	// NodeName is the super node that this vn-agent answers for.
	NodeName string
	// BindAddress is where tenants' kube-apiservers connect; HealthAddress serves health and metrics without
	// authentication and so belongs on the loopback interface.
	BindAddress, HealthAddress string
	// ClientCAFile holds the CAs that may vouch for tenants.
	ClientCAFile string
	// TLSCertFile and TLSKeyFile hold the serving certificate. When empty, it is requested from the super cluster.
	TLSCertFile, TLSKeyFile string
	// Namespace is where vc-manager writes how to verify tokens of tenants.
	Namespace string
	// KubeletCAFile holds the CAs that the kubelet's serving certificate is verified with; when empty, those of the super
	// cluster are. With KubeletInsecureTLS it is not verified, and only a kubelet at an address of this machine is asked.
	KubeletCAFile      string
	KubeletInsecureTLS bool
}

// Run serves until the context ends.
func Run(ctx context.Context, options Options) error {
	logger := logr.FromContextOrDiscard(ctx)
	if options.NodeName == "" {
		return errors.New("the name of the node is required")
	}
	if options.Super.Insecure {
		return errors.New("the super cluster must be verified: remove insecure-skip-tls-verify from its kubeconfig")
	}
	// Client-side rate limits would make tenants wait for each other; the super cluster protects itself.
	super := rest.CopyConfig(options.Super)
	super.QPS = -1

	trust, err := clientCAs(options.ClientCAFile, logger)
	if err != nil {
		return err
	}
	current, err := serving(ctx, super, options)
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	metrics, err := newMetrics(registry)
	if err != nil {
		return err
	}
	calls, err := newHandler(super, options, metrics, logger)
	if err != nil {
		return err
	}

	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", options.BindAddress)
	if err != nil {
		return fmt.Errorf("listening for tenants: %w", err)
	}
	health, err := (&net.ListenConfig{}).Listen(ctx, "tcp", options.HealthAddress)
	if err != nil {
		return errors.Join(fmt.Errorf("listening for health checks: %w", err), listener.Close())
	}
	logger.Info("Serving", "node", options.NodeName, "address", listener.Addr().String(), "health", health.Addr().String())
	return serve(ctx, logger,
		endpoint{newServer(calls, logger), tls.NewListener(listener, tlsConfig(trust.get, current))},
		endpoint{newServer(healthHandler(registry, current), logger), health},
	)
}

// serving returns how to get the current serving certificate.
func serving(ctx context.Context, super *rest.Config, options Options) (func() *tls.Certificate, error) {
	if options.TLSCertFile != "" || options.TLSKeyFile != "" {
		return servingFiles(options.TLSCertFile, options.TLSKeyFile, logr.FromContextOrDiscard(ctx))
	}
	client, err := kubernetes.NewForConfig(super) //nolint:forbidigo // Of the super cluster.
	if err != nil {
		return nil, fmt.Errorf("creating a client of the super cluster: %w", err)
	}
	return requestServing(ctx, client, options.NodeName)
}

// tlsConfig verifies a client certificate, if there is one, with the CAs that are trusted at the moment of the handshake.
// Who has none has a token, or is told to go.
func tlsConfig(trust func() *x509.CertPool, current func() *tls.Certificate) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			certificate := current()
			if certificate == nil {
				return nil, errors.New("no serving certificate was issued yet")
			}
			return &tls.Config{
				MinVersion:   tls.VersionTLS13,
				Certificates: []tls.Certificate{*certificate},
				ClientAuth:   tls.VerifyClientCertIfGiven,
				ClientCAs:    trust(),
				// HTTP/2 connections cannot be upgraded.
				NextProtos: []string{"http/1.1"},
				// A resumed session would outlive a CA that is not trusted any more.
				SessionTicketsDisabled: true,
			}, nil
		},
	}
}

// healthHandler serves liveness, readiness and metrics.
func healthHandler(registry *prometheus.Registry, current func() *tls.Certificate) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if current() == nil {
			http.Error(w, "no serving certificate was issued yet", http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusOK)
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	return mux
}

func newServer(handler http.Handler, logger logr.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          standardLogger(logger.V(1)),
	}
}

// endpoint is a server and where it listens.
type endpoint struct {
	server   *http.Server
	listener net.Listener
}

// serve runs the servers until the context ends or one of them fails, and then ends them all.
func serve(ctx context.Context, logger logr.Logger, endpoints ...endpoint) error {
	// Upgraded connections are out of the servers' hands: this context ends them.
	streams, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	failed := make(chan error, len(endpoints))
	for _, e := range endpoints {
		e.server.BaseContext = func(net.Listener) context.Context { return streams }
		go func() { failed <- e.server.Serve(e.listener) }()
	}

	var cause error
	select {
	case <-ctx.Done():
		logger.Info("Shutting down")
	case cause = <-failed:
	}
	deadline, stop := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer stop()
	for _, e := range endpoints {
		if err := e.server.Shutdown(deadline); err != nil {
			logger.V(1).Info("Closing connections that are still in use", "why", err.Error())
			cause = errors.Join(cause, e.server.Close())
		}
	}
	return cause
}

// standardLogger returns a logger of the standard library that writes to the given one.
func standardLogger(logger logr.Logger) *log.Logger {
	return log.New(lineWriter{logger}, "", 0)
}

// lineWriter logs what is written.
type lineWriter struct{ logger logr.Logger }

func (l lineWriter) Write(line []byte) (int, error) {
	l.logger.Info("HTTP server", "line", strings.TrimSpace(string(line)))
	return len(line), nil
}
