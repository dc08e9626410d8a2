package dedicated

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net"
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/controllers/keystore"
	"github.com/virtualcluster-io/virtualcluster/controllers/provision"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/internal/pki"
)

// Secrets of the root namespace. No pod mounts a key it does not need: only kube-controller-manager, which signs
// certificates for the tenant, has the key of the cluster CA; nobody has those of the other two.
const (
	clusterCASecret    = "cluster-ca"
	etcdCASecret       = "etcd-ca"
	frontProxyCASecret = "front-proxy-ca"
	signingSecret      = "service-account-key"

	etcdServerSecret        = "etcd-server"
	etcdPeerSecret          = "etcd-peer"
	servingSecret           = "kube-apiserver-serving"
	etcdClientSecret        = "kube-apiserver-etcd-client"
	kubeletClientSecret     = "kube-apiserver-kubelet-client"
	frontProxySecret        = "front-proxy-client"
	controllerManagerSecret = "kube-controller-manager-client"
	schedulerSecret         = "kube-scheduler-client"
	adminSecret             = "admin-client"
	syncerSecret            = "vc-syncer-client"
)

const (
	// frontProxyName is the common name by which aggregated API servers know kube-apiserver.
	frontProxyName = "front-proxy-client"
	// adminsGroup is the group that may do everything.
	adminsGroup = "system:masters"
	// managerLifetime is how long vc-manager's own certificate is valid, which is made anew for every connection.
	managerLifetime = time.Hour
)

// certificates is what the rest of the provisioner needs to know of a tenant's PKI.
type certificates struct {
	clusterCA                        *pki.Authority
	admin, syncer, controllerManager pki.Pair
	// signingKey signs service account tokens: its public key, in place of a certificate, and its private key.
	signingKey pki.Pair
	// signingKeyID is the ID of that key.
	signingKeyID string
	hashes       map[string]string
}

// addresses are the names and addresses that the tenant's kube-apiserver and etcd are reached by.
type addresses struct {
	apiServerDNS, etcdServerDNS, etcdPeerDNS []string
	apiServerIPs, etcdServerIPs              []net.IP
}

// leaf is one certificate of the control plane.
type leaf struct {
	secret  string
	ca      *pki.Authority
	verify  *pki.Authority
	request pki.Request
}

// authorities are the CAs of a control plane.
type authorities struct {
	cluster, etcd, frontProxy *pki.Authority
}

// ensureAuthorities makes the CAs that are missing. A control plane for templates of the retired project has only one, see
// retired.go.
func ensureAuthorities(ctx context.Context, store *keystore.Store, retired bool) (authorities, error) {
	cluster, err := store.Authority(ctx, clusterCASecret, "kubernetes")
	if err != nil || retired {
		return authorities{cluster: cluster, etcd: cluster, frontProxy: cluster}, err
	}
	etcd, err := store.Authority(ctx, etcdCASecret, "etcd-ca")
	if err != nil {
		return authorities{}, err
	}
	frontProxy, err := store.Authority(ctx, frontProxyCASecret, "front-proxy-ca")
	return authorities{cluster: cluster, etcd: etcd, frontProxy: frontProxy}, err
}

