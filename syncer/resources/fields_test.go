package resources_test

import (
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/resources"
	"github.com/virtualcluster-io/virtualcluster/syncer/resources/pods"
)

// specimen is an object in which the fields of a type are tried.
type specimen struct {
	kind  resource.Kind
	world world
	build func() resource.Object
	// part is where the type is in an object of the kind; nil for the object itself.
	part func(resource.Object) any
}

func partOf[T resource.Object, P any](f func(T) *P) func(resource.Object) any {
	return func(o resource.Object) any {
		t, _ := o.(T)
		return f(t)
	}
}

// specimenOf returns an object of the kind whose objects, or whose specs, are of a type: one that is offered, of a class.
func specimenOf(of reflect.Type) (specimen, bool) {
	for _, k := range resources.All(resources.Options{}) {
		s := specimen{kind: k, build: func() resource.Object {
			o := k.New()
			o.SetName("x")
			o.SetUID("real")
			o.SetLabels(map[string]string{names.LabelPublic: "true"})
			if !k.Cluster {
				o.SetNamespace("shop")
			}
			return o
		}}
		object := reflect.TypeOf(k.New()).Elem()
		if object == of {
			return s, true
		}
		if spec, ok := object.FieldByName("Spec"); ok && spec.Type == of {
			s.part = func(o resource.Object) any { return reflect.ValueOf(o).Elem().FieldByName("Spec").Addr().Interface() }
			return s, true
		}
	}
	return specimen{}, false
}

