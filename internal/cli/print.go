package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/printers"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
)

// output is the flag -o.
type output struct {
	format string
	flags  *genericclioptions.PrintFlags
}

// text is the type of all columns.
const text = "string"

// formats that exist besides those of the flag's printers.
const (
	forPeople = ""
	wide      = "wide"
)

// addOutput adds the flag -o to a command. The operation is said after the name of what was changed.
func addOutput(cmd *cobra.Command, operation string) *output {
	o := &output{flags: genericclioptions.NewPrintFlags(operation)}
	cmd.Flags().StringVarP(&o.format, "output", "o", "", "Output format: wide, json, yaml, name, jsonpath=..., go-template=...")
	return o
}

// object prints an object in the format chosen, or else as kubectl does after a change: its name and the operation.
func (o *output) object(c *cli, object runtime.Object) error {
	s, err := scheme()
	if err != nil {
		return err
	}
	format := o.format
	if format == wide {
		format = forPeople
	}
	o.flags.OutputFormat = &format
	printer, err := o.flags.WithTypeSetter(s).ToPrinter()
	if err != nil {
		return fmt.Errorf("choosing the output format: %w", err)
	}
	return printer.PrintObj(object, c.Out)
}

// table prints VirtualClusters for people.
func (o *output) table(c *cli, items []tenancyv1alpha1.VirtualCluster, options printers.PrintOptions, now time.Time) error {
	options.Wide = o.format == wide
	return printers.NewTablePrinter(options).PrintObj(table(items, now), c.Out)
}

// table has the columns of kubectl get.
func table(items []tenancyv1alpha1.VirtualCluster, now time.Time) *metav1.Table {
	t := &metav1.Table{ColumnDefinitions: []metav1.TableColumnDefinition{
		{Name: "Name", Type: text, Format: "name"},
		{Name: "Phase", Type: text},
		{Name: "Version", Type: text},
		{Name: "Endpoint", Type: text},
		{Name: "Age", Type: text},
		{Name: "Root Namespace", Type: text, Priority: 1},
		{Name: "Message", Type: text, Priority: 1},
	}}
	for i := range items {
		vc := &items[i]
		t.Rows = append(t.Rows, metav1.TableRow{
			Cells: []any{
				vc.Name, orNone(string(vc.Status.Phase)), orNone(vc.Status.Version), orNone(vc.Status.Endpoint), age(vc, now),
				orNone(vc.Status.ClusterNamespace), orNone(vc.Status.Message),
			},
			Object: runtime.RawExtension{Object: vc},
		})
	}
	return t
}

func age(vc *tenancyv1alpha1.VirtualCluster, now time.Time) string {
	if vc.CreationTimestamp.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(now.Sub(vc.CreationTimestamp.Time))
}

func orNone(s string) string {
	if s == "" {
		return "<none>"
	}
	return s
}
