package resources_test

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	psa "k8s.io/pod-security-admission/api"
	"sigs.k8s.io/randfill"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/internal/iprange"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/resources"
	"github.com/virtualcluster-io/virtualcluster/syncer/resources/custom"
	"github.com/virtualcluster-io/virtualcluster/syncer/resources/pods"
)

// The values of hostile metadata. No replica has one of them: under a reserved key a tenant would forge a mark of ownership, and
// under a key of the operator's controllers it would give them instructions.
const (
	forged = "forged"
	steers = "steers"
)

// hostileKeys are keys of labels and annotations that a tenant must not set in the super cluster.
func hostileKeys() []string {
	return []string{
		names.LabelTenant, names.LabelManagedBy, names.LabelPublic, names.AnnotationUID, names.AnnotationNamespace, names.AnnotationName, names.AnnotationKeys,
		names.AnnotationPlacement, names.AnnotationReaddress, names.OpaquePrefix + "x", "downward." + names.Prefix + "labels", "volume." + names.Prefix + "x",
		"eks.amazonaws.com/role-arn", "azure.workload.identity/use", "karpenter.sh/do-not-disrupt", "service.beta.kubernetes.io/aws-load-balancer-type",
		"pv.kubernetes.io/bind-completed", "secret.example.com/a",
	}
}

// filler fills objects from the bytes of a fuzzer: with few names, so that they refer to each other, and with hostile metadata.
func filler(data []byte) *randfill.Filler {
	name := choice("web", "web", "web", "data", "data", "shop", "default", "kubernetes", "")
	return randfill.NewFromGoFuzz(data).NilChance(0.3).NumElements(0, 2).MaxDepth(12).Funcs(
		func(s *string, c randfill.Continue) {
			switch c.Intn(16) {
			case 0:
				*s = choose(c, "10.112.0.5", "10.96.0.1", "fd00:1::5", "192.0.2.1", "169.254.169.254", "None", "metadata.name", "metadata.labels['app']", "0", "/etc", "a/b", "\u00e4\n")
			case 1:
				*s = choose(c, names.SuperNamespace(tenantID, "shop"), names.SuperSecret("x"), string(tenantID), "kube-system", forged)
			case 2:
				*s = c.String(10)
			default:
				*s = name(c)
			}
		},
		func(m *metav1.ObjectMeta, c randfill.Continue) {
			m.Labels, m.Annotations = metadata(c), metadata(c)
			if c.Intn(6) == 0 {
				m.DeletionTimestamp, m.DeletionGracePeriodSeconds = &metav1.Time{Time: now()}, new(int64(c.Intn(40)))
				m.Finalizers = []string{"example.com/hold"}
			}
			m.ResourceVersion, m.Generation = "7", int64(c.Intn(3))
		},
		func(q *apiresource.Quantity, c randfill.Continue) {
			*q = *apiresource.NewQuantity(c.Int63n(1000)-10, apiresource.DecimalSI)
		},
		func(i *intstr.IntOrString, c randfill.Continue) {
			*i = []intstr.IntOrString{intstr.FromInt32(c.Int31n(100)), intstr.FromString("50%"), intstr.FromString("http")}[c.Intn(3)]
		},
		func(t *metav1.Time, c randfill.Continue) {
			t.Time = now().Add(time.Duration(c.Intn(7200)-3600) * time.Second)
		},
		func(t *metav1.MicroTime, c randfill.Continue) {
			t.Time = now().Add(time.Duration(c.Intn(7200)-3600) * time.Second)
		},
		func(r *corev1.ObjectFieldSelector, c randfill.Continue) {
			r.FieldPath = choose(c, "metadata.name", "metadata.labels", "metadata.annotations", "metadata.annotations['"+names.AnnotationUID+"']", "metadata.labels['app']", "status.podIP")
		},
		func(r *corev1.ObjectReference, c randfill.Continue) {
			c.FillNoCustom(r)
			r.Name = choose(c, "web", "data") // lists of them are merged by it
		},
		func(r *corev1.LocalObjectReference, c randfill.Continue) { r.Name = choose(c, "web", "data") },
		func(b *[]byte, c randfill.Continue) { *b = []byte(c.String(4)) }, // an API server never returns null
		func(f *metav1.FieldsV1, _ randfill.Continue) { f.SetRawString("{}") },
		func(r *runtime.RawExtension, _ randfill.Continue) { r.Raw = []byte(`{"a":1}`) },
		func(u *types.UID, c randfill.Continue) { *u = types.UID(choose(c, "u", "super", "older", "")) },
		func(n *corev1.ResourceName, c randfill.Continue) {
			*n = corev1.ResourceName(choose(c, "cpu", "memory", "storage", "example.com/gpu", "deviceclass.resource.kubernetes.io/nginx"))
		},
		enum(corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeExternalName),
		enum(corev1.ProtocolTCP, corev1.ProtocolUDP), enum(corev1.IPv4Protocol, corev1.IPv6Protocol),
		enum(corev1.PodPending, corev1.PodRunning, corev1.PodSucceeded, corev1.PodFailed), enum(corev1.ConditionTrue, corev1.ConditionFalse),
		enum(corev1.TaintEffectNoSchedule, corev1.TaintEffectNoExecute), enum(corev1.TolerationOpEqual, corev1.TolerationOpExists),
		enum(metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn, metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist),
		enum(corev1.NodeSelectorOpIn, corev1.NodeSelectorOpExists), enum(discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6, discoveryv1.AddressTypeFQDN),
		enum(corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRetain), enum(corev1.ClaimPending, corev1.ClaimBound, corev1.ClaimLost),
		enum(corev1.SecretTypeOpaque, corev1.SecretTypeServiceAccountToken, corev1.SecretTypeTLS), enum(corev1.DNSClusterFirst, corev1.DNSDefault, corev1.DNSNone),
		enum(corev1.PodReady, corev1.PodScheduled, "example.com/gate"), enum(corev1.RestartPolicyAlways, corev1.RestartPolicyNever),
	)
}

