// Package charts_test renders the Helm chart with helm and checks what an administrator relies on: that nothing has more
// rights than it needs, that every container is confined, and that the names agree with the code. It installs nothing.
package charts_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

const namespace = "vc-system"

// helm runs helm, which make build puts into _local/bin.
func helm(t *testing.T, args ...string) ([]byte, error) {
	t.Helper()
	program := filepath.Join("..", "_local", "bin", "helm")
	if _, err := os.Stat(program); err != nil {
		if program, err = exec.LookPath("helm"); err != nil {
			t.Fatal("helm is needed: run make build")
		}
	}
	var errOut bytes.Buffer
	command := exec.CommandContext(t.Context(), program, args...)
	command.Stderr = &errOut
	out, err := command.Output()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, errOut.String())
	}
	return out, err
}

// render returns the objects that the chart makes with the given values.
func render(t *testing.T, values ...string) []unstructured.Unstructured {
	t.Helper()
	args := []string{"template", "release", "virtualcluster", "--namespace", namespace, "--kube-version", "v1.36.3"}
	for _, value := range values {
		args = append(args, "--set-json", value)
	}
	manifest, err := helm(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, manifest)
}

func decode(t *testing.T, manifest []byte) []unstructured.Unstructured {
	t.Helper()
	var objects []unstructured.Unstructured
	decoder := utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifest), 4096)
	for {
		object := unstructured.Unstructured{}
		if err := decoder.Decode(&object.Object); errors.Is(err, io.EOF) {
			return objects
		} else if err != nil {
			t.Fatal(err)
		}
		if len(object.Object) > 0 {
			objects = append(objects, object)
		}
	}
}

// all returns the objects of a kind, and fails where one has a field that the kind does not.
func all[T any](t *testing.T, objects []unstructured.Unstructured, kind string) []T {
	t.Helper()
	var found []T
	for _, object := range objects {
		if object.GetKind() != kind {
			continue
		}
		var typed T
		if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(object.Object, &typed, true); err != nil {
			t.Fatalf("%s %s: %v", kind, object.GetName(), err)
		}
		found = append(found, typed)
	}
	return found
}

// pods returns the pod templates by the name of their workload.
func pods(t *testing.T, objects []unstructured.Unstructured) map[string]corev1.PodTemplateSpec {
	t.Helper()
	found := map[string]corev1.PodTemplateSpec{}
	for _, deployment := range all[appsv1.Deployment](t, objects, "Deployment") {
		found[deployment.Name] = deployment.Spec.Template
	}
	for _, set := range all[appsv1.DaemonSet](t, objects, "DaemonSet") {
		found[set.Name] = set.Spec.Template
	}
	return found
}

