package dedicated

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"maps"
	"net"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/controllers/apply"
	"github.com/virtualcluster-io/virtualcluster/controllers/progress"
	"github.com/virtualcluster-io/virtualcluster/controllers/provision"
	"github.com/virtualcluster-io/virtualcluster/internal/iprange"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

const (
	// etcdService is the headless Service that gives etcd's members names; they need them before they are ready.
	etcdService = "etcd"
	// etcdClientService is the Service that kube-apiserver reaches etcd by.
	etcdClientService = "etcd-client"
	// apiServerServicePort is the port of the Service in front of kube-apiserver.
	apiServerServicePort = 443
)

// Reasons for which a control plane has no endpoint.
const (
	reasonNoNode         = "NoNodeReady"
	reasonNoLoadBalancer = "LoadBalancerPending"
)

// services renders the Services of the control plane.
func (l layout) services(exposure tenancyv1alpha1.ExposureSpec) (apiServer, etcd, etcdClient *corev1.Service) {
	target := intstr.FromInt32(apiServerPort)
	if t := l.version.APIServer; t != nil && t.StatefulSet != nil && t.Service != nil && len(t.Service.Spec.Ports) > 0 {
		target = t.Service.Spec.Ports[0].TargetPort
	}
	apiServer = l.service(names.APIServerService, names.APIServer, corev1.ServiceSpec{
		Type:  corev1.ServiceType(cmp.Or(exposure.Type, tenancyv1alpha1.ExposeNodePort)),
		Ports: []corev1.ServicePort{{Name: "https", Port: apiServerServicePort, TargetPort: target, Protocol: corev1.ProtocolTCP}},
	})
	apiServer.Annotations = overlay(exposure.Annotations, apiServer.Annotations)

	client := corev1.ServicePort{Name: "client", Port: etcdClientPort, TargetPort: intstr.FromInt32(etcdClientPort), Protocol: corev1.ProtocolTCP}
	peer := corev1.ServicePort{Name: "peer", Port: etcdPeerPort, TargetPort: intstr.FromInt32(etcdPeerPort), Protocol: corev1.ProtocolTCP}
	etcd = l.service(etcdService, names.Etcd, corev1.ServiceSpec{
		ClusterIP:                corev1.ClusterIPNone,
		PublishNotReadyAddresses: true,
		Ports:                    []corev1.ServicePort{client, peer},
	})
	etcdClient = l.service(etcdClientService, names.Etcd, corev1.ServiceSpec{
		Type:  corev1.ServiceTypeClusterIP,
		Ports: []corev1.ServicePort{client},
	})
	return apiServer, etcd, etcdClient
}

func (l layout) service(name, component string, spec corev1.ServiceSpec) *corev1.Service {
	spec.Selector = maps.Clone(selector(component))
	return &corev1.Service{ObjectMeta: l.meta(name, component), Spec: spec}
}

// ensureServices makes the Services and fills in the cluster IPs of the layout.
func (p *Provisioner) ensureServices(ctx context.Context, tenant *provision.Tenant, l *layout) (*corev1.Service, error) {
	apiServer, etcd, etcdClient := l.services(tenant.VirtualCluster.Spec.ControlPlane.Exposure)
	for _, service := range []*corev1.Service{apiServer, etcdClient, etcd} {
		if service.Spec.ClusterIP != corev1.ClusterIPNone {
			if err := p.createService(ctx, service); err != nil {
				return nil, err
			}
		}
		if _, err := apply.Object(ctx, p.Client, service); err != nil {
			return nil, err
		}
	}
	l.apiServerIP, l.etcdIP = apiServer.Spec.ClusterIP, etcdClient.Spec.ClusterIP
	return apiServer, nil
}

