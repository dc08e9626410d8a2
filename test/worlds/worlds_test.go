package worlds_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

func TestWorldsAreSeparateClusters(t *testing.T) {
	start := time.Now()
	w := worlds.Start(t, worlds.Options{Tenants: 2, TenantControllers: worlds.DefaultControllers()})
	t.Logf("one super cluster and two tenants were usable after %s", time.Since(start).Round(10*time.Millisecond))

	uids := map[string]string{}
	for _, world := range w.All() {
		namespace, err := world.Client.CoreV1().Namespaces().Get(t.Context(), metav1.NamespaceSystem, metav1.GetOptions{})
		if err != nil {
			t.Fatalf("getting kube-system of %s: %v", world.Name, err)
		}
		if other, dup := uids[string(namespace.UID)]; dup {
			t.Errorf("%s and %s have the same kube-system", other, world.Name)
		}
		uids[string(namespace.UID)] = world.Name
		// Namespaces of the same name do not collide, and pods are admitted in them.
		world.MakeNamespace(t, "shop")
		world.MakePod(t, worlds.Pod("shop", "web"))
		pod := world.RunPod(t, "shop", "web", "node-1", "10.0.0.1")
		if pod.Status.PodIP != "10.0.0.1" {
			t.Errorf("the pod of %s has IP %q", world.Name, pod.Status.PodIP)
		}
	}
	for _, resource := range []string{"virtualclusters", "clusterversions"} {
		path := "/apis/tenancy.x-k8s.io/v1alpha1/" + resource
		if err := w.Super.Client.Discovery().RESTClient().Get().AbsPath(path).Do(t.Context()).Error(); err != nil {
			t.Errorf("listing %s in super: %v", resource, err)
		}
		err := w.Tenants[0].Client.Discovery().RESTClient().Get().AbsPath(path).Do(t.Context()).Error()
		if !apierrors.IsNotFound(err) {
			t.Errorf("listing %s in a tenant: got %v, want not found", resource, err)
		}
	}
}

func TestKubeconfigWorksAndDoesNotOpenOtherWorlds(t *testing.T) {
	w := worlds.Start(t, worlds.Options{Tenants: 1})
	config, err := clientcmd.RESTConfigFromKubeConfig(w.Tenants[0].Kubeconfig)
	if err != nil {
		t.Fatalf("reading the kubeconfig: %v", err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatalf("making a client: %v", err)
	}
	if _, err := client.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Errorf("listing namespaces: %v", err)
	}
	config.Host = w.Super.Config.Host
	config.CAData = w.Super.Config.CAData
	client, err = kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatalf("making a client: %v", err)
	}
	if _, err := client.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{}); !apierrors.IsUnauthorized(err) {
		t.Errorf("a tenant's admin in the super cluster: got %v, want unauthorized", err)
	}
}

func TestTenantCanHangDieAndComeBack(t *testing.T) {
	w := worlds.Start(t, worlds.Options{Tenants: 2})
	hung, other := w.Tenants[0], w.Tenants[1]
	uid := systemUID(t, hung)

	if err := hung.Pause(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := hung.Client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a paused world answered: %v", err)
	}
	systemUID(t, other)
	if err := hung.Resume(); err != nil {
		t.Fatal(err)
	}
	if got := systemUID(t, hung); got != uid {
		t.Errorf("after the pause kube-system has UID %s, before %s", got, uid)
	}

	hung.Kill()
	if _, err := hung.Client.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{}); err == nil {
		t.Error("a killed world answered")
	}
	if err := hung.Restart(t.Context()); err != nil {
		t.Fatalf("restarting: %v", err)
	}
	if got := systemUID(t, hung); got != uid {
		t.Errorf("after the restart kube-system has UID %s, before %s", got, uid)
	}

	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	hung.Terminate(ctx)
	if err := hung.Restart(t.Context()); err != nil {
		t.Fatalf("restarting after a graceful end: %v", err)
	}
}

func TestStopLeavesNothing(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	w, err := worlds.New(t.Context(), worlds.Options{Tenants: 1})
	if err != nil {
		t.Fatalf("starting: %v", err)
	}
	// A paused server must not survive either.
	if err := w.Tenants[0].Pause(); err != nil {
		t.Fatal(err)
	}
	if err := w.Stop(); err != nil {
		t.Errorf("stopping: %v", err)
	}
	left, err := os.ReadDir(os.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if len(left) > 0 {
		t.Errorf("%s was left behind", left[0].Name())
	}
	if err := w.Stop(); err != nil {
		t.Errorf("stopping again: %v", err)
	}
}

// waitEnv makes the test binary start a world, print its address and wait to be killed.
const waitEnv = "WORLDS_TEST_WAIT"

func TestMain(m *testing.M) {
	if os.Getenv(waitEnv) == "" {
		os.Exit(m.Run())
	}
	w, err := worlds.New(context.Background(), worlds.Options{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(strings.TrimPrefix(w.Super.Config.Host, "https://"))
	<-make(chan struct{})
}

func TestKilledTestLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	test := exec.CommandContext(t.Context(), os.Args[0])
	test.Env = append(os.Environ(), waitEnv+"=1", "TMPDIR="+dir)
	test.Stderr = os.Stderr
	out, err := test.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := test.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("reading the address of the world: %v", err)
	}
	if err := test.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// It was killed, so it reports an error.
	_ = test.Wait()
	worlds.Eventually(t, 10*time.Second, "servers and files to go away", func(ctx context.Context) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", strings.TrimSpace(line))
		if err == nil {
			return errors.Join(errors.New("kube-apiserver still listens"), conn.Close())
		}
		left, err := os.ReadDir(dir)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("%s is still there", left[0].Name())
		}
		return err
	})
}

func TestMissingBinariesAreAnErrorThatSaysWhatToDo(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(worlds.BinDirEnv, dir)
	_, err := worlds.New(t.Context(), worlds.Options{})
	want := fmt.Sprintf("%s is missing: run `make build` first, or set %s", filepath.Join(dir, "etcd"), worlds.BinDirEnv)
	if err == nil || err.Error() != want {
		t.Errorf("got error %v, want %s", err, want)
	}
}

func systemUID(t *testing.T, w *worlds.World) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	namespace, err := w.Client.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
	if err != nil {
		t.Fatalf("getting kube-system of %s: %v", w.Name, err)
	}
	return string(namespace.UID)
}
