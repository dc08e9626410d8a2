// Command vc-manager provides control planes for tenants: it reconciles VirtualClusters in the super cluster and signs
// the certificates by which tenants and vn-agents know each other. This file parses flags; package controllers wires.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"go.uber.org/zap/zapcore"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/virtualcluster-io/virtualcluster/controllers"
	"github.com/virtualcluster-io/virtualcluster/internal/command"
)

func main() {
	o := controllers.Options{Registry: metrics.Registry}
	flag.StringVar(&o.Namespace, "namespace", "vc-system", "Namespace of vc-manager, where it keeps its authorities and its lease.")
	flag.StringVar(&o.ServiceCIDRPool, "service-cidr-pool", "auto", "Range that tenants' service ranges are parts of, or one of IPv4 and one of IPv6, separated by a comma; auto for the range that the super cluster was started with. When empty, tenants share the super cluster's range.")
	flag.StringVar(&o.ServiceCIDRSize, "service-cidr-size", "auto", "Prefix length of a tenant's service range; as many as the pool has ranges, separated by a comma; auto for one that depends on the size of the pool.")
	flag.StringVar(&o.Images.Registry, "image-registry", "", "Registry, with an optional path, that takes the place of registry.k8s.io in images that a ClusterVersion does not name.")
	flag.Func("image-pull-secrets", "Secrets in the namespace of vc-manager with credentials for images of control planes, separated by commas; for ClusterVersions that name none.", list(&o.Images.PullSecrets))
	flag.Func("coredns-image-pull-secrets", "The same for the image of CoreDNS in tenants. Tenants can read these credentials.", list(&o.Images.CoreDNSPullSecrets))
	flag.BoolVar(&o.LeaderElect, "leader-elect", true, "Do nothing until no other vc-manager does.")
	flag.StringVar(&o.MetricsAddress, "metrics-bind-address", ":8080", "Address of the metrics endpoint; 0 turns it off.")
	flag.StringVar(&o.ProbeAddress, "health-probe-bind-address", ":8081", "Address of /healthz and /readyz; 0 turns them off.")
	flag.StringVar(&o.PprofAddress, "pprof-bind-address", "0", "Address of /debug/pprof; whoever reaches it can slow vc-manager down. 0 turns it off.")
	flag.IntVar(&o.Workers, "max-concurrent-reconciles", 10, "How many VirtualClusters are worked on at the same time.")
	flag.DurationVar(&o.ShutdownTimeout, "graceful-shutdown-timeout", 10*time.Second, "How long to let work in progress finish when told to stop.")
	logging := zap.Options{TimeEncoder: zapcore.RFC3339NanoTimeEncoder}
	logging.BindFlags(flag.CommandLine)
	flag.Parse()

	if err := run(o, logging); err != nil {
		fmt.Fprintln(os.Stderr, "vc-manager:", err)
		os.Exit(1)
	}
}

// list returns the parser of a flag that is a list.
func list(into *[]string) func(string) error {
	return func(value string) error {
		*into = strings.FieldsFunc(value, func(r rune) bool { return r == ',' })
		return nil
	}
}

// run runs vc-manager until the process is told to stop.
func run(o controllers.Options, logging zap.Options) error {
	logger := command.Logger(logging)
	ctrl.SetLogger(logger)
	klog.SetLogger(logger)
	config, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("finding the super cluster: %w", err)
	}
	// Set by kubelet in every pod; a kubeconfig says that this is not the cluster the pod runs in.
	o.InCluster = os.Getenv("KUBERNETES_SERVICE_HOST") != "" && flag.Lookup("kubeconfig").Value.String() == "" && os.Getenv("KUBECONFIG") == ""
	if o.InCluster {
		// The host name of a pod is its name.
		if o.Pod, err = os.Hostname(); err != nil {
			return fmt.Errorf("finding the name of the pod: %w", err)
		}
	}
	return controllers.Run(ctrl.SetupSignalHandler(), config, o, logger)
}
