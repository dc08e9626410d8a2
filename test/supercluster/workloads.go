package supercluster

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/virtualcluster-io/virtualcluster/test/supercluster/images"
)

//go:embed manifests
var manifests embed.FS

func (c *Cluster) client() (kubernetes.Interface, error) {
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig())
	if err != nil {
		return nil, fmt.Errorf("loading the administrator's kubeconfig: %w", err)
	}
	config.Timeout = 10 * time.Second
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("creating a client: %w", err)
	}
	return client, nil
}

// registerNode creates the Node before its kubelet does: routes are static, so is the pod range.
func registerNode(ctx context.Context, client kubernetes.Interface, n node) error {
	_, err := client.CoreV1().Nodes().Create(ctx, &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: n.Name},
		Spec:       corev1.NodeSpec{PodCIDR: n.PodCIDR.String(), PodCIDRs: []string{n.PodCIDR.String()}},
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("registering %s: %w", n.Name, err)
	}
	return nil
}

// Load imports image archives into every node that does not have them yet.
func (c *Cluster) Load(ctx context.Context, archives []string) error {
	if !c.subnet.IsValid() {
		return fmt.Errorf("there is no cluster in %s", c.Dir)
	}
	return c.steps.Run(ctx, "Loading images", func(ctx context.Context) error { return c.load(ctx, archives) })
}

func (c *Cluster) load(ctx context.Context, archives []string) error {
	// The group's context ends with it.
	group, each := errgroup.WithContext(ctx)
	for _, n := range c.nodes() {
		group.Go(func() error { return c.loadNode(each, n, archives) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return c.listLoaded(ctx)
}

// listLoaded tells the registry what there is.
func (c *Cluster) listLoaded(ctx context.Context) error {
	loaded, err := c.loaded(ctx, c.nodes()[0])
	if err != nil {
		return err
	}
	data, err := json.MarshalIndent(loaded, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the list of images: %w", err)
	}
	return writeFile(c.loadedFile(), append(data, '\n'), 0o644)
}

func (c *Cluster) ctr(ctx context.Context, n node, args ...string) (string, error) {
	return run(ctx, c.program("ctr"), append([]string{"--address", n.containerdSocket(), "--namespace", "k8s.io"}, args...)...)
}

// loaded returns the images that a node has, name to digest.
func (c *Cluster) loaded(ctx context.Context, n node) (map[string]string, error) {
	out, err := c.ctr(ctx, n, "images", "list")
	if err != nil {
		return nil, err
	}
	return parseImages(out), nil
}

func (c *Cluster) loadNode(ctx context.Context, n node, archives []string) error {
	present, err := c.loaded(ctx, n)
	if err != nil {
		return err
	}
	for _, archive := range archives {
		wanted, err := images.Names(archive)
		if err != nil {
			return err
		}
		missing := len(wanted) == 0
		for name, digest := range wanted {
			missing = missing || present[name] != digest
		}
		if !missing {
			continue
		}
		if _, err := c.ctr(ctx, n, "images", "import", archive); err != nil {
			return fmt.Errorf("loading %s into %s: %w", path.Base(archive), n.Name, err)
		}
	}
	return nil
}

// parseImages reads ctr's table: name, type, digest, ...
func parseImages(out string) map[string]string {
	present := map[string]string{}
	for line := range strings.Lines(out) {
		if fields := strings.Fields(line); len(fields) > 2 && strings.HasPrefix(fields[2], "sha256:") {
			present[fields[0]] = fields[2]
		}
	}
	return present
}

func (c *Cluster) installAddons(ctx context.Context) error {
	entries, err := manifests.ReadDir("manifests")
	if err != nil {
		return fmt.Errorf("listing manifests: %w", err)
	}
	var all bytes.Buffer
	for _, e := range entries {
		content, err := manifests.ReadFile("manifests/" + e.Name())
		if err != nil {
			return fmt.Errorf("reading manifest: %w", err)
		}
		all.Write(content)
		all.WriteString("\n---\n")
	}
	cmd := exec.CommandContext(ctx, c.program("kubectl"), "--kubeconfig", c.Kubeconfig(),
		"apply", "--server-side", "--force-conflicts", "-f", "-")
	cmd.Stdin = &all
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("applying manifests: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

func (c *Cluster) awaitReady(ctx context.Context) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	admin, err := c.adminHTTP()
	if err != nil {
		return err
	}
	for _, n := range c.nodes() {
		if err := c.await(ctx, c.kubelet(n), func(ctx context.Context) error {
			// The Node object keeps its condition for a while after its kubelet died.
			if err := get(ctx, admin, "https://"+n.IP.String()+":10250/healthz"); err != nil {
				return err
			}
			return nodeReady(ctx, client, n.Name)
		}); err != nil {
			return err
		}
		if err := c.await(ctx, c.kubeProxy(n), func(ctx context.Context) error {
			return get(ctx, admin, "http://"+n.IP.String()+":10256/healthz")
		}); err != nil {
			return err
		}
		if err := c.await(ctx, c.netpol(n), func(ctx context.Context) error {
			_, err := run(ctx, "nsenter", "--net="+c.netnsFile(n.netns), "--", "nft", "list", "table", "inet", "netpol")
			return err
		}); err != nil {
			return err
		}
	}
	for port, p := range map[string]component{"10257": c.controllerManager(), "10259": c.scheduler()} {
		url := "https://" + c.controlPlaneIP().String() + ":" + port + "/healthz"
		if err := c.await(ctx, p, func(ctx context.Context) error { return get(ctx, admin, url) }); err != nil {
			return err
		}
	}
	for _, d := range []struct{ namespace, name string }{
		{"kube-system", "coredns"}, {"local-path-storage", "local-path-provisioner"},
	} {
		err := poll(ctx, patience, func(ctx context.Context) error { return deploymentReady(ctx, client, d.namespace, d.name) })
		if err != nil {
			return err
		}
	}
	return nil
}

func nodeReady(ctx context.Context, client kubernetes.Interface, name string) error {
	n, err := client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	for _, condition := range n.Status.Conditions {
		if condition.Type != corev1.NodeReady {
			continue
		}
		if condition.Status == corev1.ConditionTrue {
			return nil
		}
		return fmt.Errorf("node %s is not ready: %s", name, condition.Message)
	}
	return fmt.Errorf("node %s has not reported yet", name)
}

func deploymentReady(ctx context.Context, client kubernetes.Interface, namespace, name string) error {
	d, err := client.AppsV1().Deployments(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	for _, condition := range d.Status.Conditions {
		if condition.Type == appsv1.DeploymentAvailable && condition.Status == corev1.ConditionTrue {
			return nil
		}
	}
	return errors.New("deployment " + namespace + "/" + name + " is not available: " + podTrouble(ctx, client, namespace))
}

// podTrouble says what the pods of a namespace are waiting for.
func podTrouble(ctx context.Context, client kubernetes.Interface, namespace string) string {
	pods, err := client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err.Error()
	}
	var reasons []string
	for _, pod := range pods.Items {
		reason := string(pod.Status.Phase)
		for _, status := range pod.Status.ContainerStatuses {
			if w := status.State.Waiting; w != nil {
				reason = w.Reason + " " + w.Message
			}
		}
		reasons = append(reasons, "pod "+pod.Name+": "+reason)
	}
	return strings.Join(reasons, "; ")
}
