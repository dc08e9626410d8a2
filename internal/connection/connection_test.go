package connection

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// limit of every wait.
const limit = time.Minute

// protocols are those that an API server may speak.
func protocols(t *testing.T, test func(t *testing.T, http2 bool)) {
	t.Run("HTTP1", func(t *testing.T) { test(t, false) })
	t.Run("HTTP2", func(t *testing.T) { test(t, true) })
}

// serve starts an API server that answers as the handler does.
func serve(t *testing.T, http2 bool, handler http.HandlerFunc) *rest.Config {
	server := httptest.NewUnstartedServer(handler)
	server.EnableHTTP2 = http2
	server.Config.ErrorLog = nil
	server.StartTLS()
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	return &rest.Config{Host: server.URL, QPS: -1, BearerToken: "secret", TLSClientConfig: rest.TLSClientConfig{CAData: ca}}
}

// connect returns a client of the API server, for JSON unless protobuf is asked for.
func connect(t *testing.T, o Options) kubernetes.Interface {
	t.Helper()
	if o.headerTimeout == 0 {
		o.headerTimeout = limit
	}
	h, config, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.CloseIdleConnections)
	c, err := kubernetes.NewForConfigAndClient(config, h)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

// endless writes the text again and again for as long as it is read.
func endless(out http.ResponseWriter, contentType, head, text string) {
	out.Header().Set("Content-Type", contentType)
	if _, err := io.WriteString(out, head); err != nil {
		return
	}
	many := []byte(strings.Repeat(text, 1+(64<<10)/len(text)))
	for {
		if _, err := out.Write(many); err != nil {
			return
		}
	}
}

// An answer that does not end, or is small on the wire and large in memory, is an error.
func TestHeavyAnswersAreRefused(t *testing.T) {
	const (
		asJSON     = runtime.ContentTypeJSON
		asProtobuf = runtime.ContentTypeProtobuf
		pods       = `{"kind":"PodList","apiVersion":"v1","items":[`
	)
	container := []byte{0x12, 0} // an empty container of a pod template
	cases := map[string]http.HandlerFunc{
		"EndlessText":  func(out http.ResponseWriter, _ *http.Request) { endless(out, asJSON, `{"kind":"`, "x") },
		"EndlessSpace": func(out http.ResponseWriter, _ *http.Request) { endless(out, asJSON, "", "\n") },
		"EndlessList": func(out http.ResponseWriter, _ *http.Request) {
			endless(out, asJSON, pods, `{"metadata":{"name":"x"}},`)
		},
		"EndlessProtobuf": func(out http.ResponseWriter, _ *http.Request) { endless(out, asProtobuf, "k8s\x00", "\x0a\x01x") },
		"NoType":          func(out http.ResponseWriter, _ *http.Request) { endless(out, "", `{"kind":"`, "x") },
		"GzipBomb": func(out http.ResponseWriter, _ *http.Request) {
			out.Header().Set("Content-Type", asJSON)
			out.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(out)
			_, _ = io.WriteString(z, `{"kind":"`)
			for range 100 {
				if _, err := z.Write(bytes.Repeat([]byte("x"), 1<<20)); err != nil {
					return
				}
			}
			_ = z.Close()
		},
		"ManyEmptyObjects": func(out http.ResponseWriter, _ *http.Request) {
			write(out, asJSON, []byte(pods+strings.Repeat("{},", 100_000)+"{}]}"))
		},
		"ManyNulls": func(out http.ResponseWriter, _ *http.Request) {
			write(out, asJSON, []byte(pods+strings.Repeat("null,", 100_000)+"{}]}"))
		},
		"ManyEmptyMessages": func(out http.ResponseWriter, _ *http.Request) {
			write(out, asProtobuf, unknown(bytes.Repeat(container, 100_000)))
		},
		"ManyEmptyMessagesBeforeAnError": func(out http.ResponseWriter, _ *http.Request) {
			write(out, asProtobuf, unknown(append(bytes.Repeat(container, 100_000), 0xff)))
		},
	}
	for name, handler := range cases {
		t.Run(name, func(t *testing.T) {
			protocols(t, func(t *testing.T, http2 bool) {
				c := connect(t, Options{Config: serve(t, http2, handler), MaxAnswer: 4 << 20})
				_, err := c.CoreV1().Pods("x").List(within(t), metav1.ListOptions{})
				if !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), "/api/v1/namespaces/x/pods") || len(err.Error()) > MaxText {
					t.Errorf("got %v, want a short error that says that the answer is too large, and which", Shorten(fmt.Sprint(err)))
				}
			})
		})
	}
}

