// Package virtualcluster reconciles VirtualClusters: an ordered list of small steps works on one copy of the object, and
// its status is written once, at the end. Each step is in a file of its own. It never waits inside a worker: what is not
// there yet is told by a watch. The ways to provide a control plane are in package provision and below.
package virtualcluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/controllers/images"
	"github.com/virtualcluster-io/virtualcluster/controllers/progress"
	"github.com/virtualcluster-io/virtualcluster/controllers/provision"
	"github.com/virtualcluster-io/virtualcluster/controllers/servicecidr"
	"github.com/virtualcluster-io/virtualcluster/controllers/trust"
	"github.com/virtualcluster-io/virtualcluster/internal/connection"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

const (
	// checkInterval is how often a tenant is looked at although nothing has changed in the super cluster, mainly to see
	// whether its control plane is still the one that was pinned.
	checkInterval = 10 * time.Minute
	// conflictDelay is when to try again after somebody else wrote the same object.
	conflictDelay = 50 * time.Millisecond
)

// Reconciler reconciles VirtualClusters.
type Reconciler struct {
	// Client reads from a cache and writes; Live reads from the API server.
	Client client.Client
	Live   client.Reader
	// Provisioners by the type of control plane they provide.
	Provisioners map[tenancyv1alpha1.ControlPlaneType]provision.Provisioner
	// Trust holds the authorities of vn-agent.
	Trust *trust.Authorities
	// CIDRs gives tenants their service ranges.
	CIDRs *servicecidr.Allocator
	// Images are the defaults of what ClusterVersions say about images.
	Images images.Defaults
	// Namespace of vc-manager, where the Secrets are that pull images.
	Namespace string
	// Events records what happened.
	Events events.EventRecorder
	// Metrics counts it.
	Metrics *Metrics
	// Clock tells the time.
	Clock clock.PassiveClock
}

// step brings one aspect of a tenant nearer to what is wanted. The outcome is reported in the condition, if it has one.
type step struct {
	condition string
	run       func(context.Context, *provision.Tenant) (message string, err error)
	// enough says that the later steps can go on although this one is not complete. Nil means that they cannot.
	enough func(*provision.Tenant) bool
}

// steps lists, in order, what makes a VirtualCluster ready.
func (r *Reconciler) steps() []step {
	return []step{
		{condition: tenancyv1alpha1.ConditionNamespaceReady, run: r.ensureNamespace},
		{condition: tenancyv1alpha1.ConditionVersionResolved, run: r.resolveVersion},
		{run: r.ensurePullSecret, enough: always},
		{condition: tenancyv1alpha1.ConditionServiceCIDRAllocated, run: r.allocateServiceCIDR, enough: hasRange},
		{run: r.provision},
		{condition: tenancyv1alpha1.ConditionIdentityVerified, run: r.verifyIdentity},
		{run: r.publishKubeletCA},
		{run: r.ensureFurtherRanges, enough: always},
		{condition: tenancyv1alpha1.ConditionCoreDNSInstalled, run: r.installCoreDNS},
	}
}

// Reconcile implements reconcile.Reconciler.
func (r *Reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	vc := &tenancyv1alpha1.VirtualCluster{}
	if err := r.Client.Get(ctx, request.NamespacedName, vc); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	before := vc.DeepCopy()
	tenant := &provision.Tenant{
		ID:             names.Tenant(request.NamespacedName, vc.UID),
		VirtualCluster: vc,
		Now:            r.Clock.Now(),
		Event: func(kind, reason, message string) {
			r.Events.Eventf(vc, nil, kind, reason, "Reconcile", "%s", connection.Shorten(message))
		},
	}

	defer func() { tenant.Connection.Close() }()

	var err error
	if vc.DeletionTimestamp != nil {
		if !controllerutil.ContainsFinalizer(vc, names.Finalizer) {
			// Nothing was made for it yet, but the retired project may hold it.
			return requeueOnConflict(r.takeOver(ctx, tenant))
		}
		err = r.delete(ctx, tenant)
		if err == nil {
			return requeueOnConflict(r.removeFinalizer(ctx, tenant))
		}
	} else {
		if err := r.ensureFinalizer(ctx, tenant); err != nil {
			return requeueOnConflict(err)
		}
		before = vc.DeepCopy()
		err = r.run(ctx, tenant)
	}
	err = progress.Classify(err)
	if conflict(err) {
		return ctrl.Result{RequeueAfter: conflictDelay}, nil
	}

	summarize(tenant, err)
	if !equality.Semantic.DeepEqual(before.Status, vc.Status) {
		if err := r.writeStatus(ctx, vc); err != nil {
			return requeueOnConflict(err)
		}
		r.announce(tenant, before)
	}
	return result(tenant, err)
}

// run takes the steps in order until one cannot go on.
func (r *Reconciler) run(ctx context.Context, tenant *provision.Tenant) error {
	var waiting []error
	for _, s := range r.steps() {
		message, err := s.run(ctx, tenant)
		if conflict(progress.Classify(err)) {
			return err
		}
		if s.condition != "" {
			tenant.Report(s.condition, message, err)
		}
		if err == nil {
			continue
		}
		waiting = append(waiting, err)
		if s.enough == nil || !s.enough(tenant) {
			break
		}
	}
	return errors.Join(waiting...)
}

// always is for steps whose outcome the later ones do not need.
func always(*provision.Tenant) bool { return true }

// provision calls the provisioner for the type of control plane.
func (r *Reconciler) provision(ctx context.Context, tenant *provision.Tenant) (string, error) {
	provisioner, err := r.provisioner(tenant)
	if err != nil {
		return "", err
	}
	return "", provisioner.Provision(ctx, tenant)
}

func (r *Reconciler) provisioner(tenant *provision.Tenant) (provision.Provisioner, error) {
	kind := controlPlaneType(tenant.VirtualCluster)
	provisioner, ok := r.Provisioners[kind]
	if !ok {
		return nil, &progress.Stall{Reason: "TypeUnsupported", Message: fmt.Sprintf("this vc-manager does not provide control planes of type %s", kind)}
	}
	return provisioner, nil
}

// controlPlaneType returns the type of control plane that is asked for.
func controlPlaneType(vc *tenancyv1alpha1.VirtualCluster) tenancyv1alpha1.ControlPlaneType {
	if vc.Spec.ControlPlane.Type == "" {
		return tenancyv1alpha1.Dedicated
	}
	return vc.Spec.ControlPlane.Type
}

// result says when to look at the tenant again.
func result(tenant *provision.Tenant, err error) (ctrl.Result, error) {
	var (
		wait  *progress.Wait
		stall *progress.Stall
	)
	switch {
	case errors.As(err, &wait):
		tenant.CheckAfter(wait.After)
	case errors.As(err, &stall):
	case err != nil:
		return ctrl.Result{}, err
	}
	// Spread, so that all tenants are not looked at in the same second after a restart.
	tenant.CheckAfter(checkInterval + rand.N(checkInterval/5)) //nolint:gosec // Not a secret.
	return ctrl.Result{RequeueAfter: tenant.NextCheck()}, nil
}

// conflict says whether somebody else wrote in the meantime: not worth telling anybody.
func conflict(err error) bool {
	return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err)
}

// requeueOnConflict tries again soon, quietly, when somebody else wrote in the meantime or the object is gone.
func requeueOnConflict(err error) (ctrl.Result, error) {
	if conflict(err) {
		return ctrl.Result{RequeueAfter: conflictDelay}, nil
	}
	return ctrl.Result{}, client.IgnoreNotFound(err)
}
