package syncer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

// manifests decodes the objects of a YAML file.
func manifests(t *testing.T, file string) []*unstructured.Unstructured {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out []*unstructured.Unstructured
	decoder := utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader(content), 4096)
	for {
		u := &unstructured.Unstructured{}
		if err := decoder.Decode(&u.Object); errors.Is(err, io.EOF) {
			return out
		} else if err != nil {
			t.Fatal(err)
		}
		if len(u.Object) > 0 {
			out = append(out, u)
		}
	}
}

// installModuleCRDs installs into the super cluster the definitions in a folder of a module that test/crds pins.
func installModuleCRDs(t *testing.T, r *running, module, pattern string) {
	t.Helper()
	root, err := worlds.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	list := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", module)
	list.Dir = filepath.Join(root, "test", "crds")
	out, err := list.Output()
	if err != nil {
		t.Fatalf("finding module %s: %v", module, err)
	}
	_, dir, _ := strings.Cut(string(out), `"Dir": "`)
	dir, _, _ = strings.Cut(dir, `"`)
	files, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("no file %s in %q: %v", pattern, dir, err)
	}
	for _, file := range files {
		for _, u := range manifests(t, file) {
			if u.GetKind() != "CustomResourceDefinition" {
				continue
			}
			if err := r.client.Create(t.Context(), u); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := r.client.Delete(context.WithoutCancel(t.Context()), u); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// preset applies a file of config/samples, as an admin does, and waits until every policy in it is served.
func preset(t *testing.T, r *running, name string) {
	t.Helper()
	root, err := worlds.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	var policies []*tenancyv1alpha1.SyncPolicy
	for _, u := range manifests(t, filepath.Join(root, "config", "samples", name)) {
		if err := r.client.Create(t.Context(), u); err != nil {
			t.Fatal(err)
		}
		if u.GetKind() == "SyncPolicy" {
			p := &tenancyv1alpha1.SyncPolicy{ObjectMeta: metav1.ObjectMeta{Name: u.GetName()}}
			policies = append(policies, p)
			t.Cleanup(func() { r.removePolicy(t, p) })
			continue
		}
		// What the controller that aggregates roles does.
		binding := &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: u.GetName()},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: u.GetName()},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: account}},
		}
		if err := r.client.Create(t.Context(), binding); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			for _, o := range []client.Object{u, binding} {
				if err := r.client.Delete(context.WithoutCancel(t.Context()), o); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for _, p := range policies {
		r.awaitPolicy(t, p, tenancyv1alpha1.ReasonServing)
	}
}

func gatewayAPI(resource string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "gateway.networking.k8s.io", Version: "v1", Resource: resource}
}

func gatewayObject(kind, namespace, name string, spec map[string]any) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "gateway.networking.k8s.io/v1", "kind": kind, "spec": spec}}
	u.SetNamespace(namespace)
	u.SetName(name)
	return u
}

