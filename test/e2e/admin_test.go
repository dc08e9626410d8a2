package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/test/e2e/local"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

// readyTimeout is generous: the tests measure nothing, and other tests use the machine.
const readyTimeout = 2 * time.Minute

func TestAdminSeesVirtualClusters(t *testing.T) {
	cluster, a, b := open(t)
	table := strings.Split(strings.TrimSpace(must(t, cluster.Super, "get", "vc", "-A")), "\n")
	if got, want := strings.Fields(table[0]), []string{"NAMESPACE", "NAME", "PHASE", "VERSION", "ENDPOINT", "AGE"}; !slices.Equal(got, want) {
		t.Errorf("columns %q, want %q", got, want)
	}
	for _, tenant := range []*local.Tenant{a, b} {
		vc := tenant.VirtualCluster
		row := regexp.MustCompile(fmt.Sprintf(`(?m)^%s\s+%s\s+Running\s+v1\.\d+\.\d+\S*\s+https://\S+:\d+\s+\d+\S*$`, vc.Namespace, vc.Name))
		if !row.MatchString(strings.Join(table, "\n")) {
			t.Errorf("no row for %s with phase, version, endpoint and age in\n%s", vc.Name, strings.Join(table, "\n"))
		}
		must(t, cluster.Super, "-n", vc.Namespace, "wait", "--for=condition=Ready", "vc/"+vc.Name, "--timeout=30s")
		version, err := tenant.Client.Discovery().ServerVersion()
		if err != nil {
			t.Fatalf("asking %s for its version: %v", tenant.Name, err)
		}
		if version.GitVersion != vc.Status.Version {
			t.Errorf("%s reports %s, status says %s", tenant.Name, version.GitVersion, vc.Status.Version)
		}
		if vc.Status.ObservedGeneration != vc.Generation {
			t.Errorf("%s: observed generation %d, generation %d", vc.Name, vc.Status.ObservedGeneration, vc.Generation)
		}
	}
}

// makeNamespace creates a namespace in the super cluster for VirtualClusters of the test.
func makeNamespace(t *testing.T, cluster *local.Cluster) string {
	t.Helper()
	namespace := unique("e2e")
	must(t, cluster.Super, "create", "namespace", namespace)
	cleanup(t, cluster.Super, "delete", "namespace", namespace, "--ignore-not-found", "--timeout=2m")
	return namespace
}

// makeVC creates a VirtualCluster that is deleted when the test ends.
func makeVC(t *testing.T, cluster *local.Cluster, namespace, name, spec string) {
	t.Helper()
	manifest := fmt.Sprintf(`{"apiVersion":"tenancy.x-k8s.io/v1alpha1","kind":"VirtualCluster","metadata":{"namespace":%q,"name":%q},"spec":%s}`, namespace, name, spec)
	mustInput(t, cluster.Super, manifest, "create", "-f", "-")
	cleanup(t, cluster.Super, "-n", namespace, "delete", "vc", name, "--ignore-not-found", "--timeout=2m")
}

// awaitVC waits until a VirtualCluster is as wanted and returns it.
func awaitVC(t *testing.T, cluster *local.Cluster, namespace, name, what string, timeout time.Duration, ok func(*tenancyv1alpha1.VirtualCluster) bool) *tenancyv1alpha1.VirtualCluster {
	t.Helper()
	var got *tenancyv1alpha1.VirtualCluster
	worlds.Eventually(t, timeout, what, func(ctx context.Context) error {
		var err error
		if got, err = cluster.VirtualCluster(ctx, namespace, name); err != nil {
			return err
		}
		if !ok(got) {
			return fmt.Errorf("%s/%s: %s", namespace, name, local.Conditions(got))
		}
		return nil
	})
	return got
}

func isReady(vc *tenancyv1alpha1.VirtualCluster) bool {
	return apimeta.IsStatusConditionTrue(vc.Status.Conditions, tenancyv1alpha1.ConditionReady)
}

// saysNo says whether some condition is not as it should be and mentions the text in its message.
func saysNo(text string) func(*tenancyv1alpha1.VirtualCluster) bool {
	return func(vc *tenancyv1alpha1.VirtualCluster) bool {
		return slices.ContainsFunc(vc.Status.Conditions, func(c metav1.Condition) bool {
			bad := c.Status == metav1.ConditionFalse
			if c.Type == tenancyv1alpha1.ConditionStalled || c.Type == tenancyv1alpha1.ConditionReconciling {
				bad = c.Status == metav1.ConditionTrue
			}
			return bad && strings.Contains(c.Message, text)
		})
	}
}

