package resources

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/virtualcluster-io/virtualcluster/internal/iprange"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// +kubebuilder:rbac:groups="",resources=services,verbs=get;list;watch;create;patch;delete

// Services copies tenant services down so that the cluster IP that the tenant sees is the one that works. The tenant chooses
// the address and the super Service asks for it. A tenant without a range of its own may have chosen one that is in use, and
// then the super cluster chooses and the tenant Service adopts it.
func Services() resource.Kind {
	return resource.Of(resource.Resource[*corev1.Service]{
		Name:                   "services",
		GVK:                    corev1.SchemeGroupVersion.WithKind("Service"),
		New:                    func() *corev1.Service { return &corev1.Service{} },
		UpdatesAffectReferrers: true,
		Needed:                 serviceNeeded,
		Stays:                  serviceStays,
		Down:                   serviceDown,
		Merge:                  serviceMerge,
		Up:                     serviceUp,
		Unpaired:               readdress,
		Refused:                serviceRefused,
	})
}

// serviceNeeded says whether a Service is to be in the super cluster: not one of type ExternalName, which only DNS reads, and
// that is the tenant's own. Of what reads it there, an ingress controller would lead requests to any name that a tenant writes.
func serviceNeeded(_ resource.View, in *corev1.Service) bool {
	return in.Spec.Type != corev1.ServiceTypeExternalName || in.Annotations[names.AnnotationReaddress] != ""
}

// serviceStays says whether a Service of the super cluster holds an address that pods have for as long as they live, or by which
// the tenant has its range.
func serviceStays(super *corev1.Service) bool {
	return hasClusterIP(super) &&
		(super.Labels[names.LabelServiceRange] != "" || ofCluster(super.Annotations[names.AnnotationNamespace], super.Name))
}

func serviceDown(v resource.View, in *corev1.Service) (*corev1.Service, error) {
	if in.Annotations[names.AnnotationReaddress] != "" {
		if in.Spec.Type == corev1.ServiceTypeExternalName {
			if _, err := noted(in); err != nil {
				return nil, err
			}
		}
		return nil, resource.Waiting(time.Second, "the service to get its new address")
	}
	if misplaced(v, in) {
		if _, err := replaced(v, in); err != nil {
			return nil, err
		}
		return nil, resource.Waiting(time.Second, "the service to get an address of the cluster's range")
	}
	if err := heldElsewhere(v, in); err != nil {
		return nil, err
	}
	out := &corev1.Service{Spec: corev1.ServiceSpec{
		Type:                          in.Spec.Type,
		Selector:                      v.PodLabels(in.Spec.Selector),
		Ports:                         in.Spec.Ports,
		SessionAffinity:               in.Spec.SessionAffinity,
		SessionAffinityConfig:         in.Spec.SessionAffinityConfig,
		PublishNotReadyAddresses:      in.Spec.PublishNotReadyAddresses,
		ExternalTrafficPolicy:         in.Spec.ExternalTrafficPolicy,
		InternalTrafficPolicy:         in.Spec.InternalTrafficPolicy,
		TrafficDistribution:           in.Spec.TrafficDistribution,
		AllocateLoadBalancerNodePorts: in.Spec.AllocateLoadBalancerNodePorts,
		LoadBalancerSourceRanges:      in.Spec.LoadBalancerSourceRanges,
	}}
	v.CopyMeta(in, out)
	if out.Labels == nil {
		out.Labels = map[string]string{}
	}
	// Endpoints that the super cluster computed while there was a selector must not become slices when there is none.
	out.Labels[discoveryv1.LabelSkipMirror] = "true"
	if in.Spec.Type == corev1.ServiceTypeClusterIP && len(in.Spec.ExternalIPs) > 0 {
		out.Spec.ExternalTrafficPolicy = "" // it is for these IPs, which do not go down
	}
	if ownBalancer(in) || balancerAnnotation(v, in) != "" {
		withoutBalancer(out)
	}
	out.Spec.IPFamilies, out.Spec.IPFamilyPolicy = in.Spec.IPFamilies, in.Spec.IPFamilyPolicy
	if len(in.Spec.IPFamilies) == 1 {
		// Preferring two means one where a cluster has one; the super cluster may have two, of which the tenant knows nothing.
		out.Spec.IPFamilyPolicy = ptr.To(corev1.IPFamilyPolicySingleStack)
	}
	switch {
	case in.Spec.ClusterIP == corev1.ClusterIPNone:
		out.Spec.ClusterIP, out.Spec.ClusterIPs = corev1.ClusterIPNone, []string{corev1.ClusterIPNone}
	case in.Spec.ClusterIP != "" && (len(v.Tenant.ServiceRanges) > 0 || !inSuper(v, in)):
		out.Spec.ClusterIP, out.Spec.ClusterIPs = in.Spec.ClusterIP, in.Spec.ClusterIPs
	}
	return out, externalIPs(in)
}

