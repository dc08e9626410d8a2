package syncer_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

// A tenant cannot make webhooks and controllers of the super cluster act for it; its selectors keep their meaning.
func TestControllersOfTheSuperClusterSeeNoInstructions(t *testing.T) {
	const namespace, role, identity, internal = "steering", "eks.amazonaws.com/role-arn", "azure.workload.identity/use", "service.beta.kubernetes.io/aws-load-balancer-internal"
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, namespace)
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "web", Annotations: map[string]string{role: "admin"}, Labels: map[string]string{identity: "true"}}}
	if _, err := of.CoreV1().ServiceAccounts(namespace).Create(t.Context(), account, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	service := worlds.Service(namespace, "web")
	service.Spec.Type, service.Spec.Selector = corev1.ServiceTypeLoadBalancer, map[string]string{identity: "true"}
	service.Annotations = map[string]string{internal: "true"}
	if _, err := of.CoreV1().Services(namespace).Create(t.Context(), service, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pod := worlds.Pod(namespace, "web")
	pod.Spec.ServiceAccountName = "web"
	pod.Labels[identity], pod.Annotations = "true", map[string]string{"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}
	of.world.MakePod(t, pod)

	super := r.superPod(t, of, namespace, "web")
	waitForEvent(t, of, namespace, "web", "AnnotationNotAllowed")
	replica, at := &corev1.Service{}, client.ObjectKey{Namespace: of.super(namespace), Name: "web"}
	if err := r.client.Get(t.Context(), at, replica); err != nil {
		t.Fatal(err)
	}
	if replica.Spec.Type == corev1.ServiceTypeLoadBalancer || !labels.SelectorFromSet(replica.Spec.Selector).Matches(labels.Set(super.Labels)) {
		t.Errorf("the service is a %s that selects %v, and the pod has %v", replica.Spec.Type, replica.Spec.Selector, super.Labels)
	}
	free := func(o client.Object) error {
		for _, key := range []string{role, identity, internal, "cluster-autoscaler.kubernetes.io/safe-to-evict"} {
			if _, in := o.GetLabels()[key]; in || o.GetAnnotations()[key] != "" {
				return fmt.Errorf("%T has %s", o, key)
			}
		}
		return nil
	}
	identityOf := &corev1.ServiceAccount{}
	if err := errors.Join(r.client.Get(t.Context(), at, identityOf), free(identityOf), free(super), free(replica)); err != nil {
		t.Error(err)
	}

	// A replica that an older version made loses what the version let pass.
	older := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:"admin",%q:%q}}}`, role, names.AnnotationKeys, "a:"+role)
	if err := r.client.Patch(t.Context(), identityOf, client.RawPatch(types.MergePatchType, older)); err != nil {
		t.Fatal(err)
	}
	worlds.Eventually(t, limit, "the annotation of an older version to go", func(ctx context.Context) error {
		if err := r.client.Get(ctx, at, identityOf); err != nil {
			return err
		}
		return free(identityOf)
	})
}
