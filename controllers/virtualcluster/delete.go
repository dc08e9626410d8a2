package virtualcluster

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtualcluster-io/virtualcluster/controllers/progress"
	"github.com/virtualcluster-io/virtualcluster/controllers/provision"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

const (
	// deletingDelay is when to look again at what no watch tells of.
	deletingDelay = time.Second
	// rangePatience is how long to wait for a ServiceCIDR to disappear. It stays while Services of others have addresses
	// from it, and disappears by itself when they are gone.
	rangePatience = 30 * time.Second
)

// delete removes everything made for the tenant in the super cluster, in an order in which nothing is needed any more
// by what is still there: the tenant's namespaces, the control plane, the service range, volumes. Every step looks at
// what is really there, so that it does not matter where an earlier attempt stopped. The syncer is not needed: it stops
// serving a tenant whose VirtualCluster is being deleted.
func (r *Reconciler) delete(ctx context.Context, tenant *provision.Tenant) error {
	namespaces, err := r.namespaces(ctx, tenant)
	if err != nil {
		return err
	}
	if err := r.adoptVolumes(ctx, tenant, namespaces); err != nil {
		return err
	}
	isRoot := func(namespace corev1.Namespace) bool { return namespace.Name == string(tenant.ID) }
	ordinary := slices.DeleteFunc(slices.Clone(namespaces), isRoot)
	if err := r.deleteNamespaces(ctx, ordinary); err != nil {
		return err
	}
	ranges, err := r.CIDRs.Release(ctx, tenant.ID)
	if err != nil {
		return err
	}
	if len(namespaces) > 0 {
		if err := r.stop(ctx, tenant); err != nil {
			return err
		}
	}
	root := slices.DeleteFunc(namespaces, func(namespace corev1.Namespace) bool { return !isRoot(namespace) })
	if err := r.deleteNamespaces(ctx, root); err != nil {
		return err
	}
	for i := range ranges {
		object := &ranges[i]
		if object.DeletionTimestamp == nil || tenant.Now.Sub(object.DeletionTimestamp.Time) < rangePatience {
			return &progress.Wait{Reason: reasonDeleting, Message: fmt.Sprintf("waiting for ServiceCIDR %s to be gone", object.Name), After: deletingDelay}
		}
		tenant.Event("Warning", "ServiceCIDRInUse", fmt.Sprintf("ServiceCIDR %s disappears when the last Service of the super cluster with an address from it does", object.Name))
	}
	return r.awaitVolumes(ctx, tenant)
}

// stop stops the control plane.
func (r *Reconciler) stop(ctx context.Context, tenant *provision.Tenant) error {
	provisioner, err := r.provisioner(tenant)
	if err != nil {
		return err
	}
	return provisioner.Stop(ctx, tenant)
}

// namespaces returns the super namespaces that were made for the tenant.
func (r *Reconciler) namespaces(ctx context.Context, tenant *provision.Tenant) ([]corev1.Namespace, error) {
	var list corev1.NamespaceList
	// Read from the API server: a cache that is behind could hide one that was made a moment ago.
	if err := r.Live.List(ctx, &list, client.MatchingLabels{names.LabelTenant: string(tenant.ID)}); err != nil {
		return nil, fmt.Errorf("listing the tenant's namespaces: %w", err)
	}
	foreign := func(namespace corev1.Namespace) bool { return !owned(&namespace, tenant) }
	slices.SortFunc(list.Items, func(a, b corev1.Namespace) int { return cmp.Compare(a.Name, b.Name) })
	return slices.DeleteFunc(list.Items, foreign), nil
}

// deleteNamespaces deletes namespaces and waits, by watch, until they are gone.
func (r *Reconciler) deleteNamespaces(ctx context.Context, namespaces []corev1.Namespace) error {
	if len(namespaces) == 0 {
		return nil
	}
	var left []string
	for i := range namespaces {
		namespace := &namespaces[i]
		left = append(left, describe(namespace))
		if namespace.DeletionTimestamp != nil {
			continue
		}
		if err := r.Client.Delete(ctx, namespace, client.Preconditions{UID: &namespace.UID}); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("deleting namespace %s: %w", namespace.Name, err)
		}
	}
	return &progress.Wait{Reason: reasonDeleting, Message: "waiting for these namespaces to be gone: " + strings.Join(left, ", ")}
}

// describe names a namespace and, if it does not go away by itself, what is in the way.
func describe(namespace *corev1.Namespace) string {
	for _, condition := range namespace.Status.Conditions {
		if condition.Type == corev1.NamespaceFinalizersRemaining && condition.Status == corev1.ConditionTrue {
			return fmt.Sprintf("%s (%s)", namespace.Name, condition.Message)
		}
	}
	return namespace.Name
}

// adoptVolumes labels the volumes that are bound in the tenant's namespaces, as long as these are there to tell.
func (r *Reconciler) adoptVolumes(ctx context.Context, tenant *provision.Tenant, namespaces []corev1.Namespace) error {
	mine := map[string]bool{}
	for i := range namespaces {
		if namespaces[i].DeletionTimestamp == nil {
			mine[namespaces[i].Name] = true
		}
	}
	if len(mine) == 0 {
		return nil
	}
	var list corev1.PersistentVolumeList
	if err := r.Live.List(ctx, &list); err != nil {
		return fmt.Errorf("listing volumes: %w", err)
	}
	for i := range list.Items {
		volume := &list.Items[i]
		if volume.Spec.ClaimRef == nil || !mine[volume.Spec.ClaimRef.Namespace] || volume.Labels[names.LabelTenant] == string(tenant.ID) {
			continue
		}
		base := volume.DeepCopy()
		if volume.Labels == nil {
			volume.Labels = map[string]string{}
		}
		volume.Labels[names.LabelTenant] = string(tenant.ID)
		if err := r.Client.Patch(ctx, volume, client.MergeFrom(base), client.FieldOwner(names.Manager)); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("labelling volume %s: %w", volume.Name, err)
		}
	}
	return nil
}

// awaitVolumes waits until the volumes that are deleted with their claims are gone. Those that are to be retained stay:
// somebody wanted their data kept.
func (r *Reconciler) awaitVolumes(ctx context.Context, tenant *provision.Tenant) error {
	var list corev1.PersistentVolumeList
	if err := r.Live.List(ctx, &list, client.MatchingLabels{names.LabelTenant: string(tenant.ID)}); err != nil {
		return fmt.Errorf("listing the tenant's volumes: %w", err)
	}
	var left []string
	for i := range list.Items {
		if list.Items[i].Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete {
			left = append(left, list.Items[i].Name)
		}
	}
	if len(left) == 0 {
		return nil
	}
	slices.Sort(left)
	return &progress.Wait{Reason: reasonDeleting, Message: "waiting for these volumes to be gone: " + strings.Join(left, ", "), After: deletingDelay}
}