func write(out http.ResponseWriter, contentType string, body []byte) {
	out.Header().Set("Content-Type", contentType)
	_, _ = out.Write(body)
}

// unknown is how protobuf goes over the wire.
func unknown(raw []byte) []byte {
	out := append([]byte("k8s\x00"), 0x12)
	return append(binary.AppendUvarint(out, uint64(len(raw))), raw...)
}

// An event of a watch is bounded like an answer.
func TestHeavyEventsAreRefused(t *testing.T) {
	cases := map[string]http.HandlerFunc{
		"EndlessJSON": func(out http.ResponseWriter, _ *http.Request) {
			endless(out, runtime.ContentTypeJSON, `{"type":"ADDED","object":{"kind":"Pod","apiVersion":"v1","metadata":{"name":"`, "x")
		},
		"EndlessLines": func(out http.ResponseWriter, _ *http.Request) {
			endless(out, runtime.ContentTypeJSON, `{"type":"ADDED","object":{"kind":"Pod","apiVersion":"v1","metadata":{"labels":{`, `"a":"b",`+"\n")
		},
		"EndlessProtobuf": func(out http.ResponseWriter, _ *http.Request) {
			endless(out, runtime.ContentTypeProtobuf+";stream=watch", "\xff\xff\xff\xff", "x")
		},
		"ManyEmptyMessages": func(out http.ResponseWriter, _ *http.Request) {
			message := unknown(bytes.Repeat([]byte{0x12, 0}, 100_000))
			write(out, runtime.ContentTypeProtobuf+";stream=watch", append(binary.BigEndian.AppendUint32(nil, uint32(len(message))), message...))
		},
	}
	for name, handler := range cases {
		t.Run(name, func(t *testing.T) {
			protocols(t, func(t *testing.T, http2 bool) {
				c := connect(t, Options{Config: serve(t, http2, handler), MaxAnswer: 4 << 20})
				w, err := c.CoreV1().Pods("").Watch(within(t), metav1.ListOptions{})
				if err != nil {
					t.Fatal(err)
				}
				defer w.Stop()
				event, ok := <-w.ResultChan()
				if err := apierrors.FromObject(event.Object); !ok || event.Type != watch.Error || !strings.Contains(err.Error(), ErrTooLarge.Error()) {
					t.Errorf("got %s %v", event.Type, Shorten(fmt.Sprint(err)))
				}
			})
		})
	}
}

