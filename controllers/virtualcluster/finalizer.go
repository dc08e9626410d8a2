package virtualcluster

import (
	"context"
	"fmt"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/virtualcluster-io/virtualcluster/controllers/provision"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// ensureFinalizer keeps the VirtualCluster from disappearing before what was made for it is removed, and takes over one of the
// retired project.
func (r *Reconciler) ensureFinalizer(ctx context.Context, tenant *provision.Tenant) error {
	vc := tenant.VirtualCluster
	if err := r.takeOver(ctx, tenant); err != nil {
		return err
	}
	base := vc.DeepCopy()
	if !controllerutil.AddFinalizer(vc, names.Finalizer) {
		return nil
	}
	if err := patch(ctx, r.Client, vc, base); err != nil {
		return fmt.Errorf("adding the finalizer: %w", err)
	}
	return nil
}

// patch writes what differs from the base, unless somebody else has written in the meantime.
func patch(ctx context.Context, c client.Client, object, base client.Object) error {
	return c.Patch(ctx, object, client.MergeFromWithOptions(base, client.MergeFromWithOptimisticLock{}), client.FieldOwner(names.Manager))
}

// removeFinalizer lets the VirtualCluster go.
func (r *Reconciler) removeFinalizer(ctx context.Context, tenant *provision.Tenant) error {
	vc := tenant.VirtualCluster
	base := vc.DeepCopy()
	if !controllerutil.RemoveFinalizer(vc, names.Finalizer) {
		return nil
	}
	if err := patch(ctx, r.Client, vc, base); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("removing the finalizer: %w", err)
	}
	tenant.Event("Normal", "Deleted", "Everything made for the VirtualCluster in the super cluster is gone")
	return nil
}
