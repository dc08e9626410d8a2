// Package keystore keeps keys and certificates in Secrets: it makes what is missing, renews what gets old and never
// replaces a key that is in use. It does not know which certificates there are: the provisioner and controllers/trust
// say so, and internal/pki issues them.
package keystore

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtualcluster-io/virtualcluster/controllers/progress"
	"github.com/virtualcluster-io/virtualcluster/internal/pki"
)

// authorityLifetime is how long a CA certificate is valid.
const authorityLifetime = 10 * 365 * 24 * time.Hour

// Keys in the Secrets of a Store.
const (
	CertificateKey   = corev1.TLSCertKey
	PrivateKeyKey    = corev1.TLSPrivateKeyKey
	AuthorityKey     = corev1.ServiceAccountRootCAKey
	SigningKey       = "sa.key"
	SigningPublicKey = "sa.pub"
)

// ReasonKeyLost is the reason of a Stall over a key that must not be made again by accident.
const ReasonKeyLost = "KeyLost"

// Store keeps keys and certificates in the Secrets of one namespace.
type Store struct {
	// Client reads from a cache and writes; Live reads from the API server.
	Client client.Client
	Live   client.Reader
	// Namespace of the Secrets, and the Labels and Annotations they get.
	Namespace           string
	Labels, Annotations map[string]string
	// Established says whether the keys have been in use: a CA or signing key that is gone is then not replaced, because
	// nobody would trust the new one. It is asked before a key is made, and must not answer from a cache that may be behind.
	// Nil means never.
	Established func(context.Context) (bool, error)
	// Now is the time of this reconciliation.
	Now time.Time
	// Issued is told of every leaf that was made or renewed, and why.
	Issued func(name, why string)
}

// Authority returns the CA kept in the named Secret and makes it when it is not there.
func (s *Store) Authority(ctx context.Context, name, commonName string) (*pki.Authority, error) {
	secret, err := s.get(ctx, name)
	if err != nil {
		return nil, err
	}
	if secret == nil {
		authority, err := pki.NewAuthority(commonName, authorityLifetime, s.Now)
		if err != nil {
			return nil, err
		}
		secret, err = s.createKey(ctx, s.secret(name, corev1.SecretTypeTLS, authorityData(authority.Pair)))
		if err != nil {
			return nil, err
		}
	}
	authority, err := pki.ParseAuthority(pairIn(secret))
	if err != nil {
		return nil, unusable(secret, err)
	}
	if s.Now.Before(authority.RenewAt()) {
		return authority, nil
	}
	renewed, err := authority.Renew(authorityLifetime, s.Now)
	if err != nil {
		return nil, err
	}
	return renewed, s.update(ctx, secret, authorityData(renewed.Pair), "two thirds of its life have passed")
}

// Leaf returns the certificate kept in the named Secret, after issuing it when it is missing or not fresh. The Secret
// also holds the certificate of the CA that verifies the other side, which need not be the one that signed the leaf.
func (s *Store) Leaf(ctx context.Context, name string, ca *pki.Authority, request pki.Request, verify []byte) (pki.Pair, error) {
	secret, err := s.get(ctx, name)
	if err != nil {
		return pki.Pair{}, err
	}
	why := "it was not there"
	if secret != nil {
		pair := pairIn(secret)
		if certificate, err := pki.ParseCertificate(pair.Certificate); err == nil && certificate.IsCA {
			return pki.Pair{}, unusable(secret, errors.New("it is one of a CA"))
		}
		fresh, reason := ca.Fresh(pair, request, s.Now)
		if fresh && string(secret.Data[AuthorityKey]) == string(verify) {
			return pair, nil
		}
		if why = reason; fresh {
			return pair, s.update(ctx, secret, leafData(pair, verify), "the CA it is kept with changed")
		}
	}
	pair, err := ca.Issue(request, s.Now)
	if err != nil {
		return pki.Pair{}, err
	}
	if secret != nil {
		return pair, s.update(ctx, secret, leafData(pair, verify), why)
	}
	desired := s.secret(name, corev1.SecretTypeTLS, leafData(pair, verify))
	if err := s.Client.Create(ctx, desired); err != nil {
		return pki.Pair{}, fmt.Errorf("creating Secret %s/%s: %w", s.Namespace, name, err)
	}
	s.issued(name, why)
	return pair, nil
}

