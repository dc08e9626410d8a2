package syncer_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

// A selector of namespaces counts the tenant's labels, now and later, and never reaches another tenant.
func TestNetworkPoliciesFollowTheLabelsOfNamespaces(t *testing.T) {
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, "np-policy")
	r.namespace(t, of, "np-a")
	r.namespace(t, r.tenants[1], "np-a")
	mark := func(of tenant, namespace, team string) {
		t.Helper()
		body := fmt.Appendf(nil, `{"metadata":{"labels":{"team":%q}}}`, team)
		if _, err := of.CoreV1().Namespaces().Patch(t.Context(), namespace, types.MergePatchType, body, metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	mark(r.tenants[1], "np-a", "red")
	_, err := of.NetworkingV1().NetworkPolicies("np-policy").Create(t.Context(), &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "from-red"},
		Spec: networkingv1.NetworkPolicySpec{Ingress: []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"team": "red"}},
		}}}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	selects := func(what string, want ...string) {
		t.Helper()
		var all []string
		for _, namespace := range want {
			all = append(all, of.super(namespace))
		}
		slices.Sort(all)
		worlds.Eventually(t, limit, what, func(ctx context.Context) error {
			var policy networkingv1.NetworkPolicy
			if err := r.client.Get(ctx, client.ObjectKey{Namespace: of.super("np-policy"), Name: "from-red"}, &policy); err != nil {
				return err
			}
			selector, err := metav1.LabelSelectorAsSelector(policy.Spec.Ingress[0].From[0].NamespaceSelector)
			if err != nil {
				return err
			}
			var list corev1.NamespaceList
			if err := r.client.List(ctx, &list, client.MatchingLabelsSelector{Selector: selector}); err != nil {
				return err
			}
			var got []string
			for i := range list.Items {
				got = append(got, list.Items[i].Name)
			}
			slices.Sort(got)
			if diff := cmp.Diff(all, got); diff != "" {
				return fmt.Errorf("-want +got\n%s", diff)
			}
			return nil
		})
	}
	selects("a policy that selects nothing")
	mark(of, "np-a", "red")
	selects("the namespace that got the label", "np-a")
	of.world.MakeNamespace(t, "np-b")
	mark(of, "np-b", "red")
	selects("a new namespace", "np-a", "np-b")
	mark(of, "np-a", "blue")
	selects("the one that lost the label to go", "np-b")
}