func TestLint(t *testing.T) {
	if out, err := helm(t, "lint", "--strict", "virtualcluster"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestValuesAreChecked(t *testing.T) {
	for _, value := range []string{`manger={}`, `manager.replicas="two"`, `metrics.serviceMonitor.interval="often"`, `metrics.dashboards=true`, `flowControl.shares=0`, `image.pullPolicy="Sometimes"`, `manager.serviceCIDR.pool="10.0.0.0"`, `manager.serviceCIDR.size="22,"`, `clusterVersion.version="1.36"`,
		`controlPlanes.imageRegistry="https://registry.example.com"`, `controlPlanes.imageRegistry="registry.example.com/"`, `controlPlanes.pullSecrets=["registry"]`, `controlPlanes.coreDNSPullSecrets=[{}]`,
		`syncer.metadata.allow=["services"]`, `syncer.metadata.allow=[{"annotations":["a"]}]`} {
		if _, err := helm(t, "template", "release", "virtualcluster", "--kube-version", "v1.36.3", "--set-json", value); err == nil {
			t.Errorf("%s was accepted", value)
		}
	}
}

// The definitions in the chart are those generated from the types.
func TestDefinitionsAreCurrent(t *testing.T) {
	read := func(folder string) map[string]string {
		contents := map[string]string{}
		files, err := filepath.Glob(filepath.Join(folder, "*.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			contents[filepath.Base(file)] = string(content)
		}
		return contents
	}
	if diff := cmp.Diff(read("../config/crd"), read("virtualcluster/crds")); diff != "" {
		t.Errorf("copy config/crd to charts/virtualcluster/crds; -want +got:\n%s", diff)
	}
}

func TestImages(t *testing.T) {
	for name, tc := range map[string]struct {
		values []string
		format string
	}{
		"Default": {nil, "ghcr.io/virtualcluster-io/%s:dev"},
		"Chosen":  {[]string{`image={"repository":"registry.example.org/vc","tag":"v1.2.3"}`}, "registry.example.org/vc/%s:v1.2.3"},
	} {
		t.Run(name, func(t *testing.T) {
			want, got := map[string]string{}, map[string]string{}
			for _, component := range []string{names.Manager, names.Syncer, "vn-agent"} {
				want[component] = fmt.Sprintf(tc.format, component)
			}
			for component, pod := range pods(t, render(t, tc.values...)) {
				got[component] = pod.Spec.Containers[0].Image
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestContainersAreConfined(t *testing.T) {
	for name, pod := range pods(t, render(t)) {
		t.Run(name, func(t *testing.T) {
			spec, container := pod.Spec, pod.Spec.Containers[0]
			if len(spec.Containers) != 1 || len(spec.InitContainers) > 0 {
				t.Fatal("there is more than one container")
			}
			for what, holds := range map[string]bool{
				"runs as nobody special":      *spec.SecurityContext.RunAsNonRoot && *spec.SecurityContext.RunAsUser > 0,
				"has a seccomp profile":       spec.SecurityContext.SeccompProfile.Type == corev1.SeccompProfileTypeRuntimeDefault,
				"cannot gain privileges":      !*container.SecurityContext.AllowPrivilegeEscalation && container.SecurityContext.Privileged == nil,
				"has no capabilities":         slices.Equal(container.SecurityContext.Capabilities.Drop, []corev1.Capability{"ALL"}) && container.SecurityContext.Capabilities.Add == nil,
				"has a read-only file system": *container.SecurityContext.ReadOnlyRootFilesystem,
				"does not see the host":       !spec.HostPID && !spec.HostIPC && !slices.ContainsFunc(spec.Volumes, func(v corev1.Volume) bool { return v.HostPath != nil }),
				"is on the pod network":       spec.HostNetwork == (name == "vn-agent"),
				"is probed":                   container.LivenessProbe != nil && container.ReadinessProbe != nil,
				"asks for what it needs":      !container.Resources.Requests.Cpu().IsZero() && !container.Resources.Requests.Memory().IsZero() && !container.Resources.Limits.Memory().IsZero(),
				"has a service account":       spec.ServiceAccountName == name,
			} {
				if !holds {
					t.Errorf("not true: it %s", what)
				}
			}
		})
	}
}

// What vn-agent serves without authentication is for the node only, and the rest of its wiring is what others expect.
func TestAgentIsWhereOthersLookForIt(t *testing.T) {
	objects := render(t)
	agent := pods(t, objects)["vn-agent"].Spec
	container := agent.Containers[0]
	for _, want := range []string{fmt.Sprintf("--bind-address=:%d", names.VNAgentPort), fmt.Sprintf("--health-bind-address=127.0.0.1:%d", names.VNAgentPort+1)} {
		if !slices.Contains(container.Args, want) {
			t.Errorf("%s is missing in %v", want, container.Args)
		}
	}
	if container.Ports[0].HostPort != names.VNAgentPort {
		t.Errorf("the host port is %d", container.Ports[0].HostPort)
	}
	trust := agent.Volumes[0].ConfigMap
	if trust.Name != names.VNAgentTrustConfigMap || trust.Items[0].Key != names.VNAgentClientCAKey || trust.Optional != nil {
		t.Errorf("the trust comes from %+v", trust)
	}
	if agent.ServiceAccountName != names.VNAgentServiceAccount {
		t.Errorf("the service account is %s", agent.ServiceAccountName)
	}
	if want := []corev1.Toleration{{Operator: corev1.TolerationOpExists}}; !cmp.Equal(want, agent.Tolerations) {
		t.Errorf("tolerates %v", agent.Tolerations)
	}
}

// rights returns what each service account may do in the whole cluster, as "group/resource[name]:verb".
func rights(t *testing.T, objects []unstructured.Unstructured) map[string][]string {
	t.Helper()
	roles := map[string][]rbacv1.PolicyRule{}
	for _, role := range all[rbacv1.ClusterRole](t, objects, "ClusterRole") {
		roles[role.Name] = role.Rules
	}
	found := map[string][]string{}
	for _, binding := range all[rbacv1.ClusterRoleBinding](t, objects, "ClusterRoleBinding") {
		for _, subject := range binding.Subjects {
			if subject.Kind != rbacv1.ServiceAccountKind || subject.Namespace != namespace {
				t.Errorf("%s binds %+v", binding.Name, subject)
			}
			found[subject.Name] = append(found[subject.Name], flatten(roles[binding.RoleRef.Name])...)
		}
	}
	for _, list := range found {
		slices.Sort(list)
	}
	return found
}

func flatten(rules []rbacv1.PolicyRule) []string {
	var flat []string
	for _, rule := range rules {
		restricted := rule.ResourceNames
		if len(restricted) == 0 {
			restricted = []string{""}
		}
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				for _, name := range restricted {
					for _, verb := range rule.Verbs {
						flat = append(flat, strings.Replace(fmt.Sprintf("%s/%s[%s]:%s", group, resource, name, verb), "[]", "", 1))
					}
				}
			}
		}
	}
	return flat
}

func TestNoRoleIsWiderThanItMustBe(t *testing.T) {
	objects := render(t)
	rules := map[string][]rbacv1.PolicyRule{}
	for _, role := range all[rbacv1.ClusterRole](t, objects, "ClusterRole") {
		rules[role.Name] = role.Rules
	}
	for _, role := range all[rbacv1.Role](t, objects, "Role") {
		rules[role.Name] = role.Rules
	}
	for name, list := range rules {
		for _, rule := range list {
			for _, value := range slices.Concat(rule.APIGroups, rule.Resources, rule.Verbs, rule.NonResourceURLs) {
				if strings.Contains(value, "*") {
					t.Errorf("%s has a wildcard: %+v", name, rule)
				}
				if slices.Contains([]string{"escalate", "impersonate", "deletecollection", "nodes/proxy", "serviceaccounts/token"}, value) {
					t.Errorf("%s has %s", name, value)
				}
			}
			if slices.Contains(rule.Verbs, "bind") && !slices.Equal(rule.ResourceNames, []string{names.VNAgentStreamsRole}) {
				t.Errorf("%s may bind %v", name, rule.ResourceNames)
			}
		}
	}
	streams, ok := rules[names.VNAgentStreamsRole]
	if !ok {
		t.Fatalf("there is no ClusterRole %s", names.VNAgentStreamsRole)
	}
	want := []string{
		"/pods:get", "/pods/log:get",
		"/pods/exec:get", "/pods/exec:create", "/pods/attach:get", "/pods/attach:create", "/pods/portforward:get", "/pods/portforward:create",
	}
	if diff := cmp.Diff(want, flatten(streams)); diff != "" {
		t.Errorf("%s: -want +got:\n%s", names.VNAgentStreamsRole, diff)
	}
}

// Attack V-11: in the whole cluster, vn-agent can neither read pods nor enter them.
func TestRightsOfTheAgent(t *testing.T) {
	csr := "certificates.k8s.io/certificatesigningrequests:"
	want := []string{"/namespaces:get", "/nodes/metrics:get", "/nodes/stats:get", "/nodes:get", csr + "create", csr + "get", csr + "list", csr + "watch"}
	if diff := cmp.Diff(want, rights(t, render(t))["vn-agent"]); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// The rights of a component in the whole cluster are those its code says it needs, in kubebuilder markers.
func TestRightsAreThoseOfTheCode(t *testing.T) {
	for component, folders := range map[string][]string{
		names.Manager: {"../controllers", "../cmd/vc-manager"},
		names.Syncer:  {"../syncer", "../cmd/vc-syncer"},
	} {
		t.Run(component, func(t *testing.T) {
			if diff := cmp.Diff(marked(t, folders...), rights(t, render(t))[component]); diff != "" {
				t.Errorf("-markers +chart:\n%s", diff)
			}
		})
	}
}

// marked returns the rights in the markers of the Go files in folders.
func marked(t *testing.T, folders ...string) []string {
	t.Helper()
	marker := regexp.MustCompile(`(?m)^//\s*\+kubebuilder:rbac:(.*)$`)
	var want []string
	for _, folder := range folders {
		err := filepath.WalkDir(folder, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".go" {
				return err
			}
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for _, match := range marker.FindAllSubmatch(content, -1) {
				if rule, clusterWide := parseMarker(string(match[1])); clusterWide {
					want = append(want, flatten([]rbacv1.PolicyRule{rule})...)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(want)
	return slices.Compact(want)
}

// parseMarker returns the rule of a marker, and whether it is one for the whole cluster.
func parseMarker(marker string) (rbacv1.PolicyRule, bool) {
	rule, clusterWide := rbacv1.PolicyRule{}, true
	for part := range strings.SplitSeq(strings.TrimSpace(marker), ",") {
		key, value, _ := strings.Cut(part, "=")
		values := strings.Split(strings.ReplaceAll(value, `"`, ""), ";")
		switch key {
		case "groups":
			rule.APIGroups = values
		case "resources":
			rule.Resources = values
		case "resourceNames":
			rule.ResourceNames = values
		case "verbs":
			rule.Verbs = values
		case "namespace":
			clusterWide = false
		}
	}
	return rule, clusterWide
}

func TestDefaultClusterVersion(t *testing.T) {
	versions := all[tenancyv1alpha1.ClusterVersion](t, render(t), "ClusterVersion")
	if len(versions) != 1 || versions[0].Spec.Version != "v1.36.3" || versions[0].Annotations[tenancyv1alpha1.DefaultVersionAnnotation] != "true" {
		t.Errorf("got %+v", versions)
	}
	if versions := all[tenancyv1alpha1.ClusterVersion](t, render(t, "clusterVersion.create=false"), "ClusterVersion"); len(versions) != 0 {
		t.Errorf("although it was switched off: %+v", versions)
	}
}

func TestServiceRanges(t *testing.T) {
	for size, values := range map[string][]string{
		"--service-cidr-pool=auto":   nil,
		"--service-cidr-size=auto":   nil,
		"--service-cidr-pool=":       {"manager.serviceCIDR.pool="},
		"--service-cidr-size=112":    {"manager.serviceCIDR.size=112"},
		"--service-cidr-size=22,112": {`manager.serviceCIDR={"pool":"10.112.0.0/14,fd00:112::/96","size":"22,112"}`},
	} {
		args := pods(t, render(t, values...))["vc-manager"].Spec.Containers[0].Args
		if !slices.Contains(args, size) {
			t.Errorf("with %v: the arguments are %v, want %s", values, args, size)
		}
	}
}

func TestImagesOfControlPlanes(t *testing.T) {
	for name, tc := range map[string]struct{ values, want []string }{
		"Default": {nil, []string{"--image-registry=", "--image-pull-secrets=", "--coredns-image-pull-secrets="}},
		"Chosen": {
			[]string{`controlPlanes={"imageRegistry":"registry.example.com:5000/k8s","pullSecrets":[{"name":"a"},{"name":"b"}],"coreDNSPullSecrets":[{"name":"c"}]}`},
			[]string{"--image-registry=registry.example.com:5000/k8s", "--image-pull-secrets=a,b", "--coredns-image-pull-secrets=c"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			args := pods(t, render(t, tc.values...))["vc-manager"].Spec.Containers[0].Args
			for _, want := range tc.want {
				if !slices.Contains(args, want) {
					t.Errorf("the arguments are %v, want %s", args, want)
				}
			}
		})
	}
}

// What the chart makes of the values is what vc-syncer reads.
func TestAllowedMetadata(t *testing.T) {
	values := `syncer.metadata.allow=[{"kind":"services","annotations":["service.beta.kubernetes.io/aws-*"]},{"kind":"*","labels":["example.com/cost","example.org/"]}]`
	want := []resource.Metadata{
		{Kind: "services", Annotations: []string{"service.beta.kubernetes.io/aws-*"}},
		{Kind: "*", Labels: []string{"example.com/cost"}}, {Kind: "*", Labels: []string{"example.org/"}},
	}
	var got []resource.Metadata
	for _, arg := range pods(t, render(t, values))["vc-syncer"].Spec.Containers[0].Args {
		if text, ok := strings.CutPrefix(arg, "--allow-metadata="); ok {
			m, err := resource.ParseMetadata(text)
			if err != nil {
				t.Error(err)
			}
			got = append(got, m)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestChoices(t *testing.T) {
	count := func(kind string, values ...string) int {
		found := 0
		for _, object := range render(t, values...) {
			if object.GetKind() == kind {
				found++
			}
		}
		return found
	}
	for name, tc := range map[string]struct {
		kind   string
		values []string
		want   int
	}{
		"MetricsAreClosed":      {"NetworkPolicy", nil, 2},
		"MetricsAreOpen":        {"NetworkPolicy", []string{"metrics.from=null"}, 0},
		"OneReplica":            {"PodDisruptionBudget", nil, 0},
		"NoServiceMonitor":      {"ServiceMonitor", nil, 0},
		"ServiceMonitors":       {"ServiceMonitor", []string{"metrics.serviceMonitor.enabled=true"}, 2},
		"TheirServices":         {"Service", []string{"metrics.serviceMonitor.enabled=true"}, 2},
		"NoRules":               {"PrometheusRule", nil, 0},
		"Rules":                 {"PrometheusRule", []string{"metrics.prometheusRule.enabled=true"}, 1},
		"NoDashboards":          {"ConfigMap", nil, 0},
		"Dashboards":            {"ConfigMap", []string{"metrics.dashboards.enabled=true"}, 2},
		"Flows":                 {"FlowSchema", nil, 4},
		"NoFlows":               {"FlowSchema", []string{"flowControl.enabled=false"}, 0},
		"NoPriorityLevel":       {"PriorityLevelConfiguration", []string{"flowControl.enabled=false"}, 0},
		"SeveralReplicas":       {"PodDisruptionBudget", []string{"manager.replicas=2", "syncer.replicas=3"}, 2},
		"WithEverythingElseSet": {"Deployment", []string{`image.pullSecrets=[{"name":"registry"}]`, `manager={"affinity":{"nodeAffinity":{}},"tolerations":[{"operator":"Exists"}],"podAnnotations":{"a":"b"},"extraArgs":["--x"]}`}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			if got := count(tc.kind, tc.values...); got != tc.want {
				t.Errorf("%d of %s, want %d", got, tc.kind, tc.want)
			}
		})
	}
}

// Replicas share tenants by Leases with names of their own, which they may write only then.
func TestShards(t *testing.T) {
	for _, tc := range []struct {
		values []string
		arg    bool
		roles  int
	}{
		{nil, false, 0},
		{[]string{"syncer.replicas=3", "syncer.shards=16"}, true, 1},
	} {
		objects := render(t, tc.values...)
		if got := slices.Contains(pods(t, objects)["vc-syncer"].Spec.Containers[0].Args, "--shards=16"); got != tc.arg {
			t.Errorf("%v: argument %t", tc.values, got)
		}
		found := 0
		for _, role := range all[rbacv1.Role](t, objects, "Role") {
			if role.Name == "vc-syncer-shards" {
				found++
			}
		}
		if found != tc.roles {
			t.Errorf("%v: %d roles", tc.values, found)
		}
	}
	if _, err := helm(t, "template", "release", "virtualcluster", "--kube-version", "v1.36.3", "--set-json", "syncer.shards=0"); err == nil {
		t.Error("no shards are accepted")
	}
}

// The dashboards select by the jobs that the ServiceMonitors make, and a ServiceMonitor finds the pods.
func TestServiceMonitorsFindThePods(t *testing.T) {
	objects := render(t, "metrics.serviceMonitor.enabled=true", `metrics.serviceMonitor.labels={"release":"prometheus"}`)
	templates, services := pods(t, objects), all[corev1.Service](t, objects, "Service")
	for _, object := range objects {
		if object.GetKind() != "ServiceMonitor" {
			continue
		}
		if object.GetLabels()["release"] != "prometheus" {
			t.Errorf("%s has the labels %v", object.GetName(), object.GetLabels())
		}
		wanted, _, _ := unstructured.NestedStringMap(object.Object, "spec", "selector", "matchLabels")
		selected := slices.DeleteFunc(slices.Clone(services), func(s corev1.Service) bool {
			return !labels.SelectorFromSet(wanted).Matches(labels.Set(s.Labels))
		})
		if len(selected) != 1 {
			t.Fatalf("%s selects %d Services", object.GetName(), len(selected))
		}
		for name, template := range templates {
			if got := labels.SelectorFromSet(selected[0].Spec.Selector).Matches(labels.Set(template.Labels)); got != (name == object.GetName()) {
				t.Errorf("%s selects the pods of %s: %v", object.GetName(), name, got)
			}
		}
		job, _, _ := unstructured.NestedString(object.Object, "spec", "jobLabel")
		if selected[0].Labels[job] != object.GetName() {
			t.Errorf("the job of %s is %q", object.GetName(), selected[0].Labels[job])
		}
	}
}

// The rules and dashboards that tests check are those that arrive in the cluster.
func TestRulesAndDashboardsAreThoseOfTheFiles(t *testing.T) {
	objects := render(t, "metrics.prometheusRule.enabled=true", "metrics.dashboards.enabled=true")
	for _, object := range objects {
		if object.GetKind() != "PrometheusRule" {
			continue
		}
		content, err := os.ReadFile("virtualcluster/alerts.yaml")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(decode(t, content)[0].Object, object.Object["spec"]); diff != "" {
			t.Errorf("rules: -file +rendered\n%s", diff)
		}
	}
	for _, configMap := range all[corev1.ConfigMap](t, objects, "ConfigMap") {
		if configMap.Labels["grafana_dashboard"] != "1" || len(configMap.Data) != 1 {
			t.Errorf("%s has the labels %v and %d files", configMap.Name, configMap.Labels, len(configMap.Data))
		}
		for name, rendered := range configMap.Data {
			content, err := os.ReadFile(filepath.Join("virtualcluster/dashboards", name))
			if err != nil || string(content) != rendered {
				t.Errorf("%s differs from its file: %v", name, err)
			}
		}
	}
}

// Rights for custom resources come from ClusterRoles with the label that vc-syncer tells administrators to use.
func TestRightsForCustomResourcesAreAggregated(t *testing.T) {
	for _, role := range all[rbacv1.ClusterRole](t, render(t), "ClusterRole") {
		if role.AggregationRule == nil {
			continue
		}
		want := []metav1.LabelSelector{{MatchLabels: map[string]string{names.LabelAggregateToSyncer: "true"}}}
		if diff := cmp.Diff(want, role.AggregationRule.ClusterRoleSelectors); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
		for _, binding := range all[rbacv1.ClusterRoleBinding](t, render(t), "ClusterRoleBinding") {
			if binding.RoleRef.Name == role.Name && binding.Subjects[0].Name == names.Syncer {
				return
			}
		}
		t.Fatalf("nothing binds %s to %s", role.Name, names.Syncer)
	}
	t.Fatal("there is no aggregated ClusterRole")
}
