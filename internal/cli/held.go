package cli

import (
	"fmt"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/printers"
	"sigs.k8s.io/controller-runtime/pkg/client"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

func (c *cli) heldCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "held NAME",
		Short: "List what vc-syncer would delete if a person said so",
		Long: `List what vc-syncer would delete if a person said so.

vc-syncer waits for a person when a control plane was restored from a backup, and when nothing tells whether objects that
disappeared were deleted. "kubectl vc release" lets the deletions happen.`,
		Args:              exactlyOneName,
		ValidArgsFunction: c.completeNames,
	}
	out := addOutput(cmd, "")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		_, vc, err := c.find(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if out.format != forPeople && out.format != wide {
			return out.object(c, vc)
		}
		return c.printHeld(vc)
	}
	return cmd
}

// printHeld prints the deletions that wait for a person.
func (c *cli) printHeld(vc *tenancyv1alpha1.VirtualCluster) error {
	sync := vc.Status.Sync
	if sync == nil || sync.Halted == "" {
		c.say("No deletion waits for a person in VirtualCluster %s/%s.\n", vc.Namespace, vc.Name)
		return nil
	}
	if sync.HaltedBecause != "" {
		c.say("%s: %s\n", sync.Halted, sync.HaltedBecause)
	} else {
		c.say("%s: objects disappeared, and nothing tells whether they were deleted\n", sync.Halted)
	}
	if sync.HeldCount == 0 {
		c.say("Nothing would be deleted.\n")
		return nil
	}
	if err := printers.NewTablePrinter(printers.PrintOptions{}).PrintObj(heldTable(sync.Held), c.Out); err != nil {
		return fmt.Errorf("printing the deletions: %w", err)
	}
	if more := sync.HeldCount - int64(len(sync.Held)); more > 0 {
		c.say("%d more are not listed.\n", more)
	}
	return nil
}

// heldTable has a row for each deletion.
func heldTable(held []tenancyv1alpha1.HeldDeletion) *metav1.Table {
	t := &metav1.Table{ColumnDefinitions: []metav1.TableColumnDefinition{
		{Name: "Cluster", Type: text},
		{Name: "Resource", Type: text},
		{Name: "Namespace", Type: text},
		{Name: "Name", Type: text, Format: "name"},
		{Name: "Cause", Type: text},
	}}
	for _, h := range held {
		t.Rows = append(t.Rows, metav1.TableRow{Cells: []any{h.Side, h.Resource, orNone(h.Namespace), h.Name, h.Cause}})
	}
	return t
}

func (c *cli) releaseCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "release NAME",
		Short: "Go on with a VirtualCluster that waits for a person, and delete what is held",
		Long: `Go on with a VirtualCluster that waits for a person. What "kubectl vc held" lists is deleted then, with all that is in it. This
cannot be undone.`,
		Args:              exactlyOneName,
		ValidArgsFunction: c.completeNames,
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "Delete what is held. Without it, it is only listed.")
	out := addOutput(cmd, "released")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		super, vc, err := c.find(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if sync := vc.Status.Sync; sync == nil || sync.Halted == "" {
			return fmt.Errorf("VirtualCluster %s/%s waits for nobody", vc.Namespace, vc.Name)
		}
		if !yes {
			if err := c.printHeld(vc); err != nil {
				return err
			}
			return fmt.Errorf("%d objects would be deleted, with all that is in them; add --yes to go on", vc.Status.Sync.HeldCount)
		}
		before := vc.DeepCopy()
		if vc.Annotations == nil {
			vc.Annotations = map[string]string{}
		}
		vc.Annotations[names.AnnotationReleaseBrake] = "true"
		if err := super.Patch(cmd.Context(), vc, client.MergeFrom(before)); err != nil {
			return err
		}
		return out.object(c, vc)
	}
	return cmd
}
