package syncer_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/internal/iprange"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer"
	"github.com/virtualcluster-io/virtualcluster/syncer/engine"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

// gone turns the result of a read into nil when the object does not exist.
func gone(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err == nil {
		return fmt.Errorf("it still exists")
	}
	return err
}

// namespace makes a tenant namespace and waits for its super namespace.
func (r *running) namespace(t *testing.T, of tenant, name string) {
	t.Helper()
	of.world.MakeNamespace(t, name)
	worlds.Eventually(t, limit, "super namespace of "+name, func(ctx context.Context) error {
		return r.client.Get(ctx, client.ObjectKey{Name: of.super(name)}, &corev1.Namespace{})
	})
}

// usingPod makes a tenant pod that mounts a ConfigMap and a Secret.
func usingPod(t *testing.T, of tenant, namespace, name, configMap, secret string) *corev1.Pod {
	t.Helper()
	pod := worlds.Pod(namespace, name)
	if configMap != "" {
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: "c", VolumeSource: corev1.VolumeSource{
			ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: configMap}},
		}})
	}
	if secret != "" {
		pod.Spec.Containers[0].EnvFrom = append(pod.Spec.Containers[0].EnvFrom, corev1.EnvFromSource{
			SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: secret}},
		})
	}
	return of.world.MakePod(t, pod)
}

func (r *running) superPod(t *testing.T, of tenant, namespace, name string) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{}
	worlds.Eventually(t, limit, "super pod of "+namespace+"/"+name, func(ctx context.Context) error {
		return r.client.Get(ctx, client.ObjectKey{Namespace: of.super(namespace), Name: name}, pod)
	})
	return pod
}

// kubelet plays scheduler and kubelet for a super pod.
func (r *running) kubelet(t *testing.T, pod *corev1.Pod, node, ip string) {
	t.Helper()
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}}
	if err := r.client.Create(t.Context(), n); client.IgnoreAlreadyExists(err) != nil {
		t.Fatal(err)
	}
	err := r.worlds.Super.Client.CoreV1().Pods(pod.Namespace).Bind(t.Context(), &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name},
		Target:     corev1.ObjectReference{Kind: "Node", Name: node},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	now := metav1.Now()
	status := map[string]any{"status": corev1.PodStatus{
		Phase: corev1.PodRunning, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}}, HostIP: "192.0.2.7", StartTime: &now,
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: now}},
		ContainerStatuses: []corev1.ContainerStatus{{
			Name: pod.Spec.Containers[0].Name, Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
			Resources: &pod.Spec.Containers[0].Resources,
		}},
	}}
	body, err := json.Marshal(status)
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.worlds.Super.Client.CoreV1().Pods(pod.Namespace).Patch(t.Context(), pod.Name, types.StrategicMergePatchType, body, metav1.PatchOptions{}, "status")
	if err != nil {
		t.Fatal(err)
	}
}

// rootNamespace makes the root namespace of a tenant, with a Pod Security level, until the test ends.
func (r *running) rootNamespace(t *testing.T, of tenant, level string) *corev1.Namespace {
	t.Helper()
	vc := vcOf(of)
	if err := r.client.Get(t.Context(), of.vc, vc); err != nil {
		t.Fatal(err)
	}
	root := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name:   string(of.id),
		Labels: map[string]string{names.LabelRoot: "true", names.LabelPodSecurity: level},
		Annotations: map[string]string{
			names.AnnotationVirtualCluster: of.vc.String(), names.AnnotationVirtualClusterUID: string(vc.UID),
		},
	}}
	r.make(t, root)
	return root
}

// awaitPodSecurity waits until a level is in force in a namespace.
func (r *running) awaitPodSecurity(t *testing.T, of tenant, namespace, want string) {
	t.Helper()
	worlds.Eventually(t, limit, "Pod Security level "+want, func(ctx context.Context) error {
		var super corev1.Namespace
		if err := r.client.Get(ctx, client.ObjectKey{Name: of.super(namespace)}, &super); err != nil {
			return err
		}
		if got := super.Labels["pod-security.kubernetes.io/enforce"]; got != want {
			return fmt.Errorf("it is %s", got)
		}
		return nil
	})
}

// The admin sets a tenant's Pod Security level on its root namespace, which no tenant can write.
func TestPodSecurityLevelOfATenant(t *testing.T) {
	r := start(t)
	of := r.tenants[0]
	root := r.rootNamespace(t, of, "privileged")
	r.namespace(t, of, "ns-level")
	level := func(want string) {
		t.Helper()
		r.awaitPodSecurity(t, of, "ns-level", want)
	}
	level("privileged")
	pod := worlds.Pod("ns-level", "privileged")
	pod.Spec.HostNetwork = true
	of.world.MakePod(t, pod)
	worlds.Eventually(t, limit, "replica in the network of the node", func(ctx context.Context) error {
		var super corev1.Pod
		if err := r.client.Get(ctx, client.ObjectKey{Namespace: of.super("ns-level"), Name: "privileged"}, &super); err != nil {
			return err
		}
		if !super.Spec.HostNetwork {
			return fmt.Errorf("it has a network of its own")
		}
		return nil
	})
	for _, set := range []struct{ value, want string }{{"restricted", "restricted"}, {"anything", "baseline"}} {
		root.Labels[names.LabelPodSecurity] = set.value
		if err := r.client.Update(t.Context(), root); err != nil {
			t.Fatal(err)
		}
		level(set.want)
	}
}

