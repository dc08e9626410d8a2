package vnagent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// lookupTimeout bounds each read of the super cluster before a call is let through.
const lookupTimeout = 5 * time.Second

// owner proves that a pod belongs to a tenant. It reads live: a call is rare, and a stale answer would let a tenant
// reach what is no longer its own.
type owner struct {
	super    kubernetes.Interface
	nodeName string
}

// superNamespace returns the super namespace of the pod that the call is about, after having checked that namespace and
// pod were made for the tenant and that the pod is on this node. A *RequestError is for the tenant; any other error is
// for the log.
func (o *owner) superNamespace(ctx context.Context, tenant names.TenantID, call Call) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	missing := &RequestError{Code: http.StatusNotFound, Message: fmt.Sprintf("pod %q does not exist", call.Pod)}

	name := names.SuperNamespace(tenant, call.Namespace)
	namespace, err := o.super.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return "", missing
	}
	if err != nil {
		return "", fmt.Errorf("getting super namespace %s: %w", name, err)
	}
	if originOf(namespace) != (origin{tenant: tenant, namespace: call.Namespace}) {
		return "", missing
	}

	pod, err := o.super.CoreV1().Pods(name).Get(ctx, call.Pod, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return "", missing
	}
	if err != nil {
		return "", fmt.Errorf("getting super pod %s/%s: %w", name, call.Pod, err)
	}
	ours := pod.Labels[names.LabelTenant] == string(tenant) && pod.Spec.NodeName == o.nodeName
	if !ours || (call.UID != "" && call.UID != pod.Annotations[names.AnnotationUID]) {
		return "", missing
	}
	return name, nil
}

// forTenant returns what the tenant is told about an error.
func forTenant(err error) *RequestError {
	if refusal, ok := errors.AsType[*RequestError](err); ok {
		return refusal
	}
	return &RequestError{Code: http.StatusServiceUnavailable, Message: messageUnavailable}
}
