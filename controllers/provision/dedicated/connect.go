package dedicated

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtualcluster-io/virtualcluster/controllers/pki"
	"github.com/virtualcluster-io/virtualcluster/controllers/provision"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

const (
	// dialTimeout is for one connection, requestTimeout for a whole request to a tenant.
	dialTimeout    = 3 * time.Second
	requestTimeout = 10 * time.Second
)

// Connect implements provision.Provisioner. It reaches the control plane by the cluster IP of its Service, and by the
// external endpoint when vc-manager runs where cluster IPs lead nowhere.
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
	certificate, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	if err != nil {
		return nil, fmt.Errorf("loading the certificate of vc-manager: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.Certificate)

	service := &corev1.Service{}
	if err := p.Client.Get(ctx, client.ObjectKey{Namespace: string(tenant.ID), Name: names.APIServerService}, service); err != nil {
		return nil, fmt.Errorf("reading Service %s: %w", names.APIServerService, err)
	}
	candidates := []string{net.JoinHostPort(service.Spec.ClusterIP, fmt.Sprint(apiServerServicePort))}
	if external, err := url.Parse(tenant.VirtualCluster.Status.Endpoint); err == nil && external.Host != "" {
		candidates = append(candidates, external.Host)
	}
	return &provision.Connection{
		// The certificate is verified for this name, whichever way the connection takes.
		Host: internalURL(string(tenant.ID)),
		HTTP: &http.Client{
			Timeout: requestTimeout,
			Transport: &http.Transport{
				TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, Certificates: []tls.Certificate{certificate}},
				TLSHandshakeTimeout: dialTimeout,
				ForceAttemptHTTP2:   true,
				DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
					return dialFirst(ctx, network, candidates)
				},
			},
		},
	}, nil
}

// dialFirst connects to all addresses at once and returns the connection that is there first.
func dialFirst(ctx context.Context, network string, addresses []string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	type outcome struct {
		conn net.Conn
		err  error
	}
	// The channel has room for all, so that no goroutine outlives its dial.
	outcomes := make(chan outcome, len(addresses))
	for _, address := range addresses {
		go func() {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
			outcomes <- outcome{conn, err}
		}()
	}
	var errs []error
	for i := range addresses {
		o := <-outcomes
		if o.err != nil {
			errs = append(errs, o.err)
			continue
		}
		// The slower ones are closed as they come in.
		go func() {
			for range len(addresses) - i - 1 {
				if late := <-outcomes; late.conn != nil {
					_ = late.conn.Close()
				}
			}
		}()
		return o.conn, nil
	}
	return nil, errors.Join(errs...)
}