// ensureCertificates makes all keys and certificates that are missing or not fresh.
func (p *Provisioner) ensureCertificates(ctx context.Context, tenant *provision.Tenant, l layout, a addresses) (*certificates, error) {
	store := p.store(tenant)
	cas, err := ensureAuthorities(ctx, store, l.retired)
	if err != nil {
		return nil, err
	}
	clusterCA, etcdCA, frontProxyCA := cas.cluster, cas.etcd, cas.frontProxy
	private, public, err := store.ServiceAccountKey(ctx, signingSecret)
	if err != nil {
		return nil, err
	}
	agentClientCA, err := p.Trust.ClientCA(ctx, tenant.Now)
	if err != nil {
		return nil, err
	}
	agentServingCA, err := p.Trust.ServingCA(ctx, tenant.Now)
	if err != nil {
		return nil, err
	}

	server, client := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	both := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	leaves := []leaf{
		// etcd's own gateway connects to etcd with the server's certificate.
		{etcdServerSecret, etcdCA, etcdCA, pki.Request{CommonName: names.Etcd, DNSNames: a.etcdServerDNS, IPs: a.etcdServerIPs, Usages: both}},
		{etcdPeerSecret, etcdCA, etcdCA, pki.Request{CommonName: names.Etcd, DNSNames: a.etcdPeerDNS, Usages: both}},
		{etcdClientSecret, etcdCA, etcdCA, pki.Request{CommonName: names.APIServer, Usages: client}},
		{servingSecret, clusterCA, clusterCA, pki.Request{CommonName: names.APIServer, DNSNames: a.apiServerDNS, IPs: a.apiServerIPs, Usages: server}},
		{kubeletClientSecret, agentClientCA, agentServingCA, pki.Request{CommonName: string(tenant.ID), Organizations: []string{names.VNAgentOrganization}, Usages: client}},
		{frontProxySecret, frontProxyCA, frontProxyCA, pki.Request{CommonName: frontProxyName, Usages: client}},
		{controllerManagerSecret, clusterCA, clusterCA, pki.Request{CommonName: "system:kube-controller-manager", Usages: client}},
		{adminSecret, clusterCA, clusterCA, pki.Request{CommonName: "kubernetes-admin", Organizations: []string{adminsGroup}, Usages: client}},
		{syncerSecret, clusterCA, clusterCA, pki.Request{CommonName: names.Syncer, Organizations: []string{adminsGroup}, Usages: client}},
	}
	if tenant.VirtualCluster.Spec.Scheduler.Enabled {
		leaves = append(leaves, leaf{schedulerSecret, clusterCA, clusterCA, pki.Request{CommonName: "system:kube-scheduler", Usages: client}})
	}
	if l.retired {
		leaves = append(leaves, retiredLeaves(tenant.ID, clusterCA, a)...)
	}
	lifetime := time.Duration(cmp.Or(tenant.VirtualCluster.Spec.PKIExpireDays, 365)) * 24 * time.Hour
	pairs := map[string]pki.Pair{}
	for _, l := range leaves {
		l.request.Lifetime = lifetime
		pair, err := store.Leaf(ctx, l.secret, l.ca, l.request, l.verify.Certificate)
		if err != nil {
			return nil, err
		}
		certificate, err := pki.ParseCertificate(pair.Certificate)
		if err != nil {
			return nil, fmt.Errorf("reading the certificate in Secret %s: %w", l.secret, err)
		}
		tenant.CheckAfter(pki.RenewAt(certificate).Sub(tenant.Now))
		pairs[l.secret] = pair
	}

	keyID, err := pki.KeyID(public)
	if err != nil {
		return nil, fmt.Errorf("reading the public key in Secret %s: %w", signingSecret, err)
	}
	certs := &certificates{
		clusterCA:         clusterCA,
		signingKey:        pki.Pair{Certificate: public, Key: private},
		signingKeyID:      keyID,
		admin:             pairs[adminSecret],
		syncer:            pairs[syncerSecret],
		controllerManager: pairs[controllerManagerSecret],
		// The components reload leaf certificates from their files. They do not reload these.
		hashes: map[string]string{
			names.Etcd:              hash(etcdCA.Certificate),
			names.APIServer:         hash(clusterCA.Certificate, etcdCA.Certificate, frontProxyCA.Certificate, agentServingCA.Certificate, public),
			names.ControllerManager: hash(clusterCA.Certificate, public),
			names.Scheduler:         hash(clusterCA.Certificate),
		},
	}
	if l.retired {
		certs.hashes[names.ControllerManager] = hash(clusterCA.Certificate, public, certs.controllerManager.Certificate)
	}
	return certs, nil
}

