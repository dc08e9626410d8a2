package syncer_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	policyv1 "k8s.io/api/policy/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

// Tenants whose Kubernetes is older or newer than the super cluster's have everything that is promised, except fields that
// one of both does not know: see the tests of those.
func TestVersionSkew(t *testing.T) {
	opts := options(3)
	opts.Variants = []worlds.Variant{
		{Kubernetes: "1.34"},
		{Kubernetes: "1.35"},
		// Fields that are new in a version are switched off in it.
		{Kubernetes: "1.37", APIServerArgs: []string{"--feature-gates=VolumeBindMountOptions=true"}},
	}
	all := worlds.Start(t, opts)
	if err := installRights(t.Context(), all.Super); err != nil {
		t.Fatal(err)
	}
	metrics := prometheus.NewRegistry()
	r := startIn(t, all, func(o *syncer.Options) { o.Registerer = metrics })
	for i, variant := range opts.Variants {
		t.Run(variant.Kubernetes, func(t *testing.T) {
			of := r.tenants[i]
			version, err := of.Discovery().ServerVersion()
			if err != nil || !strings.HasPrefix(version.GitVersion, "v"+variant.Kubernetes+".") {
				t.Fatalf("the version is %v, %v", version, err)
			}
			t.Run("Workload", func(t *testing.T) { workloadLives(t, r, of) })
			// All but namespaces, which take half a minute to come and go. Those in no namespace have the same names in all versions.
			t.Run("EveryKind", func(t *testing.T) { kindsLive(t, r, of, func(kind string) bool { return kind != "namespaces" }) })
			t.Run("FieldsOfTheSuperCluster", func(t *testing.T) {
				statusIsReported(t, r, of, variant.Kubernetes != "1.34" && variant.Kubernetes != "1.35")
			})
		})
	}
	t.Run("WritesComeToRest", func(t *testing.T) { comesToRest(t, metrics) })
	t.Run("FieldsOfTheTenant", func(t *testing.T) { unknownFieldsAreRefused(t, r, r.tenants[2]) })
	t.Run("KindsThatAreNotServed", func(t *testing.T) { unservedKindsDelayNobody(t, r, r.tenants[0]) })
}

