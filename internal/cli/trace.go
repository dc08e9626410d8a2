package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/cli-runtime/pkg/printers"
	"sigs.k8s.io/controller-runtime/pkg/client"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// traceTimeout bounds one question to vc-syncer.
const traceTimeout = 20 * time.Second

// maxTrace bounds its answer, in bytes.
const maxTrace = 1 << 20

// trace is what vc-syncer answers about one object.
type trace struct {
	Kind, Connection, Replica, Outcome, Message string
	Tenant, Super                               *tracedObject
	Next                                        []string
	Since, At                                   *metav1.Time
	Last                                        string
	Tries                                       int
}

type tracedObject struct {
	Namespace, Name, UID, ResourceVersion string
	CreationTimestamp                     metav1.Time
	Deleting                              bool
}

// asking says what is asked of whom.
type asking struct {
	namespace, syncerNamespace, syncer string
}

func (c *cli) traceCommand() *cobra.Command {
	var ask asking
	cmd := &cobra.Command{
		Use:   "trace NAME KIND OBJECT",
		Short: "Show what vc-syncer knows about one object of a VirtualCluster",
		Long: `Show what vc-syncer knows about one object of a VirtualCluster: the object and its replica, whether they are in step, and
what keeps them from it. It asks the pod of vc-syncer that leads, by a forwarded port, for which you need the right to get the
Lease of vc-syncer and to create pods/portforward in its namespace.`,
		Example: `  kubectl vc trace team-a pod web-0 --tenant-namespace shop
  kubectl vc trace team-a nodes worker-1 -o yaml`,
		ValidArgsFunction: c.completeNames,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 3 {
				return errors.New("give the name of one VirtualCluster, a kind and the name of an object, for instance: kubectl vc trace team-a pod web-0 --tenant-namespace shop")
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&ask.namespace, "tenant-namespace", metav1.NamespaceDefault, "Namespace of the object in the VirtualCluster.")
	cmd.Flags().StringVar(&ask.syncerNamespace, "syncer-namespace", "vc-system", "Namespace of vc-syncer.")
	cmd.Flags().StringVar(&ask.syncer, "syncer", "", "Address of --trace-bind-address of a vc-syncer that runs outside the super cluster, for instance 127.0.0.1:8082.")
	out := addOutput(cmd, "")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx, cancel := context.WithTimeout(cmd.Context(), traceTimeout)
		defer cancel()
		super, vc, err := c.find(ctx, args[0])
		if err != nil {
			return err
		}
		body, err := c.ask(ctx, super, vc, ask, args[1], args[2])
		if err != nil {
			return err
		}
		return c.printTrace(out, body)
	}
	return cmd
}