func TestNamespaces(t *testing.T) {
	r := start(t)
	for _, of := range r.tenants {
		ns, err := of.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
			Name: "ns-basic", Labels: map[string]string{"pod-security.kubernetes.io/enforce": "privileged", "team": "x"},
		}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		super := &corev1.Namespace{}
		worlds.Eventually(t, limit, "super namespace", func(ctx context.Context) error {
			return r.client.Get(ctx, client.ObjectKey{Name: of.super("ns-basic")}, super)
		})
		want := map[string]string{
			names.LabelTenant: string(of.id), names.LabelManagedBy: names.Syncer,
			"pod-security.kubernetes.io/enforce": "baseline", corev1.LabelMetadataName: super.Name,
		}
		if diff := cmp.Diff(want, super.Labels); diff != "" {
			t.Errorf("labels: -want +got\n%s", diff)
		}
		if super.Annotations[names.AnnotationUID] != string(ns.UID) {
			t.Errorf("annotations are %v", super.Annotations)
		}
		rights := func(ctx context.Context) error {
			_, err := w.Super.Client.RbacV1().RoleBindings(super.Name).Get(ctx, "vn-agent-streams", metav1.GetOptions{})
			return err
		}
		worlds.Eventually(t, limit, "rights of vn-agent", rights)
		if err := w.Super.Client.RbacV1().RoleBindings(super.Name).Delete(t.Context(), "vn-agent-streams", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		worlds.Eventually(t, limit, "rights of vn-agent, restored", rights)
		if err := of.CoreV1().Namespaces().Delete(t.Context(), "ns-basic", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		worlds.Eventually(t, limit, "super namespace to go", func(ctx context.Context) error {
			return gone(r.client.Get(ctx, client.ObjectKeyFromObject(super), &corev1.Namespace{}))
		})
	}
}

func TestConfigMapsFollowTheirUse(t *testing.T) {
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, "cm-use")
	if _, err := of.CoreV1().ConfigMaps("cm-use").Create(t.Context(), worlds.ConfigMap("cm-use", "conf", map[string]string{"a": "1"}), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	key := client.ObjectKey{Namespace: of.super("cm-use"), Name: names.SuperConfigMap("conf")}
	worlds.Throughout(t, time.Second, "an unused ConfigMap stays where it is", func(ctx context.Context) error {
		return gone(r.client.Get(ctx, key, &corev1.ConfigMap{}))
	})
	usingPod(t, of, "cm-use", "p", "conf", "")
	content := func(want map[string]string) func(context.Context) error {
		return func(ctx context.Context) error {
			got := &corev1.ConfigMap{}
			if err := r.client.Get(ctx, key, got); err != nil {
				return err
			}
			if !maps.Equal(got.Data, want) {
				return fmt.Errorf("data is %v", got.Data)
			}
			return nil
		}
	}
	worlds.Eventually(t, limit, "the ConfigMap that a pod uses", content(map[string]string{"a": "1"}))

	zero := int64(0)
	if err := of.CoreV1().Pods("cm-use").Delete(t.Context(), "p", metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
		t.Fatal(err)
	}
	worlds.Eventually(t, limit, "the ConfigMap to go with its last user", func(ctx context.Context) error {
		return gone(r.client.Get(ctx, key, &corev1.ConfigMap{}))
	})
}

// waitForEvent waits for an event about a tenant object and checks that nothing of the super cluster shows in it.
func waitForEvent(t *testing.T, of tenant, namespace, about, reason string) corev1.Event {
	t.Helper()
	var found corev1.Event
	worlds.Eventually(t, limit, "event "+reason+" about "+about, func(ctx context.Context) error {
		list, err := of.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, e := range list.Items {
			if e.InvolvedObject.Name == about && e.Reason == reason {
				found = e
				return nil
			}
		}
		return fmt.Errorf("events are %v", list.Items)
	})
	if strings.Contains(found.Message, of.super(namespace)) || strings.Contains(found.Message, string(of.id)) {
		t.Errorf("the message shows names of the super cluster: %s", found.Message)
	}
	return found
}

func TestServicesHaveTheSameAddressOnBothSides(t *testing.T) {
	r := start(t)
	for _, of := range r.tenants {
		r.namespace(t, of, "svc-same")
		made, err := of.CoreV1().Services("svc-same").Create(t.Context(), worlds.Service("svc-same", "web"), metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		super := &corev1.Service{}
		worlds.Eventually(t, limit, "super service", func(ctx context.Context) error {
			return r.client.Get(ctx, client.ObjectKey{Namespace: of.super("svc-same"), Name: "web"}, super)
		})
		if super.Spec.ClusterIP != made.Spec.ClusterIP {
			t.Errorf("the tenant sees %s, the super cluster has %s", made.Spec.ClusterIP, super.Spec.ClusterIP)
		}
		// The API server of the tenant is reached by the same two objects as any other selector-less service.
		worlds.Eventually(t, limit, "service kubernetes", func(ctx context.Context) error {
			api, err := of.CoreV1().Services("default").Get(ctx, "kubernetes", metav1.GetOptions{})
			if err != nil {
				return err
			}
			if err := r.client.Get(ctx, client.ObjectKey{Namespace: of.super("default"), Name: "kubernetes"}, super); err != nil {
				return err
			}
			if super.Spec.ClusterIP != api.Spec.ClusterIP {
				return fmt.Errorf("the tenant sees %s, the super cluster has %s", api.Spec.ClusterIP, super.Spec.ClusterIP)
			}
			return nil
		})
	}
}

// take gives a cluster IP to a Service of the super cluster until the test ends.
func (r *running) take(t *testing.T, ip string) {
	t.Helper()
	thief := worlds.Service("default", "thief")
	thief.Spec.ClusterIP = ip
	if err := r.client.Create(t.Context(), thief); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.client.Delete(context.Background(), thief); err != nil { // the test's context has ended
			t.Error(err)
		}
	})
}

