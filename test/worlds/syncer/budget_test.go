package syncer_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

// A tenant has no more replicas of a kind than its budget allows. It is told, everything else goes on, and what goes makes room.
func TestObjectsBeyondTheBudgetWait(t *testing.T) {
	const ns, most = "budget-objects", 3
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, ns)
	r.budget(t, of, tenancyv1alpha1.BudgetSpec{Resources: []tenancyv1alpha1.ResourceBudget{{Resource: "networkpolicies", ReplicatedObjects: most}}})
	policies := of.NetworkingV1().NetworkPolicies(ns)
	for i := range most {
		mustMakePolicy(t, of, ns, fmt.Sprint("first-", i))
	}
	r.awaitNetworkPolicies(t, of, ns, most)
	mustMakePolicy(t, of, ns, "further")
	waitForEvent(t, of, ns, "further", "BudgetExhausted")
	r.awaitBudget(t, of, metav1.ConditionFalse, "ObjectsExhausted")
	r.awaitEventOnVirtualCluster(t, of, "ObjectsExhausted")

	of.world.MakePod(t, worlds.Pod(ns, "pod"))
	r.superPod(t, of, ns, "pod")
	if err := policies.Delete(t.Context(), "first-0", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.awaitNetworkPolicy(t, of, ns, "further")
	r.awaitNetworkPolicies(t, of, ns, most)
	r.awaitBudget(t, of, metav1.ConditionTrue, "WithinBudget")

	mustMakePolicy(t, of, ns, "last")
	waitForEvent(t, of, ns, "last", "BudgetExhausted")
	r.budget(t, of, tenancyv1alpha1.BudgetSpec{})
	r.awaitNetworkPolicy(t, of, ns, "last")
}

// A tenant that writes more than its budget allows is slowed and told, and another tenant does not notice.
func TestWritesBeyondTheBudgetWait(t *testing.T) {
	r := startIn(t, startWorlds(t, options(2)))
	greedy, modest := r.tenants[0], r.tenants[1]
	r.namespace(t, greedy, "greedy")
	r.namespace(t, modest, "modest")
	r.latency(t, modest, "warm")
	alone := r.latency(t, modest, "alone")
	r.budget(t, greedy, tenancyv1alpha1.BudgetSpec{WritesPerSecond: 2, WriteBurst: 1})
	const policies = 30
	for i := range policies {
		mustMakePolicy(t, greedy, "greedy", fmt.Sprint("p", i))
	}
	began := time.Now()
	beside := r.latency(t, modest, "beside")
	if most := 2*alone + slowerBy; beside > most {
		t.Errorf("a pod of the modest tenant took %s beside a tenant over its budget and %s alone, want at most %s", beside, alone, most)
	}
	r.awaitBudget(t, greedy, metav1.ConditionFalse, "Throttled")
	r.awaitEventOnVirtualCluster(t, greedy, "Throttled")
	if c := r.condition(t.Context(), modest); c == nil || c.Status != metav1.ConditionTrue {
		t.Errorf("the condition of the modest tenant is %+v", c)
	}
	r.awaitNetworkPolicies(t, greedy, "greedy", policies)
	if took := time.Since(began); took < policies/4*time.Second {
		t.Errorf("%d writes took %s at 2 per second", policies, took)
	}
}

// A tenant with more objects than may be kept of it is set aside and told, and is served again once it has less.
func TestCachesBeyondTheBudget(t *testing.T) {
	const ns = "budget-cache"
	r := start(t)
	of, other := r.tenants[0], r.tenants[1]
	r.namespace(t, of, ns)
	r.namespace(t, other, ns)
	t.Cleanup(func() { r.setBudget(context.Background(), t, of, tenancyv1alpha1.BudgetSpec{}) }) // the test's context has ended
	r.budget(t, of, tenancyv1alpha1.BudgetSpec{Resources: []tenancyv1alpha1.ResourceBudget{{Resource: "networkpolicies", CachedObjects: 2}}})
	for i := range 3 {
		mustMakePolicy(t, of, ns, fmt.Sprint(i))
	}
	r.waitFor(t, of, metav1.ConditionFalse, "Overfull")
	r.awaitBudget(t, of, metav1.ConditionFalse, "CacheExhausted")
	other.world.MakePod(t, worlds.Pod(ns, "pod"))
	r.superPod(t, other, ns, "pod")

	// The list, too, is bounded.
	bytes := resource.MustParse("1Ki")
	r.setBudget(t.Context(), t, of, tenancyv1alpha1.BudgetSpec{CachedBytes: &bytes})
	r.awaitSyncing(t, of, "too many bytes", func(c *metav1.Condition) bool { return c.Reason == "Overfull" })
	of.world.MakePod(t, worlds.Pod(ns, "pod"))
	r.setBudget(t.Context(), t, of, tenancyv1alpha1.BudgetSpec{})
	r.waitFor(t, of, metav1.ConditionTrue, "Synced")
	r.superPod(t, of, ns, "pod")
}

