package supercluster

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// lifetime of all certificates: nobody keeps a development cluster longer.
const lifetime = 10 * 365 * 24 * time.Hour

// Names of the certificate authorities, and of their files.
const (
	clusterCA    = "ca"
	etcdCA       = "etcd-ca"
	frontProxyCA = "front-proxy-ca"
)

// identity is a certificate that the cluster needs.
type identity struct {
	file   string // without extension, in the PKI folder
	ca     string
	user   string
	groups []string
	dns    []string
	ips    []net.IP
}

// identities lists every leaf certificate.
func (c *Cluster) identities() []identity {
	controlPlane := net.IP(c.controlPlaneIP().AsSlice())
	local := net.IPv4(127, 0, 0, 1).To4()
	list := []identity{
		{file: "etcd", ca: etcdCA, user: "etcd", dns: []string{"localhost"}, ips: []net.IP{local}},
		{file: "apiserver-etcd-client", ca: etcdCA, user: "kube-apiserver"},
		{
			file: "apiserver", ca: clusterCA, user: "kube-apiserver",
			dns: []string{
				"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
				"kubernetes.default.svc." + clusterDomain,
			},
			ips: []net.IP{local, controlPlane, net.ParseIP(apiServiceIP).To4()},
		},
		{file: "apiserver-kubelet-client", ca: clusterCA, user: "kube-apiserver-kubelet-client", groups: []string{"system:masters"}},
		{file: "front-proxy-client", ca: frontProxyCA, user: "front-proxy-client"},
		{file: "control-plane", ca: clusterCA, user: "control-plane", dns: []string{"localhost"}, ips: []net.IP{local, controlPlane}},
		{file: "admin", ca: clusterCA, user: "kubernetes-admin", groups: []string{"system:masters"}},
		{file: "kube-controller-manager", ca: clusterCA, user: "system:kube-controller-manager"},
		{file: "kube-scheduler", ca: clusterCA, user: "system:kube-scheduler"},
		{file: "kube-proxy", ca: clusterCA, user: "system:kube-proxy"},
		{file: "netpol", ca: clusterCA, user: "netpol"},
	}
	for _, n := range c.nodes() {
		list = append(list, identity{
			file: n.Name, ca: clusterCA, user: "system:node:" + n.Name, groups: []string{"system:nodes"},
			dns: []string{n.Name}, ips: []net.IP{n.IP.AsSlice()},
		})
	}
	return list
}

// ensurePKI writes what is missing or no longer fits, and keeps the rest.
func (c *Cluster) ensurePKI() error {
	if err := os.MkdirAll(c.pkiDir(), 0o700); err != nil {
		return fmt.Errorf("creating the PKI folder: %w", err)
	}
	authorities := map[string]*keyPair{}
	for _, name := range []string{clusterCA, etcdCA, frontProxyCA} {
		ca, err := ensureAuthority(c.pki(name), name+"."+c.Name)
		if err != nil {
			return err
		}
		authorities[name] = ca
	}
	for _, id := range c.identities() {
		if err := ensureLeaf(c.pki(id.file), id, authorities[id.ca]); err != nil {
			return err
		}
	}
	return ensureServiceAccountKey(c.pki("sa"))
}

// ensureServiceAccountKey makes the key that signs service account tokens; its public half is written each time, because
// it follows from the other.
func ensureServiceAccountKey(path string) error {
	key, err := loadKey(path + ".key")
	if errors.Is(err, fs.ErrNotExist) {
		if key, err = newKey(); err != nil {
			return err
		}
		err = saveKey(path+".key", key)
	}
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return fmt.Errorf("encoding %s.pub: %w", path, err)
	}
	return writeFile(path+".pub", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o644)
}

// keyPair is a certificate and its key.
type keyPair struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func ensureAuthority(path, commonName string) (*keyPair, error) {
	if pair, err := loadPair(path); err == nil && pair.cert.IsCA {
		return pair, nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: commonName},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
	}
	return issue(path, template, nil)
}

