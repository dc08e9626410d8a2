package manager_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/controllers"
	"github.com/virtualcluster-io/virtualcluster/controllers/images"
	"github.com/virtualcluster-io/virtualcluster/internal/iprange"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/test/retired"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

// The samples of the retired project, changed only as the page says, make a control plane out of the real programs: every file,
// name and address that their command lines refer to is there.
func TestSamplesOfTheRetiredProjectReachReady(t *testing.T) {
	t.Parallel()
	super := worlds.Start(t, worlds.Options{SuperControllers: superControllers()}).Super
	f := startManager(t, super)
	f.readyNode("node-1", "127.0.0.1")
	version, err := retired.AdaptedClusterVersion(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f.applyStrictly(version)
	vc := f.sampleVirtualCluster()
	vc = f.awaitCondition(vc, tenancyv1alpha1.ConditionPKIReady, metav1.ConditionTrue, "Succeeded", "")
	root := vc.Status.ClusterNamespace
	service := &corev1.Service{}
	worlds.Eventually(t, patience, "the Service of kube-apiserver", func(ctx context.Context) error {
		return f.Get(ctx, client.ObjectKey{Namespace: root, Name: names.APIServerService}, service)
	})

	k := newKubelet(t, f, super, int(service.Spec.Ports[0].NodePort))
	for i, pod := range []string{"etcd-0", "kube-apiserver-0", "kube-controller-manager-0"} {
		k.run(f.awaitPod(root, pod), fmt.Sprintf("10.244.0.%d", i+1))
	}
	vc = f.awaitReady(vc)

	t.Run("KeysAndNames", func(t *testing.T) { testRetiredKeys(t, f, root) })
	t.Run("ServicesAsWritten", func(t *testing.T) {
		etcd, apiServer := &corev1.Service{}, &corev1.Service{}
		for name, service := range map[string]*corev1.Service{"etcd": etcd, "apiserver-svc": apiServer} {
			if err := f.Get(t.Context(), client.ObjectKey{Namespace: root, Name: name}, service); err != nil {
				t.Fatalf("Get: %v", err)
			}
		}
		if etcd.Spec.ClusterIP != corev1.ClusterIPNone || !etcd.Spec.PublishNotReadyAddresses {
			t.Errorf("Service etcd gives members no names before they are ready: %+v", etcd.Spec)
		}
		port := apiServer.Spec.Ports[0]
		if apiServer.Spec.Type != corev1.ServiceTypeNodePort || port.Port != 6443 || port.TargetPort != intstr.FromString("api") {
			t.Errorf("Service apiserver-svc is %+v", apiServer.Spec)
		}
		if !super.ServiceRanges.Primary().Contains(iprange.MustParse(apiServer.Spec.ClusterIP + "/32")[0].Addr()) {
			t.Errorf("Service apiserver-svc has %s, which is not in the super cluster's own range", apiServer.Spec.ClusterIP)
		}
	})
	t.Run("TheControlPlaneIsWhole", func(t *testing.T) { testRetiredControlPlane(t, f, vc) })
	t.Run("DeletionLeavesNothing", func(*testing.T) {
		f.delete(vc)
		f.finishPods(root)
		f.awaitGone(vc)
		f.nothingLeft(root)
	})
}

// testRetiredKeys checks that certificates have the names by which raw templates reach what they belong to, and that the one root
// CA verifies them all.
func testRetiredKeys(t *testing.T, f fixture, root string) {
	f.T = t
	ca := certificate(t, f.secret(root, "root-ca").Data[corev1.TLSCertKey])
	if !ca.IsCA {
		t.Error("root-ca is not a CA")
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	for secret, want := range map[string][]string{
		"etcd-ca": {
			"etcd", "etcd." + root, "etcd-0.etcd", "etcd-0.etcd." + root, "etcd-0.etcd." + root + ".svc", "etcd-0.etcd." + root + ".svc.cluster.local",
			"localhost", "127.0.0.1",
		},
		"apiserver-ca":   {"apiserver-svc", "apiserver-svc." + root, "apiserver-svc." + root + ".svc", "kubernetes.default.svc", "127.0.0.1"},
		"front-proxy-ca": nil,
	} {
		leaf := certificate(t, f.secret(root, secret).Data[corev1.TLSCertKey])
		for _, name := range want {
			if err := leaf.VerifyHostname(name); err != nil {
				t.Errorf("%s: %v", secret, err)
			}
		}
		options := x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
		if _, err := leaf.Verify(options); err != nil {
			t.Errorf("%s is no client certificate of root-ca: %v", secret, err)
		}
	}
	for _, secret := range []string{"admin-kubeconfig", "controller-manager-kubeconfig"} {
		if _, err := clientcmd.RESTConfigFromKubeConfig(f.secret(root, secret).Data[secret]); err != nil {
			t.Errorf("%s has no kubeconfig under its own name: %v", secret, err)
		}
	}
}

// testRetiredControlPlane uses the control plane as its admin, with the kubeconfig that the retired project would give.
func testRetiredControlPlane(t *testing.T, f fixture, vc *tenancyv1alpha1.VirtualCluster) {
	f.T = t
	config, err := clientcmd.RESTConfigFromKubeConfig(f.secret(vc.Status.ClusterNamespace, "admin-kubeconfig").Data["admin-kubeconfig"])
	if err != nil {
		t.Fatal(err)
	}
	tenant, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tenant.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}, metav1.CreateOptions{}); err != nil {
		t.Fatalf("Create: %v", err)
	}
	worlds.Eventually(t, patience, "kube-controller-manager to work", func(ctx context.Context) error {
		if _, err := tenant.CoreV1().ServiceAccounts("shop").Get(ctx, "default", metav1.GetOptions{}); err != nil {
			return err
		}
		_, err := tenant.CoreV1().ConfigMaps("shop").Get(ctx, names.RootCAConfigMap, metav1.GetOptions{})
		return err
	})
	kubernetesService, err := tenant.CoreV1().Services("default").Get(t.Context(), "kubernetes", metav1.GetOptions{})
	if err != nil {
		t.Fatalf("Get: %v", err)
	}
	if want := iprange.APIServer(iprange.MustParse(vc.Status.ServiceCIDR).Primary()).String(); kubernetesService.Spec.ClusterIP != want {
		t.Errorf("Service kubernetes has %s, want %s: cluster IPs must be those that the super cluster routes", kubernetesService.Spec.ClusterIP, want)
	}
	dns, err := tenant.AppsV1().Deployments(metav1.NamespaceSystem).Get(t.Context(), "coredns", metav1.GetOptions{})
	if err != nil {
		t.Fatalf("Get: %v", err)
	}
	// The ClusterVersion does not say which version of Kubernetes its images are.
	want := images.Source{Version: vc.Status.Version}.Image(images.CoreDNS)
	if got := dns.Spec.Template.Spec.Containers[0].Image; got != want {
		t.Errorf("CoreDNS is %s, want %s, which belongs to Kubernetes %s", got, want, vc.Status.Version)
	}
	node, err := tenant.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "virtual"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("Create: %v", err)
	}
	if len(node.Spec.Taints) > 0 {
		t.Errorf("virtual nodes get the taints %v, which nobody takes off", node.Spec.Taints)
	}
}

