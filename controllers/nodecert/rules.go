package nodecert

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// nodeNameExtra is where the API server says which node the pod of a service account token runs on. A requester cannot
// set it.
const nodeNameExtra = "authentication.kubernetes.io/node-name"

// requester returns the name of the node whose vn-agent made the request, or why it was not one.
func requester(csr *certificatesv1.CertificateSigningRequest, namespace string) (string, error) {
	if want := "system:serviceaccount:" + namespace + ":" + names.VNAgentServiceAccount; csr.Spec.Username != want {
		return "", fmt.Errorf("only %s may ask for certificates of vn-agent, not %s", want, csr.Spec.Username)
	}
	nodes := csr.Spec.Extra[nodeNameExtra]
	if len(nodes) != 1 || nodes[0] == "" {
		return "", errors.New("the requester's token does not say which node its pod runs on")
	}
	return nodes[0], nil
}

// parse reads the request and checks that the requester has the private key.
func parse(csr *certificatesv1.CertificateSigningRequest) (*x509.CertificateRequest, error) {
	block, rest := pem.Decode(csr.Spec.Request)
	if block == nil || block.Type != "CERTIFICATE REQUEST" || len(strings.TrimSpace(string(rest))) > 0 {
		return nil, errors.New("the request is not one PEM block of the type CERTIFICATE REQUEST")
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the request cannot be read: %w", err)
	}
	if err := request.CheckSignature(); err != nil {
		return nil, fmt.Errorf("the request is not signed by its own key: %w", err)
	}
	return request, nil
}

// check says what is wrong with a request from the vn-agent of the given node: it may ask for a serving certificate for
// that node's names and addresses and for nothing else.
func check(csr *certificatesv1.CertificateSigningRequest, request *x509.CertificateRequest, node *corev1.Node) error {
	if want := names.VNAgentCommonNamePrefix + node.Name; request.Subject.CommonName != want {
		return fmt.Errorf("the common name must be %q, not %q", want, request.Subject.CommonName)
	}
	if subject := request.Subject; !slices.Equal(subject.Organization, []string{names.VNAgentServingOrganization}) || len(subject.Names) != 2 {
		return fmt.Errorf("the subject must be the common name and the organization %q and nothing else", names.VNAgentServingOrganization)
	}
	if len(request.EmailAddresses) > 0 || len(request.URIs) > 0 {
		return errors.New("e-mail addresses and URIs are not allowed")
	}
	if len(request.IPAddresses) == 0 {
		return errors.New("an IP address of the node must be asked for")
	}
	hostnames, ips := []string{node.Name}, []net.IP{}
	for _, address := range node.Status.Addresses {
		if ip := net.ParseIP(address.Address); ip != nil {
			ips = append(ips, ip)
			continue
		}
		hostnames = append(hostnames, address.Address)
	}
	for _, name := range request.DNSNames {
		if !slices.Contains(hostnames, name) {
			return fmt.Errorf("%q is not a name of node %s", name, node.Name)
		}
	}
	for _, ip := range request.IPAddresses {
		if !slices.ContainsFunc(ips, ip.Equal) {
			return fmt.Errorf("%s is not an address of node %s", ip, node.Name)
		}
	}
	return checkUsages(csr.Spec.Usages)
}

// checkUsages allows serving and what TLS needs for it.
func checkUsages(usages []certificatesv1.KeyUsage) error {
	if !slices.Contains(usages, certificatesv1.UsageServerAuth) {
		return errors.New("the usages must contain \"server auth\"")
	}
	allowed := []certificatesv1.KeyUsage{certificatesv1.UsageServerAuth, certificatesv1.UsageDigitalSignature, certificatesv1.UsageKeyEncipherment}
	for _, usage := range usages {
		if !slices.Contains(allowed, usage) {
			return fmt.Errorf("the usage %q is not allowed", usage)
		}
	}
	return nil
}
