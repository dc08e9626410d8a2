// Package syncer composes the syncer: it follows VirtualClusters, keeps the engine connected to their control planes,
// and reports the state of each connection as a condition. Everything that happens to objects is package engine's
// business. Called by cmd/vc-syncer and by the two-world tests.
package syncer

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/source"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/engine"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/resources"
	"github.com/virtualcluster-io/virtualcluster/syncer/shards"
	"github.com/virtualcluster-io/virtualcluster/syncer/tenants"
)

// Options of the syncer.
type Options struct {
	// AgentNamespace is the namespace of vn-agent's service account.
	AgentNamespace string
	// HostsImage is the image that contains vn-hosts, see pods.Kind.
	HostsImage string
	// Metadata are labels and annotations that tenants' objects have in the super cluster besides the built-in ones.
	Metadata []resource.Metadata
	// Inside says that the syncer runs in the super cluster, where tenants are reached by the addresses of Services.
	Inside bool
	// Workers and SuperCalls as in engine.Options; zero for the defaults.
	Workers, SuperCalls int
	// Timeout of every call to an API server, Probe and Patrol intervals; zero for the defaults of the engine.
	Timeout, Probe, Patrol time.Duration
	// Budget of a tenant whose VirtualCluster does not say otherwise; nothing in it is bounded that is zero.
	Budget resource.Budget
	// Brake of deletions.
	Brake engine.BrakeOptions
	// TraceAddress is where traces are served, see package engine; nowhere when it is empty.
	TraceAddress string
	// Shards share the tenants among replicas; nil when this one serves all. The configuration of the manager is Fenced by it.
	Shards *shards.Coordinator
	// Registerer receives the metrics; with PerTenant also those of each tenant.
	Registerer prometheus.Registerer
	PerTenant  bool
}

// followers is how many VirtualClusters are followed at the same time: letting go of one takes as long as a call to an API
// server.
const followers = 8

// movesBuffer is how many changes of state wait for the controller before the tenant that reports one more waits too.
const movesBuffer = 1024

// Cache returns how a manager caches what the syncer follows: of namespaces, only the root namespaces of tenants.
func Cache() cache.Options {
	roots := cache.ByObject{Label: labels.SelectorFromSet(labels.Set{names.LabelRoot: "true"})}
	return cache.Options{ByObject: map[client.Object]cache.ByObject{rootNamespace(): roots}}
}

// rootNamespace is the type as which root namespaces are cached: their metadata is all that counts.
func rootNamespace() *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}}
}

// owner returns the VirtualCluster that a root namespace was made for.
func owner(_ context.Context, root client.Object) []ctrl.Request {
	namespace, name, ok := strings.Cut(root.GetAnnotations()[names.AnnotationVirtualCluster], "/")
	if !ok {
		return nil
	}
	return []ctrl.Request{{NamespacedName: types.NamespacedName{Namespace: namespace, Name: name}}}
}

// Setup adds the syncer to a manager, which caches at least as Cache says. It works once the manager is started and
// leads; the context is that of the process.
func Setup(ctx context.Context, mgr manager.Manager, o Options) error {
	offered := make(chan event.TypedGenericEvent[string], movesBuffer)
	moves := make(chan event.TypedGenericEvent[types.NamespacedName], movesBuffer)
	wake := func(vc types.NamespacedName) {
		select {
		case moves <- event.TypedGenericEvent[types.NamespacedName]{Object: vc}:
		case <-ctx.Done():
		}
	}
	follower := newFollower(mgr, o, newContacts(ctx, wake))
	kinds := resources.All(resources.Options{AgentNamespace: o.AgentNamespace, HostsImage: o.HostsImage})
	e, err := engine.New(ctx, engine.Options{
		Kinds: kinds,
		Super: mgr.GetConfig(), Workers: o.Workers, SuperCalls: o.SuperCalls,
		Timeout: o.Timeout, Probe: o.Probe, Patrol: o.Patrol,
		Brake: o.Brake, Registerer: o.Registerer, PerTenant: o.PerTenant,
		KindProgressed: func(kind string) {
			select {
			case offered <- event.TypedGenericEvent[string]{Object: kind}:
			default: // every policy is looked at now and then
			}
		},
		OnBehalf: follower.sharing.onBehalf,
		Moved: func(id names.TenantID, _ tenants.State, _ string) {
			if vc, ok := follower.virtualCluster(id); ok {
				wake(vc)
			}
		},
	})
	if err != nil {
		return fmt.Errorf("creating the engine: %w", err)
	}
	follower.engine = e
	if err := setupPolicies(mgr, e, kinds, &follower.sharing, offered); err != nil {
		return err
	}
	if err := mgr.Add(manager.RunnableFunc(e.Run)); err != nil {
		return fmt.Errorf("adding the engine to the manager: %w", err)
	}
	if o.TraceAddress != "" {
		if err := serveTraces(mgr, o.TraceAddress, e.Trace); err != nil {
			return err
		}
	}
	if err := setupReadiness(mgr, e, kinds); err != nil {
		return err
	}
	if err := setupSharing(mgr, follower, wake, o.Registerer); err != nil {
		return err
	}
	enqueue := handler.TypedFuncs[types.NamespacedName, ctrl.Request]{
		GenericFunc: func(_ context.Context, e event.TypedGenericEvent[types.NamespacedName], q queue) {
			q.Add(ctrl.Request{NamespacedName: e.Object})
		},
	}
	err = ctrl.NewControllerManagedBy(mgr).
		Named("virtualcluster-follower").
		For(&tenancyv1alpha1.VirtualCluster{}).
		Watches(rootNamespace(), handler.EnqueueRequestsFromMapFunc(owner)).
		WatchesRawSource(source.TypedChannel(moves, enqueue)).
		WithOptions(controller.Options{MaxConcurrentReconciles: followers}).
		Complete(follower)
	if err != nil {
		return fmt.Errorf("creating the controller of VirtualClusters: %w", err)
	}
	return nil
}

// setupReadiness adds a check for each kind, because the server of the checks says only the names of those that fail. A
// replica that stands by is ready: what it lacks, it reads when it leads.
func setupReadiness(mgr manager.Manager, e *engine.Engine, kinds []resource.Kind) error {
	for _, kind := range kinds {
		err := mgr.AddReadyzCheck("cache-"+kind.Name, func(*http.Request) error {
			select {
			case <-mgr.Elected():
				return e.CheckCacheSynced(kind.Name)
			default:
				return nil
			}
		})
		if err != nil {
			return fmt.Errorf("adding the readiness check of %s: %w", kind.Name, err)
		}
	}
	return nil
}
