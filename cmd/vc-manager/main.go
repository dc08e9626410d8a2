// Command vc-manager provides control planes for tenants: it reconciles VirtualClusters in the super cluster and signs
// the certificates by which tenants and vn-agents know each other. This file parses flags and wires; it decides nothing.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap/zapcore"
	appsv1 "k8s.io/api/apps/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/selection"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	controllerconfig "sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/controllers/nodecert"
	"github.com/virtualcluster-io/virtualcluster/controllers/provision"
	"github.com/virtualcluster-io/virtualcluster/controllers/provision/dedicated"
	"github.com/virtualcluster-io/virtualcluster/controllers/provision/external"
	"github.com/virtualcluster-io/virtualcluster/controllers/servicecidr"
	"github.com/virtualcluster-io/virtualcluster/controllers/trust"
	"github.com/virtualcluster-io/virtualcluster/controllers/virtualcluster"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

//+kubebuilder:rbac:groups=coordination.k8s.io,namespace=vc-system,resources=leases,verbs=get;list;watch;create;update;patch
//+kubebuilder:rbac:groups="",namespace=vc-system,resources=events,verbs=create;patch

// options are the flags.
type options struct {
	namespace        string
	cidrPool         string
	cidrSize         int
	leaderElect      bool
	metricsAddress   string
	probeAddress     string
	workers          int
	logging          zap.Options
	shutdownDeadline time.Duration
	// registry of the metrics; inCluster says that this process runs in a pod of the super cluster.
	registry  prometheus.Registerer
	inCluster bool
	// skipNameValidation allows several managers in one process.
	skipNameValidation bool
}

func main() {
	o := options{registry: metrics.Registry, logging: zap.Options{TimeEncoder: zapcore.RFC3339NanoTimeEncoder}}
	flag.StringVar(&o.namespace, "namespace", "vc-system", "Namespace of vc-manager, where it keeps its authorities and its lease.")
	flag.StringVar(&o.cidrPool, "service-cidr-pool", "10.112.0.0/14", "Range that tenants' service ranges are taken from. When empty, tenants share the super cluster's range.")
	flag.IntVar(&o.cidrSize, "service-cidr-size", 22, "Prefix length of a tenant's service range.")
	flag.BoolVar(&o.leaderElect, "leader-elect", true, "Do nothing until no other vc-manager does.")
	flag.StringVar(&o.metricsAddress, "metrics-bind-address", ":8080", "Address of the metrics endpoint; 0 turns it off.")
	flag.StringVar(&o.probeAddress, "health-probe-bind-address", ":8081", "Address of /healthz and /readyz; 0 turns them off.")
	flag.IntVar(&o.workers, "max-concurrent-reconciles", 10, "How many VirtualClusters are worked on at the same time.")
	flag.DurationVar(&o.shutdownDeadline, "graceful-shutdown-timeout", 10*time.Second, "How long to let work in progress finish when told to stop.")
	o.logging.BindFlags(flag.CommandLine)
	flag.Parse()

	logger := zap.New(zap.UseFlagOptions(&o.logging))
	ctrl.SetLogger(logger)
	klog.SetLogger(logger)
	// Set by kubelet in every pod; a kubeconfig says that this is not the cluster the pod runs in.
	o.inCluster = os.Getenv("KUBERNETES_SERVICE_HOST") != "" && flag.Lookup("kubeconfig").Value.String() == "" && os.Getenv("KUBECONFIG") == ""
	config, err := ctrl.GetConfig()
	if err == nil {
		err = run(ctrl.SetupSignalHandler(), config, o, logger)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "vc-manager:", err)
		os.Exit(1)
	}
}

// run runs the manager until the context ends. Being told to stop is not a failure, even before everything is started.
func run(ctx context.Context, config *rest.Config, o options, logger logr.Logger) error {
	err := serve(ctx, config, o, logger)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// serve starts the manager and returns when it ends.
func serve(ctx context.Context, config *rest.Config, o options, logger logr.Logger) error {
	pool, err := servicecidr.ParsePool(o.cidrPool, o.cidrSize)
	if err != nil {
		return err
	}
	scheme, err := newScheme()
	if err != nil {
		return err
	}
	config.UserAgent = names.Manager
	if err := ensureNamespace(ctx, config, o.namespace); err != nil {
		return err
	}
	mgr, err := newManager(config, scheme, o, logger)
	if err != nil {
		return fmt.Errorf("making the manager: %w", err)
	}
	references, err := newReferences(mgr, config, scheme)
	if err != nil {
		return err
	}
	if err := addControllers(mgr, references, pool, o); err != nil {
		return err
	}
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return fmt.Errorf("adding a health check: %w", err)
	}
	if err := mgr.AddReadyzCheck("ping", healthz.Ping); err != nil {
		return fmt.Errorf("adding a readiness check: %w", err)
	}
	logger.Info("Starting vc-manager", "server", config.Host, "serviceCIDRPool", o.cidrPool)
	return mgr.Start(ctx)
}

