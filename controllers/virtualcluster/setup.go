package virtualcluster

import (
	"context"
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

const (
	// firstRetry and lastRetry bound the backoff after plain errors.
	firstRetry = 500 * time.Millisecond
	lastRetry  = time.Minute
)

//+kubebuilder:rbac:groups=tenancy.x-k8s.io,resources=virtualclusters,verbs=get;list;watch;patch
//+kubebuilder:rbac:groups=tenancy.x-k8s.io,resources=virtualclusters/status,verbs=patch
//+kubebuilder:rbac:groups=tenancy.x-k8s.io,resources=virtualclusters/finalizers,verbs=update
//+kubebuilder:rbac:groups=tenancy.x-k8s.io,resources=clusterversions,verbs=get;list;watch;patch
//+kubebuilder:rbac:groups="",resources=namespaces,verbs=get;list;watch;create;patch;delete
//+kubebuilder:rbac:groups="",resources=secrets,verbs=get;list;watch;create;update;patch
//+kubebuilder:rbac:groups="",resources=services,verbs=get;list;watch;create;patch;delete
//+kubebuilder:rbac:groups="",resources=configmaps,verbs=get;list;watch;create;patch
//+kubebuilder:rbac:groups="",resources=pods;nodes,verbs=get;list;watch
//+kubebuilder:rbac:groups="",resources=persistentvolumes,verbs=get;list;patch
//+kubebuilder:rbac:groups="",resources=persistentvolumeclaims,verbs=list;delete
//+kubebuilder:rbac:groups=apps,resources=statefulsets,verbs=get;list;watch;create;patch;delete
//+kubebuilder:rbac:groups=policy,resources=poddisruptionbudgets,verbs=get;list;watch;create;patch
//+kubebuilder:rbac:groups=networking.k8s.io,resources=servicecidrs,verbs=get;list;watch;create;delete
//+kubebuilder:rbac:groups=networking.k8s.io,resources=ipaddresses,verbs=get
//+kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch
//+kubebuilder:rbac:groups="",resources=events,verbs=list

// Setup adds the reconciler to a manager. References is a cache of the metadata of Secrets that are not ours, because
// External control planes refer to such; claims is one of the Services that claim ranges of cluster IPs.
func (r *Reconciler) Setup(mgr ctrl.Manager, references, claims cache.Cache, workers int) error {
	owner := handler.EnqueueRequestsFromMapFunc(ownerOf)
	ranges := handler.TypedEnqueueRequestsFromMapFunc(r.serviceRangesChanged)
	secret := &metav1.PartialObjectMetadata{}
	secret.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Secret"))
	watching := ctrl.NewControllerManagedBy(mgr).
		Named("virtualcluster").
		// Status changes are ours or the syncer's; neither is a reason to reconcile.
		For(&tenancyv1alpha1.VirtualCluster{}, builder.WithPredicates(predicate.Or(predicate.GenerationChangedPredicate{}, identityCleared()))).
		Watches(&corev1.Namespace{}, owner).
		Watches(&corev1.Secret{}, owner).
		Watches(&corev1.Service{}, owner).
		Watches(&corev1.Pod{}, owner).
		Watches(&corev1.ConfigMap{}, owner).
		Watches(&appsv1.StatefulSet{}, owner).
		Watches(&tenancyv1alpha1.VirtualCluster{}, ranges, builder.WithPredicates(deleted())).
		Watches(&tenancyv1alpha1.ClusterVersion{}, handler.EnqueueRequestsFromMapFunc(r.versionChanged)).
		Watches(&corev1.Node{}, handler.EnqueueRequestsFromMapFunc(r.nodeChanged), builder.WithPredicates(nodeMoved())).
		WatchesRawSource(source.Kind(references, secret, handler.TypedEnqueueRequestsFromMapFunc(r.referredTo))).
		WatchesRawSource(source.Kind[client.Object](claims, &corev1.Service{}, owner, claimChanged())).
		WatchesRawSource(source.Kind[client.Object](claims, &corev1.Service{}, ranges, deleted())).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: workers,
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](firstRetry, lastRetry),
		})
	// Kubernetes has the API since 1.33.
	_, err := mgr.GetRESTMapper().RESTMapping(networkingv1.SchemeGroupVersion.WithKind("ServiceCIDR").GroupKind(), networkingv1.SchemeGroupVersion.Version)
	switch {
	case err == nil:
		watching = watching.Watches(&networkingv1.ServiceCIDR{}, ranges)
	case !apimeta.IsNoMatchError(err):
		return fmt.Errorf("asking whether the super cluster has ServiceCIDRs: %w", err)
	}
	return watching.Complete(r)
}

// ownerOf returns the VirtualCluster that an object was made for.
func ownerOf(_ context.Context, object client.Object) []reconcile.Request {
	namespace, name, ok := strings.Cut(object.GetAnnotations()[names.AnnotationVirtualCluster], "/")
	if !ok {
		return nil
	}
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: namespace, Name: name}}}
}

