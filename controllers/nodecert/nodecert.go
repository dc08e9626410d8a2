// Package nodecert signs the serving certificates of vn-agents. Each vn-agent asks by a CertificateSigningRequest; one
// that asks for anything but the names and addresses of the node it runs on is denied, with the reason. The rules are
// pure and in rules.go.
package nodecert

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtualcluster-io/virtualcluster/controllers/trust"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/internal/pki"
)

const (
	// defaultLifetime is for requests that name none, longestLifetime for those that ask for more.
	defaultLifetime = 30 * 24 * time.Hour
	longestLifetime = 90 * 24 * time.Hour

	reasonApproved = "AutoApproved"
	reasonDenied   = "NotThisNode"
)

//+kubebuilder:rbac:groups=certificates.k8s.io,resources=certificatesigningrequests,verbs=get;list;watch
//+kubebuilder:rbac:groups=certificates.k8s.io,resources=certificatesigningrequests/approval;certificatesigningrequests/status,verbs=update
//+kubebuilder:rbac:groups=certificates.k8s.io,resources=signers,resourceNames=tenancy.x-k8s.io/vn-agent-serving,verbs=approve;sign

// Reconciler approves or denies requests and signs those that are approved.
type Reconciler struct {
	// Client reads from a cache of the requests for our signer.
	Client client.Client
	// Trust holds the authority that signs.
	Trust *trust.Authorities
	// Clock tells the time.
	Clock clock.PassiveClock
}

// Setup adds the reconciler to a manager.
func (r *Reconciler) Setup(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).
		Named("nodecert").
		For(&certificatesv1.CertificateSigningRequest{}).
		Complete(r)
}

// Reconcile implements reconcile.Reconciler.
func (r *Reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	err := r.reconcile(ctx, request)
	if apierrors.IsConflict(err) {
		// The cache was behind; what it lacks comes as an event.
		return ctrl.Result{}, nil
	}
	return ctrl.Result{}, err
}

func (r *Reconciler) reconcile(ctx context.Context, request ctrl.Request) error {
	csr := &certificatesv1.CertificateSigningRequest{}
	if err := r.Client.Get(ctx, request.NamespacedName, csr); err != nil {
		return client.IgnoreNotFound(err)
	}
	if csr.Spec.SignerName != names.VNAgentSigner || len(csr.Status.Certificate) > 0 || decided(csr, certificatesv1.CertificateDenied) || decided(csr, certificatesv1.CertificateFailed) {
		return nil
	}
	// Whoever approved it, only a request that keeps the rules is signed.
	x509Request, refusal, err := r.examine(ctx, csr)
	if err != nil {
		return err
	}
	if refusal != nil {
		if decided(csr, certificatesv1.CertificateApproved) {
			return r.fail(ctx, csr, refusal)
		}
		return r.decide(ctx, csr, certificatesv1.CertificateDenied, reasonDenied, refusal.Error())
	}
	if !decided(csr, certificatesv1.CertificateApproved) {
		if err := r.decide(ctx, csr, certificatesv1.CertificateApproved, reasonApproved, "Asked for by the vn-agent of this node"); err != nil {
			return err
		}
	}
	return r.sign(ctx, csr, x509Request)
}

// examine returns the request, or a refusal that says what is wrong with it.
func (r *Reconciler) examine(ctx context.Context, csr *certificatesv1.CertificateSigningRequest) (request *x509.CertificateRequest, refusal, err error) {
	nodeName, refusal := requester(csr, r.Trust.Namespace)
	if refusal != nil {
		return nil, refusal, nil
	}
	node := &corev1.Node{}
	if err := r.Client.Get(ctx, client.ObjectKey{Name: nodeName}, node); apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("node %s does not exist", nodeName), nil
	} else if err != nil {
		return nil, nil, fmt.Errorf("reading node %s: %w", nodeName, err)
	}
	request, refusal = parse(csr)
	if refusal != nil {
		return nil, refusal, nil
	}
	return request, check(csr, request, node), nil
}

// sign issues the certificate.
func (r *Reconciler) sign(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, request *x509.CertificateRequest) error {
	now := r.Clock.Now()
	ca, err := r.Trust.ServingCA(ctx, now)
	if err != nil {
		return err
	}
	lifetime := defaultLifetime
	if csr.Spec.ExpirationSeconds != nil {
		lifetime = min(time.Duration(*csr.Spec.ExpirationSeconds)*time.Second, longestLifetime)
	}
	certificate, err := ca.Sign(pki.Request{
		CommonName:    request.Subject.CommonName,
		Organizations: request.Subject.Organization,
		DNSNames:      request.DNSNames,
		IPs:           request.IPAddresses,
		Usages:        []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		Lifetime:      lifetime,
	}, request.PublicKey, now)
	if err != nil {
		return err
	}
	signed := csr.DeepCopy()
	signed.Status.Certificate = certificate
	if err := r.Client.Status().Update(ctx, signed); err != nil {
		return fmt.Errorf("storing the certificate: %w", err)
	}
	return nil
}

// decide approves or denies a request.
func (r *Reconciler) decide(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, kind certificatesv1.RequestConditionType, reason, message string) error {
	appendCondition(csr, r.Clock.Now(), kind, reason, message)
	if err := r.Client.SubResource("approval").Update(ctx, csr); err != nil {
		return fmt.Errorf("deciding on a certificate request: %w", err)
	}
	return nil
}

// fail marks a request as one that will never be signed although somebody approved it.
func (r *Reconciler) fail(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, refusal error) error {
	appendCondition(csr, r.Clock.Now(), certificatesv1.CertificateFailed, reasonDenied, refusal.Error())
	if err := r.Client.Status().Update(ctx, csr); err != nil {
		return fmt.Errorf("marking a certificate request as failed: %w", err)
	}
	return nil
}

func appendCondition(csr *certificatesv1.CertificateSigningRequest, now time.Time, kind certificatesv1.RequestConditionType, reason, message string) {
	csr.Status.Conditions = append(csr.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
		Type: kind, Status: corev1.ConditionTrue, Reason: reason, Message: message, LastUpdateTime: metav1.NewTime(now),
	})
}

// decided says whether a request has a condition.
func decided(csr *certificatesv1.CertificateSigningRequest, kind certificatesv1.RequestConditionType) bool {
	for _, condition := range csr.Status.Conditions {
		if condition.Type == kind {
			return true
		}
	}
	return false
}
