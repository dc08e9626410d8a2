package custom_test

import (
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/resources/custom"
)

const tenantID = names.TenantID("tenants-acme-aaaaaaaaaaaaa")

const crdName = "widgets.example.com"

// crd returns a definition of widgets.
func crd(edit ...func(spec map[string]any)) *unstructured.Unstructured {
	spec := map[string]any{
		"group": "example.com", "scope": "Namespaced",
		"names": map[string]any{"plural": "widgets", "kind": "Widget"},
		"versions": []any{
			map[string]any{"name": "v1beta1", "served": true, "storage": false},
			map[string]any{"name": "v1", "served": true, "storage": true, "subresources": map[string]any{"status": map[string]any{}}},
		},
		"conversion": map[string]any{"strategy": "None"},
	}
	for _, f := range edit {
		f(spec)
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": map[string]any{"name": crdName, "uid": "crd", "annotations": map[string]any{
			"api-approved.kubernetes.io": "yes", "example.com/channel": "stable", "helm.sh/hook": "crd-install",
		}},
		"spec":   spec,
		"status": map[string]any{"conditions": []any{map[string]any{"type": "Established", "status": "True"}}},
	}}
}

func cluster(spec map[string]any) { spec["scope"] = "Cluster" }

func webhook(spec map[string]any) {
	spec["conversion"] = map[string]any{"strategy": "Webhook", "webhook": map[string]any{"clientConfig": map[string]any{}}}
}

func policy(edit ...func(*tenancyv1alpha1.SyncPolicySpec)) *tenancyv1alpha1.SyncPolicy {
	p := &tenancyv1alpha1.SyncPolicy{Spec: tenancyv1alpha1.SyncPolicySpec{Resource: crdName, Direction: tenancyv1alpha1.ToSuper}}
	for _, f := range edit {
		f(&p.Spec)
	}
	return p
}

func toTenant(s *tenancyv1alpha1.SyncPolicySpec) { s.Direction = tenancyv1alpha1.ToTenant }

func builtIn(k schema.GroupKind) (string, bool) {
	name, ok := map[schema.GroupKind]string{
		{Kind: "Secret"}: "secrets", {Kind: "ConfigMap"}: "configmaps", {Kind: "Service"}: "services", {Kind: "PersistentVolumeClaim"}: "persistentvolumeclaims",
	}[k]
	return name, ok
}

func TestWhatCanBeOffered(t *testing.T) {
	for name, tc := range map[string]struct {
		policy *tenancyv1alpha1.SyncPolicy
		crd    *unstructured.Unstructured
		reason string // of the problem
		want   string // the version
		note   bool
	}{
		"Stored":        {policy(), crd(), "", "v1", false},
		"Chosen":        {policy(func(s *tenancyv1alpha1.SyncPolicySpec) { s.Version = "v1beta1" }), crd(), "", "v1beta1", false},
		"UnknownChoice": {policy(func(s *tenancyv1alpha1.SyncPolicySpec) { s.Version = "v2" }), crd(), tenancyv1alpha1.ReasonVersionNotServed, "", false},
		"StoredNotServed": {policy(), crd(func(spec map[string]any) {
			spec["versions"].([]any)[1].(map[string]any)["served"] = false //nolint:errcheck,forcetypeassert // of the fixture
		}), tenancyv1alpha1.ReasonVersionNotServed, "", false},
		"Webhook":               {policy(), crd(webhook), "", "v1", true},
		"ClusterScopedToSuper":  {policy(), crd(cluster), tenancyv1alpha1.ReasonScopeUnsupported, "", false},
		"ClusterScopedToTenant": {policy(toTenant), crd(cluster), "", "v1", false},
		"NamespacedToTenant":    {policy(toTenant), crd(), tenancyv1alpha1.ReasonScopeUnsupported, "", false},
		"Published": {policy(toTenant, func(s *tenancyv1alpha1.SyncPolicySpec) {
			s.Publish = &tenancyv1alpha1.Publish{Namespace: "shared"}
		}), crd(), "", "v1", false},
		"PublishedClusterScoped": {policy(toTenant, func(s *tenancyv1alpha1.SyncPolicySpec) {
			s.Publish = &tenancyv1alpha1.Publish{Namespace: "shared"}
		}), crd(cluster), tenancyv1alpha1.ReasonScopeUnsupported, "", false},
		"Ours": {policy(), crd(func(spec map[string]any) { spec["group"] = tenancyv1alpha1.Group }), tenancyv1alpha1.ReasonResourceNotAllowed, "", false},
		"NotEstablished": {policy(), func() *unstructured.Unstructured {
			u := crd()
			delete(u.Object, "status")
			return u
		}(), tenancyv1alpha1.ReasonCRDNotFound, "", false},
		"BadPath": {policy(func(s *tenancyv1alpha1.SyncPolicySpec) {
			s.Fields.Drop = []tenancyv1alpha1.FieldPath{"spec"}
		}), crd(), tenancyv1alpha1.ReasonInvalid, "", false},
		"BadSelector": {policy(func(s *tenancyv1alpha1.SyncPolicySpec) {
			s.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"a b": "c"}}
		}), crd(), tenancyv1alpha1.ReasonInvalid, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := custom.New(tc.policy, tc.crd, builtIn)
			var problem *custom.Problem
			if errors.As(err, &problem) != (tc.reason != "") || problem != nil && problem.Reason != tc.reason {
				t.Fatalf("New: %v, want %s", err, tc.reason)
			}
			if err == nil && (got.Version != tc.want || (got.Note != "") != tc.note) {
				t.Errorf("version is %s, note is %q", got.Version, got.Note)
			}
		})
	}
}

