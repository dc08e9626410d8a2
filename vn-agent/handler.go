package vnagent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

const (
	// answerTimeout bounds the time until the super kube-apiserver has accepted or refused a stream. Logs are excluded:
	// the first byte of a silent container may come any time later.
	answerTimeout = 30 * time.Second
	// maxErrorBody is how much of a refusal is read.
	maxErrorBody = 64 << 10
	// maxCallsPerTenant bounds what one tenant can hold open on this node.
	maxCallsPerTenant = 512
)

// handler answers authenticated requests.
type handler struct {
	owner     owner
	super     *url.URL
	transport http.RoundTripper
	measure   *measurements
	tokens    *tokens
	calls     calls
	metrics   *metrics
	logger    logr.Logger
}

// newHandler returns a handler that uses the credentials of the given configuration.
func newHandler(super *rest.Config, options Options, metrics *metrics, logger logr.Logger) (*handler, error) {
	client, err := kubernetes.NewForConfig(super) //nolint:forbidigo // Of the super cluster.
	if err != nil {
		return nil, fmt.Errorf("creating a client of the super cluster: %w", err)
	}
	address, _, err := rest.DefaultServerUrlFor(super)
	if err != nil {
		return nil, fmt.Errorf("reading the address of the super cluster: %w", err)
	}
	streams := rest.CopyConfig(super)
	// Connections cannot be upgraded in HTTP/2, and compression would hold back the lines of a log.
	streams.NextProtos = []string{"http/1.1"}
	streams.DisableCompression = true
	transport, err := rest.TransportFor(streams) //nolint:forbidigo // Of the super cluster.
	if err != nil {
		return nil, fmt.Errorf("creating a transport to the super cluster: %w", err)
	}
	kubelet, err := newKubelet(super, client, options)
	if err != nil {
		return nil, err
	}
	owner := owner{super: client, nodeName: options.NodeName}
	return &handler{
		owner:     owner,
		measure:   newMeasurements(kubelet, owner),
		tokens:    newTokens(client, options),
		super:     address,
		transport: transport,
		metrics:   metrics,
		logger:    logger,
	}, nil
}

// ServeHTTP answers one call, or refuses it in the tenant's terms.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	verb, aboutNode := ParseNodeVerb(r.Method, r.URL.EscapedPath())
	if token, ok := bearer(r); ok {
		h.serveToken(w, r, token, verb, aboutNode)
		return
	}
	tenant, err := TenantOf(r.TLS)
	if err != nil {
		h.logger.Info("Rejected a client", "why", err.Error())
		h.refuse(w, "", unauthorized())
		return
	}
	if aboutNode {
		h.serveNode(w, r, tenant, verb)
		return
	}
	// Names need no escaping, so an escaped path is none of ours.
	call, err := ParseCall(r.Method, r.URL.EscapedPath())
	if err != nil {
		h.refuse(w, "", err)
		return
	}
	if !h.calls.begin(tenant) {
		h.refuse(w, call.Verb, &RequestError{Code: http.StatusTooManyRequests, Message: "too many open streams to this node"})
		return
	}
	defer h.calls.end(tenant)
	defer h.metrics.begin(call.Verb)()

	logger := h.logger.WithValues("tenant", tenant, "verb", call.Verb, "namespace", call.Namespace, "pod", call.Pod, "container", call.Container)
	out, superNamespace, err := h.prepare(r, tenant, call)
	if err != nil {
		if refusal := forTenant(err); refusal.Code >= http.StatusInternalServerError {
			logger.Error(err, "Failed to prepare a call")
		}
		h.refuse(w, call.Verb, err)
		return
	}
	if call.Streaming() {
		logger.Info("Opening a stream")
	}
	h.forward(w, r, out, call, superNamespace, logger)
}

// serveToken answers a call of somebody in a tenant who has a token and no certificate. It opens nothing but measurements:
// for the rest, only API servers come here.
func (h *handler) serveToken(w http.ResponseWriter, r *http.Request, token string, verb Verb, aboutNode bool) {
	if !aboutNode {
		h.refuse(w, "", unauthorized())
		return
	}
	tenant, err := h.tokens.tenant(r.Context(), token, verb)
	if err != nil {
		h.logger.V(1).Info("Rejected a token", "why", err.Error())
		h.refuse(w, verb, err)
		return
	}
	h.serveNode(w, r, tenant, verb)
}

