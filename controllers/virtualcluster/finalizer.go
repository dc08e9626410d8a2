package virtualcluster

import (
	"context"
	"fmt"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/controllers/provision"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// ensureFinalizer keeps the VirtualCluster from disappearing before what was made for it is removed.
func (r *Reconciler) ensureFinalizer(ctx context.Context, vc *tenancyv1alpha1.VirtualCluster) error {
	base := vc.DeepCopy()
	if !controllerutil.AddFinalizer(vc, names.Finalizer) {
		return nil
	}
	if err := r.Client.Patch(ctx, vc, client.MergeFromWithOptions(base, client.MergeFromWithOptimisticLock{}), client.FieldOwner(names.Manager)); err != nil {
		return fmt.Errorf("adding the finalizer: %w", err)
	}
	return nil
}

// removeFinalizer lets the VirtualCluster go.
func (r *Reconciler) removeFinalizer(ctx context.Context, tenant *provision.Tenant) error {
	vc := tenant.VirtualCluster
	base := vc.DeepCopy()
	if !controllerutil.RemoveFinalizer(vc, names.Finalizer) {
		return nil
	}
	if err := r.Client.Patch(ctx, vc, client.MergeFromWithOptions(base, client.MergeFromWithOptimisticLock{}), client.FieldOwner(names.Manager)); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("removing the finalizer: %w", err)
	}
	tenant.Event("Normal", "Deleted", "Everything made for the VirtualCluster in the super cluster is gone")
	return nil
}
