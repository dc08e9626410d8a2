package cli

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// answering is a vc-syncer that knows one pod.
func answering(t *testing.T) string {
	t.Helper()
	hour := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
	minute := time.Now().Add(-time.Minute).UTC().Format(time.RFC3339)
	server := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, in *http.Request) {
		asked := in.URL.Query()
		id := string(names.Tenant(types.NamespacedName{Namespace: "shop", Name: "team-a"}, "1"))
		if in.URL.Path != names.TracePath || asked.Get("tenant") != id || asked.Get("kind") != "pod" || asked.Get("namespace") != "web" || asked.Get("name") != "web-0" {
			http.Error(out, "kind \"x\" is not synchronised; these are: pods", http.StatusNotFound)
			return
		}
		_, err := out.Write([]byte(`{"kind":"pods","connection":"Synced: all caches are current","replica":"there is none","outcome":"Waiting","message":"waiting for secret \"db\"",
"tenant":{"namespace":"web","name":"web-0","uid":"u-1","resourceVersion":"7","creationTimestamp":"` + hour + `"},
"since":"` + minute + `","at":"` + minute + `","last":"waiting for secret \"db\"","tries":12}`))
		if err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

func leading(identity *string) *coordinationv1.Lease {
	return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "vc-system", Name: names.Syncer}, Spec: coordinationv1.LeaseSpec{HolderIdentity: identity}}
}

func TestTrace(t *testing.T) {
	x := newTerminal(t, team(), leading(ptr.To("vc-syncer-7_11111111-2222")))
	address := answering(t)
	x.syncers = map[client.ObjectKey]string{{Namespace: "vc-system", Name: "vc-syncer-7"}: address}
	table := `
CLUSTER   NAMESPACE   NAME    UID   AGE   VERSION   STATE
tenant    web         web-0   u-1   60m   7         exists
super                                               absent

FACT                   VALUE
kind                   pods
connection             Synced: all caches are current
replica                there is none
outcome                Waiting
message                waiting for secret "db"
waits or fails since   60s ago
last decision          60s ago
decisions in a row     12
`
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"ByTheLeader": {nil, table},
		"ByAnAddress": {[]string{"--syncer", address, "--syncer-namespace", "elsewhere"}, table},
		"JSONPath":    {[]string{"-o", "jsonpath={.apiVersion} {.kind} {.object} {.outcome} {.tries}"}, "\ntenancy.x-k8s.io/v1alpha1 Trace pods Waiting 12"},
	} {
		t.Run(name, func(t *testing.T) {
			if code := x.run(t.Context(), append([]string{"trace", "team-a", "pod", "web-0", "--tenant-namespace", "web"}, tc.args...)...); code != 0 {
				t.Fatalf("exit code %d: %s", code, x.err.String())
			}
			got := strings.ReplaceAll(x.out.String(), "61s", "60s")
			if diff := cmp.Diff(tc.want, "\n"+got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestTraceSaysWhatToDo(t *testing.T) {
	for name, tc := range map[string]struct {
		lease *coordinationv1.Lease
		args  []string
		want  string
	}{
		"NobodyLeads":  {leading(nil), []string{"team-a", "pod", "web-0"}, "no vc-syncer leads in namespace vc-system; look at its pods, or set --syncer-namespace or --syncer"},
		"NoLease":      {leading(nil), []string{"team-a", "pod", "web-0", "--syncer-namespace", "x"}, "no vc-syncer leads in namespace x; look at its pods, or set --syncer-namespace or --syncer"},
		"UnknownKind":  {leading(ptr.To("vc-syncer-7_1")), []string{"team-a", "x", "web-0"}, `kind "x" is not synchronised; these are: pods`},
		"NoObject":     {leading(nil), []string{"team-a", "pod"}, "give the name of one VirtualCluster, a kind and the name of an object, for instance: kubectl vc trace team-a pod web-0 --tenant-namespace shop"},
		"NobodyThere":  {leading(nil), []string{"team-a", "pod", "web-0", "--syncer", "127.0.0.1:1"}, "asking vc-syncer at 127.0.0.1:1, which may have been started with another --trace-bind-address: "},
		"NoSuchTenant": {leading(nil), []string{"gone", "pod", "web-0"}, `there is no VirtualCluster "gone" in this namespace; kubectl vc list --all-namespaces shows all`},
	} {
		t.Run(name, func(t *testing.T) {
			x := newTerminal(t, team(), tc.lease)
			x.syncers = map[client.ObjectKey]string{{Namespace: "vc-system", Name: "vc-syncer-7"}: answering(t)}
			if code := x.run(t.Context(), append([]string{"trace"}, tc.args...)...); code != 1 || !strings.HasPrefix(x.err.String(), "error: "+tc.want) {
				t.Errorf("exit code %d: %s", code, x.err.String())
			}
		})
	}
}
