package virtualcluster

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/version"
	"sigs.k8s.io/controller-runtime/pkg/client"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/controllers/progress"
	"github.com/virtualcluster-io/virtualcluster/controllers/provision"
	"github.com/virtualcluster-io/virtualcluster/internal/connection"
)

// Reasons for which the identity of a control plane is not verified.
const (
	reasonUnreachable     = "Unreachable"
	reasonStarting        = "Starting"
	reasonIdentityChanged = "IdentityChanged"
)

const (
	// tenantTimeout is for all requests of one step to one tenant.
	tenantTimeout = 15 * time.Second
	// startingDelay and unreachableDelay are when to look again at a control plane that has never been reached, and at
	// one that has.
	startingDelay    = 500 * time.Millisecond
	unreachableDelay = 5 * time.Second
)

// verifyIdentity records the UID of the tenant's kube-system namespace at the first contact, and refuses a control plane
// that has another one later: it came back empty or was restored from something else, and what the syncer made for the
// first one must not be taken for leftovers.
func (r *Reconciler) verifyIdentity(ctx context.Context, tenant *provision.Tenant) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, tenantTimeout)
	defer cancel()
	c, err := r.connect(ctx, tenant)
	if err != nil {
		return "", err
	}
	system := &corev1.Namespace{}
	if err := c.Get(ctx, client.ObjectKey{Name: metav1.NamespaceSystem}, system); err != nil {
		return "", unreachable(tenant, err)
	}
	if len(system.UID) > connection.MaxText {
		return "", unreachable(tenant, fmt.Errorf("the UID of namespace %s has %d characters", system.Name, len(system.UID)))
	}
	reported, err := serverVersion(ctx, tenant.Connection)
	if err != nil {
		return "", unreachable(tenant, err)
	}

	status := &tenant.VirtualCluster.Status
	status.Version = reported
	if tenant.Images.Version == "" {
		// A ClusterVersion of raw templates does not say which version it is.
		tenant.Images.Version = reported
	}
	switch status.ControlPlaneUID {
	case "":
		status.ControlPlaneUID = string(system.UID)
	case string(system.UID):
	default:
		return "", &progress.Stall{
			Reason: reasonIdentityChanged,
			Message: fmt.Sprintf("the control plane has the identity %s, not %s as before: its data was lost or replaced, so nothing is synced; "+
				"restore it, or, to accept that what was there is lost, remove status.controlPlaneUID (kubectl edit --subresource=status)", system.UID, status.ControlPlaneUID),
		}
	}
	return fmt.Sprintf("the control plane is the one with the UID %s", system.UID), nil
}

// connect returns a client of the tenant's control plane, over the one connection of this reconciliation.
func (r *Reconciler) connect(ctx context.Context, tenant *provision.Tenant) (client.Client, error) {
	if tenant.Connection == nil {
		provisioner, err := r.provisioner(tenant)
		if err != nil {
			return nil, err
		}
		if tenant.Connection, err = provisioner.Connect(ctx, tenant); err != nil {
			return nil, err
		}
	}
	c, err := tenant.Connection.Client(tenantScheme(), tenantMapper())
	if err != nil {
		return nil, fmt.Errorf("making a client for the tenant: %w", err)
	}
	return c, nil
}

// unreachable says that a control plane does not answer. A Dedicated one is about to: it has just become ready, and its
// Service takes a moment to follow.
func unreachable(tenant *provision.Tenant, err error) error {
	err = progress.Stable(err)
	if controlPlaneType(tenant.VirtualCluster) == tenancyv1alpha1.External {
		return progress.Because(reasonUnreachable, fmt.Errorf("asking the control plane who it is: %w", err))
	}
	if tenant.Established() {
		return &progress.Wait{Reason: reasonUnreachable, Message: fmt.Sprintf("vc-manager cannot reach the control plane: %v", err), After: unreachableDelay}
	}
	message := "the control plane is starting"
	if !apierrors.IsNotFound(err) {
		message = fmt.Sprintf("the control plane does not answer yet: %v", err)
	}
	return &progress.Wait{Reason: reasonStarting, Message: message, After: startingDelay}
}

// serverVersion asks the API server for its version.
func serverVersion(ctx context.Context, c *provision.Connection) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.Host+"/version", nil)
	if err != nil {
		return "", fmt.Errorf("asking for the version: %w", err)
	}
	response, err := c.HTTP.Do(request)
	if err != nil {
		return "", fmt.Errorf("asking for the version: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	var info version.Info
	if err := json.NewDecoder(response.Body).Decode(&info); err != nil {
		return "", fmt.Errorf("reading the version: %w", err)
	}
	return connection.Shorten(info.GitVersion), nil
}
