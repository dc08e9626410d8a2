package engine

import (
	"context"
	"fmt"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/tenants"
)

// Somebody may take the labels off a replica by which the caches find it. Its annotations then prove whose it is.

// stripped says whether what exists is the replica that was wanted but for a label of ours: it was made for the same place and
// the same origin or, as long as the label of the tenant is there, for a predecessor of that.
func stripped(existing, want resource.Object) bool {
	is, wanted := existing.GetAnnotations(), want.GetAnnotations()
	for _, key := range []string{names.AnnotationNamespace, names.AnnotationName, names.AnnotationVirtualClusterUID} {
		if is[key] != wanted[key] {
			return false
		}
	}
	of := existing.GetLabels()[names.LabelTenant]
	switch {
	case is[names.AnnotationUID] == "", of != "" && of != want.GetLabels()[names.LabelTenant]:
		return false
	case of == "":
		return is[names.AnnotationUID] == wanted[names.AnnotationUID]
	}
	return existing.GetLabels()[names.LabelManagedBy] != want.GetLabels()[names.LabelManagedBy]
}

// relabel gives a replica its labels back. The cache then shows it, which brings its key back.
func (e *Engine) relabel(ctx context.Context, t *tenants.Tenant, replica resource.Object) error {
	ops, err := resource.Relabel(t.Facts.ID, replica)
	for _, op := range ops {
		err = e.superFor(t).Do(ctx, op)
	}
	if err != nil {
		return fmt.Errorf("giving %s/%s of the super cluster its labels back: %w", replica.GetNamespace(), replica.GetName(), err)
	}
	return nil
}

// reclaim gives the replica of a tenant's object, which the cache does not show, its labels back, if that is why it does not.
func (e *Engine) reclaim(ctx context.Context, t *tenants.Tenant, w *kindState, key resource.Key, of resource.Object) error {
	want, existing := w.New(), w.New()
	want.SetLabels(map[string]string{names.LabelTenant: string(key.Tenant), names.LabelManagedBy: names.Syncer})
	annotations := map[string]string{names.AnnotationNamespace: key.Namespace, names.AnnotationUID: string(of.GetUID())}
	namespace, name := superName(w.Kind, key.Tenant, resource.Ref{Kind: w.Name, Namespace: key.Namespace, Name: key.Name})
	if name != key.Name {
		annotations[names.AnnotationName] = key.Name
	}
	want.SetAnnotations(annotations)
	if err := e.superFor(t).Get(ctx, namespace, name, existing); err != nil || !stripped(existing, want) {
		return err
	}
	return e.relabel(ctx, t, existing)
}
