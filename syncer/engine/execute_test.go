package engine

import (
	"errors"
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
