package virtualcluster

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtualcluster-io/virtualcluster/controllers/apply"
	"github.com/virtualcluster-io/virtualcluster/controllers/progress"
	"github.com/virtualcluster-io/virtualcluster/controllers/provision"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// Reasons for which there is no root namespace.
const (
	reasonNamespaceTaken       = "NamespaceTaken"
	reasonNamespaceTerminating = "NamespaceTerminating"
)

// ensureNamespace makes the tenant's root namespace. A namespace of that name that is not ours is left alone.
func (r *Reconciler) ensureNamespace(ctx context.Context, tenant *provision.Tenant) (string, error) {
	desired := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name:        string(tenant.ID),
		Labels:      tenant.Labels(),
		Annotations: tenant.Annotations(),
	}}
	desired.Labels[names.LabelRoot] = "true"

	existing := &corev1.Namespace{}
	err := r.Client.Get(ctx, client.ObjectKeyFromObject(desired), existing)
	if apierrors.IsNotFound(err) {
		existing = desired.DeepCopy()
		err = r.Client.Create(ctx, existing, client.FieldOwner(names.Manager))
		if apierrors.IsAlreadyExists(err) {
			// The cache only has namespaces of tenants, and it may be behind.
			err = r.Live.Get(ctx, client.ObjectKeyFromObject(desired), existing)
		}
	}
	if err != nil {
		return "", fmt.Errorf("creating namespace %s: %w", desired.Name, err)
	}
	if !owned(existing, tenant) {
		return "", &progress.Stall{
			Reason:  reasonNamespaceTaken,
			Message: fmt.Sprintf("namespace %s exists and was not made for this VirtualCluster; delete it, or create the VirtualCluster under another name", desired.Name),
		}
	}
	if existing.DeletionTimestamp != nil {
		return "", &progress.Wait{
			Reason:  reasonNamespaceTerminating,
			Message: fmt.Sprintf("namespace %s is being deleted by somebody; it is made again when it is gone", desired.Name),
		}
	}
	tenant.VirtualCluster.Status.ClusterNamespace, tenant.RootUID = desired.Name, existing.UID
	if _, err := apply.Object(ctx, r.Client, desired); err != nil {
		return "", err
	}
	return fmt.Sprintf("namespace %s exists", desired.Name), nil
}

// owned says whether an object was made for this VirtualCluster and not for an earlier one of the same name.
func owned(object client.Object, tenant *provision.Tenant) bool {
	return object.GetAnnotations()[names.AnnotationVirtualClusterUID] == string(tenant.VirtualCluster.UID)
}
