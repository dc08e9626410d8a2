package e2e_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/test/e2e/local"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

// kubeletClientSecret holds the identity with which a tenant's kube-apiserver comes to vn-agent. A tenant cannot read
// it; the test gives it to the attacker, because a tenant that breaks into its own kube-apiserver has it.
const kubeletClientSecret = "kube-apiserver-kubelet-client"

func TestTenantCannotReachOthersThroughVNAgent(t *testing.T) {
	cluster, a, b := open(t)
	namespace := unique("attack")
	secrets := map[*local.Tenant]string{a: unique("alpha"), b: unique("beta")}
	node := commonNode(t, a, b)
	for _, tenant := range []*local.Tenant{a, b} {
		must(t, tenant.Access, "create", "namespace", namespace)
		cleanup(t, tenant.Access, "delete", "namespace", namespace, "--ignore-not-found", "--timeout=2m")
		worlds.Eventually(t, 30*time.Second, "the service account of the namespace", func(ctx context.Context) error {
			_, err := tenant.Client.CoreV1().ServiceAccounts(namespace).Get(ctx, "default", metav1.GetOptions{})
			return err
		})
		// "victim" exists in both; "only-<tenant>" in one.
		for _, name := range []string{"victim", "only-" + tenant.Name} {
			pod := worlds.Pod(namespace, name)
			pod.Spec.NodeSelector = map[string]string{corev1.LabelHostname: node.Name}
			pod.Spec.Containers[0].Image = local.Image
			pod.Spec.Containers[0].Command = []string{"sh", "-c", "trap 'exit 0' TERM; echo " + secrets[tenant] + "; sleep 3600 & wait"}
			if _, err := tenant.Client.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
				t.Fatalf("creating a pod: %v", err)
			}
		}
		must(t, tenant.Access, "-n", namespace, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
	}

	endpoint := vnAgent(t, node)
	stolen := stolenIdentity(t, cluster, a)
	ownPod := "/containerLogs/" + namespace + "/victim/main"
	if status, body := endpoint.get(t, stolen, ownPod, nil); status != http.StatusOK || strings.TrimSpace(body) != secrets[a] {
		t.Fatalf("the kube-apiserver of %s asks for its own logs: got %d %q, want %q", a.Name, status, body, secrets[a])
	}

	othersSuper := names.SuperNamespace(b.ID(), namespace)
	onlyOther := "only-" + b.Name
	for name, path := range map[string]string{
		"PodOfAnother":            "/containerLogs/" + namespace + "/" + onlyOther + "/main",
		"SuperNamespaceOfAnother": "/containerLogs/" + othersSuper + "/victim/main",
		"OwnSuperNamespace":       "/containerLogs/" + names.SuperNamespace(a.ID(), namespace) + "/victim/main",
		"RootNamespaceOfAnother":  "/containerLogs/" + string(b.ID()) + "/kube-apiserver-0/kube-apiserver",
		"KubeSystemOfSuper":       "/containerLogs/kube-system/coredns/coredns",
		"DotDot":                  "/containerLogs/" + namespace + "/../" + othersSuper + "/victim/main",
		"EncodedSlash":            "/containerLogs/" + namespace + "%2F..%2F" + othersSuper + "/victim/main",
		"EncodedSlashInPod":       "/containerLogs/" + namespace + "/..%2F..%2F" + othersSuper + "%2Fpods%2Fvictim/main",
		"QueryInName":             "/containerLogs/" + namespace + "/" + onlyOther + "%3Fx=/main",
		"ExecOfAnother":           "/exec/" + namespace + "/" + onlyOther + "/main?command=id&output=1",
		"Run":                     "/run/" + namespace + "/" + onlyOther + "/main?cmd=id",
		"Configz":                 "/configz",
		"Profile":                 "/debug/pprof/heap",
		"NodeLogs":                "/logs/",
		"Checkpoint":              "/checkpoint/" + namespace + "/victim/main",
		"APIOfSuper":              "/api/v1/namespaces/" + othersSuper + "/pods/victim/log",
	} {
		t.Run(name, func(t *testing.T) {
			status, body := endpoint.get(t, stolen, path, nil)
			if status == http.StatusOK || status == http.StatusSwitchingProtocols || strings.Contains(body, secrets[b]) {
				t.Errorf("GET %s: got %d %q", path, status, body)
			}
			if strings.Contains(body, othersSuper) && !strings.Contains(path, othersSuper) {
				t.Errorf("GET %s: the answer names the super namespace: %q", path, body)
			}
		})
	}
	t.Run("HeadersDoNotChangeWhoAsks", func(t *testing.T) {
		status, body := endpoint.get(t, stolen, "/containerLogs/"+namespace+"/"+onlyOther+"/main", http.Header{
			"Impersonate-User":   {"system:admin"},
			"Impersonate-Group":  {"system:masters"},
			"X-Remote-User":      {string(b.ID())},
			"X-Remote-Group":     {names.VNAgentOrganization},
			"X-Forwarded-For":    {"127.0.0.1"},
			"X-Http-Method":      {"POST"},
			"X-Forwarded-Prefix": {"/"},
		})
		if status == http.StatusOK || strings.Contains(body, secrets[b]) {
			t.Errorf("got %d %q", status, body)
		}
	})

	for name, certificate := range map[string]*tls.Certificate{
		"NoCertificate":    nil,
		"AdminOfTheTenant": chain(t, a.Config.CertData, a.Config.KeyData),
		"SelfSigned":       selfSigned(t, b.ID()),
		"OwnCA":            ownCA(t, b.ID()),
	} {
		t.Run(name, func(t *testing.T) {
			status, body, err := endpoint.try(t, certificate, ownPod, nil)
			if err == nil && status < http.StatusBadRequest {
				t.Errorf("got %d %q, want a refusal", status, body)
			}
			if strings.Contains(body, secrets[a]) || strings.Contains(body, secrets[b]) {
				t.Errorf("the answer holds a log: %q", body)
			}
		})
	}
}

