package resources

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// +kubebuilder:rbac:groups=discovery.k8s.io,resources=endpointslices,verbs=get;list;watch;create;patch;delete

// EndpointSlices copies down the slices that the super cluster does not compute from its pods: those of services without
// a selector, the tenant's own API server among them, and those that somebody else than the controller of slices made for a
// service with one. Endpoints objects need no copy: the tenant mirrors them into slices.
func EndpointSlices() resource.Kind {
	return resource.Of(resource.Resource[*discoveryv1.EndpointSlice]{
		Name: resource.EndpointSlices,
		GVK:  discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice"),
		New:  func() *discoveryv1.EndpointSlice { return &discoveryv1.EndpointSlice{} },
		Needed: func(v resource.View, in *discoveryv1.EndpointSlice) bool {
			// The operator may have a Service of that name, whose traffic the slice would take.
			return copiedDown(v, in) && v.Replicated(serviceOf(in))
		},
		Down: endpointSliceDown,
		Merge: func(existing, want *discoveryv1.EndpointSlice) {
			existing.Endpoints, existing.Ports = want.Endpoints, want.Ports
		},
		Up:       sliceLacks,
		Unpaired: sliceLacks,
		References: func(in *discoveryv1.EndpointSlice) []resource.Ref {
			return []resource.Ref{serviceOf(in)}
		},
	})
}

// sliceLacks tells what keeps a slice, or some of its endpoints, out of the super cluster.
func sliceLacks(v resource.View, p resource.Pair[*discoveryv1.EndpointSlice]) ([]resource.Op, error) {
	if p.Tenant == nil || !copiedDown(v, p.Tenant) {
		return nil, nil
	}
	if service := serviceOf(p.Tenant); !v.Replicated(service) {
		return nil, resource.Blocked(retryService, "Waiting", "Service %q, which the underlying cluster does not have yet; if that lasts, its events say why", service.Name)
	}
	_, err := allowedEndpoints(v, p.Tenant)
	return nil, err
}

// computed says whether the controller that computes slices from the selector of a service owns the slice.
func computed(in *discoveryv1.EndpointSlice) bool {
	return in.Labels[discoveryv1.LabelManagedBy] == "endpointslice-controller.k8s.io"
}

// copiedDown says whether a slice is one that the super cluster does not compute by itself.
func copiedDown(v resource.View, in *discoveryv1.EndpointSlice) bool {
	service, ok := v.Get(resource.Tenant, serviceOf(in)).(*corev1.Service)
	return ok && service.Spec.Type != corev1.ServiceTypeExternalName && (len(service.Spec.Selector) == 0 || !computed(in))
}

// leftSlices removes the slices that the super cluster's controller computed while a service had a selector. It leaves them
// where they are when the selector goes, as the tenant's does; the tenant's are copied then, until somebody deletes them.
func leftSlices(v resource.View, super *corev1.Service) []resource.Op {
	if len(super.Spec.Selector) > 0 {
		return nil
	}
	var ops []resource.Op
	v.Owned(resource.EndpointSlices, super.UID, func(o resource.Object) {
		slice, ok := o.(*discoveryv1.EndpointSlice)
		if ok && computed(slice) && slice.Namespace == super.Namespace && slice.DeletionTimestamp == nil &&
			slice.Labels[discoveryv1.LabelServiceName] == super.Name && slice.Labels[names.LabelTenant] == string(v.Tenant.ID) {
			ops = append(ops, resource.Op{Side: resource.Super, Verb: resource.Delete, Object: slice, Why: resource.Superseded})
		}
	})
	slices.SortFunc(ops, func(a, b resource.Op) int { return strings.Compare(a.Object.GetName(), b.Object.GetName()) })
	return ops
}

// retryService is when a slice that waits for its Service is looked at again although no event arrived.
const retryService = time.Minute

// serviceOf names the service that a slice belongs to.
func serviceOf(in *discoveryv1.EndpointSlice) resource.Ref {
	return resource.Ref{Kind: "services", Namespace: in.Namespace, Name: in.Labels[discoveryv1.LabelServiceName]}
}

func endpointSliceDown(v resource.View, in *discoveryv1.EndpointSlice) (*discoveryv1.EndpointSlice, error) {
	out := &discoveryv1.EndpointSlice{AddressType: in.AddressType, Ports: in.Ports}
	v.CopyMeta(in, out)
	if out.Labels == nil {
		out.Labels = map[string]string{}
	}
	out.Labels[discoveryv1.LabelServiceName] = in.Labels[discoveryv1.LabelServiceName]
	// The super cluster's controllers own slices under their names; this one is nobody's but ours.
	out.Labels[discoveryv1.LabelManagedBy] = "vc-syncer.tenancy.x-k8s.io"
	out.Endpoints, _ = allowedEndpoints(v, in) // the rest is told on the way up
	return out, nil
}

// allowedEndpoints returns the endpoints that a tenant may have, and a Reject that names one that it may not.
func allowedEndpoints(v resource.View, in *discoveryv1.EndpointSlice) ([]discoveryv1.Endpoint, error) {
	var out []discoveryv1.Endpoint
	var err error
	apiServer := isAPIServer(in.Namespace, in.Labels[discoveryv1.LabelServiceName])
	for _, e := range in.Endpoints {
		forbidden := slices.IndexFunc(e.Addresses, func(a string) bool { return forbiddenAddress(v, in.AddressType, a, apiServer) != "" })
		if forbidden < 0 {
			out = append(out, discoveryv1.Endpoint{
				Addresses: e.Addresses, Conditions: e.Conditions, Hostname: e.Hostname, NodeName: e.NodeName, Zone: e.Zone, Hints: e.Hints,
			})
			continue
		}
		if address := e.Addresses[forbidden]; err == nil {
			err = resource.Rejected("EndpointForbidden", "endpoint address %s is not allowed: %s; the endpoint is left out",
				address, forbiddenAddress(v, in.AddressType, address, apiServer))
		}
	}
	return out, err
}

// forbiddenAddress says why traffic must not be led to an address, or nothing. The tenant's API server may run on the
// host network of a node, when it is an external one.
func forbiddenAddress(v resource.View, kind discoveryv1.AddressType, address string, apiServer bool) string {
	if kind == discoveryv1.AddressTypeFQDN {
		return "only IP addresses can be endpoints"
	}
	ip, err := netip.ParseAddr(address)
	switch {
	case err != nil:
		return "it is not an IP address"
	case ip.IsUnspecified(), ip.IsMulticast(), ip.IsLinkLocalUnicast():
		return "it is not the address of a workload"
	case ip.IsLoopback():
		return "it is a loopback address"
	case !apiServer && v.NodeAddress(address):
		return "it belongs to a node"
	}
	return ""
}
