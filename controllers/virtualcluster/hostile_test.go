package virtualcluster

import (
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/controllers/provision"
	"github.com/virtualcluster-io/virtualcluster/internal/connection"
)

// A tenant that serves a group by a pod of its own, or owns its API server, answers vc-manager what it likes. Each step that
// reads from tenants ends with an error, and the conditions stay short.
func TestStepsBoundWhatTenantsAnswer(t *testing.T) {
	namespace := `{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"kube-system","uid":"u"}}`
	endless := func(out http.ResponseWriter, _ *http.Request) {
		out.Header().Set("Content-Type", runtime.ContentTypeJSON)
		many := strings.Repeat("x", 64<<10)
		_, err := io.WriteString(out, `{"kind":"`)
		for err == nil {
			_, err = io.WriteString(out, many)
		}
	}
	answer := func(code int, body string) http.HandlerFunc {
		return func(out http.ResponseWriter, _ *http.Request) {
			out.Header().Set("Content-Type", runtime.ContentTypeJSON)
			out.WriteHeader(code)
			_, _ = io.WriteString(out, body)
		}
	}
	const (
		system     = "GET /api/v1/namespaces/kube-system"
		deployment = "GET /apis/apps/v1/namespaces/kube-system/deployments/coredns"
	)
	type steps func(*Reconciler, *provision.Tenant) (string, error)
	verify := func(r *Reconciler, tenant *provision.Tenant) (string, error) {
		return r.verifyIdentity(t.Context(), tenant)
	}
	install := func(r *Reconciler, tenant *provision.Tenant) (string, error) {
		return r.installCoreDNS(t.Context(), tenant)
	}
	cases := map[string]struct {
		step    steps
		answers map[string]http.HandlerFunc
		want    string // a part of the error
	}{
		"EndlessNamespace":  {verify, map[string]http.HandlerFunc{system: endless}, connection.ErrTooLarge.Error()},
		"EndlessVersion":    {verify, map[string]http.HandlerFunc{system: answer(http.StatusOK, namespace), "GET /version": endless}, connection.ErrTooLarge.Error()},
		"EndlessDeployment": {install, map[string]http.HandlerFunc{deployment: endless}, connection.ErrTooLarge.Error()},
		"GiantUID": {verify, map[string]http.HandlerFunc{
			system: answer(http.StatusOK, `{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"kube-system","uid":"`+strings.Repeat("u", 1<<20)+`"}}`),
		}, "has 1048576 characters"},
		"GiantError": {verify, map[string]http.HandlerFunc{
			system: answer(http.StatusOK, `{"kind":"Status","apiVersion":"v1","status":"Failure","code":403,"reason":"Forbidden","message":"`+strings.Repeat("no", 1<<20)+`"}`),
		}, "nonono"},
		"Redirect": {verify, map[string]http.HandlerFunc{system: func(out http.ResponseWriter, in *http.Request) {
			http.Redirect(out, in, "/elsewhere", http.StatusFound)
		}, "GET /elsewhere": answer(http.StatusOK, namespace)}, "leads elsewhere"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			mux := http.NewServeMux()
			for pattern, handler := range tc.answers {
				mux.HandleFunc(pattern, handler)
			}
			server := httptest.NewUnstartedServer(mux)
			server.EnableHTTP2 = true
			server.StartTLS()
			defer server.Close()
			c, err := provision.Connect(&rest.Config{Host: server.URL, TLSClientConfig: rest.TLSClientConfig{
				CAData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}),
			}})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			tenant := &provision.Tenant{Connection: c, VirtualCluster: &tenancyv1alpha1.VirtualCluster{
				ObjectMeta: metav1.ObjectMeta{Namespace: "tenants", Name: "x"},
			}}
			tenant.VirtualCluster.Status.ControlPlaneUID = "u"
			message, err := tc.step(&Reconciler{}, tenant)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %q, %s, want %q", message, connection.Shorten(fmt.Sprint(err)), tc.want)
			}
			tenant.Report(tenancyv1alpha1.ConditionIdentityVerified, message, err)
			summarize(tenant, err)
			for _, c := range tenant.VirtualCluster.Status.Conditions {
				if len(c.Message) > connection.MaxText {
					t.Errorf("condition %s has a message of %d bytes", c.Type, len(c.Message))
				}
			}
			if n := len(tenant.VirtualCluster.Status.Message); n > connection.MaxText {
				t.Errorf("the status has a message of %d bytes", n)
			}
		})
	}
}
