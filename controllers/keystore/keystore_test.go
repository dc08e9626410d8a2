package keystore

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/virtualcluster-io/virtualcluster/controllers/progress"
	"github.com/virtualcluster-io/virtualcluster/internal/pki"
)

const namespace = "root"

func established(context.Context) (bool, error) { return true, nil }

func start() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }

func serving() pki.Request {
	return pki.Request{
		CommonName: "kube-apiserver",
		DNSNames:   []string{"kubernetes", "kubernetes.default.svc"},
		IPs:        []net.IP{net.IPv4(10, 0, 0, 1)},
		Usages:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		Lifetime:   90 * 24 * time.Hour,
	}
}

func verify(t *testing.T, ca, leaf []byte, host string, at time.Time) error {
	t.Helper()
	certificate, err := pki.ParseCertificate(leaf)
	if err != nil {
		t.Fatalf("ParseCertificate: %v", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		t.Fatal("the CA is not PEM")
	}
	_, err = certificate.Verify(x509.VerifyOptions{DNSName: host, Roots: roots, CurrentTime: at})
	return err
}

func newStore(objects ...client.Object) *Store {
	c := fake.NewClientBuilder().WithObjects(objects...).Build()
	return &Store{Client: c, Live: c, Namespace: namespace, Now: start()}
}

func TestStoreKeepsKeys(t *testing.T) {
	s := newStore()
	first, err := s.Authority(t.Context(), "ca", "kubernetes")
	if err != nil {
		t.Fatalf("Authority: %v", err)
	}
	private, _, err := s.ServiceAccountKey(t.Context(), "sa")
	if err != nil {
		t.Fatalf("ServiceAccountKey: %v", err)
	}

	// Another reconciler, years later, with the same objects.
	s.Now = start().Add(5 * 365 * 24 * time.Hour)
	s.Established = established
	again, err := s.Authority(t.Context(), "ca", "kubernetes")
	if err != nil {
		t.Fatalf("Authority: %v", err)
	}
	if diff := cmp.Diff(first.Pair, again.Pair); diff != "" {
		t.Errorf("the CA changed (-first +again):\n%s", diff)
	}
	privateAgain, _, err := s.ServiceAccountKey(t.Context(), "sa")
	if err != nil {
		t.Fatalf("ServiceAccountKey: %v", err)
	}
	if diff := cmp.Diff(private, privateAgain); diff != "" {
		t.Errorf("the signing key changed (-first +again):\n%s", diff)
	}
}

func TestStoreUsesWhatAStaleCacheHides(t *testing.T) {
	s := newStore()
	first, err := s.Authority(t.Context(), "ca", "kubernetes")
	if err != nil {
		t.Fatalf("Authority: %v", err)
	}
	behind := newStore()
	behind.Live = s.Live
	again, err := behind.Authority(t.Context(), "ca", "kubernetes")
	if err != nil {
		t.Fatalf("Authority: %v", err)
	}
	if diff := cmp.Diff(first.Pair, again.Pair); diff != "" {
		t.Errorf("a second CA was made (-first +again):\n%s", diff)
	}
}

func TestStoreDoesNotReplaceKeysInUse(t *testing.T) {
	broken := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "ca"}, Data: map[string][]byte{CertificateKey: []byte("x")}}
	use := map[string]func(*Store) error{
		"Authority": func(s *Store) error { _, err := s.Authority(t.Context(), "ca", "kubernetes"); return err },
		"ServiceAccountKey": func(s *Store) error {
			_, _, err := s.ServiceAccountKey(t.Context(), "ca")
			return err
		},
	}
	for what, call := range use {
		for name, store := range map[string]*Store{"Gone": newStore(), "Broken": newStore(broken)} {
			t.Run(what+name, func(t *testing.T) {
				store.Established = established
				err := call(store)
				var stall *progress.Stall
				if !errors.As(err, &stall) || stall.Reason != ReasonKeyLost {
					t.Errorf("got %v, want a Stall with the reason %s", err, ReasonKeyLost)
				}
			})
		}
	}
}

func TestStoreRenewsLeaves(t *testing.T) {
	s := newStore()
	var reasons []string
	s.Issued = func(_, why string) { reasons = append(reasons, why) }
	ca, err := s.Authority(t.Context(), "ca", "kubernetes")
	if err != nil {
		t.Fatalf("Authority: %v", err)
	}
	leaf := func(request pki.Request, verify []byte) pki.Pair {
		t.Helper()
		pair, err := s.Leaf(t.Context(), "leaf", ca, request, verify)
		if err != nil {
			t.Fatalf("Leaf: %v", err)
		}
		return pair
	}
	first := leaf(serving(), ca.Certificate)
	if same := leaf(serving(), ca.Certificate); !cmp.Equal(first, same) {
		t.Error("a fresh leaf was replaced")
	}
	if same := leaf(serving(), []byte("another CA")); !cmp.Equal(first, same) {
		t.Error("a fresh leaf was replaced because the CA that it is kept with changed")
	}
	s.Now = start().Add(61 * 24 * time.Hour)
	second := leaf(serving(), []byte("another CA"))
	if cmp.Equal(first, second) {
		t.Error("a leaf was kept after two thirds of its life")
	}
	request := serving()
	request.DNSNames = append(request.DNSNames, "new.example.org")
	third := leaf(request, []byte("another CA"))
	if err := verify(t, ca.Certificate, third.Certificate, "new.example.org", s.Now); err != nil {
		t.Errorf("the leaf is not valid for a name that was added: %v", err)
	}

	want := []string{"it was not there", "the CA it is kept with changed", "two thirds of its life have passed", "its names or addresses changed"}
	if diff := cmp.Diff(want, reasons); diff != "" {
		t.Errorf("reasons (-want +got):\n%s", diff)
	}
	secret := &corev1.Secret{}
	if err := s.Client.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "leaf"}, secret); err != nil {
		t.Fatalf("Get: %v", err)
	}
	if diff := cmp.Diff(leafData(third, []byte("another CA")), secret.Data); diff != "" {
		t.Errorf("the Secret (-want +got):\n%s", diff)
	}
}

func TestStoreDoesNotReplaceACAByALeaf(t *testing.T) {
	s := newStore()
	ca, err := s.Authority(t.Context(), "ca", "kubernetes")
	if err != nil {
		t.Fatalf("Authority: %v", err)
	}
	other, err := s.Authority(t.Context(), "etcd-ca", "etcd-ca")
	if err != nil {
		t.Fatalf("Authority: %v", err)
	}
	var stall *progress.Stall
	if _, err := s.Leaf(t.Context(), "etcd-ca", ca, serving(), ca.Certificate); !errors.As(err, &stall) {
		t.Errorf("got %v, want a stall", err)
	}
	kept, err := s.Authority(t.Context(), "etcd-ca", "etcd-ca")
	if err != nil {
		t.Fatalf("Authority: %v", err)
	}
	if diff := cmp.Diff(string(other.Certificate), string(kept.Certificate)); diff != "" {
		t.Errorf("the CA was replaced:\n%s", diff)
	}
}