// read returns what a policy makes of widgets.
func read(t *testing.T, p *tenancyv1alpha1.SyncPolicy, definition *unstructured.Unstructured) *custom.Custom {
	t.Helper()
	c, err := custom.New(p, definition, builtIn)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestHashesTellWhatChanged(t *testing.T) {
	base := read(t, policy(), crd())
	for name, tc := range map[string]struct {
		policy              *tenancyv1alpha1.SyncPolicy
		crd                 *unstructured.Unstructured
		definition, objects bool
	}{
		"Same":    {policy(), crd(), false, false},
		"Tenants": {policy(func(s *tenancyv1alpha1.SyncPolicySpec) { s.Tenants = &metav1.LabelSelector{} }), crd(), false, false},
		"Schema": {policy(), crd(func(spec map[string]any) {
			spec["versions"].([]any)[1].(map[string]any)["schema"] = map[string]any{"a": "b"} //nolint:errcheck,forcetypeassert // of the fixture
		}), true, false},
		"Version": {policy(func(s *tenancyv1alpha1.SyncPolicySpec) { s.Version = "v1beta1" }), crd(), false, true},
		"Fields":  {policy(func(s *tenancyv1alpha1.SyncPolicySpec) { s.Fields.Drop = []tenancyv1alpha1.FieldPath{".spec.a"} }), crd(), false, true},
	} {
		t.Run(name, func(t *testing.T) {
			got := read(t, tc.policy, tc.crd)
			if (got.DefinitionHash != base.DefinitionHash) != tc.definition || (got.ObjectsHash != base.ObjectsHash) != tc.objects {
				t.Errorf("definition changed: %v, objects changed: %v", got.DefinitionHash != base.DefinitionHash, got.ObjectsHash != base.ObjectsHash)
			}
		})
	}
}

func TestDefinitionForTenants(t *testing.T) {
	for name, tc := range map[string]struct {
		crd      *unstructured.Unstructured
		versions []any
	}{
		"None": {crd(), []any{
			map[string]any{"name": "v1beta1", "served": true, "storage": false},
			map[string]any{"name": "v1", "served": true, "storage": true, "subresources": map[string]any{"status": map[string]any{}}},
		}},
		"Webhook": {crd(webhook), []any{
			map[string]any{"name": "v1", "served": true, "storage": true, "subresources": map[string]any{"status": map[string]any{}}},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			k := read(t, policy(), tc.crd).Definition
			key := resource.Key{Tenant: tenantID, Name: crdName}
			ops, err := k.Decide(view(), key, nil, tc.crd)
			if err != nil || len(ops) != 1 || ops[0].Verb != resource.Create || ops[0].Side != resource.Tenant {
				t.Fatalf("ops are %+v, error is %v", ops, err)
			}
			made, ok := ops[0].Object.(*unstructured.Unstructured)
			if !ok {
				t.Fatalf("it is a %T", ops[0].Object)
			}
			if diff := cmp.Diff(tc.versions, made.Object["spec"].(map[string]any)["versions"]); diff != "" { //nolint:errcheck,forcetypeassert // a panic is a failure
				t.Errorf("versions: -want +got\n%s", diff)
			}
			if diff := cmp.Diff(map[string]any{"strategy": "None"}, made.Object["spec"].(map[string]any)["conversion"]); diff != "" { //nolint:errcheck,forcetypeassert // a panic is a failure
				t.Errorf("conversion: -want +got\n%s", diff)
			}
			want := map[string]string{names.AnnotationUID: "crd", "api-approved.kubernetes.io": "yes", "example.com/channel": "stable", names.AnnotationKeys: "a:api-approved.kubernetes.io,a:example.com/channel"}
			if diff := cmp.Diff(want, made.GetAnnotations()); diff != "" {
				t.Errorf("annotations: -want +got\n%s", diff)
			}

			made.SetUID("made")
			made.SetLabels(nil) // as an API server returns it
			drifted := made.DeepCopy()
			k.Trim(made)
			if ops, err := k.Decide(view(), key, made, tc.crd); err != nil || len(ops) != 0 {
				t.Errorf("in sync, ops are %+v, error is %v", ops, err)
			}
			drifted.Object["spec"].(map[string]any)["scope"] = "Cluster" //nolint:errcheck,forcetypeassert // a panic is a failure
			k.Trim(drifted)
			ops, err = k.Decide(view(), key, drifted, tc.crd)
			if err != nil || len(ops) != 1 || ops[0].Verb != resource.Patch {
				t.Errorf("drifted, ops are %+v, error is %v", ops, err)
			}
			more := made.DeepCopy()
			more.Object["spec"].(map[string]any)["names"].(map[string]any)["shortNames"] = []any{"x"} //nolint:errcheck,forcetypeassert // a panic is a failure
			ops, err = k.Decide(view(), key, more, tc.crd)
			if want := `{"metadata":{"uid":"made"},"spec":{"names":{"shortNames":null}}}`; err != nil || len(ops) != 1 || string(ops[0].Patch) != want {
				t.Errorf("with a field more, ops are %+v, error is %v", ops, err)
			}
			successor := tc.crd.DeepCopy()
			successor.SetUID("another")
			for reason, super := range map[string]resource.Object{"gone": nil, "replaced": successor} {
				ops, err := k.Decide(view(), key, made, super)
				if err != nil || len(ops) > 0 && ops[0].Verb == resource.Delete {
					t.Errorf("the super cluster's is %s: ops are %+v, error is %v", reason, ops, err)
				}
			}
			made.SetAnnotations(nil)
			_, err = k.Decide(view(), key, made, tc.crd)
			if reject, ok := resource.AsReject(err); !ok || reject.Reason != "NameTaken" {
				t.Errorf("a tenant's own: %v", err)
			}
		})
	}
}

// view has the namespace shop on both sides, and whatever else is given in the tenant.
func view(tenant ...resource.Object) resource.View {
	super := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name:        names.SuperNamespace(tenantID, "shop"),
		Labels:      map[string]string{names.LabelTenant: string(tenantID)},
		Annotations: map[string]string{names.AnnotationNamespace: "shop", names.AnnotationUID: "ns"},
	}}
	return resource.View{
		Tenant: resource.Facts{ID: tenantID},
		Get: func(side resource.Side, ref resource.Ref) resource.Object {
			switch {
			case ref == resource.Ref{Kind: "namespaces", Name: "shop"} && side == resource.Super:
				return super
			case ref == resource.Ref{Kind: "namespaces", Name: "shop"}:
				return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", UID: "ns"}}
			case side == resource.Tenant:
				for _, o := range tenant {
					if o.GetName() == ref.Name && o.GetNamespace() == ref.Namespace {
						return o
					}
				}
			}
			return nil
		},
		TenantNamespace: func(super string) (string, bool) {
			for _, ns := range []string{"shop", "certs"} {
				if super == names.SuperNamespace(tenantID, ns) {
					return ns, true
				}
			}
			return "", false
		},
	}
}

