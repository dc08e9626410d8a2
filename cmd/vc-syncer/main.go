// Command vc-syncer synchronises every tenant control plane with the super cluster. It only parses flags and wires;
// package syncer does the work. Outside the super cluster, --kubeconfig is all it needs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client/config"
	controllerconfig "sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/internal/command"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/shards"
)

func main() { os.Exit(command.Run("vc-syncer", run)) }

// budgetFlags are the budget of a tenant whose VirtualCluster does not say otherwise. Zero stands for no bound.
func budgetFlags(flags *flag.FlagSet, b *resource.Budget) {
	flags.IntVar(&b.Writes, "tenant-writes", b.Writes, "Writes into the super cluster per second and tenant, unless spec.budget of the VirtualCluster says otherwise; 0 for no bound.")
	flags.IntVar(&b.WriteBurst, "tenant-write-burst", b.WriteBurst, "Writes into the super cluster that a tenant may make at once.")
	flags.Float64Var(&b.Decision, "tenant-decision-cpu", b.Decision, "Cores that decisions about objects of one tenant take, on average over ten seconds; 0 for no bound.")
	flags.Int64Var(&b.CachedBytes, "tenant-cached-bytes", b.CachedBytes, "Bytes of all objects of one tenant that are kept; 0 for no bound.")
	flags.Int64Var(&b.Each.Cached, "tenant-cached-objects", b.Each.Cached, "Objects of each kind of one tenant that are kept; 0 for no bound.")
	flags.Int64Var(&b.Each.Replicated, "tenant-replicated-objects", b.Each.Replicated, "Objects of each kind of one tenant in the super cluster; 0 for no bound.")
}