// serveNode answers a call about the tenant's part of the node.
func (h *handler) serveNode(w http.ResponseWriter, r *http.Request, tenant names.TenantID, verb Verb) {
	if !h.calls.begin(tenant) {
		h.refuse(w, verb, busy())
		return
	}
	defer h.calls.end(tenant)
	defer h.metrics.begin(verb)()

	body, contentType := []byte("ok"), "text/plain; charset=utf-8"
	if verb != Healthz {
		var err error
		if body, contentType, err = h.measure.get(r.Context(), tenant, verb, r.URL.Query()); err != nil {
			if r.Context().Err() == nil {
				h.logger.Error(err, "Failed to measure", "tenant", tenant, "verb", verb)
			}
			h.refuse(w, verb, err)
			return
		}
	}
	h.metrics.done(verb, http.StatusOK)
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	// The client may have gone.
	_, _ = w.Write(body)
}

// prepare checks that the tenant may make the call and returns the request to send instead of the one received.
func (h *handler) prepare(r *http.Request, tenant names.TenantID, call Call) (*http.Request, string, error) {
	header, err := call.Headers(r.Header)
	if err != nil {
		return nil, "", err
	}
	superNamespace, err := h.owner.superNamespace(r.Context(), tenant, call)
	if err != nil {
		return nil, "", err
	}
	target, err := call.URL(h.super, superNamespace, r.URL.Query())
	if err != nil {
		return nil, "", err
	}
	// The audit log of the super cluster says by this on whose behalf vn-agent acted.
	header.Set("User-Agent", fmt.Sprintf("vn-agent (tenant %s)", tenant))
	return &http.Request{Method: r.Method, URL: target, Host: target.Host, Header: header, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}, superNamespace, nil
}

// forward sends out in place of r and copies the answer, or the two directions of the stream, until either side ends.
func (h *handler) forward(w http.ResponseWriter, r, out *http.Request, call Call, superNamespace string, logger logr.Logger) {
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	answered := func() bool { return true }
	if call.Streaming() {
		answered = time.AfterFunc(answerTimeout, func() { cancel(errors.New("no answer in time")) }).Stop
	}
	defer answered()

	proxy := &httputil.ReverseProxy{
		Transport:     h.transport,
		FlushInterval: -1,
		ErrorLog:      standardLogger(logger.V(1)),
		Rewrite:       func(p *httputil.ProxyRequest) { p.Out = out.WithContext(ctx) },
		ModifyResponse: func(response *http.Response) error {
			defer answered()
			keepHeaders(response.Header)
			expected := http.StatusOK
			if call.Streaming() {
				expected = http.StatusSwitchingProtocols
			}
			if response.StatusCode == expected {
				h.metrics.done(call.Verb, expected)
				return nil
			}
			body, err := io.ReadAll(io.LimitReader(response.Body, maxErrorBody))
			if err != nil {
				return fmt.Errorf("reading a refusal: %w", err)
			}
			refusal := TranslateError(response.StatusCode, response.Header.Get("Content-Type"), body, superNamespace, call.Namespace)
			logger.Info("The super cluster refused a call", "code", response.StatusCode, "body", string(body), "told", refusal.Message)
			return refusal
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			if _, ok := errors.AsType[*RequestError](err); !ok && r.Context().Err() == nil {
				logger.Error(err, "Failed to forward a call")
			}
			h.refuse(w, call.Verb, err)
		},
	}
	proxy.ServeHTTP(w, r.WithContext(ctx))
}

// refuse answers with an error, as plain text like a kubelet does.
func (h *handler) refuse(w http.ResponseWriter, verb Verb, err error) {
	refusal := forTenant(err)
	h.metrics.done(verb, refusal.Code)
	http.Error(w, refusal.Message, refusal.Code)
}