// workloadLives runs what the controllers of the tenant's version make of a StatefulSet.
func workloadLives(t *testing.T, r *running, of tenant) {
	const ns = "workload"
	r.namespace(t, of, ns)
	core := of.CoreV1()
	if _, err := core.ConfigMaps(ns).Create(t.Context(), worlds.ConfigMap(ns, "conf", map[string]string{"a": "1"}), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "keys"}, StringData: map[string]string{"k": "v"}}
	if _, err := core.Secrets(ns).Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := core.Services(ns).Create(t.Context(), worlds.Service(ns, "web"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	template := worlds.Pod("", "web")
	main := &template.Spec.Containers[0]
	main.EnvFrom = []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "keys"}}}}
	main.VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}, {Name: "conf", MountPath: "/conf"}}
	main.Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: apiresource.MustParse("100m")}
	template.Spec.Volumes = []corev1.Volume{{Name: "conf", VolumeSource: corev1.VolumeSource{
		ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "conf"}},
	}}}
	set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: appsv1.StatefulSetSpec{
		ServiceName: "web", Replicas: new(int32(1)),
		Selector: &metav1.LabelSelector{MatchLabels: template.Labels},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: template.Labels}, Spec: template.Spec},
		VolumeClaimTemplates: []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"}, Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: new("none"),
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: apiresource.MustParse("1Gi")}},
		}}},
	}}
	if _, err := of.AppsV1().StatefulSets(ns).Create(t.Context(), set, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}

	super := r.superPod(t, of, ns, "web-0")
	for name, object := range map[string]client.Object{
		names.SuperConfigMap("conf"): &corev1.ConfigMap{}, names.SuperSecret("keys"): &corev1.Secret{}, "web": &corev1.Service{}, "data-web-0": &corev1.PersistentVolumeClaim{},
	} {
		worlds.Eventually(t, limit, fmt.Sprintf("%T %s in the super cluster", object, name), func(ctx context.Context) error {
			return r.client.Get(ctx, client.ObjectKey{Namespace: super.Namespace, Name: name}, object)
		})
	}
	ip := fmt.Sprintf("10.9.0.%d", 1+of.world.Name[len("tenant-")])
	r.kubelet(t, super, "node-"+of.world.Name, ip)
	awaitRunning(t, of, ns, "web-0", ip)
	worlds.Eventually(t, limit, "the endpoint in the tenant", func(ctx context.Context) error {
		list, err := of.DiscoveryV1().EndpointSlices(ns).List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=web"})
		if err != nil {
			return err
		}
		for _, slice := range list.Items {
			for _, e := range slice.Endpoints {
				if e.Addresses[0] == ip && e.Conditions.Ready != nil && *e.Conditions.Ready {
					return nil
				}
			}
		}
		return fmt.Errorf("slices are %v", list.Items)
	})

	// The API server of the newest version looks at the room on the node before it lets a pod grow.
	size := client.RawPatch(types.StrategicMergePatchType, []byte(`{"status":{"capacity":{"cpu":"4"},"allocatable":{"cpu":"4"}}}`))
	if err := r.client.Status().Patch(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-" + of.world.Name}}, size); err != nil {
		t.Fatal(err)
	}
	worlds.Eventually(t, limit, "the size of the node in the tenant", func(ctx context.Context) error {
		node, err := of.CoreV1().Nodes().Get(ctx, "node-"+of.world.Name, metav1.GetOptions{})
		if err == nil && node.Status.Allocatable.Cpu().String() != "4" {
			err = fmt.Errorf("status is %v", node.Status)
		}
		return err
	})
	patchPod(t, of, ns, "web-0", `{"spec":{"containers":[{"name":"main","resources":{"requests":{"cpu":"200m"}}}]}}`, "resize")
	patchPod(t, of, ns, "web-0", `{"spec":{"ephemeralContainers":[{"name":"debug","image":"registry.k8s.io/pause:3.10"}]}}`, "ephemeralcontainers")
	worlds.Eventually(t, limit, "the resize and the ephemeral container", func(ctx context.Context) error {
		if err := r.client.Get(ctx, client.ObjectKeyFromObject(super), super); err != nil {
			return err
		}
		if cpu := super.Spec.Containers[0].Resources.Requests.Cpu().String(); cpu != "200m" || len(super.Spec.EphemeralContainers) != 1 {
			return fmt.Errorf("cpu is %s, ephemeral containers are %v", cpu, super.Spec.EphemeralContainers)
		}
		return nil
	})

	if err := core.Pods(ns).Delete(t.Context(), "web-0", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	worlds.Eventually(t, limit, "the deletion in the super cluster", func(ctx context.Context) error {
		var now corev1.Pod
		if err := r.client.Get(ctx, client.ObjectKeyFromObject(super), &now); err != nil {
			return err
		}
		if now.DeletionTimestamp == nil {
			return errors.New("it is not being deleted")
		}
		return nil
	})
	now := client.GracePeriodSeconds(0) // the kubelet's last word
	if err := r.client.Delete(t.Context(), super, now, client.Preconditions{UID: &super.UID}); err != nil {
		t.Fatal(err)
	}
	worlds.Eventually(t, limit, "the successor", func(ctx context.Context) error {
		var next corev1.Pod
		if err := r.client.Get(ctx, client.ObjectKeyFromObject(super), &next); err != nil {
			return err
		}
		if next.UID == super.UID {
			return errors.New("it is still the same pod")
		}
		return nil
	})
}

// awaitRunning waits until a tenant's pod is reported as running.
func awaitRunning(t *testing.T, of tenant, namespace, name, ip string) {
	t.Helper()
	worlds.Eventually(t, limit, "the pod to run in the tenant", func(ctx context.Context) error {
		pod, err := of.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
		if err == nil && (pod.Status.Phase != corev1.PodRunning || pod.Status.PodIP != ip || pod.Spec.NodeName == "") {
			err = fmt.Errorf("node %q, phase %s, IP %q", pod.Spec.NodeName, pod.Status.Phase, pod.Status.PodIP)
		}
		return err
	})
}