// serviceRangesChanged returns the owner of what claims a range, and every VirtualCluster that waits for a range. A range of the
// super cluster itself concerns all, and any range those that share them.
func (r *Reconciler) serviceRangesChanged(ctx context.Context, object client.Object) []reconcile.Request {
	_, isRange := object.(*networkingv1.ServiceCIDR)
	ofSuper := isRange && object.GetLabels()[names.LabelTenant] == ""
	waiting := r.matching(ctx, func(vc *tenancyv1alpha1.VirtualCluster) bool {
		return ofSuper || isRange && vc.Status.ServiceAddresses != nil || apimeta.IsStatusConditionFalse(vc.Status.Conditions, tenancyv1alpha1.ConditionServiceCIDRAllocated)
	})
	return append(waiting, ownerOf(ctx, object)...)
}

// versionChanged returns the VirtualClusters that run a ClusterVersion, or could run it because it is the default.
func (r *Reconciler) versionChanged(ctx context.Context, object client.Object) []reconcile.Request {
	return r.matching(ctx, func(vc *tenancyv1alpha1.VirtualCluster) bool {
		switch {
		case controlPlaneType(vc) == tenancyv1alpha1.External:
			return false
		case vc.Spec.ClusterVersionName != "":
			return vc.Spec.ClusterVersionName == object.GetName()
		default:
			return vc.Status.ClusterVersionName == "" || vc.Status.ClusterVersionName == object.GetName()
		}
	})
}

// nodeChanged returns the VirtualClusters that are reached by a port of every node.
func (r *Reconciler) nodeChanged(ctx context.Context, _ client.Object) []reconcile.Request {
	return r.matching(ctx, func(vc *tenancyv1alpha1.VirtualCluster) bool {
		exposure := vc.Spec.ControlPlane.Exposure.Type
		return controlPlaneType(vc) == tenancyv1alpha1.Dedicated && (exposure == "" || exposure == tenancyv1alpha1.ExposeNodePort)
	})
}

// referredTo returns the VirtualClusters whose kubeconfig is in a Secret; all, when it may have credentials for images.
func (r *Reconciler) referredTo(ctx context.Context, secret *metav1.PartialObjectMetadata) []reconcile.Request {
	if r.pullsImages(ctx, secret) {
		return r.matching(ctx, func(*tenancyv1alpha1.VirtualCluster) bool { return true })
	}
	return r.matching(ctx, func(vc *tenancyv1alpha1.VirtualCluster) bool {
		external := vc.Spec.ControlPlane.External
		return external != nil && vc.Namespace == secret.Namespace && external.KubeconfigSecret.Name == secret.Name
	})
}

// matching returns requests for the VirtualClusters that a function chooses.
func (r *Reconciler) matching(ctx context.Context, choose func(*tenancyv1alpha1.VirtualCluster) bool) []reconcile.Request {
	var list tenancyv1alpha1.VirtualClusterList
	if err := r.Client.List(ctx, &list); err != nil {
		log.FromContext(ctx).Error(err, "Cannot list VirtualClusters")
		return nil
	}
	var requests []reconcile.Request
	for i := range list.Items {
		if choose(&list.Items[i]) {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
	}
	return requests
}

// identityCleared lets through the one change of the status that a person makes: accepting a control plane that lost its
// identity.
func identityCleared() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, ok := e.ObjectOld.(*tenancyv1alpha1.VirtualCluster)
		after, ok2 := e.ObjectNew.(*tenancyv1alpha1.VirtualCluster)
		return ok && ok2 && before.Status.ControlPlaneUID != "" && after.Status.ControlPlaneUID == ""
	}}
}

// claimChanged lets through changes of what a Service claims. The tenant changes the rest as often as it likes.
func claimChanged() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, ok := e.ObjectOld.(*corev1.Service)
		after, ok2 := e.ObjectNew.(*corev1.Service)
		return !ok || !ok2 || before.Spec.ClusterIP != after.Spec.ClusterIP ||
			before.Annotations[names.AnnotationServiceRange] != after.Annotations[names.AnnotationServiceRange] ||
			before.DeletionTimestamp.IsZero() != after.DeletionTimestamp.IsZero()
	}}
}

// deleted lets through that an object is gone.
func deleted() predicate.Predicate {
	never := func(event.UpdateEvent) bool { return false }
	return predicate.Funcs{CreateFunc: func(event.CreateEvent) bool { return false }, UpdateFunc: never}
}

// nodeMoved lets through changes of what endpoints and certificates are made from. Heartbeats are not among them.
func nodeMoved() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, ok := e.ObjectOld.(*corev1.Node)
		after, ok2 := e.ObjectNew.(*corev1.Node)
		return !ok || !ok2 ||
			!equality.Semantic.DeepEqual(before.Status.Addresses, after.Status.Addresses) ||
			readiness(before) != readiness(after)
	}}
}

func readiness(node *corev1.Node) corev1.ConditionStatus {
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			return condition.Status
		}
	}
	return corev1.ConditionUnknown
}
