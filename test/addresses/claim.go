package main

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtualcluster-io/virtualcluster/controllers/progress"
	"github.com/virtualcluster-io/virtualcluster/controllers/servicecidr"
	"github.com/virtualcluster-io/virtualcluster/internal/iprange"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// claimer gives tenants ranges of cluster IPs, and takes them back.
type claimer interface {
	// claim returns the range of a tenant. Wanted is valid when it must be that one.
	claim(ctx context.Context, tenant names.TenantID, wanted netip.Prefix) (netip.Prefix, error)
	// release asks for the range to be given back, and released says whether it is.
	release(ctx context.Context, tenant names.TenantID) error
	released(ctx context.Context, tenant names.TenantID) (bool, error)
}

// objects claims a range by a ServiceCIDR object, as vc-manager did for every tenant and does for ranges outside of those
// that the super cluster has. The Services of the tenant's namespaces are vc-syncer's.
type objects struct{ allocator *servicecidr.Allocator }

// newObjects divides a range that the super cluster does not have.
func newObjects(c client.Client, pool netip.Prefix, size int) (*objects, error) {
	p, err := servicecidr.ParsePool(pool.String(), fmt.Sprint(size))
	if err != nil {
		return nil, err
	}
	return &objects{&servicecidr.Allocator{Client: c, Live: c, Pool: p}}, nil
}

func (o *objects) claim(ctx context.Context, tenant names.TenantID, wanted netip.Prefix) (netip.Prefix, error) {
	claim := servicecidr.Claim{Labels: map[string]string{names.LabelTenant: string(tenant), names.LabelManagedBy: names.Manager}}
	if wanted.IsValid() {
		claim.Wanted = iprange.Ranges{wanted}
	}
	return ensure(ctx, o.allocator, claim)
}

// ensure asks until the allocator has an answer, as vc-manager does.
func ensure(ctx context.Context, allocator *servicecidr.Allocator, claim servicecidr.Claim) (netip.Prefix, error) {
	for {
		ranges, err := allocator.Ensure(ctx, claim)
		var wait *progress.Wait
		if errors.As(err, &wait) {
			if err := pause(ctx, wait.After); err != nil {
				return netip.Prefix{}, err
			}
			continue
		}
		return ranges.Primary(), err
	}
}

func (o *objects) release(ctx context.Context, tenant names.TenantID) error {
	_, err := o.allocator.Release(ctx, tenant)
	return err
}

func (o *objects) released(ctx context.Context, tenant names.TenantID) (bool, error) {
	var list networkingv1.ServiceCIDRList
	err := o.allocator.Live.List(ctx, &list, client.MatchingLabels{names.LabelTenant: string(tenant)})
	return len(list.Items) == 0, err
}

// services claims a part of a range that the super cluster has, by the Services kubernetes and kube-dns of the tenant, which vc-syncer
// takes over. It stands for vc-manager.
type services struct {
	client client.Client
	super  netip.Prefix
	size   int
}

// claimed are the Services by which a tenant has a range, and the positions of their addresses.
var claimed = []struct { //nolint:gochecknoglobals // it is a constant
	namespace, name string
	address         func(netip.Prefix) netip.Addr
}{
	{metav1.NamespaceDefault, "kubernetes", iprange.APIServer},
	{metav1.NamespaceSystem, "kube-dns", iprange.DNS},
}

func (s *services) claim(ctx context.Context, tenant names.TenantID, wanted netip.Prefix) (netip.Prefix, error) {
	for _, c := range claimed {
		if err := s.create(ctx, namespaceOf(tenant, c.namespace)); err != nil {
			return netip.Prefix{}, err
		}
	}
	if wanted.IsValid() {
		return wanted, s.take(ctx, tenant, wanted)
	}
	hash := fnv.New64a()
	_, _ = hash.Write([]byte(tenant)) // never fails
	count := uint64(1) << (s.size - s.super.Bits())
	for i := range count {
		part := iprange.Part(s.super, s.size, (hash.Sum64()+i)%count)
		err := s.take(ctx, tenant, part)
		if !taken(err) {
			return part, err
		}
	}
	return netip.Prefix{}, errors.New("no part is free")
}

// take claims one range.
func (s *services) take(ctx context.Context, tenant names.TenantID, part netip.Prefix) error {
	for i, c := range claimed {
		service := replica(tenant, c.namespace, c.name, names.UIDAhead, c.address(part))
		service.Labels[names.LabelServiceRange] = "true"
		service.Annotations[names.AnnotationServiceRange] = part.String()
		if err := s.create(ctx, service); err != nil {
			if taken(err) && i > 0 {
				return errors.Join(err, s.release(ctx, tenant))
			}
			return err
		}
	}
	return nil
}

func (s *services) create(ctx context.Context, object client.Object) error {
	if err := s.client.Create(ctx, object); client.IgnoreAlreadyExists(err) != nil {
		return fmt.Errorf("creating %s: %w", object.GetName(), err)
	}
	return nil
}

func (s *services) release(ctx context.Context, tenant names.TenantID) error {
	return deleteServices(ctx, s.client, tenant)
}

func (s *services) released(ctx context.Context, tenant names.TenantID) (bool, error) {
	var list corev1.ServiceList
	err := s.client.List(ctx, &list, client.MatchingLabels{names.LabelTenant: string(tenant)})
	return len(list.Items) == 0, err
}

// deleteServices deletes the Services of a tenant by which it has a range.
func deleteServices(ctx context.Context, c client.Client, tenant names.TenantID) error {
	for _, of := range claimed {
		service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: names.SuperNamespace(tenant, of.namespace), Name: of.name}}
		if err := c.Delete(ctx, service); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("deleting a Service: %w", err)
		}
	}
	return nil
}

// taken says whether a Service was refused because another one has its address.
func taken(err error) bool {
	return apierrors.IsInvalid(err) && strings.Contains(err.Error(), "provided IP is already allocated")
}

// namespaceOf returns what vc-syncer makes of a tenant's namespace.
func namespaceOf(tenant names.TenantID, namespace string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: marks(tenant, metav1.ObjectMeta{Name: names.SuperNamespace(tenant, namespace)}, namespace, names.UIDAhead)}
}

// replica returns what vc-syncer makes of a tenant's Service.
func replica(tenant names.TenantID, namespace, name, uid string, address netip.Addr) *corev1.Service {
	meta := metav1.ObjectMeta{Namespace: names.SuperNamespace(tenant, namespace), Name: name}
	return &corev1.Service{
		ObjectMeta: marks(tenant, meta, namespace, uid),
		Spec:       corev1.ServiceSpec{ClusterIP: address.String(), Ports: []corev1.ServicePort{{Port: 443}}},
	}
}

// marks adds those of the replica of an object.
func marks(tenant names.TenantID, meta metav1.ObjectMeta, namespace, uid string) metav1.ObjectMeta {
	meta.Labels = map[string]string{names.LabelTenant: string(tenant), names.LabelManagedBy: names.Syncer}
	meta.Annotations = map[string]string{
		names.AnnotationNamespace: namespace, names.AnnotationUID: uid,
		names.AnnotationVirtualCluster: "tenants/" + string(tenant), names.AnnotationVirtualClusterUID: "uid-of-" + string(tenant),
	}
	return meta
}