func widget(spec string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{}}
	if err := json.Unmarshal([]byte(`{"spec":`+spec+`}`), &u.Object); err != nil {
		panic(err)
	}
	u.SetGroupVersionKind(schema.GroupVersionKind{Group: "example.com", Version: "v1", Kind: "Widget"})
	u.SetNamespace("shop")
	u.SetName("w")
	u.SetUID("w-uid")
	u.SetGeneration(3)
	return u
}

func TestDown(t *testing.T) {
	superShop, superCerts := names.SuperNamespace(tenantID, "shop"), names.SuperNamespace(tenantID, "certs")
	for name, tc := range map[string]struct {
		reason string
		edit   func(*tenancyv1alpha1.SyncPolicySpec)
		in     string
		want   string // empty: no replica
		reject string
	}{
		"Everything": {"the spec passes", nil, `{"a":1,"b":{"c":[true]}}`, `{"a":1,"b":{"c":[true]}}`, ""},
		"Namespaces": {
			"whatever is called a namespace is the tenant's, also one that the super cluster has", nil,
			`{"ref":{"namespace":"certs"},"sourceNamespace":"kube-system","namespaces":["shop"],"list":[{"namespace":"shop"}],"namespace":""}`,
			`{"ref":{"namespace":"` + superCerts + `"},"sourceNamespace":"` + names.SuperNamespace(tenantID, "kube-system") + `","namespaces":["` + superShop + `"],"list":[{"namespace":"` + superShop + `"}],"namespace":""}`, "",
		},
		"Verbatim": {
			"unless the admin knows better",
			func(s *tenancyv1alpha1.SyncPolicySpec) {
				s.Fields.Verbatim = []tenancyv1alpha1.FieldPath{".spec.metrics.namespace"}
			},
			`{"metrics":{"namespace":"app"},"namespace":"shop"}`, `{"metrics":{"namespace":"app"},"namespace":"` + superShop + `"}`, "",
		},
		"Drop": {
			"dropped fields stay in the tenant",
			func(s *tenancyv1alpha1.SyncPolicySpec) {
				s.Fields.Drop = []tenancyv1alpha1.FieldPath{".spec.secret", ".spec.list[*].x"}
			},
			`{"secret":"s","list":[{"x":1,"y":2}]}`, `{"list":[{"y":2}]}`, "",
		},
		"Allow": {
			"nothing but what is allowed passes",
			func(s *tenancyv1alpha1.SyncPolicySpec) {
				s.Fields.Allow = []tenancyv1alpha1.FieldPath{".spec.a"}
			},
			`{"a":1,"b":2}`, `{"a":1}`, "",
		},
		"Up": {
			"what the super cluster decides does not pass down",
			func(s *tenancyv1alpha1.SyncPolicySpec) { s.Fields.Up = []tenancyv1alpha1.FieldPath{".spec.address"} },
			`{"a":1,"address":"x"}`, `{"a":1}`, "",
		},
		"Refused": {
			"an event says what is not offered",
			func(s *tenancyv1alpha1.SyncPolicySpec) {
				s.Fields.Refuse = []tenancyv1alpha1.FieldPath{".spec.list[*].hostPath"}
			},
			`{"list":[{"hostPath":"/"}]}`, "", "FieldNotAllowed",
		},
		"NotRefused": {
			"a field that is not set is none",
			func(s *tenancyv1alpha1.SyncPolicySpec) {
				s.Fields.Refuse = []tenancyv1alpha1.FieldPath{".spec.list[*].hostPath"}
			},
			`{"list":[{}]}`, `{"list":[{}]}`, "",
		},
		"NotSelected": {
			"other labels, no replica",
			func(s *tenancyv1alpha1.SyncPolicySpec) {
				s.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"exposed": "true"}}
			},
			`{"a":1}`, "", "",
		},
		"SecretsAndConfigMaps": {
			"they have names that the operator's do not have, whatever kind the policy expects",
			func(s *tenancyv1alpha1.SyncPolicySpec) {
				s.References = []tenancyv1alpha1.SyncReference{{Path: ".spec.ca", Kind: "ConfigMap"}, {Path: ".spec.refs[*]", Kind: "ConfigMap"}}
			},
			`{"ca":"kube-root-ca.crt","refs":[{"kind":"ConfigMap","name":"kube-root-ca.crt"},{"kind":"Secret","name":"kube-root-ca.crt"}]}`,
			`{"ca":"kube-root-ca.crt.tenancy.x-k8s.io","refs":[{"kind":"ConfigMap","name":"kube-root-ca.crt.tenancy.x-k8s.io"},{"kind":"Secret","name":"kube-root-ca.crt.tenancy.x-k8s.io"}]}`, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := policy()
			if tc.edit != nil {
				tc.edit(&p.Spec)
			}
			in := widget(tc.in)
			in.SetLabels(map[string]string{"app": "shop", names.LabelTenant: "forged"})
			before := in.DeepCopy()
			k := read(t, p, crd()).Objects
			ops, err := k.Decide(view(), resource.Key{Tenant: tenantID, Namespace: "shop", Name: "w"}, in, nil)
			if reject, ok := resource.AsReject(err); ok != (tc.reject != "") || ok && reject.Reason != tc.reject {
				t.Fatalf("%s: error is %v", tc.reason, err)
			}
			if diff := cmp.Diff(before, in); diff != "" {
				t.Errorf("the input was changed: %s", diff)
			}
			if tc.want == "" {
				if len(ops) > 0 {
					t.Errorf("%s: ops are %+v", tc.reason, ops)
				}
				return
			}
			if err != nil || len(ops) != 1 || ops[0].Verb != resource.Create {
				t.Fatalf("ops are %+v, error is %v", ops, err)
			}
			want := widget(tc.want)
			want.SetUID("")
			want.SetGeneration(0)
			want.SetNamespace(superShop)
			want.SetLabels(map[string]string{"app": "shop", names.LabelTenant: string(tenantID), names.LabelManagedBy: names.Syncer})
			want.SetAnnotations(map[string]string{names.AnnotationNamespace: "shop", names.AnnotationUID: "w-uid", names.AnnotationGeneration: "3", names.AnnotationKeys: "l:app"})
			if diff := cmp.Diff(want, ops[0].Object); diff != "" {
				t.Errorf("%s: -want +got\n%s", tc.reason, diff)
			}
		})
	}
}