// commonNode returns a node that both tenants see.
func commonNode(t *testing.T, a, b *local.Tenant) *corev1.Node {
	t.Helper()
	list, err := a.Client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatalf("listing nodes: %v", err)
	}
	for i := range list.Items {
		if _, err := b.Client.CoreV1().Nodes().Get(t.Context(), list.Items[i].Name, metav1.GetOptions{}); err == nil {
			return &list.Items[i]
		}
	}
	t.Fatalf("%s and %s see no node in common", a.Name, b.Name)
	return nil
}

// agent is the kubelet API of a virtual node.
type agent struct{ address string }

func vnAgent(t *testing.T, node *corev1.Node) agent {
	t.Helper()
	for _, address := range node.Status.Addresses {
		if address.Type == corev1.NodeInternalIP {
			port := int(node.Status.DaemonEndpoints.KubeletEndpoint.Port)
			return agent{address: net.JoinHostPort(address.Address, strconv.Itoa(port))}
		}
	}
	t.Fatalf("node %s has no internal address: %v", node.Name, node.Status.Addresses)
	return agent{}
}

func (a agent) get(t *testing.T, certificate *tls.Certificate, path string, header http.Header) (int, string) {
	t.Helper()
	status, body, err := a.try(t, certificate, path, header)
	if err != nil {
		t.Fatalf("getting %s: %v", path, err)
	}
	return status, body
}

// try sends the path as it is: an attacker does not clean it.
func (a agent) try(t *testing.T, certificate *tls.Certificate, path string, header http.Header) (int, string, error) {
	t.Helper()
	// An attacker does not verify who answers.
	config := &tls.Config{InsecureSkipVerify: true}
	if certificate != nil {
		// Present it whatever CAs the server names.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return certificate, nil }
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+a.address, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.URL.Opaque = path
	for key, values := range header {
		req.Header[key] = values
	}
	client := http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		return 0, "", fmt.Errorf("asking: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return 0, "", fmt.Errorf("reading: %w", err)
	}
	return res.StatusCode, string(body), nil
}

func stolenIdentity(t *testing.T, cluster *local.Cluster, tenant *local.Tenant) *tls.Certificate {
	t.Helper()
	secret, err := cluster.Super.Client.CoreV1().Secrets(string(tenant.ID())).Get(t.Context(), kubeletClientSecret, metav1.GetOptions{})
	if err != nil {
		t.Fatalf("getting the identity of the kube-apiserver of %s: %v", tenant.Name, err)
	}
	return chain(t, secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey])
}

func chain(t *testing.T, cert, key []byte) *tls.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatalf("reading a certificate: %v", err)
	}
	return &pair
}

// selfSigned claims to be a tenant.
func selfSigned(t *testing.T, id names.TenantID) *tls.Certificate {
	t.Helper()
	key := newKey(t)
	template := claim(id)
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// ownCA claims to be a tenant, with a CA of the same name as the real one behind the claim.
func ownCA(t *testing.T, id names.TenantID) *tls.Certificate {
	t.Helper()
	caKey, key := newKey(t), newKey(t)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "vn-agent-client-ca"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, claim(id), ca, key.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der, caDER}, PrivateKey: key}
}

func claim(id names.TenantID) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(2),
		Subject:      pkix.Name{CommonName: string(id), Organization: []string{names.VNAgentOrganization}},
		NotBefore:    time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
