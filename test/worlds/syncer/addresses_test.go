package syncer_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/internal/iprange"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

// idle starts worlds of a test's own, and no syncer.
func idle(t *testing.T, o worlds.Options) *running {
	t.Helper()
	own := worlds.Start(t, o)
	if err := installRights(t.Context(), own.Super); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(own.Super.Config, client.Options{Scheme: newScheme()})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "tenants"}}); err != nil {
		t.Fatal(err)
	}
	return &running{worlds: own, client: c}
}

// sharing makes the VirtualCluster of a world that has no range of its own, as vc-manager leaves it.
func (r *running) sharing(t *testing.T, world *worlds.World) tenant {
	t.Helper()
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "tenants", Name: world.Name},
		Data:       map[string][]byte{names.KubeconfigKey: world.Kubeconfig},
	}
	vc := &tenancyv1alpha1.VirtualCluster{ObjectMeta: metav1.ObjectMeta{Namespace: "tenants", Name: world.Name}}
	for _, o := range []client.Object{secret, vc} {
		if err := r.client.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	system, err := world.Client.CoreV1().Namespaces().Get(t.Context(), metav1.NamespaceSystem, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	vc.Status.ControlPlaneUID = string(system.UID)
	vc.Status.ClusterNamespace, vc.Status.KubeconfigSecret = secret.Namespace, &tenancyv1alpha1.SecretKeyReference{Name: secret.Name}
	if err := r.client.Status().Update(t.Context(), vc); err != nil {
		t.Fatal(err)
	}
	key := client.ObjectKeyFromObject(vc)
	return tenant{Interface: world.Client, world: world, id: names.Tenant(key, vc.UID), vc: key}
}

// ahead marks what vc-manager makes before there is an object of the tenant.
func ahead(of tenant, namespace string, o client.Object) client.Object {
	o.SetLabels(map[string]string{names.LabelTenant: string(of.id), names.LabelManagedBy: names.Syncer})
	o.SetAnnotations(map[string]string{names.AnnotationNamespace: namespace, names.AnnotationUID: names.UIDAhead})
	if o.GetNamespace() == "" {
		o.SetName(of.super(namespace))
	}
	return o
}

// makeAhead makes something ahead, as soon as its range is ready.
func (r *running) makeAhead(t *testing.T, of tenant, namespace string, o client.Object) {
	t.Helper()
	ahead(of, namespace, o)
	worlds.Eventually(t, limit, "the super cluster to take "+o.GetName(), func(ctx context.Context) error { return r.client.Create(ctx, o) })
}

// holder is a Service of the super cluster that holds an address for a Service of the tenant.
func holder(of tenant, namespace, name, ip string) *corev1.Service {
	s := worlds.Service(of.super(namespace), name)
	s.Spec.Selector, s.Spec.ClusterIP = nil, ip
	return s
}

// superService reads a Service of the super cluster by the tenant's names.
func (r *running) superService(ctx context.Context, of tenant, namespace, name string) (*corev1.Service, error) {
	return r.worlds.Super.Client.CoreV1().Services(of.super(namespace)).Get(ctx, name, metav1.GetOptions{})
}

// awaitPaired waits until a Service of the super cluster is the replica of the one that the tenant has now, and has its address.
func (r *running) awaitPaired(t *testing.T, of tenant, namespace, name string, not types.UID) (inTenant, super *corev1.Service) {
	t.Helper()
	worlds.Eventually(t, limit, fmt.Sprintf("Service %s/%s on both sides", namespace, name), func(ctx context.Context) (err error) {
		if inTenant, err = of.CoreV1().Services(namespace).Get(ctx, name, metav1.GetOptions{}); err != nil {
			return err
		}
		if super, err = r.superService(ctx, of, namespace, name); err != nil {
			return err
		}
		if inTenant.UID == not || super.Annotations[names.AnnotationUID] != string(inTenant.UID) || inTenant.Annotations[names.AnnotationReaddress] != "" ||
			inTenant.Spec.ClusterIP == "" || !slices.Equal(inTenant.Spec.ClusterIPs, super.Spec.ClusterIPs) {
			return fmt.Errorf("in the tenant %s with %v, in the super cluster %v with %v", inTenant.UID, inTenant.Spec.ClusterIPs, super.Annotations, super.Spec.ClusterIPs)
		}
		return nil
	})
	return inTenant, super
}

// remove deletes a Service of the tenant.
func (of tenant) remove(t *testing.T, namespace, name string) types.UID {
	t.Helper()
	had, err := of.CoreV1().Services(namespace).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := of.CoreV1().Services(namespace).Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	return had.UID
}

// dns makes the Service of a tenant's DNS.
func (r *running) dns(t *testing.T, of tenant, ip string) {
	t.Helper()
	s := worlds.Service(metav1.NamespaceSystem, "kube-dns")
	s.Spec.ClusterIP = ip
	r.makeService(t, of, s)
}

// What vc-manager makes before a control plane runs becomes the tenant's, and what holds an address stays.
func TestMadeAhead(t *testing.T) {
	r := idle(t, options(1))
	of := r.virtualCluster(t, "tenants", r.worlds.Tenants[0])
	r.tenants = []tenant{of}
	api, dns := iprange.Nth(of.world.ServiceRanges.Primary(), 1).String(), iprange.DNS(of.world.ServiceRanges.Primary()).String()
	uids := map[string]types.UID{}
	for namespace, s := range map[string]*corev1.Service{
		metav1.NamespaceDefault: holder(of, metav1.NamespaceDefault, "kubernetes", api),
		metav1.NamespaceSystem:  holder(of, metav1.NamespaceSystem, "kube-dns", dns),
	} {
		ns := &corev1.Namespace{}
		r.makeAhead(t, of, namespace, ns)
		ahead(of, namespace, s)
		s.Labels[names.LabelServiceRange] = "true"
		s.Annotations[names.AnnotationServiceRange] = of.world.ServiceRanges.Primary().String()
		worlds.Eventually(t, limit, "the range to be ready", func(ctx context.Context) error { return r.client.Create(ctx, s) })
		uids[ns.Name], uids[s.Name] = ns.UID, s.UID
	}
	same := func(o client.Object) {
		t.Helper()
		if o.GetUID() != uids[o.GetName()] {
			t.Errorf("%s was replaced", o.GetName())
		}
	}
	paired := func(namespace, name string, not types.UID) {
		t.Helper()
		inTenant, super := r.awaitPaired(t, of, namespace, name, not)
		same(super)
		if super.Labels[names.LabelServiceRange] != "true" || inTenant.Spec.Ports[0].Port != super.Spec.Ports[0].Port {
			t.Errorf("it is %v with ports %v", super.Labels, super.Spec.Ports)
		}
	}
	r.run(t)

	for _, namespace := range []string{metav1.NamespaceDefault, metav1.NamespaceSystem} {
		worlds.Eventually(t, limit, "namespace "+namespace+" to be taken over", func(ctx context.Context) error {
			inTenant, err := of.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{})
			if err != nil {
				return err
			}
			super, err := r.worlds.Super.Client.CoreV1().Namespaces().Get(ctx, of.super(namespace), metav1.GetOptions{})
			if err != nil {
				return err
			}
			if super.Annotations[names.AnnotationUID] != string(inTenant.UID) || super.Labels["pod-security.kubernetes.io/enforce"] == "" {
				return fmt.Errorf("it has %v, %v", super.Labels, super.Annotations)
			}
			same(super)
			return nil
		})
	}
	paired(metav1.NamespaceDefault, "kubernetes", "")
	r.awaitAPIServer(t, of)
	if s, err := r.superService(t.Context(), of, metav1.NamespaceSystem, "kube-dns"); err != nil || s.Annotations[names.AnnotationUID] != names.UIDAhead {
		t.Fatalf("what the tenant does not have yet: %v, %v", s, err)
	}
	r.dns(t, of, dns)
	paired(metav1.NamespaceSystem, "kube-dns", "")

	// The tenant's Services come and go.
	gone := of.remove(t, metav1.NamespaceSystem, "kube-dns")
	worlds.Throughout(t, 2*time.Second, "the address of DNS is held", func(ctx context.Context) error {
		_, err := r.superService(ctx, of, metav1.NamespaceSystem, "kube-dns")
		return err
	})
	r.dns(t, of, dns)
	paired(metav1.NamespaceSystem, "kube-dns", gone)
	gone = of.remove(t, metav1.NamespaceDefault, "kubernetes")
	paired(metav1.NamespaceDefault, "kubernetes", gone)
	r.awaitAPIServer(t, of)

	// The tenant may choose another address for its DNS.
	gone = of.remove(t, metav1.NamespaceSystem, "kube-dns")
	other := iprange.Nth(of.world.ServiceRanges.Primary(), 77).String()
	r.dns(t, of, other)
	if _, super := r.awaitPaired(t, of, metav1.NamespaceSystem, "kube-dns", gone); super.Spec.ClusterIP != other {
		t.Errorf("it has %s", super.Spec.ClusterIP)
	}
}

