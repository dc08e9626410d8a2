// Package trust keeps the two certificate authorities by which tenants' kube-apiservers and vn-agents know each other.
// Both live in the namespace of vc-manager, where no tenant can reach, and are not part of any tenant's own PKI. The
// provisioner asks for client certificates, the nodecert controller for serving certificates.
package trust

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtualcluster-io/virtualcluster/controllers/apply"
	"github.com/virtualcluster-io/virtualcluster/controllers/keystore"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/internal/pki"
)

// Authorities are the certificate authorities of vn-agent.
type Authorities struct {
	// Client reads from a cache and writes; Live reads from the API server.
	Client client.Client
	Live   client.Reader
	// Namespace of vc-manager.
	Namespace string
}

// ClientCA signs one client certificate for each tenant.
func (a *Authorities) ClientCA(ctx context.Context, now time.Time) (*pki.Authority, error) {
	return a.store(now).Authority(ctx, names.VNAgentClientCASecret, "vn-agent-client-ca")
}

// ServingCA signs the serving certificates of vn-agents.
func (a *Authorities) ServingCA(ctx context.Context, now time.Time) (*pki.Authority, error) {
	return a.store(now).Authority(ctx, names.VNAgentServingCASecret, "vn-agent-serving-ca")
}

// Publish makes both authorities, when they are not there, and writes their certificates where vn-agents read them.
func (a *Authorities) Publish(ctx context.Context, now time.Time) error {
	clientCA, err := a.ClientCA(ctx, now)
	if err != nil {
		return err
	}
	servingCA, err := a.ServingCA(ctx, now)
	if err != nil {
		return err
	}
	_, err = apply.Object(ctx, a.Client, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: a.Namespace, Name: names.VNAgentTrustConfigMap, Labels: labels()},
		Data: map[string]string{
			names.VNAgentClientCAKey:  string(clientCA.Certificate),
			names.VNAgentServingCAKey: string(servingCA.Certificate),
		},
	})
	return err
}

func (a *Authorities) store(now time.Time) *keystore.Store {
	return &keystore.Store{Client: a.Client, Live: a.Live, Namespace: a.Namespace, Labels: labels(), Now: now}
}

func labels() map[string]string { return map[string]string{names.LabelManagedBy: names.Manager} }
