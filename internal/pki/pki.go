// Package pki issues certificates. It is pure: an authority, a request and a time go in, PEM comes out. It does not know
// which certificates anybody needs, how long they last or where they are kept: vc-manager keeps those of control planes in
// Secrets (controllers/keystore), the local cluster and the two-world tests in files. All keys are ECDSA P-256.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"slices"
	"time"
)

// backdate makes certificates valid a little before they are made, for clocks that are behind.
const backdate = 5 * time.Minute

// Types of PEM blocks.
const (
	certificateBlock = "CERTIFICATE"
	publicKeyBlock   = "PUBLIC KEY"
	sec1Block        = "EC PRIVATE KEY"
	pkcs8Block       = "PRIVATE KEY"
)

// Pair is a certificate and its private key, PEM encoded.
type Pair struct {
	Certificate, Key []byte
}

// Authority issues certificates.
type Authority struct {
	Pair
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// Request says what a leaf certificate should contain.
type Request struct {
	CommonName    string
	Organizations []string
	DNSNames      []string
	IPs           []net.IP
	Usages        []x509.ExtKeyUsage
	Lifetime      time.Duration
}

// NewAuthority returns a new, self-signed authority.
func NewAuthority(commonName string, lifetime time.Duration, now time.Time) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generating the key of CA %s: %w", commonName, err)
	}
	return selfSign(commonName, key, lifetime, now)
}

// Renew returns the authority with the same name and key and a new certificate. What it has issued stays valid.
func (a *Authority) Renew(lifetime time.Duration, now time.Time) (*Authority, error) {
	return selfSign(a.certificate.Subject.CommonName, a.key, lifetime, now)
}

// RenewAt returns when the authority itself is to be renewed.
func (a *Authority) RenewAt() time.Time { return RenewAt(a.certificate) }

// selfSign issues a CA certificate for the key.
func selfSign(commonName string, key *ecdsa.PrivateKey, lifetime time.Duration, now time.Time) (*Authority, error) {
	serial, err := serialNumber()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: commonName},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(lifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("signing CA %s: %w", commonName, err)
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	return ParseAuthority(Pair{Certificate: encodeCertificate(der), Key: keyPEM})
}

// ParseAuthority reads an authority from PEM.
func ParseAuthority(pair Pair) (*Authority, error) {
	certificate, err := ParseCertificate(pair.Certificate)
	if err != nil {
		return nil, err
	}
	if !certificate.IsCA {
		return nil, fmt.Errorf("certificate of %s is not one of a CA", certificate.Subject.CommonName)
	}
	key, err := ParseKey(pair.Key)
	if err != nil {
		return nil, err
	}
	if !sameKey(certificate, key) {
		return nil, errors.New("certificate and private key do not belong together")
	}
	return &Authority{Pair: pair, certificate: certificate, key: key}, nil
}

// Issue returns a new key and a certificate for it.
func (a *Authority) Issue(request Request, now time.Time) (Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, fmt.Errorf("generating the key of %s: %w", request.CommonName, err)
	}
	certificate, err := a.Sign(request, key.Public(), now)
	if err != nil {
		return Pair{}, err
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return Pair{}, err
	}
	return Pair{Certificate: certificate, Key: keyPEM}, nil
}

// Sign returns a certificate for a key that somebody else holds. It never outlives the authority.
func (a *Authority) Sign(request Request, public crypto.PublicKey, now time.Time) ([]byte, error) {
	serial, err := serialNumber()
	if err != nil {
		return nil, err
	}
	notAfter := now.Add(request.Lifetime)
	if notAfter.After(a.certificate.NotAfter) {
		notAfter = a.certificate.NotAfter
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: request.CommonName, Organization: request.Organizations},
		DNSNames:     request.DNSNames,
		IPAddresses:  request.IPs,
		NotBefore:    now.Add(-backdate),
		NotAfter:     notAfter,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  request.Usages,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, public, a.key)
	if err != nil {
		return nil, fmt.Errorf("signing the certificate of %s: %w", request.CommonName, err)
	}
	return encodeCertificate(der), nil
}