// replica returns what the super cluster has of a widget.
func replica(t *testing.T, k resource.Kind, in *unstructured.Unstructured) *unstructured.Unstructured {
	t.Helper()
	ops, err := k.Decide(view(), resource.Key{Tenant: tenantID, Namespace: "shop", Name: "w"}, in, nil)
	if err != nil || len(ops) != 1 {
		t.Fatalf("ops are %+v, error is %v", ops, err)
	}
	out, ok := ops[0].Object.DeepCopyObject().(*unstructured.Unstructured)
	if !ok {
		t.Fatalf("it is a %T", ops[0].Object)
	}
	out.SetUID("super")
	out.SetResourceVersion("9")
	out.SetGeneration(7)
	return out
}

func TestStatusComesUp(t *testing.T) {
	superShop := names.SuperNamespace(tenantID, "shop")
	for name, tc := range map[string]struct {
		reason     string
		edit       func(*tenancyv1alpha1.SyncPolicySpec)
		status     string
		generation int64 // of the tenant's object by now
		want       string
	}{
		"Copied": {"as it is", nil, `{"ready":true}`, 3, `{"metadata":{"uid":"w-uid"},"status":{"ready":true}}`},
		"Names": {
			"the tenant sees its own names", nil,
			`{"text":"in ` + superShop + `: a.` + superShop + `.svc","parents":[{"namespace":"` + superShop + `"}]}`, 3,
			`{"metadata":{"uid":"w-uid"},"status":{"parents":[{"namespace":"shop"}],"text":"in shop: a.shop.svc"}}`,
		},
		"NamesOfSecrets": {
			"and those of what it refers to",
			func(s *tenancyv1alpha1.SyncPolicySpec) {
				s.References = []tenancyv1alpha1.SyncReference{{Path: ".spec.key", Kind: "Secret"}}
			},
			`{"text":"Secret ` + superShop + "/" + names.SuperSecret("k") + ` has no key"}`, 3,
			`{"metadata":{"uid":"w-uid"},"status":{"text":"Secret shop/k has no key"}}`,
		},
		"Observed":         {"what was seen is the tenant's", nil, `{"observedGeneration":7}`, 3, `{"metadata":{"uid":"w-uid"},"status":{"observedGeneration":3}}`},
		"ObservedBefore":   {"an older one was seen", nil, `{"observedGeneration":6}`, 3, `{"metadata":{"uid":"w-uid"},"status":{"observedGeneration":2}}`},
		"ChangedMeanwhile": {"what was seen was made from an older one", nil, `{"observedGeneration":7}`, 4, `{"metadata":{"uid":"w-uid"},"status":{"observedGeneration":3}}`},
		"Dropped": {
			"what the admin hides",
			func(s *tenancyv1alpha1.SyncPolicySpec) { s.Fields.Drop = []tenancyv1alpha1.FieldPath{".status.node"} },
			`{"ready":true,"node":"n"}`, 3, `{"metadata":{"uid":"w-uid"},"status":{"ready":true}}`,
		},
		"AllDropped": {
			"nothing comes up",
			func(s *tenancyv1alpha1.SyncPolicySpec) { s.Fields.Drop = []tenancyv1alpha1.FieldPath{".status"} },
			`{"ready":true}`, 3, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := policy()
			if tc.edit != nil {
				tc.edit(&p.Spec)
			}
			k := read(t, p, crd()).Objects
			tenant := widget(`{"a":1,"key":"k"}`)
			super := replica(t, k, tenant)
			var status any
			if err := json.Unmarshal([]byte(tc.status), &status); err != nil {
				t.Fatal(err)
			}
			super.Object["status"] = integers(status)
			tenant.SetGeneration(tc.generation)
			ops, err := k.Decide(view(), resource.Key{Tenant: tenantID, Namespace: "shop", Name: "w"}, tenant, super)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			for _, op := range ops {
				if op.Side == resource.Tenant {
					if op.Verb != resource.PatchStatus {
						t.Errorf("verb is %s", op.Verb)
					}
					got = string(op.Patch)
				}
			}
			if got != tc.want {
				t.Errorf("%s: patch is %s, want %s", tc.reason, got, tc.want)
			}
		})
	}
}

