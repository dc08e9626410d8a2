package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/printers"
	"sigs.k8s.io/controller-runtime/pkg/client"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
)

func (c *cli) listCommand() *cobra.Command {
	var everywhere bool
	cmd := &cobra.Command{
		Use:               "list [NAME]",
		Aliases:           []string{"get", "ls"},
		Short:             "List VirtualClusters",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: c.completeNames,
	}
	cmd.Flags().BoolVarP(&everywhere, "all-namespaces", "A", false, "List the VirtualClusters of all namespaces.")
	out := addOutput(cmd, "")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 {
			_, vc, err := c.find(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return c.printOne(out, vc)
		}
		return c.list(cmd, out, everywhere)
	}
	return cmd
}

func (c *cli) printOne(out *output, vc *tenancyv1alpha1.VirtualCluster) error {
	if out.format == forPeople || out.format == wide {
		return out.table(c, []tenancyv1alpha1.VirtualCluster{*vc}, printers.PrintOptions{}, time.Now())
	}
	return out.object(c, vc)
}

func (c *cli) list(cmd *cobra.Command, out *output, everywhere bool) error {
	namespace, err := c.namespace()
	if err != nil {
		return err
	}
	if everywhere {
		namespace = ""
	}
	super, err := c.connect()
	if err != nil {
		return err
	}
	list := &tenancyv1alpha1.VirtualClusterList{}
	if err := super.List(cmd.Context(), list, client.InNamespace(namespace)); err != nil {
		return err
	}
	switch out.format {
	case forPeople, wide:
	case "name": // has no form for a list
		for i := range list.Items {
			if err := out.object(c, &list.Items[i]); err != nil {
				return err
			}
		}
		return nil
	default:
		return out.object(c, list)
	}
	if len(list.Items) == 0 {
		where := fmt.Sprintf("in namespace %s", namespace)
		if everywhere {
			where = "in any namespace"
		}
		c.say("No VirtualClusters %s. Create one with: kubectl vc create NAME --wait\n", where)
		return nil
	}
	return out.table(c, list.Items, printers.PrintOptions{WithNamespace: everywhere}, time.Now())
}
