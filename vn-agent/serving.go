package vnagent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/certificate"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

const (
	// servingLifetime is asked for; the signer may give another. The certificate is renewed after about 80 % of it.
	servingLifetime = 30 * 24 * time.Hour
	// addressPeriod is how often the node's addresses are read, because they are part of the certificate.
	addressPeriod = 5 * time.Minute
	// addressRetry is how soon they are read again after a failure.
	addressRetry = 2 * time.Second
)

// requestServing starts asking for a serving certificate by CertificateSigningRequests and returns how to get the current
// one, nil until the first was issued. The key never leaves the process. It stops when the context ends.
func requestServing(ctx context.Context, super kubernetes.Interface, nodeName string) (func() *tls.Certificate, error) {
	template := &atomic.Pointer[x509.CertificateRequest]{}
	lifetime := servingLifetime
	manager, err := certificate.NewManager(&certificate.Config{
		Name:                         "serving-certificate",
		Ctx:                          &ctx,
		ClientsetFn:                  func(*tls.Certificate) (kubernetes.Interface, error) { return super, nil },
		GetTemplate:                  template.Load,
		SignerName:                   names.VNAgentSigner,
		RequestedCertificateLifetime: &lifetime,
		Usages:                       []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageServerAuth},
		CertificateStore:             memoryStore{},
	})
	if err != nil {
		return nil, fmt.Errorf("preparing certificate requests: %w", err)
	}
	go followAddresses(ctx, super, nodeName, template)
	manager.Start()
	return manager.Current, nil
}

// followAddresses keeps the template up to date with the node until the context ends.
func followAddresses(ctx context.Context, super kubernetes.Interface, nodeName string, template *atomic.Pointer[x509.CertificateRequest]) {
	for {
		pause := addressPeriod
		if request, err := readTemplate(ctx, super, nodeName); err != nil {
			logr.FromContextOrDiscard(ctx).Error(err, "The addresses of the node are unknown")
			pause = addressRetry
		} else {
			template.Store(request)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait.Jitter(pause, 0.2)):
		}
	}
}

func readTemplate(ctx context.Context, super kubernetes.Interface, nodeName string) (*x509.CertificateRequest, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	node, err := super.CoreV1().Nodes().Get(ctx, nodeName, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("getting node %s: %w", nodeName, err)
	}
	return requestTemplate(nodeName, node.Status.Addresses)
}

// requestTemplate returns what a serving certificate says.
func requestTemplate(nodeName string, addresses []corev1.NodeAddress) (*x509.CertificateRequest, error) {
	request := &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: names.VNAgentCommonNamePrefix + nodeName, Organization: []string{names.VNAgentServingOrganization}},
	}
	for _, address := range addresses {
		switch address.Type {
		case corev1.NodeInternalIP:
			if ip := net.ParseIP(address.Address); ip != nil {
				request.IPAddresses = append(request.IPAddresses, ip)
			}
		case corev1.NodeHostName:
			request.DNSNames = append(request.DNSNames, address.Address)
		}
	}
	if len(request.IPAddresses) == 0 {
		return nil, fmt.Errorf("node %s has no internal address yet", nodeName)
	}
	return request, nil
}

// memoryStore makes the certificate manager keep key and certificate in memory only: it parses and remembers nothing.
type memoryStore struct{}

// Current says that nothing is stored; the manager caches the certificate itself.
func (memoryStore) Current() (*tls.Certificate, error) {
	none := certificate.NoCertKeyError("no serving certificate was issued yet")
	return nil, &none
}

// Update parses a certificate that was issued.
func (memoryStore) Update(certPEM, keyPEM []byte) (*tls.Certificate, error) {
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("parsing the issued certificate: %w", err)
	}
	return &pair, nil
}