// inSuper says whether the super cluster has a Service of that name.
func inSuper(v resource.View, in *corev1.Service) bool {
	return v.Get(resource.Super, resource.Ref{Kind: resource.Services, Namespace: in.Namespace, Name: in.Name}) != nil
}

// heldElsewhere refuses another address for the API server's Service than the one by which the tenant has its range.
func heldElsewhere(v resource.View, in *corev1.Service) error {
	if !isAPIServer(in.Namespace, in.Name) || len(v.Tenant.ServiceRanges) == 0 {
		return nil
	}
	super, ok := v.Get(resource.Super, resource.Ref{Kind: resource.Services, Namespace: in.Namespace, Name: in.Name}).(*corev1.Service)
	if !ok || super == nil || super.Labels[names.LabelServiceRange] == "" || in.Spec.ClusterIP == super.Spec.ClusterIP {
		return nil
	}
	return resource.Rejected("ClusterIPFixed", "the Service has the cluster IP %s and must have %s, which is written into certificates "+
		"and pods; delete it, and the API server makes it again", in.Spec.ClusterIP, super.Spec.ClusterIP)
}

// externalIPs refuses the external IPs of a service. The rest of one that exists follows the tenant's.
func externalIPs(in *corev1.Service) error {
	if len(in.Spec.ExternalIPs) == 0 {
		return nil
	}
	return resource.Rejected("ExternalIPs", "spec.externalIPs is not allowed: it would take traffic for addresses of others; use a Service of type LoadBalancer")
}

// ownBalancer says that a controller of the tenant's own balances the load of a service.
func ownBalancer(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeLoadBalancer && s.Spec.LoadBalancerClass != nil
}

// balancerAnnotation returns an annotation that the load balancer of a service should follow, and that the super cluster does not
// get; empty when there is none. It may say who reaches the service, so it cannot be left out.
func balancerAnnotation(v resource.View, s *corev1.Service) string {
	if s.Spec.Type != corev1.ServiceTypeLoadBalancer {
		return ""
	}
	for _, key := range slices.Sorted(maps.Keys(s.Annotations)) {
		if ofBalancer(key) && !v.Kept(key) && !v.AnnotationPasses(v.Kind, key) {
			return key
		}
	}
	return ""
}

// ofBalancer says whether an annotation is for a load balancer.
func ofBalancer(key string) bool {
	return inDomains(key, "service.beta.kubernetes.io", "service.kubernetes.io", "service.alpha.kubernetes.io", "networking.gke.io", "cloud.google.com",
		"loadbalancer.openstack.org", "load-balancer.hetzner.cloud", "metallb.io", "metallb.universe.tf", "kube-vip.io", "cilium.io", "purelb.io", "openelb.kubesphere.io")
}

// withoutBalancer makes a load balancer's service what that balancer relies on: node ports, where there are any, and
// the cluster IP. A load balancer of the super cluster would be one that nobody asked for.
func withoutBalancer(out *corev1.Service) {
	out.Spec.Type, out.Spec.AllocateLoadBalancerNodePorts, out.Spec.LoadBalancerSourceRanges = corev1.ServiceTypeNodePort, nil, nil
	delete(out.Annotations, corev1.AnnotationLoadBalancerSourceRangesKey)
	if !slices.ContainsFunc(out.Spec.Ports, func(p corev1.ServicePort) bool { return p.NodePort != 0 }) {
		out.Spec.Type, out.Spec.ExternalTrafficPolicy = corev1.ServiceTypeClusterIP, ""
	}
}

// misplaced says whether a service has an address that is not of the tenant's own ranges, because the tenant made a
// ServiceCIDR: the super cluster leads such an address nowhere, or to somebody else.
func misplaced(v resource.View, s *corev1.Service) bool {
	return len(v.Tenant.ServiceRanges) > 0 && hasClusterIP(s) && !v.Tenant.ServiceRanges.Contains(s.Spec.ClusterIPs...)
}

