package vnagent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/virtualcluster-io/virtualcluster/internal/connection"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

const (
	// maxToken bounds a token; those of service accounts have about a thousand bytes.
	maxToken = 16 << 10
	// maxReview bounds the answer of a tenant's API server.
	maxReview = 256 << 10
	// reviewTTL is how long a verdict holds, as with a kubelet; issuerTTL is how long an issuer is believed.
	reviewTTL = 10 * time.Second
	issuerTTL = 10 * time.Minute
	// lookupRate and lookupBurst bound the reads of the super cluster that strangers can cause by naming keys, maxReviews
	// the questions to one API server at a time.
	lookupRate  = 20
	lookupBurst = 100
	maxReviews  = 16
)

// tokens finds out whose a service account token is and whether it opens measurements. The ID of the signing key, which
// every token names, leads to one tenant's API server, and that decides: it gets the token and is asked what it allows. So
// nothing that a token claims is believed, a token goes nowhere but to the API server that the caller named, and an API
// server that says yes to everything gives away its own tenant's measurements only.
type tokens struct {
	super               kubernetes.Interface
	namespace, nodeName string

	issuers recent[string, *issuer]
	reviews recent[review, names.TenantID]
	lookups flowcontrol.PassiveRateLimiter
}

// issuer is a tenant's API server.
type issuer struct {
	tenant  names.TenantID
	url     string
	client  *http.Client
	reviews chan struct{}
}

// review is a question to an API server. The token itself is not kept.
type review struct {
	keyID string
	token [sha256.Size]byte
	verb  Verb
}

func newTokens(super kubernetes.Interface, options Options) *tokens {
	return &tokens{
		super: super, namespace: options.Namespace, nodeName: options.NodeName,
		issuers: recent[string, *issuer]{ttl: issuerTTL, timeout: lookupTimeout},
		reviews: recent[review, names.TenantID]{ttl: reviewTTL, timeout: 2 * lookupTimeout},
		lookups: flowcontrol.NewTokenBucketPassiveRateLimiter(lookupRate, lookupBurst),
	}
}

func unauthorized() *RequestError {
	return &RequestError{Code: http.StatusUnauthorized, Message: "Unauthorized"}
}

// bearer returns the token of a request without a client certificate.
func bearer(r *http.Request) (string, bool) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	certificate := r.TLS != nil && len(r.TLS.PeerCertificates) > 0
	return token, !certificate && strings.EqualFold(scheme, "Bearer")
}

// tenant returns whose token it is, provided that the tenant allows its holder what the verb is about.
func (t *tokens) tenant(ctx context.Context, token string, verb Verb) (names.TenantID, error) {
	keyID, err := keyIDOf(token)
	if err != nil {
		return "", unauthorized()
	}
	question := review{keyID: keyID, token: sha256.Sum256([]byte(token)), verb: verb}
	return t.reviews.get(ctx, question, func(ctx context.Context) (names.TenantID, error) {
		issuer, err := t.issuers.get(ctx, keyID, func(ctx context.Context) (*issuer, error) { return t.issuer(ctx, keyID) })
		if err != nil {
			return "", err
		}
		select {
		case issuer.reviews <- struct{}{}:
			defer func() { <-issuer.reviews }()
			return issuer.tenant, issuer.review(ctx, token, t.nodeName, verb)
		default:
			return "", busy()
		}
	})
}

// keyIDOf returns the ID of the key that the token says it is signed with.
func keyIDOf(token string) (string, error) {
	parts := strings.Split(token, ".")
	if len(token) > maxToken || len(parts) != 3 {
		return "", errors.New("not a token")
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[0])
	if err != nil {
		return "", fmt.Errorf("decoding the head of a token: %w", err)
	}
	header := struct {
		KeyID string `json:"kid"`
	}{}
	if err := json.Unmarshal(text, &header); err != nil {
		return "", fmt.Errorf("reading the head of a token: %w", err)
	}
	if header.KeyID == "" {
		return "", errors.New("the token names no key")
	}
	return header.KeyID, nil
}

// issuer returns the API server whose tokens are signed with the key, as vc-manager has written.
func (t *tokens) issuer(ctx context.Context, keyID string) (*issuer, error) {
	if !t.lookups.TryAccept() {
		return nil, busy()
	}
	name := names.VNAgentTenantConfigMap(keyID)
	found, err := t.super.CoreV1().ConfigMaps(t.namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, unauthorized()
	}
	if err != nil {
		return nil, fmt.Errorf("getting ConfigMap %s: %w", name, err)
	}
	tenant, address := names.TenantID(found.Data[names.VNAgentTenantKey]), found.Data[names.VNAgentAddressKey]
	ca := []byte(found.Data[names.VNAgentServerCAKey])
	if len(ca) == 0 || tenant == "" || address == "" {
		return nil, fmt.Errorf("reading ConfigMap %s: it is incomplete", name)
	}
	client, config, err := connection.New(connection.Options{MaxAnswer: maxReview, Config: &rest.Config{
		Host:            found.Data[names.VNAgentServerKey],
		TLSClientConfig: rest.TLSClientConfig{CAData: ca},
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, address)
		},
	}})
	if err != nil {
		return nil, fmt.Errorf("reading ConfigMap %s: the API server cannot be connected to: %w", name, err)
	}
	return &issuer{
		tenant: tenant, client: client,
		url:     config.Host + "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
		reviews: make(chan struct{}, maxReviews),
	}, nil
}

// review asks, as the holder of the token, whether the holder may do what a kubelet asks the right for.
func (i *issuer) review(ctx context.Context, token, nodeName string, verb Verb) error {
	subresource, _, _ := strings.Cut(string(verb), "/")
	question := authorizationv1.SelfSubjectAccessReview{
		TypeMeta: metav1.TypeMeta{APIVersion: authorizationv1.SchemeGroupVersion.String(), Kind: "SelfSubjectAccessReview"},
		Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{
			Verb: "get", Version: "v1", Resource: "nodes", Subresource: subresource, Name: nodeName,
		}},
	}
	body, err := json.Marshal(question)
	if err != nil {
		return fmt.Errorf("encoding a review: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, i.url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("asking the API server of %s: %w", i.tenant, err)
	}
	request.Close = true // questions are rare, and an issuer is forgotten without being told
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "application/json")
	request.Header.Set("Authorization", "Bearer "+token)
	response, err := i.client.Do(request)
	if err != nil {
		return fmt.Errorf("asking the API server of %s: %w", i.tenant, err)
	}
	defer func() { _ = response.Body.Close() }()
	switch response.StatusCode {
	case http.StatusCreated:
	case http.StatusUnauthorized:
		return unauthorized()
	case http.StatusForbidden:
		return forbidden(subresource)
	default:
		return fmt.Errorf("asking the API server of %s: it answered %s", i.tenant, response.Status)
	}
	answer := authorizationv1.SelfSubjectAccessReview{}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return fmt.Errorf("reading the answer of the API server of %s: %w", i.tenant, err)
	}
	if !answer.Status.Allowed {
		return forbidden(subresource)
	}
	return nil
}

func busy() *RequestError {
	return &RequestError{Code: http.StatusTooManyRequests, Message: messageBusy}
}

func forbidden(subresource string) *RequestError {
	return &RequestError{Code: http.StatusForbidden, Message: fmt.Sprintf("Forbidden (verb=get, resource=nodes, subresource=%s)", subresource)}
}
