package nodecert

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/virtualcluster-io/virtualcluster/controllers/trust"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

const managerNamespace = "vc-system"

// asked is what a vn-agent asks for; tests change it.
type asked struct {
	username string
	extra    map[string]certificatesv1.ExtraValue
	template x509.CertificateRequest
	usages   []certificatesv1.KeyUsage
	signer   string
}

func good() asked {
	return asked{
		username: "system:serviceaccount:vc-system:vn-agent",
		extra:    map[string]certificatesv1.ExtraValue{nodeNameExtra: {"node-1"}},
		template: x509.CertificateRequest{
			Subject:     pkix.Name{CommonName: "system:vn-agent:node-1", Organization: []string{names.VNAgentServingOrganization}},
			DNSNames:    []string{"node-1.example.org"},
			IPAddresses: []net.IP{net.IPv4(192, 0, 2, 1)},
		},
		usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageServerAuth},
		signer: names.VNAgentSigner,
	}
}

func (a asked) csr(t *testing.T) *certificatesv1.CertificateSigningRequest {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("GenerateKey: %v", err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &a.template, key)
	if err != nil {
		t.Fatalf("CreateCertificateRequest: %v", err)
	}
	return &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: "csr"},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request:    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
			SignerName: a.signer, Username: a.username, Extra: a.extra, Usages: a.usages,
		},
	}
}

func testNode() *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "node-1"},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeHostName, Address: "node-1.example.org"},
			{Type: corev1.NodeInternalIP, Address: "192.0.2.1"},
		}},
	}
}

func TestReconcile(t *testing.T) {
	evil := &url.URL{Scheme: "spiffe", Host: "cluster.local"}
	cases := map[string]struct {
		change func(*asked)
		denial string // a part of the message; empty means signed
	}{
		"Good":           {change: func(*asked) {}},
		"WithoutNames":   {change: func(a *asked) { a.template.DNSNames = nil }},
		"NodeName":       {change: func(a *asked) { a.template.DNSNames = []string{"node-1"} }},
		"KeyEncipher":    {change: func(a *asked) { a.usages = append(a.usages, certificatesv1.UsageKeyEncipherment) }},
		"OtherUser":      {change: func(a *asked) { a.username = "system:serviceaccount:default:vn-agent" }, denial: "only system:serviceaccount:vc-system:vn-agent may ask"},
		"Admin":          {change: func(a *asked) { a.username = "kubernetes-admin" }, denial: "only system:serviceaccount:vc-system:vn-agent may ask"},
		"NoNodeInToken":  {change: func(a *asked) { a.extra = nil }, denial: "does not say which node"},
		"TwoNodes":       {change: func(a *asked) { a.extra[nodeNameExtra] = certificatesv1.ExtraValue{"node-1", "node-2"} }, denial: "does not say which node"},
		"UnknownNode":    {change: func(a *asked) { a.extra[nodeNameExtra] = certificatesv1.ExtraValue{"node-9"} }, denial: "node node-9 does not exist"},
		"OtherNodesName": {change: func(a *asked) { a.template.Subject.CommonName = "system:vn-agent:node-2" }, denial: `the common name must be "system:vn-agent:node-1"`},
		"OtherAddress":   {change: func(a *asked) { a.template.IPAddresses = []net.IP{net.IPv4(192, 0, 2, 2)} }, denial: "192.0.2.2 is not an address of node node-1"},
		"OneMoreAddress": {change: func(a *asked) { a.template.IPAddresses = append(a.template.IPAddresses, net.IPv4(10, 0, 0, 1)) }, denial: "10.0.0.1 is not an address"},
		"NoAddress":      {change: func(a *asked) { a.template.IPAddresses = nil }, denial: "an IP address of the node must be asked for"},
		"OtherName":      {change: func(a *asked) { a.template.DNSNames = []string{"kubernetes.default.svc"} }, denial: `"kubernetes.default.svc" is not a name of node`},
		"OtherGroup":     {change: func(a *asked) { a.template.Subject.Organization = []string{"system:masters"} }, denial: "the subject must be"},
		"MoreSubject":    {change: func(a *asked) { a.template.Subject.OrganizationalUnit = []string{"x"} }, denial: "the subject must be"},
		"Mail":           {change: func(a *asked) { a.template.EmailAddresses = []string{"a@example.org"} }, denial: "e-mail addresses and URIs"},
		"URI":            {change: func(a *asked) { a.template.URIs = []*url.URL{evil} }, denial: "e-mail addresses and URIs"},
		"ClientUsage":    {change: func(a *asked) { a.usages = append(a.usages, certificatesv1.UsageClientAuth) }, denial: `the usage "client auth" is not allowed`},
		"NoServerUsage":  {change: func(a *asked) { a.usages = a.usages[:1] }, denial: `must contain "server auth"`},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			a := good()
			tc.change(&a)
			got := reconcile(t, a.csr(t))
			if tc.denial != "" {
				if len(got.Status.Certificate) > 0 {
					t.Fatal("a certificate was issued")
				}
				if len(got.Status.Conditions) != 1 || got.Status.Conditions[0].Type != certificatesv1.CertificateDenied || !strings.Contains(got.Status.Conditions[0].Message, tc.denial) {
					t.Errorf("conditions: got %+v, want denied because %s", got.Status.Conditions, tc.denial)
				}
				return
			}
			checkIssued(t, a, got)
		})
	}
}