// established says, by a live read, whether the control plane has been reached before.
func (p *Provisioner) established(ctx context.Context, tenant *provision.Tenant) (bool, error) {
	key := client.ObjectKeyFromObject(tenant.VirtualCluster)
	vc := &tenancyv1alpha1.VirtualCluster{}
	if err := p.Live.Get(ctx, key, vc); err != nil {
		return false, fmt.Errorf("reading VirtualCluster %s: %w", key, err)
	}
	return tenant.Established() || vc.Status.ControlPlaneUID != "", nil
}

// store keeps the tenant's keys and certificates in its root namespace.
func (p *Provisioner) store(tenant *provision.Tenant) *keystore.Store {
	return &keystore.Store{
		Client:      p.Client,
		Live:        p.Live,
		Namespace:   string(tenant.ID),
		Labels:      tenant.Labels(),
		Annotations: tenant.Annotations(),
		Established: func(ctx context.Context) (bool, error) { return p.established(ctx, tenant) },
		Now:         tenant.Now,
		Issued: func(name, why string) {
			if tenant.Established() {
				tenant.Event("Normal", "CertificateRenewed", fmt.Sprintf("Renewed the certificate in Secret %s: %s", name, why))
			}
		},
	}
}

// addresses collects every name and address that anybody reaches the tenant's kube-apiserver or etcd by, so that no
// client ever has to skip verification.
func (l layout) addresses(hosts []string) addresses {
	a := addresses{
		apiServerDNS: []string{
			"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + l.domain, "localhost",
		},
		apiServerIPs:  []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		etcdServerDNS: append(serviceNames(etcdClientService, l.namespace), "localhost"),
		etcdServerIPs: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback, net.ParseIP(l.etcdIP)},
		etcdPeerDNS:   serviceNames(etcdService, l.namespace),
	}
	for _, address := range l.clusterIPs {
		a.apiServerIPs = append(a.apiServerIPs, address.AsSlice())
	}
	a.apiServerDNS = append(a.apiServerDNS, serviceNames(names.APIServerService, l.namespace)...)
	for i := range l.etcdReplicas() {
		member := l.etcdMember(fmt.Sprintf("%s-%d", names.Etcd, i))
		a.etcdServerDNS = append(a.etcdServerDNS, member)
		a.etcdPeerDNS = append(a.etcdPeerDNS, member)
	}
	if l.retired {
		l.addRetiredNames(&a)
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			a.apiServerIPs = append(a.apiServerIPs, ip)
			continue
		}
		a.apiServerDNS = append(a.apiServerDNS, host)
	}
	a.apiServerDNS, a.apiServerIPs = uniqueNames(a.apiServerDNS), uniqueIPs(a.apiServerIPs)
	a.etcdServerDNS, a.etcdServerIPs = uniqueNames(a.etcdServerDNS), uniqueIPs(a.etcdServerIPs)
	a.etcdPeerDNS = uniqueNames(a.etcdPeerDNS)
	return a
}

// serviceNames returns the names of a Service inside the super cluster.
func serviceNames(service, namespace string) []string {
	return []string{
		service,
		service + "." + namespace,
		service + "." + namespace + ".svc",
		service + "." + namespace + ".svc.cluster.local",
	}
}

// uniqueNames sorts and removes duplicates, so that the same names give the same certificate.
func uniqueNames(list []string) []string {
	slices.Sort(list)
	return slices.Compact(list)
}

// uniqueIPs sorts and removes duplicates.
func uniqueIPs(list []net.IP) []net.IP {
	slices.SortFunc(list, func(a, b net.IP) int { return slices.Compare(a.To16(), b.To16()) })
	return slices.CompactFunc(list, net.IP.Equal)
}

// hash returns a short digest of the parts.
func hash(parts ...[]byte) string {
	h := sha256.New()
	for _, part := range parts {
		h.Write(part)
		h.Write([]byte{0})
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}
