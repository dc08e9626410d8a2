package dedicated

import (
	"context"
	"fmt"
	"net"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtualcluster-io/virtualcluster/controllers/apply"
	"github.com/virtualcluster-io/virtualcluster/controllers/provision"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// introduce tells vn-agents which API server stands behind the tokens of the tenant's service accounts. It goes with the
// root namespace, which owns it.
func (p *Provisioner) introduce(ctx context.Context, tenant *provision.Tenant, l layout, certs *certificates) error {
	_, err := apply.Object(ctx, p.Client, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:       p.Trust.Namespace,
			Name:            names.VNAgentTenantConfigMap(certs.signingKeyID),
			Labels:          l.labels,
			Annotations:     l.annotations,
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Namespace", Name: l.namespace, UID: tenant.RootUID}},
		},
		Data: map[string]string{
			names.VNAgentTenantKey:   string(tenant.ID),
			names.VNAgentServerKey:   internalURL(l.namespace),
			names.VNAgentAddressKey:  net.JoinHostPort(l.apiServerIP, fmt.Sprint(apiServerServicePort)),
			names.VNAgentServerCAKey: string(certs.clusterCA.Certificate),
		},
	})
	return err
}
