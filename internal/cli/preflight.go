package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/client-go/discovery"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/controllers/preflight"
)

// preflightTimeout bounds the checks.
const preflightTimeout = time.Minute

func (c *cli) preflightCommand() *cobra.Command {
	var config preflight.Config
	cmd := &cobra.Command{
		Use:   "preflight",
		Short: "Check how this cluster can give tenants addresses of Services",
		Long: `Check how this cluster can give tenants addresses of Services, before VirtualCluster is installed or after.

It reads ServiceCIDRs, nodes and what is known of the network, and asks the API server by dry runs. It changes nothing. The exit
code is 1 when there is an error among the findings.`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&config.Pool, "service-cidr-pool", preflight.Auto, "The flag of vc-manager: ranges that tenants' service ranges are parts of, auto or empty.")
	cmd.Flags().StringVar(&config.Size, "service-cidr-size", preflight.Auto, "The flag of vc-manager: prefix length of a tenant's service range, or auto.")
	out := addOutput(cmd, "")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		report, err := c.check(cmd.Context(), config)
		if err != nil {
			return err
		}
		if err := c.printReport(out, report); err != nil {
			return err
		}
		if report.Failed() {
			return &exitError{code: 1}
		}
		return nil
	}
	return cmd
}

// check checks the super cluster.
func (c *cli) check(ctx context.Context, config preflight.Config) (*preflight.Report, error) {
	super, err := c.connect()
	if err != nil {
		return nil, err
	}
	about, err := c.discover()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, preflightTimeout)
	defer cancel()
	return preflight.Check(ctx, preflight.Super{Client: super, Live: super, Discovery: about}, config)
}

// superDiscovery returns a client that asks the super cluster about itself, and no cache on disk.
func (c *cli) superDiscovery() (preflight.Discovery, error) {
	config, err := c.flags.ToRESTConfig()
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig: %w", err)
	}
	if config.Timeout == 0 {
		config.Timeout = preflightTimeout
	}
	return discovery.NewDiscoveryClientForConfig(config)
}

// printReport prints a report for people, or as an object.
func (c *cli) printReport(out *output, report *preflight.Report) error {
	if out.format == forPeople || out.format == wide {
		return printers.NewTablePrinter(printers.PrintOptions{}).PrintObj(findingsTable(report), c.Out)
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(report)
	if err != nil {
		return fmt.Errorf("encoding the report: %w", err)
	}
	object := &unstructured.Unstructured{Object: content}
	object.SetGroupVersionKind(tenancyv1alpha1.GroupVersion().WithKind("PreflightReport"))
	return out.object(c, object)
}

// findingsTable has a row for each finding.
func findingsTable(report *preflight.Report) *metav1.Table {
	t := &metav1.Table{ColumnDefinitions: []metav1.TableColumnDefinition{
		{Name: "Severity", Type: text},
		{Name: "Reason", Type: text, Format: "name"},
		{Name: "Message", Type: text},
		{Name: "What to do", Type: text},
	}}
	for _, f := range report.Findings {
		t.Rows = append(t.Rows, metav1.TableRow{Cells: []any{string(f.Severity), f.Reason, f.Message, orNone(f.Action)}})
	}
	return t
}