// specimens has one for each type of which an empty object is not translated, or that is deeper in an object.
func specimens() map[reflect.Type]specimen {
	named := func(o resource.Object) resource.Object {
		o.SetNamespace("shop")
		o.SetName("x")
		o.SetUID("u")
		return o
	}
	referred := func(kind string) world {
		return world{referenced: []resource.Ref{{Kind: kind, Namespace: "shop", Name: "x"}}}
	}
	peers := []networkingv1.NetworkPolicyPeer{{}}
	policy := func() resource.Object {
		return named(&networkingv1.NetworkPolicy{Spec: networkingv1.NetworkPolicySpec{
			Ingress: []networkingv1.NetworkPolicyIngressRule{{From: append([]networkingv1.NetworkPolicyPeer{}, peers...)}},
			Egress:  []networkingv1.NetworkPolicyEgressRule{{To: append([]networkingv1.NetworkPolicyPeer{}, peers...)}},
		}})
	}
	outside := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "outside"}}
	slice := func() resource.Object {
		s := named(&discoveryv1.EndpointSlice{Endpoints: []discoveryv1.Endpoint{{}}})
		s.SetLabels(map[string]string{discoveryv1.LabelServiceName: "outside"})
		return s
	}
	return map[reflect.Type]specimen{
		reflect.TypeFor[corev1.ConfigMap](): {resources.ConfigMaps(), referred("configmaps"), func() resource.Object { return named(&corev1.ConfigMap{}) }, nil},
		reflect.TypeFor[corev1.Secret]():    {resources.Secrets(), referred("secrets"), func() resource.Object { return named(&corev1.Secret{Type: "x"}) }, nil},
		reflect.TypeFor[corev1.ServiceAccount](): {resources.ServiceAccounts(), referred("serviceaccounts"),
			func() resource.Object { return named(&corev1.ServiceAccount{}) }, nil},
		reflect.TypeFor[corev1.ServiceSpec](): {resources.Services(), ranged(), func() resource.Object { return service() },
			partOf(func(o *corev1.Service) *corev1.ServiceSpec { return &o.Spec })},
		reflect.TypeFor[discoveryv1.EndpointSlice](): {resources.EndpointSlices(), world{tenant: []resource.Object{outside}, super: replicas(outside)}, slice, nil},
		reflect.TypeFor[discoveryv1.Endpoint](): {resources.EndpointSlices(), world{tenant: []resource.Object{outside}, super: replicas(outside)}, slice,
			partOf(func(o *discoveryv1.EndpointSlice) *discoveryv1.Endpoint { return &o.Endpoints[0] })},
		reflect.TypeFor[corev1.PersistentVolumeClaimSpec](): {resources.PersistentVolumeClaims(), world{}, func() resource.Object { return claim() },
			partOf(func(o *corev1.PersistentVolumeClaim) *corev1.PersistentVolumeClaimSpec { return &o.Spec })},
		reflect.TypeFor[networkingv1.IngressSpec](): {resources.Ingresses(), withClasses(), func() resource.Object { return ingress() },
			partOf(func(o *networkingv1.Ingress) *networkingv1.IngressSpec { return &o.Spec })},
		reflect.TypeFor[networkingv1.NetworkPolicySpec](): {resources.NetworkPolicies(), world{}, policy,
			partOf(func(o *networkingv1.NetworkPolicy) *networkingv1.NetworkPolicySpec { return &o.Spec })},
		reflect.TypeFor[networkingv1.NetworkPolicyIngressRule](): {resources.NetworkPolicies(), world{}, policy,
			partOf(func(o *networkingv1.NetworkPolicy) *networkingv1.NetworkPolicyIngressRule { return &o.Spec.Ingress[0] })},
		reflect.TypeFor[networkingv1.NetworkPolicyEgressRule](): {resources.NetworkPolicies(), world{}, policy,
			partOf(func(o *networkingv1.NetworkPolicy) *networkingv1.NetworkPolicyEgressRule { return &o.Spec.Egress[0] })},
		reflect.TypeFor[networkingv1.NetworkPolicyPeer](): {resources.NetworkPolicies(), world{}, policy,
			partOf(func(o *networkingv1.NetworkPolicy) *networkingv1.NetworkPolicyPeer { return &o.Spec.Ingress[0].From[0] })},
		reflect.TypeFor[policyv1.PodDisruptionBudgetSpec](): {resources.PodDisruptionBudgets(), world{}, func() resource.Object {
			return named(&policyv1.PodDisruptionBudget{Spec: policyv1.PodDisruptionBudgetSpec{MinAvailable: new(intstr.FromInt32(2))}})
		}, partOf(func(o *policyv1.PodDisruptionBudget) *policyv1.PodDisruptionBudgetSpec { return &o.Spec })},
		reflect.TypeFor[resourcev1.DeviceClaim](): {resources.ResourceClaims(), withDevices(), func() resource.Object { return deviceClaim() },
			partOf(func(o *resourcev1.ResourceClaim) *resourcev1.DeviceClaim { return &o.Spec.Devices })},
		reflect.TypeFor[resourcev1.DeviceRequest](): {resources.ResourceClaims(), withDevices(), func() resource.Object { return deviceClaim() },
			partOf(func(o *resourcev1.ResourceClaim) *resourcev1.DeviceRequest { return &o.Spec.Devices.Requests[0] })},
		reflect.TypeFor[resourcev1.ExactDeviceRequest](): {resources.ResourceClaims(), withDevices(), func() resource.Object { return deviceClaim() },
			partOf(func(o *resourcev1.ResourceClaim) *resourcev1.ExactDeviceRequest {
				return o.Spec.Devices.Requests[0].Exactly
			})},
		reflect.TypeFor[resourcev1.DeviceSubRequest](): {resources.ResourceClaims(), withDevices(), func() resource.Object { return deviceClaim() },
			partOf(func(o *resourcev1.ResourceClaim) *resourcev1.DeviceSubRequest {
				return &o.Spec.Devices.Requests[1].FirstAvailable[0]
			})},
		reflect.TypeFor[corev1.PersistentVolumeSpec](): {resources.PersistentVolumes(), world{tenant: []resource.Object{claim()}, super: []resource.Object{superClaim()}}, func() resource.Object {
			return &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "x", UID: "real"}, Spec: corev1.PersistentVolumeSpec{
				ClaimRef: &corev1.ObjectReference{Namespace: names.SuperNamespace(tenantID, "shop"), Name: "data"},
			}}
		}, partOf(func(o *corev1.PersistentVolume) *corev1.PersistentVolumeSpec { return &o.Spec })},
	}
}

