package resources_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	resourcev1 "k8s.io/api/resource/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/resources"
)

// class is the metadata of a class of the super cluster.
func class(name, public string, annotations map[string]string) metav1.ObjectMeta {
	m := metav1.ObjectMeta{Name: name, UID: "real", Labels: map[string]string{"operator": "x"}, Annotations: annotations}
	if public != "" {
		m.Labels[names.LabelPublic] = public
	}
	return m
}

// offeredMeta is the metadata of a tenant's replica of a class.
func offeredMeta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Labels: map[string]string{}, Annotations: map[string]string{names.AnnotationUID: "real"}}
}

func TestIngressClasses(t *testing.T) {
	namespace := "operators"
	in := func(public string) *networkingv1.IngressClass {
		return &networkingv1.IngressClass{
			ObjectMeta: class("nginx", public, map[string]string{"ingressclass.kubernetes.io/is-default-class": "true", "note": "x"}),
			Spec: networkingv1.IngressClassSpec{Controller: "k8s.io/ingress-nginx", Parameters: &networkingv1.IngressClassParametersReference{
				Kind: "Config", Name: "c", Namespace: &namespace,
			}},
		}
	}
	want := &networkingv1.IngressClass{ObjectMeta: offeredMeta("nginx"), Spec: networkingv1.IngressClassSpec{Controller: "k8s.io/ingress-nginx"}}
	want.Annotations["ingressclass.kubernetes.io/is-default-class"] = "true"
	want.Annotations[names.AnnotationKeys] = "a:ingressclass.kubernetes.io/is-default-class"
	testClass(t, resources.IngressClasses(), want, map[string]*networkingv1.IngressClass{"": in(""), "true": in("true"), "false": in("false")}, true)
}

func TestRuntimeClasses(t *testing.T) {
	spec := nodev1.RuntimeClass{
		Handler:    "kata",
		Overhead:   &nodev1.Overhead{PodFixed: corev1.ResourceList{}},
		Scheduling: &nodev1.Scheduling{NodeSelector: map[string]string{"kata": "true"}},
	}
	in := func(public string) *nodev1.RuntimeClass {
		out := spec.DeepCopy()
		out.ObjectMeta = class("kata", public, map[string]string{"note": "x"})
		return out
	}
	want := spec.DeepCopy()
	want.ObjectMeta = offeredMeta("kata")
	testClass(t, resources.RuntimeClasses(), want, map[string]*nodev1.RuntimeClass{"": in(""), "true": in("true"), "false": in("false")}, true)
}

func TestDeviceClasses(t *testing.T) {
	name := "example.com/gpu"
	spec := resourcev1.DeviceClassSpec{
		ExtendedResourceName: &name,
		Selectors:            []resourcev1.DeviceSelector{{CEL: &resourcev1.CELDeviceSelector{Expression: `device.driver == "gpu.example.com"`}}},
	}
	in := func(public string) *resourcev1.DeviceClass {
		out := &resourcev1.DeviceClass{ObjectMeta: class("gpu", public, map[string]string{"note": "x"}), Spec: *spec.DeepCopy()}
		out.Spec.Config = []resourcev1.DeviceClassConfiguration{{}}
		return out
	}
	want := &resourcev1.DeviceClass{ObjectMeta: offeredMeta("gpu"), Spec: spec}
	testClass(t, resources.DeviceClasses(), want, map[string]*resourcev1.DeviceClass{"": in(""), "true": in("true"), "false": in("false")}, true)
}

func TestPriorityClasses(t *testing.T) {
	never := corev1.PreemptNever
	in := func(public string) *schedulingv1.PriorityClass {
		return &schedulingv1.PriorityClass{
			ObjectMeta: class("high", public, map[string]string{"note": "x"}),
			Value:      1000, GlobalDefault: true, Description: "for shops", PreemptionPolicy: &never,
		}
	}
	want := &schedulingv1.PriorityClass{ObjectMeta: offeredMeta("high"), Value: 1000, Description: "for shops", PreemptionPolicy: &never}
	testClass(t, resources.PriorityClasses(), want, map[string]*schedulingv1.PriorityClass{"": in(""), "true": in("true"), "false": in("false")}, false)

	// Those of the system are each cluster's own, whatever their labels say.
	system := in("true")
	system.Name = "system-node-critical"
	own := &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: system.Name}}
	for _, tenant := range []resource.Object{nil, own} {
		if ops, err := decide(t, resources.PriorityClasses(), world{}, "", system.Name, tenant, system); len(ops) > 0 || err != nil {
			t.Errorf("a class of the system: %s, %v", encode(t, ops), err)
		}
	}
}

// testClass tests what all offered classes have in common. The classes of the super cluster are given by the label that
// offers them.
func testClass[T resource.Object](t *testing.T, k resource.Kind, want T, super map[string]T, byDefault bool) {
	t.Helper()
	var none resource.Object
	replica, ok := want.DeepCopyObject().(T)
	if !ok {
		t.Fatalf("copying %T", want)
	}
	replica.SetUID("replica")
	for public, in := range super {
		offered := public == "true" || public == "" && byDefault
		ops, err := decide(t, k, world{}, "", want.GetName(), none, in)
		if !offered {
			if len(ops) > 0 || err != nil {
				t.Errorf("public %q: %s, %v", public, encode(t, ops), err)
			}
			if ops, err = decide(t, k, world{}, "", want.GetName(), replica, in); err != nil || len(ops) != 1 || ops[0].Verb != resource.Delete || ops[0].Side != resource.Tenant {
				t.Errorf("not offered any more: %s, %v", encode(t, ops), err)
			}
			continue
		}
		if diff := cmp.Diff(want, created[T](t, ops, err)); diff != "" {
			t.Errorf("public %q: -want +got\n%s", public, diff)
		}
		if ops, err = decide(t, k, world{}, "", want.GetName(), replica, in); len(ops) > 0 || err != nil {
			t.Errorf("in sync: %s, %v", encode(t, ops), err)
		}
		if ops, err = decide(t, k, world{facts: resource.Facts{Disabled: []string{k.Name}}}, "", want.GetName(), replica, in); err != nil || len(ops) != 1 || ops[0].Verb != resource.Delete {
			t.Errorf("switched off: %s, %v", encode(t, ops), err)
		}
	}
	// A class of the tenant's own is told only when it is in the way.
	own := k.New()
	own.SetName(want.GetName())
	if ops, err := decide(t, k, world{}, "", want.GetName(), own, super["false"]); len(ops) > 0 || err != nil {
		t.Errorf("the tenant's own beside a hidden one: %s, %v", encode(t, ops), err)
	}
	ops, err := decide(t, k, world{}, "", want.GetName(), own, super["true"])
	rejectedWith(t, ops, err, "NameTaken")
}
