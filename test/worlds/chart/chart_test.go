// Package chart_test gives what the Helm chart renders to a real API server: it accepts every object, with the definitions
// of the projects whose kinds it uses, and treats requests as the FlowSchemas in it say.
package chart_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

// limit of every wait.
const limit = 30 * time.Second

const namespace = "vc-system"

// everything switches on what is off by default.
func everything() []string {
	return []string{
		"manager.replicas=2", "syncer.replicas=2", "syncer.metricsPerTenant=true", "metrics.serviceMonitor.enabled=true",
		`metrics.serviceMonitor.interval="30s"`, "metrics.prometheusRule.enabled=true", "metrics.dashboards.enabled=true",
	}
}

func TestRealAPIServerAcceptsTheChart(t *testing.T) {
	super := worlds.Start(t, worlds.Options{}).Super
	c := connect(t, super)
	installMonitoringDefinitions(t, c)
	if err := c.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}); err != nil {
		t.Fatal(err)
	}
	objects := render(t, everything()...)
	kinds := map[string]bool{}
	for _, o := range objects {
		kinds[o.GetKind()] = true
		t.Run(o.GetKind()+"/"+o.GetName(), func(t *testing.T) {
			if err := client.NewDryRunClient(c).Create(t.Context(), o.DeepCopy(), client.FieldValidation(metav1.FieldValidationStrict)); err != nil {
				t.Error(err)
			}
		})
	}
	for _, kind := range []string{"ServiceMonitor", "PrometheusRule", "FlowSchema", "PriorityLevelConfiguration", "ConfigMap", "Deployment"} {
		if !kinds[kind] {
			t.Errorf("the chart has no %s", kind)
		}
	}
	t.Run("Flows", func(t *testing.T) { testFlows(t, super, c, objects) })
}

// testFlows makes requests of several accounts and looks at how the API server treats them.
func testFlows(t *testing.T, super *worlds.World, c client.Client, objects []*unstructured.Unstructured) {
	for _, o := range objects {
		if o.GetKind() == "FlowSchema" || o.GetKind() == "PriorityLevelConfiguration" {
			if err := c.Create(t.Context(), o.DeepCopy()); err != nil {
				t.Fatal(err)
			}
		}
	}
	syncer := account(super, "vc-syncer")
	const pods, leases, anyLease = "/api/v1/namespaces/a/pods", "/apis/coordination.k8s.io/v1/namespaces/vc-system/leases/vc-syncer", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/node-1"
	node := rest.CopyConfig(super.Config)
	node.Impersonate = rest.ImpersonationConfig{UserName: "system:node:node-1", Groups: []string{"system:nodes", "system:authenticated"}}
	for name, tc := range map[string]struct {
		as           *rest.Config
		path         string
		schema, then string // FlowSchema and priority level
	}{
		"Syncer":            {syncer, pods, "vc-syncer", "virtualcluster"},
		"SyncerClusterWide": {syncer, "/api/v1/nodes", "vc-syncer", "virtualcluster"},
		"SyncerDiscovery":   {syncer, "/apis", "vc-syncer", "virtualcluster"},
		"SyncerLease":       {syncer, leases, "virtualcluster-leader-election", "leader-election"},
		"Manager":           {account(super, "vc-manager"), pods, "vc-manager", "virtualcluster"},
		"Agent":             {account(super, "vn-agent"), pods, "vn-agent", "virtualcluster"},
		"SomebodyElse":      {account(super, "somebody"), pods, "service-accounts", "workload-low"},
		"Heartbeat":         {node, anyLease, "system-node-high", "node-high"},
	} {
		t.Run(name, func(t *testing.T) {
			var schema flowcontrolv1.FlowSchema
			if err := c.Get(t.Context(), client.ObjectKey{Name: tc.schema}, &schema); err != nil {
				t.Fatal(err)
			}
			if schema.Spec.PriorityLevelConfiguration.Name != tc.then {
				t.Errorf("the priority level is %s, want %s", schema.Spec.PriorityLevelConfiguration.Name, tc.then)
			}
			// The API server takes up FlowSchemas a moment after they were made.
			worlds.Eventually(t, limit, "requests to be treated by "+tc.schema, func(ctx context.Context) error {
				uid, err := treatedBy(ctx, tc.as, tc.path)
				if err == nil && uid != string(schema.UID) {
					err = fmt.Errorf("treated by the FlowSchema with UID %s, want %s", uid, schema.UID)
				}
				return err
			})
		})
	}
	for _, name := range []string{"vc-manager", "vc-syncer", "vn-agent"} {
		var schema flowcontrolv1.FlowSchema
		if err := c.Get(t.Context(), client.ObjectKey{Name: name}, &schema); err != nil {
			t.Fatal(err)
		}
		if m := schema.Spec.DistinguisherMethod; m == nil || m.Type != flowcontrolv1.FlowDistinguisherMethodByNamespaceType {
			t.Errorf("flows of %s are told apart by %v", name, m)
		}
	}
}

