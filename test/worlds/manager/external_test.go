package manager_test

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/internal/iprange"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

func secretReference(name string) *tenancyv1alpha1.ExternalControlPlane {
	return &tenancyv1alpha1.ExternalControlPlane{KubeconfigSecret: tenancyv1alpha1.SecretKeyReference{Name: name}}
}

func (f fixture) setKubeconfig(secret *corev1.Secret, kubeconfig []byte) {
	f.Helper()
	base := secret.DeepCopy()
	secret.Data = map[string][]byte{"kubeconfig": kubeconfig}
	if err := f.Patch(f.Context(), secret, client.MergeFrom(base)); err != nil {
		f.Fatalf("Patch: %v", err)
	}
}

func TestExternalControlPlane(t *testing.T) {
	t.Parallel()
	w := worlds.Start(t, worlds.Options{Tenants: 2, SuperControllers: superControllers()})
	f := startManager(t, w.Super)
	vc := f.virtualCluster("a", tenancyv1alpha1.VirtualClusterSpec{
		ServiceCIDR:  w.Tenants[0].ServiceRanges.String(),
		ControlPlane: tenancyv1alpha1.ControlPlaneSpec{Type: tenancyv1alpha1.External, External: secretReference("tenant")},
	})
	f.awaitStalled(vc, tenancyv1alpha1.ConditionKubeconfigReady, "KubeconfigSecretMissing", "Secret tenants/tenant does not exist; create it")
	f.quiet(vc)

	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: tenants, Name: "tenant"}, Data: map[string][]byte{"wrong": []byte("x")}}
	f.create(secret)
	f.awaitStalled(vc, tenancyv1alpha1.ConditionKubeconfigReady, "KubeconfigSecretMissing", `has no key "kubeconfig"`)
	f.setKubeconfig(secret, []byte("apiVersion: v1\nkind: Config\n"))
	f.awaitStalled(vc, tenancyv1alpha1.ConditionKubeconfigReady, "KubeconfigInvalid", "it has no current context")

	w.Tenants[0].Kill()
	f.setKubeconfig(secret, w.Tenants[0].Kubeconfig)
	f.awaitCondition(vc, tenancyv1alpha1.ConditionAPIServerReady, metav1.ConditionFalse, "Unreachable", "connection refused")
	if err := w.Tenants[0].Restart(t.Context()); err != nil {
		t.Fatalf("Restart: %v", err)
	}
	vc = f.awaitReady(vc)

	t.Run("StatusSaysEverything", func(t *testing.T) {
		status := vc.Status
		system, err := w.Tenants[0].Client.CoreV1().Namespaces().Get(t.Context(), metav1.NamespaceSystem, metav1.GetOptions{})
		if err != nil {
			t.Fatalf("Get: %v", err)
		}
		if status.ControlPlaneUID != string(system.UID) {
			t.Errorf("controlPlaneUID is %s, want %s", status.ControlPlaneUID, system.UID)
		}
		if status.Endpoint != w.Tenants[0].Config.Host || status.ServiceCIDR != w.Tenants[0].ServiceRanges.String() || status.Version == "" {
			t.Errorf("status is %+v", status)
		}
		if ref := status.KubeconfigSecret; ref == nil || ref.Name != "tenant" || ref.Key != "kubeconfig" {
			t.Errorf("kubeconfigSecret is %+v", ref)
		}
		f.awaitCondition(vc, tenancyv1alpha1.ConditionCoreDNSInstalled, metav1.ConditionTrue, "Succeeded", "is not asked for")
	})

	t.Run("AnotherControlPlaneIsRefused", func(*testing.T) {
		f.setKubeconfig(secret, w.Tenants[1].Kubeconfig)
		f.awaitStalled(vc, tenancyv1alpha1.ConditionIdentityVerified, "IdentityChanged", "its data was lost or replaced")
		f.setKubeconfig(secret, w.Tenants[0].Kubeconfig)
		f.awaitReady(vc)
	})

	t.Run("CoreDNSCanBeAskedFor", func(t *testing.T) {
		// As an earlier version left it, with something of the tenant's own.
		configs := w.Tenants[0].Client.CoreV1().ConfigMaps(metav1.NamespaceSystem)
		old := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "coredns"}, Data: map[string]string{"Corefile": ".:1053 {\n    errors\n    log\n}\n"}}
		if _, err := configs.Create(t.Context(), old, metav1.CreateOptions{}); err != nil {
			t.Fatalf("Create: %v", err)
		}
		base := vc.DeepCopy()
		vc.Spec.CoreDNS.Enabled = new(true)
		if err := f.Patch(t.Context(), vc, client.MergeFrom(base)); err != nil {
			t.Fatalf("Patch: %v", err)
		}
		f.awaitCondition(vc, tenancyv1alpha1.ConditionCoreDNSInstalled, metav1.ConditionTrue, "Succeeded", "CoreDNS is installed")
		service, err := w.Tenants[0].Client.CoreV1().Services(metav1.NamespaceSystem).Get(t.Context(), "kube-dns", metav1.GetOptions{})
		if err != nil {
			t.Fatalf("Get: %v", err)
		}
		if want := iprange.DNS(w.Tenants[0].ServiceRanges.Primary()).String(); service.Spec.ClusterIP != want {
			t.Errorf("kube-dns has %s, want %s", service.Spec.ClusterIP, want)
		}
		config, err := configs.Get(t.Context(), "coredns", metav1.GetOptions{})
		if err != nil {
			t.Fatalf("Get: %v", err)
		}
		if want := ".:53 {\n    errors\n    log\n}\n"; config.Data["Corefile"] != want {
			t.Errorf("the configuration is %q, want %q", config.Data["Corefile"], want)
		}
	})

	t.Run("DeletionLeavesNothing", func(t *testing.T) { testExternalDeletion(t, f, vc) })
}

