package cli

import (
	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func (c *cli) deleteCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "delete NAME",
		Short:             "Delete a VirtualCluster and all that runs in it",
		Args:              exactlyOneName,
		ValidArgsFunction: c.completeNames,
	}
	waiting := addWaiting(cmd, "everything is removed")
	out := addOutput(cmd, "deleted")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		super, vc, err := c.find(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if err := super.Delete(cmd.Context(), vc, client.Preconditions{UID: &vc.UID}); err != nil {
			return err
		}
		if waiting.enabled {
			if err := c.until(cmd.Context(), super, vc.DeepCopy(), waiting.timeout, gone); err != nil {
				return err
			}
		}
		return out.object(c, vc)
	}
	return cmd
}