// integers turns numbers into what the API machinery decodes.
func integers(value any) any {
	switch value := value.(type) {
	case map[string]any:
		for k, v := range value {
			value[k] = integers(v)
		}
	case []any:
		for i, v := range value {
			value[i] = integers(v)
		}
	case float64:
		return int64(value)
	}
	return value
}

func TestDriftAndWhatTheSuperClusterDecides(t *testing.T) {
	p := policy(func(s *tenancyv1alpha1.SyncPolicySpec) {
		s.Fields.Up = []tenancyv1alpha1.FieldPath{".spec.address"}
		s.Fields.Drop = []tenancyv1alpha1.FieldPath{".spec.internal"}
	})
	k := read(t, p, crd()).Objects
	key := resource.Key{Tenant: tenantID, Namespace: "shop", Name: "w"}
	tenant := widget(`{"a":"1"}`)
	super := replica(t, k, tenant)
	super.Object["spec"] = map[string]any{"a": "1", "address": "1.2.3.4", "internal": "x"}
	ops, err := k.Decide(view(), key, tenant, super)
	if err != nil || len(ops) != 1 || ops[0].Side != resource.Tenant || string(ops[0].Patch) != `{"metadata":{"uid":"w-uid"},"spec":{"address":"1.2.3.4"}}` {
		t.Fatalf("ops are %+v, error is %v", ops, err)
	}
	tenant.Object["spec"] = map[string]any{"a": "1", "address": "1.2.3.4"}
	if ops, err := k.Decide(view(), key, tenant, super); err != nil || len(ops) != 0 {
		t.Errorf("in sync, ops are %+v, error is %v", ops, err)
	}
	super.Object["spec"] = map[string]any{"a": "2", "b": "3", "address": "1.2.3.4", "internal": "x"}
	ops, err = k.Decide(view(), key, tenant, super)
	if want := `{"metadata":{"resourceVersion":"9","uid":"super"},"spec":{"a":"1","b":null}}`; err != nil || len(ops) != 1 || string(ops[0].Patch) != want {
		t.Errorf("drifted, ops are %+v, error is %v", ops, err)
	}
	v := view()
	v.Withdrawn = true
	ops, err = k.Decide(v, key, tenant, super)
	if err != nil || len(ops) != 1 || ops[0].Verb != resource.Delete || ops[0].Absent {
		t.Errorf("withdrawn, ops are %+v, error is %v", ops, err)
	}
}