// What a template of the retired project mounts is not published for an ordinary ClusterVersion, and never takes the place of the
// CAs of a control plane that exists.
func TestKeysOfOrdinaryControlPlanesStayWhatTheyAre(t *testing.T) {
	t.Parallel()
	f := startManager(t, worlds.Start(t, worlds.Options{SuperControllers: superControllers()}).Super)
	ordinary := f.version("v1", "true")
	raw, err := retired.AdaptedClusterVersion(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f.applyStrictly(raw)
	vc := f.virtualCluster("a", tenancyv1alpha1.VirtualClusterSpec{ClusterVersionName: ordinary.Name})
	vc = f.awaitCondition(vc, tenancyv1alpha1.ConditionPKIReady, metav1.ConditionTrue, "Succeeded", "")
	root := vc.Status.ClusterNamespace
	f.awaitPod(root, "etcd-0")
	authorities := []*corev1.Secret{f.secret(root, "etcd-ca"), f.secret(root, "front-proxy-ca"), f.secret(root, "cluster-ca")}

	base := vc.DeepCopy()
	vc.Spec.ClusterVersionName = "cv-sample-np"
	if err := f.Patch(t.Context(), vc, client.MergeFrom(base)); err != nil {
		t.Fatalf("Patch: %v", err)
	}
	// The selector of a StatefulSet cannot be changed.
	f.awaitStalled(vc, tenancyv1alpha1.ConditionEtcdReady, "Rejected", "create a new VirtualCluster if the change is not possible in place")
	for _, before := range authorities {
		if after := f.secret(root, before.Name); after.ResourceVersion != before.ResourceVersion {
			t.Errorf("Secret %s was written", before.Name)
		}
		if !certificate(t, before.Data[corev1.TLSCertKey]).IsCA {
			t.Errorf("Secret %s does not hold a CA", before.Name)
		}
	}
	for _, name := range []string{"root-ca", "apiserver-ca", "serviceaccount-rsa", "controller-manager-kubeconfig"} {
		if err := f.Get(t.Context(), client.ObjectKey{Namespace: root, Name: name}, &corev1.Secret{}); !apierrors.IsNotFound(err) {
			t.Errorf("Secret %s of the retired project was published for an ordinary control plane (%v)", name, err)
		}
	}
}

// Conditions name what only events say: volumes that cannot be mounted, pods that are refused, probes that fail.
func TestConditionsNameWhatKeepsPodsFromStarting(t *testing.T) {
	t.Parallel()
	super := worlds.Start(t, worlds.Options{SuperControllers: superControllers()}).Super
	f := startManager(t, super)
	raw, err := retired.ClusterVersion()
	if err != nil {
		t.Fatal(err)
	}
	f.applyStrictly(raw)
	vc := f.sampleVirtualCluster()
	vc = f.awaitCondition(vc, tenancyv1alpha1.ConditionPKIReady, metav1.ConditionTrue, "Succeeded", "")
	root := vc.Status.ClusterNamespace
	etcd := f.awaitPod(root, "etcd-0")

	// A kubelet that cannot mount two volumes.
	f.readyNode("node-1", "192.0.2.1")
	f.bind(etcd, "node-1")
	for _, volume := range []string{"root-ca", "etcd-ca"} {
		f.warn(etcd, "FailedMount", fmt.Sprintf("MountVolume.SetUp failed for volume %q : secret %q not found", volume, volume))
	}
	f.awaitCondition(vc, tenancyv1alpha1.ConditionEtcdReady, metav1.ConditionFalse, "MountFailed",
		`etcd-0: MountVolume.SetUp failed for volume "etcd-ca" : secret "etcd-ca" not found; MountVolume.SetUp failed for volume "root-ca" : secret "root-ca" not found`)
	f.quiet(vc)

	// A container that runs and is not ready. What was said before it started does not count any more.
	super.RunPod(t, root, "etcd-0", "node-1", "10.244.0.1")
	f.unready(etcd)
	f.warn(etcd, "Unhealthy", "Readiness probe failed: context deadline exceeded")
	f.awaitCondition(vc, tenancyv1alpha1.ConditionEtcdReady, metav1.ConditionFalse, "Unhealthy", "etcd-0: Readiness probe failed: context deadline exceeded")

	// A pod that the super cluster refuses: that of the sample is not restricted.
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: root}}
	if err := f.Get(t.Context(), client.ObjectKeyFromObject(namespace), namespace); err != nil {
		t.Fatalf("Get: %v", err)
	}
	base := namespace.DeepCopy()
	namespace.Labels["pod-security.kubernetes.io/enforce"] = "restricted"
	if err := f.Patch(t.Context(), namespace, client.MergeFrom(base)); err != nil {
		t.Fatalf("Patch: %v", err)
	}
	if err := f.Delete(t.Context(), etcd, client.GracePeriodSeconds(0)); err != nil {
		t.Fatalf("Delete: %v", err)
	}
	f.awaitCondition(vc, tenancyv1alpha1.ConditionEtcdReady, metav1.ConditionFalse, "PodRefused", `violates PodSecurity "restricted`)
}

