package pki

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const tenYears = 10 * 365 * 24 * time.Hour

func start() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }

func mustAuthority(t *testing.T, name string) *Authority {
	t.Helper()
	authority, err := NewAuthority(name, tenYears, start())
	if err != nil {
		t.Fatalf("NewAuthority: %v", err)
	}
	return authority
}

func serving() Request {
	return Request{
		CommonName: "kube-apiserver",
		DNSNames:   []string{"kubernetes", "kubernetes.default.svc"},
		IPs:        []net.IP{net.IPv4(10, 0, 0, 1)},
		Usages:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		Lifetime:   90 * 24 * time.Hour,
	}
}

func verify(t *testing.T, ca, leaf []byte, host string, at time.Time) error {
	t.Helper()
	certificate, err := ParseCertificate(leaf)
	if err != nil {
		t.Fatalf("ParseCertificate: %v", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		t.Fatal("the CA is not PEM")
	}
	_, err = certificate.Verify(x509.VerifyOptions{DNSName: host, Roots: roots, CurrentTime: at, KeyUsages: certificate.ExtKeyUsage})
	return err
}

func TestIssuedCertificatesVerify(t *testing.T) {
	ca, other := mustAuthority(t, "kubernetes"), mustAuthority(t, "kubernetes")
	pair, err := ca.Issue(serving(), start())
	if err != nil {
		t.Fatalf("Issue: %v", err)
	}
	cases := map[string]struct {
		ca   *Authority
		host string
		at   time.Time
		want bool
	}{
		"ByName":            {ca: ca, host: "kubernetes.default.svc", at: start(), want: true},
		"ByAddress":         {ca: ca, host: "10.0.0.1", at: start(), want: true},
		"ClockBehind":       {ca: ca, host: "kubernetes", at: start().Add(-time.Minute), want: true},
		"OtherName":         {ca: ca, host: "example.org", at: start()},
		"OtherAddress":      {ca: ca, host: "10.0.0.2", at: start()},
		"Expired":           {ca: ca, host: "kubernetes", at: start().Add(91 * 24 * time.Hour)},
		"OtherCAOfSameName": {ca: other, host: "kubernetes", at: start()},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if err := verify(t, tc.ca.Certificate, pair.Certificate, tc.host, tc.at); (err == nil) != tc.want {
				t.Errorf("verifying for %s: got %v, want success: %v", tc.host, err, tc.want)
			}
		})
	}
}

func TestLeafNeverOutlivesItsAuthority(t *testing.T) {
	ca := mustAuthority(t, "kubernetes")
	request := serving()
	request.Lifetime = 2 * tenYears
	pair, err := ca.Issue(request, start())
	if err != nil {
		t.Fatalf("Issue: %v", err)
	}
	certificate, err := ParseCertificate(pair.Certificate)
	if err != nil {
		t.Fatalf("ParseCertificate: %v", err)
	}
	if !certificate.NotAfter.Equal(start().Add(tenYears)) {
		t.Errorf("the leaf is valid until %s, want the end of its CA", certificate.NotAfter)
	}
}

func TestFresh(t *testing.T) {
	ca := mustAuthority(t, "kubernetes")
	pair, err := ca.Issue(serving(), start())
	if err != nil {
		t.Fatalf("Issue: %v", err)
	}
	stranger, err := ca.Issue(serving(), start())
	if err != nil {
		t.Fatalf("Issue: %v", err)
	}
	with := func(change func(*Request)) Request {
		request := serving()
		change(&request)
		return request
	}
	cases := map[string]struct {
		ca      *Authority
		pair    Pair
		request Request
		after   time.Duration
		want    bool
	}{
		"New":             {ca: ca, pair: pair, request: serving(), want: true},
		"BeforeTwoThirds": {ca: ca, pair: pair, request: serving(), after: 59 * 24 * time.Hour, want: true},
		"AfterTwoThirds":  {ca: ca, pair: pair, request: serving(), after: 61 * 24 * time.Hour},
		"OtherCA":         {ca: mustAuthority(t, "kubernetes"), pair: pair, request: serving()},
		"AddressAdded":    {ca: ca, pair: pair, request: with(func(r *Request) { r.IPs = append(r.IPs, net.IPv4(10, 0, 0, 2)) })},
		"NameRemoved":     {ca: ca, pair: pair, request: with(func(r *Request) { r.DNSNames = r.DNSNames[:1] })},
		"OtherUsage":      {ca: ca, pair: pair, request: with(func(r *Request) { r.Usages = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })},
		"OtherGroup":      {ca: ca, pair: pair, request: with(func(r *Request) { r.Organizations = []string{"system:masters"} })},
		"SixteenBytes":    {ca: ca, pair: pair, request: with(func(r *Request) { r.IPs = []net.IP{net.ParseIP("10.0.0.1").To16()} }), want: true},
		"OtherKey":        {ca: ca, pair: Pair{Certificate: pair.Certificate, Key: stranger.Key}, request: serving()},
		"Garbage":         {ca: ca, pair: Pair{Certificate: []byte("x"), Key: []byte("y")}, request: serving()},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			fresh, why := tc.ca.Fresh(tc.pair, tc.request, start().Add(tc.after))
			if fresh != tc.want {
				t.Errorf("Fresh: got %v (%s), want %v", fresh, why, tc.want)
			}
			if fresh != (why == "") {
				t.Errorf("Fresh: got %v with the reason %q", fresh, why)
			}
		})
	}
}

