package cli

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/controllers/preflight"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

const rootNamespace = "shop-team-a-aaaaaaaaaaaaa"

// team returns a VirtualCluster that is ready.
func team(change ...func(*tenancyv1alpha1.VirtualCluster)) *tenancyv1alpha1.VirtualCluster {
	vc := &tenancyv1alpha1.VirtualCluster{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "team-a", UID: "1", Generation: 1, CreationTimestamp: metav1.NewTime(time.Now().Add(-time.Hour))},
		Status: tenancyv1alpha1.VirtualClusterStatus{
			Phase: tenancyv1alpha1.PhaseRunning, Message: "ready", Version: "v1.36.3", Endpoint: "https://192.0.2.1:30001",
			ClusterNamespace: rootNamespace, ServiceCIDR: "10.112.0.0/22", ReadyAfterSeconds: ptr.To[int64](9),
			KubeconfigSecret: &tenancyv1alpha1.SecretKeyReference{Name: names.AdminKubeconfigSecret, Key: names.KubeconfigKey},
			Conditions: []metav1.Condition{
				{Type: tenancyv1alpha1.ConditionReady, Status: metav1.ConditionTrue, ObservedGeneration: 1, Reason: "Ready", Message: "clients can use it"},
				{Type: tenancyv1alpha1.ConditionStalled, Status: metav1.ConditionFalse, ObservedGeneration: 1, Reason: "Progressing"},
				{Type: tenancyv1alpha1.ConditionSyncing, Status: metav1.ConditionTrue, Reason: "Synced", Message: "all kinds"},
			},
		},
	}
	for _, c := range change {
		c(vc)
	}
	return vc
}

// pending makes a VirtualCluster one that was just created.
func pending(vc *tenancyv1alpha1.VirtualCluster) { vc.Status = tenancyv1alpha1.VirtualClusterStatus{} }

// writtenKubeconfig returns the kubeconfig that vc-manager writes, changed by the given function.
func writtenKubeconfig(t *testing.T, server string, change func(*clientcmdapi.Config)) []byte {
	t.Helper()
	config := clientcmdapi.NewConfig()
	config.Clusters["c"] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: []byte("ca")}
	config.AuthInfos["u"] = &clientcmdapi.AuthInfo{ClientCertificateData: []byte("cert"), ClientKeyData: []byte("key")}
	config.Contexts["x"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	config.Contexts["other"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	config.CurrentContext = "x"
	if change != nil {
		change(config)
	}
	content, err := clientcmd.Write(*config)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func secret(namespace string, data map[string][]byte) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: names.AdminKubeconfigSecret}, Data: data}
}

// terminal runs command lines against a super cluster that holds the given objects.
type terminal struct {
	super client.WithWatch
	about about
	// kubeconfig is the user's.
	kubeconfig string
	in         string
	out, err   bytes.Buffer
	// syncers are the addresses to which ports of pods are forwarded.
	syncers map[client.ObjectKey]string
}

func newTerminal(t *testing.T, objects ...client.Object) *terminal {
	t.Helper()
	s, err := scheme()
	if err != nil {
		t.Fatal(err)
	}
	super := fake.NewClientBuilder().WithScheme(s).WithRESTMapper(mapper()).WithStatusSubresource(&tenancyv1alpha1.VirtualCluster{}).WithObjects(objects...).Build()
	return &terminal{super: super, kubeconfig: userKubeconfig(t, "https://192.0.2.9")}
}