func TestGatewayAPI(t *testing.T) {
	r := start(t, func(o *syncer.Options) { o.Timeout = 30 * time.Second }) // the definitions are large
	of := r.tenants[0]
	installModuleCRDs(t, r, "sigs.k8s.io/gateway-api", "config/crd/standard/*.yaml")
	preset(t, r, "sync-gateway-api.yaml")
	tenant, super := dynamicOf(t, of.world), dynamicOf(t, w.Super)

	class := gatewayObject("GatewayClass", "", "edge", map[string]any{
		"controllerName": "example.com/edge", "parametersRef": map[string]any{"group": "", "kind": "ConfigMap", "name": "p", "namespace": "edge-system"},
	})
	if _, err := super.Resource(gatewayAPI("gatewayclasses")).Create(t.Context(), class, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	awaitSpec(t, tenant.Resource(gatewayAPI("gatewayclasses")), "edge", map[string]any{"controllerName": "example.com/edge"})

	for _, ns := range []string{"gw-infra", "gw-shop"} {
		r.plainNamespace(t, of, ns)
	}
	certificate := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "tls"}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{corev1.TLSCertKey: []byte("c"), corev1.TLSPrivateKeyKey: []byte("k")},
	}
	if _, err := of.CoreV1().Secrets("gw-infra").Create(t.Context(), certificate, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := of.CoreV1().Services("gw-shop").Create(t.Context(), worlds.Service("gw-shop", "web"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	listener := func(routes map[string]any) map[string]any {
		return map[string]any{"gatewayClassName": "edge", "listeners": []any{map[string]any{
			"name": "https", "port": int64(443), "protocol": "HTTPS",
			"tls":           map[string]any{"mode": "Terminate", "certificateRefs": []any{map[string]any{"kind": "Secret", "name": "tls"}}},
			"allowedRoutes": map[string]any{"namespaces": routes},
		}}}
	}
	gateways := tenant.Resource(gatewayAPI("gateways")).Namespace("gw-infra")
	if _, err := gateways.Create(t.Context(), gatewayObject("Gateway", "gw-infra", "gw", listener(map[string]any{"from": "All"})), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	selecting := listener(map[string]any{"from": "Selector", "selector": map[string]any{"matchLabels": map[string]any{"a": "b"}}})
	if _, err := gateways.Create(t.Context(), gatewayObject("Gateway", "gw-infra", "selecting", selecting), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	waitForEvent(t, of, "gw-infra", "selecting", "FieldNotAllowed")
	route := gatewayObject("HTTPRoute", "gw-shop", "web", map[string]any{
		"parentRefs": []any{map[string]any{"name": "gw", "namespace": "gw-infra"}},
		"rules":      []any{map[string]any{"backendRefs": []any{map[string]any{"name": "web", "port": int64(80)}}}},
	})
	if _, err := tenant.Resource(gatewayAPI("httproutes")).Namespace("gw-shop").Create(t.Context(), route, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	worlds.Eventually(t, limit, "the certificate of the listener", func(ctx context.Context) error {
		_, err := w.Super.Client.CoreV1().Secrets(of.super("gw-infra")).Get(ctx, names.SuperSecret("tls"), metav1.GetOptions{})
		return err
	})
	superGateways, superRoutes := super.Resource(gatewayAPI("gateways")).Namespace(of.super("gw-infra")), super.Resource(gatewayAPI("httproutes")).Namespace(of.super("gw-shop"))
	var parent map[string]any
	worlds.Eventually(t, limit, "the route", func(ctx context.Context) error {
		got, err := superRoutes.Get(ctx, "web", metav1.GetOptions{})
		if err != nil {
			return err
		}
		parents, _, err := unstructured.NestedSlice(got.Object, "spec", "parentRefs")
		if err != nil || len(parents) != 1 {
			return fmt.Errorf("parents are %v: %w", parents, err)
		}
		parent, _ = parents[0].(map[string]any)
		return nil
	})
	if parent["namespace"] != of.super("gw-infra") {
		t.Errorf("the route's parent is %v", parent)
	}
	worlds.Eventually(t, limit, "the gateway", func(ctx context.Context) error {
		_, err := superGateways.Get(ctx, "gw", metav1.GetOptions{})
		return err
	})

	// What the controller of the super cluster reports.
	at := metav1.Now().UTC().Format("2006-01-02T15:04:05Z")
	condition := fmt.Sprintf(`{"type":"Accepted","status":"True","reason":"Accepted","message":"attached to %s/gw","lastTransitionTime":%q,"observedGeneration":1}`, of.super("gw-infra"), at)
	mergePatch(t, superGateways, "gw", fmt.Sprintf(`{"status":{"addresses":[{"type":"IPAddress","value":"192.0.2.80"}],"conditions":[%s]}}`, condition), "status")
	mergePatch(t, superRoutes, "web", fmt.Sprintf(
		`{"status":{"parents":[{"controllerName":"example.com/edge","parentRef":{"name":"gw","namespace":%q},"conditions":[%s]}]}}`, of.super("gw-infra"), condition), "status")
	worlds.Eventually(t, limit, "the status of both", func(ctx context.Context) error {
		gateway, err := gateways.Get(ctx, "gw", metav1.GetOptions{})
		if err != nil {
			return err
		}
		route, err := tenant.Resource(gatewayAPI("httproutes")).Namespace("gw-shop").Get(ctx, "web", metav1.GetOptions{})
		if err != nil {
			return err
		}
		want := map[string]any{
			"type": "Accepted", "status": "True", "reason": "Accepted", "message": "attached to gw-infra/gw", "lastTransitionTime": at, "observedGeneration": int64(1),
		}
		diff := cmp.Diff([]any{map[string]any{"type": "IPAddress", "value": "192.0.2.80"}}, field(gateway, "status", "addresses")) +
			cmp.Diff([]any{want}, field(gateway, "status", "conditions")) +
			cmp.Diff([]any{map[string]any{
				"controllerName": "example.com/edge", "parentRef": parentOf(route), "conditions": []any{want},
			}}, field(route, "status", "parents"))
		if diff != "" {
			return fmt.Errorf("-want +got\n%s", diff)
		}
		return nil
	})
}

func field(u *unstructured.Unstructured, path ...string) any {
	value, _, _ := unstructured.NestedFieldNoCopy(u.Object, path...)
	return value
}

// parentOf is the reference to the gateway that the tenant wrote, with the defaults of the API.
func parentOf(route *unstructured.Unstructured) any {
	parents, _ := field(route, "spec", "parentRefs").([]any)
	if len(parents) != 1 {
		return nil
	}
	return parents[0]
}

func TestVolumeSnapshots(t *testing.T) {
	r := start(t)
	of := r.tenants[0]
	installModuleCRDs(t, r, "github.com/kubernetes-csi/external-snapshotter/client/v8", "config/crd/snapshot.storage*.yaml")
	preset(t, r, "sync-volume-snapshots.yaml")
	tenant, super := dynamicOf(t, of.world), dynamicOf(t, w.Super)
	snapshots := func(resource string) schema.GroupVersionResource {
		return schema.GroupVersionResource{Group: "snapshot.storage.k8s.io", Version: "v1", Resource: resource}
	}
	object := func(kind, namespace, name string, content map[string]any) *unstructured.Unstructured {
		u := &unstructured.Unstructured{Object: content}
		u.SetGroupVersionKind(schema.GroupVersionKind{Group: "snapshot.storage.k8s.io", Version: "v1", Kind: kind})
		u.SetNamespace(namespace)
		u.SetName(name)
		return u
	}
	class := object("VolumeSnapshotClass", "", "snap", map[string]any{
		"driver": "csi.example.com", "deletionPolicy": "Delete", "parameters": map[string]any{"csi.storage.k8s.io/snapshotter-secret-name": "credentials"},
	})
	if _, err := super.Resource(snapshots("volumesnapshotclasses")).Create(t.Context(), class, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	worlds.Eventually(t, limit, "the class", func(ctx context.Context) error {
		got, err := tenant.Resource(snapshots("volumesnapshotclasses")).Get(ctx, "snap", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if got.Object["driver"] != "csi.example.com" || got.Object["parameters"] != nil {
			return fmt.Errorf("it is %v", got.Object)
		}
		return nil
	})
	r.plainNamespace(t, of, "snaps")
	inTenant, inSuper := tenant.Resource(snapshots("volumesnapshots")).Namespace("snaps"), super.Resource(snapshots("volumesnapshots")).Namespace(of.super("snaps"))
	stolen := object("VolumeSnapshot", "snaps", "stolen", map[string]any{"spec": map[string]any{"source": map[string]any{"volumeSnapshotContentName": "others"}}})
	if _, err := inTenant.Create(t.Context(), stolen, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	waitForEvent(t, of, "snaps", "stolen", "FieldNotAllowed")

	one := corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}}
	data := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "data"}, Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, Resources: one,
	}}
	if _, err := of.CoreV1().PersistentVolumeClaims("snaps").Create(t.Context(), data, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	// A snapshot is of a claim of the tenant, never of one that only the operator has.
	theirs := data.DeepCopy()
	theirs.Namespace, theirs.Name = of.super("snaps"), "theirs"
	r.make(t, theirs)
	spied := object("VolumeSnapshot", "snaps", "spied", map[string]any{"spec": map[string]any{"source": map[string]any{"persistentVolumeClaimName": "theirs"}}})
	if _, err := inTenant.Create(t.Context(), spied, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	waitForEvent(t, of, "snaps", "spied", "ReferenceNotFound")
	if _, err := inSuper.Get(t.Context(), "spied", metav1.GetOptions{}); gone(err) != nil {
		t.Errorf("a snapshot of the operator's claim: %v", err)
	}

	// A claim waits for the snapshot that it is filled from.
	group := "snapshot.storage.k8s.io"
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: "restored"},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			DataSource:  &corev1.TypedLocalObjectReference{APIGroup: &group, Kind: "VolumeSnapshot", Name: "daily"},
			Resources:   one,
		},
	}
	if _, err := of.CoreV1().PersistentVolumeClaims("snaps").Create(t.Context(), claim, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	spec := map[string]any{"volumeSnapshotClassName": "snap", "source": map[string]any{"persistentVolumeClaimName": "data"}}
	if _, err := inTenant.Create(t.Context(), object("VolumeSnapshot", "snaps", "daily", map[string]any{"spec": spec}), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	awaitSpec(t, inSuper, "daily", spec)
	mergePatch(t, inSuper, "daily", `{"status":{"readyToUse":true,"restoreSize":"1Gi","boundVolumeSnapshotContentName":"snapcontent-1"}}`, "status")
	worlds.Eventually(t, limit, "the status", func(ctx context.Context) error {
		got, err := inTenant.Get(ctx, "daily", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if diff := cmp.Diff(map[string]any{"readyToUse": true, "restoreSize": "1Gi"}, got.Object["status"]); diff != "" {
			return fmt.Errorf("-want +got\n%s", diff)
		}
		return nil
	})
	worlds.Eventually(t, limit, "the claim that is filled from it", func(ctx context.Context) error {
		got, err := w.Super.Client.CoreV1().PersistentVolumeClaims(of.super("snaps")).Get(ctx, "restored", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if diff := cmp.Diff(claim.Spec.DataSource, got.Spec.DataSource); diff != "" {
			return fmt.Errorf("data source: -want +got\n%s", diff)
		}
		return nil
	})
}