func ensureLeaf(path string, id identity, ca *keyPair) error {
	pair, err := loadPair(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil && pair.fits(id, ca) {
		return nil
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: id.user, Organization: id.groups},
		DNSNames:    id.dns,
		IPAddresses: id.ips,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if len(id.dns)+len(id.ips) > 0 {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	_, err = issue(path, template, ca)
	return err
}

func (p *keyPair) fits(id identity, ca *keyPair) bool {
	return p.cert.CheckSignatureFrom(ca.cert) == nil &&
		p.cert.Subject.CommonName == id.user &&
		slices.Equal(p.cert.Subject.Organization, id.groups) &&
		slices.Equal(p.cert.DNSNames, id.dns) &&
		slices.EqualFunc(p.cert.IPAddresses, id.ips, net.IP.Equal) &&
		time.Until(p.cert.NotAfter) > lifetime/10
}

// issue signs and saves a certificate; without ca it signs itself.
func issue(path string, template *x509.Certificate, ca *keyPair) (*keyPair, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("choosing a serial number: %w", err)
	}
	template.SerialNumber = serial
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = time.Now().Add(lifetime)
	parent, signer := template, key
	if ca != nil {
		parent, signer = ca.cert, ca.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, fmt.Errorf("issuing %s: %w", path, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parsing %s: %w", path, err)
	}
	// Key first: a certificate that exists has its key; a key without certificate is replaced next time.
	if err := saveKey(path+".key", key); err != nil {
		return nil, err
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := writeFile(path+".crt", block, 0o644); err != nil {
		return nil, err
	}
	return &keyPair{cert: cert, key: key}, nil
}

// loadPair returns fs.ErrNotExist when certificate and key do not belong together, as after a run that was killed between
// the two files.
func loadPair(path string) (*keyPair, error) {
	key, err := loadKey(path + ".key")
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(path + ".crt")
	if err != nil {
		return nil, fmt.Errorf("reading certificate: %w", err)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("%s.crt holds no certificate", path)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parsing %s.crt: %w", path, err)
	}
	if public, ok := cert.PublicKey.(*ecdsa.PublicKey); !ok || !public.Equal(key.Public()) {
		return nil, fmt.Errorf("key and certificate of %s differ: %w", path, fs.ErrNotExist)
	}
	return &keyPair{cert: cert, key: key}, nil
}

func newKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generating a key: %w", err)
	}
	return key, nil
}

func saveKey(path string, key crypto.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", path, err)
	}
	return writeFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}

func loadKey(path string) (*ecdsa.PrivateKey, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading key: %w", err)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("%s holds no key", path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parsing %s: %w", path, err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s holds a %T, not an ECDSA key", path, parsed)
	}
	return key, nil
}

// writeKubeconfig writes a self-contained kubeconfig for one identity.
func (c *Cluster) writeKubeconfig(path, identity string) error {
	ca, err := os.ReadFile(c.pki(clusterCA + ".crt"))
	if err != nil {
		return fmt.Errorf("reading the cluster's CA: %w", err)
	}
	cert, err := os.ReadFile(c.pki(identity + ".crt"))
	if err != nil {
		return fmt.Errorf("reading the certificate of %s: %w", identity, err)
	}
	key, err := os.ReadFile(c.pki(identity + ".key"))
	if err != nil {
		return fmt.Errorf("reading the key of %s: %w", identity, err)
	}
	kubeconfig := clientcmdapi.NewConfig()
	kubeconfig.Clusters[c.Name] = &clientcmdapi.Cluster{Server: c.APIServer(), CertificateAuthorityData: ca}
	kubeconfig.AuthInfos[identity] = &clientcmdapi.AuthInfo{ClientCertificateData: cert, ClientKeyData: key}
	kubeconfig.Contexts[c.Name] = &clientcmdapi.Context{Cluster: c.Name, AuthInfo: identity}
	kubeconfig.CurrentContext = c.Name
	data, err := clientcmd.Write(*kubeconfig)
	if err != nil {
		return fmt.Errorf("encoding the kubeconfig of %s: %w", identity, err)
	}
	return writeFile(path, data, 0o600)
}

// copyFile copies a small file.
func copyFile(from, to string, mode fs.FileMode) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("reading %s: %w", filepath.Base(from), err)
	}
	return writeFile(to, data, mode)
}