// ask returns the answer of vc-syncer about an object.
func (c *cli) ask(ctx context.Context, super client.Client, vc *tenancyv1alpha1.VirtualCluster, ask asking, kind, name string) ([]byte, error) {
	address := ask.syncer
	if address == "" {
		leader, err := leaderOf(ctx, super, ask.syncerNamespace)
		if err != nil {
			return nil, err
		}
		forwarded, stop, err := c.forward(ctx, leader, names.TracePort)
		if err != nil {
			return nil, err
		}
		defer stop()
		address = forwarded
	}
	query := url.Values{
		"tenant": {string(names.Tenant(client.ObjectKeyFromObject(vc), vc.UID))},
		"kind":   {kind}, "namespace": {ask.namespace}, "name": {name},
	}
	target := url.URL{Scheme: "http", Host: address, Path: names.TracePath, RawQuery: query.Encode()}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("asking vc-syncer at %s: %w", address, err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		// Not wrapped: it is not the super cluster that cannot be reached.
		return nil, fmt.Errorf("asking vc-syncer at %s, which may have been started with another --trace-bind-address: %v", address, err) //nolint:errorlint // see above
	}
	defer response.Body.Close() //nolint:errcheck // it was read
	body, err := io.ReadAll(io.LimitReader(response.Body, maxTrace))
	if err != nil {
		return nil, fmt.Errorf("reading the answer of vc-syncer: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return nil, errors.New(strings.TrimSpace(string(body)))
	}
	return body, nil
}

// leaderOf returns the pod of vc-syncer that leads.
func leaderOf(ctx context.Context, super client.Client, namespace string) (client.ObjectKey, error) {
	lease := &coordinationv1.Lease{}
	err := super.Get(ctx, client.ObjectKey{Namespace: namespace, Name: names.Syncer}, lease)
	if err != nil && !apierrors.IsNotFound(err) {
		return client.ObjectKey{}, fmt.Errorf("reading the Lease of vc-syncer: %w", err)
	}
	if err != nil || lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity == "" {
		return client.ObjectKey{}, fmt.Errorf("no vc-syncer leads in namespace %s; look at its pods, or set --syncer-namespace or --syncer", namespace)
	}
	pod, _, _ := strings.Cut(*lease.Spec.HolderIdentity, "_")
	return client.ObjectKey{Namespace: namespace, Name: pod}, nil
}

func (c *cli) printTrace(out *output, body []byte) error {
	if out.format != forPeople && out.format != wide {
		object := &unstructured.Unstructured{}
		if err := json.Unmarshal(body, &object.Object); err != nil {
			return fmt.Errorf("reading the answer of vc-syncer: %w", err)
		}
		// What is printed says what it is, as objects do.
		object.Object["object"] = object.Object["kind"]
		object.SetAPIVersion(tenancyv1alpha1.GroupVersion().String())
		object.SetKind("Trace")
		return out.object(c, object)
	}
	var t trace
	if err := json.Unmarshal(body, &t); err != nil {
		return fmt.Errorf("reading the answer of vc-syncer: %w", err)
	}
	printer := printers.NewTablePrinter(printers.PrintOptions{})
	if err := printer.PrintObj(objectsTable(&t, time.Now()), c.Out); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(c.Out); err != nil {
		return err
	}
	return printer.PrintObj(factsTable(&t, time.Now()), c.Out)
}

// objectsTable shows the two objects.
func objectsTable(t *trace, now time.Time) *metav1.Table {
	table := &metav1.Table{}
	for _, name := range []string{"Cluster", "Namespace", "Name", "UID", "Age", "Version", "State"} {
		table.ColumnDefinitions = append(table.ColumnDefinitions, metav1.TableColumnDefinition{Name: name, Type: text})
	}
	for _, row := range []struct {
		cluster string
		object  *tracedObject
	}{{"tenant", t.Tenant}, {"super", t.Super}} {
		o, state := row.object, "exists"
		if o == nil {
			table.Rows = append(table.Rows, metav1.TableRow{Cells: []any{row.cluster, "", "", "", "", "", "absent"}})
			continue
		}
		if o.Deleting {
			state = "being deleted"
		}
		table.Rows = append(table.Rows, metav1.TableRow{Cells: []any{
			row.cluster, orNone(o.Namespace), o.Name, o.UID, duration.HumanDuration(now.Sub(o.CreationTimestamp.Time)), o.ResourceVersion, state,
		}})
	}
	return table
}

// factsTable shows all else.
func factsTable(t *trace, now time.Time) *metav1.Table {
	table := &metav1.Table{ColumnDefinitions: []metav1.TableColumnDefinition{{Name: "Fact", Type: text}, {Name: "Value", Type: text}}}
	add := func(name, value string) {
		if value != "" {
			table.Rows = append(table.Rows, metav1.TableRow{Cells: []any{name, value}})
		}
	}
	ago := func(at *metav1.Time) string {
		if at == nil {
			return ""
		}
		return duration.HumanDuration(now.Sub(at.Time)) + " ago"
	}
	add("kind", t.Kind)
	add("connection", t.Connection)
	add("replica", t.Replica)
	add("outcome", t.Outcome)
	add("message", t.Message)
	for _, next := range t.Next {
		add("next", next)
	}
	add("waits or fails since", ago(t.Since))
	add("last decision", ago(t.At))
	if t.Last != t.Message {
		add("it ended with", t.Last)
	}
	if t.Tries > 0 {
		add("decisions in a row", strconv.Itoa(t.Tries))
	}
	return table
}
