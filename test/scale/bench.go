package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

const (
	// namespace is that of the VirtualClusters in the super cluster, and that of the load in tenants.
	namespace = "load"
	// setupTimeout bounds each step of the start, after that of the API servers.
	setupTimeout = 2 * time.Minute
	// syncTimeout bounds the start of a vc-syncer.
	syncTimeout = 2 * time.Minute
)

// bench is everything that runs while we measure, except for vc-syncer.
type bench struct {
	options options
	worlds  *worlds.Worlds
	client  client.Client // of the super cluster
	watches []*podWatch   // of the super cluster and then of the tenants
	helpers []*worlds.Process
	end     context.CancelFunc

	baseline, tenants []target
}

// target is a namespace that load goes to.
type target struct {
	client    kubernetes.Interface
	namespace string
	pods      *podWatch
	// super is where the pods of a tenant are in the super cluster; empty for a namespace of the super cluster itself.
	super string
}

func newBench(ctx context.Context, o options) (*bench, error) {
	progress("starting %d API servers", o.Tenants+1)
	w, err := worlds.New(ctx, worlds.Options{
		Tenants: o.Tenants,
		// It gives nodes a taint that a kube-controller-manager of tenants would take away.
		APIServerArgs: []string{"--disable-admission-plugins=TaintNodesByCondition"},
		SuperControllers: []string{
			"namespace-controller", "serviceaccount-controller", "root-ca-certificate-publisher-controller", "garbage-collector-controller",
		},
	})
	if err != nil {
		return nil, err
	}
	watching, end := context.WithCancel(ctx)
	b := &bench{options: o, worlds: w, end: end}
	if err := b.setUp(ctx, watching); err != nil {
		return nil, errors.Join(err, b.stop())
	}
	return b, nil
}

func (b *bench) stop() error {
	b.end()
	for _, p := range b.helpers {
		p.Kill()
	}
	return b.worlds.Stop()
}

func (b *bench) setUp(ctx, watching context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, setupTimeout)
	defer cancel()
	scheme := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
	utilruntime.Must(tenancyv1alpha1.AddToScheme(scheme))
	var err error
	if b.client, err = client.New(b.worlds.Super.Config, client.Options{Scheme: scheme}); err != nil {
		return fmt.Errorf("making a client of the super cluster: %w", err)
	}
	if b.helpers, err = b.worlds.StartNodes(ctx, b.options.Nodes, b.options.out); err != nil {
		return fmt.Errorf("starting nodes: %w", err)
	}
	if err := b.client.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}); err != nil {
		return fmt.Errorf("creating the namespace of the VirtualClusters: %w", err)
	}
	for _, world := range b.worlds.All() {
		client, err := connect(world)
		if err != nil {
			return err
		}
		pods, err := watchPods(watching, world.Name, client)
		if err != nil {
			return err
		}
		b.watches = append(b.watches, pods)
		if world != b.worlds.Super {
			if err := b.prepareTenant(ctx, client); err != nil {
				return fmt.Errorf("preparing %s: %w", world.Name, err)
			}
			b.tenants = append(b.tenants, target{client: client, namespace: namespace, pods: pods})
			continue
		}
		for i := range b.options.Tenants {
			t := target{client: client, namespace: fmt.Sprintf("direct-%d", i), pods: pods}
			if err := b.prepareNamespace(ctx, t); err != nil {
				return fmt.Errorf("preparing namespace %s: %w", t.namespace, err)
			}
			b.baseline = append(b.baseline, t)
		}
	}
	return nil
}

// connect makes a client that costs little: what we use is not there for vc-syncer.
func connect(world *worlds.World) (kubernetes.Interface, error) {
	config := rest.CopyConfig(world.Config)
	config.ContentType = runtime.ContentTypeProtobuf
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("making a client of %s: %w", world.Name, err)
	}
	return client, nil
}

// prepareTenant makes what a kube-controller-manager would make in the namespace of the load.
func (b *bench) prepareTenant(ctx context.Context, client kubernetes.Interface) error {
	core := client.CoreV1()
	if _, err := core.Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("creating a namespace: %w", err)
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	if _, err := core.ServiceAccounts(namespace).Create(ctx, account, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("creating a service account: %w", err)
	}
	ca := worlds.ConfigMap(namespace, "kube-root-ca.crt", map[string]string{"ca.crt": "of no use to a fake node"})
	if _, err := core.ConfigMaps(namespace).Create(ctx, ca, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("creating a ConfigMap: %w", err)
	}
	return nil
}

// prepareNamespace makes a namespace of the super cluster for the load of the baseline.
func (b *bench) prepareNamespace(ctx context.Context, t target) error {
	if err := b.client.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: t.namespace}}); err != nil {
		return fmt.Errorf("creating it: %w", err)
	}
	return poll(ctx, setupTimeout, "the default service account", func() (bool, error) {
		_, err := t.client.CoreV1().ServiceAccounts(t.namespace).Get(ctx, "default", metav1.GetOptions{})
		return err == nil, client.IgnoreNotFound(err)
	})
}