// Fresh says whether a leaf can still be used: it belongs to the authority and the request, and less than two thirds of
// its life have passed. If not, the reason says why, for people.
func (a *Authority) Fresh(pair Pair, request Request, now time.Time) (bool, string) {
	certificate, err := ParseCertificate(pair.Certificate)
	if err != nil {
		return false, "it cannot be read"
	}
	key, err := ParseKey(pair.Key)
	if err != nil || !sameKey(certificate, key) {
		return false, "its private key cannot be used"
	}
	switch {
	case certificate.CheckSignatureFrom(a.certificate) != nil:
		return false, "its CA changed"
	case certificate.Subject.CommonName != request.CommonName,
		!slices.Equal(certificate.Subject.Organization, request.Organizations),
		!slices.Equal(certificate.ExtKeyUsage, request.Usages):
		return false, "its subject or usage changed"
	case !slices.Equal(certificate.DNSNames, request.DNSNames), !equalIPs(certificate.IPAddresses, request.IPs):
		return false, "its names or addresses changed"
	case !now.Before(RenewAt(certificate)):
		return false, "two thirds of its life have passed"
	default:
		return true, ""
	}
}

// RenewAt returns when a certificate is to be renewed: after two thirds of its life.
func RenewAt(certificate *x509.Certificate) time.Time {
	life := certificate.NotAfter.Sub(certificate.NotBefore)
	return certificate.NotBefore.Add(life * 2 / 3)
}

// NewSigningKey returns a key for service account tokens: its private and its public part.
func NewSigningKey() (private, public []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("generating the service account key: %w", err)
	}
	private, err = encodeKey(key)
	if err != nil {
		return nil, nil, err
	}
	public, err = EncodePublicKey(key.Public())
	if err != nil {
		return nil, nil, err
	}
	return private, public, nil
}

// KeyID returns the ID that kube-apiserver writes into the tokens it signs with the key of the given public key (kid).
func KeyID(public []byte) (string, error) {
	block, _ := pem.Decode(public)
	if block == nil || block.Type != publicKeyBlock {
		return "", errors.New("not a public key in PEM")
	}
	sum := sha256.Sum256(block.Bytes)
	return base64.RawURLEncoding.EncodeToString(sum[:]), nil
}

// EncodePublicKey returns a public key in PEM.
func EncodePublicKey(key crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding a public key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: publicKeyBlock, Bytes: der}), nil
}

// encodeKey returns a private key in PEM.
func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding a private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: sec1Block, Bytes: der}), nil
}

// PKCS8 returns a private key in that encoding, for files whose readers expect it; certificates come with SEC 1 keys.
func PKCS8(key []byte) ([]byte, error) {
	parsed, err := ParseKey(key)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(parsed)
	if err != nil {
		return nil, fmt.Errorf("encoding a private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pkcs8Block, Bytes: der}), nil
}

// ParseKey reads an ECDSA private key from PEM, in the encoding that this package issues or in PKCS #8.
func ParseKey(data []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("private key is not PEM")
	}
	if block.Type == pkcs8Block {
		return parsePKCS8(block.Bytes)
	}
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("reading a private key: %w", err)
	}
	return key, nil
}

func parsePKCS8(der []byte) (*ecdsa.PrivateKey, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("reading a private key: %w", err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("reading a private key: %T is not an ECDSA key", parsed)
	}
	return key, nil
}

// ParseCertificate reads the first certificate of PEM data.
func ParseCertificate(data []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != certificateBlock {
		return nil, errors.New("certificate is not PEM")
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("reading a certificate: %w", err)
	}
	return certificate, nil
}

// encodeCertificate returns a certificate in PEM.
func encodeCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: certificateBlock, Bytes: der})
}

// sameKey says whether the certificate is for the key.
func sameKey(certificate *x509.Certificate, key *ecdsa.PrivateKey) bool {
	return key.PublicKey.Equal(certificate.PublicKey)
}

// equalIPs compares addresses whether they are stored in 4 or in 16 bytes.
func equalIPs(a, b []net.IP) bool {
	return slices.EqualFunc(a, b, net.IP.Equal)
}

// serialNumber returns 127 random bits.
func serialNumber() (*big.Int, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("drawing a serial number: %w", err)
	}
	return serial, nil
}