func TestServiceGetsAnotherAddressWhenItsOwnIsTaken(t *testing.T) {
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, "svc-taken")
	wanted := iprange.Nth(of.world.ServiceRanges.Primary(), 77).String()
	r.take(t, wanted)
	service := worlds.Service("svc-taken", "web")
	service.Spec.ClusterIP = wanted
	made, err := of.CoreV1().Services("svc-taken").Create(t.Context(), service, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	worlds.Eventually(t, limit, "another address", func(ctx context.Context) error {
		now, err := of.CoreV1().Services("svc-taken").Get(ctx, "web", metav1.GetOptions{})
		if err != nil {
			return err
		}
		super := &corev1.Service{}
		if err := r.client.Get(ctx, client.ObjectKey{Namespace: of.super("svc-taken"), Name: "web"}, super); err != nil {
			return err
		}
		if now.Spec.ClusterIP == wanted || now.Spec.ClusterIP != super.Spec.ClusterIP || now.Spec.Type != corev1.ServiceTypeClusterIP {
			return fmt.Errorf("type %s, address %s, in the super cluster %s", now.Spec.Type, now.Spec.ClusterIP, super.Spec.ClusterIP)
		}
		if now.UID != made.UID || now.Annotations[names.AnnotationReaddress] != "" {
			return fmt.Errorf("it was replaced or still carries the note: %v", now.ObjectMeta)
		}
		return nil
	})
	waitForEvent(t, of, "svc-taken", "web", "ClusterIPChanged")
}