func choose(c randfill.Continue, from ...string) string { return from[c.Intn(len(from))] }

func choice(from ...string) func(randfill.Continue) string {
	return func(c randfill.Continue) string { return choose(c, from...) }
}

func enum[T ~string](values ...T) any {
	return func(s *T, c randfill.Continue) { *s = values[c.Intn(len(values))] }
}

func metadata(c randfill.Continue) map[string]string {
	out := map[string]string{}
	for range c.Intn(4) {
		if key := choose(c, hostileKeys()...); key == names.AnnotationReaddress {
			out[key] = choose(c, forged, `{"clusterIP":"None"}`, `{"type":"NodePort","clusterIP":"10.112.0.9","clusterIPs":["10.112.0.9","fd00:1::9"]}`)
		} else if strings.Contains(key, names.Prefix) {
			out[key] = forged
		} else {
			out[key] = steers
		}
	}
	for range c.Intn(3) {
		out[choose(c, "app", "tier", "app.kubernetes.io/name", "kubernetes.io/service-name")] = choose(c, "web", "x", "")
	}
	return out
}

// kindsOf are the kinds of the syncer, and custom resources in both directions.
func kindsOf(tb testing.TB) []resource.Kind {
	tb.Helper()
	definition := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": map[string]any{"name": "widgets.example.com", "uid": "crd"},
		"spec": map[string]any{
			"group": "example.com", "scope": "Namespaced", "names": map[string]any{"plural": "widgets", "kind": "Widget"},
			"versions": []any{map[string]any{"name": "v1", "served": true, "storage": true, "subresources": map[string]any{"status": map[string]any{}}}},
		},
		"status": map[string]any{"conditions": []any{map[string]any{"type": "Established", "status": "True"}}},
	}}
	builtIn := func(k schema.GroupKind) (string, bool) {
		name := strings.ToLower(k.Kind) + "s"
		return name, k.Group == "" && slices.Contains([]string{resource.Secrets, resource.ConfigMaps, resource.Services}, name)
	}
	kinds := resources.All(resources.Options{HostsImage: "hosts"})
	for _, spec := range []tenancyv1alpha1.SyncPolicySpec{
		{Direction: tenancyv1alpha1.ToSuper, References: []tenancyv1alpha1.SyncReference{{Path: ".spec.web", Kind: "Secret"}, {Path: ".spec.items[*]", Kind: "Service"}},
			Fields: tenancyv1alpha1.SyncFields{Drop: []tenancyv1alpha1.FieldPath{".spec.x"}, Refuse: []tenancyv1alpha1.FieldPath{".spec.data.other"}, Up: []tenancyv1alpha1.FieldPath{".spec.default"}}},
		{Direction: tenancyv1alpha1.ToTenant, Publish: &tenancyv1alpha1.Publish{Namespace: "shared"}},
	} {
		spec.Resource = "widgets.example.com"
		c, err := custom.New(&tenancyv1alpha1.SyncPolicy{Spec: spec}, definition, builtIn)
		if err != nil {
			tb.Fatal(err)
		}
		kinds = append(kinds, c.Objects)
	}
	return kinds
}

