package worlds

import (
	"crypto/x509"
	"net"
	"time"

	"github.com/virtualcluster-io/virtualcluster/internal/pki"
)

// lifetime of all certificates: no test runs longer.
const lifetime = 24 * time.Hour

// credentials are the keys and certificates of one world, in PEM.
type credentials struct {
	ca             []byte
	serving, admin pki.Pair
	// signingKey is for service account tokens; kube-apiserver derives the public one from it.
	signingKey []byte
}

// newCredentials makes a CA, which nobody needs afterwards, and what it issues.
func newCredentials(world string) (*credentials, error) {
	now := time.Now()
	ca, err := pki.NewAuthority(world, lifetime, now)
	if err != nil {
		return nil, err
	}
	serving, err := ca.Issue(pki.Request{
		CommonName: "kube-apiserver",
		DNSNames:   []string{"localhost"},
		IPs:        []net.IP{net.IPv4(127, 0, 0, 1)},
		Usages:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		Lifetime:   lifetime,
	}, now)
	if err != nil {
		return nil, err
	}
	admin, err := ca.Issue(pki.Request{
		CommonName:    "admin",
		Organizations: []string{"system:masters"},
		Usages:        []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		Lifetime:      lifetime,
	}, now)
	if err != nil {
		return nil, err
	}
	signingKey, _, err := pki.NewSigningKey()
	if err != nil {
		return nil, err
	}
	return &credentials{ca: ca.Certificate, serving: serving, admin: admin, signingKey: signingKey}, nil
}
