package vnagent_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	vnagent "github.com/virtualcluster-io/virtualcluster/vn-agent"
)

func TestParseCall(t *testing.T) {
	for name, tc := range map[string]struct {
		method string
		path   string
		want   vnagent.Call
	}{
		"Logs":               {"GET", "/containerLogs/shop/web-0/app", vnagent.Call{Verb: vnagent.Logs, Namespace: "shop", Pod: "web-0", Container: "app"}},
		"DottedPod":          {"GET", "/containerLogs/shop/web.0/app", vnagent.Call{Verb: vnagent.Logs, Namespace: "shop", Pod: "web.0", Container: "app"}},
		"ExecPost":           {"POST", "/exec/shop/web-0/app", vnagent.Call{Verb: vnagent.Exec, Namespace: "shop", Pod: "web-0", Container: "app"}},
		"ExecGet":            {"GET", "/exec/shop/web-0/app", vnagent.Call{Verb: vnagent.Exec, Namespace: "shop", Pod: "web-0", Container: "app"}},
		"ExecWithUID":        {"GET", "/exec/shop/web-0/u-1/app", vnagent.Call{Verb: vnagent.Exec, Namespace: "shop", Pod: "web-0", UID: "u-1", Container: "app"}},
		"Attach":             {"POST", "/attach/shop/web-0/app", vnagent.Call{Verb: vnagent.Attach, Namespace: "shop", Pod: "web-0", Container: "app"}},
		"PortForward":        {"POST", "/portForward/shop/web-0", vnagent.Call{Verb: vnagent.PortForward, Namespace: "shop", Pod: "web-0"}},
		"PortForwardWithUID": {"GET", "/portForward/shop/web-0/u-1", vnagent.Call{Verb: vnagent.PortForward, Namespace: "shop", Pod: "web-0", UID: "u-1"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := vnagent.ParseCall(tc.method, tc.path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// Attacks V-04 and V-05: whatever else a kubelet offers, and names that would change the path of the outgoing request.
func TestParseCallKnowsNothingElse(t *testing.T) {
	for _, path := range []string{
		"/", "", "/pods", "/pods/", "/runningpods/", "/spec/", "/stats/summary", "/metrics", "/metrics/cadvisor", "/metrics/resource",
		"/metrics/probes", "/logs/", "/logs/syslog", "/logs?query=kubelet", "/configz", "/debug/pprof/heap", "/debug/flags/v",
		"/healthz", "/statusz", "/flagz", "/checkpoint/shop/web-0/app", "/run/shop/web-0/app", "/cri/exec/token", "/api/v1/pods", "/apis",
		"/exec/shop/web-0", "/exec/shop/web-0/u/app/more", "/containerLogs/shop/web-0", "/containerLogs/shop/web-0/app/",
		"/containerLogs/shop/web-0/u/app", "/portForward/shop", "/portForward/shop/web-0/u/more", "//exec/shop/web-0/app",
		"/exec/../web-0/app", "/exec/shop/../app", "/exec/shop/web-0/..", "/exec/shop/./app", "/exec/shop//app", "/exec//web-0/app",
		"/exec/shop/web-0?container=x/app", "/exec/shop/web-0#/app", "/exec/shop/web%2f0/app", "/exec/Shop/web-0/app",
		"/exec/shop/web-0/" + strings.Repeat("a", 64), "/EXEC/shop/web-0/app", "/exec;x/shop/web-0/app",
	} {
		for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "CONNECT"} {
			if call, err := vnagent.ParseCall(method, path); err == nil {
				t.Errorf("%s %s is answered as %+v", method, path, call)
			}
		}
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "HEAD", "CONNECT"} {
		if _, err := vnagent.ParseCall(method, "/containerLogs/shop/web-0/app"); err == nil {
			t.Errorf("%s of logs is answered", method)
		}
	}
}

func TestURL(t *testing.T) {
	for name, tc := range map[string]struct {
		super string
		call  vnagent.Call
		query string
		want  string
	}{
		"LogsKeepTheirOptions": {
			super: "https://super:6443",
			call:  vnagent.Call{Verb: vnagent.Logs, Namespace: "shop", Pod: "web", Container: "app"},
			query: "follow=true&previous=true&timestamps=true&sinceSeconds=5&sinceTime=2026-01-01T00:00:00Z&tailLines=3&limitBytes=9&stream=Stdout",
			want:  "https://super:6443/api/v1/namespaces/super-shop/pods/web/log?container=app&follow=true&limitBytes=9&previous=true&sinceSeconds=5&sinceTime=2026-01-01T00%3A00%3A00Z&stream=Stdout&tailLines=3&timestamps=true",
		},
		"UnknownParametersAreDropped": {
			super: "https://super:6443",
			call:  vnagent.Call{Verb: vnagent.Logs, Namespace: "shop", Pod: "web", Container: "app"},
			query: "container=other&insecureSkipTLSVerifyBackend=true&pretty=true&access_token=x&dryRun=All",
			want:  "https://super:6443/api/v1/namespaces/super-shop/pods/web/log?container=app",
		},
		"ExecKeepsTheOrderOfTheCommand": {
			super: "https://super:6443",
			call:  vnagent.Call{Verb: vnagent.Exec, Namespace: "shop", Pod: "web", Container: "app"},
			query: "input=1&output=1&error=1&tty=1&command=sh&command=-c&command=echo+a%26b",
			want:  "https://super:6443/api/v1/namespaces/super-shop/pods/web/exec?command=sh&command=-c&command=echo+a%26b&container=app&stderr=true&stdin=true&stdout=true&tty=true",
		},
		"OnlyOneMeansYes": {
			super: "https://super:6443",
			call:  vnagent.Call{Verb: vnagent.Exec, Namespace: "shop", Pod: "web", Container: "app"},
			query: "output=1&input=true&stdin=true&command=ls",
			want:  "https://super:6443/api/v1/namespaces/super-shop/pods/web/exec?command=ls&container=app&stdout=true",
		},
		"AttachHasNoCommand": {
			super: "https://super:6443",
			call:  vnagent.Call{Verb: vnagent.Attach, Namespace: "shop", Pod: "web", Container: "app"},
			query: "output=1&command=ls",
			want:  "https://super:6443/api/v1/namespaces/super-shop/pods/web/attach?container=app&stdout=true",
		},
		"PortForwardOverSPDY": {
			super: "https://super:6443",
			call:  vnagent.Call{Verb: vnagent.PortForward, Namespace: "shop", Pod: "web"},
			want:  "https://super:6443/api/v1/namespaces/super-shop/pods/web/portforward",
		},
		"PortForwardOverWebSocket": {
			super: "https://super:6443",
			call:  vnagent.Call{Verb: vnagent.PortForward, Namespace: "shop", Pod: "web"},
			query: "port=80,443&port=8080",
			want:  "https://super:6443/api/v1/namespaces/super-shop/pods/web/portforward?ports=80&ports=443&ports=8080",
		},
		"SuperBehindAPath": {
			super: "https://proxy/clusters/one",
			call:  vnagent.Call{Verb: vnagent.PortForward, Namespace: "shop", Pod: "web"},
			want:  "https://proxy/clusters/one/api/v1/namespaces/super-shop/pods/web/portforward",
		},
	} {
		t.Run(name, func(t *testing.T) {
			super, err := url.Parse(tc.super)
			if err != nil {
				t.Fatal(err)
			}
			query, err := url.ParseQuery(tc.query)
			if err != nil {
				t.Fatal(err)
			}
			got, err := tc.call.URL(super, "super-shop", query)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got.String()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestURLRefusesWhatIsNotAPort(t *testing.T) {
	call := vnagent.Call{Verb: vnagent.PortForward, Namespace: "shop", Pod: "web"}
	for _, port := range []string{"", "0", "-1", "65536", "80,", "80;81", "http", "80&x=y"} {
		if got, err := call.URL(&url.URL{}, "super-shop", url.Values{"port": {port}}); err == nil {
			t.Errorf("port %q became %s", port, got)
		}
	}
}

// Attack V-08.
func TestHeaders(t *testing.T) {
	for name, tc := range map[string]struct {
		verb vnagent.Verb
		in   http.Header
		want http.Header
	}{
		"NothingOfTheCallerForLogs": {
			verb: vnagent.Logs,
			in: http.Header{
				"Authorization": {"Bearer x", "Bearer y"}, "Impersonate-User": {"system:admin"}, "Impersonate-Extra-Scopes": {"x"},
				"X-Remote-User": {"system:admin"}, "X-Remote-Group": {"system:masters"}, "X-Forwarded-For": {"1.2.3.4"},
				"Forwarded": {"for=1.2.3.4"}, "Connection": {"Impersonate-User, Upgrade"}, "Upgrade": {"websocket"}, "Cookie": {"a=b"},
				"Accept-Encoding": {"gzip"}, "Accept": {"application/json"},
			},
			want: http.Header{"Accept": {"*/*"}},
		},
		"SPDY": {
			verb: vnagent.Exec,
			in: http.Header{
				"Connection": {"Upgrade, Impersonate-User"}, "Upgrade": {"SPDY/3.1"}, "Impersonate-User": {"system:admin"},
				"X-Stream-Protocol-Version": {"v4.channel.k8s.io", "v9.channel.k8s.io", "channel.k8s.io"}, "Authorization": {"Bearer x"},
			},
			want: http.Header{
				"Accept": {"*/*"}, "Connection": {"Upgrade"}, "Upgrade": {"SPDY/3.1"},
				"X-Stream-Protocol-Version": {"v4.channel.k8s.io", "channel.k8s.io"},
			},
		},
		"WebSocketWithoutTheTokenAmongItsProtocols": {
			verb: vnagent.Exec,
			in: http.Header{
				"Connection": {"keep-alive, upgrade"}, "Upgrade": {"WebSocket"}, "Sec-Websocket-Key": {"AAAAAAAAAAAAAAAAAAAAAA=="},
				"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Extensions": {"permessage-deflate"}, "Origin": {"https://evil"},
				"Sec-Websocket-Protocol": {"v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.c3VwZXI", "v4.channel.k8s.io"},
			},
			want: http.Header{
				"Accept": {"*/*"}, "Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Key": {"AAAAAAAAAAAAAAAAAAAAAA=="},
				"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Protocol": {"v5.channel.k8s.io, v4.channel.k8s.io"},
			},
		},
		"TunnelledPortForward": {
			verb: vnagent.PortForward,
			in: http.Header{
				"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Key": {"k"}, "Sec-Websocket-Version": {"13"},
				"Sec-Websocket-Protocol": {"SPDY/3.1+portforward.k8s.io"},
			},
			want: http.Header{
				"Accept": {"*/*"}, "Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Key": {"k"},
				"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Protocol": {"SPDY/3.1+portforward.k8s.io"},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := vnagent.Call{Verb: tc.verb}.Headers(tc.in)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// Attack V-08: upgrades to something else than a stream.
func TestHeadersRefuse(t *testing.T) {
	for name, in := range map[string]http.Header{
		"NoUpgrade":           {},
		"UpgradeNotNamed":     {"Connection": {"keep-alive"}, "Upgrade": {"SPDY/3.1"}},
		"HTTP2":               {"Connection": {"Upgrade, HTTP2-Settings"}, "Upgrade": {"h2c"}, "Http2-Settings": {"AAMAAABkAAQAAP__"}},
		"TwoUpgrades":         {"Connection": {"Upgrade"}, "Upgrade": {"SPDY/3.1", "h2c"}},
		"TwoUpgradesInOne":    {"Connection": {"Upgrade"}, "Upgrade": {"SPDY/3.1, h2c"}},
		"OnlyATokenOffered":   {"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Protocol": {"base64url.bearer.authorization.k8s.io.c3VwZXI"}},
		"LongKey":             {"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Key": {strings.Repeat("k", 25)}},
		"UnknownSPDYProtocol": {"Connection": {"Upgrade"}, "Upgrade": {"SPDY/3.1"}, "X-Stream-Protocol-Version": {"x"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := (vnagent.Call{Verb: vnagent.Exec}).Headers(in); err == nil {
				t.Errorf("accepted as %v", got)
			}
		})
	}
}

func TestTranslateError(t *testing.T) {
	const json = "application/json"
	for name, tc := range map[string]struct {
		code        int
		contentType string
		body        string
		want        vnagent.RequestError
	}{
		"AboutTheContainer": {
			400, json, `{"kind":"Status","message":"container \"app\" in pod \"web\" is waiting to start: ContainerCreating"}`,
			vnagent.RequestError{Code: 400, Message: `container "app" in pod "web" is waiting to start: ContainerCreating`},
		},
		"NamesTheSuperNamespace": {
			500, "text/plain; charset=utf-8", "unable to find pod web_super-shop\n",
			vnagent.RequestError{Code: 500, Message: "unable to find pod web_shop"},
		},
		"Forbidden": {
			403, json, `{"kind":"Status","message":"pods \"web\" is forbidden: User \"system:serviceaccount:vc-system:vn-agent\" cannot create resource \"pods/exec\" in namespace \"super-shop\""}`,
			vnagent.RequestError{Code: 403, Message: "the administrator of this cluster does not allow the request"},
		},
		"OwnTokenExpired": {
			401, json, `{"kind":"Status","message":"Unauthorized"}`,
			vnagent.RequestError{Code: 403, Message: "the administrator of this cluster does not allow the request"},
		},
		"AdmissionPolicy": {
			422, json, `{"kind":"Status","message":"pods \"web\" is invalid: ValidatingAdmissionPolicy 'no-exec' denied the request"}`,
			vnagent.RequestError{Code: 403, Message: "the administrator of this cluster does not allow the request"},
		},
		"NodeUnreachable": {
			500, json, `{"kind":"Status","message":"Internal error occurred: error dialing backend: dial tcp 10.1.2.3:10250: connect: connection refused"}`,
			vnagent.RequestError{Code: 503, Message: "the node cannot answer at the moment, try again later"},
		},
		"Busy":     {429, json, `{"kind":"Status","message":"too many requests for system:vc-vn-agent"}`, vnagent.RequestError{Code: 429, Message: "the node is busy, try again later"}},
		"Gateway":  {502, "text/html", "<h1>super-lb</h1>", vnagent.RequestError{Code: 503, Message: "the node cannot answer at the moment, try again later"}},
		"Redirect": {302, "text/html", "https://10.1.2.3", vnagent.RequestError{Code: 503, Message: "the node cannot answer at the moment, try again later"}},
		"Unread":   {500, json, "{", vnagent.RequestError{Code: 503, Message: "the node cannot answer at the moment, try again later"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := vnagent.TranslateError(tc.code, tc.contentType, []byte(tc.body), "super-shop", "shop")
			if diff := cmp.Diff(tc.want, *got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