// createService creates a Service that is not there yet with a cluster IP from the range that the super cluster was
// started with. Without that, the super cluster takes one from any range, and those of the tenants are for the tenants'
// Services.
func (p *Provisioner) createService(ctx context.Context, service *corev1.Service) error {
	const attempts = 8
	key := client.ObjectKeyFromObject(service)
	if err := p.Client.Get(ctx, key, &corev1.Service{}); !apierrors.IsNotFound(err) {
		return err
	}
	super, err := p.CIDRs.Default(ctx)
	if err != nil {
		return err
	}
	if len(super) == 0 {
		return nil // it does not tell
	}
	seed := fnv.New64a()
	_, _ = seed.Write([]byte(key.String()))
	for range attempts {
		created := service.DeepCopy()
		created.Spec.ClusterIP = iprange.At(super.Primary(), seed.Sum64()).String()
		err := p.Client.Create(ctx, created, client.FieldOwner(names.Manager))
		if err == nil || apierrors.IsAlreadyExists(err) {
			return nil
		}
		if !apierrors.IsInvalid(err) {
			return fmt.Errorf("creating Service %s: %w", key, err)
		}
		// The address is taken.
		_, _ = seed.Write([]byte{1})
	}
	// Nearly full: let the super cluster choose.
	return nil
}

// hosts returns every name and address outside the super cluster by which the control plane is reached.
func hosts(exposure tenancyv1alpha1.ExposureSpec, service *corev1.Service, nodes []corev1.Node) []string {
	list := slices.Clone(exposure.Hosts)
	list = append(list, service.Spec.ClusterIPs...)
	for _, ingress := range service.Status.LoadBalancer.Ingress {
		if ingress.IP != "" {
			list = append(list, ingress.IP)
		}
		if ingress.Hostname != "" {
			list = append(list, ingress.Hostname)
		}
	}
	if service.Spec.Type == corev1.ServiceTypeNodePort {
		for i := range nodes {
			list = append(list, nodeAddresses(&nodes[i])...)
		}
	}
	return list
}

// endpoint returns the URL by which clients outside reach the control plane. The current one is kept while it is good,
// so that it does not move when a node restarts.
func endpoint(exposure tenancyv1alpha1.ExposureSpec, service *corev1.Service, nodes []corev1.Node, current string) (string, error) {
	url := func(host string, port int32) string { return "https://" + net.JoinHostPort(host, fmt.Sprint(port)) }
	servicePort := service.Spec.Ports[0].Port
	switch service.Spec.Type {
	case corev1.ServiceTypeLoadBalancer:
		if len(exposure.Hosts) > 0 {
			return url(exposure.Hosts[0], servicePort), nil
		}
		for _, ingress := range service.Status.LoadBalancer.Ingress {
			return url(cmp.Or(ingress.IP, ingress.Hostname), servicePort), nil
		}
		return "", &progress.Wait{Reason: reasonNoLoadBalancer, Message: "the super cluster's load balancer has not given the Service " + service.Name + " an address yet"}
	case corev1.ServiceTypeNodePort:
		port := service.Spec.Ports[0].NodePort
		if len(exposure.Hosts) > 0 {
			return url(exposure.Hosts[0], port), nil
		}
		var candidates []string
		for i := range nodes {
			if nodeReady(&nodes[i]) {
				for _, address := range nodes[i].Status.Addresses {
					if address.Type == corev1.NodeInternalIP {
						candidates = append(candidates, url(address.Address, port))
					}
				}
			}
		}
		if slices.Contains(candidates, current) {
			return current, nil
		}
		if len(candidates) == 0 {
			return "", &progress.Wait{Reason: reasonNoNode, Message: "no node of the super cluster is ready and has an internal IP address"}
		}
		slices.Sort(candidates)
		return candidates[0], nil
	default:
		if len(exposure.Hosts) > 0 {
			return url(exposure.Hosts[0], servicePort), nil
		}
		return internalURL(service.Namespace), nil
	}
}

// internalURL returns the URL of a tenant's kube-apiserver inside the super cluster.
func internalURL(namespace string) string {
	return fmt.Sprintf("https://%s.%s.svc:%d", names.APIServerService, namespace, apiServerServicePort)
}

// nodeAddresses returns the IP addresses of a node.
func nodeAddresses(node *corev1.Node) []string {
	var list []string
	for _, address := range node.Status.Addresses {
		if address.Type == corev1.NodeInternalIP || address.Type == corev1.NodeExternalIP {
			list = append(list, address.Address)
		}
	}
	return list
}

// nodeReady says whether a node runs pods, and so forwards node ports.
func nodeReady(node *corev1.Node) bool {
	return slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}