// ServiceAccountKey returns the key that signs service account tokens, and makes it when it is not there.
func (s *Store) ServiceAccountKey(ctx context.Context, name string) (private, public []byte, err error) {
	secret, err := s.get(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	if secret == nil {
		private, public, err := pki.NewSigningKey()
		if err != nil {
			return nil, nil, err
		}
		data := map[string][]byte{SigningKey: private, SigningPublicKey: public}
		if secret, err = s.createKey(ctx, s.secret(name, corev1.SecretTypeOpaque, data)); err != nil {
			return nil, nil, err
		}
	}
	if _, err := pki.ParseKey(secret.Data[SigningKey]); err != nil {
		return nil, nil, unusable(secret, err)
	}
	return secret.Data[SigningKey], secret.Data[SigningPublicKey], nil
}

// get returns the Secret from the cache, or nil.
func (s *Store) get(ctx context.Context, name string) (*corev1.Secret, error) {
	secret := &corev1.Secret{}
	err := s.Client.Get(ctx, types.NamespacedName{Namespace: s.Namespace, Name: name}, secret)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading Secret %s/%s: %w", s.Namespace, name, err)
	}
	return secret, nil
}

// createKey stores a key that must stay what it is. When the cache was behind and the Secret is there already, the one
// that is there wins.
func (s *Store) createKey(ctx context.Context, desired *corev1.Secret) (*corev1.Secret, error) {
	key := client.ObjectKeyFromObject(desired)
	existing := &corev1.Secret{}
	err := s.Live.Get(ctx, key, existing)
	if err == nil {
		return existing, nil
	}
	if !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("reading Secret %s: %w", key, err)
	}
	if s.Established != nil {
		established, err := s.Established(ctx)
		if err != nil {
			return nil, err
		}
		if established {
			return nil, &progress.Stall{
				Reason:  ReasonKeyLost,
				Message: fmt.Sprintf("Secret %s with a key that is in use is gone; restore it from a backup, or delete the VirtualCluster and create it again", key),
			}
		}
	}
	err = s.Client.Create(ctx, desired)
	if apierrors.IsAlreadyExists(err) {
		err = s.Live.Get(ctx, key, desired)
	}
	if err != nil {
		return nil, fmt.Errorf("creating Secret %s: %w", key, err)
	}
	return desired, nil
}

// update writes new data, unless somebody changed the Secret in the meantime.
func (s *Store) update(ctx context.Context, secret *corev1.Secret, data map[string][]byte, why string) error {
	changed := secret.DeepCopy()
	changed.Data = data
	if err := s.Client.Update(ctx, changed); err != nil {
		return fmt.Errorf("updating Secret %s/%s: %w", secret.Namespace, secret.Name, err)
	}
	s.issued(secret.Name, why)
	return nil
}

// secret returns a Secret with the labels and annotations of the store.
func (s *Store) secret(name string, kind corev1.SecretType, data map[string][]byte) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: name, Labels: s.Labels, Annotations: s.Annotations},
		Type:       kind,
		Data:       data,
	}
}

func (s *Store) issued(name, why string) {
	if s.Issued != nil {
		s.Issued(name, why)
	}
}

// authorityData is what the Secret of a CA holds.
func authorityData(pair pki.Pair) map[string][]byte {
	return map[string][]byte{CertificateKey: pair.Certificate, PrivateKeyKey: pair.Key}
}

// pairIn is the certificate and the key that a Secret of either kind holds.
func pairIn(secret *corev1.Secret) pki.Pair {
	return pki.Pair{Certificate: secret.Data[CertificateKey], Key: secret.Data[PrivateKeyKey]}
}

// leafData is what the Secret of a leaf holds: also the CA that verifies the other side.
func leafData(pair pki.Pair, verify []byte) map[string][]byte {
	data := authorityData(pair)
	data[AuthorityKey] = verify
	return data
}

// unusable says that a Secret holds something that cannot be used. It is never overwritten.
func unusable(secret *corev1.Secret, err error) error {
	return &progress.Stall{
		Reason:  ReasonKeyLost,
		Message: fmt.Sprintf("Secret %s/%s holds a key or certificate that cannot be used: %v; restore it from a backup", secret.Namespace, secret.Name, err),
	}
}
