package resources_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	resourcev1 "k8s.io/api/resource/v1"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/resources"
)

// An object that was made again under the name of a predecessor is not told what the predecessor's replica is like.
func TestSuccessorsAreNotGivenWhatPredecessorsHad(t *testing.T) {
	balanced := corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{{IP: "192.0.2.9"}}}
	balancer := superService(address("10.96.7.7"), func(s *corev1.Service) { s.Status.LoadBalancer = balanced })
	allocated := &resourcev1.ResourceClaim{ObjectMeta: replicaMeta("shop", "gpu", "u"), Status: resourcev1.ResourceClaimStatus{
		Allocation: &resourcev1.AllocationResult{}, ReservedFor: []resourcev1.ResourceClaimConsumerReference{{Resource: "pods", Name: "web", UID: "p"}},
	}}
	class := "nginx"
	ingress := &networkingv1.Ingress{ObjectMeta: replicaMeta("shop", "web", "u"), Spec: networkingv1.IngressSpec{IngressClassName: &class}, Status: networkingv1.IngressStatus{
		LoadBalancer: networkingv1.IngressLoadBalancerStatus{Ingress: []networkingv1.IngressLoadBalancerIngress{{IP: "192.0.2.9"}}},
	}}
	for name, tc := range map[string]struct {
		kind  resource.Kind
		super resource.Object
	}{
		"Service":               {resources.Services(), balancer},
		"PersistentVolumeClaim": {resources.PersistentVolumeClaims(), superClaim(bound)},
		"ResourceClaim":         {resources.ResourceClaims(), allocated},
		"Ingress":               {resources.Ingresses(), ingress},
	} {
		t.Run(name, func(t *testing.T) {
			tenant, ok := tc.super.DeepCopyObject().(resource.Object)
			if !ok {
				t.Fatal("it became another type")
			}
			tenant.SetNamespace("shop")
			tenant.SetUID("successor")
			tenant.SetAnnotations(nil)
			tenant.SetLabels(nil)
			if service, ok := tenant.(*corev1.Service); ok {
				service.Spec.ClusterIP, service.Spec.ClusterIPs = "10.96.1.1", []string{"10.96.1.1"}
				service.Status = corev1.ServiceStatus{}
			}
			class := &networkingv1.IngressClass{}
			class.Name = "nginx"
			ops, _ := decide(t, tc.kind, world{super: []resource.Object{tc.super, class}}, "shop", tenant.GetName(), tenant, tc.super)
			for _, op := range ops {
				if op.Side == resource.Tenant {
					t.Errorf("%s %s: %s", op.Verb, op.Why, op.Patch)
				}
			}
		})
	}
}