func TestIngressesAreServedByTheSuperCluster(t *testing.T) {
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, "ingress")
	r.ingressClass(t, of, "shared")
	for _, name := range []string{"cert", "other"} {
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: map[string]string{"k": "v"}}
		if _, err := of.CoreV1().Secrets("ingress").Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	class := "shared"
	web := func(name string, annotations map[string]string) *networkingv1.Ingress {
		return &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: annotations}, Spec: networkingv1.IngressSpec{
			IngressClassName: &class, DefaultBackend: backend("web", 80), TLS: []networkingv1.IngressTLS{{SecretName: "cert"}},
		}}
	}
	for _, in := range []*networkingv1.Ingress{
		web("web", map[string]string{"nginx.ingress.kubernetes.io/rewrite-target": "/"}),
		web("snippet", map[string]string{"nginx.ingress.kubernetes.io/configuration-snippet": "x"}),
	} {
		if _, err := of.NetworkingV1().Ingresses("ingress").Create(t.Context(), in, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	super := &networkingv1.Ingress{}
	worlds.Eventually(t, limit, "the Ingress and its Secret in the super cluster", func(ctx context.Context) error {
		if err := r.client.Get(ctx, client.ObjectKey{Namespace: of.super("ingress"), Name: names.SuperSecret("cert")}, &corev1.Secret{}); err != nil {
			return err
		}
		return r.client.Get(ctx, client.ObjectKey{Namespace: of.super("ingress"), Name: "web"}, super)
	})
	super.Status.LoadBalancer.Ingress = []networkingv1.IngressLoadBalancerIngress{{IP: "192.0.2.80"}}
	if err := r.client.Status().Update(t.Context(), super); err != nil {
		t.Fatal(err)
	}
	worlds.Eventually(t, limit, "the address in the tenant", func(ctx context.Context) error {
		now, err := of.NetworkingV1().Ingresses("ingress").Get(ctx, "web", metav1.GetOptions{})
		if err == nil && (len(now.Status.LoadBalancer.Ingress) != 1 || now.Status.LoadBalancer.Ingress[0].IP != "192.0.2.80") {
			err = fmt.Errorf("status is %v", now.Status)
		}
		return err
	})
	waitForEvent(t, of, "ingress", "snippet", "AnnotationNotAllowed")
	for name, o := range map[string]client.Object{"snippet": &networkingv1.Ingress{}, names.SuperSecret("other"): &corev1.Secret{}} {
		if err := gone(r.client.Get(t.Context(), client.ObjectKey{Namespace: of.super("ingress"), Name: name}, o)); err != nil {
			t.Errorf("%s in the super cluster: %v", name, err)
		}
	}
	// A class that is not offered any more takes its Ingresses with it.
	body := fmt.Appendf(nil, `{"metadata":{"labels":{%q:"false"}}}`, names.LabelPublic)
	if err := r.client.Patch(t.Context(), &networkingv1.IngressClass{ObjectMeta: metav1.ObjectMeta{Name: class}}, client.RawPatch(types.MergePatchType, body)); err != nil {
		t.Fatal(err)
	}
	worlds.Eventually(t, limit, "the Ingress to go", func(ctx context.Context) error {
		return gone(r.client.Get(ctx, client.ObjectKeyFromObject(super), &networkingv1.Ingress{}))
	})
}

// Pods get the priority and the runtime of the super cluster's classes, and its admission agrees with the tenant's.
func TestPodsUseOfferedClasses(t *testing.T) {
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, "classes")
	never := corev1.PreemptNever
	r.make(t, &schedulingv1.PriorityClass{
		ObjectMeta: metav1.ObjectMeta{Name: "batch", Labels: map[string]string{names.LabelPublic: "true"}}, Value: -7, PreemptionPolicy: &never,
	})
	overhead := corev1.ResourceList{corev1.ResourceCPU: apiresource.MustParse("20m")}
	r.make(t, &nodev1.RuntimeClass{
		ObjectMeta: metav1.ObjectMeta{Name: "sandbox"}, Handler: "sandboxed", Overhead: &nodev1.Overhead{PodFixed: overhead},
		Scheduling: &nodev1.Scheduling{NodeSelector: map[string]string{"sandbox": "true"}},
	})
	worlds.Eventually(t, limit, "the classes in the tenant", func(ctx context.Context) error {
		if _, err := of.SchedulingV1().PriorityClasses().Get(ctx, "batch", metav1.GetOptions{}); err != nil {
			return err
		}
		_, err := of.NodeV1().RuntimeClasses().Get(ctx, "sandbox", metav1.GetOptions{})
		return err
	})
	ownPriority := &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "mine"}, Value: 1000000}
	if _, err := of.SchedulingV1().PriorityClasses().Create(t.Context(), ownPriority, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for name, handler := range map[string]string{"mine": "sandboxed", "unknown": "gvisor"} {
		own := &nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Handler: handler}
		if _, err := of.NodeV1().RuntimeClasses().Create(t.Context(), own, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	pod := func(name, priority, runtime string) {
		t.Helper()
		p := worlds.Pod("classes", name)
		p.Spec.PriorityClassName = priority
		if runtime != "" {
			p.Spec.RuntimeClassName = &runtime
		}
		of.world.MakePod(t, p)
	}
	pod("offered", "batch", "sandbox")
	pod("own", "mine", "mine")
	pod("critical", "system-node-critical", "")
	pod("refused", "", "unknown")

	offered := r.superPod(t, of, "classes", "offered").Spec
	if offered.PriorityClassName != "batch" || *offered.Priority != -7 || *offered.PreemptionPolicy != never ||
		*offered.RuntimeClassName != "sandbox" || !offered.Overhead.Cpu().Equal(overhead[corev1.ResourceCPU]) {
		t.Errorf("with offered classes: %+v", offered)
	}
	own := r.superPod(t, of, "classes", "own").Spec
	if own.PriorityClassName != "" || *own.Priority != 0 || *own.RuntimeClassName != "sandbox" {
		t.Errorf("with classes of the tenant's own: %+v", own)
	}
	if critical := r.superPod(t, of, "classes", "critical").Spec; critical.PriorityClassName != "" || *critical.Priority != 0 {
		t.Errorf("with a class of the system: %+v", critical)
	}
	waitForEvent(t, of, "classes", "refused", "Unsupported")
}

// Draining a node of the super cluster honours a budget that only the tenant's controllers can compute.
func TestBudgetsHoldInTheSuperCluster(t *testing.T) {
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, "budget")
	replicas, labels := int32(3), map[string]string{"app": "web"}
	_, err := of.AppsV1().Deployments("budget").Create(t.Context(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: worlds.Pod("", "").Spec},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = of.PolicyV1().PodDisruptionBudgets("budget").Create(t.Context(), &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: policyv1.PodDisruptionBudgetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels}, MaxUnavailable: new(intstr.FromInt32(1)),
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var pods corev1.PodList
	worlds.Eventually(t, limit, "the super pods", func(ctx context.Context) error {
		if err := r.client.List(ctx, &pods, client.InNamespace(of.super("budget"))); err != nil {
			return err
		}
		if len(pods.Items) != int(replicas) {
			return fmt.Errorf("there are %d", len(pods.Items))
		}
		return nil
	})
	for i := range pods.Items {
		r.kubelet(t, &pods.Items[i], "node-budget", fmt.Sprintf("10.9.7.%d", i+1))
	}
	worlds.Eventually(t, limit, "the budget to be computed", func(ctx context.Context) error {
		var budget policyv1.PodDisruptionBudget
		if err := r.client.Get(ctx, client.ObjectKey{Namespace: of.super("budget"), Name: "web"}, &budget); err != nil {
			return err
		}
		if budget.Spec.MinAvailable.IntValue() != 2 || budget.Status.DisruptionsAllowed != 1 {
			return fmt.Errorf("it is %+v", budget)
		}
		return nil
	})
	evict := func(pod *corev1.Pod) error {
		return w.Super.Client.PolicyV1().Evictions(pod.Namespace).Evict(t.Context(), &policyv1.Eviction{
			ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name},
		})
	}
	if err := evict(&pods.Items[0]); err != nil {
		t.Fatalf("the eviction that the budget allows: %v", err)
	}
	if err := evict(&pods.Items[1]); !apierrors.IsTooManyRequests(err) {
		t.Fatalf("the eviction that the budget forbids: %v", err)
	}
}