// A server that sends no headers, or never ends them, is given up: for every request, and over HTTP/2, too.
func TestHeadersHaveADeadline(t *testing.T) {
	silent := func(_ http.ResponseWriter, in *http.Request) { <-in.Context().Done() }
	slow := func(out http.ResponseWriter, in *http.Request) {
		c, _, err := http.NewResponseController(out).Hijack()
		if err != nil {
			return
		}
		defer func() { _ = c.Close() }()
		_, err = io.WriteString(c, "HTTP/1.1 200 OK\r\n")
		for ; err == nil; _, err = io.WriteString(c, "X: x\r\n") {
			select {
			case <-in.Context().Done():
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
	cases := map[string]struct {
		http2   bool
		handler http.HandlerFunc
	}{
		"HTTP1": {false, silent}, "HTTP2": {true, silent}, "Slow": {false, slow},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			c := connect(t, Options{Config: serve(t, tc.http2, tc.handler), headerTimeout: 200 * time.Millisecond})
			ctx := within(t)
			w, err := c.CoreV1().Pods("").Watch(ctx, metav1.ListOptions{})
			if err == nil {
				w.Stop()
			}
			if ctx.Err() != nil || err == nil || !strings.Contains(err.Error(), "opening a watch") {
				t.Errorf("watching: got %v, want an error that says that the watch cannot be opened", err)
			}
			_, err = c.CoreV1().Pods("x").Get(ctx, "x", metav1.GetOptions{})
			if ctx.Err() != nil || err == nil || !strings.Contains(err.Error(), "awaiting response headers") && !strings.Contains(err.Error(), "server response headers exceeded") {
				t.Errorf("reading: got %v, want an error that says that there are no headers", err)
			}
		})
	}
}

// An answer leads nowhere else, and nothing comes in with it that nobody asked for.
func TestAnswersAreRefused(t *testing.T) {
	elsewhere := serve(t, false, func(out http.ResponseWriter, in *http.Request) {
		t.Errorf("the request with Authorization %q went elsewhere", in.Header.Get("Authorization"))
		out.WriteHeader(http.StatusNotFound)
	})
	cases := map[string]struct {
		handler http.HandlerFunc
		want    string // a part of the error
	}{
		"Redirect": {func(out http.ResponseWriter, in *http.Request) {
			http.Redirect(out, in, elsewhere.Host, http.StatusTemporaryRedirect)
		}, "its status is 307"},
		"YAML": {func(out http.ResponseWriter, _ *http.Request) {
			write(out, runtime.ContentTypeYAML, []byte("kind: Pod\napiVersion: v1\n"))
		}, "its type is application/yaml"},
		"GiantHeader": {func(out http.ResponseWriter, _ *http.Request) {
			out.Header().Set("X", strings.Repeat("x", 1<<20))
			write(out, runtime.ContentTypeJSON, []byte(`{"kind":"Pod","apiVersion":"v1"}`))
		}, ""},
		"ManyHeaders": {func(out http.ResponseWriter, _ *http.Request) {
			for i := range 10_000 {
				out.Header().Add("Warning", fmt.Sprintf(`299 - "warning %d"`, i))
			}
			write(out, runtime.ContentTypeJSON, []byte(`{"kind":"Pod","apiVersion":"v1"}`))
		}, ""},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			protocols(t, func(t *testing.T, http2 bool) {
				c := connect(t, Options{Config: serve(t, http2, tc.handler)})
				_, err := c.CoreV1().Pods("x").Get(within(t), "x", metav1.GetOptions{})
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("got %v, want %q", err, tc.want)
				}
			})
		})
	}
}

