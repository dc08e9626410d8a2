package syncer_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/controller-runtime/pkg/client"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

// custom is a custom resource that a test invents. Each test has its own, so that none sees another's.
type custom struct {
	group, plural, kind string
	cluster             bool
	noStatus            bool
	versions            []string // the first is stored
	webhook             bool
}

func (c custom) name() string { return c.plural + "." + c.group }

func (c custom) resource() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: c.group, Version: c.stored(), Resource: c.plural}
}

func (c custom) stored() string {
	if len(c.versions) == 0 {
		return "v1"
	}
	return c.versions[0]
}

func crds() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
}

// crd returns the definition: objects with a spec of any content and a status.
func (c custom) crd() *unstructured.Unstructured {
	open := map[string]any{"type": "object", "x-kubernetes-preserve-unknown-fields": true}
	var versions []any
	for i, name := range append([]string{c.stored()}, c.versions[min(1, len(c.versions)):]...) {
		v := map[string]any{
			"name": name, "served": true, "storage": i == 0,
			"schema": map[string]any{"openAPIV3Schema": map[string]any{
				"type": "object", "properties": map[string]any{"spec": open, "status": open, "data": open},
			}},
		}
		if !c.noStatus {
			v["subresources"] = map[string]any{"status": map[string]any{}}
		}
		versions = append(versions, v)
	}
	scope := "Namespaced"
	if c.cluster {
		scope = "Cluster"
	}
	spec := map[string]any{
		"group": c.group, "scope": scope, "versions": versions,
		"names": map[string]any{"plural": c.plural, "kind": c.kind},
	}
	if c.webhook {
		spec["conversion"] = map[string]any{"strategy": "Webhook", "webhook": map[string]any{
			"conversionReviewVersions": []any{"v1"},
			"clientConfig":             map[string]any{"url": "https://127.0.0.1:1/convert"},
		}}
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": map[string]any{"name": c.name()}, "spec": spec,
	}}
}

func (c custom) object(namespace, name string, spec map[string]any) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{"spec": spec}}
	u.SetGroupVersionKind(schema.GroupVersionKind{Group: c.group, Version: c.stored(), Kind: c.kind})
	u.SetNamespace(namespace)
	u.SetName(name)
	return u
}

func dynamicOf(t *testing.T, world *worlds.World) dynamic.Interface {
	t.Helper()
	d, err := dynamic.NewForConfig(world.Config)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// install creates the definition and waits until it is served.
func (c custom) install(t *testing.T, world *worlds.World) {
	t.Helper()
	d := dynamicOf(t, world)
	if _, err := d.Resource(crds()).Create(t.Context(), c.crd(), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := d.Resource(crds()).Delete(context.WithoutCancel(t.Context()), c.name(), metav1.DeleteOptions{})
		if err := client.IgnoreNotFound(err); err != nil {
			t.Error(err)
		}
	})
	c.awaitServed(t, world)
}

func (c custom) awaitServed(t *testing.T, world *worlds.World) {
	t.Helper()
	d := dynamicOf(t, world)
	worlds.Eventually(t, limit, c.name()+" to be served in "+world.Name, func(ctx context.Context) error {
		_, err := d.Resource(c.resource()).List(ctx, metav1.ListOptions{})
		return err
	})
}

// grant gives the syncer the rights that an admin would give it for the resource.
func (c custom) grant(t *testing.T, r *running) {
	t.Helper()
	role := &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: c.name()},
		Rules: []rbacv1.PolicyRule{{
			APIGroups: []string{c.group}, Resources: []string{c.plural}, Verbs: []string{"get", "list", "watch", "create", "patch", "delete"},
		}},
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: c.name()},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: account}},
	}
	for _, o := range []client.Object{role, binding} {
		if err := r.client.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := r.client.Delete(context.WithoutCancel(t.Context()), o); err != nil {
				t.Error(err)
			}
		})
	}
}