// Objects that the retired project has made are there before our CRDs, with its finalizers and a status that ours does not admit.
func TestObjectsOfTheRetiredProjectAreTakenOver(t *testing.T) {
	t.Parallel()
	super := worlds.Start(t, worlds.Options{SuperControllers: superControllers()}).Super
	scheme, err := controllers.NewScheme()
	if err != nil {
		t.Fatal(err)
	}
	admin, err := client.New(super.Config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	early := fixture{T: t, Client: admin}
	ours := early.crd("virtualclusters")
	schema, _, _ := unstructured.NestedSlice(ours.Object, "spec", "versions")
	early.replaceSchema([]any{retiredSchema()})
	early.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "old"}})
	for _, name := range []string{"kept", "dropped"} {
		worlds.Eventually(t, patience, "the CRD of the retired project", func(ctx context.Context) error {
			object := retiredVirtualCluster(name)
			if err := early.Create(ctx, object); client.IgnoreAlreadyExists(err) != nil {
				return err
			}
			if err := early.Get(ctx, client.ObjectKeyFromObject(object), object); err != nil {
				return err
			}
			if phase, _, _ := unstructured.NestedString(object.Object, "status", "phase"); phase != "Running" {
				return fmt.Errorf("the phase is %q: %w", phase, early.Delete(ctx, object))
			}
			return nil
		})
	}
	held := &tenancyv1alpha1.ClusterVersion{ObjectMeta: metav1.ObjectMeta{Name: "cv-sample-np", Finalizers: []string{"clusterVersion.finalizers"}}}
	held.Spec.Version = "v1.36.3"
	early.create(held)
	// One was being deleted when the retired vc-manager was removed.
	dropped, kept := retiredVirtualCluster("dropped"), &tenancyv1alpha1.VirtualCluster{ObjectMeta: metav1.ObjectMeta{Namespace: "old", Name: "kept"}}
	early.delete(dropped)
	early.replaceSchema(schema)

	f := startManager(t, super)
	f.awaitGone(dropped)
	got := f.eventually(kept, "a status of ours", func(vc *tenancyv1alpha1.VirtualCluster) error {
		if vc.Status.ObservedGeneration != vc.Generation || vc.Status.ClusterNamespace != string(names.Tenant(client.ObjectKeyFromObject(vc), vc.UID)) {
			return fmt.Errorf("clusterNamespace is %s", vc.Status.ClusterNamespace)
		}
		return nil
	})
	if want := []string{names.Finalizer}; !slices.Equal(got.Finalizers, want) {
		t.Errorf("finalizers: got %v, want %v", got.Finalizers, want)
	}
	for _, condition := range got.Status.Conditions {
		if condition.Type == "" {
			t.Errorf("a condition of the retired project stayed: %+v", condition)
		}
	}
	f.awaitEvent("TakenOver", "what it made in namespace old-012345-kept, and in those whose names begin with old-012345-kept-, is left for you to delete")
	f.awaitPod(got.Status.ClusterNamespace, "etcd-0")

	f.delete(held)
	f.awaitGone(held)
	f.delete(got)
	f.finishPods(got.Status.ClusterNamespace)
	f.awaitGone(got)

	// A manifest that was exported from another cluster.
	exported := retiredVirtualCluster("exported")
	if err := f.Create(t.Context(), exported, client.FieldValidation(metav1.FieldValidationStrict)); err != nil {
		t.Fatalf("an exported object is refused: %v", err)
	}
	vc := &tenancyv1alpha1.VirtualCluster{ObjectMeta: metav1.ObjectMeta{Namespace: "old", Name: "exported"}}
	f.eventually(vc, "the finalizer of ours alone", func(vc *tenancyv1alpha1.VirtualCluster) error {
		if !slices.Equal(vc.Finalizers, []string{names.Finalizer}) {
			return fmt.Errorf("the finalizers are %v", vc.Finalizers)
		}
		return nil
	})
	f.delete(vc)
	f.awaitGone(vc)
}