func patchPod(t *testing.T, of tenant, namespace, name, body string, subresource ...string) {
	t.Helper()
	_, err := of.CoreV1().Pods(namespace).Patch(t.Context(), name, types.StrategicMergePatchType, []byte(body), metav1.PatchOptions{}, subresource...)
	if err != nil {
		t.Fatal(err)
	}
}

// statusIsReported has a pod whose status in the super cluster has fields that older API servers leave out.
func statusIsReported(t *testing.T, r *running, of tenant, known bool) {
	const ns = "status"
	r.namespace(t, of, ns)
	pod := worlds.Pod(ns, "sized")
	pod.Spec.Resources = &corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: apiresource.MustParse("100m")}}
	of.world.MakePod(t, pod)
	super := r.superPod(t, of, ns, "sized")
	const ip = "10.9.1.1"
	r.kubelet(t, super, "node-"+of.world.Name, ip)
	report := []byte(`{"status":{"allocatedResources":{"cpu":"100m"},"resources":{"requests":{"cpu":"100m"}}}}`)
	got, err := r.worlds.Super.Client.CoreV1().Pods(super.Namespace).Patch(t.Context(), super.Name, types.StrategicMergePatchType, report, metav1.PatchOptions{}, "status")
	if err != nil || got.Status.Resources == nil || got.Status.AllocatedResources == nil {
		t.Fatalf("the super cluster knows neither: %v, %v", got, err)
	}
	awaitRunning(t, of, ns, "sized", ip)
	if !known {
		return
	}
	worlds.Eventually(t, limit, "the resources in the tenant", func(ctx context.Context) error {
		pod, err := of.CoreV1().Pods(ns).Get(ctx, "sized", metav1.GetOptions{})
		if err == nil && (pod.Status.Resources == nil || pod.Status.AllocatedResources == nil) {
			err = fmt.Errorf("status is %v", pod.Status)
		}
		return err
	})
}

// comesToRest waits until nothing has been written for several patrols: what an API server leaves out of a patch is not
// written again and again.
func comesToRest(t *testing.T, metrics prometheus.Gatherer) {
	const patrols = 7 * time.Second
	writes, since := -1.0, time.Now()
	worlds.Eventually(t, 2*limit, "writes to come to rest", func(context.Context) error {
		families, err := metrics.Gather()
		if err != nil {
			return err
		}
		now, which := 0.0, []string{}
		for _, family := range families {
			if family.GetName() != "vc_syncer_ops_total" {
				continue
			}
			for _, m := range family.GetMetric() {
				now += m.GetCounter().GetValue()
				which = append(which, m.String())
			}
		}
		if now != writes {
			writes, since = now, time.Now()
		}
		if quiet := time.Since(since); quiet < patrols {
			return fmt.Errorf("the last of %v was %s ago: %v", now, quiet, which)
		}
		return nil
	})
	if writes <= 0 {
		t.Error("no writes were counted")
	}
}