func TestApprovedByAPersonIsNotEnough(t *testing.T) {
	a := good()
	a.template.IPAddresses = []net.IP{net.IPv4(192, 0, 2, 2)}
	csr := a.csr(t)
	csr.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue}}
	got := reconcile(t, csr)
	if len(got.Status.Certificate) > 0 || !decided(got, certificatesv1.CertificateFailed) {
		t.Errorf("got certificate %q and conditions %+v, want failed", got.Status.Certificate, got.Status.Conditions)
	}
}

func TestOtherSignersAreLeftAlone(t *testing.T) {
	a := good()
	a.signer = certificatesv1.KubeletServingSignerName
	csr := a.csr(t)
	if diff := cmp.Diff(csr.Status, reconcile(t, csr).Status); diff != "" {
		t.Errorf("status changed:\n%s", diff)
	}
}

func reconcile(t *testing.T, csr *certificatesv1.CertificateSigningRequest) *certificatesv1.CertificateSigningRequest {
	t.Helper()
	c := fake.NewClientBuilder().WithObjects(csr, testNode()).WithStatusSubresource(csr).Build()
	r := &Reconciler{Client: c, Trust: &trust.Authorities{Client: c, Live: c, Namespace: managerNamespace}, Clock: clock.RealClock{}}
	// Twice, because the approval may come back as an event before the certificate is there.
	for range 2 {
		if _, err := r.Reconcile(t.Context(), ctrl.Request{NamespacedName: client.ObjectKeyFromObject(csr)}); err != nil {
			t.Fatalf("Reconcile: %v", err)
		}
	}
	got := &certificatesv1.CertificateSigningRequest{}
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(csr), got); err != nil {
		t.Fatalf("Get: %v", err)
	}
	return got
}

func checkIssued(t *testing.T, a asked, csr *certificatesv1.CertificateSigningRequest) {
	t.Helper()
	if !decided(csr, certificatesv1.CertificateApproved) {
		t.Errorf("not approved: %+v", csr.Status.Conditions)
	}
	block, _ := pem.Decode(csr.Status.Certificate)
	if block == nil {
		t.Fatal("no certificate was issued")
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatalf("ParseCertificate: %v", err)
	}
	if err := certificate.VerifyHostname("192.0.2.1"); err != nil {
		t.Errorf("not valid for the node's address: %v", err)
	}
	if diff := cmp.Diff([]x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, certificate.ExtKeyUsage); diff != "" {
		t.Errorf("usages (-want +got):\n%s", diff)
	}
	if certificate.Subject.CommonName != a.template.Subject.CommonName || certificate.IsCA {
		t.Errorf("issued for %s, as a CA: %v", certificate.Subject.CommonName, certificate.IsCA)
	}
	if left := time.Until(certificate.NotAfter); left > longestLifetime {
		t.Errorf("valid for %s", left)
	}
}