// fill fills an object of a kind.
func fill(f *randfill.Filler, k resource.Kind, o resource.Object) {
	u, custom := o.(*unstructured.Unstructured)
	if !custom {
		f.Fill(o)
		thin(f, reflect.ValueOf(o).Elem())
		o.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
		return
	}
	type leaf struct {
		Web, Namespace, X string
		Namespaces, Items []string
		Data              map[string]string
		Default           *int64
	}
	var content struct {
		Spec, Status struct {
			leaf
			Inner []leaf
		}
		Meta metav1.ObjectMeta
	}
	f.Fill(&content)
	raw, _ := json.Marshal(content) //nolint:errchkjson // of strings and numbers
	var lower map[string]any
	_ = json.Unmarshal(raw, &lower) // what was encoded
	for _, part := range []string{"Spec", "Status"} {
		u.Object[strings.ToLower(part)] = lowered(lower[part])
	}
	u.SetGroupVersionKind(k.GVK)
	u.SetLabels(content.Meta.Labels)
	u.SetAnnotations(content.Meta.Annotations)
	u.SetDeletionTimestamp(content.Meta.DeletionTimestamp)
	u.SetGeneration(content.Meta.Generation)
}

// thin empties pointers: the filler never leaves one to a type with a function of its own empty.
func thin(f *randfill.Filler, v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.CanSet() && !v.IsNil() && odds(f, 2) {
			v.SetZero()
		} else if !v.IsNil() {
			thin(f, v.Elem())
		}
	case reflect.Slice:
		for i := range v.Len() {
			thin(f, v.Index(i))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				thin(f, v.Field(i))
			}
		}
	default:
	}
}

// tame takes out of an object what is refused, so that the rest of it is translated.
func tame(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			tame(v.Elem())
		}
	case reflect.Slice:
		for i := range v.Len() {
			tame(v.Index(i))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if field := v.Type().Field(i); refusedFields()[v.Type().Name()+"."+field.Name] {
				v.Field(i).SetZero()
			} else if field.IsExported() {
				tame(v.Field(i))
			}
		}
		switch o := v.Addr().Interface().(type) {
		case *corev1.Volume:
			if o.VolumeSource == (corev1.VolumeSource{}) {
				o.EmptyDir = &corev1.EmptyDirVolumeSource{}
			}
		case *corev1.Pod:
			if o.Status.StartTime == nil { // as it is before it runs
				o.Status, o.Spec.NodeName, o.DeletionTimestamp = corev1.PodStatus{}, "", nil
			}
		case *corev1.PodSpec:
			o.SchedulingGates, o.RuntimeClassName, o.SetHostnameAsFQDN, o.ResourceClaims = nil, nil, nil, nil
			o.ServiceAccountName = "web"
		case *corev1.ResourceRequirements:
			o.Claims = nil
		case *corev1.PersistentVolumeClaimSpec:
			o.DataSource, o.DataSourceRef, o.StorageClassName = nil, nil, new("web")
		}
	default:
	}
}

// refusedFields are the fields that are refused, or refused of most tenants.
var refusedFields = sync.OnceValue(func() map[string]bool {
	out := map[string]bool{}
	for _, d := range pods.Decisions() {
		out[d.Type+"."+d.Field] = d.Action == pods.Refuse || d.Action == pods.Privilege
	}
	for _, d := range resources.Decisions() {
		out[d.Of.Name()+"."+d.Field] = d.Action == pods.Refuse
	}
	return out
})

// lowered writes the names of fields as custom resources do.
func lowered(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for key, value := range v {
			if value != nil && key != "" && key[0] < utf8.RuneSelf {
				out[strings.ToLower(key[:1])+key[1:]] = lowered(value)
			}
		}
		return out
	case []any:
		for i := range v {
			v[i] = lowered(v[i])
		}
		return v
	case float64:
		return int64(v)
	default:
		return v
	}
}

