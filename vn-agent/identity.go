package vnagent

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// TenantOf returns the tenant that a verified client certificate stands for. It does not verify the chain: the TLS
// server did, and only against the vn-agent client CA.
func TenantOf(state *tls.ConnectionState) (names.TenantID, error) {
	if state == nil || len(state.VerifiedChains) == 0 {
		return "", errors.New("the client presented no verified certificate")
	}
	certificate := state.VerifiedChains[0][0]
	if !slices.Contains(certificate.ExtKeyUsage, x509.ExtKeyUsageClientAuth) {
		return "", errors.New("the certificate is not a client certificate")
	}
	if !slices.Contains(certificate.Subject.Organization, names.VNAgentOrganization) {
		return "", fmt.Errorf("the certificate is not of organization %s", names.VNAgentOrganization)
	}
	if len(validation.IsDNS1123Label(certificate.Subject.CommonName)) > 0 {
		return "", errors.New("the certificate's common name is not a tenant")
	}
	return names.TenantID(certificate.Subject.CommonName), nil
}