func run(ctx context.Context, args []string) error {
	options, logging := syncer.Options{Registerer: metrics.Registry, Budget: resource.DefaultBudget()}, zap.Options{}
	flags := flag.NewFlagSet("vc-syncer", flag.ContinueOnError)
	config.RegisterFlags(flags)
	namespace := flags.String("namespace", "vc-system", "Namespace of the Lease of the leader election.")
	elect := flags.Bool("leader-elect", false, "Elect a leader among replicas; needed as soon as there is more than one.")
	share := flags.Int("shards", 1, "Shards of the tenants, which replicas share; with --leader-elect. With 1, one replica leads and the others stand by. All replicas need the same number, which should be several times that of the replicas.")
	replica := flags.String("replica-name", "", "Name of this replica in Leases of --shards and in audit logs (default the name of the host, which is that of the pod).")
	metricsAddress := flags.String("metrics-bind-address", "127.0.0.1:8080", "Address of /metrics; 0 switches it off.")
	healthAddress := flags.String("health-probe-bind-address", "127.0.0.1:8081", "Address of /healthz and /readyz; 0 switches them off.")
	traceAddress := flags.String("trace-bind-address", fmt.Sprintf("127.0.0.1:%d", names.TracePort), "Address of what kubectl vc trace asks, by a forwarded port. Whoever reaches it learns names and states of objects, not content; 0 switches it off.")
	pprofAddress := flags.String("pprof-bind-address", "0", "Address of /debug/pprof; whoever reaches it can slow vc-syncer down. 0 switches it off.")
	flags.BoolVar(&options.PerTenant, "metrics-per-tenant", false, "Also serve metrics of each tenant: as many series as there are tenants.")
	flags.StringVar(&options.AgentNamespace, "vn-agent-namespace", "vc-system", "Namespace of vn-agent's service account.")
	flags.StringVar(&options.HostsImage, "hosts-image", "", "Image with vn-hosts, which runs first in pods of tenants that have a subdomain and writes the tenant's names into their /etc/hosts. When empty, they find the super cluster's names there.")
	flags.Func("allow-metadata", "Labels or annotations that objects of tenants have in the super cluster besides the built-in ones, as kind:labels:key or kind:annotations:key. "+
		"The kind is * for all. A key that ends in / or * stands for all that begin so. Repeat the flag for further ones.", func(text string) error {
		m, err := resource.ParseMetadata(text)
		options.Metadata = append(options.Metadata, m)
		return err
	})
	flags.IntVar(&options.Workers, "workers", 8, "Objects of one tenant that are worked on at the same time.")
	flags.IntVar(&options.SuperCalls, "super-calls", 32, "Calls to the super cluster that are made at the same time, for all tenants, which have them in turn.")
	flags.DurationVar(&options.Timeout, "timeout", 0, "Deadline of every call to an API server (default 10s).")
	flags.DurationVar(&options.Probe, "probe-interval", 0, "Interval between health and identity probes of a tenant (default 10s).")
	flags.DurationVar(&options.Patrol, "patrol-interval", 0, "Time in which the patrol looks once at every object for what events did not announce (default 10m).")
	flags.IntVar(&options.Brake.Limit, "deletion-limit", 0, "Super objects of a tenant that may be deleted within --deletion-window without their deletion in the tenant having been seen (default 100).")
	flags.DurationVar(&options.Brake.Window, "deletion-window", 0, "See --deletion-limit (default 1h).")
	budgetFlags(flags, &options.Budget)
	logging.BindFlags(flags)
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *traceAddress != "0" {
		options.TraceAddress = *traceAddress
	}
	logger := command.Logger(logging)
	ctrl.SetLogger(logger)
	klog.SetLogger(logger) // client-go logs through klog
	// Garbage is collected more often when memory comes near nine tenths of the container's limit.
	if _, err := memlimit.SetGoMemLimitWithOpts(memlimit.WithRatio(0.9)); err != nil {
		logger.Info("The memory limit of the container is not known; garbage is collected as usual", "reason", err.Error())
	}
	super, err := config.GetConfig()
	if err != nil {
		return fmt.Errorf("finding the super cluster (outside of it, set --kubeconfig): %w", err)
	}
	options.Inside = os.Getenv("KUBERNETES_SERVICE_HOST") != "" && os.Getenv("KUBECONFIG") == "" && flags.Lookup("kubeconfig").Value.String() == ""

	if options.Shards, err = shared(super, *namespace, *replica, *share, *elect); err != nil {
		return err
	}
	if options.Shards != nil {
		super, *elect = options.Shards.Fenced(super), false
	}

	scheme := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
	utilruntime.Must(tenancyv1alpha1.AddToScheme(scheme))
	mgr, err := ctrl.NewManager(super, ctrl.Options{
		Scheme:                 scheme,
		Metrics:                metricsserver.Options{BindAddress: *metricsAddress},
		HealthProbeBindAddress: *healthAddress,
		PprofBindAddress:       *pprofAddress,
		Cache:                  syncer.Cache(),
		// The priority queue of controller-runtime v0.24.1 can deadlock when it is shut down.
		Controller:                    controllerconfig.Controller{UsePriorityQueue: new(false)},
		LeaderElection:                *elect,
		LeaderElectionID:              "vc-syncer",
		LeaderElectionNamespace:       *namespace,
		LeaderElectionReleaseOnCancel: true, // nothing writes after Run has returned, and the process ends then
	})
	if err != nil {
		return fmt.Errorf("connecting to the super cluster: %w", err)
	}
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return fmt.Errorf("adding the health check: %w", err)
	}
	if err := mgr.AddReadyzCheck("ping", healthz.Ping); err != nil {
		return fmt.Errorf("adding the readiness check: %w", err)
	}
	if err := syncer.Setup(ctx, mgr, options); err != nil {
		return err
	}
	return mgr.Start(ctx)
}

// shared returns what shares the tenants among replicas, nil when one leads.
func shared(super *rest.Config, namespace, replica string, n int, elect bool) (*shards.Coordinator, error) {
	switch {
	case n < 1:
		return nil, fmt.Errorf("--shards is %d: set at least 1", n)
	case n == 1:
		return nil, nil
	case !elect:
		return nil, errors.New("--shards needs --leader-elect: replicas share the tenants by Leases")
	}
	if replica == "" {
		var err error
		if replica, err = os.Hostname(); err != nil {
			return nil, fmt.Errorf("finding the name of this host, for --replica-name: %w", err)
		}
	}
	return shards.New(shards.Options{Config: super, Namespace: namespace, Name: replica, Shards: n})
}