// clusters are a tenant's and the super cluster: objects by the tenant's names.
type clusters struct {
	kinds []resource.Kind
	facts resource.Facts
	used  bool
	runs  bool
	at    map[resource.Side]map[resource.Ref]resource.Object
}

// superNamespaces are the namespaces of the tenant.
func superNamespaces() map[string]string {
	out := map[string]string{}
	for _, ns := range []string{"shop", "default", "kube-system"} {
		out[names.SuperNamespace(tenantID, ns)] = ns
	}
	return out
}

func newClusters(tb testing.TB, kinds []resource.Kind, f *randfill.Filler) *clusters {
	tb.Helper()
	c := &clusters{kinds: kinds, at: map[resource.Side]map[resource.Ref]resource.Object{resource.Tenant: {}, resource.Super: {}}}
	c.used, c.runs = !odds(f, 8), odds(f, 2)
	c.facts = resource.Facts{
		ID: tenantID, UID: "vc", VirtualCluster: types.NamespacedName{Namespace: "tenants", Name: "acme"}, ClusterDomain: "cluster.local",
		PodSecurity: psa.LevelBaseline, Scheduler: odds(f, 8),
	}
	if odds(f, 2) {
		c.facts.ServiceRanges = iprange.MustParse("10.112.0.0/22,fd00:1::/112")
	}
	if odds(f, 2) {
		c.facts.PodSecurity = psa.LevelPrivileged
	}
	if odds(f, 2) {
		c.facts.Opaque = []string{"tier", "secret.example.com/"}
	}
	if odds(f, 4) {
		c.facts.Transparent = []string{"tier", names.Prefix}
	}
	if odds(f, 4) {
		c.facts.Nodes = resource.NodeFacts{Used: true, HiddenLabels: []string{"app"}, HiddenTaints: []string{"web"}}
	}
	for super, ns := range superNamespaces() {
		ref := resource.Ref{Kind: "namespaces", Name: ns}
		c.at[resource.Tenant][ref] = namespaceOn(resource.Tenant, ns)
		c.at[resource.Super][ref] = namespaceOn(resource.Super, ns)
		if c.at[resource.Super][ref].GetName() != super {
			tb.Fatal("namespaces are mixed up")
		}
	}
	for ref, ip := range map[resource.Ref]string{
		{Kind: "services", Namespace: "default", Name: "kubernetes"}: "10.112.0.1", {Kind: "services", Namespace: "kube-system", Name: "kube-dns"}: "10.112.0.10",
	} {
		c.at[resource.Tenant][ref] = &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: ref.Namespace, Name: ref.Name, UID: types.UID(ref.Name)},
			Spec:       corev1.ServiceSpec{ClusterIP: ip, ClusterIPs: []string{ip}, Ports: []corev1.ServicePort{{Name: "https", Port: 443}}},
		}
	}
	return c
}

// put places an object where its kind has it; a nil one removes what is there.
func (c *clusters) put(side resource.Side, ref resource.Ref, o resource.Object) {
	if o == nil {
		delete(c.at[side], ref)
		return
	}
	c.at[side][ref] = o
}

// odds says yes once in so many times.
func odds(f *randfill.Filler, of uint64) bool {
	var n uint64
	f.Fill(&n)
	return n%of == 0
}

// placed gives an object the name that it has on a side.
func placed(k resource.Kind, side resource.Side, ref resource.Ref, o resource.Object) resource.Object {
	o.SetName(ref.Name)
	o.SetNamespace(ref.Namespace)
	if side == resource.Super {
		if k.Name == "namespaces" {
			o.SetName(names.SuperNamespace(tenantID, ref.Name))
		} else if ref.Namespace != "" {
			o.SetNamespace(names.SuperNamespace(tenantID, ref.Namespace))
			o.SetName(k.SuperName(ref.Name))
		}
	}
	return o
}

// marked gives a super object the marks of a replica.
func marked(k resource.Kind, key resource.Ref, o resource.Object, uid types.UID) {
	labels, annotations := withoutForged(o.GetLabels()), withoutForged(o.GetAnnotations())
	labels[names.LabelTenant], labels[names.LabelManagedBy] = string(tenantID), names.Syncer
	annotations[names.AnnotationNamespace], annotations[names.AnnotationUID] = key.Namespace, string(uid)
	if k.Name == "namespaces" {
		annotations[names.AnnotationNamespace] = key.Name
	}
	if k.SuperName(key.Name) != key.Name {
		annotations[names.AnnotationName] = key.Name
	}
	o.SetLabels(labels)
	o.SetAnnotations(annotations)
}