// account reaches the super cluster as a service account of the release.
func account(super *worlds.World, name string) *rest.Config {
	config := rest.CopyConfig(super.Config)
	config.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:" + namespace + ":" + name,
		Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace, "system:authenticated"},
	}
	return config
}

// treatedBy returns the UID of the FlowSchema that a request was treated by, allowed or not.
func treatedBy(ctx context.Context, as *rest.Config, path string) (string, error) {
	h, err := rest.HTTPClientFor(as)
	if err != nil {
		return "", err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, as.Host+path, http.NoBody)
	if err != nil {
		return "", err
	}
	response, err := h.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	return response.Header.Get(flowcontrolv1.ResponseHeaderMatchedFlowSchemaUID), nil
}

// connect returns a client that knows every kind by what the API server serves.
func connect(t *testing.T, super *worlds.World) client.Client {
	t.Helper()
	c, err := client.New(super.Config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// installMonitoringDefinitions installs the definitions of the Prometheus operator that the chart has objects of.
func installMonitoringDefinitions(t *testing.T, c client.Client) {
	t.Helper()
	root, err := worlds.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	list := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", "github.com/prometheus-operator/prometheus-operator")
	list.Dir = filepath.Join(root, "test", "crds")
	out, err := list.Output()
	if err != nil {
		t.Fatalf("finding the Prometheus operator: %v", err)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		t.Fatal(err)
	}
	for _, plural := range []string{"servicemonitors", "prometheusrules"} {
		content, err := os.ReadFile(filepath.Join(module.Dir, "example", "prometheus-operator-crd", "monitoring.coreos.com_"+plural+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range decode(t, content) {
			if err := c.Create(t.Context(), o); err != nil {
				t.Fatal(err)
			}
		}
		worlds.Eventually(t, limit, plural+" to be served", func(ctx context.Context) error {
			l := &unstructured.UnstructuredList{}
			l.SetAPIVersion("monitoring.coreos.com/v1")
			l.SetKind(map[string]string{"servicemonitors": "ServiceMonitorList", "prometheusrules": "PrometheusRuleList"}[plural])
			err := c.List(ctx, l)
			if apierrors.IsNotFound(err) {
				return fmt.Errorf("not served yet: %w", err)
			}
			return err
		})
	}
}

// render returns the objects that the chart makes with the given values.
func render(t *testing.T, values ...string) []*unstructured.Unstructured {
	t.Helper()
	root, err := worlds.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	helm, err := worlds.Binary("", "helm")
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"template", "release", filepath.Join(root, "charts", "virtualcluster"), "--namespace", namespace, "--kube-version", "v1.36.3"}
	for _, value := range values {
		args = append(args, "--set-json", value)
	}
	manifest, err := exec.CommandContext(t.Context(), helm, args...).Output()
	if err != nil {
		t.Fatalf("rendering the chart: %v", err)
	}
	return decode(t, manifest)
}

func decode(t *testing.T, manifest []byte) []*unstructured.Unstructured {
	t.Helper()
	var objects []*unstructured.Unstructured
	decoder := utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifest), 4096)
	for {
		o := &unstructured.Unstructured{}
		if err := decoder.Decode(&o.Object); errors.Is(err, io.EOF) {
			return objects
		} else if err != nil {
			t.Fatal(err)
		}
		if len(o.Object) > 0 {
			objects = append(objects, o)
		}
	}
}
