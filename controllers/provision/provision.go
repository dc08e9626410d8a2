// Package provision defines what a provisioner of control planes is, and what it is told about the tenant it works for.
// The ways to provide one are in the packages below it. It reconciles nothing itself; the VirtualCluster reconciler
// calls a provisioner as one of its steps.
package provision

import (
	"context"
	"net/http"
	"net/netip"
	"time"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/controllers/images"
	"github.com/virtualcluster-io/virtualcluster/controllers/progress"
	"github.com/virtualcluster-io/virtualcluster/internal/connection"
	"github.com/virtualcluster-io/virtualcluster/internal/iprange"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// Provisioner provides control planes of one type. Everything it makes lives in the tenant's root namespace.
type Provisioner interface {
	// Provision makes the control plane what the VirtualCluster asks for. It returns nil when it is up, and otherwise an
	// error of package progress. It reports in the conditions and the status of the tenant's VirtualCluster.
	Provision(ctx context.Context, tenant *Tenant) error
	// Connect returns a connection with the rights of a cluster-admin.
	Connect(ctx context.Context, tenant *Tenant) (*Connection, error)
	// Stop stops the control plane before its namespace is removed. It returns nil when nothing runs any more, and
	// otherwise an error of package progress.
	Stop(ctx context.Context, tenant *Tenant) error
}

// Tenant is what one reconciliation knows about a tenant.
type Tenant struct {
	// ID of the tenant, which is the name of its root namespace.
	ID names.TenantID
	// RootUID is the UID of the root namespace.
	RootUID types.UID
	// VirtualCluster is a copy whose status collects what is found out; it is written once, at the end.
	VirtualCluster *tenancyv1alpha1.VirtualCluster
	// Version is the ClusterVersion to run; nil for an External control plane.
	Version *tenancyv1alpha1.ClusterVersion
	// Images names the images that the ClusterVersion does not.
	Images images.Source
	// PullSecret names the Secret in the root namespace with credentials for the images of the control plane. It is empty
	// when there are to be none.
	PullSecret string
	// ServiceRanges are the ranges that the tenant's API server hands out cluster IPs from: its own, or the super
	// cluster's when it has none.
	ServiceRanges iprange.Ranges
	// FurtherRanges are ranges that the tenant's API server gets by ServiceCIDR objects.
	FurtherRanges []iprange.Ranges
	// APIServerIPs are the cluster IPs by which pods reach the tenant's API server. DNSIP is that of the cluster DNS, not valid
	// when any will do.
	APIServerIPs []netip.Addr
	DNSIP        netip.Addr
	// Now is the time of this reconciliation.
	Now time.Time
	// Event records something that happened.
	Event func(kind, reason, message string)
	// Connection to the control plane, once a step has opened one; closed at the end.
	Connection *Connection

	checkAfter time.Duration
}

// Labels of every object that is made for the tenant by vc-manager.
func (t *Tenant) Labels() map[string]string {
	return map[string]string{names.LabelTenant: string(t.ID), names.LabelManagedBy: names.Manager}
}

// Annotations of every object that is made for the tenant by vc-manager; they lead back to the VirtualCluster.
func (t *Tenant) Annotations() map[string]string {
	return map[string]string{
		names.AnnotationVirtualCluster:    client.ObjectKeyFromObject(t.VirtualCluster).String(),
		names.AnnotationVirtualClusterUID: string(t.VirtualCluster.UID),
	}
}

// Established says whether the control plane has been reached before, so that others rely on its keys.
func (t *Tenant) Established() bool { return t.VirtualCluster.Status.ControlPlaneUID != "" }

// CheckAfter asks for another reconciliation after the given time, if none happens earlier for another reason.
func (t *Tenant) CheckAfter(d time.Duration) {
	if d > 0 && (t.checkAfter == 0 || d < t.checkAfter) {
		t.checkAfter = d
	}
}

// NextCheck returns the shortest time that was asked for, or zero.
func (t *Tenant) NextCheck() time.Duration { return t.checkAfter }

// Report sets a condition from the outcome of what it is about: True with the message when err is nil, otherwise False
// with the reason and the message of the error.
func (t *Tenant) Report(condition, message string, err error) {
	c := metav1.Condition{
		Type:               condition,
		Status:             metav1.ConditionTrue,
		Reason:             "Succeeded",
		Message:            message,
		ObservedGeneration: t.VirtualCluster.Generation,
		LastTransitionTime: metav1.NewTime(t.Now),
	}
	if err != nil {
		c.Status = metav1.ConditionFalse
		c.Reason = progress.Reason(err)
		c.Message = connection.Shorten(err.Error())
	}
	apimeta.SetStatusCondition(&t.VirtualCluster.Status.Conditions, c)
}

// Connection is an open way to a control plane, which is not trusted. It must be closed.
type Connection struct {
	// Host is the URL of the API server, HTTP carries credentials.
	Host string
	HTTP *http.Client

	config *rest.Config
}

// maxAnswer bounds an answer of a control plane. Only single objects are read, and several at a time from as many tenants.
const maxAnswer = 4 << 20

// Connect returns a connection with the configuration. It talks to nobody. Its errors are as those of connection.New.
func Connect(config *rest.Config) (*Connection, error) {
	config = rest.CopyConfig(config)
	config.QPS = -1
	h, config, err := connection.New(connection.Options{Config: config, MaxAnswer: maxAnswer})
	if err != nil {
		return nil, err
	}
	return &Connection{Host: config.Host, HTTP: h, config: config}, nil
}

// Client returns a client for the kinds that the mapper knows, so that no discovery is needed.
func (c *Connection) Client(scheme *runtime.Scheme, mapper apimeta.RESTMapper) (client.Client, error) {
	return client.New(c.config, client.Options{HTTPClient: c.HTTP, Scheme: scheme, Mapper: mapper}) //nolint:forbidigo // Its HTTP client is that of package connection.
}

// Close closes connections that are kept for reuse. A connection that was never opened needs no closing.
func (c *Connection) Close() {
	if c != nil {
		c.HTTP.CloseIdleConnections()
	}
}