// awaitAPIServer waits until the super cluster leads to the tenant's API server.
func (r *running) awaitAPIServer(t *testing.T, of tenant) {
	t.Helper()
	worlds.Eventually(t, limit, "the endpoint of the API server", func(ctx context.Context) error {
		got, err := endpointsOf(ctx, r.worlds.Super.Client, of.super(metav1.NamespaceDefault))
		if err == nil && !slices.ContainsFunc(got["kubernetes"], func(e string) bool { return strings.Contains(e, " 198.18.") }) {
			err = fmt.Errorf("endpoints are %v", got)
		}
		return err
	})
}

// The address of DNS is in every pod, so it stays although somebody else has it, and the tenant is told.
func TestAddressOfDNSIsTaken(t *testing.T) {
	r := start(t)
	of := r.tenants[1]
	wanted := iprange.DNS(of.world.ServiceRanges.Primary()).String()
	thief := worlds.Service("default", "thief-dns")
	thief.Spec.ClusterIP = wanted
	if err := r.client.Create(t.Context(), thief); err != nil {
		t.Fatal(err)
	}
	r.dns(t, of, wanted)
	t.Cleanup(func() {
		err := of.CoreV1().Services(metav1.NamespaceSystem).Delete(context.Background(), "kube-dns", metav1.DeleteOptions{}) // the test's context has ended
		if err != nil {
			t.Error(err)
		}
	})
	waitForEvent(t, of, metav1.NamespaceSystem, "kube-dns", "ClusterIPTaken")
	if err := r.client.Delete(t.Context(), thief); err != nil {
		t.Fatal(err)
	}
	inTenant, _ := r.awaitPaired(t, of, metav1.NamespaceSystem, "kube-dns", "")
	if inTenant.Spec.ClusterIP != wanted {
		t.Errorf("it has %s", inTenant.Spec.ClusterIP)
	}
}