// addControllers wires the controllers.
func addControllers(mgr ctrl.Manager, references cache.Cache, pool servicecidr.Pool, o options) error {
	counters, err := virtualcluster.NewMetrics(o.registry, mgr.GetCache())
	if err != nil {
		return err
	}
	authorities := &trust.Authorities{Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Namespace: o.namespace}
	if err := mgr.Add(authorities); err != nil {
		return fmt.Errorf("adding the authorities of vn-agent: %w", err)
	}
	cidrs := &servicecidr.Allocator{Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Pool: pool}
	reconciler := &virtualcluster.Reconciler{
		Client: mgr.GetClient(),
		Live:   mgr.GetAPIReader(),
		Provisioners: map[tenancyv1alpha1.ControlPlaneType]provision.Provisioner{
			tenancyv1alpha1.Dedicated: &dedicated.Provisioner{
				Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Trust: authorities, CIDRs: cidrs, InCluster: o.inCluster,
			},
			tenancyv1alpha1.External: &external.Provisioner{Live: mgr.GetAPIReader()},
		},
		CIDRs:   cidrs,
		Events:  mgr.GetEventRecorder(names.Manager),
		Metrics: counters,
		Clock:   clock.RealClock{},
	}
	if err := reconciler.Setup(mgr, references, o.workers); err != nil {
		return fmt.Errorf("adding the VirtualCluster controller: %w", err)
	}
	signer := &nodecert.Reconciler{Client: mgr.GetClient(), Trust: authorities, Clock: clock.RealClock{}}
	if err := signer.Setup(mgr); err != nil {
		return fmt.Errorf("adding the controller for vn-agent's certificates: %w", err)
	}
	return nil
}

// newManager returns a manager whose cache holds only what vc-manager made, as far as the API server can tell.
func newManager(config *rest.Config, scheme *runtime.Scheme, o options, logger logr.Logger) (ctrl.Manager, error) {
	ours := cache.ByObject{Label: labels.SelectorFromSet(labels.Set{names.LabelManagedBy: names.Manager})}
	ofTenants, err := labels.NewRequirement(names.LabelTenant, selection.Exists, nil)
	if err != nil {
		return nil, err
	}
	return ctrl.NewManager(config, ctrl.Options{
		Scheme: scheme,
		Logger: logger,
		Cache: cache.Options{
			DefaultTransform: cache.TransformStripManagedFields(),
			ByObject: map[client.Object]cache.ByObject{
				&corev1.Namespace{}:             {Label: labels.NewSelector().Add(*ofTenants)},
				&corev1.Secret{}:                ours,
				&corev1.ConfigMap{}:             ours,
				&corev1.Service{}:               ours,
				&corev1.Pod{}:                   ours,
				&appsv1.StatefulSet{}:           ours,
				&policyv1.PodDisruptionBudget{}: ours,
				&corev1.Node{}:                  {Transform: trimNode},
				&certificatesv1.CertificateSigningRequest{}: {
					Field: fields.OneTermEqualSelector("spec.signerName", names.VNAgentSigner),
				},
			},
		},
		LeaderElection:                o.leaderElect,
		LeaderElectionID:              names.Manager,
		LeaderElectionNamespace:       o.namespace,
		LeaderElectionReleaseOnCancel: true,
		GracefulShutdownTimeout:       &o.shutdownDeadline,
		Metrics:                       metricsserver.Options{BindAddress: o.metricsAddress},
		HealthProbeBindAddress:        o.probeAddress,
		Controller:                    controllerconfig.Controller{SkipNameValidation: &o.skipNameValidation},
	})
}

// newReferences returns a cache of the metadata of Secrets that people made, because VirtualClusters refer to such.
func newReferences(mgr ctrl.Manager, config *rest.Config, scheme *runtime.Scheme) (cache.Cache, error) {
	notOurs, err := labels.NewRequirement(names.LabelTenant, selection.DoesNotExist, nil)
	if err != nil {
		return nil, err
	}
	references, err := cache.New(config, cache.Options{
		HTTPClient:           mgr.GetHTTPClient(),
		Scheme:               scheme,
		Mapper:               mgr.GetRESTMapper(),
		DefaultLabelSelector: labels.NewSelector().Add(*notOurs),
		DefaultTransform:     trimMetadata,
	})
	if err != nil {
		return nil, fmt.Errorf("making the cache of Secrets that are referred to: %w", err)
	}
	if err := mgr.Add(references); err != nil {
		return nil, fmt.Errorf("adding the cache of Secrets that are referred to: %w", err)
	}
	return references, nil
}

// trimNode keeps of a node what endpoints and certificates are made from.
func trimNode(object any) (any, error) {
	if node, ok := object.(*corev1.Node); ok {
		node.ManagedFields, node.Annotations = nil, nil
		node.Status.Images, node.Status.VolumesInUse, node.Status.VolumesAttached = nil, nil, nil
	}
	return object, nil
}

// trimMetadata keeps of an object its name and version.
func trimMetadata(object any) (any, error) {
	if meta, ok := object.(*metav1.PartialObjectMetadata); ok {
		meta.ManagedFields, meta.Annotations, meta.Labels, meta.OwnerReferences = nil, nil, nil, nil
	}
	return object, nil
}

// newScheme knows the kinds that vc-manager works with.
func newScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, tenancyv1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("registering kinds: %w", err)
		}
	}
	return scheme, nil
}

// ensureNamespace makes the namespace of vc-manager, which is not there when it runs outside the super cluster.
func ensureNamespace(ctx context.Context, config *rest.Config, name string) error {
	c, err := client.New(config, client.Options{})
	if err != nil {
		return fmt.Errorf("connecting to the super cluster: %w", err)
	}
	namespace := &corev1.Namespace{}
	if err := c.Get(ctx, client.ObjectKey{Name: name}, namespace); !apierrors.IsNotFound(err) {
		return err
	}
	namespace.Name = name
	if err := c.Create(ctx, namespace); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("creating namespace %s: %w", name, err)
	}
	return nil
}
