package vnagent

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

func TestRequestTemplate(t *testing.T) {
	for name, tc := range map[string]struct {
		addresses []corev1.NodeAddress
		want      *x509.CertificateRequest
	}{
		"TwoFamilies": {
			addresses: []corev1.NodeAddress{
				{Type: corev1.NodeInternalIP, Address: "10.0.0.1"}, {Type: corev1.NodeInternalIP, Address: "fd00::1"},
				{Type: corev1.NodeExternalIP, Address: "192.0.2.1"}, {Type: corev1.NodeHostName, Address: "host"},
			},
			want: &x509.CertificateRequest{
				Subject:     pkix.Name{CommonName: "system:vn-agent:node-1", Organization: []string{"system:vn-agents"}},
				IPAddresses: []net.IP{net.ParseIP("10.0.0.1"), net.ParseIP("fd00::1")}, DNSNames: []string{"host"},
			},
		},
		"NoAddressYet": {addresses: []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: "host"}}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := requestTemplate(thisNode, tc.addresses)
			if (err != nil) != (tc.want == nil) {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// The certificate is asked for with a key that stays here, and used once it was issued.
func TestServingCertificateIsRequested(t *testing.T) {
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: thisNode},
		Status:     corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "127.0.0.1"}}},
	}
	super := fake.NewClientset(node)
	current, err := requestServing(t.Context(), super, thisNode)
	if err != nil {
		t.Fatal(err)
	}
	if current() != nil {
		t.Error("there is a certificate before one was issued")
	}

	requests := super.CertificatesV1().CertificateSigningRequests()
	var request certificatesv1.CertificateSigningRequest
	eventually(t, func() bool {
		list, err := requests.List(t.Context(), metav1.ListOptions{})
		if err != nil || len(list.Items) == 0 {
			return false
		}
		request = list.Items[0]
		return true
	})
	if request.Spec.SignerName != names.VNAgentSigner {
		t.Errorf("asked the signer %s", request.Spec.SignerName)
	}
	block, _ := pem.Decode(request.Spec.Request)
	asked, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	signer := newAuthority(t, "signer")
	request.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue}}
	request.Status.Certificate = signer.sign(t, asked)
	if _, err := requests.UpdateStatus(t.Context(), &request, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}

	eventually(t, func() bool { return current() != nil })
	if _, err := current().Leaf.Verify(x509.VerifyOptions{Roots: signer.pool(), DNSName: "127.0.0.1"}); err != nil {
		t.Error(err)
	}
}

func eventually(t *testing.T, condition func() bool) {
	t.Helper()
	if err := wait.PollUntilContextTimeout(t.Context(), 10*time.Millisecond, 20*time.Second, true, wait.ConditionFunc(func() (bool, error) { return condition(), nil }).WithContext()); err != nil {
		t.Fatal(err)
	}
}