// Node ports are the super cluster's: of two tenants with the same wish one gets another port, and both see what they have.
func TestNodePortsAreTheSameOnBothSides(t *testing.T) {
	r := start(t)
	const wanted = 30777
	port := func(ctx context.Context, of tenant) (int32, error) {
		now, err := of.CoreV1().Services("svc-port").Get(ctx, "web", metav1.GetOptions{})
		if err != nil {
			return 0, err
		}
		var super corev1.Service
		if err := r.client.Get(ctx, client.ObjectKey{Namespace: of.super("svc-port"), Name: "web"}, &super); err != nil {
			return 0, err
		}
		got := now.Spec.Ports[0].NodePort
		if got == 0 || got != super.Spec.Ports[0].NodePort || now.Spec.Type != corev1.ServiceTypeNodePort {
			return 0, fmt.Errorf("type %s, port %d, in the super cluster %d", now.Spec.Type, got, super.Spec.Ports[0].NodePort)
		}
		return got, nil
	}
	var ports [2]int32
	for i, of := range r.tenants[:2] {
		r.namespace(t, of, "svc-port")
		service := worlds.Service("svc-port", "web")
		service.Spec.Type, service.Spec.Ports[0].NodePort = corev1.ServiceTypeNodePort, wanted
		if _, err := of.CoreV1().Services("svc-port").Create(t.Context(), service, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		worlds.Eventually(t, limit, "the same node port on both sides", func(ctx context.Context) (err error) {
			ports[i], err = port(ctx, of)
			return err
		})
	}
	if ports[0] != wanted || ports[1] == wanted {
		t.Errorf("the ports are %v; the first should have had its wish, %d", ports, wanted)
	}
	waitForEvent(t, r.tenants[1], "svc-port", "web", "NodePortChanged")
}

func TestEndpointSlicesOfServicesWithoutSelector(t *testing.T) {
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, "slices")
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-slices"}, Status: corev1.NodeStatus{
		Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.200"}},
	}}
	if err := r.client.Create(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	worlds.Eventually(t, limit, "the virtual node", func(ctx context.Context) error {
		_, err := of.CoreV1().Nodes().Get(ctx, node.Name, metav1.GetOptions{})
		return err
	})
	service := worlds.Service("slices", "outside")
	service.Spec.Selector = nil
	if _, err := of.CoreV1().Services("slices").Create(t.Context(), service, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	slice := func(name, service, address string) *discoveryv1.EndpointSlice {
		port, protocol := int32(80), corev1.ProtocolTCP
		return &discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Namespace: "slices", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: service}},
			AddressType: discoveryv1.AddressTypeIPv4,
			Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{address}}},
			Ports:       []discoveryv1.EndpointPort{{Port: &port, Protocol: &protocol}},
		}
	}
	for _, s := range []*discoveryv1.EndpointSlice{slice("good", "outside", "203.0.113.9"), slice("bad", "outside", "192.0.2.200")} {
		if _, err := of.DiscoveryV1().EndpointSlices("slices").Create(t.Context(), s, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	worlds.Eventually(t, limit, "the slice", func(ctx context.Context) error {
		got := &discoveryv1.EndpointSlice{}
		if err := r.client.Get(ctx, client.ObjectKey{Namespace: of.super("slices"), Name: "good"}, got); err != nil {
			return err
		}
		if got.Endpoints[0].Addresses[0] != "203.0.113.9" || got.Labels[discoveryv1.LabelServiceName] != "outside" {
			return fmt.Errorf("slice is %v", got)
		}
		return nil
	})
	waitForEvent(t, of, "slices", "bad", "EndpointForbidden")
	bad := &discoveryv1.EndpointSlice{}
	if err := r.client.Get(t.Context(), client.ObjectKey{Namespace: of.super("slices"), Name: "bad"}, bad); err != nil || len(bad.Endpoints) > 0 {
		t.Errorf("the forbidden slice: %v, %v", err, bad.Endpoints)
	}
	patch := []byte(`{"spec":{"type":"ExternalName","externalName":"example.com","clusterIP":null,"clusterIPs":null}}`)
	if _, err := of.CoreV1().Services("slices").Patch(t.Context(), "outside", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	worlds.Eventually(t, limit, "the slice to go when the service has no endpoints", func(ctx context.Context) error {
		return gone(r.client.Get(ctx, client.ObjectKey{Namespace: of.super("slices"), Name: "good"}, &discoveryv1.EndpointSlice{}))
	})
}

func TestPodRunsAndReports(t *testing.T) {
	r := start(t)
	for _, of := range r.tenants {
		r.namespace(t, of, "pod-run")
		if _, err := of.CoreV1().Secrets("pod-run").Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}, StringData: map[string]string{"k": "v"}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		made := usingPod(t, of, "pod-run", "p", "", "s")
		super := r.superPod(t, of, "pod-run", "p")
		if super.Annotations[names.AnnotationUID] != string(made.UID) {
			t.Errorf("annotations are %v", super.Annotations)
		}
		worlds.Eventually(t, limit, "the Secret that the pod uses", func(ctx context.Context) error {
			return r.client.Get(ctx, client.ObjectKey{Namespace: of.super("pod-run"), Name: names.SuperSecret("s")}, &corev1.Secret{})
		})
		ip := "10.9.0." + of.world.Name[len("tenant-"):]
		r.kubelet(t, super, "node-"+of.world.Name, ip)
		worlds.Eventually(t, limit, "the pod to run in the tenant", func(ctx context.Context) error {
			now, err := of.CoreV1().Pods("pod-run").Get(ctx, "p", metav1.GetOptions{})
			if err != nil {
				return err
			}
			if now.Spec.NodeName != "node-"+of.world.Name || now.Status.Phase != corev1.PodRunning || now.Status.PodIP != ip {
				return fmt.Errorf("node %q, phase %s, IP %q", now.Spec.NodeName, now.Status.Phase, now.Status.PodIP)
			}
			return nil
		})
		if _, err := of.CoreV1().Nodes().Get(t.Context(), "node-"+of.world.Name, metav1.GetOptions{}); err != nil {
			t.Errorf("the node that the pod runs on: %v", err)
		}
	}
}

// Invariant of DESIGN 6: a tenant pod never holds a credential of the super cluster.
func TestPodsHoldTokensOfTheTenant(t *testing.T) {
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, "tokens")
	mounted := worlds.Pod("tokens", "mounted")
	seconds := int64(1200)
	mounted.Spec.Volumes = []corev1.Volume{{Name: "t", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: &seconds}}},
	}}}}
	made := of.world.MakePod(t, mounted)
	super := r.superPod(t, of, "tokens", "mounted")
	raw, err := json.Marshal(super.Spec)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(raw), "serviceAccountToken\"") {
		t.Errorf("the super cluster would mint a token of its own: %s", raw)
	}
	r.kubelet(t, super, "node-tokens", "10.9.5.1")
	var token string
	worlds.Eventually(t, limit, "the token", func(ctx context.Context) error {
		var list corev1.SecretList
		if err := r.client.List(ctx, &list, client.InNamespace(of.super("tokens"))); err != nil {
			return err
		}
		for _, s := range list.Items {
			if s.Annotations[names.AnnotationUID] == string(made.UID) && s.Annotations[names.AnnotationTokenExpiry] != "" {
				for _, v := range s.Data {
					token = string(v)
				}
				return nil
			}
		}
		return fmt.Errorf("%d secrets, none with a token", len(list.Items))
	})
	review, err := of.AuthenticationV1().TokenReviews().Create(t.Context(), &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !review.Status.Authenticated || review.Status.User.Username != "system:serviceaccount:tokens:default" ||
		review.Status.User.Extra["authentication.kubernetes.io/pod-uid"][0] != string(made.UID) ||
		!slices.Equal(review.Status.User.Extra["authentication.kubernetes.io/node-name"], []string{"node-tokens"}) {
		t.Errorf("the tenant says of the token: %+v", review.Status)
	}
	inSuper, err := w.Super.Client.AuthenticationV1().TokenReviews().Create(t.Context(), &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if inSuper.Status.Authenticated {
		t.Error("the super cluster accepts a tenant's token")
	}
}

func TestPodDeletion(t *testing.T) {
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, "pod-del")
	key := func(name string) client.ObjectKey {
		return client.ObjectKey{Namespace: of.super("pod-del"), Name: name}
	}
	runPod := func(name string) {
		of.world.MakePod(t, worlds.Pod("pod-del", name))
		r.kubelet(t, r.superPod(t, of, "pod-del", name), "node-del", "10.9.1.1")
		worlds.Eventually(t, limit, "the pod to run", func(ctx context.Context) error {
			now, err := of.CoreV1().Pods("pod-del").Get(ctx, name, metav1.GetOptions{})
			if err == nil && now.Status.Phase != corev1.PodRunning {
				err = fmt.Errorf("phase is %s", now.Status.Phase)
			}
			return err
		})
	}
	tenantGone := func(name string) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := of.CoreV1().Pods("pod-del").Get(ctx, name, metav1.GetOptions{})
			return gone(err)
		}
	}
	zero := int64(0)

	runPod("by-tenant")
	if err := of.CoreV1().Pods("pod-del").Delete(t.Context(), "by-tenant", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	worlds.Eventually(t, limit, "the super pod to be told", func(ctx context.Context) error {
		super := &corev1.Pod{}
		if err := r.client.Get(ctx, key("by-tenant"), super); err != nil {
			return err
		}
		if super.DeletionTimestamp == nil || *super.DeletionGracePeriodSeconds != 30 {
			return fmt.Errorf("deletion %v, grace %v", super.DeletionTimestamp, super.DeletionGracePeriodSeconds)
		}
		return nil
	})
	if err := w.Super.Client.CoreV1().Pods(of.super("pod-del")).Delete(t.Context(), "by-tenant", metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
		t.Fatal(err) // the kubelet is done
	}
	worlds.Eventually(t, limit, "the tenant pod to go", tenantGone("by-tenant"))

	runPod("by-super")
	began := time.Now()
	if err := w.Super.Client.CoreV1().Pods(of.super("pod-del")).Delete(t.Context(), "by-super", metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
		t.Fatal(err)
	}
	worlds.Eventually(t, limit, "the tenant pod to go when its super pod vanished", tenantGone("by-super"))
	t.Logf("the tenant pod went %s after the super pod", time.Since(began).Round(time.Millisecond))
}