// Each decision is what happens, and each field has one.
func TestEveryFieldIsDecided(t *testing.T) {
	decided := map[reflect.Type]map[string]bool{}
	all := specimens()
	for _, d := range resources.Decisions() {
		if decided[d.Of] == nil {
			decided[d.Of] = map[string]bool{}
		}
		if decided[d.Of][d.Field] || d.Why == "" {
			t.Errorf("%s.%s is decided twice, or without a reason", d.Of, d.Field)
		}
		decided[d.Of][d.Field] = true
		s, ok := all[d.Of]
		if !ok {
			s, ok = specimenOf(d.Of)
		}
		if !ok {
			t.Errorf("%s needs a specimen", d.Of)
			continue
		}
		t.Run(d.Of.String()+"."+d.Field, func(t *testing.T) { s.try(t, d) })
	}
	for of := range decided {
		for field := range of.Fields() {
			if !decided[of][field.Name] {
				t.Errorf("%s.%s has no decision", of, field.Name)
			}
		}
	}
}

// try sets one field and looks at what becomes of it.
func (s specimen) try(t *testing.T, d resources.Decision) {
	t.Helper()
	if d.Field == "TypeMeta" || d.Field == "ObjectMeta" {
		return
	}
	field := func(o resource.Object) reflect.Value {
		part := any(o)
		if s.part != nil {
			part = s.part(o)
		}
		f := reflect.ValueOf(part).Elem().FieldByName(d.Field)
		if !f.IsValid() {
			t.Fatal("the field does not exist")
		}
		return f
	}
	in := s.build()
	if !set(field(in)) {
		t.Fatal("the field cannot be set to anything")
	}
	var tenant, super resource.Object = in, nil
	if s.kind.Origin == resource.Super {
		tenant, super = nil, in
	}
	ops, err := decide(t, s.kind, s.world, in.GetNamespace(), in.GetName(), tenant, super)
	if d.Action == pods.Refuse {
		if _, rejected := resource.AsReject(err); !rejected {
			t.Errorf("got %s, %v; want a rejection", encode(t, ops), err)
		}
		return
	}
	if d.Action == pods.Map {
		return // each has a test of its own
	}
	out := created[resource.Object](t, ops, err)
	got := field(out)
	switch d.Action {
	case pods.Pass:
		if !equality.Semantic.DeepEqual(field(in).Interface(), got.Interface()) {
			t.Errorf("got %v, want %v", got, field(in))
		}
	case pods.Set:
		if got.IsZero() || equality.Semantic.DeepEqual(field(in).Interface(), got.Interface()) {
			t.Errorf("got %v, want another value", got)
		}
	case pods.Drop:
		if !got.IsZero() {
			t.Errorf("got %v, want nothing", got)
		}
	case pods.Map, pods.Refuse:
	}
}

// set gives a value something that is not its zero, and says whether it could.
func set(v reflect.Value) bool {
	if v.Type() == reflect.TypeFor[intstr.IntOrString]() {
		v.Set(reflect.ValueOf(intstr.FromInt32(7)))
		return true
	}
	if v.Type() == reflect.TypeFor[runtime.RawExtension]() {
		v.Set(reflect.ValueOf(runtime.RawExtension{Raw: []byte("{}")}))
		return true
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.String:
		v.SetString("203.0.113.9") // may be an address, too
	case reflect.Int32, reflect.Int64:
		v.SetInt(7)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		set(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		set(v.Index(0))
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		if !set(key) {
			return false
		}
		set(value)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.Struct:
		found := false
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() && set(v.Field(i)) {
				found = true
			}
		}
		return found
	case reflect.Uint8:
		v.SetUint(7)
	default:
		return false
	}
	return true
}
