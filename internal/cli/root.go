package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/controllers/preflight"
)

// completer is the name under which kubectl runs a plugin to complete its arguments.
const completer = "kubectl_complete-vc"

// cli is what all commands share.
type cli struct {
	genericiooptions.IOStreams
	flags *genericclioptions.ConfigFlags
	// connect returns a client of the super cluster.
	connect func() (client.Client, error)
	// discover returns a client that asks the super cluster about itself.
	discover func() (preflight.Discovery, error)
	// forward makes a port of a pod reachable until stop is called, and returns its address.
	forward func(ctx context.Context, pod client.ObjectKey, port int) (address string, stop func(), err error)
	// poll is the time between two looks at something waited for.
	poll time.Duration
}

// Run runs the command line and returns the exit code of the process.
func Run(ctx context.Context, args []string, streams genericiooptions.IOStreams) int {
	c := &cli{IOStreams: streams, flags: genericclioptions.NewConfigFlags(true), poll: 500 * time.Millisecond}
	// There is no flag by which not to verify the super cluster.
	c.flags.Insecure = nil
	c.connect, c.discover, c.forward = c.superClient, c.superDiscovery, c.forwardPort
	root := c.command()
	arguments := args[1:]
	if strings.TrimSuffix(filepath.Base(args[0]), ".exe") == completer {
		arguments = append([]string{cobra.ShellCompRequestCmd}, arguments...)
	}
	root.SetArgs(arguments)
	return c.exitCode(root.ExecuteContext(ctx))
}

// exitCode prints an error in one line and returns the exit code it stands for.
func (c *cli) exitCode(err error) int {
	if err == nil {
		return 0
	}
	if exited, ok := errors.AsType[*exitError](err); ok {
		return exited.code
	}
	c.say("error: %s\n", strings.Join(strings.Fields(c.explain(err).Error()), " "))
	return 1
}

// say tells the user something that is not the result.
func (c *cli) say(format string, args ...any) {
	// Whoever closed the standard error does not want to know.
	_, _ = fmt.Fprintf(c.ErrOut, format, args...)
}

func (c *cli) command() *cobra.Command {
	root := &cobra.Command{
		Use:   "kubectl-vc",
		Short: "Manage VirtualClusters: Kubernetes control planes for tenants",
		Long: `Manage VirtualClusters: Kubernetes control planes for tenants.

To complete arguments after "kubectl vc", link this program as ` + completer + ` into a folder of your PATH:
  ln -s "$(command -v kubectl-vc)" ~/.local/bin/` + completer,
		SilenceUsage:  true,
		SilenceErrors: true,
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl vc"},
	}
	root.SetIn(c.In)
	root.SetOut(c.Out)
	root.SetErr(c.ErrOut)
	c.flags.AddFlags(root.PersistentFlags())
	root.AddCommand(
		c.preflightCommand(),
		c.createCommand(),
		c.listCommand(),
		c.statusCommand(),
		c.kubeconfigCommand(),
		c.execCommand(),
		c.shellCommand(),
		c.traceCommand(),
		c.deleteCommand(),
		c.heldCommand(),
		c.releaseCommand(),
	)
	return root
}

// scheme returns the kinds that kubectl-vc reads and writes.
func scheme() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, appsv1.AddToScheme, coordinationv1.AddToScheme, networkingv1.AddToScheme, tenancyv1alpha1.AddToScheme,
	} {
		if err := add(s); err != nil {
			return nil, fmt.Errorf("building the scheme: %w", err)
		}
	}
	return s, nil
}

// mapper knows the resources of those kinds, which saves asking the API server at every start.
func mapper() apimeta.RESTMapper {
	m := apimeta.NewDefaultRESTMapper(nil)
	for gv, kinds := range map[schema.GroupVersion][]string{
		corev1.SchemeGroupVersion:         {"Pod", "Secret", "ConfigMap", "Service"},
		appsv1.SchemeGroupVersion:         {"StatefulSet", "DaemonSet"},
		coordinationv1.SchemeGroupVersion: {"Lease"},
		tenancyv1alpha1.GroupVersion():    {"VirtualCluster"},
	} {
		for _, kind := range kinds {
			m.Add(gv.WithKind(kind), apimeta.RESTScopeNamespace)
		}
	}
	for _, kind := range []schema.GroupVersionKind{
		tenancyv1alpha1.GroupVersion().WithKind("ClusterVersion"),
		corev1.SchemeGroupVersion.WithKind("Namespace"),
		corev1.SchemeGroupVersion.WithKind("Node"),
		networkingv1.SchemeGroupVersion.WithKind("ServiceCIDR"),
		preflight.BGPConfiguration(),
	} {
		m.Add(kind, apimeta.RESTScopeRoot)
	}
	return m
}

func (c *cli) superClient() (client.Client, error) {
	config, err := c.flags.ToRESTConfig()
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig: %w", err)
	}
	s, err := scheme()
	if err != nil {
		return nil, err
	}
	return client.New(config, client.Options{Scheme: s, Mapper: mapper()}) //nolint:forbidigo // Of the super cluster.
}

// namespace returns the namespace chosen by flag or context.
func (c *cli) namespace() (string, error) {
	namespace, _, err := c.flags.ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return "", fmt.Errorf("reading the kubeconfig: %w", err)
	}
	return namespace, nil
}

// find returns a client and the VirtualCluster of the given name.
func (c *cli) find(ctx context.Context, name string) (client.Client, *tenancyv1alpha1.VirtualCluster, error) {
	namespace, err := c.namespace()
	if err != nil {
		return nil, nil, err
	}
	super, err := c.connect()
	if err != nil {
		return nil, nil, err
	}
	vc := &tenancyv1alpha1.VirtualCluster{}
	if err := super.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, vc); err != nil {
		return nil, nil, err
	}
	return super, vc, nil
}

// completeNames completes one argument with the names of VirtualClusters.
func (c *cli) completeNames(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	namespace, err := c.namespace()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return c.complete(cmd.Context(), &tenancyv1alpha1.VirtualClusterList{}, prefix, client.InNamespace(namespace))
}

// complete returns the names in a list that start with the prefix.
func (c *cli) complete(ctx context.Context, list client.ObjectList, prefix string, options ...client.ListOption) ([]string, cobra.ShellCompDirective) {
	super, err := c.connect()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if err := super.List(ctx, list, options...); err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var found []string
	err = apimeta.EachListItem(list, func(object runtime.Object) error {
		if accessor, ok := object.(client.Object); ok && strings.HasPrefix(accessor.GetName(), prefix) {
			found = append(found, accessor.GetName())
		}
		return nil
	})
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}