func TestRefusalIsToldInTheTenantsWords(t *testing.T) {
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, "refused")
	policy := &corev1.LimitRange{
		ObjectMeta: metav1.ObjectMeta{Namespace: of.super("refused"), Name: "small"},
		Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{
			Type: corev1.LimitTypeContainer, Max: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")},
		}}},
	}
	if err := r.client.Create(t.Context(), policy); err != nil {
		t.Fatal(err)
	}
	pod := worlds.Pod("refused", "big")
	pod.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2")}
	pod.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2")}
	of.world.MakePod(t, pod)
	waitForEvent(t, of, "refused", "big", "Refused")

	privileged, yes := worlds.Pod("refused", "privileged"), true
	privileged.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: &yes}
	of.world.MakePod(t, privileged)
	waitForEvent(t, of, "refused", "privileged", "PodSecurity")
	if err := gone(r.client.Get(t.Context(), client.ObjectKey{Namespace: of.super("refused"), Name: "privileged"}, &corev1.Pod{})); err != nil {
		t.Errorf("the privileged pod in the super cluster: %v", err)
	}
}

// Invariant 1: a tenant that hangs delays nobody else, and catches up.
func TestHungTenantDelaysNobody(t *testing.T) {
	r := start(t)
	hung, other := r.tenants[0], r.tenants[1]
	r.namespace(t, hung, "hung")
	r.namespace(t, other, "hung")
	var superPods []*corev1.Pod
	for i := range 20 { // more than there are workers
		name := fmt.Sprintf("p%d", i)
		hung.world.MakePod(t, worlds.Pod("hung", name))
		superPods = append(superPods, r.superPod(t, hung, "hung", name))
	}
	if err := hung.world.Pause(); err != nil {
		t.Fatal(err)
	}
	resumed := false
	t.Cleanup(func() {
		if !resumed {
			_ = hung.world.Resume()
		}
	})
	for _, p := range superPods { // every one wants to be bound in a tenant that does not answer
		r.kubelet(t, p, "node-hung", "10.9.2.1")
	}
	began := time.Now()
	for i := range 5 {
		name := fmt.Sprintf("q%d", i)
		other.world.MakePod(t, worlds.Pod("hung", name))
		r.kubelet(t, r.superPod(t, other, "hung", name), "node-hung", "10.9.2.2")
		worlds.Eventually(t, limit, "the pod of the other tenant", func(ctx context.Context) error {
			now, err := other.CoreV1().Pods("hung").Get(ctx, name, metav1.GetOptions{})
			if err == nil && now.Status.Phase != corev1.PodRunning {
				err = fmt.Errorf("phase is %s", now.Status.Phase)
			}
			return err
		})
	}
	t.Logf("five pods of the other tenant took %s", time.Since(began).Round(time.Millisecond))
	r.waitFor(t, hung, metav1.ConditionFalse, "Lost")
	if err := hung.world.Resume(); err != nil {
		t.Fatal(err)
	}
	resumed = true
	r.waitFor(t, hung, metav1.ConditionTrue, "Synced")
	for i := range superPods {
		worlds.Eventually(t, limit, "the tenant to catch up", func(ctx context.Context) error {
			now, err := hung.CoreV1().Pods("hung").Get(ctx, fmt.Sprintf("p%d", i), metav1.GetOptions{})
			if err == nil && now.Status.Phase != corev1.PodRunning {
				err = fmt.Errorf("phase is %s", now.Status.Phase)
			}
			return err
		})
	}
}