// A kind that is switched off loses its replicas, and what only its objects refer to; the tenant's objects stay.
func TestKindsCanBeSwitchedOff(t *testing.T) {
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, "off")
	r.ingressClass(t, of, "off")
	class := "off"
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "cert"}, StringData: map[string]string{"k": "v"}}
	if _, err := of.CoreV1().Secrets("off").Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	ingress, err := of.NetworkingV1().Ingresses("off").Create(t.Context(), &networkingv1.Ingress{
		ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: networkingv1.IngressSpec{
			IngressClassName: &class, DefaultBackend: backend("web", 80), TLS: []networkingv1.IngressTLS{{SecretName: "cert"}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	web := client.ObjectKey{Namespace: of.super("off"), Name: "web"}
	cert := client.ObjectKey{Namespace: of.super("off"), Name: names.SuperSecret("cert")}
	there := func(ctx context.Context) error {
		if err := r.client.Get(ctx, cert, &corev1.Secret{}); err != nil {
			return err
		}
		return r.client.Get(ctx, web, &networkingv1.Ingress{})
	}
	worlds.Eventually(t, limit, "the replicas", there)

	disable := func(kinds ...tenancyv1alpha1.OptionalKind) error {
		vc := vcOf(of)
		if err := r.client.Get(context.Background(), of.vc, vc); err != nil { // also when the test has ended
			return err
		}
		before := vc.DeepCopy()
		vc.Spec.Sync.Disabled = kinds
		return r.client.Patch(context.Background(), vc, client.MergeFrom(before))
	}
	t.Cleanup(func() {
		if err := disable(); err != nil {
			t.Error(err)
		}
	})
	if err := disable("pods"); !apierrors.IsInvalid(err) {
		t.Errorf("switching pods off: %v", err)
	}
	if err := disable("ingresses", "ingressclasses"); err != nil {
		t.Fatal(err)
	}
	worlds.Eventually(t, limit, "the replicas to go", func(ctx context.Context) error {
		for key, o := range map[client.ObjectKey]client.Object{web: &networkingv1.Ingress{}, cert: &corev1.Secret{}} {
			if err := gone(r.client.Get(ctx, key, o)); err != nil {
				return err
			}
		}
		_, err := of.NetworkingV1().IngressClasses().Get(ctx, class, metav1.GetOptions{})
		return gone(err)
	})
	worlds.Throughout(t, 3*time.Second, "the tenant's Ingress", func(ctx context.Context) error {
		now, err := of.NetworkingV1().Ingresses("off").Get(ctx, "web", metav1.GetOptions{})
		if err == nil && (now.UID != ingress.UID || now.DeletionTimestamp != nil) {
			err = fmt.Errorf("it was replaced: %v", now)
		}
		return err
	})
	if err := disable(); err != nil {
		t.Fatal(err)
	}
	worlds.Eventually(t, limit, "the replicas to come back", there)
}

// Who changed a VirtualCluster can wait until the syncer has seen it, also when the change is nothing to the syncer.
func TestConditionNamesTheGeneration(t *testing.T) {
	r := start(t)
	of := r.tenants[0]
	for _, days := range []int64{300, 0} {
		vc := vcOf(of)
		if err := r.client.Get(t.Context(), of.vc, vc); err != nil {
			t.Fatal(err)
		}
		before := vc.DeepCopy()
		vc.Spec.PKIExpireDays = days
		if err := r.client.Patch(t.Context(), vc, client.MergeFrom(before)); err != nil {
			t.Fatal(err)
		}
		if vc.Generation == before.Generation {
			t.Fatal("nothing was changed")
		}
		r.awaitGeneration(t, of, vc.Generation)
	}
}