func TestRenewedAuthorityVouchesForWhatItIssuedBefore(t *testing.T) {
	ca := mustAuthority(t, "kubernetes")
	pair, err := ca.Issue(serving(), start())
	if err != nil {
		t.Fatalf("Issue: %v", err)
	}
	renewed, err := ca.Renew(tenYears, start().Add(48*time.Hour))
	if err != nil {
		t.Fatalf("Renew: %v", err)
	}
	if cmp.Equal(renewed.Certificate, ca.Certificate) {
		t.Error("the certificate did not change")
	}
	if diff := cmp.Diff(ca.Key, renewed.Key); diff != "" {
		t.Errorf("the key changed:\n%s", diff)
	}
	if err := verify(t, renewed.Certificate, pair.Certificate, "kubernetes", start().Add(72*time.Hour)); err != nil {
		t.Errorf("a leaf from before does not verify: %v", err)
	}
}

func TestParseAuthorityRefusesWhatIsNotOne(t *testing.T) {
	ca, other := mustAuthority(t, "a"), mustAuthority(t, "b")
	leaf, err := ca.Issue(serving(), start())
	if err != nil {
		t.Fatalf("Issue: %v", err)
	}
	for name, pair := range map[string]Pair{
		"Leaf":     leaf,
		"OtherKey": {Certificate: ca.Certificate, Key: other.Key},
		"Empty":    {},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := ParseAuthority(pair); err == nil {
				t.Error("ParseAuthority: got no error")
			}
		})
	}
}

func TestSigningKeyPartsBelongTogether(t *testing.T) {
	private, public, err := NewSigningKey()
	if err != nil {
		t.Fatalf("NewSigningKey: %v", err)
	}
	key, err := ParseKey(private)
	if err != nil {
		t.Fatalf("ParseKey: %v", err)
	}
	block, _ := pem.Decode(public)
	if block == nil {
		t.Fatal("the public part is not PEM")
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatalf("ParsePKIXPublicKey: %v", err)
	}
	if !key.PublicKey.Equal(parsed) {
		t.Error("the public part belongs to another key")
	}
}

func TestKeysAreReadInBothEncodings(t *testing.T) {
	ca := mustAuthority(t, "kubernetes")
	leaf, err := ca.Issue(serving(), start())
	if err != nil {
		t.Fatalf("Issue: %v", err)
	}
	inPKCS8 := func(pair Pair) Pair {
		key, err := PKCS8(pair.Key)
		if err != nil {
			t.Fatalf("PKCS8: %v", err)
		}
		if !bytes.HasPrefix(key, []byte("-----BEGIN PRIVATE KEY-----")) {
			t.Fatalf("PKCS8: got %.30q", key)
		}
		return Pair{Certificate: pair.Certificate, Key: key}
	}
	again, err := ParseAuthority(inPKCS8(ca.Pair))
	if err != nil {
		t.Fatalf("ParseAuthority: %v", err)
	}
	if fresh, why := again.Fresh(inPKCS8(leaf), serving(), start()); !fresh {
		t.Errorf("the leaf is not fresh: %s", why)
	}
	if twice, once := inPKCS8(inPKCS8(leaf)), inPKCS8(leaf); !cmp.Equal(twice, once) {
		t.Error("a key in PKCS #8 does not stay what it is")
	}
}

func TestParseKeyRefusesOtherKeys(t *testing.T) {
	_, other, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatalf("GenerateKey: %v", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(other)
	if err != nil {
		t.Fatalf("MarshalPKCS8PrivateKey: %v", err)
	}
	for name, data := range map[string][]byte{
		"NotPEM":    []byte("key"),
		"Ed25519":   pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
		"NotPKCS8":  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("key")}),
		"NotSEC1":   pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: []byte("key")}),
		"PublicKey": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := ParseKey(data); err == nil {
				t.Error("ParseKey: got no error")
			}
		})
	}
}

// The ID is the one that kube-apiserver writes into its tokens: the hash of the key in DER.
func TestKeyID(t *testing.T) {
	public := []byte("-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEH6cuzP8XuD5wal6wf9M6xDljTOPL\nX2i8uIp/C/ASqiIGUeeKQtX0/IR3qCXyThP/dbCiHrF3v1cuhBOHY8CLVg==\n-----END PUBLIC KEY-----\n")
	// What kube-apiserver, too, tests this key with.
	if id, err := KeyID(public); err != nil || id != "SoABiieYuNx4UdqYvZRVeuC6SihxgLrhLy9peHMHpTc" {
		t.Errorf("got %s, %v", id, err)
	}
	for _, broken := range [][]byte{nil, []byte("x")} {
		if id, err := KeyID(broken); err == nil {
			t.Errorf("got %s of %q", id, broken)
		}
	}
}