// withoutForged leaves out what only a tenant writes: the super cluster's own objects are the operator's.
func withoutForged(in map[string]string) map[string]string {
	out := map[string]string{}
	for key, value := range in {
		if value != forged && value != steers {
			out[key] = value
		}
	}
	return out
}

// populate makes an object of a kind on both sides, on one, or on none.
func (c *clusters) populate(f *randfill.Filler, k resource.Kind, ref resource.Ref) {
	noTenant, noSuper, foreign, older, fresh := odds(f, 8), odds(f, 3), odds(f, 8), odds(f, 8), odds(f, 2)
	build := func(side resource.Side, uid types.UID) resource.Object {
		o := k.New()
		fill(f, k, o)
		if side == resource.Tenant && !odds(f, 4) {
			tame(reflect.ValueOf(o).Elem())
		}
		o.SetUID(uid)
		return placed(k, side, ref, o)
	}
	if k.Origin == resource.Super || k.SuperOnly {
		super := build(resource.Super, "real")
		labels := withoutForged(super.GetLabels())
		if odds(f, 2) {
			labels[names.LabelPublic] = "true"
		}
		super.SetLabels(labels)
		super.SetAnnotations(withoutForged(super.GetAnnotations()))
		if k.SuperOnly {
			marked(k, ref, super, "u")
		}
		if !noSuper {
			k.Trim(super)
			c.put(resource.Super, ref, super)
		}
		if k.SuperOnly || noTenant {
			return
		}
		tenant := build(resource.Tenant, "replica")
		if !foreign {
			tenant.SetAnnotations(map[string]string{names.AnnotationUID: "real"})
		}
		c.put(resource.Tenant, ref, tenant)
		return
	}
	tenant := build(resource.Tenant, "u")
	if odds(f, 16) {
		tenant.SetUID(names.UIDAhead)
	}
	if !noTenant {
		k.Trim(tenant)
		c.put(resource.Tenant, ref, tenant)
	}
	if noSuper {
		return
	}
	super := build(resource.Super, "super")
	super.SetLabels(withoutForged(super.GetLabels()))
	super.SetAnnotations(withoutForged(super.GetAnnotations()))
	if fresh { // as it was made
		if ops, err := k.Decide(c.view(), keyOf(ref), tenant, nil); err == nil && len(ops) > 0 && ops[len(ops)-1].Verb == resource.Create {
			made, ok := ops[len(ops)-1].Object.DeepCopyObject().(resource.Object)
			if ok && reflect.TypeOf(made) == reflect.TypeOf(super) {
				made.SetUID("super")
				made.SetResourceVersion("7")
				super = made
			}
		}
	} else if !foreign {
		uid := types.UID("u")
		switch {
		case older && odds(f, 2):
			uid = names.UIDAhead
		case older:
			uid = "older"
		}
		marked(k, ref, super, uid)
	}
	k.Trim(super)
	c.put(resource.Super, ref, super)
}

func keyOf(ref resource.Ref) resource.Key {
	return resource.Key{Tenant: tenantID, Namespace: ref.Namespace, Name: ref.Name}
}

func (c *clusters) view() resource.View {
	each := func(side resource.Side, kind string, f func(resource.Object)) {
		for ref, o := range c.at[side] { // in another order each time
			if ref.Kind == kind {
				f(o)
			}
		}
	}
	return resource.View{
		Tenant: c.facts, Now: now(), Live: true,
		Get: func(side resource.Side, ref resource.Ref) resource.Object {
			if o, ok := c.at[side][ref]; ok {
				return o
			}
			return nil
		},
		Whole: func(ref resource.Ref) (resource.Object, error) {
			if o, ok := c.at[resource.Tenant][ref]; ok {
				return o, nil
			}
			return nil, nil
		},
		Each: each,
		Owned: func(kind string, owner types.UID, f func(resource.Object)) {
			each(resource.Super, kind, func(o resource.Object) {
				if slices.ContainsFunc(o.GetOwnerReferences(), func(r metav1.OwnerReference) bool { return r.UID == owner }) {
					f(o)
				}
			})
		},
		EachCustomized: func(kind string, f func(resource.Object)) {
			i := slices.IndexFunc(c.kinds, func(k resource.Kind) bool { return k.Name == kind })
			each(resource.Tenant, kind, func(o resource.Object) {
				if c.kinds[i].Customized(o) {
					f(o)
				}
			})
		},
		Referenced: func(resource.Ref) bool { return c.used },
		TenantNamespace: func(super string) (string, bool) {
			ns, ok := superNamespaces()[super]
			return ns, ok
		},
		HasPodsOn:         func(string) bool { return c.runs },
		RequestedByOthers: func(string) corev1.ResourceList { return corev1.ResourceList{"cpu": apiresource.MustParse("1")} },
		NodeAddress:       func(ip string) bool { return ip == "192.0.2.1" },
	}
}

