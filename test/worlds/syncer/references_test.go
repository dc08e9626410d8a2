package syncer_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resources/pods"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

// operators makes an object of the operator in a super namespace.
func (r *running) operators(t *testing.T, of tenant, namespace, name string, o client.Object) {
	t.Helper()
	o.SetNamespace(of.super(namespace))
	o.SetName(name)
	if err := r.client.Create(t.Context(), o); err != nil {
		t.Fatal(err)
	}
}

// noSuperPod waits a moment for a super pod that there must not be.
func (r *running) noSuperPod(t *testing.T, of tenant, namespace, name string) {
	t.Helper()
	worlds.Throughout(t, time.Second, "no super pod "+name, func(ctx context.Context) error {
		return gone(r.client.Get(ctx, client.ObjectKey{Namespace: of.super(namespace), Name: name}, &corev1.Pod{}))
	})
}

// told waits for an event that names something.
func told(t *testing.T, of tenant, namespace, about, reason, text string) {
	t.Helper()
	worlds.Eventually(t, limit, fmt.Sprintf("event %s about %s that names %s", reason, about, text), func(ctx context.Context) error {
		list, err := of.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		var seen []string
		for _, e := range list.Items {
			if e.InvolvedObject.Name == about && e.Reason == reason && strings.Contains(e.Message, text) {
				return nil
			}
			seen = append(seen, e.InvolvedObject.Name+" "+e.Reason+": "+e.Message)
		}
		return fmt.Errorf("events are %q", seen)
	})
}

// A Secret or ConfigMap of the operator is never mounted, also by an optional reference, which a kubelet resolves whenever it
// can; nor are the tokens of another pod.
func TestOptionalReferencesNeverReachTheOperators(t *testing.T) {
	const ns, shared = "ref-optional", "shared"
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, ns)
	r.operators(t, of, ns, shared, &corev1.Secret{StringData: map[string]string{"k": "operators"}})
	r.operators(t, of, ns, shared, &corev1.ConfigMap{Data: map[string]string{"k": "operators"}})
	holder := worlds.Pod(ns, "holder")
	holder.Spec.Volumes = []corev1.Volume{{Name: "token", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}}},
	}}}}
	tokens := pods.TokenSecret(of.world.MakePod(t, holder))
	r.kubelet(t, r.superPod(t, of, ns, "holder"), "node-ref-optional", "10.9.8.1")
	worlds.Eventually(t, limit, "the tokens of a pod", func(ctx context.Context) error {
		return r.client.Get(ctx, client.ObjectKey{Namespace: of.super(ns), Name: tokens}, &corev1.Secret{})
	})

	yes := true
	pod := worlds.Pod(ns, "p")
	pod.Spec.Volumes = []corev1.Volume{
		{Name: "s", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: shared, Optional: &yes}}},
		{Name: "t", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: tokens, Optional: &yes}}},
		{Name: "c", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: shared}, Optional: &yes,
		}}},
	}
	of.world.MakePod(t, pod)
	super := r.superPod(t, of, ns, "p")
	for i, want := range []string{names.SuperSecret(shared), names.SuperSecret(tokens), names.SuperConfigMap(shared)} {
		volume := super.Spec.Volumes[i]
		var got string
		if volume.Secret != nil {
			got = volume.Secret.SecretName
		} else {
			got = volume.ConfigMap.Name
		}
		if got != want {
			t.Errorf("volume %s is %q, want %q", volume.Name, got, want)
		}
	}
	mine := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: shared}, StringData: map[string]string{"k": "mine"}}
	if _, err := of.CoreV1().Secrets(ns).Create(t.Context(), mine, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	worlds.Eventually(t, limit, "the tenant's Secret beside the operator's", func(ctx context.Context) error {
		for name, want := range map[string]string{shared: "operators", names.SuperSecret(shared): "mine"} {
			var s corev1.Secret
			if err := r.client.Get(ctx, client.ObjectKey{Namespace: of.super(ns), Name: name}, &s); err != nil {
				return err
			}
			if string(s.Data["k"]) != want {
				return fmt.Errorf("%s has %q", name, s.Data["k"])
			}
		}
		return nil
	})
}