// policy creates a SyncPolicy of the resource, which is removed while the syncer still runs.
func (c custom) policy(t *testing.T, r *running, edit func(*tenancyv1alpha1.SyncPolicySpec)) *tenancyv1alpha1.SyncPolicy {
	t.Helper()
	p := &tenancyv1alpha1.SyncPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: c.plural},
		Spec:       tenancyv1alpha1.SyncPolicySpec{Resource: c.name(), Direction: tenancyv1alpha1.ToSuper},
	}
	if edit != nil {
		edit(&p.Spec)
	}
	if err := r.client.Create(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.removePolicy(t, p) })
	return p
}

func (r *running) removePolicy(t *testing.T, p *tenancyv1alpha1.SyncPolicy) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), limit)
	defer cancel()
	if err := client.IgnoreNotFound(r.client.Delete(ctx, p)); err != nil {
		t.Error(err)
	}
	for {
		err := gone(r.client.Get(ctx, client.ObjectKeyFromObject(p), p))
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Errorf("the policy does not go: %v: %+v", err, p.Status)
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// awaitPolicy waits for the reason of the condition Ready and returns the status.
func (r *running) awaitPolicy(t *testing.T, p *tenancyv1alpha1.SyncPolicy, reason string) tenancyv1alpha1.SyncPolicyStatus {
	t.Helper()
	got := &tenancyv1alpha1.SyncPolicy{}
	worlds.Eventually(t, limit, "SyncPolicy "+p.Name+" to be "+reason, func(ctx context.Context) error {
		if err := r.client.Get(ctx, client.ObjectKeyFromObject(p), got); err != nil {
			return err
		}
		ready := apimeta.FindStatusCondition(got.Status.Conditions, tenancyv1alpha1.ConditionReady)
		if ready == nil || ready.Reason != reason || ready.ObservedGeneration != got.Generation {
			return fmt.Errorf("status is %+v", got.Status)
		}
		return nil
	})
	return got.Status
}

// awaitSpec waits until an object has the spec, and returns it.
func awaitSpec(t *testing.T, of dynamic.ResourceInterface, name string, want map[string]any) *unstructured.Unstructured {
	t.Helper()
	var got *unstructured.Unstructured
	worlds.Eventually(t, limit, "the spec of "+name, func(ctx context.Context) error {
		var err error
		if got, err = of.Get(ctx, name, metav1.GetOptions{}); err != nil {
			return err
		}
		if diff := cmp.Diff(want, got.Object["spec"]); diff != "" {
			return fmt.Errorf("-want +got\n%s", diff)
		}
		return nil
	})
	return got
}

func awaitGone(t *testing.T, of dynamic.ResourceInterface, name string) {
	t.Helper()
	worlds.Eventually(t, limit, name+" to go", func(ctx context.Context) error {
		_, err := of.Get(ctx, name, metav1.GetOptions{})
		return gone(err)
	})
}

func mergePatch(t *testing.T, of dynamic.ResourceInterface, name, body string, subresources ...string) {
	t.Helper()
	if _, err := of.Patch(t.Context(), name, "application/merge-patch+json", []byte(body), metav1.PatchOptions{}, subresources...); err != nil {
		t.Fatal(err)
	}
}

func TestCustomResourcesGoDownAndTheirStatusComesUp(t *testing.T) {
	for name, c := range map[string]custom{
		"StatusSubresource": {group: "down.example.com", plural: "widgets", kind: "Widget", versions: []string{"v1", "v1beta1"}},
		"PlainStatus":       {group: "down.example.com", plural: "gadgetry", kind: "Gadget", noStatus: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t)
			c.install(t, w.Super)
			c.grant(t, r)
			p := c.policy(t, r, nil)
			status := r.awaitPolicy(t, p, tenancyv1alpha1.ReasonServing)
			if status.Version != "v1" || status.Tenants != 2 || status.Serving != 2 {
				t.Errorf("status is %+v", status)
			}
			for _, of := range r.tenants {
				ns := "cr-" + c.plural
				r.namespace(t, of, ns)
				tenant, super := dynamicOf(t, of.world).Resource(c.resource()).Namespace(ns), dynamicOf(t, w.Super).Resource(c.resource()).Namespace(of.super(ns))

				made, err := tenant.Create(t.Context(), c.object(ns, "one", map[string]any{"size": int64(1), "home": map[string]any{"namespace": "other"}}), metav1.CreateOptions{})
				if err != nil {
					t.Fatal(err)
				}
				home := map[string]any{"namespace": of.super("other")}
				replica := awaitSpec(t, super, "one", map[string]any{"size": int64(1), "home": home})
				if replica.GetAnnotations()[names.AnnotationUID] != string(made.GetUID()) {
					t.Errorf("annotations are %v", replica.GetAnnotations())
				}

				subresource := []string{"status"}
				if c.noStatus {
					subresource = nil
				}
				mergePatch(t, super, "one", fmt.Sprintf(
					`{"status":{"phase":"Ready","conditions":[{"type":"Ready","message":"seen in %s"}],"observedGeneration":%d}}`, of.super(ns), replica.GetGeneration()), subresource...)
				worlds.Eventually(t, limit, "the status", func(ctx context.Context) error {
					got, err := tenant.Get(ctx, "one", metav1.GetOptions{})
					if err != nil {
						return err
					}
					want := map[string]any{
						"phase": "Ready", "conditions": []any{map[string]any{"type": "Ready", "message": "seen in " + ns}}, "observedGeneration": replica.GetGeneration(),
					}
					if !c.noStatus {
						want["observedGeneration"] = got.GetGeneration()
					}
					if diff := cmp.Diff(want, got.Object["status"]); diff != "" {
						return fmt.Errorf("-want +got\n%s", diff)
					}
					return nil
				})

				mergePatch(t, tenant, "one", `{"spec":{"size":2}}`)
				awaitSpec(t, super, "one", map[string]any{"size": int64(2), "home": home})
				mergePatch(t, super, "one", `{"spec":{"size":3,"color":"red"}}`)
				awaitSpec(t, super, "one", map[string]any{"size": int64(2), "home": home}) // the drift is repaired
				if err := super.Delete(t.Context(), "one", metav1.DeleteOptions{}); err != nil {
					t.Fatal(err)
				}
				awaitSpec(t, super, "one", map[string]any{"size": int64(2), "home": home}) // it comes back

				if err := tenant.Delete(t.Context(), "one", metav1.DeleteOptions{}); err != nil {
					t.Fatal(err)
				}
				if _, err := tenant.Create(t.Context(), c.object(ns, "one", map[string]any{"size": int64(4)}), metav1.CreateOptions{}); err != nil {
					t.Fatal(err)
				}
				awaitSpec(t, super, "one", map[string]any{"size": int64(4)}) // the successor of the same name

				foreign := c.object(of.super(ns), "taken", map[string]any{"owner": "operator"})
				if _, err := super.Create(t.Context(), foreign, metav1.CreateOptions{}); err != nil {
					t.Fatal(err)
				}
				if _, err := tenant.Create(t.Context(), c.object(ns, "taken", map[string]any{"owner": "tenant"}), metav1.CreateOptions{}); err != nil {
					t.Fatal(err)
				}
				waitForEvent(t, of, ns, "taken", "NameTaken")

				if err := tenant.Delete(t.Context(), "one", metav1.DeleteOptions{}); err != nil {
					t.Fatal(err)
				}
				awaitGone(t, super, "one")
				if _, err := tenant.Create(t.Context(), c.object(ns, "last", map[string]any{"size": int64(5)}), metav1.CreateOptions{}); err != nil {
					t.Fatal(err)
				}
				awaitSpec(t, super, "last", map[string]any{"size": int64(5)})
			}
			r.removePolicy(t, p)
			for _, of := range r.tenants {
				ns := "cr-" + c.plural
				tenant, super := dynamicOf(t, of.world).Resource(c.resource()).Namespace(ns), dynamicOf(t, w.Super).Resource(c.resource()).Namespace(of.super(ns))
				if _, err := super.Get(t.Context(), "last", metav1.GetOptions{}); gone(err) != nil {
					t.Errorf("the replica outlived the policy: %v", err)
				}
				if _, err := super.Get(t.Context(), "taken", metav1.GetOptions{}); err != nil {
					t.Errorf("the operator's object: %v", err)
				}
				if _, err := tenant.Get(t.Context(), "last", metav1.GetOptions{}); err != nil {
					t.Errorf("the tenant's object went with the policy: %v", err)
				}
			}
		})
	}
}
