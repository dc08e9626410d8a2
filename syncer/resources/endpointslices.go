package resources

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// +kubebuilder:rbac:groups=discovery.k8s.io,resources=endpointslices,verbs=get;list;watch;create;patch;delete

// EndpointSlices copies down the endpoints of services without a selector, the tenant's own API server among them. For
// the others the super cluster computes them from its pods, and the tenant from its own. Endpoints objects need no
// copy: the tenant mirrors them into slices.
func EndpointSlices() resource.Kind {
	return resource.Of(resource.Resource[*discoveryv1.EndpointSlice]{
		Name: "endpointslices",
		GVK:  discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice"),
		New:  func() *discoveryv1.EndpointSlice { return &discoveryv1.EndpointSlice{} },
		Needed: func(v resource.View, in *discoveryv1.EndpointSlice) bool {
			service, ok := v.Get(resource.Tenant, serviceOf(in)).(*corev1.Service)
			return ok && len(service.Spec.Selector) == 0 && service.Spec.Type != corev1.ServiceTypeExternalName
		},
		Down: endpointSliceDown,
		Merge: func(existing, want *discoveryv1.EndpointSlice) {
			existing.Endpoints, existing.Ports = want.Endpoints, want.Ports
		},
		References: func(in *discoveryv1.EndpointSlice) []resource.Ref {
			return []resource.Ref{serviceOf(in)}
		},
	})
}

// serviceOf names the service that a slice belongs to.
func serviceOf(in *discoveryv1.EndpointSlice) resource.Ref {
	return resource.Ref{Kind: "services", Namespace: in.Namespace, Name: in.Labels[discoveryv1.LabelServiceName]}
}

func endpointSliceDown(v resource.View, in *discoveryv1.EndpointSlice) (*discoveryv1.EndpointSlice, error) {
	out := &discoveryv1.EndpointSlice{AddressType: in.AddressType, Ports: in.Ports}
	copyMeta(v, in, out)
	if out.Labels == nil {
		out.Labels = map[string]string{}
	}
	// The super cluster's controllers own slices under their names; this one is nobody's but ours.
	out.Labels[discoveryv1.LabelManagedBy] = "vc-syncer.tenancy.x-k8s.io"
	apiServer := isAPIServer(in.Namespace, in.Labels[discoveryv1.LabelServiceName])
	for _, e := range in.Endpoints {
		for _, address := range e.Addresses {
			if reason := forbiddenAddress(v, in.AddressType, address, apiServer); reason != "" {
				return nil, resource.Rejected("EndpointForbidden", "endpoint address %s is not allowed: %s", address, reason)
			}
		}
		out.Endpoints = append(out.Endpoints, discoveryv1.Endpoint{
			Addresses: e.Addresses, Conditions: e.Conditions, Hostname: e.Hostname, NodeName: e.NodeName, Zone: e.Zone, Hints: e.Hints,
		})
	}
	return out, nil
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