// retiredVirtualCluster is what the retired vc-manager leaves in etcd; conditions have no type there.
func retiredVirtualCluster(name string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": tenancyv1alpha1.GroupVersion().String(), "kind": "VirtualCluster",
		"metadata": map[string]any{"namespace": "old", "name": name, "finalizers": []any{"virtualcluster.finalizer.native"}},
		"spec":     map[string]any{"clusterVersionName": "cv-sample-np", "clusterDomain": "cluster.local", "pkiExpireDays": int64(365)},
		"status": map[string]any{
			"phase": "Running", "clusterNamespace": "old-012345-" + name, "message": "tenant control plane is running", "reason": "TenantControlPlaneRunning",
			"conditions": []any{
				map[string]any{"status": "True", "reason": "ClusterCreating", "message": "retry: 3", "lastTransitionTime": "2023-01-01T00:00:00Z"},
				map[string]any{"status": "True", "reason": "TenantControlPlaneRunning", "message": "tenant control plane is running", "lastTransitionTime": "2023-01-01T00:01:00Z"},
			},
		},
	}}
}

// retiredSchema is the version in the CRD of the retired project: it has no status subresource, and admits anything here.
func retiredSchema() map[string]any {
	return map[string]any{
		"name": "v1alpha1", "served": true, "storage": true,
		"schema": map[string]any{"openAPIV3Schema": map[string]any{"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
	}
}

func (f fixture) crd(resource string) *unstructured.Unstructured {
	f.Helper()
	crd := &unstructured.Unstructured{}
	crd.SetAPIVersion("apiextensions.k8s.io/v1")
	crd.SetKind("CustomResourceDefinition")
	if err := f.Get(f.Context(), client.ObjectKey{Name: resource + "." + tenancyv1alpha1.Group}, crd); err != nil {
		f.Fatalf("Get: %v", err)
	}
	return crd
}

// replaceSchema changes the CRD of VirtualClusters in place, as an upgrade does.
func (f fixture) replaceSchema(versions []any) {
	f.Helper()
	crd := f.crd("virtualclusters")
	if err := unstructured.SetNestedSlice(crd.Object, versions, "spec", "versions"); err != nil {
		f.Fatal(err)
	}
	if err := f.Update(f.Context(), crd); err != nil {
		f.Fatalf("Update: %v", err)
	}
}

func (f fixture) readyNode(name, ip string) {
	f.Helper()
	f.create(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{
		Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: ip}},
		Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
	}})
}