// budget changes the budget of a tenant and waits until the syncer follows it, without a new connection.
func (r *running) budget(t *testing.T, of tenant, budget tenancyv1alpha1.BudgetSpec) {
	t.Helper()
	r.awaitGeneration(t, of, r.setBudget(t.Context(), t, of, budget))
}

// setBudget changes the budget of a tenant and returns the generation that says so.
func (r *running) setBudget(ctx context.Context, t *testing.T, of tenant, budget tenancyv1alpha1.BudgetSpec) int64 {
	t.Helper()
	vc := vcOf(of)
	if err := r.client.Get(ctx, of.vc, vc); err != nil {
		t.Fatal(err)
	}
	before := vc.DeepCopy()
	vc.Spec.Budget = budget
	if err := r.client.Patch(ctx, vc, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
	return vc.Generation
}

// condition returns the condition WithinBudget of a tenant.
func (r *running) condition(ctx context.Context, of tenant) *metav1.Condition {
	vc := vcOf(of)
	if err := r.client.Get(ctx, of.vc, vc); err != nil {
		return nil
	}
	return apimeta.FindStatusCondition(vc.Status.Conditions, tenancyv1alpha1.ConditionWithinBudget)
}

func (r *running) awaitBudget(t *testing.T, of tenant, status metav1.ConditionStatus, reason string) {
	t.Helper()
	worlds.Eventually(t, limit, "condition WithinBudget to be "+reason, func(ctx context.Context) error {
		if c := r.condition(ctx, of); c == nil || c.Status != status || c.Reason != reason {
			return fmt.Errorf("condition is %+v", c)
		}
		return nil
	})
}

func (r *running) awaitEventOnVirtualCluster(t *testing.T, of tenant, reason string) {
	t.Helper()
	worlds.Eventually(t, limit, "event "+reason+" on the VirtualCluster", func(ctx context.Context) error {
		list := &corev1.EventList{}
		if err := r.client.List(ctx, list, client.InNamespace(of.vc.Namespace)); err != nil {
			return err
		}
		for _, e := range list.Items {
			if e.InvolvedObject.Name == of.vc.Name && e.Reason == reason {
				return nil
			}
		}
		return fmt.Errorf("events are %v", list.Items)
	})
}

func mustMakePolicy(t *testing.T, of tenant, namespace, name string) {
	t.Helper()
	policy := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := of.NetworkingV1().NetworkPolicies(namespace).Create(t.Context(), policy, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (r *running) awaitNetworkPolicy(t *testing.T, of tenant, namespace, name string) {
	t.Helper()
	worlds.Eventually(t, limit, "super policy "+name, func(ctx context.Context) error {
		return r.client.Get(ctx, client.ObjectKey{Namespace: of.super(namespace), Name: name}, &networkingv1.NetworkPolicy{})
	})
}

// awaitPolicies waits until the super cluster has exactly so many policies of a namespace.
func (r *running) awaitNetworkPolicies(t *testing.T, of tenant, namespace string, want int) {
	t.Helper()
	worlds.Eventually(t, limit, "super policies", func(ctx context.Context) error {
		list := &networkingv1.NetworkPolicyList{}
		err := r.client.List(ctx, list, client.InNamespace(of.super(namespace)))
		if err == nil && len(list.Items) != want {
			err = fmt.Errorf("there are %d policies, want %d", len(list.Items), want)
		}
		return err
	})
}