// What has the same name on both sides is referred to when it is the tenant's own, never when it is the operator's.
func TestObjectsReferToTheTenantsOwn(t *testing.T) {
	p := policy()
	p.Spec.References = []tenancyv1alpha1.SyncReference{
		{Path: ".spec.claim", Kind: "PersistentVolumeClaim"}, {Path: ".spec.backends[*]", Kind: "Service"}, {Path: ".spec.key", Kind: "Secret"},
	}
	k := read(t, p, crd()).Objects
	object := func(namespace, name string, uid types.UID) *metav1.PartialObjectMetadata {
		return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: uid}}
	}
	ours := func(name, uid string) *metav1.PartialObjectMetadata {
		o := object(names.SuperNamespace(tenantID, "shop"), name, "super")
		o.Labels, o.Annotations = map[string]string{names.LabelTenant: string(tenantID)}, map[string]string{names.AnnotationUID: uid}
		return o
	}
	tenant := []resource.Object{object("shop", "data", "data"), object("shop", "web", "web"), object("shop", "other", "other")}
	super := []resource.Object{ours("data", "data"), ours("web", "web"), object(names.SuperNamespace(tenantID, "shop"), "other", "operators"), ours("old", "older")}
	in := func(claim, service string) *unstructured.Unstructured {
		return widget(`{"claim":"` + claim + `","backends":[{"name":"` + service + `"}],"key":"k"}`)
	}
	look := func(replica *unstructured.Unstructured) resource.View {
		v := view(tenant...)
		get := v.Get
		v.Get = func(side resource.Side, ref resource.Ref) resource.Object {
			if side == resource.Super && ref.Kind == p.Spec.Resource && replica != nil {
				return replica
			}
			for _, o := range super {
				if side == resource.Super && o.GetName() == ref.Name && ref.Namespace == "shop" {
					return o
				}
			}
			return get(side, ref)
		}
		return v
	}
	key := resource.Key{Tenant: tenantID, Namespace: "shop", Name: "w"}
	for name, tc := range map[string]struct {
		claim, service string
		// waits is what the tenant is told when the object is new, and when it has a replica that refers to something else.
		created, changed string
		// claimNow and serviceNow are what the changed replica refers to.
		claimNow, serviceNow string
	}{
		"Own":              {"data", "web", "", "", "data", "web"},
		"OperatorsClaim":   {"other", "web", `PersistentVolumeClaim "other"`, `PersistentVolumeClaim "other"`, "", ""},
		"NoClaim":          {"none", "web", `PersistentVolumeClaim "none", which does not exist`, `PersistentVolumeClaim "none"`, "", ""},
		"ClaimOfBefore":    {"old", "web", `PersistentVolumeClaim "old"`, `PersistentVolumeClaim "old"`, "", ""},
		"OperatorsService": {"data", "other", `Service "other"`, "", "data", names.AbsentService("other")},
		"NoService":        {"data", "none", `Service "none", which does not exist`, "", "data", names.AbsentService("none")},
	} {
		t.Run(name, func(t *testing.T) {
			ops, err := k.Decide(look(nil), key, in(tc.claim, tc.service), nil)
			wait, waits := resource.AsWait(err)
			if waits != (tc.created != "") || waits && (wait.Told == nil || !strings.Contains(wait.Told.Message, tc.created) || len(ops) > 0) {
				t.Fatalf("new: %+v, %v", ops, err)
			}
			ops, err = k.Decide(look(nil), key, in("data", "web"), nil)
			if err != nil || len(ops) != 1 {
				t.Fatalf("the replica of before: %+v, %v", ops, err)
			}
			replica, _ := ops[0].Object.DeepCopyObject().(*unstructured.Unstructured)
			replica.SetUID("super")
			ops, err = k.Decide(look(replica), key, in(tc.claim, tc.service), replica)
			wait, waits = resource.AsWait(err)
			if waits != (tc.changed != "") || waits && (wait.Told == nil || !strings.Contains(wait.Told.Message, tc.changed)) {
				t.Fatalf("changed: %+v, %v", ops, err)
			}
			spec, _ := replica.Object["spec"].(map[string]any)
			for _, op := range ops {
				if op.Side != resource.Super {
					continue
				}
				var patch map[string]any
				if err := json.Unmarshal(op.Patch, &patch); err != nil {
					t.Fatal(err)
				}
				changes, _ := patch["spec"].(map[string]any)
				maps.Copy(spec, changes)
			}
			want := map[string]any{"claim": tc.claimNow, "backends": []any{map[string]any{"name": tc.serviceNow}}, "key": names.SuperSecret("k")}
			if tc.changed != "" {
				want["claim"], want["backends"] = "data", []any{map[string]any{"name": "web"}}
			}
			if diff := cmp.Diff(want, spec); diff != "" {
				t.Errorf("the replica: -want +got\n%s", diff)
			}
		})
	}
	// What a replica refers to may go: a snapshot outlives its claim.
	ops, err := k.Decide(look(nil), key, in("data", "web"), nil)
	if err != nil || len(ops) != 1 {
		t.Fatalf("the replica of before: %+v, %v", ops, err)
	}
	replica, _ := ops[0].Object.DeepCopyObject().(*unstructured.Unstructured)
	tenant = tenant[1:]
	if ops, err := k.Decide(look(replica), key, in("data", "web"), replica); err != nil || len(ops) > 0 {
		t.Errorf("after the claim went: %+v, %v", ops, err)
	}
}

