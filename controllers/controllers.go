// Package controllers is the composition root of vc-manager: it makes the controllers of the packages below it and runs
// them with what they share. It decides nothing. cmd/vc-manager calls it with flags, tests call it with a cluster.
package controllers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
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
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	controllerconfig "sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/controllers/images"
	"github.com/virtualcluster-io/virtualcluster/controllers/nodecert"
	"github.com/virtualcluster-io/virtualcluster/controllers/preflight"
	"github.com/virtualcluster-io/virtualcluster/controllers/preflight/watch"
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

// Options of vc-manager.
type Options struct {
	// Namespace of vc-manager, where it keeps its authorities and its lease.
	Namespace string
	// ServiceCIDRPool is divided into ranges of the prefix length ServiceCIDRSize, one for each tenant; both may be two,
	// separated by a comma, for IPv4 and IPv6. The pool auto is what the super cluster has, the size auto depends on that of
	// the pool. When the pool is empty, tenants share the super cluster's range.
	ServiceCIDRPool string
	ServiceCIDRSize string
	// Pod is the name of the Pod that this process runs in, where it sets a condition; empty outside of one.
	Pod string
	// Images are the defaults of what ClusterVersions say about images.
	Images images.Defaults
	// LeaderElect makes it do nothing until no other vc-manager does.
	LeaderElect bool
	// MetricsAddress, ProbeAddress and PprofAddress are where metrics, health and profiles are served; "0" turns them off.
	MetricsAddress, ProbeAddress, PprofAddress string
	// Workers is how many VirtualClusters are worked on at the same time.
	Workers int
	// ShutdownTimeout is how long work in progress may take to finish when told to stop.
	ShutdownTimeout time.Duration
	// InCluster says that this process runs in a pod of the super cluster.
	InCluster bool
	// Registry of the metrics.
	Registry prometheus.Registerer
	// SkipNameValidation allows several managers in one process.
	SkipNameValidation bool
}