// userKubeconfig writes a kubeconfig for the namespace shop of a super cluster.
func userKubeconfig(t *testing.T, server string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config")
	content := writtenKubeconfig(t, server, func(c *clientcmdapi.Config) {
		c.Contexts["x"].Namespace = "shop"
		c.Clusters["c"].CertificateAuthorityData = nil
		c.AuthInfos["u"] = &clientcmdapi.AuthInfo{Token: "token"}
	})
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// run runs one command line and returns its exit code.
func (x *terminal) run(ctx context.Context, args ...string) int {
	x.out.Reset()
	x.err.Reset()
	flags := genericclioptions.NewConfigFlags(true)
	flags.KubeConfig = &x.kubeconfig
	c := &cli{
		IOStreams: genericiooptions.IOStreams{In: strings.NewReader(x.in), Out: &x.out, ErrOut: &x.err},
		flags:     flags, poll: time.Millisecond,
		connect:  func() (client.Client, error) { return x.super, nil },
		discover: func() (preflight.Discovery, error) { return x.about, nil },
		forward: func(_ context.Context, pod client.ObjectKey, _ int) (string, func(), error) {
			address, ok := x.syncers[pod]
			if !ok {
				return "", nil, fmt.Errorf("there is no pod %s", pod)
			}
			return address, func() {}, nil
		},
	}
	root := c.command()
	root.SetArgs(args)
	return c.exitCode(root.ExecuteContext(ctx))
}

func TestList(t *testing.T) {
	x := newTerminal(t, team(), team(pending, func(vc *tenancyv1alpha1.VirtualCluster) { vc.Name = "b" }),
		team(func(vc *tenancyv1alpha1.VirtualCluster) { vc.Namespace = "other" }))
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"Namespace": {[]string{"list"}, `
NAME     PHASE     VERSION   ENDPOINT                  AGE
b        <none>    <none>    <none>                    60m
team-a   Running   v1.36.3   https://192.0.2.1:30001   60m
`},
		"All": {[]string{"get", "-A"}, `
NAMESPACE   NAME     PHASE     VERSION   ENDPOINT                  AGE
other       team-a   Running   v1.36.3   https://192.0.2.1:30001   60m
shop        b        <none>    <none>    <none>                    60m
shop        team-a   Running   v1.36.3   https://192.0.2.1:30001   60m
`},
		"Wide": {[]string{"list", "team-a", "-o", "wide"}, `
NAME     PHASE     VERSION   ENDPOINT                  AGE   ROOT NAMESPACE              MESSAGE
team-a   Running   v1.36.3   https://192.0.2.1:30001   60m   shop-team-a-aaaaaaaaaaaaa   ready
`},
		"Name":     {[]string{"list", "-o", "name"}, "\nvirtualcluster.tenancy.x-k8s.io/b\nvirtualcluster.tenancy.x-k8s.io/team-a\n"},
		"JSONPath": {[]string{"list", "team-a", "-o", "jsonpath={.status.version} {.kind}"}, "\nv1.36.3 VirtualCluster"},
	} {
		t.Run(name, func(t *testing.T) {
			if code := x.run(t.Context(), tc.args...); code != 0 {
				t.Fatalf("exit code %d: %s", code, x.err.String())
			}
			if diff := cmp.Diff(tc.want, "\n"+x.out.String()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestListOfNothingSaysHowToCreate(t *testing.T) {
	x := newTerminal(t)
	if code := x.run(t.Context(), "list"); code != 0 || x.out.String() != "" || !strings.Contains(x.err.String(), "kubectl vc create") {
		t.Errorf("%d %q %q", code, x.out.String(), x.err.String())
	}
}

func TestStatus(t *testing.T) {
	component := func(name string, ready int32) *appsv1.StatefulSet {
		return &appsv1.StatefulSet{
			ObjectMeta: metav1.ObjectMeta{Namespace: rootNamespace, Name: name, Labels: map[string]string{names.LabelComponent: name}},
			Spec:       appsv1.StatefulSetSpec{Replicas: ptr.To[int32](1)}, Status: appsv1.StatefulSetStatus{ReadyReplicas: ready},
		}
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: rootNamespace, Name: "kube-apiserver-0", Labels: map[string]string{names.LabelComponent: names.APIServer}},
		Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{
			RestartCount: 3, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff", Message: "no such image"}},
		}}},
	}
	x := newTerminal(t, team(), component(names.Etcd, 1), component(names.APIServer, 0), pod)
	if code := x.run(t.Context(), "status", "team-a"); code != 0 {
		t.Fatalf("exit code %d: %s", code, x.err.String())
	}
	want := `
VirtualCluster shop/team-a  Running: ready
├── Control plane
│   ├── Type            Dedicated
│   ├── Version         v1.36.3
│   ├── Endpoint        https://192.0.2.1:30001
│   ├── Service CIDR    10.112.0.0/22
│   ├── Root namespace  shop-team-a-aaaaaaaaaaaaa
│   └── Ready after     9 s
├── Components
│   ├── ✓ etcd            1/1 ready  0 restarts
│   └── ✗ kube-apiserver  0/1 ready  3 restarts  kube-apiserver-0 ImagePullBackOff: no such image
├── Syncer
│   └── ✓ Syncing  True  Synced  all kinds
└── Conditions
    ├── ✓ Ready    True   Ready        clients can use it
    └── ✓ Stalled  False  Progressing
`
	if diff := cmp.Diff(want, "\n"+x.out.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestCreate(t *testing.T) {
	x := newTerminal(t)
	x.in = "apiVersion: tenancy.x-k8s.io/v1alpha1\nkind: VirtualCluster\nmetadata: {name: other, labels: {a: b}}\nspec: {clusterDomain: example.org}\n"
	if code := x.run(t.Context(), "create", "team-a", "-f", "-", "--version", "v1-36"); code != 0 {
		t.Fatalf("exit code %d: %s", code, x.err.String())
	}
	if diff := cmp.Diff("virtualcluster.tenancy.x-k8s.io/team-a created\n", x.out.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	got := &tenancyv1alpha1.VirtualCluster{}
	if err := x.super.Get(t.Context(), client.ObjectKey{Namespace: "shop", Name: "team-a"}, got); err != nil {
		t.Fatal(err)
	}
	want := tenancyv1alpha1.VirtualClusterSpec{ClusterDomain: "example.org", ClusterVersionName: "v1-36"}
	if diff := cmp.Diff(want, got.Spec); diff != "" || got.Labels["a"] != "b" {
		t.Errorf("labels %v; -want +got:\n%s", got.Labels, diff)
	}
}

// states makes a VirtualCluster go through states, one at each look.
func (x *terminal) states(states ...func(*tenancyv1alpha1.VirtualCluster)) {
	looks := 0
	x.super = interceptor.NewClient(x.super, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
			if err := c.Get(ctx, key, object, options...); err != nil {
				return err
			}
			if vc, ok := object.(*tenancyv1alpha1.VirtualCluster); ok {
				states[min(looks, len(states)-1)](vc)
				looks++
			}
			return nil
		},
	})
}

func TestCreateWaits(t *testing.T) {
	condition := func(kind, message string) func(*tenancyv1alpha1.VirtualCluster) {
		return func(vc *tenancyv1alpha1.VirtualCluster) {
			vc.Status.Message = message
			vc.Status.Conditions = []metav1.Condition{{Type: kind, Status: metav1.ConditionTrue, ObservedGeneration: vc.Generation, Message: message}}
		}
	}
	for name, tc := range map[string]struct {
		states   []func(*tenancyv1alpha1.VirtualCluster)
		wantCode int
		want     []string
	}{
		"Ready": {
			states: []func(*tenancyv1alpha1.VirtualCluster){pending, condition(tenancyv1alpha1.ConditionReconciling, "etcd starts"), condition(tenancyv1alpha1.ConditionReady, "ready")},
			want:   []string{"[   0s] Pending", "[   0s] Pending: etcd starts", "[   0s] Pending: ready"},
		},
		"Stalled": {
			states:   []func(*tenancyv1alpha1.VirtualCluster){condition(tenancyv1alpha1.ConditionStalled, "there is no ClusterVersion")},
			wantCode: 1,
			want:     []string{"[   0s] Pending: there is no ClusterVersion", "error: team-a needs you: there is no ClusterVersion"},
		},
		"Late": {
			states:   []func(*tenancyv1alpha1.VirtualCluster){condition(tenancyv1alpha1.ConditionReconciling, "etcd starts")},
			wantCode: 1,
			want: []string{"[   0s] Pending: etcd starts",
				"error: team-a is not there after 50ms: Pending: etcd starts; kubectl vc status team-a shows more"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			x := newTerminal(t)
			x.states(tc.states...)
			if code := x.run(t.Context(), "create", "team-a", "--wait", "--timeout", "50ms"); code != tc.wantCode {
				t.Errorf("exit code %d", code)
			}
			if diff := cmp.Diff(tc.want, strings.Split(strings.TrimSpace(x.err.String()), "\n")); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestDelete(t *testing.T) {
	x := newTerminal(t, team())
	if code := x.run(t.Context(), "delete", "team-a", "--wait"); code != 0 {
		t.Fatalf("exit code %d: %s", code, x.err.String())
	}
	if got := x.out.String(); got != "virtualcluster.tenancy.x-k8s.io/team-a deleted\n" {
		t.Errorf("got %q", got)
	}
	if code := x.run(t.Context(), "list", "team-a"); code != 1 {
		t.Error("it is still there")
	}
}

func TestKubeconfig(t *testing.T) {
	const public, internal = "https://192.0.2.1:30001", "https://kube-apiserver.root:6443"
	both := secret(rootNamespace, map[string][]byte{names.KubeconfigKey: writtenKubeconfig(t, public, nil), names.InternalKubeconfigKey: writtenKubeconfig(t, internal, nil)})
	external := team(func(vc *tenancyv1alpha1.VirtualCluster) {
		vc.Name, vc.Spec.ControlPlane.Type = "external", tenancyv1alpha1.External
		vc.Status.KubeconfigSecret.Key = "mine"
	})
	x := newTerminal(t, team(), external, both, secret("shop", map[string][]byte{"mine": writtenKubeconfig(t, "https://192.0.2.5", nil)}))
	for name, tc := range map[string]struct {
		args   []string
		name   string
		server string
	}{
		"Public":   {[]string{"team-a"}, "vc/shop/team-a", public},
		"Internal": {[]string{"team-a", "--internal"}, "vc/shop/team-a", internal},
		"External": {[]string{"external"}, "vc/shop/external", "https://192.0.2.5"},
	} {
		t.Run(name, func(t *testing.T) {
			if code := x.run(t.Context(), append([]string{"kubeconfig"}, tc.args...)...); code != 0 {
				t.Fatalf("exit code %d: %s", code, x.err.String())
			}
			got, err := clientcmd.Load(x.out.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			if len(got.Contexts) != 1 || got.CurrentContext != tc.name || got.Clusters[tc.name].Server != tc.server {
				t.Errorf("got %s", x.out.String())
			}
		})
	}
}

func TestKubeconfigIntoAFile(t *testing.T) {
	x := newTerminal(t, team(), secret(rootNamespace, map[string][]byte{names.KubeconfigKey: writtenKubeconfig(t, "https://192.0.2.1", nil)}))
	path := filepath.Join(t.TempDir(), "team-a")
	if err := os.WriteFile(path, []byte("old, and readable by all"), 0o644); err != nil {
		t.Fatal(err)
	}
	if code := x.run(t.Context(), "kubeconfig", "team-a", "-o", path); code != 0 {
		t.Fatalf("exit code %d: %s", code, x.err.String())
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := clientcmd.LoadFromFile(path); err != nil {
		t.Error(err)
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("the folder holds %v, %v", left, err)
	}
}

func TestKubeconfigIsMerged(t *testing.T) {
	x := newTerminal(t, team(), secret(rootNamespace, map[string][]byte{names.KubeconfigKey: writtenKubeconfig(t, "https://192.0.2.1", nil)}))
	for range 2 { // again is harmless
		if code := x.run(t.Context(), "kubeconfig", "team-a", "--merge"); code != 0 {
			t.Fatalf("exit code %d: %s", code, x.err.String())
		}
	}
	got, err := clientcmd.LoadFromFile(x.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	if got.CurrentContext != "x" || len(got.Contexts) != 3 || got.Clusters["c"].Server != "https://192.0.2.9" || got.AuthInfos["u"].Token != "token" {
		t.Errorf("what was there before changed: %+v", got)
	}
	if got.Contexts["vc/shop/team-a"] == nil || got.Clusters["vc/shop/team-a"].Server != "https://192.0.2.1" {
		t.Errorf("got contexts %v", got.Contexts)
	}
}

// Whoever may write the Secret must not be able to run programs, read files or be in the middle.
func TestKubeconfigThatReachesOutIsRefused(t *testing.T) {
	for name, change := range map[string]func(*clientcmdapi.Config){
		"Exec": func(c *clientcmdapi.Config) { c.AuthInfos["u"].Exec = &clientcmdapi.ExecConfig{Command: "sh"} },
		"AuthProvider": func(c *clientcmdapi.Config) {
			c.AuthInfos["u"].AuthProvider = &clientcmdapi.AuthProviderConfig{Name: "x"}
		},
		"TokenFile":   func(c *clientcmdapi.Config) { c.AuthInfos["u"].TokenFile = "/etc/shadow" },
		"Certificate": func(c *clientcmdapi.Config) { c.AuthInfos["u"].ClientCertificate = "/etc/shadow" },
		"Key":         func(c *clientcmdapi.Config) { c.AuthInfos["u"].ClientKey = "/etc/shadow" },
		"CA":          func(c *clientcmdapi.Config) { c.Clusters["c"].CertificateAuthority = "/etc/shadow" },
		"Unverified":  func(c *clientcmdapi.Config) { c.Clusters["c"].InsecureSkipTLSVerify = true },
		"NoContext":   func(c *clientcmdapi.Config) { c.CurrentContext = "gone" },
		"NoUser":      func(c *clientcmdapi.Config) { delete(c.AuthInfos, "u") },
	} {
		t.Run(name, func(t *testing.T) {
			x := newTerminal(t, team(), secret(rootNamespace, map[string][]byte{names.KubeconfigKey: writtenKubeconfig(t, "https://192.0.2.1", change)}))
			if code := x.run(t.Context(), "kubeconfig", "team-a"); code != 1 || x.out.Len() > 0 {
				t.Errorf("exit code %d: %s", code, x.out.String())
			}
		})
	}
}

func TestExec(t *testing.T) {
	x := newTerminal(t, team(), secret(rootNamespace, map[string][]byte{names.KubeconfigKey: writtenKubeconfig(t, "https://192.0.2.1", nil)}))
	t.Setenv("TMPDIR", t.TempDir())
	for name, tc := range map[string]struct {
		script string
		want   int
	}{
		"Good":     {`exit 0`, 0},
		"Code":     {`exit 42`, 42},
		"Signal":   {`kill -TERM $$`, 143},
		"PassedOn": {`trap 'exit 9' TERM; kill -TERM $PPID; while :; do sleep 0.01; done`, 9},
		"Keyboard": {`kill -INT $PPID; exit 3`, 3},
	} {
		t.Run(name, func(t *testing.T) {
			script := `stat -c '%a %n' "$KUBECONFIG"; grep -q 192.0.2.1 "$KUBECONFIG" || exit 99; ` + tc.script
			if code := x.run(t.Context(), "exec", "team-a", "--", "sh", "-c", script); code != tc.want {
				t.Errorf("exit code %d, want %d: %s", code, tc.want, x.err.String())
			}
			mode, path, _ := strings.Cut(strings.TrimSpace(x.out.String()), " ")
			if mode != "600" {
				t.Errorf("the kubeconfig has mode %s", mode)
			}
			if _, err := os.Stat(filepath.Dir(path)); !os.IsNotExist(err) {
				t.Errorf("%s is left: %v", path, err)
			}
		})
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	x := newTerminal(t, team(), team(pending, func(vc *tenancyv1alpha1.VirtualCluster) { vc.Name = "new" }))
	manifest := filepath.Join(t.TempDir(), "manifest")
	if err := os.WriteFile(manifest, []byte("apiVersion: tenancy.x-k8s.io/v1alpha1\nkind: VirtualCluster\nspec: {typo: 1}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"Missing":      {[]string{"status", "gone"}, `error: there is no VirtualCluster "gone" in this namespace; kubectl vc list --all-namespaces shows all`},
		"Exists":       {[]string{"create", "team-a"}, `error: there is a VirtualCluster "team-a" already; choose another name, or look at it with: kubectl vc status team-a`},
		"NoName":       {[]string{"create"}, "error: give the name of one VirtualCluster: kubectl vc create NAME [flags]"},
		"NoCommand":    {[]string{"exec", "team-a"}, "error: give the name of one VirtualCluster, -- and a command, for instance: kubectl vc exec team-a -- kubectl get pods"},
		"NoKubeconfig": {[]string{"kubeconfig", "new"}, "error: new has no kubeconfig yet (Pending); kubectl vc status new shows what it waits for"},
		"NoSecret":     {[]string{"kubeconfig", "team-a"}, "error: the Secret " + rootNamespace + "/admin-kubeconfig with the kubeconfig does not exist; kubectl vc status team-a may say why"},
		"Typo":         {[]string{"create", "b", "-f", manifest}, "error: reading the manifest " + manifest + `: error unmarshaling JSON: while decoding JSON: json: unknown field "typo"`},
	} {
		t.Run(name, func(t *testing.T) {
			if code := x.run(t.Context(), tc.args...); code != 1 {
				t.Errorf("exit code %d", code)
			}
			if diff := cmp.Diff(tc.want+"\n", x.err.String()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// A super cluster without the custom resource definitions, over the wire.
func TestNotInstalled(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	for _, args := range [][]string{{"list"}, {"status", "team-a"}, {"create", "team-a"}, {"delete", "team-a"}, {"shell", "team-a"}} {
		var out, errOut bytes.Buffer
		args = append([]string{"kubectl-vc"}, append(args, "--kubeconfig", userKubeconfig(t, server.URL))...)
		code := Run(t.Context(), args, genericiooptions.IOStreams{In: strings.NewReader(""), Out: &out, ErrOut: &errOut})
		if code != 1 || errOut.String() != "error: "+install+"\n" {
			t.Errorf("%v: %d %q", args, code, errOut.String())
		}
	}
}

func TestUnreachable(t *testing.T) {
	server := httptest.NewServer(nil)
	server.Close()
	var out, errOut bytes.Buffer
	code := Run(t.Context(), []string{"kubectl-vc", "list", "--kubeconfig", userKubeconfig(t, server.URL)}, genericiooptions.IOStreams{In: strings.NewReader(""), Out: &out, ErrOut: &errOut})
	if code != 1 || !strings.HasPrefix(errOut.String(), "error: the super cluster cannot be reached; check --kubeconfig and --context: ") || strings.Count(errOut.String(), "\n") != 1 {
		t.Errorf("%d %q", code, errOut.String())
	}
}

func TestCompletion(t *testing.T) {
	x := newTerminal(t, team(), team(func(vc *tenancyv1alpha1.VirtualCluster) { vc.Name = "team-b" }),
		&tenancyv1alpha1.ClusterVersion{ObjectMeta: metav1.ObjectMeta{Name: "v1-36"}})
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"Names":    {[]string{"status", "te"}, "team-a\nteam-b\n:4\n"},
		"OneName":  {[]string{"delete", "team-a", ""}, ":4\n"},
		"Versions": {[]string{"create", "x", "--version", ""}, "v1-36\n:4\n"},
		"NewNames": {[]string{"create", ""}, ":4\n"},
	} {
		t.Run(name, func(t *testing.T) {
			x.run(t.Context(), append([]string{"__complete"}, tc.args...)...)
			if diff := cmp.Diff(tc.want, x.out.String()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// Under its other name the program is what kubectl runs to complete "kubectl vc".
func TestCompletionForKubectl(t *testing.T) {
	var out, errOut bytes.Buffer
	Run(t.Context(), []string{"/usr/local/bin/kubectl_complete-vc", "kubec"}, genericiooptions.IOStreams{In: strings.NewReader(""), Out: &out, ErrOut: &errOut})
	if !strings.HasPrefix(out.String(), "kubeconfig\t") {
		t.Errorf("got %q", out.String())
	}
}