// A pod mounts its tenant's claim or waits for it, and says what it waits for.
func TestClaimsOfTheOperatorAreNotMounted(t *testing.T) {
	const ns = "ref-claims"
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, ns)
	class := "none"
	claim := func() *corev1.PersistentVolumeClaim {
		return &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: &class,
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: apiresource.MustParse("1Gi")}},
		}}
	}
	theirs := claim()
	r.operators(t, of, ns, "data", theirs)
	pod := worlds.Pod(ns, "p")
	pod.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"},
	}}}
	of.world.MakePod(t, pod)
	told(t, of, ns, "p", "FailedScheduling", `persistentvolumeclaim "data" not found`)
	worlds.Eventually(t, limit, "the condition of the pod", func(ctx context.Context) error {
		now, err := of.CoreV1().Pods(ns).Get(ctx, "p", metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range now.Status.Conditions {
			if c.Type == corev1.PodScheduled && c.Reason == corev1.PodReasonUnschedulable && c.Message == `persistentvolumeclaim "data" not found` {
				return nil
			}
		}
		return fmt.Errorf("conditions are %+v", now.Status.Conditions)
	})
	own := claim()
	own.Name = "data"
	if _, err := of.CoreV1().PersistentVolumeClaims(ns).Create(t.Context(), own, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	clone := claim()
	clone.Name, clone.Spec.DataSource = "clone", &corev1.TypedLocalObjectReference{Kind: "PersistentVolumeClaim", Name: "data"}
	if _, err := of.CoreV1().PersistentVolumeClaims(ns).Create(t.Context(), clone, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	told(t, of, ns, "data", "NameTaken", "data")
	told(t, of, ns, "p", "Waiting", `persistentvolumeclaim "data"`)
	told(t, of, ns, "clone", "DataSourceNotFound", `PersistentVolumeClaim "data"`)
	r.noSuperPod(t, of, ns, "p")
	if err := gone(r.client.Get(t.Context(), client.ObjectKey{Namespace: of.super(ns), Name: "clone"}, &corev1.PersistentVolumeClaim{})); err != nil {
		t.Errorf("a clone of the operator's claim: %v", err)
	}

	if err := r.client.Delete(t.Context(), theirs); err != nil {
		t.Fatal(err)
	}
	r.superPod(t, of, ns, "p")
	for _, name := range []string{"data", "clone"} {
		worlds.Eventually(t, limit, "the replica of claim "+name, func(ctx context.Context) error {
			var super corev1.PersistentVolumeClaim
			if err := r.client.Get(ctx, client.ObjectKey{Namespace: of.super(ns), Name: name}, &super); err != nil {
				return err
			}
			if super.Annotations[names.AnnotationUID] == "" {
				return errors.New("it is the operator's")
			}
			return nil
		})
	}
}

// A pod runs as its tenant's account or waits for it, and says so.
func TestAccountsOfTheOperatorAreNotUsed(t *testing.T) {
	const ns = "ref-accounts"
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, ns)
	theirs := &corev1.ServiceAccount{Secrets: []corev1.ObjectReference{{Name: "cloud-credentials"}}}
	r.operators(t, of, ns, "robot", theirs)
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "robot"}}
	if _, err := of.CoreV1().ServiceAccounts(ns).Create(t.Context(), account, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pod := worlds.Pod(ns, "p")
	pod.Spec.ServiceAccountName = "robot"
	of.world.MakePod(t, pod)
	told(t, of, ns, "robot", "NameTaken", "robot")
	told(t, of, ns, "p", "Waiting", `serviceaccount "robot"`)
	r.noSuperPod(t, of, ns, "p")
	if err := r.client.Delete(t.Context(), theirs); err != nil {
		t.Fatal(err)
	}
	r.superPod(t, of, ns, "p")
}

// An Ingress and an EndpointSlice belong to Services of the tenant only.
func TestServicesOfTheOperatorAreNotReached(t *testing.T) {
	const ns, class = "ref-services", "ref-services"
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, ns)
	r.ingressClass(t, of, class)
	theirs := worlds.Service("", "")
	theirs.Spec.Selector = nil
	r.operators(t, of, ns, "web", theirs)
	name := class
	_, err := of.NetworkingV1().Ingresses(ns).Create(t.Context(), &networkingv1.Ingress{
		ObjectMeta: metav1.ObjectMeta{Name: "i"}, Spec: networkingv1.IngressSpec{IngressClassName: &name, DefaultBackend: backend("web", 80)},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	leadsTo := func(want string) {
		t.Helper()
		worlds.Eventually(t, limit, "the Ingress to lead to "+want, func(ctx context.Context) error {
			var super networkingv1.Ingress
			if err := r.client.Get(ctx, client.ObjectKey{Namespace: of.super(ns), Name: "i"}, &super); err != nil {
				return err
			}
			if got := super.Spec.DefaultBackend.Service.Name; got != want {
				return fmt.Errorf("it leads to %s", got)
			}
			return nil
		})
	}
	leadsTo(names.AbsentService("web"))
	told(t, of, ns, "i", "BackendNotFound", `Service "web", which does not exist`)

	outside := worlds.Service(ns, "web")
	outside.Spec.Selector = nil
	if _, err := of.CoreV1().Services(ns).Create(t.Context(), outside, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: "web-1", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
		AddressType: discoveryv1.AddressTypeIPv4, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"203.0.113.9"}}},
	}
	if _, err := of.DiscoveryV1().EndpointSlices(ns).Create(t.Context(), slice, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	told(t, of, ns, "web", "NameTaken", "web")
	told(t, of, ns, "i", "BackendNotFound", `Service "web", which the underlying cluster does not have yet`)
	told(t, of, ns, "web-1", "Waiting", `Service "web"`)
	leadsTo(names.AbsentService("web"))
	superSlice := client.ObjectKey{Namespace: of.super(ns), Name: "web-1"}
	if err := gone(r.client.Get(t.Context(), superSlice, &discoveryv1.EndpointSlice{})); err != nil {
		t.Errorf("endpoints of the operator's Service: %v", err)
	}

	if err := r.client.Delete(t.Context(), theirs); err != nil {
		t.Fatal(err)
	}
	leadsTo("web")
	worlds.Eventually(t, limit, "the endpoints of the tenant's Service", func(ctx context.Context) error {
		return r.client.Get(ctx, superSlice, &discoveryv1.EndpointSlice{})
	})
}