// replaced returns the addresses of a service with free ones of the tenant's own ranges in place of those that are
// misplaced or those of other services. The error is a Reject.
func replaced(v resource.View, s *corev1.Service) ([]string, error) {
	taken := map[string]bool{}
	v.Each(resource.Tenant, "services", func(o resource.Object) {
		if other, ok := o.(*corev1.Service); ok && other.UID != s.UID {
			for _, ip := range other.Spec.ClusterIPs {
				taken[ip] = true
			}
		}
	})
	out := slices.Clone(s.Spec.ClusterIPs)
	seed := fnv.New64a()
	_, _ = fmt.Fprint(seed, s.UID, out) // never fails
	for i, ip := range out {
		if v.Tenant.ServiceRanges.Contains(ip) && !taken[ip] {
			continue
		}
		if err := exchangeable(v, s); err != nil {
			return nil, err
		}
		why := "the cluster has no range of its IP family"
		for _, prefix := range v.Tenant.ServiceRanges {
			if prefix.Addr().Is6() != strings.Contains(ip, ":") {
				continue
			}
			free, ok := iprange.Free(prefix, seed.Sum64(), func(a netip.Addr) bool { return taken[a.String()] })
			if out[i], why = free.String(), ""; ok {
				break
			}
			why = "no address of the range is free"
		}
		if why != "" {
			return nil, misplacedFor(v, s, why)
		}
	}
	return out, nil
}

// exchangeable says why a service must keep a misplaced address, if it must: it is the API server's, which is written into
// certificates and pods, or the API server does not hand out addresses of the range that it is said to have.
func exchangeable(v resource.View, s *corev1.Service) error {
	if isAPIServer(s.Namespace, s.Name) {
		return misplacedFor(v, s, "the address of this Service cannot change")
	}
	api, ok := v.Get(resource.Tenant, resource.Ref{Kind: "services", Namespace: metav1.NamespaceDefault, Name: "kubernetes"}).(*corev1.Service)
	if !ok || !v.Tenant.ServiceRanges.Contains(api.Spec.ClusterIPs...) {
		return misplacedFor(v, s, "the Service kubernetes has no address of the range either, so the administrator of the cluster may have to correct it")
	}
	return nil
}

// misplacedFor returns the Reject of a service that keeps a misplaced address for a reason.
func misplacedFor(v resource.View, s *corev1.Service, why string) error {
	return resource.Rejected("ClusterIPOutOfRange", "the cluster IP %s leads nowhere, because it is not in the range %s of this cluster, and %s; "+
		"delete the ServiceCIDR that it is from, and Services that you do not need, and make this one again",
		strings.Join(s.Spec.ClusterIPs, " or "), v.Tenant.ServiceRanges, why)
}

// withoutNodePorts leaves the choice of node ports to the API server.
func withoutNodePorts(in []corev1.ServicePort) []corev1.ServicePort {
	out := slices.Clone(in)
	for i := range out {
		out[i].NodePort = 0
	}
	return out
}

// serviceMerge keeps what the super cluster allocated, where it still fits.
func serviceMerge(existing, want *corev1.Service) {
	had := existing.Spec
	existing.Spec = *want.Spec.DeepCopy()
	existing.Spec.HealthCheckNodePort = had.HealthCheckNodePort
	existing.Spec.LoadBalancerClass, existing.Spec.LoadBalancerIP = had.LoadBalancerClass, had.LoadBalancerIP
	if len(want.Spec.IPFamilies) == 0 {
		existing.Spec.IPFamilies, existing.Spec.IPFamilyPolicy = had.IPFamilies, had.IPFamilyPolicy
	}
	if want.Spec.ClusterIP == "" && had.ClusterIP != corev1.ClusterIPNone {
		existing.Spec.ClusterIP, existing.Spec.ClusterIPs = had.ClusterIP, had.ClusterIPs
		if families := len(existing.Spec.IPFamilies); families > 0 && families < len(had.ClusterIPs) {
			existing.Spec.ClusterIPs = had.ClusterIPs[:families]
		}
	}
	if want.Spec.Type == corev1.ServiceTypeNodePort || want.Spec.Type == corev1.ServiceTypeLoadBalancer {
		for i := range existing.Spec.Ports {
			if port := &existing.Spec.Ports[i]; port.NodePort == 0 {
				port.NodePort = nodePortOf(had.Ports, *port)
			}
		}
	}
}

// nodePortOf finds the node port that was allocated for a port.
func nodePortOf(ports []corev1.ServicePort, like corev1.ServicePort) int32 {
	for _, p := range ports {
		if p.Port == like.Port && p.Protocol == like.Protocol {
			return p.NodePort
		}
	}
	return 0
}