// A tenant whose own policy refuses that a Service gets its address is told so, and the Service gets it once that is allowed.
// A syncer that starts in between goes on.
func TestReaddressingIsRefused(t *testing.T) {
	const namespace = "svc-held"
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, namespace)
	probe := worlds.Service(namespace, "probe")
	probe.Spec.Type, probe.Spec.ExternalName = corev1.ServiceTypeExternalName, "example.com"
	r.makeService(t, of, probe)
	c, err := client.New(of.world.Config, client.Options{Scheme: newScheme()})
	if err != nil {
		t.Fatal(err)
	}
	inTenant := &running{client: c}
	allow := inTenant.deny(t, "services", `oldObject.spec.type != "ExternalName" || object.spec.type == "ExternalName"`, probe, func(o client.Object) {
		if s, ok := o.(*corev1.Service); ok {
			s.Spec.Type, s.Spec.ExternalName = corev1.ServiceTypeClusterIP, ""
		}
	})
	wanted := iprange.Nth(of.world.ServiceRanges.Primary(), 79).String()
	r.take(t, wanted)
	service := worlds.Service(namespace, "web")
	service.Spec.ClusterIP = wanted
	made := r.makeService(t, of, service)
	event := waitForEvent(t, of, namespace, "web", "ReaddressingFailed")
	if !strings.Contains(event.Message, "the test does not allow it") {
		t.Errorf("the event says %q", event.Message)
	}
	r.stop()
	r.run(t)
	allow()
	now, _ := r.awaitPaired(t, of, namespace, "web", "")
	if now.UID != made.UID || now.Spec.Type != corev1.ServiceTypeClusterIP || now.Spec.ClusterIP == wanted {
		t.Errorf("it is %v, %v", now.ObjectMeta, now.Spec)
	}
}