// applyStrictly creates an object as kubectl does, which has fields refused that the API does not know.
func (f fixture) applyStrictly(manifest string) {
	f.Helper()
	object := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(manifest), &object.Object); err != nil {
		f.Fatal(err)
	}
	if err := f.Create(f.Context(), object, client.FieldValidation(metav1.FieldValidationStrict)); err != nil {
		f.Fatalf("creating %s %s: %v", object.GetKind(), object.GetName(), err)
	}
}

func (f fixture) sampleVirtualCluster() *tenancyv1alpha1.VirtualCluster {
	f.Helper()
	manifest, err := retired.VirtualCluster()
	if err != nil {
		f.Fatal(err)
	}
	f.applyStrictly(manifest)
	return &tenancyv1alpha1.VirtualCluster{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "vc-sample-1"}}
}

func (f fixture) secret(namespace, name string) *corev1.Secret {
	f.Helper()
	secret := &corev1.Secret{}
	if err := f.Get(f.Context(), client.ObjectKey{Namespace: namespace, Name: name}, secret); err != nil {
		f.Fatalf("Get: %v", err)
	}
	return secret
}

// warn records what a kubelet says of a pod.
func (f fixture) warn(pod *corev1.Pod, reason, message string) {
	f.Helper()
	now := metav1.Now()
	f.create(&corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: pod.Namespace, GenerateName: pod.Name + "."},
		InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Type:           corev1.EventTypeWarning, Reason: reason, Message: message, FirstTimestamp: now, LastTimestamp: now,
		Source: corev1.EventSource{Component: "kubelet"},
	})
}

// unready takes a running pod out of service.
func (f fixture) unready(pod *corev1.Pod) {
	f.Helper()
	if err := f.Get(f.Context(), client.ObjectKeyFromObject(pod), pod); err != nil {
		f.Fatalf("Get: %v", err)
	}
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == corev1.PodReady {
			pod.Status.Conditions[i].Status = corev1.ConditionFalse
		}
	}
	if err := f.Status().Update(f.Context(), pod); err != nil {
		f.Fatalf("updating the status of pod %s: %v", pod.Name, err)
	}
}

func (f fixture) awaitEvent(reason, message string) {
	f.Helper()
	worlds.Eventually(f.T, patience, "event "+reason, func(ctx context.Context) error {
		var list corev1.EventList
		if err := f.List(ctx, &list); err != nil {
			return err
		}
		if !slices.ContainsFunc(list.Items, func(e corev1.Event) bool { return e.Reason == reason && strings.Contains(e.Message, message) }) {
			return fmt.Errorf("not among %d events", len(list.Items))
		}
		return nil
	})
}

