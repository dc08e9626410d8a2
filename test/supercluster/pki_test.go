package supercluster

import (
	"crypto/x509"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/virtualcluster-io/virtualcluster/internal/pki"
)

// certificates reads the PKI folder: file name to content.
func certificates(t *testing.T, c *Cluster) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(c.pkiDir())
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, e := range entries {
		data, err := os.ReadFile(c.pki(e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = string(data)
	}
	return files
}

func ensurePKI(t *testing.T, c *Cluster) {
	t.Helper()
	if err := c.ensurePKI(); err != nil {
		t.Fatal(err)
	}
}

func TestPKIServesAllNames(t *testing.T) {
	c := newCluster(t)
	ensurePKI(t, c)
	cases := map[string]struct {
		file, ca string
		hosts    []string
	}{
		"APIServer": {file: "apiserver", ca: clusterCA, hosts: []string{
			"127.0.0.1", "172.31.7.1", "10.96.0.1", "localhost",
			"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
		}},
		"Kubelet":      {file: "node-2", ca: clusterCA, hosts: []string{"172.31.7.12", "node-2"}},
		"Etcd":         {file: "etcd", ca: etcdCA, hosts: []string{"127.0.0.1", "localhost"}},
		"ControlPlane": {file: "control-plane", ca: clusterCA, hosts: []string{"172.31.7.1"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			leaf, err := loadPair(c.pki(tc.file))
			if err != nil {
				t.Fatal(err)
			}
			ca, err := loadPair(c.pki(tc.ca))
			if err != nil {
				t.Fatal(err)
			}
			certificate, err := pki.ParseCertificate(leaf.Certificate)
			if err != nil {
				t.Fatal(err)
			}
			roots := x509.NewCertPool()
			if !roots.AppendCertsFromPEM(ca.Certificate) {
				t.Fatal("the CA is not PEM")
			}
			for _, host := range tc.hosts {
				if _, err := certificate.Verify(x509.VerifyOptions{DNSName: host, Roots: roots}); err != nil {
					t.Errorf("verifying for %s: %v", host, err)
				}
			}
		})
	}
}

func TestPKIIsKept(t *testing.T) {
	c := newCluster(t)
	ensurePKI(t, c)
	before := certificates(t, c)
	ensurePKI(t, c)
	if diff := cmp.Diff(before, certificates(t, c)); diff != "" {
		t.Error("a second run changed certificates")
	}
}

func TestPKIIsRepaired(t *testing.T) {
	cases := map[string]struct {
		reason  string
		damage  func(c *Cluster) error
		changed []string
	}{
		"KilledBetweenKeyAndCertificate": {
			reason: "a key without its certificate is replaced",
			damage: func(c *Cluster) error {
				key, _, err := pki.NewSigningKey()
				if err != nil {
					return err
				}
				return saveKey(c.pki("admin.key"), key)
			},
			changed: []string{"admin.crt", "admin.key"},
		},
		"NewNode": {
			reason:  "a node that joins gets a certificate, the others keep theirs",
			damage:  func(c *Cluster) error { c.Nodes = 3; return nil },
			changed: []string{"node-3.crt", "node-3.key"},
		},
		"OtherCA": {
			reason: "what a lost authority has signed is signed anew",
			damage: func(c *Cluster) error { return os.Remove(c.pki(frontProxyCA + ".crt")) },
			changed: []string{
				"front-proxy-ca.crt", "front-proxy-ca.key", "front-proxy-client.crt", "front-proxy-client.key",
			},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t)
			ensurePKI(t, c)
			before := certificates(t, c)
			if err := tc.damage(c); err != nil {
				t.Fatal(err)
			}
			ensurePKI(t, c)
			after := certificates(t, c)
			var changed []string
			for _, id := range append([]string{"ca", etcdCA, frontProxyCA, "sa"}, files(c)...) {
				for _, file := range []string{id + ".crt", id + ".key"} {
					if before[file] != after[file] {
						changed = append(changed, file)
					}
				}
			}
			if diff := cmp.Diff(tc.changed, changed); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}

func files(c *Cluster) []string {
	var list []string
	for _, id := range c.identities() {
		list = append(list, id.file)
	}
	return list
}

func TestKubeconfig(t *testing.T) {
	c := newCluster(t)
	ensurePKI(t, c)
	if err := c.writeKubeconfig(c.Kubeconfig(), "admin"); err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	if config.Host != "https://172.31.7.1:6443" || config.Insecure || len(config.CAData) == 0 || len(config.KeyData) == 0 {
		t.Errorf("host %q, insecure %v, CA of %d and key of %d bytes", config.Host, config.Insecure, len(config.CAData), len(config.KeyData))
	}
}
