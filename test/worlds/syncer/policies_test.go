package syncer_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
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
				r.plainNamespace(t, of, ns)
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

func TestWhatCustomResourcesReferTo(t *testing.T) {
	c := custom{group: "refs.example.com", plural: "doors", kind: "Door"}
	r := start(t)
	of := r.tenants[0]
	c.install(t, w.Super)
	c.grant(t, r)
	p := c.policy(t, r, func(s *tenancyv1alpha1.SyncPolicySpec) {
		s.References = []tenancyv1alpha1.SyncReference{{Path: ".spec.keys[*]", Kind: "Secret"}}
	})
	r.awaitPolicy(t, p, tenancyv1alpha1.ReasonServing)
	for _, ns := range []string{"doors", "keys"} {
		r.plainNamespace(t, of, ns)
		for _, name := range []string{"used", "unused"} {
			if _, err := of.CoreV1().Secrets(ns).Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: map[string]string{"k": "v"}}, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	tenant, super := dynamicOf(t, of.world).Resource(c.resource()).Namespace("doors"), dynamicOf(t, w.Super).Resource(c.resource()).Namespace(of.super("doors"))
	spec := map[string]any{"keys": []any{map[string]any{"name": "used"}, map[string]any{"name": "used", "namespace": "keys"}}}
	if _, err := tenant.Create(t.Context(), c.object("doors", "d", spec), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	used, unused := names.SuperSecret("used"), names.SuperSecret("unused")
	awaitSpec(t, super, "d", map[string]any{"keys": []any{map[string]any{"name": used}, map[string]any{"name": used, "namespace": of.super("keys")}}})
	uids := map[string]string{}
	for _, ns := range []string{"doors", "keys"} {
		worlds.Eventually(t, limit, "the Secret in "+ns, func(ctx context.Context) error {
			s, err := w.Super.Client.CoreV1().Secrets(of.super(ns)).Get(ctx, used, metav1.GetOptions{})
			uids[ns] = string(s.UID)
			return err
		})
		if _, err := w.Super.Client.CoreV1().Secrets(of.super(ns)).Get(t.Context(), unused, metav1.GetOptions{}); gone(err) != nil {
			t.Errorf("a Secret that nothing refers to in %s: %v", ns, err)
		}
	}

	// A syncer that starts does not take for unused what custom resources refer to that it has not read yet.
	r.stop()
	r.run(t)
	r.awaitPolicy(t, p, tenancyv1alpha1.ReasonServing)
	worlds.Throughout(t, 2*time.Second, "the Secrets stay", func(ctx context.Context) error {
		for ns, uid := range uids {
			s, err := w.Super.Client.CoreV1().Secrets(of.super(ns)).Get(ctx, used, metav1.GetOptions{})
			if err != nil || string(s.UID) != uid {
				return fmt.Errorf("%s: %w: %v", ns, err, s.ObjectMeta)
			}
		}
		return nil
	})
	mergePatch(t, tenant, "d", `{"spec":{"keys":[{"name":"used"}]}}`)
	worlds.Eventually(t, limit, "the Secret to go that nothing refers to any more", func(ctx context.Context) error {
		_, err := w.Super.Client.CoreV1().Secrets(of.super("keys")).Get(ctx, used, metav1.GetOptions{})
		return gone(err)
	})
	r.removePolicy(t, p) // while the second syncer runs
}

// plainNamespace makes a namespace for objects that need no service account.
func plainNamespace(t *testing.T, in *worlds.World, name string) {
	t.Helper()
	if _, err := in.Client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := in.Client.CoreV1().Namespaces().Delete(context.WithoutCancel(t.Context()), name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
}

func (r *running) plainNamespace(t *testing.T, of tenant, name string) {
	t.Helper()
	plainNamespace(t, of.world, name)
	worlds.Eventually(t, limit, "super namespace of "+name, func(ctx context.Context) error {
		return r.client.Get(ctx, client.ObjectKey{Name: of.super(name)}, &corev1.Namespace{})
	})
}

// label gives the VirtualCluster of a tenant a label while the test runs.
func (r *running) label(t *testing.T, of tenant, key, value string) {
	t.Helper()
	patch := func(ctx context.Context, value string) error {
		return r.client.Patch(ctx, vcOf(of), client.RawPatch("application/merge-patch+json", fmt.Appendf(nil, `{"metadata":{"labels":{%q:%s}}}`, key, value)))
	}
	if err := patch(t.Context(), fmt.Sprintf("%q", value)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := patch(context.WithoutCancel(t.Context()), "null"); err != nil {
			t.Error(err)
		}
	})
}

func TestClassesAreShownToSelectedTenants(t *testing.T) {
	c := custom{group: "classes.example.com", plural: "colors", kind: "Color", cluster: true}
	r := start(t)
	chosen, other := r.tenants[0], r.tenants[1]
	c.install(t, w.Super)
	c.grant(t, r)
	super := dynamicOf(t, w.Super).Resource(c.resource())
	for _, name := range []string{"red", "secret"} {
		u := c.object("", name, map[string]any{"rgb": name, "internal": "x"})
		u.SetLabels(map[string]string{"offered": fmt.Sprint(name == "red")})
		if _, err := super.Create(t.Context(), u, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	mergePatch(t, super, "red", `{"status":{"accepted":true}}`, "status")
	r.label(t, chosen, "colors", "yes")
	p := c.policy(t, r, func(s *tenancyv1alpha1.SyncPolicySpec) {
		s.Direction = tenancyv1alpha1.ToTenant
		s.Tenants = &metav1.LabelSelector{MatchLabels: map[string]string{"colors": "yes"}}
		s.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"offered": "true"}}
		s.Fields.Drop = []tenancyv1alpha1.FieldPath{".spec.internal"}
	})
	if status := r.awaitPolicy(t, p, tenancyv1alpha1.ReasonServing); status.Tenants != 1 || status.Serving != 1 {
		t.Errorf("status is %+v", status)
	}
	inChosen, inOther := dynamicOf(t, chosen.world).Resource(c.resource()), dynamicOf(t, other.world)
	awaitSpec(t, inChosen, "red", map[string]any{"rgb": "red"})
	worlds.Eventually(t, limit, "the status", func(ctx context.Context) error {
		got, err := inChosen.Get(ctx, "red", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if diff := cmp.Diff(map[string]any{"accepted": true}, got.Object["status"]); diff != "" {
			return fmt.Errorf("-want +got\n%s", diff)
		}
		return nil
	})
	mergePatch(t, inChosen, "red", `{"spec":{"rgb":"blue"}}`)
	awaitSpec(t, inChosen, "red", map[string]any{"rgb": "red"}) // it is read-only, in effect
	if err := inChosen.Delete(t.Context(), "red", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	awaitSpec(t, inChosen, "red", map[string]any{"rgb": "red"})
	if _, err := inChosen.Create(t.Context(), c.object("", "own", map[string]any{"rgb": "own"}), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := inChosen.Get(t.Context(), "secret", metav1.GetOptions{}); gone(err) != nil {
		t.Errorf("what is not selected: %v", err)
	}
	if _, err := inOther.Resource(crds()).Get(t.Context(), c.name(), metav1.GetOptions{}); gone(err) != nil {
		t.Errorf("a definition in a tenant that is not selected: %v", err)
	}

	r.label(t, other, "colors", "yes") // the tenant comes after the policy
	c.awaitServed(t, other.world)
	awaitSpec(t, inOther.Resource(c.resource()), "red", map[string]any{"rgb": "red"})
	if err := super.Delete(t.Context(), "red", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	awaitGone(t, inOther.Resource(c.resource()), "red")
	awaitGone(t, inChosen, "red")
	mergePatch(t, super, "secret", `{"metadata":{"labels":{"offered":"true"}}}`)
	awaitSpec(t, inChosen, "secret", map[string]any{"rgb": "secret"})

	r.removePolicy(t, p)
	awaitGone(t, inChosen, "secret")
	if _, err := inChosen.Get(t.Context(), "own", metav1.GetOptions{}); err != nil {
		t.Errorf("the tenant's own object: %v", err)
	}
}

func TestObjectsOfANamespaceArePublished(t *testing.T) {
	c := custom{group: "published.example.com", plural: "recipes", kind: "Recipe"}
	r := start(t)
	of := r.tenants[0]
	c.install(t, w.Super)
	c.grant(t, r)
	for _, ns := range []string{"recipes", "private"} {
		plainNamespace(t, w.Super, ns)
		if _, err := dynamicOf(t, w.Super).Resource(c.resource()).Namespace(ns).Create(t.Context(), c.object(ns, ns, map[string]any{"of": ns}), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	c.policy(t, r, func(s *tenancyv1alpha1.SyncPolicySpec) {
		s.Direction = tenancyv1alpha1.ToTenant
		s.Publish = &tenancyv1alpha1.Publish{Namespace: "recipes", TenantNamespace: "shared-recipes"}
	})
	tenant := dynamicOf(t, of.world).Resource(c.resource())
	c.awaitServed(t, of.world)
	awaitSpec(t, tenant.Namespace("shared-recipes"), "recipes", map[string]any{"of": "recipes"})
	list, err := tenant.List(t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) != 1 {
		t.Errorf("%d objects, error is %v", len(list.Items), err)
	}
	mergePatch(t, dynamicOf(t, w.Super).Resource(c.resource()).Namespace("recipes"), "recipes", `{"spec":{"of":"changed"}}`)
	awaitSpec(t, tenant.Namespace("shared-recipes"), "recipes", map[string]any{"of": "changed"})
}

func TestADefinitionOfTheTenantsOwnIsLeftAlone(t *testing.T) {
	c := custom{group: "own.example.com", plural: "claims", kind: "Claim"}
	r := start(t)
	owner, other := r.tenants[0], r.tenants[1]
	own := c
	own.kind = "TenantClaim"
	own.install(t, owner.world)
	c.install(t, w.Super)
	c.grant(t, r)
	p := c.policy(t, r, nil)
	if status := r.awaitPolicy(t, p, tenancyv1alpha1.ReasonDefinedByTenant); status.Tenants != 2 || status.Serving != 1 {
		t.Errorf("status is %+v", status)
	}
	waitForEvent(t, owner, "default", c.name(), "NameTaken")
	c.awaitServed(t, other.world)
	got, err := dynamicOf(t, owner.world).Resource(crds()).Get(t.Context(), c.name(), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if kind, _, _ := unstructured.NestedString(got.Object, "spec", "names", "kind"); kind != "TenantClaim" || got.GetAnnotations()[names.AnnotationUID] != "" {
		t.Errorf("it was changed: %v", got)
	}
	r.plainNamespace(t, owner, "own-claims")
	tenant, super := dynamicOf(t, owner.world).Resource(c.resource()).Namespace("own-claims"), dynamicOf(t, w.Super).Resource(c.resource()).Namespace(owner.super("own-claims"))
	if _, err := tenant.Create(t.Context(), own.object("own-claims", "x", map[string]any{"a": "b"}), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	worlds.Throughout(t, time.Second, "the objects of the tenant's own definition stay where they are", func(ctx context.Context) error {
		_, err := super.Get(ctx, "x", metav1.GetOptions{})
		return gone(err)
	})
	if err := dynamicOf(t, owner.world).Resource(crds()).Delete(t.Context(), c.name(), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if status := r.awaitPolicy(t, p, tenancyv1alpha1.ReasonServing); status.Serving != 2 {
		t.Errorf("status is %+v", status)
	}
	if _, err := tenant.Create(t.Context(), c.object("own-claims", "y", map[string]any{"a": "b"}), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	awaitSpec(t, super, "y", map[string]any{"a": "b"})

	// A definition that a tenant edits or removes comes back, and so does what it defines.
	definitions := dynamicOf(t, owner.world).Resource(crds())
	mergePatch(t, definitions, c.name(), `{"spec":{"names":{"shortNames":["oops"]}}}`)
	worlds.Eventually(t, limit, "the definition to be repaired", func(ctx context.Context) error {
		got, err := definitions.Get(ctx, c.name(), metav1.GetOptions{})
		if err != nil {
			return err
		}
		if short, found, _ := unstructured.NestedSlice(got.Object, "spec", "names", "shortNames"); found {
			return fmt.Errorf("short names are %v", short)
		}
		return nil
	})
	if err := definitions.Delete(t.Context(), c.name(), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	awaitGone(t, super, "y")
	worlds.Eventually(t, limit, "objects of the definition that came back", func(ctx context.Context) error {
		_, err := tenant.Create(ctx, c.object("own-claims", "z", map[string]any{"a": "b"}), metav1.CreateOptions{})
		return err
	})
	awaitSpec(t, super, "z", map[string]any{"a": "b"})
}

func TestVersionsThatAWebhookConverts(t *testing.T) {
	c := custom{group: "versions.example.com", plural: "plans", kind: "Plan", versions: []string{"v2", "v1"}, webhook: true}
	r := start(t)
	of := r.tenants[0]
	c.install(t, w.Super)
	c.grant(t, r)
	p := c.policy(t, r, nil)
	if status := r.awaitPolicy(t, p, tenancyv1alpha1.ReasonServing); status.Version != "v2" {
		t.Errorf("status is %+v", status)
	}
	old := c.resource()
	old.Version = "v1"
	if _, err := dynamicOf(t, of.world).Resource(old).List(t.Context(), metav1.ListOptions{}); gone(err) != nil {
		t.Errorf("the version that needs the webhook: %v", err)
	}
	r.plainNamespace(t, of, "plans")
	if _, err := dynamicOf(t, of.world).Resource(c.resource()).Namespace("plans").Create(t.Context(), c.object("plans", "x", map[string]any{"a": "b"}), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	awaitSpec(t, dynamicOf(t, w.Super).Resource(c.resource()).Namespace(of.super("plans")), "x", map[string]any{"a": "b"})
}

func TestPoliciesSayWhatIsWrong(t *testing.T) {
	c := custom{group: "wrong.example.com", plural: "things", kind: "Thing"}
	r := start(t)
	p := c.policy(t, r, nil)
	r.awaitPolicy(t, p, tenancyv1alpha1.ReasonCRDNotFound)
	c.install(t, w.Super)
	status := r.awaitPolicy(t, p, tenancyv1alpha1.ReasonForbidden)
	ready := apimeta.FindStatusCondition(status.Conditions, tenancyv1alpha1.ConditionReady)
	if want := "{apiGroups: [wrong.example.com], resources: [things], verbs: [get, list, watch, create, patch, delete]}"; !strings.Contains(ready.Message, want) {
		t.Errorf("the message is %q, without %s", ready.Message, want)
	}
	younger := &tenancyv1alpha1.SyncPolicy{ObjectMeta: metav1.ObjectMeta{Name: "younger"}, Spec: tenancyv1alpha1.SyncPolicySpec{Resource: c.name()}}
	if err := r.client.Create(t.Context(), younger); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.removePolicy(t, younger) })
	r.awaitPolicy(t, younger, tenancyv1alpha1.ReasonConflict)
	c.grant(t, r)
	mustPatch(t, r, p, `{"spec":{"fields":{"drop":[".spec.a"]}}}`) // what an admin does, or waits
	r.awaitPolicy(t, p, tenancyv1alpha1.ReasonServing)
	r.removePolicy(t, p)
	r.awaitPolicy(t, younger, tenancyv1alpha1.ReasonServing)
	mustPatch(t, r, younger, `{"spec":{"version":"v7"}}`)
	r.awaitPolicy(t, younger, tenancyv1alpha1.ReasonVersionNotServed)

	for name, spec := range map[string]tenancyv1alpha1.SyncPolicySpec{
		"NoName":          {Resource: "things"},
		"BadPath":         {Resource: c.name(), Fields: tenancyv1alpha1.SyncFields{Drop: []tenancyv1alpha1.FieldPath{"spec"}}},
		"UpThroughList":   {Resource: c.name(), Fields: tenancyv1alpha1.SyncFields{Up: []tenancyv1alpha1.FieldPath{".spec.a[*].b"}}},
		"PublishToSuper":  {Resource: c.name(), Publish: &tenancyv1alpha1.Publish{Namespace: "x"}},
		"RefersFromSuper": {Resource: c.name(), Direction: tenancyv1alpha1.ToTenant, References: []tenancyv1alpha1.SyncReference{{Path: ".spec.a", Kind: "Secret"}}},
		"RefusesInSuper":  {Resource: c.name(), Direction: tenancyv1alpha1.ToTenant, Fields: tenancyv1alpha1.SyncFields{Refuse: []tenancyv1alpha1.FieldPath{".spec.a"}}},
	} {
		bad := &tenancyv1alpha1.SyncPolicy{ObjectMeta: metav1.ObjectMeta{Name: "bad"}, Spec: spec}
		if err := r.client.Create(t.Context(), bad); !apierrors.IsInvalid(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := r.client.Patch(t.Context(), younger, client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"resource":"other.example.com"}}`))); !apierrors.IsInvalid(err) {
		t.Errorf("another resource: %v", err)
	}
}

func mustPatch(t *testing.T, r *running, p *tenancyv1alpha1.SyncPolicy, body string) {
	t.Helper()
	if err := r.client.Patch(t.Context(), p.DeepCopy(), client.RawPatch("application/merge-patch+json", []byte(body))); err != nil {
		t.Fatal(err)
	}
}
