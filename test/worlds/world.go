package worlds

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/virtualcluster-io/virtualcluster/internal/iprange"
	"github.com/virtualcluster-io/virtualcluster/internal/pki"
)

// World is one Kubernetes control plane.
type World struct {
	// Name is "super" or "tenant-<number>".
	Name string
	// ServiceRanges are the ranges of its cluster IPs, of IPv4 and IPv6; no two worlds overlap. Services that do not ask for
	// both families have an address of IPv4.
	ServiceRanges iprange.Ranges
	// Config reaches it as a member of system:masters, without a client-side rate limit.
	Config *rest.Config
	// Client is made from Config.
	Client kubernetes.Interface
	// Kubeconfig is the same as Config, as a file's content.
	Kubeconfig []byte

	dir      string
	binaries binaries
	etcd     *etcd
	// advertised is in a range reserved for documentation: default/kubernetes gets an endpoint, nobody connects to it.
	advertised string
	extraArgs  []string
	port       int

	mu          sync.Mutex
	apiServer   *process
	controllers *process
	running     []string // the controllers that run
}

func newWorld(name string, index int, dir string, binaries binaries, etcd *etcd, extraArgs []string) *World {
	return &World{
		Name:          name,
		ServiceRanges: iprange.MustParse(fmt.Sprintf("10.%d.%d.0/21,fd00:%x::/112", 200+index/32, index%32*8, index+1)),
		dir:           filepath.Join(dir, name),
		binaries:      binaries,
		etcd:          etcd,
		advertised:    fmt.Sprintf("198.18.%d.%d", index/250, index%250+1),
		extraArgs:     extraArgs,
	}
}

// create makes keys and certificates and starts kube-apiserver at a free port.
func (w *World) create(ctx context.Context) error {
	if err := os.MkdirAll(w.dir, 0o700); err != nil {
		return fmt.Errorf("creating a directory: %w", err)
	}
	keys, err := newCredentials(w.Name)
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		"ca.crt": keys.ca, "tls.crt": keys.serving.Certificate, "tls.key": keys.serving.Key, "sa.key": keys.signingKey,
	} {
		if err := os.WriteFile(w.path(name), content, 0o600); err != nil {
			return fmt.Errorf("writing %s: %w", name, err)
		}
	}
	for {
		w.port, err = FreePort(ctx)
		if err != nil {
			return err
		}
		if err := w.connect(keys.ca, keys.admin); err != nil {
			return err
		}
		err = w.Restart(ctx)
		if errors.Is(err, errPortTaken) {
			continue
		}
		return err
	}
}

func (w *World) connect(ca []byte, admin pki.Pair) error {
	w.Config = &rest.Config{
		Host:            fmt.Sprintf("https://127.0.0.1:%d", w.port),
		QPS:             -1,
		TLSClientConfig: rest.TLSClientConfig{CAData: ca, CertData: admin.Certificate, KeyData: admin.Key},
	}
	client, err := kubernetes.NewForConfig(w.Config)
	if err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	w.Client = client
	w.Kubeconfig, err = clientcmd.Write(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{w.Name: {Server: w.Config.Host, CertificateAuthorityData: ca}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"admin": {ClientCertificateData: admin.Certificate, ClientKeyData: admin.Key}},
		Contexts:       map[string]*clientcmdapi.Context{w.Name: {Cluster: w.Name, AuthInfo: "admin"}},
		CurrentContext: w.Name,
	})
	if err != nil {
		return fmt.Errorf("encoding a kubeconfig: %w", err)
	}
	if err := os.WriteFile(w.KubeconfigPath(), w.Kubeconfig, 0o600); err != nil {
		return fmt.Errorf("writing a kubeconfig: %w", err)
	}
	return nil
}

// KubeconfigPath is a file that holds Kubeconfig as long as the worlds run.
func (w *World) KubeconfigPath() string { return w.path("kubeconfig") }

// LogPath is the log of kube-apiserver.
func (w *World) LogPath() string { return w.path("kube-apiserver.log") }

func (w *World) path(name string) string { return filepath.Join(w.dir, name) }

// SetArgs replaces the arguments of kube-apiserver that are this world's own, from its next start on.
func (w *World) SetArgs(args ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.extraArgs = args
}

