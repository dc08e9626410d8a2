package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/cluster"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/controllers/progress"
	"github.com/virtualcluster-io/virtualcluster/controllers/servicecidr"
	"github.com/virtualcluster-io/virtualcluster/internal/iprange"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

// manager does for ranges what vc-manager does, with its code and with caches like its.
type manager struct {
	// client reads from a cache, live does not.
	client client.Client
	live   client.Client
	*servicecidr.Allocator
}

// newManager divides a pool into ranges. Its caches end with the context.
func newManager(ctx context.Context, world *worlds.World, pool string, size int) (*manager, error) {
	scheme := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
	utilruntime.Must(tenancyv1alpha1.AddToScheme(scheme))
	live, err := client.New(world.Config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	super, err := cluster.New(world.Config, func(o *cluster.Options) { o.Scheme = scheme })
	if err != nil {
		return nil, fmt.Errorf("making a cache: %w", err)
	}
	claims, err := cache.New(world.Config, cache.Options{
		Scheme: scheme, DefaultLabelSelector: labels.SelectorFromSet(labels.Set{names.LabelServiceRange: "true"}),
	})
	if err != nil {
		return nil, fmt.Errorf("making a cache of claims: %w", err)
	}
	for _, c := range []cache.Cache{super.GetCache(), claims} {
		go func() { _ = c.Start(ctx) }() // what reads from it fails when it does
		c.WaitForCacheSync(ctx)
	}
	m := &manager{client: super.GetClient(), live: live, Allocator: &servicecidr.Allocator{Client: super.GetClient(), Live: live, Claims: claims}}
	if m.Pool, err = servicecidr.ParsePool(pool, fmt.Sprint(size)); err != nil {
		return nil, err
	}
	for _, list := range []client.ObjectList{&tenancyv1alpha1.VirtualClusterList{}, &corev1.NodeList{}, &networkingv1.ServiceCIDRList{}} {
		if err := m.client.List(ctx, list); err != nil {
			return nil, fmt.Errorf("filling the cache: %w", err)
		}
	}
	if err := claims.List(ctx, &corev1.ServiceList{}); err != nil {
		return nil, fmt.Errorf("filling the cache of claims: %w", err)
	}
	return m, nil
}

// ensure gives a tenant a range: the wanted one or, when that is not valid, one of the pool. Held is the one that it has already.
func (m *manager) ensure(ctx context.Context, tenant names.TenantID, wanted, held iprange.Ranges) (netip.Prefix, error) {
	meta := marks(tenant, metav1.ObjectMeta{}, names.Manager)
	claim := servicecidr.Claim{Tenant: tenant, Labels: meta.Labels, Annotations: meta.Annotations, Wanted: wanted, Held: held, DNS: true}
	for {
		ranges, err := m.Ensure(ctx, claim)
		var wait *progress.Wait
		if !errors.As(err, &wait) {
			return ranges.Primary(), err
		}
		if err := pause(ctx, wait.After); err != nil {
			return netip.Prefix{}, err
		}
	}
}

// known are the Services at well-known addresses of a tenant's range, by which it has a part of the super cluster's.
func known() []knownService {
	return []knownService{{metav1.NamespaceDefault, "kubernetes", iprange.APIServer}, {metav1.NamespaceSystem, "kube-dns", iprange.DNS}}
}

type knownService struct {
	namespace, name string
	address         func(netip.Prefix) netip.Addr
}

// release gives a range back. The Services in it would go with their namespaces.
func (m *manager) release(ctx context.Context, tenant names.TenantID) error {
	for _, of := range known() {
		service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: names.SuperNamespace(tenant, of.namespace), Name: of.name}}
		if err := m.live.Delete(ctx, service); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("deleting a Service: %w", err)
		}
	}
	_, err := m.Release(ctx, tenant)
	return err
}

// released says whether nothing is left of a claim.
func (m *manager) released(ctx context.Context, tenant names.TenantID) (bool, error) {
	for _, list := range []client.ObjectList{&networkingv1.ServiceCIDRList{}, &corev1.ServiceList{}} {
		err := m.live.List(ctx, list, client.MatchingLabels{names.LabelTenant: string(tenant)}, client.Limit(1))
		if err != nil {
			return false, fmt.Errorf("listing what claims a range: %w", err)
		}
		switch list := list.(type) {
		case *networkingv1.ServiceCIDRList:
			if len(list.Items) > 0 {
				return false, nil
			}
		case *corev1.ServiceList:
			if len(list.Items) > 0 {
				return false, nil
			}
		}
	}
	return true, nil
}

// replicate makes what vc-syncer makes of a tenant's Service, and its namespace.
func (m *manager) replicate(ctx context.Context, tenant names.TenantID, namespace, name string, address netip.Addr) error {
	super := &corev1.Namespace{ObjectMeta: marks(tenant, metav1.ObjectMeta{Name: names.SuperNamespace(tenant, namespace)}, names.Syncer)}
	service := &corev1.Service{
		ObjectMeta: marks(tenant, metav1.ObjectMeta{Namespace: super.Name, Name: name}, names.Syncer),
		Spec:       corev1.ServiceSpec{ClusterIP: address.String(), Ports: []corev1.ServicePort{{Port: 443}}},
	}
	for _, object := range []client.Object{super, service} {
		annotations := object.GetAnnotations()
		annotations[names.AnnotationNamespace], annotations[names.AnnotationUID] = namespace, "of-"+namespace+"-"+name
		if err := m.live.Create(ctx, object); client.IgnoreAlreadyExists(err) != nil {
			return fmt.Errorf("creating %s: %w", object.GetName(), err)
		}
	}
	return nil
}

// marks adds those of an object that was made for a tenant.
func marks(tenant names.TenantID, meta metav1.ObjectMeta, by string) metav1.ObjectMeta {
	meta.Labels = map[string]string{names.LabelTenant: string(tenant), names.LabelManagedBy: by}
	meta.Annotations = map[string]string{
		names.AnnotationVirtualCluster: tenantsNamespace + "/" + string(tenant), names.AnnotationVirtualClusterUID: "uid-of-" + string(tenant),
	}
	return meta
}
