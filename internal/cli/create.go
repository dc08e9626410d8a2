package cli

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
)

func (c *cli) createCommand() *cobra.Command {
	var file, version string
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Create a VirtualCluster",
		Example: `  # The default version, one replica of each component
  kubectl vc create team-a --wait
  # With a spec of your own
  kubectl vc create team-a -f virtualcluster.yaml`,
		Args:              exactlyOneName,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().StringVarP(&file, "filename", "f", "", "Manifest of a VirtualCluster to start from, - for the standard input. The name given wins over the one in it.")
	cmd.Flags().StringVar(&version, "version", "", "Name of the ClusterVersion to run. Default: the one marked as default.")
	waiting := addWaiting(cmd, "the VirtualCluster is ready")
	out := addOutput(cmd, "created")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		vc, err := c.manifest(file)
		if err != nil {
			return err
		}
		vc.Name = args[0]
		if vc.Namespace, err = c.namespace(); err != nil {
			return err
		}
		if version != "" {
			vc.Spec.ClusterVersionName = version
		}
		super, err := c.connect()
		if err != nil {
			return err
		}
		if err := super.Create(cmd.Context(), vc); err != nil {
			return err
		}
		if waiting.enabled {
			if err := c.until(cmd.Context(), super, vc, waiting.timeout, ready); err != nil {
				return err
			}
		}
		return out.object(c, vc)
	}
	// The flag was added above, so this cannot fail.
	_ = cmd.RegisterFlagCompletionFunc("version", func(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
		return c.complete(cmd.Context(), &tenancyv1alpha1.ClusterVersionList{}, prefix)
	})
	return cmd
}

// manifest reads a VirtualCluster; without a file, it is empty.
func (c *cli) manifest(file string) (*tenancyv1alpha1.VirtualCluster, error) {
	vc := &tenancyv1alpha1.VirtualCluster{}
	if file == "" {
		return vc, nil
	}
	read := func() ([]byte, error) { return os.ReadFile(file) }
	if file == "-" {
		read = func() ([]byte, error) { return io.ReadAll(c.In) }
	}
	content, err := read()
	if err != nil {
		return nil, fmt.Errorf("reading the manifest: %w", err)
	}
	if err := yaml.UnmarshalStrict(content, vc); err != nil {
		return nil, fmt.Errorf("reading the manifest %s: %w", file, err)
	}
	if vc.Kind != "VirtualCluster" || vc.APIVersion != tenancyv1alpha1.GroupVersion().String() {
		return nil, fmt.Errorf("%s is no manifest of a VirtualCluster of %s", file, tenancyv1alpha1.GroupVersion())
	}
	return vc, nil
}

// exactlyOneName accepts the name of a VirtualCluster as the only argument.
func exactlyOneName(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return errors.New("give the name of one VirtualCluster: " + cmd.UseLine())
	}
	return nil
}