func TestDeletedVirtualClusterLeavesNothing(t *testing.T) {
	cluster, a, b := open(t)
	for _, tenant := range []*local.Tenant{a, b} { // may have been made a moment ago, and is not what this test is about
		must(t, tenant.Access, "-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=1m")
	}
	namespace := makeNamespace(t, cluster)
	worlds.Eventually(t, 30*time.Second, "the namespace to be complete", func(ctx context.Context) error {
		_, err := cluster.Super.Client.CoreV1().ConfigMaps(namespace).Get(ctx, names.RootCAConfigMap, metav1.GetOptions{})
		return err
	})
	before := everything(t, cluster.Super)

	makeVC(t, cluster, namespace, "short", `{}`)
	must(t, cluster.Super, "-n", namespace, "wait", "--for=condition=Ready", "vc/short", fmt.Sprintf("--timeout=%s", readyTimeout))
	vc, err := cluster.VirtualCluster(t.Context(), namespace, "short")
	if err != nil {
		t.Fatal(err)
	}
	if vc.Status.ReadyAfterSeconds == nil || *vc.Status.ReadyAfterSeconds <= 0 {
		t.Errorf("readyAfterSeconds is %v", vc.Status.ReadyAfterSeconds)
	}
	tenant, err := cluster.Tenant(t.Context(), vc, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	// Ready means that CoreDNS is installed. Its pod starts at the same time as those of the shop.
	must(t, tenant.Access, "-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=1m")
	s := &shop{Tenant: tenant, cluster: cluster, namespace: unique("shop"), colour: "green"}
	s.open(t)
	if got := s.run(t, "wget -q -O- -T 5 http://web"); got != "green\n" {
		t.Errorf("the shop answers %q", got)
	}

	must(t, cluster.Super, "-n", namespace, "delete", "vc", "short", "--timeout=2m")
	worlds.Eventually(t, 90*time.Second, "the super cluster to be as before", func(ctx context.Context) error {
		after, err := listEverything(ctx, cluster.Super)
		if err != nil {
			return err
		}
		var left []string
		for key, object := range after {
			if _, old := before[key]; !old && lasting(object) {
				left = append(left, key)
			}
		}
		if len(left) > 0 {
			slices.Sort(left)
			return fmt.Errorf("%d objects are left: %s", len(left), strings.Join(left, ", "))
		}
		return nil
	})
	// Nor did it take anything with it.
	after := everything(t, cluster.Super)
	for key, object := range before {
		if _, ok := after[key]; !ok && lasting(object) && object.GetNamespace() != namespace && object.GetDeletionTimestamp() == nil {
			t.Errorf("%s is gone", key)
		}
	}
	if err := unreachable(t.Context(), tenant); err != nil {
		t.Error(err)
	}
}

// lasting leaves out what comes and goes by itself: records about other objects, and what controllers make of them.
func lasting(object unstructured.Unstructured) bool {
	switch object.GetKind() {
	case "Event", "Lease":
		return false
	case "Pod":
		// The provisioner of the super cluster makes and deletes pods for volumes.
		return object.GetNamespace() != "local-path-storage"
	}
	return true
}

func unreachable(ctx context.Context, tenant *local.Tenant) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if _, err := tenant.Client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{}); err == nil {
		return fmt.Errorf("the control plane of %s still answers", tenant.Name)
	}
	return nil
}

func TestMissingClusterVersion(t *testing.T) {
	cluster, _, _ := open(t)
	namespace := makeNamespace(t, cluster)
	version := unique("missing")
	makeVC(t, cluster, namespace, "vc", fmt.Sprintf(`{"clusterVersionName":%q}`, version))
	awaitVC(t, cluster, namespace, "vc", "a condition that names the ClusterVersion", 30*time.Second, saysNo(version))
	assertQuiet(t, cluster, namespace, "vc")

	copyDefaultVersion(t, cluster, version, nil)
	awaitVC(t, cluster, namespace, "vc", "recovery", readyTimeout, isReady)
}

