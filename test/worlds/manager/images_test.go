package manager_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/go-logr/logr/testr"
	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/controllers"
	"github.com/virtualcluster-io/virtualcluster/controllers/images"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

func TestInvalidClusterVersionsAreRefused(t *testing.T) {
	t.Parallel()
	f := startManager(t, worlds.Start(t, worlds.Options{}).Super)
	const registry = "write host[:port][/path], without a scheme such as https:// and without a slash at the end"
	for name, tc := range map[string]struct {
		change func(*tenancyv1alpha1.ClusterVersionSpec)
		want   string
	}{
		"Scheme": {func(s *tenancyv1alpha1.ClusterVersionSpec) { s.ImageRegistry = "https://registry.example.com" }, registry},
		"Slash":  {func(s *tenancyv1alpha1.ClusterVersionSpec) { s.ImageRegistry = "registry.example.com/" }, registry},
		"NoName": {func(s *tenancyv1alpha1.ClusterVersionSpec) {
			s.ImagePullSecrets = make([]corev1.LocalObjectReference, 1)
		}, "needs the name of a Secret"},
		"NoNameForCoreDNS": {func(s *tenancyv1alpha1.ClusterVersionSpec) {
			s.CoreDNS = &tenancyv1alpha1.ImageTemplate{ImagePullSecrets: make([]corev1.LocalObjectReference, 1)}
		}, "needs the name of a Secret"},
		"Valid": {func(s *tenancyv1alpha1.ClusterVersionSpec) {
			s.ImageRegistry = "registry.example.com:5000/k8s"
			s.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "a"}, {Name: "b"}}
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			version := &tenancyv1alpha1.ClusterVersion{ObjectMeta: metav1.ObjectMeta{Name: strings.ToLower(name)}, Spec: tenancyv1alpha1.ClusterVersionSpec{Version: "v1.36.3"}}
			tc.change(&version.Spec)
			err := f.Create(t.Context(), version)
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestBadRegistryOfTheManagerIsAnError(t *testing.T) {
	t.Parallel()
	super := worlds.Start(t, worlds.Options{}).Super
	err := controllers.Run(t.Context(), super.Config, controllers.Options{Images: images.Defaults{Registry: "https://registry.example.com"}}, testr.New(t))
	if err == nil || !strings.Contains(err.Error(), "without a scheme") {
		t.Errorf("got %v", err)
	}
}

// Images come from a private registry: its credentials go where images are pulled, stay current, and are missed visibly.
func TestPrivateRegistry(t *testing.T) {
	t.Parallel()
	w := worlds.Start(t, worlds.Options{Tenants: 1, SuperControllers: superControllers()})
	f := startManager(t, w.Super, func(o *controllers.Options) {
		o.Images = images.Defaults{Registry: "registry.example.com/k8s", PullSecrets: []string{"all", "more"}, CoreDNSPullSecrets: []string{"read"}}
	})
	f.version("v1", "true")
	const condition, missing = tenancyv1alpha1.ConditionPullSecretsReady, "PullSecretMissing"

	f.create(credentials("all", "registry.example.com", "one"))
	vc := f.virtualCluster("a", tenancyv1alpha1.VirtualClusterSpec{})
	vc = f.awaitStalled(vc, condition, missing, "Secret vc-system/more, which has the credentials for images, does not exist; create it")
	root := vc.Status.ClusterNamespace
	// Nodes may have the images all the same.
	etcd := f.awaitPod(root, "etcd-0")
	if got := etcd.Spec.Containers[0].Image; got != "registry.example.com/k8s/etcd:3.6.8-0" {
		t.Errorf("the image is %s", got)
	}
	if diff := cmp.Diff([]corev1.LocalObjectReference{{Name: "image-pull"}}, etcd.Spec.ImagePullSecrets); diff != "" {
		t.Errorf("Secrets that pull images (-want +got):\n%s", diff)
	}
	f.quiet(vc)

	f.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "vc-system", Name: "more"}, Data: map[string][]byte{"password": []byte("hidden")}})
	f.awaitStalled(vc, condition, "PullSecretInvalid", "the Secret more is of type Opaque")
	f.delete(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "vc-system", Name: "more"}})
	more := credentials("more", "other.example.com", "two")
	f.create(more)
	f.awaitCondition(vc, condition, metav1.ConditionTrue, "Succeeded", "image-pull")
	f.awaitCredentials(f.Client, root, "image-pull", auths("other.example.com", "two", "registry.example.com", "one"))

	t.Run("CredentialsStayCurrent", func(*testing.T) {
		more.Data = credentials("more", "other.example.com", "three").Data
		if err := f.Update(t.Context(), more); err != nil {
			t.Fatalf("Update: %v", err)
		}
		f.awaitCredentials(f.Client, root, "image-pull", auths("other.example.com", "three", "registry.example.com", "one"))
	})

	t.Run("ClusterVersionDecides", func(*testing.T) {
		own := &tenancyv1alpha1.ClusterVersion{ObjectMeta: metav1.ObjectMeta{Name: "own"}, Spec: tenancyv1alpha1.ClusterVersionSpec{
			Version: "v1.35.4", ImageRegistry: "own.example.com", ImagePullSecrets: []corev1.LocalObjectReference{{Name: "all"}},
		}}
		f.create(own)
		b := f.awaitCondition(f.virtualCluster("b", tenancyv1alpha1.VirtualClusterSpec{ClusterVersionName: "own"}), condition, metav1.ConditionTrue, "Succeeded", "")
		if got := f.awaitPod(b.Status.ClusterNamespace, "etcd-0").Spec.Containers[0].Image; got != "own.example.com/etcd:3.6.6-0" {
			t.Errorf("the image is %s", got)
		}
		f.awaitCredentials(f.Client, b.Status.ClusterNamespace, "image-pull", auths("registry.example.com", "one"))
	})

	t.Run("CoreDNS", func(t *testing.T) { testCoreDNSCredentials(t, f, w.Tenants[0]) })
}