// testExternalDeletion deletes a VirtualCluster for which a syncer has made things.
func testExternalDeletion(t *testing.T, f fixture, vc *tenancyv1alpha1.VirtualCluster) {
	f.T = t
	root := vc.Status.ClusterNamespace
	namespace := func(name, uid string) *corev1.Namespace {
		n := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
			Name:        name,
			Labels:      map[string]string{names.LabelTenant: root, names.LabelManagedBy: names.Syncer},
			Annotations: map[string]string{names.AnnotationVirtualCluster: tenants + "/a", names.AnnotationVirtualClusterUID: uid},
		}}
		f.create(n)
		return n
	}
	shop, foreign := namespace("shop", string(vc.UID)), namespace("foreign", "somebody-else")
	f.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: shop.Name, Name: "held", Finalizers: []string{"example.org/hold"}}})
	volume := func(name string, policy corev1.PersistentVolumeReclaimPolicy) *corev1.PersistentVolume {
		v := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeSpec{
			AccessModes:                   []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
			PersistentVolumeSource:        corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "example.org", VolumeHandle: name}},
			PersistentVolumeReclaimPolicy: policy,
			ClaimRef:                      &corev1.ObjectReference{Kind: "PersistentVolumeClaim", Namespace: shop.Name, Name: name},
		}}
		f.create(v)
		return v
	}
	deleted, retained := volume("deleted", corev1.PersistentVolumeReclaimDelete), volume("retained", corev1.PersistentVolumeReclaimRetain)

	f.delete(vc)
	f.eventually(vc, "the phase Deleting and what it waits for", func(vc *tenancyv1alpha1.VirtualCluster) error {
		if want := "shop (Some content in the namespace has finalizers remaining"; vc.Status.Phase != tenancyv1alpha1.PhaseDeleting || !strings.Contains(vc.Status.Message, want) {
			return fmt.Errorf("want %q", want)
		}
		return nil
	})
	// The control plane's namespace goes only after the tenant's.
	if err := f.Get(t.Context(), client.ObjectKey{Name: root}, &corev1.Namespace{}); err != nil {
		t.Errorf("the root namespace is gone too early: %v", err)
	}
	held := &corev1.ConfigMap{}
	if err := f.Get(t.Context(), client.ObjectKey{Namespace: shop.Name, Name: "held"}, held); err != nil {
		t.Fatalf("Get: %v", err)
	}
	held.Finalizers = nil
	if err := f.Update(t.Context(), held); err != nil {
		t.Fatalf("Update: %v", err)
	}
	f.awaitGone(shop)
	f.eventually(vc, "the volume to be waited for", func(vc *tenancyv1alpha1.VirtualCluster) error {
		if want := "waiting for these volumes to be gone: deleted"; vc.Status.Message != want {
			return fmt.Errorf("want %q", want)
		}
		return nil
	})
	f.delete(deleted)
	// Nobody plays the controller that lifts the protection of volumes.
	if err := f.Patch(t.Context(), deleted, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`))); err != nil {
		t.Fatalf("Patch: %v", err)
	}
	f.awaitGone(vc)

	for what, object := range map[string]client.Object{"a namespace that is not the tenant's": foreign, "a volume that is to be retained": retained} {
		if err := f.Get(t.Context(), client.ObjectKeyFromObject(object), object); err != nil || object.GetDeletionTimestamp() != nil {
			t.Errorf("%s was deleted (%v)", what, err)
		}
	}
	if err := f.Get(t.Context(), client.ObjectKey{Namespace: tenants, Name: "tenant"}, &corev1.Secret{}); err != nil {
		t.Errorf("the Secret with the kubeconfig, which is the user's: %v", err)
	}
}