// makeVirtualClusters makes an External VirtualCluster of each tenant.
func (b *bench) makeVirtualClusters(ctx context.Context) error {
	for i, world := range b.worlds.Tenants {
		vc := &tenancyv1alpha1.VirtualCluster{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: world.Name},
			Spec: tenancyv1alpha1.VirtualClusterSpec{ServiceCIDR: world.ServiceRanges.String(), ControlPlane: tenancyv1alpha1.ControlPlaneSpec{
				Type:     tenancyv1alpha1.External,
				External: &tenancyv1alpha1.ExternalControlPlane{KubeconfigSecret: tenancyv1alpha1.SecretKeyReference{Name: world.Name}},
			}},
		}
		for _, object := range []client.Object{
			&corev1.Secret{
				ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: world.Name},
				Data:       map[string][]byte{names.KubeconfigKey: world.Kubeconfig},
			},
			&networkingv1.ServiceCIDR{
				ObjectMeta: metav1.ObjectMeta{Name: world.Name},
				Spec:       networkingv1.ServiceCIDRSpec{CIDRs: world.ServiceRanges.CIDRs()},
			},
			vc,
		} {
			if err := b.client.Create(ctx, object); err != nil {
				return fmt.Errorf("creating what belongs to VirtualCluster %s: %w", world.Name, err)
			}
		}
		b.tenants[i].super = names.SuperNamespace(names.Tenant(client.ObjectKeyFromObject(vc), vc.UID), namespace)
	}
	return nil
}

// synced starts a vc-syncer and waits until it serves all tenants. Conditions that another one has set do not count.
func (b *bench) synced(ctx context.Context, binary string) (*syncer, error) {
	s, err := b.startSyncer(ctx, binary)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, syncTimeout)
	defer cancel()
	if err := s.AwaitReady(ctx, func(ctx context.Context) error { return b.syncing(ctx, s) }); err != nil {
		s.Kill()
		return nil, err
	}
	return s, nil
}

func (b *bench) syncing(ctx context.Context, s *syncer) error {
	connected, err := b.connected(ctx, s)
	if err != nil {
		return err
	}
	if connected != b.options.Tenants {
		return fmt.Errorf("%d of %d tenants are connected", connected, b.options.Tenants)
	}
	var list tenancyv1alpha1.VirtualClusterList
	if err := b.client.List(ctx, &list); err != nil {
		return fmt.Errorf("listing VirtualClusters: %w", err)
	}
	for _, vc := range list.Items {
		if !apimeta.IsStatusConditionTrue(vc.Status.Conditions, tenancyv1alpha1.ConditionSyncing) {
			return fmt.Errorf("VirtualCluster %s is not synchronised: %v", vc.Name, vc.Status.Conditions)
		}
	}
	return nil
}

// serve starts a vc-syncer and has each tenant run a pod, which pays for what happens once in a namespace.
func (b *bench) serve(ctx context.Context, binary string) (*syncer, error) {
	s, err := b.synced(ctx, binary)
	if err != nil {
		return nil, err
	}
	first := newLoad("first", b.tenants)
	if err := errors.Join(b.create(ctx, first, 1, 0, b.tenants...), b.awaitReady(ctx, first), b.clean(ctx, b.tenants)); err != nil {
		s.end()
		return nil, fmt.Errorf("running a first pod in each tenant: %w", err)
	}
	return s, nil
}

// clean deletes all pods of some targets and waits until they are gone, from the super cluster, too, and their tokens: what is
// left to do would count for the next load.
func (b *bench) clean(ctx context.Context, targets []target) error {
	now := metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}
	for _, t := range targets {
		err := t.client.CoreV1().Pods(t.namespace).DeleteCollection(ctx, now, metav1.ListOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("deleting pods: %w", err)
		}
	}
	err := poll(ctx, loadTimeout, "pods to go", func() (bool, error) {
		for _, t := range targets {
			n, err := t.pods.count(t.namespace)
			if t.super != "" && err == nil && n == 0 {
				n, err = b.watches[0].count(t.super)
			}
			if err != nil || n > 0 {
				return false, err
			}
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	return poll(ctx, loadTimeout, "tokens to go", func() (bool, error) {
		secrets := &metav1.PartialObjectMetadataList{}
		secrets.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("SecretList"))
		err := b.client.List(ctx, secrets, client.HasLabels{names.LabelToken}, client.Limit(1))
		if err != nil || len(secrets.Items) == 0 {
			return err == nil, err
		}
		return false, pause(ctx, 500*time.Millisecond)
	})
}