// decide decides about a key, and checks that the decision changes nothing that it reads and comes out the same again.
func (c *clusters) decide(t *testing.T, k resource.Kind, ref resource.Ref) ([]resource.Op, error) {
	t.Helper()
	before := map[resource.Side]map[resource.Ref]runtime.Object{resource.Tenant: {}, resource.Super: {}}
	for side, objects := range c.at {
		for ref, o := range objects {
			before[side][ref] = o.DeepCopyObject()
		}
	}
	tenant, super := c.at[resource.Tenant][ref], c.at[resource.Super][ref]
	ops, err := k.Decide(c.view(), keyOf(ref), tenant, super)
	for side, objects := range before {
		for ref, o := range objects {
			if !equality.Semantic.DeepEqual(o, c.at[side][ref]) {
				t.Fatalf("%s: the decision changed %s of the %s cluster:\n%s", k.Name, ref, side, cmp.Diff(o, runtime.Object(c.at[side][ref])))
			}
		}
	}
	again, errAgain := k.Decide(c.view(), keyOf(ref), tenant, super)
	if diff := cmp.Diff(encode(t, ops), encode(t, again)); diff != "" || fmt.Sprint(err) != fmt.Sprint(errAgain) {
		t.Fatalf("%s: two decisions about the same differ: %v, %v\n%s", k.Name, err, errAgain, diff)
	}
	if _, rejected := resource.AsReject(err); err != nil && !rejected {
		if _, waits := resource.AsWait(err); !waits {
			t.Fatalf("%s: %v", k.Name, err)
		}
	}
	// What the tenant would be told of a refusal does not panic either.
	for _, op := range ops {
		if op.Side == resource.Super && tenant != nil {
			_, _ = k.Refused(c.view(), tenant, super, resource.Op{}, "Service \"web\" is invalid: spec.ports[0].nodePort: Invalid value: 30001: provided port is already allocated")
			break
		}
	}
	if tenant != nil {
		k.References(tenant)
		k.Customized(tenant)
		k.AffectsAllReferrers(nil, tenant)
	}
	if super != nil {
		k.AffectedRefs(super)
		k.Route(super)
		k.NodeRequests(super)
		k.Home(super)
	}
	return ops, err
}

