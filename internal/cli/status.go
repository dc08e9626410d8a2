package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

func (c *cli) statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "status NAME",
		Short:             "Show how a VirtualCluster is, part by part",
		Args:              exactlyOneName,
		ValidArgsFunction: c.completeNames,
	}
	out := addOutput(cmd, "")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		super, vc, err := c.find(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if out.format != forPeople && out.format != wide {
			return out.object(c, vc)
		}
		components, err := readComponents(cmd.Context(), super, vc)
		if err != nil {
			return err
		}
		_, err = fmt.Fprint(c.Out, statusTree(vc, components))
		return err
	}
	return cmd
}

// component of a control plane.
type component struct {
	name           string
	ready, desired int32
	restarts       int32
	// trouble is why a pod of it is not ready, if known.
	trouble string
}

// readComponents returns the components of a Dedicated control plane, by name.
func readComponents(ctx context.Context, super client.Client, vc *tenancyv1alpha1.VirtualCluster) ([]component, error) {
	root := vc.Status.ClusterNamespace
	if root == "" || vc.Spec.ControlPlane.Type == tenancyv1alpha1.External {
		return nil, nil
	}
	sets, pods := &appsv1.StatefulSetList{}, &corev1.PodList{}
	for _, list := range []client.ObjectList{sets, pods} {
		if err := super.List(ctx, list, client.InNamespace(root), client.HasLabels{names.LabelComponent}); err != nil {
			return nil, fmt.Errorf("listing the components in %s: %w", root, err)
		}
	}
	var components []component
	for _, set := range sets.Items {
		part := component{name: set.Labels[names.LabelComponent], ready: set.Status.ReadyReplicas, desired: 1}
		if set.Spec.Replicas != nil {
			part.desired = *set.Spec.Replicas
		}
		for _, pod := range pods.Items {
			if pod.Labels[names.LabelComponent] == part.name {
				part.add(&pod)
			}
		}
		components = append(components, part)
	}
	slices.SortFunc(components, func(a, b component) int { return strings.Compare(a.name, b.name) })
	return components, nil
}

// add counts the restarts of a pod and notes why it is not ready.
func (c *component) add(pod *corev1.Pod) {
	for _, container := range pod.Status.ContainerStatuses {
		c.restarts += container.RestartCount
		if waiting := container.State.Waiting; waiting != nil && c.trouble == "" {
			c.trouble = strings.TrimSuffix(pod.Name+" "+waiting.Reason+": "+waiting.Message, ": ")
		}
	}
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodScheduled && condition.Status == corev1.ConditionFalse && c.trouble == "" {
			c.trouble = pod.Name + " " + condition.Reason + ": " + condition.Message
		}
	}
}

// serviceRanges returns the ranges that cluster IPs come from, for people.
func serviceRanges(status *tenancyv1alpha1.VirtualClusterStatus) string {
	if status.ServiceCIDR == "" && status.ServiceAddresses != nil {
		return "that of the super cluster"
	}
	return orNone(strings.Join(append([]string{status.ServiceCIDR}, status.AdditionalServiceCIDRs...), " and "))
}

// statusTree arranges all that is known about a VirtualCluster.
func statusTree(vc *tenancyv1alpha1.VirtualCluster, components []component) *tree {
	status := &vc.Status
	root := &tree{text: fmt.Sprintf("VirtualCluster %s/%s  %s", vc.Namespace, vc.Name, progress(vc))}
	facts := root.add("Control plane")
	kind := vc.Spec.ControlPlane.Type
	if kind == "" {
		kind = tenancyv1alpha1.Dedicated
	}
	rows := [][]string{{"Type", string(kind)}, {"Version", orNone(status.Version)}, {"Endpoint", orNone(status.Endpoint)},
		{"Service CIDR", serviceRanges(status)}, {"Root namespace", orNone(status.ClusterNamespace)}}
	if status.ReadyAfterSeconds != nil {
		rows = append(rows, []string{"Ready after", fmt.Sprintf("%d s", *status.ReadyAfterSeconds)})
	}
	facts.table(rows)

	if len(components) > 0 {
		rows = nil
		for _, part := range components {
			rows = append(rows, []string{mark(part.ready == part.desired) + " " + part.name,
				fmt.Sprintf("%d/%d ready", part.ready, part.desired), fmt.Sprintf("%d restarts", part.restarts), part.trouble})
		}
		root.add("Components").table(rows)
	}

	syncing := apimeta.FindStatusCondition(status.Conditions, tenancyv1alpha1.ConditionSyncing)
	if syncing == nil {
		root.add("Syncer").add("✗ has not said anything about this tenant")
	} else {
		root.add("Syncer").table([][]string{conditionRow(*syncing)})
	}

	rows = nil
	for _, condition := range status.Conditions {
		if condition.Type != tenancyv1alpha1.ConditionSyncing {
			rows = append(rows, conditionRow(condition))
		}
	}
	if len(rows) > 0 {
		root.add("Conditions").table(rows)
	}
	return root
}

func conditionRow(condition metav1.Condition) []string {
	good := condition.Status == metav1.ConditionTrue
	if condition.Type == tenancyv1alpha1.ConditionReconciling || condition.Type == tenancyv1alpha1.ConditionStalled {
		good = condition.Status == metav1.ConditionFalse
	}
	return []string{mark(good) + " " + condition.Type, string(condition.Status), condition.Reason, condition.Message}
}

func mark(good bool) string {
	if good {
		return "✓"
	}
	return "✗"
}
