// Package local finds the local cluster that `make up` leaves behind: kubeconfigs, binaries and the VirtualClusters of
// the sample tenants. It starts nothing. The end-to-end tests and the benchmark use it.
package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

// Environment variables that name another local cluster, as they do for `make up`.
const (
	// ClusterEnv has the name of the super cluster; the default is super.
	ClusterEnv = "CLUSTER"
	// TenantsEnv has the directory with the tenants' kubeconfigs; the default is _local/tenants.
	TenantsEnv = "TENANTS"
)

// Image is the debug image of the local cluster: sh, wget, nslookup, nc, httpd, tar.
const Image = "docker.io/library/busybox:1.35"

// KubectlImage has kubectl in it: the in-cluster client that everybody knows.
const KubectlImage = "registry.k8s.io/kubectl:v1.36.3"

// Cluster is the super cluster with its sample tenants.
type Cluster struct {
	// Dir is the _local directory.
	Dir     string
	Super   *Access
	Tenants []*Tenant
}

// Access is what somebody with a kubeconfig has.
type Access struct {
	Name       string
	Kubeconfig string
	Config     *rest.Config
	Client     kubernetes.Interface
	Dynamic    dynamic.Interface

	bin string
}

// Tenant is a VirtualCluster with the kubeconfig that its owner got.
type Tenant struct {
	*Access
	VirtualCluster tenancyv1alpha1.VirtualCluster
}

// ID is the name of the root namespace.
func (t *Tenant) ID() names.TenantID {
	return names.TenantID(t.VirtualCluster.Status.ClusterNamespace)
}

// Open reads what `make up` made. It needs at least the given number of tenants.
func Open(ctx context.Context, tenants int) (*Cluster, error) {
	root, err := worlds.ModuleRoot()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(root, "_local")
	kubeconfigs := cmp.Or(os.Getenv(TenantsEnv), filepath.Join(dir, "tenants"))
	c := &Cluster{Dir: dir}
	c.Super, err = c.Open("super", filepath.Join(dir, cmp.Or(os.Getenv(ClusterEnv), "super")+".kubeconfig"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no local cluster: run `make up` first: %w", err)
	}
	if err != nil {
		return nil, err
	}
	list, err := c.VirtualClusters(ctx)
	if err != nil {
		return nil, fmt.Errorf("VirtualCluster is not installed or the super cluster does not run: run `make up` first: %w", err)
	}
	for _, vc := range list {
		path := filepath.Join(kubeconfigs, vc.Name+".kubeconfig")
		access, err := c.Open(vc.Name, path)
		if errors.Is(err, fs.ErrNotExist) {
			// Somebody's own VirtualCluster, not a sample.
			continue
		}
		if err != nil {
			return nil, err
		}
		c.Tenants = append(c.Tenants, &Tenant{Access: access, VirtualCluster: vc})
	}
	if len(c.Tenants) < tenants {
		return nil, fmt.Errorf("%d tenants with a kubeconfig in %s, want %d: run `make up` first", len(c.Tenants), kubeconfigs, tenants)
	}
	return c, nil
}

// Open returns the access that a kubeconfig gives.
func (c *Cluster) Open(name, kubeconfig string) (*Access, error) {
	text, err := os.ReadFile(kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig of %s: %w", name, err)
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(text)
	if err != nil {
		return nil, fmt.Errorf("parsing %s: %w", kubeconfig, err)
	}
	config.QPS = -1
	a := &Access{Name: name, Kubeconfig: kubeconfig, Config: config, bin: filepath.Join(c.Dir, "bin")}
	if a.Client, err = kubernetes.NewForConfig(config); err != nil {
		return nil, fmt.Errorf("making a client of %s: %w", name, err)
	}
	if a.Dynamic, err = dynamic.NewForConfig(config); err != nil {
		return nil, fmt.Errorf("making a dynamic client of %s: %w", name, err)
	}
	return a, nil
}

// Command returns a command of _local/bin with the environment of somebody who has only this kubeconfig.
func (a *Access) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(a.bin, name), args...)
	cmd.Env = []string{"HOME=/nonexistent", "TERM=dumb", "KUBECONFIG=" + a.Kubeconfig, "PATH=" + a.bin + ":/usr/bin:/bin"}
	// kubectl would otherwise ask for the whole API before each command.
	if cache := os.Getenv("KUBECACHEDIR"); cache != "" {
		cmd.Env = append(cmd.Env, "KUBECACHEDIR="+filepath.Join(cache, a.Name))
	}
	return cmd
}

// VirtualClusters returns all VirtualClusters of the super cluster.
func (c *Cluster) VirtualClusters(ctx context.Context) ([]tenancyv1alpha1.VirtualCluster, error) {
	list, err := c.Super.Dynamic.Resource(tenancyv1alpha1.GroupVersion().WithResource("virtualclusters")).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("listing VirtualClusters: %w", err)
	}
	vcs := make([]tenancyv1alpha1.VirtualCluster, len(list.Items))
	for i, item := range list.Items {
		if err := convert(&item, &vcs[i]); err != nil {
			return nil, err
		}
	}
	return vcs, nil
}

// VirtualCluster returns one.
func (c *Cluster) VirtualCluster(ctx context.Context, namespace, name string) (*tenancyv1alpha1.VirtualCluster, error) {
	item, err := c.Super.Dynamic.Resource(tenancyv1alpha1.GroupVersion().WithResource("virtualclusters")).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("getting VirtualCluster %s/%s: %w", namespace, name, err)
	}
	vc := &tenancyv1alpha1.VirtualCluster{}
	return vc, convert(item, vc)
}

// Tenant returns the access of the owner of a VirtualCluster that is ready, with the kubeconfig written into a
// directory.
func (c *Cluster) Tenant(ctx context.Context, vc *tenancyv1alpha1.VirtualCluster, dir string) (*Tenant, error) {
	ref := vc.Status.KubeconfigSecret
	if ref == nil {
		return nil, fmt.Errorf("VirtualCluster %s/%s names no kubeconfig Secret", vc.Namespace, vc.Name)
	}
	secret, err := c.Super.Client.CoreV1().Secrets(vc.Status.ClusterNamespace).Get(ctx, ref.Name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("getting the kubeconfig Secret: %w", err)
	}
	path := filepath.Join(dir, vc.Name+".kubeconfig")
	if err := os.WriteFile(path, secret.Data[ref.Key], 0o600); err != nil {
		return nil, fmt.Errorf("writing the kubeconfig: %w", err)
	}
	access, err := c.Open(vc.Name, path)
	if err != nil {
		return nil, err
	}
	return &Tenant{Access: access, VirtualCluster: *vc}, nil
}

// Conditions returns the conditions in one line, for messages.
func Conditions(vc *tenancyv1alpha1.VirtualCluster) string {
	lines := make([]string, 0, len(vc.Status.Conditions)+1)
	lines = append(lines, fmt.Sprintf("phase %s (%s)", vc.Status.Phase, vc.Status.Message))
	for _, c := range vc.Status.Conditions {
		lines = append(lines, fmt.Sprintf("%s=%s %s: %s", c.Type, c.Status, c.Reason, c.Message))
	}
	return strings.Join(lines, "; ")
}

func convert(item *unstructured.Unstructured, into *tenancyv1alpha1.VirtualCluster) error {
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(item.Object, into); err != nil {
		return fmt.Errorf("decoding VirtualCluster %s/%s: %w", item.GetNamespace(), item.GetName(), err)
	}
	return nil
}