// Whatever an API server says about a failure, it remains clear which one it is.
func TestErrorsAreBounded(t *testing.T) {
	protocols(t, func(t *testing.T, http2 bool) {
		c := connect(t, Options{Config: serve(t, http2, func(out http.ResponseWriter, _ *http.Request) {
			out.Header().Set("Content-Type", runtime.ContentTypeJSON)
			out.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(out, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403,"message":"`+strings.Repeat("x", 10<<20)+`"}`)
		})})
		_, err := c.CoreV1().Pods("x").Get(within(t), "x", metav1.GetOptions{})
		if !apierrors.IsForbidden(err) || len(err.Error()) > maxError {
			t.Errorf("got an error with %d bytes: %s", len(fmt.Sprint(err)), Shorten(fmt.Sprint(err)))
		}
	})
}

// The server cannot make a client wait for a year before it asks again.
func TestRetryAfterIsBounded(t *testing.T) {
	h, config, err := New(Options{Config: serve(t, true, func(out http.ResponseWriter, in *http.Request) {
		out.Header().Set("Retry-After", in.URL.Query().Get("seconds"))
		out.WriteHeader(http.StatusTooManyRequests)
	})})
	if err != nil {
		t.Fatal(err)
	}
	for seconds, want := range map[string]string{"1": "1", "30": "30", "31": "", "99999999999999999999": "", "soon": ""} {
		request, err := http.NewRequestWithContext(within(t), http.MethodGet, config.Host+"?seconds="+seconds, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := h.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		if got := response.Header.Get("Retry-After"); got != want {
			t.Errorf("%s: got %q, want %q", seconds, got, want)
		}
		if err := response.Body.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Of several heavy answers of one API server, one is in memory at a time.
func TestHeavyAnswersAreReadOneAtATime(t *testing.T) {
	h, config, err := New(Options{Config: serve(t, true, func(out http.ResponseWriter, in *http.Request) {
		write(out, runtime.ContentTypeJSON, bytes.Repeat([]byte("x"), 2*light))
		if in.URL.Path == "/first" {
			_ = http.NewResponseController(out).Flush()
			<-in.Context().Done() // it does not end
		}
	})})
	if err != nil {
		t.Fatal(err)
	}
	get := func(ctx context.Context, path string) *http.Response {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, config.Host+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := h.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		return response
	}
	first := get(within(t), "/first")
	defer func() { _ = first.Body.Close() }()
	if _, err := io.ReadFull(first.Body, make([]byte, 2*light)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	second := get(ctx, "/second")
	if n, err := io.Copy(io.Discard, second.Body); n > light || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the second answer was read besides the first: %d bytes, %v", n, err)
	}
	_ = second.Body.Close()
	if err := first.Body.Close(); err != nil {
		t.Error(err)
	}
	third := get(within(t), "/third")
	defer func() { _ = third.Body.Close() }()
	if n, err := io.Copy(io.Discard, third.Body); n != 2*light || err != nil {
		t.Errorf("the third answer was not read after the first: %d bytes, %v", n, err)
	}
}

// A watch that ignores how long it was to last is ended.
func TestDeadlines(t *testing.T) {
	cases := map[string]struct {
		want     time.Duration
		watching bool
	}{
		"":                                     {requestTimeout, false},
		"watch=false&timeoutSeconds=7":         {requestTimeout, false},
		"watch=true&timeoutSeconds=7":          {7*time.Second + watchGrace, true},
		"watch=1":                              {watchTimeout, true},
		"watch=true&timeoutSeconds=-1":         {watchTimeout, true},
		"watch=true&timeoutSeconds=9999999999": {watchTimeout, true},
	}
	for query, tc := range cases {
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		if got, watching := deadline(values); got != tc.want || watching != tc.watching {
			t.Errorf("%q: got %v, %v, want %v, %v", query, got, watching, tc.want, tc.watching)
		}
	}
}

// What an honest API server sends is taken, in either encoding.
func TestHonestAnswersAreTaken(t *testing.T) {
	data := map[string]string{}
	for i := range 10_000 {
		data[fmt.Sprintf("key-%d", i)] = "a value, with {brackets} and \"quotes\""
	}
	list := &corev1.PodList{}
	for i := range 500 {
		pod := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("pod-%d", i), Namespace: "x", Labels: map[string]string{"app": "shop"}}}
		for j := range 3 {
			pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{
				Name: fmt.Sprintf("container-%d", j), Image: "registry.example.org/shop:v1",
				Env:   []corev1.EnvVar{{Name: "A", Value: "b"}, {Name: "C", Value: "http://example.org"}},
				Ports: []corev1.ContainerPort{{ContainerPort: 8080}},
			})
			pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, corev1.ContainerStatus{Name: fmt.Sprintf("container-%d", j), Ready: true})
		}
		list.Items = append(list.Items, pod)
	}
	objects := map[string]runtime.Object{
		"Small":          &corev1.ConfigMap{Data: map[string]string{"a": "b"}},
		"ManyKeys":       &corev1.ConfigMap{Data: data},
		"LargeSecret":    &corev1.Secret{Data: map[string][]byte{"a": bytes.Repeat([]byte{0x12, 0}, 1<<10), "b": bytes.Repeat([]byte("kpx0"), 300<<10)}},
		"FiveHundedPods": list,
	}
	for name, object := range objects {
		for _, contentType := range []string{runtime.ContentTypeJSON, runtime.ContentTypeProtobuf} {
			t.Run(name+"/"+contentType[len("application/"):], func(t *testing.T) {
				info, _ := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), contentType)
				body, err := runtime.Encode(scheme.Codecs.EncoderForVersion(info.Serializer, corev1.SchemeGroupVersion), object)
				if err != nil {
					t.Fatal(err)
				}
				h, config, err := New(Options{Config: serve(t, true, func(out http.ResponseWriter, _ *http.Request) { write(out, contentType, body) })})
				if err != nil {
					t.Fatal(err)
				}
				request, err := http.NewRequestWithContext(within(t), http.MethodGet, config.Host, nil)
				if err != nil {
					t.Fatal(err)
				}
				response, err := h.Do(request)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = response.Body.Close() }()
				got, err := io.ReadAll(response.Body)
				if err != nil || !bytes.Equal(got, body) {
					t.Errorf("of %d bytes, %d were read: %v", len(body), len(got), err)
				}
			})
		}
	}
}

// An honest watch goes through, in either encoding, and each event counts for itself.
func TestHonestWatchesAreTaken(t *testing.T) {
	for _, contentType := range []string{runtime.ContentTypeJSON, runtime.ContentTypeProtobuf} {
		t.Run(contentType[len("application/"):], func(t *testing.T) {
			const events = 5
			info, _ := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), contentType)
			object, err := runtime.Encode(scheme.Codecs.EncoderForVersion(info.Serializer, corev1.SchemeGroupVersion),
				&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "x"}, Data: map[string][]byte{"a": bytes.Repeat([]byte("x"), 1<<20)}})
			if err != nil {
				t.Fatal(err)
			}
			event, err := runtime.Encode(scheme.Codecs.EncoderForVersion(info.StreamSerializer.Serializer, corev1.SchemeGroupVersion),
				&metav1.WatchEvent{Type: string(watch.Added), Object: runtime.RawExtension{Raw: object}})
			if err != nil {
				t.Fatal(err)
			}
			config := serve(t, true, func(out http.ResponseWriter, _ *http.Request) {
				out.Header().Set("Content-Type", contentType+";stream=watch")
				frames := info.StreamSerializer.NewFrameWriter(out)
				for range events {
					if _, err := frames.Write(event); err != nil {
						return
					}
				}
			})
			config.ContentType = contentType
			w, err := connect(t, Options{Config: config, MaxAnswer: 2 << 20}).CoreV1().Secrets("").Watch(within(t), metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer w.Stop()
			for i := range events {
				if e, ok := <-w.ResultChan(); !ok || e.Type != watch.Added {
					t.Fatalf("event %d: got %s", i, e.Type)
				}
			}
		})
	}
}

// What could lead elsewhere, run programs or lift the bounds is refused.
func TestConfigurationsAreRefused(t *testing.T) {
	cases := map[string]struct {
		change func(*rest.Config)
		want   string
	}{
		"Proxy": {func(c *rest.Config) {
			c.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil }
		}, "names a proxy"},
		"Program":   {func(c *rest.Config) { c.ExecProvider = &clientcmdapi.ExecConfig{Command: "sh"} }, "runs a program"},
		"Plugin":    {func(c *rest.Config) { c.AuthProvider = &clientcmdapi.AuthProviderConfig{Name: "oidc"} }, "runs a program"},
		"Transport": {func(c *rest.Config) { c.Transport = http.DefaultTransport }, "its own transport"},
		"Authority": {func(c *rest.Config) { c.CAData = []byte("x") }, "certificates"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			config := &rest.Config{Host: "https://example.org"}
			tc.change(config)
			if _, _, err := New(Options{Config: config}); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

// The address of the configuration is dialled, which may not be the one of the name.
func TestDialIsUsed(t *testing.T) {
	config := serve(t, true, func(out http.ResponseWriter, _ *http.Request) {
		write(out, runtime.ContentTypeJSON, []byte(`{"gitVersion":"v1.36.0"}`))
	})
	address := strings.TrimPrefix(config.Host, "https://")
	config.Host = "https://example.com" // a name in the certificate of httptest
	config.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	version, err := connect(t, Options{Config: config}).Discovery().ServerVersion()
	if err != nil || version.GitVersion != "v1.36.0" {
		t.Errorf("got %v, %v", version, err)
	}
}

// The local port is different each time.
func TestMessageIsStable(t *testing.T) {
	address := func(port int) net.Addr { return &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: port} }
	err := fmt.Errorf("reading: %w", &net.OpError{Op: "read", Net: "tcp", Source: address(41234), Addr: address(443), Err: errors.New("reset")})
	if got, want := Message(err), "reading: read tcp 10.0.0.1:443: reset"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestShorten(t *testing.T) {
	for text, want := range map[string]string{
		"short":                         "short",
		strings.Repeat("x", 2000):       strings.Repeat("x", MaxText-4) + " ...",
		"y" + strings.Repeat("ä", 2000): "y" + strings.Repeat("ä", (MaxText-5)/2) + " ...",
		"\xff":                          "?",
		strings.Repeat("\xff", 2000):    " ...",
	} {
		if got := Shorten(text); got != want || len(got) > MaxText {
			t.Errorf("got %q (%d bytes), want %q", got, len(got), want)
		}
	}
}
