// Command supercluster runs a real Kubernetes cluster on one Linux machine, for development and tests. It parses flags and
// calls test/supercluster; it is no part of VirtualCluster itself.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/virtualcluster-io/virtualcluster/test/supercluster"
	"github.com/virtualcluster-io/virtualcluster/test/supercluster/images"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command().ExecuteContext(ctx)
	cancel()
	if err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:           "supercluster",
		Short:         "Run a real Kubernetes cluster on this machine",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	var config supercluster.Config
	root.PersistentFlags().StringVar(&config.Dir, "dir", "_local/super", "folder of this cluster's files")
	root.PersistentFlags().StringVar(&config.Name, "name", "", "name of the cluster, unique on this machine (default: the last part of --dir)")
	root.PersistentFlags().StringVar(&config.BinDir, "bin", programDir(), "folder of the binaries of Kubernetes, etcd and containerd")

	up := &cobra.Command{
		Use:   "up",
		Short: "Create the cluster, or repair it",
		Args:  cobra.NoArgs,
		RunE: withCluster(&config, func(ctx context.Context, c *supercluster.Cluster, _ []string) error {
			return c.Up(ctx)
		}),
	}
	up.Flags().IntVar(&config.Nodes, "nodes", 0, "number of nodes (default: as it was, or 2)")
	up.Flags().StringVar(&config.Images, "images", filepath.Join(programDir(), "..", "images"), "folder of image archives to load into every node")

	down := &cobra.Command{
		Use:   "down",
		Short: "Remove the cluster and everything it made",
		Args:  cobra.NoArgs,
		RunE: withCluster(&config, func(ctx context.Context, c *supercluster.Cluster, _ []string) error {
			return c.Down(ctx)
		}),
	}
	status := &cobra.Command{
		Use:   "status",
		Short: "Show the cluster's processes",
		Args:  cobra.NoArgs,
		RunE: withCluster(&config, func(ctx context.Context, c *supercluster.Cluster, _ []string) error {
			return c.Status(ctx, os.Stdout)
		}),
	}
	load := &cobra.Command{
		Use:   "load IMAGE.tar...",
		Short: "Load image archives into every node",
		Args:  cobra.MinimumNArgs(1),
		RunE: withCluster(&config, func(ctx context.Context, c *supercluster.Cluster, archives []string) error {
			return c.Load(ctx, archives)
		}),
	}
	root.AddCommand(up, down, status, load, imagesCommand(&config))
	return root
}

func programDir() string {
	program, err := os.Executable()
	if err != nil {
		return "."
	}
	return filepath.Dir(program)
}

// withCluster makes the cluster from the flags; it needs Linux and root, and says so in one line.
func withCluster(config *supercluster.Config, do func(context.Context, *supercluster.Cluster, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if runtime.GOOS != "linux" {
			return errors.New("real nodes need Linux: network namespaces, cgroups and containers are made directly")
		}
		if os.Geteuid() != 0 {
			return errors.New("real nodes need root: run this again with sudo")
		}
		c, err := supercluster.New(*config, supercluster.NewSteps(os.Stderr))
		if err != nil {
			return err
		}
		return do(cmd.Context(), c, args)
	}
}

func imagesCommand(config *supercluster.Config) *cobra.Command {
	var out, from, packages string
	var list bool
	cmd := &cobra.Command{
		Use:   "images [FILE...]",
		Short: "Build the image archives whose binaries have changed: all, or those named",
		RunE: func(cmd *cobra.Command, names []string) error {
			// Images are made again when their list changes: it is a file, or part of this program.
			source, err := os.Executable()
			if err != nil {
				return fmt.Errorf("finding ourselves: %w", err)
			}
			specs, err := images.List()
			if from != "" {
				source = from
				specs, err = images.ReadList(from)
			}
			if err != nil {
				return err
			}
			if list {
				for _, spec := range specs {
					fmt.Println(strings.Join(spec.Refs(), "\n"))
				}
				return nil
			}
			builder := images.Builder{BinDir: config.BinDir, Debian: images.Debian{Dir: packages}}
			return buildImages(cmd.Context(), supercluster.NewSteps(os.Stderr), builder, images.Selected(specs, names), source, out)
		},
	}
	cmd.Flags().StringVar(&out, "out", filepath.Join(programDir(), "..", "images"), "folder of the archives")
	cmd.Flags().StringVar(&from, "from", "", "list of images (default: those of the local cluster)")
	cmd.Flags().StringVar(&packages, "packages", filepath.Join(programDir(), "..", "debian"), "folder for packages of Debian")
	cmd.Flags().BoolVar(&list, "list", false, "only print the names of the images")
	return cmd
}

func buildImages(ctx context.Context, steps *supercluster.Steps, builder images.Builder, specs []images.Spec, source, out string) error {
	for _, spec := range specs {
		archive := filepath.Join(out, spec.File+".tar")
		stale, err := images.Stale(archive, append(builder.Inputs(spec), source))
		if err != nil {
			return fmt.Errorf("building %s: %w", spec.Ref, err)
		}
		if !stale {
			continue
		}
		steps.Say("Building %s", strings.Join(spec.Refs(), ", "))
		built, err := builder.Build(ctx, spec)
		if err != nil {
			return fmt.Errorf("building %s: %w", spec.Ref, err)
		}
		if err := images.Write(archive, built); err != nil {
			return fmt.Errorf("building %s: %w", spec.Ref, err)
		}
	}
	return nil
}
