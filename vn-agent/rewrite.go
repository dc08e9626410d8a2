package vnagent

import (
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// Verb is one of the things that vn-agent does. Its value is bounded, so it can be a metric label.
type Verb string

// The verbs about one pod, by the first segment of their path in the kubelet API.
const (
	Logs        Verb = "containerLogs"
	Exec        Verb = "exec"
	Attach      Verb = "attach"
	PortForward Verb = "portForward"
)

// The verbs about the tenant's part of the node, by their path in the kubelet API.
const (
	Healthz         Verb = "healthz"
	StatsSummary    Verb = "stats/summary"
	ResourceMetrics Verb = "metrics/resource"
	CAdvisorMetrics Verb = "metrics/cadvisor"
	ProbeMetrics    Verb = "metrics/probes"
)

// ParseNodeVerb reads the method and path of a request about the node, and says whether it is one that is answered.
func ParseNodeVerb(method, urlPath string) (Verb, bool) {
	verb := Verb(strings.TrimPrefix(urlPath, "/"))
	known := slices.Contains([]Verb{Healthz, StatsSummary, ResourceMetrics, CAdvisorMetrics, ProbeMetrics}, verb)
	return verb, known && method == http.MethodGet && strings.HasPrefix(urlPath, "/")
}

// Call is a request to the kubelet API in the tenant's terms.
type Call struct {
	Verb      Verb
	Namespace string
	Pod       string
	// UID of the tenant's pod, if the caller gave one.
	UID string
	// Container is empty for PortForward.
	Container string
}

// RequestError is a refusal in the tenant's terms, with the HTTP status to give it.
type RequestError struct {
	Code    int
	Message string
}

func (e *RequestError) Error() string { return e.Message }

func notFound() *RequestError {
	return &RequestError{Code: http.StatusNotFound, Message: "404 page not found"}
}

func badRequest(format string, args ...any) *RequestError {
	return &RequestError{Code: http.StatusBadRequest, Message: fmt.Sprintf(format, args...)}
}

// ParseCall reads the method and path of a request about one pod. Whatever is neither that nor a node verb does not exist:
// everything else a kubelet offers is about the node, which belongs to all tenants.
func ParseCall(method, urlPath string) (Call, error) {
	segments := strings.Split(strings.TrimPrefix(urlPath, "/"), "/")
	call := Call{Verb: Verb(segments[0])}
	segments = segments[1:]

	streaming := method == http.MethodGet || method == http.MethodPost
	switch {
	case call.Verb == Logs && method == http.MethodGet && len(segments) == 3:
		call.Container = segments[2]
	case (call.Verb == Exec || call.Verb == Attach) && streaming && len(segments) == 3:
		call.Container = segments[2]
	case (call.Verb == Exec || call.Verb == Attach) && streaming && len(segments) == 4:
		call.UID, call.Container = segments[2], segments[3]
	case call.Verb == PortForward && streaming && len(segments) == 2:
	case call.Verb == PortForward && streaming && len(segments) == 3:
		call.UID = segments[2]
	default:
		return Call{}, notFound()
	}
	call.Namespace, call.Pod = segments[0], segments[1]

	// The path of the outgoing request is built from these, so they must be names and nothing else.
	if len(validation.IsDNS1123Label(call.Namespace)) > 0 ||
		len(validation.IsDNS1123Subdomain(call.Pod)) > 0 ||
		(call.Verb != PortForward && len(validation.IsDNS1123Label(call.Container)) > 0) {
		return Call{}, notFound()
	}
	return call, nil
}

// Subresource of the super pod that answers the call.
func (c Call) Subresource() string {
	if c.Verb == Logs {
		return "log"
	}
	return strings.ToLower(string(c.Verb))
}

// Streaming says whether the call needs an upgraded connection.
func (c Call) Streaming() bool { return c.Verb != Logs }

// URL returns where, below the address of the super kube-apiserver, the call is answered. Only parameters that are known
// are carried over.
func (c Call) URL(super *url.URL, superNamespace string, query url.Values) (*url.URL, error) {
	parameters, err := c.parameters(query)
	if err != nil {
		return nil, err
	}
	out := *super
	out.Path = path.Join("/", super.Path, "api/v1/namespaces", superNamespace, "pods", c.Pod, c.Subresource())
	out.RawQuery = parameters.Encode()
	return &out, nil
}

func (c Call) parameters(in url.Values) (url.Values, error) {
	out := url.Values{}
	if c.Container != "" {
		out.Set("container", c.Container)
	}
	switch c.Verb {
	case Logs:
		for _, name := range []string{"follow", "previous", "timestamps", "sinceSeconds", "sinceTime", "tailLines", "limitBytes", "stream"} {
			if value := in.Get(name); value != "" {
				out.Set(name, value)
			}
		}
	case Exec, Attach:
		for _, name := range []struct{ kubelet, apiserver string }{
			{"input", "stdin"}, {"output", "stdout"}, {"error", "stderr"}, {"tty", "tty"},
		} {
			if in.Get(name.kubelet) == "1" {
				out.Set(name.apiserver, "true")
			}
		}
		if c.Verb == Exec {
			out["command"] = in["command"]
		}
	case PortForward:
		for _, list := range in["port"] {
			for port := range strings.SplitSeq(list, ",") {
				number, err := strconv.ParseUint(port, 10, 16)
				if err != nil || number == 0 {
					return nil, badRequest("%q is not a port", port)
				}
				out.Add("ports", strconv.FormatUint(number, 10))
			}
		}
	}
	return out, nil
}

// Headers returns the headers of the outgoing request. They are built from nothing: a tenant chooses among protocols that
// are known, and can neither identify itself as somebody else nor smuggle a header by naming it in Connection.
func (c Call) Headers(in http.Header) (http.Header, error) {
	out := http.Header{"Accept": {"*/*"}}
	if !c.Streaming() {
		return out, nil
	}
	if !slices.ContainsFunc(in.Values("Connection"), namesUpgrade) || len(in.Values("Upgrade")) != 1 {
		return nil, badRequest("Upgrade request required")
	}

	var offered string
	var known []string
	switch upgrade := in.Get("Upgrade"); {
	case strings.EqualFold(upgrade, "SPDY/3.1"):
		out.Set("Upgrade", "SPDY/3.1")
		offered, known = "X-Stream-Protocol-Version", spdyProtocols()
	case strings.EqualFold(upgrade, "websocket") && len(in.Get("Sec-WebSocket-Key")) <= maxWebSocketKey:
		out.Set("Upgrade", "websocket")
		out.Set("Sec-WebSocket-Key", in.Get("Sec-WebSocket-Key"))
		out.Set("Sec-WebSocket-Version", "13")
		offered, known = "Sec-WebSocket-Protocol", webSocketProtocols()
	default:
		return nil, badRequest("unable to upgrade: only SPDY/3.1 and websocket are supported")
	}
	out.Set("Connection", "Upgrade")

	for _, list := range in.Values(offered) {
		for protocol := range strings.SplitSeq(list, ",") {
			// A subprotocol can also be a bearer token, which is why unknown ones do not pass.
			if protocol = strings.TrimSpace(protocol); slices.Contains(known, protocol) {
				out.Add(offered, protocol)
			}
		}
	}
	if len(in.Values(offered)) > 0 && len(out.Values(offered)) == 0 {
		return nil, badRequest("unable to upgrade: none of the protocols in %s is supported", offered)
	}
	if offered == "Sec-WebSocket-Protocol" && len(out.Values(offered)) > 1 {
		out.Set(offered, strings.Join(out.Values(offered), ", "))
	}
	return out, nil
}

// maxWebSocketKey is the length of 16 bytes in base64.
const maxWebSocketKey = 24

func namesUpgrade(connection string) bool {
	for token := range strings.SplitSeq(connection, ",") {
		if strings.EqualFold(strings.TrimSpace(token), "Upgrade") {
			return true
		}
	}
	return false
}

func spdyProtocols() []string {
	return []string{
		"v5.channel.k8s.io", "v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io",
		"portforward.k8s.io",
	}
}

func webSocketProtocols() []string {
	return []string{
		"v5.channel.k8s.io", "v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io",
		"v4.base64.channel.k8s.io", "base64.channel.k8s.io",
		"SPDY/3.1+portforward.k8s.io",
	}
}
