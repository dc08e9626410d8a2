package virtualcluster

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/controllers/apply"
	"github.com/virtualcluster-io/virtualcluster/controllers/provision"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// publishKubeletCA tells the tenant the CA of its kubelets, which are vn-agents, so that metrics-server and the like can
// verify them. An External control plane has no way to vn-agents.
func (r *Reconciler) publishKubeletCA(ctx context.Context, tenant *provision.Tenant) (string, error) {
	if controlPlaneType(tenant.VirtualCluster) == tenancyv1alpha1.External {
		return "", nil
	}
	ca, err := r.Trust.ServingCA(ctx, tenant.Now)
	if err != nil {
		return "", fmt.Errorf("reading the CA of vn-agents: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, tenantTimeout)
	defer cancel()
	c, err := r.connect(ctx, tenant)
	if err != nil {
		return "", err
	}
	_, err = apply.Object(ctx, c, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: names.KubeletServingCAConfigMap},
		Data:       map[string]string{names.KubeletServingCAKey: string(ca.Certificate)},
	})
	if err != nil {
		return "", unreachable(tenant, err)
	}
	return "", nil
}
