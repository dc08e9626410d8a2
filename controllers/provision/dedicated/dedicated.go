// Package dedicated provides control planes that run as StatefulSets of the super cluster: etcd, kube-apiserver and
// kube-controller-manager in the tenant's root namespace. Rendering is pure (layout.go and one file for each component);
// this file applies what was rendered and looks at what became of it. The VirtualCluster reconciler calls it.
package dedicated

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/controllers/apply"
	"github.com/virtualcluster-io/virtualcluster/controllers/progress"
	"github.com/virtualcluster-io/virtualcluster/controllers/provision"
	"github.com/virtualcluster-io/virtualcluster/controllers/servicecidr"
	"github.com/virtualcluster-io/virtualcluster/controllers/trust"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// reasonRejected is the reason when the super cluster does not accept an object of the control plane.
const reasonRejected = "Rejected"

// Provisioner makes control planes of StatefulSets.
type Provisioner struct {
	// Client reads from a cache and writes; Live reads from the API server.
	Client client.Client
	Live   client.Reader
	// Trust holds the authorities of vn-agent.
	Trust *trust.Authorities
	// CIDRs knows the super cluster's own range.
	CIDRs *servicecidr.Allocator
	// InCluster says that vc-manager runs in the super cluster, where cluster IPs can be reached.
	InCluster bool
}

// Provision implements provision.Provisioner.
func (p *Provisioner) Provision(ctx context.Context, tenant *provision.Tenant) error {
	vc := tenant.VirtualCluster
	l := layout{
		namespace:     string(tenant.ID),
		labels:        tenant.Labels(),
		annotations:   tenant.Annotations(),
		domain:        cmp.Or(vc.Spec.ClusterDomain, "cluster.local"),
		replicas:      cmp.Or(vc.Spec.ControlPlane.Replicas, 1),
		serviceRanges: tenant.ServiceRanges,
		clusterIPs:    tenant.APIServerIPs,
		version:       tenant.Version.Spec,
		images:        tenant.Images,
		pullSecret:    tenant.PullSecret,
		scheduled:     vc.Spec.Scheduler.Enabled,
	}
	var err error
	if l.retired, err = p.retired(ctx, l); err != nil {
		return err
	}
	service, err := p.ensureServices(ctx, tenant, &l)
	if err != nil {
		tenant.Report(tenancyv1alpha1.ConditionAPIServerReady, "", err)
		return err
	}
	var nodes corev1.NodeList
	if err := p.Client.List(ctx, &nodes); err != nil {
		return fmt.Errorf("listing nodes: %w", err)
	}
	exposure := vc.Spec.ControlPlane.Exposure

	certs, err := p.ensureCertificates(ctx, tenant, l, l.addresses(hosts(exposure, service, nodes.Items)))
	tenant.Report(tenancyv1alpha1.ConditionPKIReady, "all certificates exist and are fresh", err)
	if err != nil {
		return err
	}
	l.hashes = certs.hashes
	if err := p.ensureRetired(ctx, l, certs); err != nil {
		return err
	}
	if err := p.introduce(ctx, tenant, l, certs); err != nil {
		return err
	}

	// Without an endpoint the control plane starts all the same.
	url, endpointErr := endpoint(exposure, service, nodes.Items, vc.Status.Endpoint)
	if endpointErr == nil {
		vc.Status.Endpoint = url
		endpointErr = p.ensureKubeconfigs(ctx, tenant, l, certs, url)
	}
	tenant.Report(tenancyv1alpha1.ConditionKubeconfigReady, "Secret "+names.AdminKubeconfigSecret+" holds the admin kubeconfig", endpointErr)

	return errors.Join(p.ensureWorkloads(ctx, tenant, l), endpointErr)
}

