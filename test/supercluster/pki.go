package supercluster

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/virtualcluster-io/virtualcluster/internal/pki"
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

// request is what the certificate should contain.
func (id identity) request() pki.Request {
	usages := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if len(id.dns)+len(id.ips) > 0 {
		usages = append(usages, x509.ExtKeyUsageServerAuth)
	}
	return pki.Request{
		CommonName: id.user, Organizations: id.groups, DNSNames: id.dns, IPs: id.ips, Usages: usages, Lifetime: lifetime,
	}
}

// ensurePKI writes what is missing or no longer fits, and keeps the rest.
func (c *Cluster) ensurePKI() error {
	if err := os.MkdirAll(c.pkiDir(), 0o700); err != nil {
		return fmt.Errorf("creating the PKI folder: %w", err)
	}
	now := time.Now()
	authorities := map[string]*pki.Authority{}
	for _, name := range []string{clusterCA, etcdCA, frontProxyCA} {
		ca, err := ensureAuthority(c.pki(name), name+"."+c.Name, now)
		if err != nil {
			return err
		}
		authorities[name] = ca
	}
	for _, id := range c.identities() {
		if err := ensureLeaf(c.pki(id.file), id.request(), authorities[id.ca], now); err != nil {
			return err
		}
	}
	return ensureServiceAccountKey(c.pki("sa"))
}

// ensureServiceAccountKey makes the key that signs service account tokens; its public half is written each time, because
// it follows from the other.
func ensureServiceAccountKey(path string) error {
	key, err := os.ReadFile(path + ".key")
	if errors.Is(err, fs.ErrNotExist) {
		if key, _, err = pki.NewSigningKey(); err == nil {
			err = saveKey(path+".key", key)
		}
	}
	if err != nil {
		return fmt.Errorf("making sure of the service account key: %w", err)
	}
	private, err := pki.ParseKey(key)
	if err != nil {
		return fmt.Errorf("reading %s.key: %w", path, err)
	}
	public, err := pki.EncodePublicKey(private.Public())
	if err != nil {
		return fmt.Errorf("encoding %s.pub: %w", path, err)
	}
	return writeFile(path+".pub", public, 0o644)
}

func ensureAuthority(path, commonName string, now time.Time) (*pki.Authority, error) {
	pair, err := loadPair(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if ca, err := pki.ParseAuthority(pair); err == nil {
		return ca, nil
	}
	ca, err := pki.NewAuthority(commonName, lifetime, now)
	if err != nil {
		return nil, err
	}
	return ca, savePair(path, ca.Pair)
}

func ensureLeaf(path string, request pki.Request, ca *pki.Authority, now time.Time) error {
	pair, err := loadPair(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if fresh, _ := ca.Fresh(pair, request, now); fresh {
		return nil
	}
	if pair, err = ca.Issue(request, now); err != nil {
		return err
	}
	return savePair(path, pair)
}

// loadPair returns fs.ErrNotExist when certificate and key do not belong together, as after a run that was killed between
// the two files.
func loadPair(path string) (pki.Pair, error) {
	key, err := os.ReadFile(path + ".key")
	if err != nil {
		return pki.Pair{}, fmt.Errorf("reading key: %w", err)
	}
	private, err := pki.ParseKey(key)
	if err != nil {
		return pki.Pair{}, fmt.Errorf("reading %s.key: %w", path, err)
	}
	data, err := os.ReadFile(path + ".crt")
	if err != nil {
		return pki.Pair{}, fmt.Errorf("reading certificate: %w", err)
	}
	certificate, err := pki.ParseCertificate(data)
	if err != nil {
		return pki.Pair{}, fmt.Errorf("reading %s.crt: %w", path, err)
	}
	if !private.PublicKey.Equal(certificate.PublicKey) {
		return pki.Pair{}, fmt.Errorf("key and certificate of %s differ: %w", path, fs.ErrNotExist)
	}
	return pki.Pair{Certificate: data, Key: key}, nil
}

// savePair writes the key first: a certificate that exists has its key; a key without certificate is replaced next time.
func savePair(path string, pair pki.Pair) error {
	if err := saveKey(path+".key", pair.Key); err != nil {
		return err
	}
	return writeFile(path+".crt", pair.Certificate, 0o644)
}

// saveKey writes a key as PKCS #8, like the keys of clusters that are there already.
func saveKey(path string, key []byte) error {
	data, err := pki.PKCS8(key)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", path, err)
	}
	return writeFile(path, data, 0o600)
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