func certificate(t *testing.T, data []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(data)
	if block == nil {
		t.Fatal("no certificate in PEM")
	}
	parsed, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// kubelet runs the programs of a control plane's pods in processes of this machine: with the command line and the files of the pod,
// and a port of its own for each port of the pod. Instead of 0.0.0.0 and names in DNS there is localhost, which certificates name too.
type kubelet struct {
	fixture
	super *worlds.World
	dir   string
	ports map[string]string
}

func newKubelet(t *testing.T, f fixture, super *worlds.World, apiServerPort int) kubelet {
	t.Helper()
	k := kubelet{fixture: f, super: super, dir: t.TempDir(), ports: map[string]string{"6443": fmt.Sprint(apiServerPort)}}
	for _, port := range []string{"2379", "2380", "10257"} {
		listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_, k.ports[port], _ = net.SplitHostPort(listener.Addr().String())
		if err := listener.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return k
}

// run mounts the volumes of a pod, starts its program, and reports the pod as ready once its readiness probe succeeds.
func (k kubelet) run(pod *corev1.Pod, ip string) {
	k.Helper()
	container := pod.Spec.Containers[0]
	paths := k.mount(pod, container)
	paths = append(paths, "/var/lib/etcd", filepath.Join(k.dir, pod.Name+"-data"))
	paths = append(paths, "$(HOSTNAME)", pod.Name, "https://0.0.0.0:", "https://127.0.0.1:", "=0.0.0.0", "=127.0.0.1", "etcd-0.etcd:", "localhost:", "https://etcd:", "https://localhost:")
	for inside, outside := range k.ports {
		paths = append(paths, ":"+inside, ":"+outside)
	}
	// One name may come to stand for another.
	local := func(arg string) string {
		return strings.NewReplacer(paths...).Replace(strings.NewReplacer(paths...).Replace(arg))
	}
	var args []string
	for _, arg := range container.Args {
		args = append(args, local(arg))
	}
	switch container.Command[0] {
	case "kube-apiserver":
		args = append(args, "--secure-port="+k.ports["6443"], "--advertise-address=198.18.200.1", "--cert-dir="+k.dir)
	case "kube-controller-manager":
		args = append(args, "--secure-port="+k.ports["10257"])
	}
	binary, err := worlds.Binary("", container.Command[0])
	if err != nil {
		k.Fatal(err)
	}
	worlds.Program(k.T, filepath.Join(k.dir, pod.Name+".log"), binary, args...)
	worlds.Eventually(k.T, time.Minute, pod.Name+" to be ready", func(ctx context.Context) error { return k.probe(ctx, container.ReadinessProbe, local) })
	k.super.RunPod(k.T, pod.Namespace, pod.Name, "node-1", ip)
}

// mount writes the Secrets that a container mounts into files. It returns pairs: where they are in the container, and here.
func (k kubelet) mount(pod *corev1.Pod, container corev1.Container) []string {
	k.Helper()
	var paths []string
	for _, m := range container.VolumeMounts {
		i := slices.IndexFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name })
		if pod.Spec.Volumes[i].Secret == nil {
			continue // the token of the service account
		}
		dir := filepath.Join(k.dir, pod.Name, m.Name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			k.Fatal(err)
		}
		for key, value := range k.secret(pod.Namespace, pod.Spec.Volumes[i].Secret.SecretName).Data {
			if strings.HasSuffix(key, "kubeconfig") {
				value = k.redirect(value)
			}
			if err := os.WriteFile(filepath.Join(dir, key), value, 0o600); err != nil {
				k.Fatal(err)
			}
		}
		paths = append(paths, m.MountPath, dir)
	}
	return paths
}

// redirect makes a kubeconfig lead to the process in place of the Service.
func (k kubelet) redirect(kubeconfig []byte) []byte {
	k.Helper()
	config, err := clientcmd.Load(kubeconfig)
	if err != nil {
		k.Fatal(err)
	}
	for _, cluster := range config.Clusters {
		cluster.Server = "https://127.0.0.1:" + k.ports["6443"]
	}
	data, err := clientcmd.Write(*config)
	if err != nil {
		k.Fatal(err)
	}
	return data
}

// probe is one readiness probe. etcdctl asks etcd for its health with the certificates that its command names.
func (k kubelet) probe(ctx context.Context, probe *corev1.Probe, local func(string) string) error {
	config := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12} //nolint:gosec // As a kubelet's probes.
	var url string
	if probe.Exec != nil {
		flags := map[string]string{}
		for _, arg := range probe.Exec.Command {
			name, value, _ := strings.Cut(local(arg), "=")
			flags[name] = value
		}
		pair, err := tls.LoadX509KeyPair(flags["--cert"], flags["--key"])
		if err != nil {
			return fmt.Errorf("loading what %v names: %w", probe.Exec.Command, err)
		}
		ca, err := os.ReadFile(flags["--cacert"])
		if err != nil {
			return fmt.Errorf("loading what %v names: %w", probe.Exec.Command, err)
		}
		config = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool(), Certificates: []tls.Certificate{pair}, ServerName: "etcd"}
		config.RootCAs.AppendCertsFromPEM(ca)
		url = flags["--endpoints"] + "/health"
	} else {
		url = strings.ToLower(string(probe.HTTPGet.Scheme)) + "://127.0.0.1:" + k.ports[probe.HTTPGet.Port.String()] + probe.HTTPGet.Path
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}
	response, err := (&http.Client{Transport: transport, Timeout: 5 * time.Second}).Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, response.Status)
	}
	return nil
}