// ensureWorkloads writes what runs the components and reports on each. All start together, as soon as etcd has its
// volume: a kube-apiserver that waits longer for etcd tries it ever more rarely, and exits in the end.
func (p *Provisioner) ensureWorkloads(ctx context.Context, tenant *provision.Tenant, l layout) error {
	kubeconfig, err := l.componentKubeconfig(names.ControllerManager, controllerManagerSecret)
	if err != nil {
		return err
	}
	if _, err := apply.Object(ctx, p.Client, kubeconfig); err != nil {
		return err
	}
	for _, budget := range l.disruptionBudgets() {
		if _, err := apply.Object(ctx, p.Client, budget); err != nil {
			return err
		}
	}
	etcdErr := p.ensureWorkload(ctx, tenant, l.etcd(), tenancyv1alpha1.ConditionEtcdReady)
	if hold, err := p.hold(ctx, l); hold || err != nil {
		return errors.Join(etcdErr, err)
	}
	apiServerErr := p.ensureWorkload(ctx, tenant, l.apiServer(), tenancyv1alpha1.ConditionAPIServerReady)
	controllerManagerErr := p.ensureWorkload(ctx, tenant, l.controllerManager(), tenancyv1alpha1.ConditionControllerManagerReady)
	return errors.Join(etcdErr, apiServerErr, controllerManagerErr, p.ensureScheduler(ctx, tenant, l))
}

// ensureWorkload writes a StatefulSet and reports in a condition. It returns nil when all replicas are ready.
func (p *Provisioner) ensureWorkload(ctx context.Context, tenant *provision.Tenant, set *appsv1.StatefulSet, condition string) error {
	name := set.Name
	note, err := p.applyWorkload(ctx, set, tenant.Now)
	tenant.Report(condition, "all replicas of "+name+" are ready"+note, err)
	var wait *progress.Wait
	if errors.As(err, &wait) {
		// Another component may need a person, and would then decide alone when to look again.
		tenant.CheckAfter(wait.After)
	}
	return err
}

// applyWorkload writes a StatefulSet and looks at what became of it.
func (p *Provisioner) applyWorkload(ctx context.Context, set *appsv1.StatefulSet, now time.Time) (note string, err error) {
	if _, err := apply.Object(ctx, p.Client, set); err != nil {
		return "", rejected(set.Name, err)
	}
	current := &appsv1.StatefulSet{}
	if err := p.Client.Get(ctx, client.ObjectKeyFromObject(set), current); client.IgnoreNotFound(err) != nil {
		return "", fmt.Errorf("reading StatefulSet %s: %w", set.Name, err)
	}
	// The cache may not have what was just written.
	if current.Generation >= set.Generation {
		set.Status = current.Status
	}
	return p.observe(ctx, set, now)
}

// hold says whether the components that need etcd are not to be started yet: at the first start, until most members of
// etcd have been given a node, and so a volume.
func (p *Provisioner) hold(ctx context.Context, l layout) (bool, error) {
	err := p.Client.Get(ctx, client.ObjectKey{Namespace: l.namespace, Name: names.APIServer}, &appsv1.StatefulSet{})
	if !apierrors.IsNotFound(err) {
		return false, err
	}
	var pods corev1.PodList
	if err := p.Client.List(ctx, &pods, client.InNamespace(l.namespace), client.MatchingLabels(selector(names.Etcd))); err != nil {
		return true, fmt.Errorf("listing the pods of etcd: %w", err)
	}
	var scheduled int32
	for i := range pods.Items {
		if pods.Items[i].Spec.NodeName != "" {
			scheduled++
		}
	}
	return scheduled*2 <= l.etcdReplicas(), nil
}

// rejected turns the super cluster's refusal of an object into something that a person has to look at.
func rejected(component string, err error) error {
	if apierrors.IsInvalid(err) || apierrors.IsForbidden(err) || apierrors.IsBadRequest(err) {
		return &progress.Stall{
			Reason:  reasonRejected,
			Message: fmt.Sprintf("the super cluster does not accept the StatefulSet of %s; correct the ClusterVersion, or create a new VirtualCluster if the change is not possible in place: %v", component, err),
		}
	}
	return err
}
