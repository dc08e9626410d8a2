// Package dedicated provides control planes that run as StatefulSets of the super cluster: etcd, kube-apiserver and
// kube-controller-manager in the tenant's root namespace. Rendering is pure (layout.go and one file for each component);
// this file applies what was rendered and looks at what became of it. The VirtualCluster reconciler calls it.
package dedicated

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
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
}

// Provision implements provision.Provisioner. All components are applied at once; none waits for another.
func (p *Provisioner) Provision(ctx context.Context, tenant *provision.Tenant) error {
	vc := tenant.VirtualCluster
	l := layout{
		namespace:    string(tenant.ID),
		labels:       tenant.Labels(),
		annotations:  tenant.Annotations(),
		domain:       cmp.Or(vc.Spec.ClusterDomain, "cluster.local"),
		replicas:     cmp.Or(vc.Spec.ControlPlane.Replicas, 1),
		serviceRange: tenant.ServiceRange,
		version:      tenant.Version.Spec,
	}
	service, err := p.ensureServices(ctx, tenant, &l)
	if err != nil {
		tenant.Report(v1alpha1.ConditionAPIServerReady, "", err)
		return err
	}
	var nodes corev1.NodeList
	if err := p.Client.List(ctx, &nodes); err != nil {
		return fmt.Errorf("listing nodes: %w", err)
	}
	exposure := vc.Spec.ControlPlane.Exposure

	certs, err := p.ensureCertificates(ctx, tenant, l.addresses(hosts(exposure, service, nodes.Items)))
	tenant.Report(v1alpha1.ConditionPKIReady, "all certificates exist and are fresh", err)
	if err != nil {
		return err
	}
	l.hashes = certs.hashes

	// Without an endpoint the control plane starts all the same.
	url, endpointErr := endpoint(exposure, service, nodes.Items, vc.Status.Endpoint)
	if endpointErr == nil {
		vc.Status.Endpoint = url
		endpointErr = p.ensureKubeconfigs(ctx, tenant, l, certs, url)
	}
	tenant.Report(v1alpha1.ConditionKubeconfigReady, "Secret "+names.AdminKubeconfigSecret+" holds the admin kubeconfig", endpointErr)

	sets, err := p.applyWorkloads(ctx, l)
	if err != nil {
		tenant.Report(v1alpha1.ConditionAPIServerReady, "", err)
		return err
	}
	var errs []error
	for i, condition := range []string{v1alpha1.ConditionEtcdReady, v1alpha1.ConditionAPIServerReady, v1alpha1.ConditionControllerManagerReady} {
		err := p.observe(ctx, sets[i])
		tenant.Report(condition, fmt.Sprintf("%s: all replicas are ready", sets[i].Name), err)
		errs = append(errs, err)
	}
	return errors.Join(append(errs, endpointErr)...)
}

// applyWorkloads writes the StatefulSets and what belongs to them, and returns them as they are.
func (p *Provisioner) applyWorkloads(ctx context.Context, l layout) ([]*appsv1.StatefulSet, error) {
	kubeconfig, err := l.controllerManagerKubeconfig()
	if err != nil {
		return nil, err
	}
	if _, err := apply.Object(ctx, p.Client, kubeconfig); err != nil {
		return nil, err
	}
	sets := l.workloads()
	for _, set := range sets {
		if _, err := apply.Object(ctx, p.Client, set); err != nil {
			return nil, rejected(set.Name, err)
		}
		// What was applied has no status; what is in the cache may have one.
		current := &appsv1.StatefulSet{}
		if err := p.Client.Get(ctx, client.ObjectKeyFromObject(set), current); client.IgnoreNotFound(err) != nil {
			return nil, fmt.Errorf("reading StatefulSet %s: %w", set.Name, err)
		}
		if current.Generation >= set.Generation {
			set.Status = current.Status
		}
	}
	for _, budget := range l.disruptionBudgets() {
		if _, err := apply.Object(ctx, p.Client, budget); err != nil {
			return nil, err
		}
	}
	return sets, nil
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