// check checks what must be true of every operation.
func (c *clusters) check(t *testing.T, k resource.Kind, ref resource.Ref, op resource.Op) {
	t.Helper()
	if op.Side == resource.Tenant {
		if ns := op.Object.GetNamespace(); ref.Namespace != "" && k.Published == nil && ns != ref.Namespace && op.Verb != resource.Record {
			t.Errorf("%s: %s in the tenant's namespace %q for %s", k.Name, op.Verb, ns, ref)
		}
		return
	}
	name, ns := op.Object.GetName(), op.Object.GetNamespace()
	_, ours := superNamespaces()[ns]
	if ns == "" { // volumes are found by their claims
		ours = name == names.SuperNamespace(tenantID, ref.Name) || k.Name == "persistentvolumes" || k.Name == "persistentvolumeclaims"
	}
	if !ours {
		t.Errorf("%s: %s of %s/%s, which is not the tenant's", k.Name, op.Verb, ns, name)
	}
	labels, annotations := op.Object.GetLabels(), op.Object.GetAnnotations()
	if _, volume := op.Object.(*corev1.PersistentVolume); !volume && labels[names.LabelTenant] != string(tenantID) {
		t.Errorf("%s: %s of %s/%s, which does not bear the mark of the tenant: %v", k.Name, op.Verb, ns, name, labels)
	}
	for key, value := range allOf(labels, annotations) {
		if shown := strings.HasPrefix(key, "downward."+names.Prefix); !shown && (strings.Contains(value, forged) || strings.Contains(value, steers)) && !strings.HasPrefix(key, names.AnnotationKeys) {
			t.Errorf("%s: %s with %s=%s", k.Name, op.Verb, key, value)
		}
	}
	if op.Verb == resource.Delete && annotations[names.AnnotationUID] == names.UIDAhead && op.Why != resource.Superseded {
		t.Errorf("%s: what was made ahead is deleted: %s", k.Name, op.Why)
	}
	if op.Verb == resource.Create {
		tenant := c.at[resource.Tenant][ref]
		if tenant == nil || annotations[names.AnnotationUID] == names.UIDAhead ||
			annotations[names.AnnotationUID] != string(tenant.GetUID()) || labels[names.LabelManagedBy] != names.Syncer ||
			annotations[names.AnnotationNamespace] != cmpOr(ref.Namespace, ref.Name) || len(op.Object.GetOwnerReferences())+len(op.Object.GetFinalizers()) > 0 {
			t.Errorf("%s: created without the marks of ownership: %v, %v", k.Name, labels, annotations)
		}
	}
	if op.Patch != nil {
		for _, value := range [][]byte{op.Patch, op.MetadataPatch} {
			var body struct {
				Metadata struct {
					UID                 types.UID
					Labels, Annotations map[string]*string
					OwnerReferences     []any
				}
			}
			if value != nil && (json.Unmarshal(value, &body) != nil || body.Metadata.UID != op.Object.GetUID() || len(body.Metadata.OwnerReferences) > 0) {
				t.Errorf("%s: the patch is for another object, or has owners: %s", k.Name, value)
			}
			for _, m := range []map[string]*string{body.Metadata.Labels, body.Metadata.Annotations} {
				for key, v := range m {
					if v != nil && !strings.HasPrefix(key, "downward.") && key != names.AnnotationKeys && (strings.Contains(*v, forged) || strings.Contains(*v, steers)) {
						t.Errorf("%s: the patch sets %s=%s", k.Name, key, *v)
					}
				}
			}
		}
	}
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func allOf(in ...map[string]string) map[string]string {
	out := map[string]string{}
	for i, m := range in {
		for key, value := range m {
			out[fmt.Sprintf("%s%s", key, strings.Repeat(" ", i))] = value
		}
	}
	return out
}

// apply carries out an operation as the API servers would.
func (c *clusters) apply(t *testing.T, k resource.Kind, op resource.Op) {
	t.Helper()
	at := c.refOf(k, op.Side, op.Object)
	if at.Kind == "" {
		return
	}
	switch op.Verb {
	case resource.Create:
		o, ok := op.Object.DeepCopyObject().(resource.Object)
		if !ok || c.at[op.Side][at] != nil {
			t.Fatalf("%s: creating %s, which exists", k.Name, at)
		}
		o.SetUID("made")
		o.SetResourceVersion("8")
		c.put(op.Side, at, o)
	case resource.Delete:
		c.put(op.Side, at, nil)
	case resource.Bind:
		if pod, ok := c.at[op.Side][at].(*corev1.Pod); ok {
			pod = pod.DeepCopy()
			pod.Spec.NodeName = op.Node
			c.put(op.Side, at, pod)
		}
	case resource.Patch, resource.PatchStatus, resource.PatchResize, resource.PatchEphemeral:
		if len(op.Patch) == 0 {
			t.Fatalf("%s: %s of %s with nothing in it, %s: %s", k.Name, op.Verb, at, op.Why, encode(t, c.at[op.Side][at]))
		}
		if c.at[op.Side][at] == nil { // it was deleted by an operation before: the API server does not find it
			return
		}
		c.put(op.Side, at, patchedBy(t, c.at[op.Side][at], op.Patch))
	default:
	}
}

// refOf finds where an object is, or is to be, that is of the kind or was made for an object of it.
func (c *clusters) refOf(k resource.Kind, side resource.Side, o resource.Object) resource.Ref {
	for ref, there := range c.at[side] {
		if ref.Kind == k.Name && there.GetUID() == o.GetUID() && there.GetName() == o.GetName() && there.GetNamespace() == o.GetNamespace() {
			return ref
		}
	}
	for _, k := range append([]resource.Kind{k}, c.kinds...) {
		if reflect.TypeOf(k.New()) != reflect.TypeOf(o) || slices.Contains([]string{"otherpods", "tokens"}, k.Name) {
			continue
		}
		ref := resource.Ref{Kind: k.Name, Namespace: o.GetNamespace(), Name: o.GetName()}
		if side == resource.Super {
			ref.Namespace = superNamespaces()[o.GetNamespace()]
			if original := o.GetAnnotations()[names.AnnotationName]; original != "" {
				ref.Name = original
			}
			if k.Name == "namespaces" {
				ref = resource.Ref{Kind: k.Name, Name: o.GetAnnotations()[names.AnnotationNamespace]}
			}
		}
		return ref
	}
	return resource.Ref{}
}

// patchedBy returns an object after a patch.
func patchedBy(t *testing.T, o resource.Object, patch []byte) resource.Object {
	t.Helper()
	raw, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	fresh, ok := reflect.New(reflect.TypeOf(o).Elem()).Interface().(resource.Object)
	if !ok {
		t.Fatalf("making a new %T", o)
	}
	if _, custom := o.(*unstructured.Unstructured); custom {
		var body, change map[string]any
		if utiljson.Unmarshal(raw, &body) != nil || utiljson.Unmarshal(patch, &change) != nil {
			t.Fatalf("decoding %q for %s", patch, raw)
		}
		merge(body, change)
		raw, err = json.Marshal(body)
	} else {
		raw, err = strategicpatch.StrategicMergePatch(raw, patch, o)
	}
	if err != nil {
		t.Fatalf("applying %s: %v", patch, err)
	}
	if err := json.Unmarshal(raw, fresh); err != nil {
		t.Fatal(err)
	}
	return fresh
}

// merge is a JSON merge patch.
func merge(into, patch map[string]any) {
	for key, value := range patch {
		below, isMap := value.(map[string]any)
		at, wasMap := into[key].(map[string]any)
		switch {
		case value == nil:
			delete(into, key)
		case isMap && wasMap:
			merge(at, below)
		case isMap:
			fresh := map[string]any{}
			merge(fresh, below)
			into[key] = fresh
		default:
			into[key] = value
		}
	}
}

// FuzzDecide decides about objects of any content, of every kind, on both sides. Whatever they are, nothing panics, nothing that
// is not the tenant's is written to, marks of ownership cannot be forged, what is read is not changed, and the same comes out of
// the same.
func FuzzDecide(f *testing.F) {
	random := rand.New(rand.NewPCG(14, 5))
	kinds := kindsOf(f)
	for i := range kinds {
		for range 6 {
			f.Add(uint8(i), binary.BigEndian.AppendUint64(nil, random.Uint64()))
		}
	}
	f.Fuzz(func(t *testing.T, kind uint8, data []byte) {
		fill := filler(data)
		c := newClusters(t, kinds, fill)
		for i, k := range c.kinds {
			if i < len(kinds)-2 && k.Name != "namespaces" {
				for _, name := range []string{"web", "data"} {
					c.populate(fill, k, refFor(k, name))
				}
			}
		}
		k := c.kinds[int(kind)%len(c.kinds)]
		ref := refFor(k, "web")
		c.put(resource.Tenant, ref, nil)
		c.put(resource.Super, ref, nil)
		c.populate(fill, k, ref)
		for round := 0; ; round++ {
			ops, _ := c.decide(t, k, ref)
			ops = slices.DeleteFunc(ops, func(op resource.Op) bool { return op.Verb == resource.Record }) // the executor tells once
			if round == 6 {
				if k.Name == resource.Pods { // names of containers that are there twice; valid pods are tried in package pods
					return
				}
				t.Errorf("%s does not come to an end: %s of %s, %s", k.Name, ops[0].Verb, encode(t, ops[0].Object), ops[0].Patch)
			}
			for _, op := range ops {
				c.check(t, k, ref, op)
			}
			for _, op := range ops {
				c.apply(t, k, op)
			}
			if t.Failed() || len(ops) == 0 {
				return
			}
		}
	})
}

// refFor names an object of a kind.
func refFor(k resource.Kind, name string) resource.Ref {
	ref := resource.Ref{Kind: k.Name, Name: name}
	switch {
	case k.Name == "namespaces":
		ref.Name = "shop"
	case k.Published != nil:
		ref.Namespace = k.Published.Tenant
	case !k.Cluster:
		ref.Namespace = "shop"
	}
	return ref
}
