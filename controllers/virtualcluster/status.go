package virtualcluster

import (
	"context"
	"errors"
	"fmt"
	"slices"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/controllers/progress"
	"github.com/virtualcluster-io/virtualcluster/controllers/provision"
	"github.com/virtualcluster-io/virtualcluster/internal/connection"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

const (
	reasonReady    = "Ready"
	reasonDeleting = "Deleting"
)

// summarize sets the conditions Ready, Reconciling and Stalled and the phase from the outcome of all steps.
func summarize(tenant *provision.Tenant, err error) {
	vc := tenant.VirtualCluster
	status := &vc.Status
	status.ObservedGeneration = vc.Generation
	wasReady := status.ReadyAfterSeconds != nil

	const ready = "the control plane is ready"
	tenant.Report(tenancyv1alpha1.ConditionReady, ready, err)
	status.Reason, status.Message = reasonReady, ready
	if err != nil {
		status.Reason, status.Message = progress.Reason(err), connection.Shorten(err.Error())
	}

	stalled := errors.As(err, new(*progress.Stall))
	setOrRemove(tenant, tenancyv1alpha1.ConditionStalled, stalled)
	setOrRemove(tenant, tenancyv1alpha1.ConditionReconciling, err != nil && !stalled)

	switch {
	case vc.DeletionTimestamp != nil:
		status.Phase = tenancyv1alpha1.PhaseDeleting
	case stalled:
		status.Phase = tenancyv1alpha1.PhaseError
	case err == nil:
		status.Phase = tenancyv1alpha1.PhaseRunning
		if !wasReady {
			seconds := int64(tenant.Now.Sub(vc.CreationTimestamp.Time).Seconds())
			status.ReadyAfterSeconds = &seconds
		}
	case wasReady:
		status.Phase = tenancyv1alpha1.PhaseUpdating
	default:
		status.Phase = tenancyv1alpha1.PhasePending
	}
}

// setOrRemove keeps a condition that is abnormal when True only while it is.
func setOrRemove(tenant *provision.Tenant, condition string, abnormal bool) {
	status := &tenant.VirtualCluster.Status
	if !abnormal {
		apimeta.RemoveStatusCondition(&status.Conditions, condition)
		return
	}
	apimeta.SetStatusCondition(&status.Conditions, metav1.Condition{
		Type:               condition,
		Status:             metav1.ConditionTrue,
		Reason:             status.Reason,
		Message:            status.Message,
		ObservedGeneration: tenant.VirtualCluster.Generation,
		LastTransitionTime: metav1.NewTime(tenant.Now),
	})
}

// writeStatus applies the whole status except what the syncer owns: a condition, and what it remembers. It fails if the object has changed
// since it was read.
func (r *Reconciler) writeStatus(ctx context.Context, vc *tenancyv1alpha1.VirtualCluster) error {
	status := vc.Status.DeepCopy()
	status.Sync = nil
	status.Conditions = slices.DeleteFunc(status.Conditions, func(c metav1.Condition) bool { return c.Type == tenancyv1alpha1.ConditionSyncing })
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(status)
	if err != nil {
		return fmt.Errorf("converting the status: %w", err)
	}
	object := &unstructured.Unstructured{Object: map[string]any{"status": content}}
	object.SetGroupVersionKind(tenancyv1alpha1.GroupVersion().WithKind("VirtualCluster"))
	object.SetNamespace(vc.Namespace)
	object.SetName(vc.Name)
	object.SetResourceVersion(vc.ResourceVersion)
	err = r.Client.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(object), client.FieldOwner(names.Manager), client.ForceOwnership)
	if err != nil {
		return fmt.Errorf("writing the status: %w", err)
	}
	return nil
}

// announce tells what changed, once: events, and the metric of the first time.
func (r *Reconciler) announce(tenant *provision.Tenant, before *tenancyv1alpha1.VirtualCluster) {
	vc := tenant.VirtualCluster
	if before.Status.ReadyAfterSeconds == nil && vc.Status.ReadyAfterSeconds != nil {
		r.Metrics.ready(tenant.Now.Sub(vc.CreationTimestamp.Time))
	}
	if vc.Status.Phase == before.Status.Phase {
		return
	}
	switch vc.Status.Phase {
	case tenancyv1alpha1.PhaseRunning:
		tenant.Event("Normal", reasonReady, "The control plane is ready at "+vc.Status.Endpoint)
	case tenancyv1alpha1.PhaseError:
		tenant.Event("Warning", vc.Status.Reason, vc.Status.Message)
	case tenancyv1alpha1.PhaseDeleting:
		tenant.Event("Normal", reasonDeleting, "Removing everything made for the VirtualCluster in the super cluster")
	}
}