// Invariant 2: a control plane that is another one deletes nothing.
func TestForeignControlPlaneIsNotSynced(t *testing.T) {
	r := start(t)
	of, other := r.tenants[0], r.tenants[1]
	r.namespace(t, of, "foreign")
	of.world.MakePod(t, worlds.Pod("foreign", "p"))
	pod := r.superPod(t, of, "foreign", "p")

	secret := &corev1.Secret{}
	if err := r.client.Get(t.Context(), of.vc, secret); err != nil {
		t.Fatal(err)
	}
	secret.Data[names.KubeconfigKey] = other.world.Kubeconfig // as if the tenant had come back empty
	if err := r.client.Update(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	r.stop()
	r.tenants = nil // do not wait for them to be in sync
	r.run(t)
	r.waitFor(t, of, metav1.ConditionFalse, "Foreign")
	worlds.Throughout(t, 5*time.Second, "the super pod", func(ctx context.Context) error {
		now := &corev1.Pod{}
		if err := r.client.Get(ctx, client.ObjectKeyFromObject(pod), now); err != nil {
			return err
		}
		if now.UID != pod.UID || now.DeletionTimestamp != nil {
			return fmt.Errorf("it is being deleted or was replaced")
		}
		return nil
	})
	secret.Data[names.KubeconfigKey] = of.world.Kubeconfig
	if err := r.client.Update(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	r.stop()
	r.run(t)
	r.waitFor(t, of, metav1.ConditionTrue, "Synced")
	r.tenants = []tenant{of, other}
}

// Invariant 2: when nothing is remembered of a tenant, nothing tells whether objects that disappeared were deleted. A brake
// lets a few deletions pass, none of which holds data or other objects, until a person releases it.
func TestMassDisappearanceTripsTheBrake(t *testing.T) {
	limited := func(o *syncer.Options) { o.Brake = engine.BrakeOptions{Limit: 3, Window: time.Hour} }
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, "brake")
	r.namespace(t, of, "brake-goes")
	for i := range 10 {
		if _, err := of.CoreV1().Services("brake").Create(t.Context(), worlds.Service("brake", fmt.Sprintf("s%d", i)), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	exactly := func(want int) func(context.Context) error {
		return func(ctx context.Context) error {
			var list corev1.ServiceList
			err := r.client.List(ctx, &list, client.InNamespace(of.super("brake")))
			if err == nil && len(list.Items) != want {
				err = fmt.Errorf("%d services, want %d", len(list.Items), want)
			}
			return err
		}
	}
	namespaceStays := func(ctx context.Context) error {
		ns := &corev1.Namespace{}
		err := r.client.Get(ctx, client.ObjectKey{Name: of.super("brake-goes")}, ns)
		if err == nil && ns.DeletionTimestamp != nil {
			err = errors.New("the namespace is being deleted")
		}
		return err
	}
	worlds.Eventually(t, limit, "all services", exactly(10))
	r.stop()
	for i := range 10 {
		if err := of.CoreV1().Services("brake").Delete(t.Context(), fmt.Sprintf("s%d", i), metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	of.deleteNamespace(t, "brake-goes")
	r.forget(t, of)
	life := t
	again := func() {
		tenants := r.tenants
		r.tenants = nil
		r.run(life, limited)
		r.tenants = tenants
		r.waitFor(t, of, metav1.ConditionFalse, "DeletionBrake")
	}
	again()
	worlds.Eventually(t, limit, "as many deletions as the brake lets pass", exactly(7))
	r.stop()
	again() // another leader does not begin to count anew
	r.awaitHeld(t, of, "super", "namespaces", "brake-goes")
	worlds.Eventually(t, limit, "the services to be listed", func(context.Context) error {
		listed := slices.DeleteFunc(r.sync(t, of).Held, func(h tenancyv1alpha1.HeldDeletion) bool { return h.Namespace != "brake" || h.Resource != "services" })
		if len(listed) != 7 {
			return fmt.Errorf("%d are: %v", len(listed), listed)
		}
		return nil
	})
	worlds.Throughout(t, 3*time.Second, "the services that were spared", exactly(7))
	worlds.Throughout(t, time.Second, "the namespace", namespaceStays)
	r.release(t, of)
	worlds.Eventually(t, limit, "deletions to pass when the brake is released", exactly(0))
	r.awaitGone(t, of, "brake-goes")
}

// forget removes all that is remembered of a tenant.
func (r *running) forget(t *testing.T, of tenant) {
	t.Helper()
	body := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:null}}}`, names.AnnotationMark)
	if _, err := of.CoreV1().Namespaces().Patch(t.Context(), metav1.NamespaceSystem, types.MergePatchType, body, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := r.client.Status().Patch(t.Context(), vcOf(of), client.RawPatch(types.MergePatchType, []byte(`{"status":{"sync":null}}`))); err != nil {
		t.Fatal(err)
	}
}

// deleteNamespace deletes a namespace of the tenant and waits until it is gone.
func (of tenant) deleteNamespace(t *testing.T, name string) {
	t.Helper()
	if err := of.CoreV1().Namespaces().Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	worlds.Eventually(t, limit, "the end of namespace "+name, func(ctx context.Context) error {
		_, err := of.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
		return gone(err)
	})
}

// What changed on either side while no syncer ran is made good when one starts.
func TestRestartConverges(t *testing.T) {
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, "restart")
	of.world.MakePod(t, worlds.Pod("restart", "stays"))
	of.world.MakePod(t, worlds.Pod("restart", "goes"))
	stays, goes := r.superPod(t, of, "restart", "stays"), r.superPod(t, of, "restart", "goes")
	r.stop()
	r.kubelet(t, stays, "node-restart", "10.9.3.1")
	zero := int64(0)
	if err := of.CoreV1().Pods("restart").Delete(t.Context(), "goes", metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
		t.Fatal(err)
	}
	of.world.MakePod(t, worlds.Pod("restart", "new"))
	r.run(t)
	r.superPod(t, of, "restart", "new")
	worlds.Eventually(t, limit, "the orphan to be told", func(ctx context.Context) error {
		now := &corev1.Pod{}
		err := r.client.Get(ctx, client.ObjectKeyFromObject(goes), now)
		if err == nil && now.DeletionTimestamp == nil {
			return fmt.Errorf("it runs on")
		}
		return client.IgnoreNotFound(err)
	})
	worlds.Eventually(t, limit, "the status to arrive", func(ctx context.Context) error {
		now, err := of.CoreV1().Pods("restart").Get(ctx, "stays", metav1.GetOptions{})
		if err == nil && now.Status.Phase != corev1.PodRunning {
			err = fmt.Errorf("phase is %s", now.Status.Phase)
		}
		return err
	})
}

func TestEventsReachTheTenant(t *testing.T) {
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, "events")
	made := usingPod(t, of, "events", "p", "", "db")
	super := r.superPod(t, of, "events", "p")
	report := func(reason string) {
		t.Helper()
		now := metav1.Now()
		_, err := w.Super.Client.CoreV1().Events(super.Namespace).Create(t.Context(), &corev1.Event{
			ObjectMeta:     metav1.ObjectMeta{Name: "p." + strings.ToLower(reason)},
			InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: super.Namespace, Name: "p", UID: super.UID},
			Reason:         reason, Message: "in " + super.Namespace + `: secret "` + names.SuperSecret("db") + `" not found`, Type: corev1.EventTypeNormal,
			FirstTimestamp: now, LastTimestamp: now, Count: 1,
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	arrives := func(reason string) {
		t.Helper()
		got := waitForEvent(t, of, "events", "p", reason)
		if got.InvolvedObject.UID != made.UID || got.Message != `in events: secret "db" not found` {
			t.Errorf("event is %+v", got)
		}
	}
	report("Pulled")
	arrives("Pulled")

	// What happens while the tenant cannot be told is told when it is back.
	if err := of.world.Pause(); err != nil {
		t.Fatal(err)
	}
	resume := sync.OnceFunc(func() {
		if err := of.world.Resume(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(resume)
	r.waitFor(t, of, metav1.ConditionFalse, "Lost")
	report("Killing")
	resume()
	arrives("Killing")
}

// Claims are provisioned in the super cluster, and the tenant binds them by itself.
func TestStorage(t *testing.T) {
	r := start(t)
	of := r.tenants[0]
	r.namespace(t, of, "storage")
	wait := storagev1.VolumeBindingImmediate
	class := &storagev1.StorageClass{
		ObjectMeta:  metav1.ObjectMeta{Name: "fast", Annotations: map[string]string{"storageclass.kubernetes.io/is-default-class": "true"}},
		Provisioner: "csi.example.com", VolumeBindingMode: &wait,
	}
	if err := r.client.Create(t.Context(), class); err != nil {
		t.Fatal(err)
	}
	worlds.Eventually(t, limit, "the class in the tenant", func(ctx context.Context) error {
		_, err := of.StorageV1().StorageClasses().Get(ctx, "fast", metav1.GetOptions{})
		return err
	})
	one := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
	modes := []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	made, err := of.CoreV1().PersistentVolumeClaims("storage").Create(t.Context(), &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: "data"},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: modes, StorageClassName: &class.Name, Resources: corev1.VolumeResourceRequirements{Requests: one},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	super := &corev1.PersistentVolumeClaim{}
	worlds.Eventually(t, limit, "the claim in the super cluster", func(ctx context.Context) error {
		return r.client.Get(ctx, client.ObjectKey{Namespace: of.super("storage"), Name: "data"}, super)
	})

	// The test is the provisioner of the super cluster, whose volume controller binds the claim.
	volume := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "pvc-storage"},
		Spec: corev1.PersistentVolumeSpec{
			Capacity: one, AccessModes: modes, StorageClassName: class.Name, PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimDelete,
			ClaimRef:               &corev1.ObjectReference{APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: super.Namespace, Name: super.Name, UID: super.UID},
			PersistentVolumeSource: corev1.PersistentVolumeSource{NFS: &corev1.NFSVolumeSource{Server: "nfs.example.com", Path: "/secret"}},
		},
	}
	if err := r.client.Create(t.Context(), volume); err != nil {
		t.Fatal(err)
	}
	worlds.Eventually(t, limit, "the claim to be bound in the tenant", func(ctx context.Context) error {
		now, err := of.CoreV1().PersistentVolumeClaims("storage").Get(ctx, "data", metav1.GetOptions{})
		if err == nil && (now.Status.Phase != corev1.ClaimBound || now.Spec.VolumeName != volume.Name) {
			err = fmt.Errorf("phase %s, volume %q", now.Status.Phase, now.Spec.VolumeName)
		}
		return err
	})
	replica, err := of.CoreV1().PersistentVolumes().Get(t.Context(), volume.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if replica.Spec.NFS != nil || replica.Spec.ClaimRef.UID != made.UID || replica.Spec.ClaimRef.Namespace != "storage" {
		t.Errorf("the tenant sees %+v", replica.Spec)
	}
	if _, err := r.tenants[1].CoreV1().PersistentVolumes().Get(t.Context(), volume.Name, metav1.GetOptions{}); gone(err) != nil {
		t.Errorf("the volume in the other tenant: %v", err)
	}

	if err := of.CoreV1().PersistentVolumeClaims("storage").Delete(t.Context(), "data", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	worlds.Eventually(t, limit, "the claim to go", func(ctx context.Context) error { return r.claimGone(ctx, of, "storage", "data") })
	if err := r.client.Delete(t.Context(), volume); err != nil {
		t.Fatal(err)
	}
	worlds.Eventually(t, limit, "the replica of the volume to go", func(ctx context.Context) error {
		_, err := of.CoreV1().PersistentVolumes().Get(ctx, volume.Name, metav1.GetOptions{})
		return gone(err)
	})
	if err := r.client.Delete(t.Context(), class); err != nil {
		t.Fatal(err)
	}
	worlds.Eventually(t, limit, "the class to go", func(ctx context.Context) error {
		_, err := of.StorageV1().StorageClasses().Get(ctx, "fast", metav1.GetOptions{})
		return gone(err)
	})
}