// Restart ends kube-apiserver when it runs and starts it again at the same address with the same keys and data. It
// returns when an authenticated request works, which is a second before /readyz says so.
func (w *World) Restart(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.apiServer != nil {
		w.apiServer.kill()
	}
	args := append([]string{
		"--etcd-servers=" + w.etcd.endpoint,
		"--etcd-prefix=/" + w.Name,
		"--bind-address=127.0.0.1",
		fmt.Sprintf("--secure-port=%d", w.port),
		"--advertise-address=" + w.advertised,
		"--service-cluster-ip-range=" + w.ServiceRanges.String(),
		"--tls-cert-file=" + w.path("tls.crt"),
		"--tls-private-key-file=" + w.path("tls.key"),
		"--client-ca-file=" + w.path("ca.crt"),
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-signing-key-file=" + w.path("sa.key"),
		"--service-account-key-file=" + w.path("sa.key"),
		"--authorization-mode=Node,RBAC",
		"--allow-privileged=true",
		// It would otherwise write a generated certificate into a directory of the machine.
		"--cert-dir=" + w.path("certs"),
	}, w.extraArgs...)
	var err error
	if w.apiServer, err = startProcess(w.LogPath(), w.binaries.apiServer, args...); err != nil {
		return err
	}
	return w.apiServer.awaitReady(ctx, w.usable)
}

// usable says whether an admin can work: system namespaces exist, and so requests are authenticated, authorised and
// stored.
func (w *World) usable(ctx context.Context) error {
	for _, namespace := range []string{metav1.NamespaceSystem, metav1.NamespaceDefault} {
		if _, err := w.Client.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{}); err != nil {
			return fmt.Errorf("getting namespace %s: %w", namespace, err)
		}
	}
	return nil
}

// Pause stops kube-apiserver where it is: it still accepts connections and answers nobody, as a hung one does.
func (w *World) Pause() error { return w.signal(syscall.SIGSTOP) }

// Resume ends a Pause.
func (w *World) Resume() error { return w.signal(syscall.SIGCONT) }

func (w *World) signal(sig syscall.Signal) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.apiServer.signal(sig)
}

// PID is that of kube-apiserver.
func (w *World) PID() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.apiServer.cmd.Process.Pid
}

// Kill ends kube-apiserver at once: connections are refused until Restart.
func (w *World) Kill() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.apiServer.kill()
}

// Terminate ends kube-apiserver gracefully, at the latest when the context ends.
func (w *World) Terminate(ctx context.Context) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.apiServer.terminate(ctx)
}

// DefaultControllers are what tests usually need of a kube-controller-manager: what gives a namespace its service
// account and root CA, what deletes namespaces and dependents, and what computes endpoints, the pods
// of workloads and the resource claims of pods.
func DefaultControllers() []string {
	return []string{
		"serviceaccount-controller",
		"root-ca-certificate-publisher-controller",
		"namespace-controller",
		"garbage-collector-controller",
		"endpoints-controller",
		"endpointslice-controller",
		"deployment-controller",
		"replicaset-controller",
		"statefulset-controller",
		"daemonset-controller",
		"resourceclaim-controller",
	}
}

// StartControllers starts a kube-controller-manager with the given controllers, in place of one that runs. It waits for
// the API server to be well, because a kube-controller-manager does that for ten seconds only and then ends.
func (w *World) StartControllers(ctx context.Context, controllers ...string) error {
	err := poll(ctx, func(ctx context.Context) error {
		return w.Client.Discovery().RESTClient().Get().AbsPath("/healthz").Do(ctx).Error()
	}, 50*time.Millisecond)
	if err != nil {
		return fmt.Errorf("waiting for the API server to be well: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.controllers != nil {
		w.controllers.kill()
	}
	w.running = controllers
	w.controllers, err = startProcess(w.path("kube-controller-manager.log"), w.binaries.controllerManager,
		"--kubeconfig="+w.KubeconfigPath(),
		"--controllers="+strings.Join(controllers, ","),
		"--leader-elect=false",
		"--secure-port=0",
		"--root-ca-file="+w.path("ca.crt"),
		"--service-account-private-key-file="+w.path("sa.key"),
		"--kube-api-qps=500", "--kube-api-burst=1000",
	)
	return err
}

func (w *World) killAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range []*process{w.controllers, w.apiServer} {
		if p != nil {
			p.kill()
		}
	}
}