// copyDefaultVersion creates a ClusterVersion like the default one, changed.
func copyDefaultVersion(t *testing.T, cluster *local.Cluster, name string, change func(*unstructured.Unstructured)) {
	t.Helper()
	resource := cluster.Super.Dynamic.Resource(tenancyv1alpha1.GroupVersion().WithResource("clusterversions"))
	list, err := resource.List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatalf("listing ClusterVersions: %v", err)
	}
	for _, item := range list.Items {
		if item.GetAnnotations()[tenancyv1alpha1.DefaultVersionAnnotation] != "true" {
			continue
		}
		version := &unstructured.Unstructured{Object: map[string]any{"spec": item.Object["spec"]}}
		version.SetGroupVersionKind(item.GroupVersionKind())
		version.SetName(name)
		if change != nil {
			change(version)
		}
		if _, err := resource.Create(t.Context(), version, metav1.CreateOptions{}); err != nil {
			t.Fatalf("creating ClusterVersion %s: %v", name, err)
		}
		cleanup(t, cluster.Super, "delete", "clusterversion", name, "--ignore-not-found", "--timeout=30s")
		return
	}
	t.Fatal("no ClusterVersion is marked as the default")
}

// assertQuiet fails when somebody keeps writing the object: a retry storm.
func assertQuiet(t *testing.T, cluster *local.Cluster, namespace, name string) {
	t.Helper()
	versions := map[string]bool{}
	worlds.Throughout(t, 6*time.Second, "few writes", func(ctx context.Context) error {
		vc, err := cluster.VirtualCluster(ctx, namespace, name)
		if err != nil {
			return err
		}
		versions[vc.ResourceVersion] = true
		if len(versions) > 5 {
			return fmt.Errorf("%d resource versions were seen: %s", len(versions), local.Conditions(vc))
		}
		return nil
	})
}

func TestOverlappingServiceCIDR(t *testing.T) {
	cluster, a, _ := open(t)
	namespace := makeNamespace(t, cluster)
	cidr := a.VirtualCluster.Status.ServiceCIDR
	if cidr == "" {
		t.Fatalf("%s has no service CIDR of its own", a.Name)
	}
	makeVC(t, cluster, namespace, "vc", fmt.Sprintf(`{"serviceCidr":%q}`, cidr))
	awaitVC(t, cluster, namespace, "vc", "a condition that names the range", 30*time.Second, saysNo(cidr))
	assertQuiet(t, cluster, namespace, "vc")
	must(t, cluster.Super, "-n", namespace, "delete", "vc", "vc", "--timeout=60s")
	// The range is still the other tenant's.
	awaitVC(t, cluster, a.VirtualCluster.Namespace, a.VirtualCluster.Name, "the owner of the range to stay ready", 10*time.Second, isReady)
}

func TestInvalidVirtualClustersAreRefusedWithAReason(t *testing.T) {
	cluster, _, _ := open(t)
	for name, tc := range map[string]struct{ name, spec, want string }{
		"LongName":         {strings.Repeat("n", 64), `{}`, "at most 63 characters"},
		"NotACIDR":         {"vc", `{"serviceCidr":"10.0.0.0"}`, "CIDR notation"},
		"ExternalWithout":  {"vc", `{"controlPlane":{"type":"External"}}`, "kubeconfigSecret"},
		"ExternalNoRange":  {"vc", `{"controlPlane":{"type":"External","external":{"kubeconfigSecret":{"name":"x"}}}}`, "needs serviceCidr"},
		"TwoReplicas":      {"vc", `{"controlPlane":{"replicas":2}}`, "1"},
		"UnknownExposure":  {"vc", `{"controlPlane":{"exposure":{"type":"Carrier"}}}`, "NodePort"},
		"DedicatedPlusExt": {"vc", `{"controlPlane":{"external":{"kubeconfigSecret":{"name":"x"}}}}`, "External"},
	} {
		t.Run(name, func(t *testing.T) {
			manifest := fmt.Sprintf(`{"apiVersion":"tenancy.x-k8s.io/v1alpha1","kind":"VirtualCluster","metadata":{"namespace":"default","name":%q},"spec":%s}`, tc.name, tc.spec)
			ctx, cancel := context.WithTimeout(t.Context(), local.CommandTimeout)
			defer cancel()
			got := try(t, manifest, cluster.Super.Command(ctx, "kubectl", "create", "--dry-run=server", "-f", "-"))
			if got.Code == 0 || !strings.Contains(got.Stderr, tc.want) {
				t.Errorf("want a refusal that mentions %q, got %s", tc.want, got)
			}
		})
	}
}

