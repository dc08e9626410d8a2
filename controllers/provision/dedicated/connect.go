package dedicated

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtualcluster-io/virtualcluster/controllers/progress"
	"github.com/virtualcluster-io/virtualcluster/controllers/provision"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/internal/pki"
)

const (
	// dialTimeout is for one connection, requestTimeout for a whole request to a tenant.
	dialTimeout    = 3 * time.Second
	requestTimeout = 10 * time.Second
)

// reasonNoEndpoint is the reason when there is nothing to connect to.
const reasonNoEndpoint = "NoEndpoint"

// Connect implements provision.Provisioner. Inside the super cluster it takes the cluster IP of the Service, which needs
// no DNS. Outside, cluster IPs lead anywhere, so it takes the endpoint that other clients outside take.
func (p *Provisioner) Connect(ctx context.Context, tenant *provision.Tenant) (*provision.Connection, error) {
	store := p.store(tenant)
	ca, err := store.Authority(ctx, clusterCASecret, "kubernetes")
	if err != nil {
		return nil, err
	}
	pair, err := ca.Issue(pki.Request{
		CommonName:    names.Manager,
		Organizations: []string{adminsGroup},
		Usages:        []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		Lifetime:      managerLifetime,
	}, tenant.Now)
	if err != nil {
		return nil, err
	}
	address, err := p.address(ctx, tenant)
	if err != nil {
		return nil, err
	}
	return provision.Connect(&rest.Config{
		// The certificate is verified for this name, whichever way the connection takes.
		Host:            internalURL(string(tenant.ID)),
		TLSClientConfig: rest.TLSClientConfig{CAData: ca.Certificate, CertData: pair.Certificate, KeyData: pair.Key},
		Timeout:         requestTimeout,
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, network, address)
		},
	})
}

// address returns the host and port to connect to.
func (p *Provisioner) address(ctx context.Context, tenant *provision.Tenant) (string, error) {
	if p.InCluster {
		service := &corev1.Service{}
		if err := p.Client.Get(ctx, client.ObjectKey{Namespace: string(tenant.ID), Name: names.APIServerService}, service); err != nil {
			return "", fmt.Errorf("reading Service %s: %w", names.APIServerService, err)
		}
		return net.JoinHostPort(service.Spec.ClusterIP, fmt.Sprint(apiServerServicePort)), nil
	}
	endpoint, err := url.Parse(tenant.VirtualCluster.Status.Endpoint)
	if err != nil || endpoint.Host == "" {
		return "", &progress.Wait{Reason: reasonNoEndpoint, Message: "the control plane has no endpoint yet"}
	}
	return endpoint.Host, nil
}
