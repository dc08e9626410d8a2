package dedicated

import (
	"context"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtualcluster-io/virtualcluster/controllers/progress"
	"github.com/virtualcluster-io/virtualcluster/controllers/provision"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// reasonStopping is the reason while pods of the control plane terminate.
const reasonStopping = "Stopping"

// Stop implements provision.Provisioner. Deleting the namespace would do all this too, but Kubernetes then looks again
// only after the longest grace period of a pod in it, and a control plane stops much faster. etcd goes last: without it,
// kube-apiserver uses up its grace period.
func (p *Provisioner) Stop(ctx context.Context, tenant *provision.Tenant) error {
	inRoot := client.InNamespace(string(tenant.ID))
	var sets appsv1.StatefulSetList
	if err := p.Live.List(ctx, &sets, inRoot); err != nil {
		return fmt.Errorf("listing StatefulSets: %w", err)
	}
	var pods corev1.PodList
	if err := p.Live.List(ctx, &pods, inRoot); err != nil {
		return fmt.Errorf("listing pods: %w", err)
	}
	first := slices.DeleteFunc(slices.Clone(sets.Items), func(set appsv1.StatefulSet) bool { return set.Name == names.Etcd })
	others := slices.ContainsFunc(pods.Items, func(pod corev1.Pod) bool { return pod.Labels[names.LabelComponent] != names.Etcd })
	if len(first) == 0 && !others {
		first = sets.Items
	}
	for i := range first {
		if err := p.remove(ctx, &first[i]); err != nil {
			return err
		}
	}
	if len(sets.Items) > 0 || len(pods.Items) > 0 {
		return &progress.Wait{Reason: reasonStopping, Message: "waiting for the control plane to stop"}
	}
	var claims corev1.PersistentVolumeClaimList
	if err := p.Live.List(ctx, &claims, inRoot); err != nil {
		return fmt.Errorf("listing claims: %w", err)
	}
	for i := range claims.Items {
		if err := p.remove(ctx, &claims.Items[i]); err != nil {
			return err
		}
	}
	return nil
}

// remove deletes an object, and in the background what belongs to it.
func (p *Provisioner) remove(ctx context.Context, object client.Object) error {
	if object.GetDeletionTimestamp() != nil {
		return nil
	}
	uid := object.GetUID()
	err := p.Client.Delete(ctx, object, client.Preconditions{UID: &uid}, client.PropagationPolicy(metav1.DeletePropagationBackground))
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("deleting %s: %w", object.GetName(), err)
	}
	return nil
}