// unknownFieldsAreRefused has a tenant use a field that neither the syncer nor the super cluster knows.
func unknownFieldsAreRefused(t *testing.T, r *running, of tenant) {
	const ns, field = "unknown", "bindMountOptions"
	r.namespace(t, of, ns)
	pods := of.CoreV1().RESTClient()
	stored := func(ctx context.Context, name string) error {
		body, err := pods.Get().Namespace(ns).Resource("pods").Name(name).SetHeader("Accept", "application/json").Do(ctx).Raw()
		if err == nil && !strings.Contains(string(body), field) {
			err = fmt.Errorf("%s is not in %s", field, body)
		}
		return err
	}
	mount := []any{map[string]any{"name": "scratch", "mountPath": "/scratch", field: []string{"noexec"}}}
	scratch := corev1.Volume{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}
	body, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": "strict"},
		"spec": map[string]any{
			"containers": []any{map[string]any{"name": "main", "image": "registry.k8s.io/pause:3.10", "volumeMounts": mount}},
			"volumes":    []any{scratch},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := pods.Post().Namespace(ns).Resource("pods").SetHeader("Content-Type", "application/json").Body(body).Do(t.Context()).Error(); err != nil {
		t.Fatal(err)
	}
	if err := stored(t.Context(), "strict"); err != nil {
		t.Fatalf("the tenant does not know the field: %v", err)
	}
	event := waitForEvent(t, of, ns, "strict", "Unsupported")
	if want := "spec.containers[0].volumeMounts[0]." + field; !strings.Contains(event.Message, want) {
		t.Errorf("the event does not name %s: %s", want, event.Message)
	}

	// A pod that runs already goes on: only what cannot be as written is left out.
	debugged := worlds.Pod(ns, "debugged")
	debugged.Spec.Volumes = []corev1.Volume{scratch}
	of.world.MakePod(t, debugged)
	super := r.superPod(t, of, ns, "debugged")
	r.kubelet(t, super, "node-"+of.world.Name, "10.9.2.1")
	awaitRunning(t, of, ns, "debugged", "10.9.2.1")
	container, err := json.Marshal(map[string]any{"spec": map[string]any{"ephemeralContainers": []any{
		map[string]any{"name": "debug", "image": "registry.k8s.io/pause:3.10", "volumeMounts": mount},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	patchPod(t, of, ns, "debugged", string(container), "ephemeralcontainers")
	waitForEvent(t, of, ns, "debugged", "Unsupported")
	r.followsLabel(t, of, super, ns, "after-an-unknown-field")
	_, err = r.worlds.Super.Client.CoreV1().Pods(super.Namespace).Patch(t.Context(), super.Name, types.StrategicMergePatchType,
		[]byte(`{"status":{"podIP":"10.9.2.2","podIPs":[{"$patch":"replace"},{"ip":"10.9.2.2"}]}}`), metav1.PatchOptions{}, "status")
	if err != nil {
		t.Fatal(err)
	}
	awaitRunning(t, of, ns, "debugged", "10.9.2.2")
	if err := stored(t.Context(), "debugged"); err != nil {
		t.Errorf("the field is lost after the syncer wrote the status: %v", err)
	}
	if err := r.client.Get(t.Context(), client.ObjectKeyFromObject(super), super); err != nil || len(super.Spec.EphemeralContainers) > 0 {
		t.Errorf("the super pod has %v, %v", super.Spec.EphemeralContainers, err)
	}
	if err := gone(r.client.Get(t.Context(), client.ObjectKey{Namespace: of.super(ns), Name: "strict"}, &corev1.Pod{})); err != nil {
		t.Errorf("the refused pod in the super cluster: %v", err)
	}
	if err := stored(t.Context(), "strict"); err != nil {
		t.Errorf("the refused pod in the tenant: %v", err)
	}
}

// unservedKindsDelayNobody has a tenant's API server not serve a kind that is synchronised.
func unservedKindsDelayNobody(t *testing.T, r *running, of tenant) {
	const ns = "unserved"
	r.namespace(t, of, ns)
	r.stop()
	of.world.SetArgs("--runtime-config=policy/v1=false")
	if err := of.world.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	budgets := of.PolicyV1().PodDisruptionBudgets(ns)
	if _, err := budgets.List(t.Context(), metav1.ListOptions{}); gone(err) != nil {
		t.Fatalf("the kind is served: %v", err)
	}
	r.run(t) // waits until all tenants are in sync
	of.world.MakePod(t, worlds.Pod(ns, "web"))
	r.superPod(t, of, ns, "web")

	// Once it is served it is synchronised.
	of.world.SetArgs()
	if err := of.world.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	budget := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: policyv1.PodDisruptionBudgetSpec{
		Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}, MaxUnavailable: new(intstr.FromInt32(0)),
	}}
	worlds.Eventually(t, limit, "the creation of a budget", func(ctx context.Context) error {
		_, err := budgets.Create(ctx, budget, metav1.CreateOptions{})
		return err
	})
	worlds.Eventually(t, 2*limit, "the budget in the super cluster", func(ctx context.Context) error {
		return r.client.Get(ctx, client.ObjectKey{Namespace: of.super(ns), Name: "web"}, &policyv1.PodDisruptionBudget{})
	})
}