// serviceUp brings back the status and, where the super cluster chose them, the cluster IPs. It waits with those until both
// Services have as many.
func serviceUp(v resource.View, p resource.Pair[*corev1.Service]) ([]resource.Op, error) {
	tenant, super := p.Tenant, p.Super
	if readdressing(v, tenant) {
		return readdress(v, p)
	}
	if tenant.DeletionTimestamp != nil || super.DeletionTimestamp != nil || !serviceNeeded(v, tenant) {
		return nil, nil
	}
	ops := leftSlices(v, super)
	shared := len(v.Tenant.ServiceRanges) == 0 && hasClusterIP(tenant) && hasClusterIP(super)
	if has, gets := tenant.Spec.ClusterIPs, super.Spec.ClusterIPs; shared && len(has) == len(gets) && !slices.Equal(has, gets) {
		return readdressOps(v, tenant, gets)
	}
	if ownBalancer(tenant) {
		return ops, nil
	}
	var refused error
	if key := balancerAnnotation(v, tenant); key != "" {
		refused = resource.Rejected("AnnotationNotAllowed", "annotation %s is not offered here, so the Service has no load balancer; remove the annotation, or ask the operator to allow it", key)
	}
	status, err := resource.ReportStatus(tenant, func(to *corev1.Service) { to.Status.LoadBalancer = *super.Status.LoadBalancer.DeepCopy() })
	if err == nil {
		err = refused
	}
	return append(ops, status...), err
}

// readdressing says whether a service is getting another address, or needs one, whatever the super cluster has.
func readdressing(v resource.View, tenant *corev1.Service) bool {
	return tenant != nil && (tenant.Annotations[names.AnnotationReaddress] != "" || tenant.DeletionTimestamp == nil && misplaced(v, tenant))
}

// readdress gives a service another address, or finishes that.
func readdress(v resource.View, p resource.Pair[*corev1.Service]) ([]resource.Op, error) {
	switch {
	case !readdressing(v, p.Tenant):
		return nil, nil
	case p.Tenant.Annotations[names.AnnotationReaddress] != "":
		return finishReaddress(v, p.Tenant, adopted(v, p))
	default:
		return giveOwnAddress(v, p.Tenant)
	}
}

// giveOwnAddress gives a service with a misplaced address one of the tenant's own range.
func giveOwnAddress(v resource.View, tenant *corev1.Service) ([]resource.Op, error) {
	ips, err := replaced(v, tenant)
	if err != nil {
		return nil, nil //nolint:nilerr // it is told on the way down
	}
	ops, err := readdressOps(v, tenant, ips)
	if err != nil {
		return nil, err
	}
	return append(ops, resource.Tell(v, tenant, corev1.SchemeGroupVersion.WithKind("Service"), corev1.EventTypeNormal, "ClusterIPChanged",
		fmt.Sprintf("The cluster IP %s leads nowhere, because it is not in the range %s of this cluster; the service gets %s. Delete ServiceCIDRs that you made",
			strings.Join(tenant.Spec.ClusterIPs, " or "), v.Tenant.ServiceRanges, strings.Join(ips, " and ")))), nil
}

func hasClusterIP(s *corev1.Service) bool {
	return s.Spec.Type != corev1.ServiceTypeExternalName && s.Spec.ClusterIP != "" && s.Spec.ClusterIP != corev1.ClusterIPNone
}

// readdressOps gives a tenant Service other cluster IPs and other node ports without replacing it: the API server releases
// those of a Service that becomes an ExternalName, and hands out the asked-for ones, or any, when it becomes what it was again. What
// it was is noted on the Service, so that a syncer that is interrupted in between finishes later.
func readdressOps(v resource.View, tenant *corev1.Service, ips []string) ([]resource.Op, error) {
	after := tenant.DeepCopy()
	setClusterIPs(after, ips)
	after.Spec.Ports = withoutNodePorts(tenant.Spec.Ports)
	after.Spec.HealthCheckNodePort = 0
	note, err := json.Marshal(after.Spec)
	if err != nil {
		return nil, fmt.Errorf("encoding the spec of service %s/%s: %w", tenant.Namespace, tenant.Name, err)
	}
	between := tenant.DeepCopy()
	between.Spec = corev1.ServiceSpec{
		Type:            corev1.ServiceTypeExternalName,
		ExternalName:    "being.readdressed.invalid",
		Selector:        tenant.Spec.Selector,
		Ports:           after.Spec.Ports,
		SessionAffinity: tenant.Spec.SessionAffinity, SessionAffinityConfig: tenant.Spec.SessionAffinityConfig,
		PublishNotReadyAddresses: tenant.Spec.PublishNotReadyAddresses,
	}
	if between.Annotations == nil {
		between.Annotations = map[string]string{}
	}
	between.Annotations[names.AnnotationReaddress] = string(note)
	release, err := resource.Change(readdressed(), tenant, resource.Guarded, func(to *corev1.Service) { between.DeepCopyInto(to) })
	if err != nil {
		return nil, err
	}
	restore, err := finishReaddress(v, between, ips)
	if err != nil {
		return nil, err
	}
	return append(release, restore...), nil
}

