// Package syncer_test runs the syncer between a real API server of a super cluster and those of two tenants: everything
// it promises that needs no kubelet.
package syncer_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlconfig "sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer"
	"github.com/virtualcluster-io/virtualcluster/syncer/engine"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

// agentNamespace is where the tests pretend that vn-agent runs.
const agentNamespace = "vc-system"

// limit of every wait.
const limit = 30 * time.Second

// w are the two worlds that all tests of the package share; each test uses namespaces of its own.
var w *worlds.Worlds

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := withWorlds(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func withWorlds(m *testing.M) (int, error) {
	ctrl.SetLogger(zap.New())
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var err error
	w, err = worlds.New(ctx, options(2))
	if err != nil {
		return 0, err
	}
	defer func() {
		if err := w.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	if err := installRights(ctx, w.Super); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

// options are those of worlds with the controllers that the tests need.
func options(tenants int) worlds.Options {
	return worlds.Options{
		Tenants: tenants, TenantControllers: append(worlds.DefaultControllers(), "persistentvolume-binder-controller",
			"persistentvolume-protection-controller", "persistentvolumeclaim-protection-controller", "disruption-controller",
			"endpointslice-mirroring-controller", "volumeattributesclass-protection-controller"),
		SuperControllers: []string{
			"namespace-controller", "serviceaccount-controller", "garbage-collector-controller", "root-ca-certificate-publisher-controller",
			"persistentvolume-binder-controller", "persistentvolume-protection-controller", "persistentvolumeclaim-protection-controller",
			"disruption-controller", "resourceclaim-controller", "endpoints-controller", "endpointslice-controller",
			"endpointslice-mirroring-controller", "volumeattributesclass-protection-controller",
		},
	}
}

// account is what the syncer runs as.
const account = "system:serviceaccount:vc-system:vc-syncer"

// installRights gives the syncer's account the rights that it is installed with, and no more.
func installRights(ctx context.Context, super *worlds.World) error {
	agent := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: names.VNAgentStreamsRole}}
	if _, err := super.Client.RbacV1().ClusterRoles().Create(ctx, agent, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("creating the role of vn-agent: %w", err)
	}
	root, err := worlds.ModuleRoot()
	if err != nil {
		return err
	}
	role, err := os.ReadFile(filepath.Join(root, "config", "rbac", "vc-syncer", "role.yaml"))
	if err != nil {
		return fmt.Errorf("reading the syncer's role: %w", err)
	}
	rbac := super.Client.RbacV1()
	err = rbac.RESTClient().Post().Resource("clusterroles").SetHeader("Content-Type", "application/yaml").Body(role).Do(ctx).Error()
	if err != nil {
		return fmt.Errorf("creating the syncer's role: %w", err)
	}
	_, err = rbac.ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "vc-syncer"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "vc-syncer"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: account}},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("binding the syncer's role: %w", err)
	}
	return waitForDiscovery(ctx, super)
}

// asSyncer reaches the super cluster as the syncer does.
func asSyncer(super *worlds.World) *rest.Config {
	config := rest.CopyConfig(super.Config)
	config.Impersonate.UserName = account
	return config
}

// waitForDiscovery waits until the account may discover what the API server serves: an API server makes its own roles
// after it began to serve.
func waitForDiscovery(ctx context.Context, super *worlds.World) error {
	c, err := kubernetes.NewForConfig(asSyncer(super))
	if err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := c.Discovery().ServerGroups()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the roles of the API server: %w; last: %w", ctx.Err(), err)
		case <-tick.C:
		}
	}
}

func newScheme() *runtime.Scheme {
	s := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(s))
	utilruntime.Must(tenancyv1alpha1.AddToScheme(s))
	return s
}

// running is a syncer in this process and the tenants that it serves.
type running struct {
	worlds  *worlds.Worlds
	client  client.Client // of the super cluster
	tenants []tenant
	stop    func()
}

// tenant is one of the worlds under a VirtualCluster.
type tenant struct {
	kubernetes.Interface
	world *worlds.World
	id    names.TenantID
	vc    client.ObjectKey
}

// start runs a syncer that serves every tenant world as an External VirtualCluster, until the test ends. The
// VirtualClusters are those of all tests: what one test leaves, the next one's syncer removes.
func start(t *testing.T, edit ...func(*syncer.Options)) *running {
	t.Helper()
	return startIn(t, w, edit...)
}

// startIn does so in worlds that are not those of all tests.
func startIn(t *testing.T, w *worlds.Worlds, edit ...func(*syncer.Options)) *running {
	t.Helper()
	c, err := client.New(w.Super.Config, client.Options{Scheme: newScheme()})
	if err != nil {
		t.Fatal(err)
	}
	r := &running{worlds: w, client: c}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "tenants"}}
	if err := c.Create(t.Context(), ns); client.IgnoreAlreadyExists(err) != nil {
		t.Fatal(err)
	}
	for _, world := range w.Tenants {
		r.tenants = append(r.tenants, r.virtualCluster(t, ns.Name, world))
	}
	r.run(t, edit...)
	return r
}