func TestReferences(t *testing.T) {
	p := policy(func(s *tenancyv1alpha1.SyncPolicySpec) {
		s.References = []tenancyv1alpha1.SyncReference{
			{Path: ".spec.tls[*].refs[*]", Kind: "Secret"},
			{Path: ".spec.secretName", Kind: "Secret"},
			{Path: ".spec.config", Kind: "ConfigMap"},
			{Path: ".spec.backend", Group: "example.com", Kind: "Backend"},
		}
	})
	in := widget(`{
		"tls":[{"refs":[{"name":"one"},{"name":"two","namespace":"certs","kind":"Secret","group":""},{"name":"three","kind":"Certificate","group":"certs.example.com"}]}],
		"secretName":"one","config":{"name":"c"},"backend":{"name":"b"}
	}`)
	want := []resource.Ref{
		{Kind: "secrets", Namespace: "shop", Name: "one"},
		{Kind: "secrets", Namespace: "certs", Name: "two"},
		{Kind: "configmaps", Namespace: "shop", Name: "c"},
	}
	if diff := cmp.Diff(want, read(t, p, crd()).Objects.References(in)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestServed(t *testing.T) {
	served := read(t, policy(), crd()).Objects.Served
	if _, waits := resource.AsWait(served(view())); !waits {
		t.Errorf("without a definition: %v", served(view()))
	}
	own := crd()
	if _, rejected := resource.AsReject(served(view(own))); !rejected {
		t.Errorf("with a definition of the tenant's own: %v", served(view(own)))
	}
	ours := crd()
	ours.SetAnnotations(map[string]string{names.AnnotationUID: "crd"})
	if err := served(view(ours)); err != nil {
		t.Errorf("with ours: %v", err)
	}
	delete(ours.Object, "status")
	if _, waits := resource.AsWait(served(view(ours))); !waits {
		t.Errorf("with ours, not established: %v", served(view(ours)))
	}
}

func TestPublished(t *testing.T) {
	p := policy(toTenant, func(s *tenancyv1alpha1.SyncPolicySpec) {
		s.Fields.Drop = []tenancyv1alpha1.FieldPath{".spec.parametersRef", ".metadata.annotations['internal']"}
	})
	k := read(t, p, crd(cluster)).Objects
	key := resource.Key{Tenant: tenantID, Name: "class"}
	super := widget(`{"controller":"c","parametersRef":{"name":"x"}}`)
	super.SetNamespace("")
	super.SetName("class")
	super.SetAnnotations(map[string]string{"is-default": "true", "internal": "x", corev1.LastAppliedConfigAnnotation: "{}"})
	super.Object["status"] = map[string]any{"accepted": true, "observedGeneration": int64(3)}
	ops, err := k.Decide(view(), key, nil, super)
	if err != nil || len(ops) != 1 || ops[0].Verb != resource.Create || ops[0].Side != resource.Tenant {
		t.Fatalf("ops are %+v, error is %v", ops, err)
	}
	made, ok := ops[0].Object.(*unstructured.Unstructured)
	if !ok {
		t.Fatalf("it is a %T", ops[0].Object)
	}
	want := map[string]string{"is-default": "true", names.AnnotationUID: "w-uid", names.AnnotationKeys: "a:is-default"}
	if diff := cmp.Diff(want, made.GetAnnotations()); diff != "" {
		t.Errorf("annotations: -want +got\n%s", diff)
	}
	if diff := cmp.Diff(map[string]any{"controller": "c"}, made.Object["spec"]); diff != "" {
		t.Errorf("spec: -want +got\n%s", diff)
	}
	made.SetUID("made")
	made.SetLabels(nil) // as an API server returns it
	made.SetGeneration(1)
	ops, err = k.Decide(view(), key, made, super)
	if want := `{"metadata":{"uid":"made"},"status":{"accepted":true,"observedGeneration":1}}`; err != nil || len(ops) != 1 || string(ops[0].Patch) != want {
		t.Errorf("ops are %+v, error is %v", ops, err)
	}
	made.Object["spec"] = map[string]any{"controller": "mine"}
	ops, err = k.Decide(view(), key, made, super)
	if err != nil || len(ops) != 2 || ops[0].Verb != resource.Patch || ops[0].Side != resource.Tenant {
		t.Errorf("edited by the tenant, ops are %+v, error is %v", ops, err)
	}
}