func testCoreDNSCredentials(t *testing.T, f fixture, tenant *worlds.World) {
	f.T = t
	f.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: tenants, Name: "tenant"}, Data: map[string][]byte{"kubeconfig": tenant.Kubeconfig}})
	vc := f.virtualCluster("external", tenancyv1alpha1.VirtualClusterSpec{
		ServiceCIDR:  tenant.ServiceRanges.String(),
		CoreDNS:      tenancyv1alpha1.CoreDNSSpec{Enabled: new(true)},
		ControlPlane: tenancyv1alpha1.ControlPlaneSpec{Type: tenancyv1alpha1.External, External: secretReference("tenant")},
	})
	f.awaitStalled(vc, tenancyv1alpha1.ConditionCoreDNSInstalled, "PullSecretMissing", "Secret vc-system/read")
	read := credentials("read", "registry.example.com", "read-only")
	f.create(read)
	vc = f.awaitReady(vc)

	c, err := client.New(tenant.Config, client.Options{})
	if err != nil {
		t.Fatalf("client.New: %v", err)
	}
	deployment := &appsv1.Deployment{}
	if err := c.Get(t.Context(), client.ObjectKey{Namespace: metav1.NamespaceSystem, Name: "coredns"}, deployment); err != nil {
		t.Fatalf("Get: %v", err)
	}
	pod := deployment.Spec.Template.Spec
	if got, want := pod.Containers[0].Image, (images.Source{Registry: "registry.example.com/k8s", Version: vc.Status.Version}).Image(images.CoreDNS); got != want {
		t.Errorf("the image is %s, want %s", got, want)
	}
	if diff := cmp.Diff([]corev1.LocalObjectReference{{Name: "coredns-image-pull"}}, pod.ImagePullSecrets); diff != "" {
		t.Errorf("Secrets that pull images (-want +got):\n%s", diff)
	}
	f.awaitCredentials(c, metav1.NamespaceSystem, "coredns-image-pull", auths("registry.example.com", "read-only"))
	read.Data = credentials("read", "registry.example.com", "renewed").Data
	if err := f.Update(t.Context(), read); err != nil {
		t.Fatalf("Update: %v", err)
	}
	f.awaitCredentials(c, metav1.NamespaceSystem, "coredns-image-pull", auths("registry.example.com", "renewed"))
}

// Credentials that are not asked for any more do not stay in the root namespace.
func TestCredentialsGoWhenNobodyAsksForThem(t *testing.T) {
	t.Parallel()
	f := startManager(t, worlds.Start(t, worlds.Options{SuperControllers: superControllers()}).Super)
	version := f.version("v1", "true")
	f.create(credentials("all", "registry.example.com", "one"))
	set := func(secrets ...corev1.LocalObjectReference) {
		base := version.DeepCopy()
		version.Spec.ImagePullSecrets = secrets
		if err := f.Patch(t.Context(), version, client.MergeFrom(base)); err != nil {
			t.Fatalf("Patch: %v", err)
		}
	}
	set(corev1.LocalObjectReference{Name: "all"})
	vc := f.awaitCondition(f.virtualCluster("a", tenancyv1alpha1.VirtualClusterSpec{}), tenancyv1alpha1.ConditionPullSecretsReady, metav1.ConditionTrue, "Succeeded", "")
	f.awaitCredentials(f.Client, vc.Status.ClusterNamespace, "image-pull", auths("registry.example.com", "one"))
	set()
	f.awaitCredentials(f.Client, vc.Status.ClusterNamespace, "image-pull", auths())
	worlds.Eventually(t, patience, "pods that name no Secret", func(ctx context.Context) error {
		etcd := &appsv1.StatefulSet{}
		if err := f.Get(ctx, client.ObjectKey{Namespace: vc.Status.ClusterNamespace, Name: names.Etcd}, etcd); err != nil {
			return err
		}
		if got := etcd.Spec.Template.Spec.ImagePullSecrets; len(got) > 0 {
			return fmt.Errorf("they name %v", got)
		}
		return nil
	})
}

// credentials is a Secret for pulling images, in the namespace of vc-manager.
func credentials(name, registry, auth string) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "vc-system", Name: name},
		Type:       corev1.SecretTypeDockerConfigJson,
		Data:       map[string][]byte{corev1.DockerConfigJsonKey: []byte(auths(registry, auth))},
	}
}

// auths is the content of such a Secret: registries in the order of their names, each followed by its credentials.
func auths(pairs ...string) string {
	var list []string
	for i := 0; i < len(pairs); i += 2 {
		list = append(list, fmt.Sprintf(`%q:{"auth":%q}`, pairs[i], pairs[i+1]))
	}
	return `{"auths":{` + strings.Join(list, ",") + `}}`
}

func (f fixture) awaitCredentials(c client.Client, namespace, name, want string) {
	f.Helper()
	worlds.Eventually(f.T, patience, "the credentials in "+name, func(ctx context.Context) error {
		secret := &corev1.Secret{}
		if err := c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, secret); err != nil {
			return err
		}
		if got := string(secret.Data[corev1.DockerConfigJsonKey]); got != want || secret.Type != corev1.SecretTypeDockerConfigJson {
			return fmt.Errorf("it is of type %s and has %s, want %s", secret.Type, got, want)
		}
		return nil
	})
}