// Run runs the manager until the context ends. Being told to stop is not a failure, even before everything is started.
func Run(ctx context.Context, config *rest.Config, o Options, logger logr.Logger) error {
	err := serve(ctx, config, o, logger)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// serve starts the manager and returns when it ends.
func serve(ctx context.Context, config *rest.Config, o Options, logger logr.Logger) error {
	if err := images.CheckRegistry(o.Images.Registry); err != nil {
		return fmt.Errorf("reading the registry of images: %w", err)
	}
	pool, err := servicecidr.ParsePool(o.ServiceCIDRPool, o.ServiceCIDRSize)
	if err != nil {
		return err
	}
	scheme, err := NewScheme()
	if err != nil {
		return err
	}
	config.UserAgent = names.Manager
	if err := ensureNamespace(ctx, config, o.Namespace); err != nil {
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
	claims, err := newClaims(mgr, config, scheme)
	if err != nil {
		return err
	}
	if err := addControllers(mgr, references, claims, pool, o); err != nil {
		return err
	}
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return fmt.Errorf("adding a health check: %w", err)
	}
	if err := mgr.AddReadyzCheck("ping", healthz.Ping); err != nil {
		return fmt.Errorf("adding a readiness check: %w", err)
	}
	logger.Info("Starting vc-manager", "server", config.Host, "serviceCIDRPool", o.ServiceCIDRPool)
	return mgr.Start(ctx)
}

// addControllers wires the controllers.
func addControllers(mgr ctrl.Manager, references, claims cache.Cache, pool servicecidr.Pool, o Options) error {
	counters, err := virtualcluster.NewMetrics(o.Registry, mgr.GetCache())
	if err != nil {
		return err
	}
	authorities := &trust.Authorities{Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Namespace: o.Namespace}
	if err := mgr.Add(authorities); err != nil {
		return fmt.Errorf("adding the authorities of vn-agent: %w", err)
	}
	cidrs := &servicecidr.Allocator{Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Claims: claims, Pool: pool}
	reconciler := &virtualcluster.Reconciler{
		Client: mgr.GetClient(),
		Live:   mgr.GetAPIReader(),
		Provisioners: map[tenancyv1alpha1.ControlPlaneType]provision.Provisioner{
			tenancyv1alpha1.Dedicated: &dedicated.Provisioner{
				Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Trust: authorities, CIDRs: cidrs, InCluster: o.InCluster,
			},
			tenancyv1alpha1.External: &external.Provisioner{Live: mgr.GetAPIReader()},
		},
		Trust:     authorities,
		CIDRs:     cidrs,
		Images:    o.Images,
		Namespace: o.Namespace,
		Events:    mgr.GetEventRecorder(names.Manager),
		Metrics:   counters,
		Clock:     clock.RealClock{},
	}
	if err := reconciler.Setup(mgr, references, claims, o.Workers); err != nil {
		return fmt.Errorf("adding the VirtualCluster controller: %w", err)
	}
	config := preflight.Config{Pool: o.ServiceCIDRPool, Size: o.ServiceCIDRSize}
	if err := watch.Add(mgr, o.Registry, config, client.ObjectKey{Namespace: o.Namespace, Name: o.Pod}); err != nil {
		return fmt.Errorf("adding the checks of the super cluster: %w", err)
	}
	if err := (&virtualcluster.RetiredVersions{Client: mgr.GetClient()}).Setup(mgr); err != nil {
		return fmt.Errorf("adding the controller for ClusterVersions of the retired project: %w", err)
	}
	signer := &nodecert.Reconciler{Client: mgr.GetClient(), Trust: authorities, Clock: clock.RealClock{}}
	if err := signer.Setup(mgr); err != nil {
		return fmt.Errorf("adding the controller for vn-agent's certificates: %w", err)
	}
	return nil
}

// newManager returns a manager whose cache holds only what vc-manager made, as far as the API server can tell.
func newManager(config *rest.Config, scheme *runtime.Scheme, o Options, logger logr.Logger) (ctrl.Manager, error) {
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
		LeaderElection:                o.LeaderElect,
		LeaderElectionID:              names.Manager,
		LeaderElectionNamespace:       o.Namespace,
		LeaderElectionReleaseOnCancel: true,
		GracefulShutdownTimeout:       &o.ShutdownTimeout,
		Metrics:                       metricsserver.Options{BindAddress: o.MetricsAddress},
		HealthProbeBindAddress:        o.ProbeAddress,
		PprofBindAddress:              o.PprofAddress,
		Controller: controllerconfig.Controller{
			SkipNameValidation: &o.SkipNameValidation,
			// The priority queue of controller-runtime v0.24.1 can deadlock when it is shut down: it hands an item, under a
			// lock, to a worker that has left. The process would then not stop, and not release its lease, in time.
			UsePriorityQueue: new(false),
		},
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

// newClaims returns a cache of the Services that claim ranges of cluster IPs, most of which vc-syncer manages.
func newClaims(mgr ctrl.Manager, config *rest.Config, scheme *runtime.Scheme) (cache.Cache, error) {
	claims, err := cache.New(config, cache.Options{
		HTTPClient:           mgr.GetHTTPClient(),
		Scheme:               scheme,
		Mapper:               mgr.GetRESTMapper(),
		DefaultLabelSelector: labels.SelectorFromSet(labels.Set{names.LabelServiceRange: "true"}),
		DefaultTransform:     cache.TransformStripManagedFields(),
	})
	if err != nil {
		return nil, fmt.Errorf("making the cache of Services that claim ranges: %w", err)
	}
	if err := mgr.Add(claims); err != nil {
		return nil, fmt.Errorf("adding the cache of Services that claim ranges: %w", err)
	}
	return claims, nil
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

// NewScheme returns a scheme that knows the kinds that vc-manager works with.
func NewScheme() (*runtime.Scheme, error) {
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
	c, err := client.New(config, client.Options{}) //nolint:forbidigo // Of the super cluster.
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