// finishReaddress makes a Service that is being readdressed what it was again. Another service of the tenant may have got the
// address in the meantime: with a range of its own the tenant then gets another one, and without one, what the super cluster
// has by now, or any until it has something. A note on a Service that is not being readdressed means nothing.
func finishReaddress(v resource.View, between *corev1.Service, adopted []string) ([]resource.Op, error) {
	if between.Spec.Type != corev1.ServiceTypeExternalName {
		return resource.Change(readdressed(), between, resource.Guarded, func(to *corev1.Service) {
			delete(to.Annotations, names.AnnotationReaddress)
		})
	}
	spec, err := noted(between)
	if err != nil {
		return nil, err
	}
	after := between.DeepCopy()
	after.Spec = spec
	switch {
	case !hasClusterIP(after):
	case len(v.Tenant.ServiceRanges) == 0 && len(adopted) == len(spec.ClusterIPs):
		setClusterIPs(after, adopted)
	case len(v.Tenant.ServiceRanges) == 0:
		setClusterIPs(after, nil)
	default:
		ips, err := replaced(v, after)
		if err != nil { // it is told once the service has an address again
			ips = nil
		}
		setClusterIPs(after, ips)
	}
	return resource.Change(readdressed(), between, resource.SameObject, func(to *corev1.Service) {
		to.Spec = after.Spec
		delete(to.Annotations, names.AnnotationReaddress)
	})
}

// readdressed is the operation that changes a Service that gets another address.
func readdressed() resource.Op {
	return resource.Op{Side: resource.Tenant, Verb: resource.Patch, Why: resource.Readdressed, IfRefused: &resource.Reject{
		Reason: "ReaddressingFailed",
		Message: "The Service does not work until it has another cluster IP or other node ports, and your own API server refuses to " +
			"give it these. Change the policy or webhook that refuses it, or delete Services that you do not need; it is tried again. The answer was",
	}}
}

func setClusterIPs(s *corev1.Service, ips []string) {
	s.Spec.ClusterIP, s.Spec.ClusterIPs = "", ips
	if len(ips) > 0 {
		s.Spec.ClusterIP = ips[0]
	}
}

// adopted returns the addresses that the super cluster gave the replica of a service, none while there is none.
func adopted(v resource.View, p resource.Pair[*corev1.Service]) []string {
	if !v.Replicated(resource.Ref{Kind: resource.Services, Namespace: p.Tenant.Namespace, Name: p.Tenant.Name}) || !hasClusterIP(p.Super) {
		return nil
	}
	return p.Super.Spec.ClusterIPs
}

// noted returns the spec that a Service gets back that is being readdressed.
func noted(between *corev1.Service) (corev1.ServiceSpec, error) {
	var spec corev1.ServiceSpec
	err := json.Unmarshal([]byte(between.Annotations[names.AnnotationReaddress]), &spec)
	if ips := spec.ClusterIPs; err != nil || spec.ClusterIP != "" && (len(ips) == 0 || ips[0] != spec.ClusterIP) { // the tenant can write there, too
		return spec, resource.Rejected("ReaddressingFailed",
			"annotation %s is not what was written there; restore the service and remove the annotation", names.AnnotationReaddress)
	}
	return spec, nil
}

// isAPIServer says whether a Service is the one by which pods reach the API server: certificates and pods carry its
// address, so it keeps it.
func isAPIServer(namespace, name string) bool {
	return namespace == metav1.NamespaceDefault && name == "kubernetes"
}

