// Package external provides control planes that exist already and are reached by a kubeconfig that a person put into a
// Secret next to the VirtualCluster. It makes nothing; it checks that the kubeconfig can be used safely and that the
// control plane answers. The VirtualCluster reconciler calls it.
package external

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/controllers/progress"
	"github.com/virtualcluster-io/virtualcluster/controllers/provision"
	"github.com/virtualcluster-io/virtualcluster/internal/kubeconfig"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// Reasons for which an External control plane cannot be used.
const (
	ReasonSecretMissing     = "KubeconfigSecretMissing"
	ReasonKubeconfigInvalid = "KubeconfigInvalid"
	ReasonUnreachable       = "Unreachable"
	ReasonUnauthorized      = "Unauthorized"
)

// timeout is for one request to the control plane.
const timeout = 5 * time.Second

// Provisioner uses control planes that exist already.
type Provisioner struct {
	// Live reads from the API server: Secrets of users are not cached.
	Live client.Reader
}

// Provision implements provision.Provisioner.
func (p *Provisioner) Provision(ctx context.Context, tenant *provision.Tenant) error {
	err := p.check(ctx, tenant)
	ref := reference(tenant)
	tenant.Report(tenancyv1alpha1.ConditionKubeconfigReady, fmt.Sprintf("the kubeconfig in Secret %s works", ref.Name), kubeconfigProblem(err))
	tenant.Report(tenancyv1alpha1.ConditionAPIServerReady, "the control plane answers", err)
	return err
}

// kubeconfigProblem returns the error if it is about the kubeconfig, rather than the control plane it leads to.
func kubeconfigProblem(err error) error {
	if progress.Reason(err) == ReasonUnreachable {
		return nil
	}
	return err
}

// check connects to the control plane and records where it is.
func (p *Provisioner) check(ctx context.Context, tenant *provision.Tenant) error {
	connection, err := p.Connect(ctx, tenant)
	if err != nil {
		return err
	}
	defer connection.Close()
	tenant.VirtualCluster.Status.Endpoint = connection.Host
	ref := reference(tenant)
	tenant.VirtualCluster.Status.KubeconfigSecret = &ref

	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, connection.Host+"/api/v1/namespaces/kube-system", nil)
	if err != nil {
		return &progress.Stall{Reason: ReasonKubeconfigInvalid, Message: fmt.Sprintf("the server %q in the kubeconfig of Secret %s is not a URL", connection.Host, ref.Name)}
	}
	response, err := connection.HTTP.Do(request)
	if err != nil {
		return progress.Because(ReasonUnreachable, fmt.Errorf("the control plane at %s cannot be reached: %w", connection.Host, progress.Stable(err)))
	}
	defer func() { _ = response.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 1<<16))
	switch {
	case response.StatusCode == http.StatusUnauthorized || response.StatusCode == http.StatusForbidden:
		return progress.Because(ReasonUnauthorized, fmt.Errorf("the control plane at %s does not accept the credentials in Secret %s: %s", connection.Host, ref.Name, response.Status))
	case response.StatusCode >= http.StatusInternalServerError:
		return progress.Because(ReasonUnreachable, fmt.Errorf("the control plane at %s answers %s", connection.Host, response.Status))
	default:
		return nil
	}
}

// Connect implements provision.Provisioner.
func (p *Provisioner) Connect(ctx context.Context, tenant *provision.Tenant) (*provision.Connection, error) {
	ref := reference(tenant)
	key := client.ObjectKey{Namespace: tenant.VirtualCluster.Namespace, Name: ref.Name}
	secret := &corev1.Secret{}
	if err := p.Live.Get(ctx, key, secret); apierrors.IsNotFound(err) {
		return nil, &progress.Stall{Reason: ReasonSecretMissing, Message: fmt.Sprintf("Secret %s does not exist; create it with the kubeconfig of the control plane under the key %q", key, ref.Key)}
	} else if err != nil {
		return nil, fmt.Errorf("reading Secret %s: %w", key, err)
	}
	data, ok := secret.Data[ref.Key]
	if !ok {
		return nil, &progress.Stall{Reason: ReasonSecretMissing, Message: fmt.Sprintf("Secret %s has no key %q; put the kubeconfig of the control plane there", key, ref.Key)}
	}
	config, err := kubeconfig.RESTConfig(data)
	if err != nil {
		return nil, &progress.Stall{Reason: ReasonKubeconfigInvalid, Message: fmt.Sprintf("the kubeconfig in Secret %s under the key %q cannot be used: %v", key, ref.Key, err)}
	}
	config.Timeout = timeout
	connection, err := provision.Connect(config)
	if err != nil {
		return nil, &progress.Stall{Reason: ReasonKubeconfigInvalid, Message: fmt.Sprintf("the kubeconfig in Secret %s under the key %q cannot be used: %v", key, ref.Key, err)}
	}
	return connection, nil
}

// Stop implements provision.Provisioner. What was there before stays.
func (p *Provisioner) Stop(context.Context, *provision.Tenant) error { return nil }

// reference returns where the kubeconfig is.
func reference(tenant *provision.Tenant) tenancyv1alpha1.SecretKeyReference {
	ref := tenant.VirtualCluster.Spec.ControlPlane.External.KubeconfigSecret
	ref.Key = cmp.Or(ref.Key, names.KubeconfigKey)
	return ref
}