// Without a range of its own, a tenant has the addresses that the super cluster gives its Services. Its API server hands out
// others first, which belong to somebody else.
func TestAdoptedAddresses(t *testing.T) {
	// Before 1.36, what repairs addresses may be confused by a Service that changes its type and back.
	for _, version := range []string{"", "1.34"} {
		t.Run("Kubernetes"+version, func(t *testing.T) { adopts(t, version) })
	}
}

func adopts(t *testing.T, version string) {
	t.Helper()
	const namespace = "adopting"
	o := options(1)
	o.Variants = []worlds.Variant{{Kubernetes: version, APIServerArgs: []string{"--service-cluster-ip-range=10.200.0.0/21"}}} // as that of the super cluster
	r := idle(t, o)
	of := r.sharing(t, r.worlds.Tenants[0])
	r.tenants = []tenant{of}
	kubernetes, err := r.worlds.Super.Client.CoreV1().Services(metav1.NamespaceDefault).Get(t.Context(), "kubernetes", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	provisional, err := of.CoreV1().Services(metav1.NamespaceDefault).Get(t.Context(), "kubernetes", metav1.GetOptions{})
	if err != nil || provisional.Spec.ClusterIP != kubernetes.Spec.ClusterIP {
		t.Fatalf("the tenant begins with %v, %v; want the address of the super cluster's API server, %s", provisional.Spec, err, kubernetes.Spec.ClusterIP)
	}
	of.world.MakeNamespace(t, namespace)
	of.world.MakePod(t, worlds.Pod(namespace, "early"))
	r.dns(t, of, "")

	// Two Services are to exchange their addresses.
	first, second := "10.200.3.3", "10.200.4.4"
	r.makeAhead(t, of, namespace, &corev1.Namespace{})
	for name, ips := range map[string][2]string{"a": {first, second}, "b": {second, first}} {
		s := worlds.Service(namespace, name)
		s.Spec.ClusterIP = ips[0]
		r.makeService(t, of, s)
		r.makeAhead(t, of, namespace, holder(of, namespace, name, ips[1]))
	}
	r.run(t)
	early := r.superPod(t, of, namespace, "early")
	api, superAPI := r.awaitPaired(t, of, metav1.NamespaceDefault, "kubernetes", "")
	dns, superDNS := r.awaitPaired(t, of, metav1.NamespaceSystem, "kube-dns", "")
	if api.Spec.ClusterIP == kubernetes.Spec.ClusterIP {
		t.Errorf("the tenant's API server is said to be at %s", api.Spec.ClusterIP)
	}
	host := ""
	for _, e := range early.Spec.Containers[0].Env {
		if e.Name == "KUBERNETES_SERVICE_HOST" {
			host = e.Value
		}
	}
	if host != api.Spec.ClusterIP || early.Spec.DNSConfig == nil || early.Spec.DNSConfig.Nameservers[0] != dns.Spec.ClusterIP {
		t.Errorf("the pod has %s and %v, the API server %s and DNS %s", host, early.Spec.DNSConfig, api.Spec.ClusterIP, dns.Spec.ClusterIP)
	}
	for name, ip := range map[string]string{"a": second, "b": first} {
		if got, _ := r.awaitPaired(t, of, namespace, name, ""); got.Spec.ClusterIP != ip {
			t.Errorf("%s has %s, want %s", name, got.Spec.ClusterIP, ip)
		}
	}

	// Pods have these addresses for as long as they live.
	gone := of.remove(t, metav1.NamespaceDefault, "kubernetes")
	_, now := r.awaitPaired(t, of, metav1.NamespaceDefault, "kubernetes", gone)
	if now.UID != superAPI.UID || now.Spec.ClusterIP != host {
		t.Errorf("the API server has %s, which was %s", now.Spec.ClusterIP, host)
	}
	gone = of.remove(t, metav1.NamespaceSystem, "kube-dns")
	r.dns(t, of, "")
	_, now = r.awaitPaired(t, of, metav1.NamespaceSystem, "kube-dns", gone)
	if now.UID != superDNS.UID {
		t.Errorf("DNS has %s, which was %s", now.Spec.ClusterIP, dns.Spec.ClusterIP)
	}
	// The address that the tenant's API server chose is good when nobody has it.
	chosen := r.makeService(t, of, worlds.Service(namespace, "later"))
	if got, _ := r.awaitPaired(t, of, namespace, "later", ""); got.Spec.ClusterIP != chosen.Spec.ClusterIP {
		t.Errorf("it has %s, had %s, which was free", got.Spec.ClusterIP, chosen.Spec.ClusterIP)
	}
	operators := worlds.Service(metav1.NamespaceDefault, "operators")
	operators.Spec.ClusterIP = "10.200.5.5"
	r.make(t, operators)
	taken := worlds.Service(namespace, "taken")
	taken.Spec.ClusterIP = operators.Spec.ClusterIP
	r.makeService(t, of, taken)
	if got, _ := r.awaitPaired(t, of, namespace, "taken", ""); got.Spec.ClusterIP == operators.Spec.ClusterIP {
		t.Errorf("it has %s, as a Service of the operator", got.Spec.ClusterIP)
	}
}

// A tenant gives the address of one Service to another. The super cluster releases it a while later.
func TestAddressOfADeletedService(t *testing.T) {
	const namespace = "svc-passed-on"
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, namespace)
	first := worlds.Service(namespace, "first")
	first.Spec.ClusterIP = iprange.Nth(of.world.ServiceRanges.Primary(), 99).String()
	r.makeService(t, of, first)
	_, super := r.awaitPaired(t, of, namespace, "first", "")
	// A finalizer of the operator's, such as that of a load balancer, holds the replica.
	setFinalizers := func(patch string) {
		t.Helper()
		if _, err := r.worlds.Super.Client.CoreV1().Services(super.Namespace).Patch(t.Context(), "first", types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	setFinalizers(`{"metadata":{"finalizers":["example.com/hold"]}}`)
	of.remove(t, namespace, "first")
	worlds.Eventually(t, limit, "the deletion of the replica", func(ctx context.Context) error {
		got, err := r.worlds.Super.Client.CoreV1().Services(super.Namespace).Get(ctx, "first", metav1.GetOptions{})
		if err == nil && got.DeletionTimestamp == nil {
			err = errors.New("it has not begun")
		}
		return err
	})
	second := worlds.Service(namespace, "second")
	second.Spec.ClusterIP = first.Spec.ClusterIP
	made := r.makeService(t, of, second)
	waitForEvent(t, of, namespace, "second", "Waiting")
	setFinalizers(`{"metadata":{"finalizers":null}}`)
	got, _ := r.awaitPaired(t, of, namespace, "second", "")
	if got.UID != made.UID || got.Spec.ClusterIP != first.Spec.ClusterIP {
		t.Errorf("it has %s, asked for %s", got.Spec.ClusterIP, first.Spec.ClusterIP)
	}
}
