package virtualcluster

import (
	"context"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/controllers/provision"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// Finalizers of the retired project, in kubernetes-sigs/cluster-api-provider-nested, virtualcluster/pkg/controller/controllers.
// That of a VirtualCluster ends in the name of a provisioner: native, aliyun or capi. Nobody removes them when the retired
// vc-manager does not run any more.
const (
	retiredFinalizerPrefix         = "virtualcluster.finalizer."
	retiredClusterVersionFinalizer = "clusterVersion.finalizers"
)

// reasonTakenOver is the reason of the event on a VirtualCluster that the retired project had made.
const reasonTakenOver = "TakenOver"

// takeOver makes a VirtualCluster of the retired project one of ours: its finalizer goes, so that it can be deleted, and so does
// its status, whose conditions have no type and would be refused in every later write. What the retired project made for it is
// left alone, because it is not known whether somebody still needs it.
func (r *Reconciler) takeOver(ctx context.Context, tenant *provision.Tenant) error {
	vc := tenant.VirtualCluster
	finalizer := retiredFinalizer(vc)
	if finalizer == "" && !slices.ContainsFunc(vc.Status.Conditions, typeless) {
		return nil
	}
	old := vc.Status.ClusterNamespace
	// First the status: the API server validates the whole object when the finalizers are written.
	empty := fmt.Appendf(nil, `{"metadata":{"resourceVersion":%q},"status":null}`, vc.ResourceVersion)
	if err := r.Client.Status().Patch(ctx, vc, client.RawPatch(types.MergePatchType, empty), client.FieldOwner(names.Manager)); err != nil {
		return fmt.Errorf("clearing the status of the retired project: %w", err)
	}
	if finalizer != "" {
		base := vc.DeepCopy()
		controllerutil.RemoveFinalizer(vc, finalizer)
		if err := patch(ctx, r.Client, vc, base); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("removing the finalizer of the retired project: %w", err)
		}
	}
	message := "Took the VirtualCluster over from the retired project"
	if old != "" {
		message += fmt.Sprintf("; what it made in namespace %s, and in those whose names begin with %s-, is left for you to delete", old, old)
	}
	tenant.Event("Normal", reasonTakenOver, message)
	return nil
}

// retiredFinalizer returns the finalizer of the retired project, or nothing.
func retiredFinalizer(vc *tenancyv1alpha1.VirtualCluster) string {
	i := slices.IndexFunc(vc.Finalizers, func(f string) bool { return strings.HasPrefix(f, retiredFinalizerPrefix) })
	if i < 0 {
		return ""
	}
	return vc.Finalizers[i]
}

// typeless says whether a condition is one of the retired project.
func typeless(c metav1.Condition) bool { return c.Type == "" }

// RetiredVersions lets ClusterVersions go that the retired project had taken hold of. Its finalizer guards nothing.
type RetiredVersions struct {
	// Client reads from a cache and writes.
	Client client.Client
}

// Setup adds the reconciler to a manager.
func (r *RetiredVersions) Setup(mgr ctrl.Manager) error {
	held := predicate.NewPredicateFuncs(func(object client.Object) bool {
		return controllerutil.ContainsFinalizer(object, retiredClusterVersionFinalizer)
	})
	return ctrl.NewControllerManagedBy(mgr).
		Named("retired-clusterversion").
		For(&tenancyv1alpha1.ClusterVersion{}, builder.WithPredicates(held)).
		Complete(r)
}

// Reconcile implements reconcile.Reconciler.
func (r *RetiredVersions) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	version := &tenancyv1alpha1.ClusterVersion{}
	if err := r.Client.Get(ctx, request.NamespacedName, version); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	base := version.DeepCopy()
	if !controllerutil.RemoveFinalizer(version, retiredClusterVersionFinalizer) {
		return ctrl.Result{}, nil
	}
	return requeueOnConflict(patch(ctx, r.Client, version, base))
}