func TestControlPlaneImageThatCannotBePulled(t *testing.T) {
	cluster, _, _ := open(t)
	namespace := makeNamespace(t, cluster)
	version := unique("bad-image")
	const image = "registry.invalid/kube-apiserver:none"
	var good any
	copyDefaultVersion(t, cluster, version, func(v *unstructured.Unstructured) {
		good, _, _ = unstructured.NestedFieldCopy(v.Object, "spec", "apiServer")
		if err := unstructured.SetNestedField(v.Object, image, "spec", "apiServer", "image"); err != nil {
			t.Fatal(err)
		}
	})
	makeVC(t, cluster, namespace, "vc", fmt.Sprintf(`{"clusterVersionName":%q}`, version))
	awaitVC(t, cluster, namespace, "vc", "a condition that names the image", time.Minute, saysNo(image))
	assertQuiet(t, cluster, namespace, "vc")

	patch, err := json.Marshal([]map[string]any{
		{"op": "remove", "path": "/spec/apiServer"},
		{"op": "add", "path": "/spec/apiServer", "value": orEmpty(good)},
	})
	if err != nil {
		t.Fatal(err)
	}
	must(t, cluster.Super, "patch", "clusterversion", version, "--type=json", "-p", string(patch))
	awaitVC(t, cluster, namespace, "vc", "recovery", readyTimeout, isReady)
}

func orEmpty(v any) any {
	if v == nil {
		return map[string]any{}
	}
	return v
}

func TestExternalControlPlane(t *testing.T) {
	cluster, _, _ := open(t)
	namespace := makeNamespace(t, cluster)

	// A control plane that exists: here, one that we provide ourselves and use like somebody else's.
	makeVC(t, cluster, namespace, "target", `{"coreDNS":{"enabled":false}}`)
	target := awaitVC(t, cluster, namespace, "target", "the control plane to be ready", readyTimeout, isReady)
	secret, err := cluster.Super.Client.CoreV1().Secrets(target.Status.ClusterNamespace).Get(t.Context(), names.AdminKubeconfigSecret, metav1.GetOptions{})
	if err != nil {
		t.Fatalf("getting the kubeconfig: %v", err)
	}
	kubeconfig := secret.Data[names.InternalKubeconfigKey]
	// A range that nobody has. Nothing is synchronised in this test, so it need not be the control plane's.
	const spare = "10.255.252.0/22"
	// An address of the super cluster's service range that nothing serves.
	const nowhere = "https://10.96.255.254:6443"
	wrong := regexp.MustCompile(`https://\S+`).ReplaceAll(kubeconfig, []byte(nowhere))
	dir := t.TempDir()
	for name, content := range map[string][]byte{"right": kubeconfig, "wrong": wrong} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	must(t, cluster.Super, "-n", namespace, "create", "secret", "generic", "external", "--from-file=kubeconfig="+filepath.Join(dir, "wrong"))
	makeVC(t, cluster, namespace, "vc", fmt.Sprintf(`{"serviceCidr":%q,"controlPlane":{"type":"External","external":{"kubeconfigSecret":{"name":"external"}}}}`, spare))
	awaitVC(t, cluster, namespace, "vc", "a condition that names the address", time.Minute, saysNo("10.96.255.254"))
	assertQuiet(t, cluster, namespace, "vc")

	patch, err := json.Marshal(corev1.Secret{Data: map[string][]byte{"kubeconfig": kubeconfig}})
	if err != nil {
		t.Fatal(err)
	}
	must(t, cluster.Super, "-n", namespace, "patch", "secret", "external", "-p", string(patch))
	awaitVC(t, cluster, namespace, "vc", "recovery", readyTimeout, isReady)

	must(t, cluster.Super, "-n", namespace, "delete", "vc", "vc", "--timeout=2m")
	// It was not ours to delete.
	if _, err := cluster.Super.Client.CoreV1().Namespaces().Get(t.Context(), target.Status.ClusterNamespace, metav1.GetOptions{}); apierrors.IsNotFound(err) {
		t.Error("deleting the External VirtualCluster deleted the control plane it pointed to")
	}
}