// run starts the syncer; the test stops it, or its end does.
func (r *running) run(t *testing.T, edit ...func(*syncer.Options)) {
	t.Helper()
	o := syncer.Options{
		AgentNamespace: agentNamespace, Timeout: 2 * time.Second, Probe: 500 * time.Millisecond, Patrol: 2 * time.Second,
		Registerer: prometheus.NewRegistry(), Brake: engine.BrakeOptions{Limit: 1000}, Budget: resource.DefaultBudget(),
		Metadata: []resource.Metadata{{Kind: resource.ServiceAccounts, Labels: []string{"kind-life"}}, {Kind: "secrets", Labels: []string{"flows"}}},
	}
	for _, f := range edit {
		f(&o)
	}
	again := true
	mgr, err := ctrl.NewManager(asSyncer(r.worlds.Super), ctrl.Options{
		Scheme: newScheme(), Cache: syncer.Cache(), Metrics: metricsserver.Options{BindAddress: "0"},
		// After an outage, client-go looks away for up to half a minute.
		GracefulShutdownTimeout: new(time.Minute),
		Controller:              ctrlconfig.Controller{SkipNameValidation: &again, UsePriorityQueue: new(false)},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background()) // the syncer must still run when the test cleans up
	if err := syncer.Setup(ctx, mgr, o); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- mgr.Start(ctx) }()
	stopped := false
	r.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the syncer ended with %v", err)
		}
	}
	t.Cleanup(r.stop)
	for _, tenant := range r.tenants {
		r.waitFor(t, tenant, metav1.ConditionTrue, "Synced")
	}
}

// virtualCluster makes an External VirtualCluster of a world, with the range of cluster IPs that vc-manager would make.
func (r *running) virtualCluster(t *testing.T, namespace string, world *worlds.World) tenant {
	t.Helper()
	name := world.Name
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Data:       map[string][]byte{names.KubeconfigKey: world.Kubeconfig},
	}
	vc := &tenancyv1alpha1.VirtualCluster{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: tenancyv1alpha1.VirtualClusterSpec{ServiceCIDR: world.ServiceRanges.String(), ControlPlane: tenancyv1alpha1.ControlPlaneSpec{
			Type:     tenancyv1alpha1.External,
			External: &tenancyv1alpha1.ExternalControlPlane{KubeconfigSecret: tenancyv1alpha1.SecretKeyReference{Name: name}},
		}},
	}
	cidr := &networkingv1.ServiceCIDR{
		ObjectMeta: metav1.ObjectMeta{Name: world.Name},
		Spec:       networkingv1.ServiceCIDRSpec{CIDRs: world.ServiceRanges.CIDRs()},
	}
	for _, o := range []client.Object{secret, vc, cidr} {
		if err := r.client.Create(t.Context(), o); client.IgnoreAlreadyExists(err) != nil {
			t.Fatal(err)
		}
	}
	key := client.ObjectKeyFromObject(vc)
	if err := r.client.Get(t.Context(), key, vc); err != nil {
		t.Fatal(err)
	}
	return tenant{Interface: world.Client, world: world, id: names.Tenant(key, vc.UID), vc: key}
}

// waitFor waits until the syncer reports a state of a tenant.
func (r *running) waitFor(t *testing.T, tenant tenant, status metav1.ConditionStatus, reason string) {
	t.Helper()
	r.awaitSyncing(t, tenant, fmt.Sprintf("%s, %s", status, reason), func(c *metav1.Condition) bool {
		return c.Status == status && c.Reason == reason
	})
}

// awaitGeneration waits until the syncer follows what a VirtualCluster says since the given generation.
func (r *running) awaitGeneration(t *testing.T, tenant tenant, generation int64) {
	t.Helper()
	r.awaitSyncing(t, tenant, fmt.Sprintf("True for generation %d", generation), func(c *metav1.Condition) bool {
		return c.Status == metav1.ConditionTrue && c.ObservedGeneration == generation
	})
}

// awaitSyncing waits until the condition Syncing of a tenant is as wanted.
func (r *running) awaitSyncing(t *testing.T, tenant tenant, wanted string, is func(*metav1.Condition) bool) {
	t.Helper()
	worlds.Eventually(t, limit, fmt.Sprintf("condition Syncing of %s to be %s", tenant.vc, wanted), func(ctx context.Context) error {
		vc := vcOf(tenant)
		if err := r.client.Get(ctx, tenant.vc, vc); err != nil {
			return err
		}
		if c := apimeta.FindStatusCondition(vc.Status.Conditions, tenancyv1alpha1.ConditionSyncing); c == nil || !is(c) {
			return fmt.Errorf("conditions are %+v", vc.Status.Conditions)
		}
		return nil
	})
}

// super returns the super namespace of a tenant namespace.
func (t tenant) super(namespace string) string { return names.SuperNamespace(t.id, namespace) }

func vcOf(of tenant) *tenancyv1alpha1.VirtualCluster {
	return &tenancyv1alpha1.VirtualCluster{ObjectMeta: metav1.ObjectMeta{Namespace: of.vc.Namespace, Name: of.vc.Name}}
}
