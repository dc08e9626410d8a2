package engine

import (
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// To bind a pod in a namespace that ends is refused. That is no fault, and it is over when the namespace is.
func TestNamespacesOfTenantsThatEnd(t *testing.T) {
	ending := apierrors.NewForbidden(corev1.Resource("pods"), "p", errors.New("the namespace is being terminated"))
	ending.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}
	for name, tc := range map[string]struct {
		err   error
		waits bool
	}{
		"Ending":    {ending, true},
		"Forbidden": {apierrors.NewForbidden(corev1.Resource("pods"), "p", errors.New("a policy")), false},
		"Broken":    {errors.New("connection refused"), false},
	} {
		key := resource.Key{Tenant: "t", Namespace: "shop", Name: "p"}
		err := tenantError(&kindState{Kind: resource.Kind{Name: "pods"}}, key, resource.Op{Verb: resource.Bind}, tc.err)
		if _, waits := resource.AsWait(err); waits != tc.waits || !waits && !errors.Is(err, tc.err) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// What a tenant's own API server refuses waits, and the tenant is told why. What only failed is tried again.
func TestRefusalsOfTenants(t *testing.T) {
	services := corev1.Resource("services")
	for name, tc := range map[string]struct {
		err  error
		told string
	}{
		"Policy":      {apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Service").GroupKind(), "web", nil), "is invalid"},
		"Webhook":     {apierrors.NewForbidden(services, "web", errors.New("we do not want that")), "we do not want that"},
		"Broken":      {apierrors.NewInternalError(errors.New("failed calling webhook")), "failed calling webhook"},
		"Full":        {apierrors.NewInternalError(errors.New("range is full")), "range is full"},
		"Conflict":    {apierrors.NewConflict(services, "web", errors.New("it has changed")), ""},
		"Unreachable": {errors.New("connection refused"), ""},
		"Slow":        {apierrors.NewTimeoutError("slow", 1), ""},
	} {
		op := resource.Op{Verb: resource.Patch, IfRefused: &resource.Reject{Reason: "ReaddressingFailed", Message: "It has no address"}}
		key := resource.Key{Tenant: "t", Namespace: "shop", Name: "web"}
		err := tenantError(&kindState{Kind: resource.Kind{Name: "services"}}, key, op, tc.err)
		wait, waits := resource.AsWait(err)
		switch {
		case waits != (tc.told != ""), !waits && !errors.Is(err, tc.err):
			t.Errorf("%s: got %v", name, err)
		case waits && (wait.Notice().Reason != "ReaddressingFailed" || !strings.HasPrefix(wait.Notice().Message, "It has no address: ") || !strings.Contains(wait.Notice().Message, tc.told)):
			t.Errorf("%s: the tenant is told %v", name, wait.Notice())
		}
	}
}