// holdsRange says whether the tenant has its range by a Service of the super cluster, and for good: not by that of DNS, which may
// have another address.
func holdsRange(super *corev1.Service) bool {
	return super.Labels[names.LabelServiceRange] != "" && !isDNS(super.Annotations[names.AnnotationNamespace], super.Name)
}

func isDNS(namespace, name string) bool {
	return namespace == metav1.NamespaceSystem && name == "kube-dns"
}

// ofCluster says whether a Service is one whose address every pod has: the API server's, or that of DNS.
func ofCluster(namespace, name string) bool {
	return isAPIServer(namespace, name) || isDNS(namespace, name)
}

// serviceRefused gives the tenant Service another address or other node ports when the super cluster has handed the wanted
// ones to somebody else: any address of any range may be taken, and node ports are shared by all tenants. What every pod has as
// the address of the API server or of DNS stays. It replaces a super Service whose address cannot be changed.
func serviceRefused(v resource.View, p resource.Pair[*corev1.Service], op resource.Op, message string) ([]resource.Op, error) {
	if p.Tenant == nil {
		return nil, nil
	}
	kind := corev1.SchemeGroupVersion.WithKind("Service")
	if hasClusterIP(p.Tenant) && strings.Contains(message, "nodePort") && strings.Contains(message, "provided port is already allocated") {
		ops, err := readdressOps(v, p.Tenant, p.Tenant.Spec.ClusterIPs)
		if err != nil {
			return nil, err
		}
		return append(ops, resource.Tell(v, p.Tenant, kind, corev1.EventTypeNormal, "NodePortChanged",
			"A node port of the service is in use elsewhere; the service gets others")), nil
	}
	if p.Super != nil {
		if slices.Equal(p.Super.Spec.ClusterIPs, p.Tenant.Spec.ClusterIPs) || !strings.Contains(message, "clusterIP") || holdsRange(p.Super) {
			return nil, nil
		}
		return []resource.Op{{Side: resource.Super, Verb: resource.Delete, Object: p.Super, Why: resource.Superseded}}, nil
	}
	if hasClusterIP(p.Tenant) && strings.Contains(message, "provided IP is already allocated") && leaving(v, p.Tenant) {
		return nil, resource.Blocked(time.Second, "Waiting", "the underlying cluster to release the cluster IP of a service that was deleted")
	}
	if wanted, ok := op.Object.(*corev1.Service); ok && op.Verb == resource.Create && len(v.Tenant.ServiceRanges) == 0 && hasClusterIP(wanted) && strings.Contains(message, "clusterIP") {
		op.Object = anyAddress(wanted)
		return []resource.Op{op}, nil
	}
	if !hasClusterIP(p.Tenant) || len(v.Tenant.ServiceRanges) == 0 || !strings.Contains(message, "provided IP is already allocated") {
		return nil, nil
	}
	has := strings.Join(p.Tenant.Spec.ClusterIPs, " or ")
	if ofCluster(p.Tenant.Namespace, p.Tenant.Name) {
		return nil, resource.Rejected("ClusterIPTaken",
			"the cluster IP %s is in use elsewhere in the underlying cluster, and every pod has it, so it cannot change; ask the operator of the cluster to free it", has)
	}
	ops, err := readdressOps(v, p.Tenant, nil)
	if err != nil {
		return nil, err
	}
	return append(ops, resource.Tell(v, p.Tenant, kind, corev1.EventTypeNormal, "ClusterIPChanged",
		"The cluster IP "+has+" is in use elsewhere; the service gets another one")), nil
}

// leaving says whether an address of a service is still that of one which the tenant has deleted.
func leaving(v resource.View, s *corev1.Service) bool {
	found := false
	v.Each(resource.Super, resource.Services, func(o resource.Object) {
		super, ok := o.(*corev1.Service)
		if !ok || super.Labels[names.LabelTenant] != string(v.Tenant.ID) || serviceStays(super) ||
			!slices.ContainsFunc(super.Spec.ClusterIPs, func(ip string) bool { return slices.Contains(s.Spec.ClusterIPs, ip) }) {
			return
		}
		origin := v.Get(resource.Tenant, resource.Ref{Kind: resource.Services, Namespace: super.Annotations[names.AnnotationNamespace], Name: super.Name})
		found = found || origin == nil || string(origin.GetUID()) != super.Annotations[names.AnnotationUID]
	})
	return found
}

// anyAddress returns a service that leaves the choice of its addresses to the super cluster.
func anyAddress(s *corev1.Service) *corev1.Service {
	out := s.DeepCopy()
	setClusterIPs(out, nil)
	return out
}
