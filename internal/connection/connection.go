// Package connection makes HTTP clients for API servers that are not trusted. A tenant may have broken into its API server,
// or own it, so each answer is hostile until proven otherwise: it has a bounded weight, its headers and its time are bounded,
// and it leads nowhere else. It knows no kinds and no tenants; vc-manager, vc-syncer and vn-agent use it for all that they
// send to tenants.
package connection

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"k8s.io/client-go/rest"
)

const (
	// DefaultMaxAnswer is how many bytes an answer, or an event of a watch, may weigh unless Options say otherwise. The
	// decoders of client-go take events of as many bytes.
	DefaultMaxAnswer = 16 << 20

	// dialTimeout is for a connection, handshakeTimeout for its TLS handshake, and headerTimeout for the headers of an answer,
	// also those of a watch.
	dialTimeout      = 10 * time.Second
	handshakeTimeout = 10 * time.Second
	headerTimeout    = 30 * time.Second
	// requestTimeout bounds a request that is not a watch, its answer included, however long its caller would wait.
	requestTimeout = 2 * time.Minute
	// idleTimeout is how long a connection may be silent before it is asked for a sign of life, and pingTimeout how long it
	// may take to give one. Both are for HTTP/2.
	idleTimeout = 30 * time.Second
	pingTimeout = 15 * time.Second
	// keepTimeout is how long a connection without requests is kept.
	keepTimeout = 90 * time.Second
	// maxHeaders bounds the bytes of the headers of an answer.
	maxHeaders = 64 << 10
)

// Options say how to reach an API server, and what to take from it.
type Options struct {
	// Config names the API server and holds the credentials. Its Dial is used, if it has one. Its limits of rate and its Timeout
	// are the business of the clients that are made with it.
	Config *rest.Config
	// MaxAnswer is how many bytes an answer, or an event of a watch, may weigh. A byte weighs one; each object, list and value
	// in it weighs what memory it takes at least. Zero means DefaultMaxAnswer.
	MaxAnswer int64

	headerTimeout time.Duration
}

// New returns an HTTP client for the API server, and the configuration to make Kubernetes clients on top of it. Its owner
// calls CloseIdleConnections of the HTTP client when it is not needed any more. Errors complete the sentence "the API server
// cannot be connected to: ...".
//
// Without a Dial, connections go through the proxy that the environment of the process names, if it does: that is the
// operator's. A proxy in the configuration is refused, since that may be the tenant's.
func New(o Options) (*http.Client, *rest.Config, error) {
	config := rest.CopyConfig(o.Config)
	switch {
	case config.Proxy != nil:
		return nil, nil, errors.New("its configuration names a proxy; set HTTPS_PROXY for the process instead")
	case config.ExecProvider != nil || config.AuthProvider != nil:
		return nil, nil, errors.New("its configuration runs a program to log in; use a token or a client certificate")
	case config.Transport != nil:
		return nil, nil, errors.New("its configuration brings its own transport, which would not be bounded")
	}
	tls, err := rest.TLSConfigFor(config)
	if err != nil {
		return nil, nil, fmt.Errorf("reading its certificates: %w", err)
	}
	transport := &http.Transport{
		TLSClientConfig:        tls,
		DialContext:            config.Dial,
		ForceAttemptHTTP2:      true,
		TLSHandshakeTimeout:    handshakeTimeout,
		ResponseHeaderTimeout:  cmp.Or(o.headerTimeout, headerTimeout),
		MaxResponseHeaderBytes: maxHeaders,
		IdleConnTimeout:        keepTimeout,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: idleTimeout, PingTimeout: pingTimeout},
	}
	if transport.DialContext == nil {
		transport.DialContext = (&net.Dialer{Timeout: dialTimeout}).DialContext
		transport.Proxy = http.ProxyFromEnvironment
	}
	authenticating, err := rest.HTTPWrappersForConfig(config, transport)
	if err != nil {
		return nil, nil, fmt.Errorf("reading its credentials: %w", err)
	}
	config.WarningHandler = nil
	config.WarningHandlerWithContext = rest.NoWarnings{} // they are for whoever wrote the request, and the server chooses the text
	return &http.Client{
		Timeout: config.Timeout,
		Transport: &guard{
			next: authenticating, transport: transport,
			max: cmp.Or(o.MaxAnswer, DefaultMaxAnswer), heavy: make(chan struct{}, 1),
		},
		// The guard refuses redirects; this is for those who look at the client.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, config, nil
}

// place names the API server and what was asked of it, without parameters and credentials.
func place(u *url.URL) string { return u.Host + u.EscapedPath() }
