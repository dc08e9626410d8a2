package dedicated

import (
	"flag"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	psa "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/controllers/images"
	"github.com/virtualcluster-io/virtualcluster/internal/iprange"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func newLayout(change ...func(*layout)) layout {
	l := layout{
		namespace:     "tenants-a-0123456789abc",
		labels:        map[string]string{names.LabelTenant: "tenants-a-0123456789abc", names.LabelManagedBy: names.Manager},
		annotations:   map[string]string{names.AnnotationVirtualCluster: "tenants/a", names.AnnotationVirtualClusterUID: "uid"},
		domain:        "cluster.local",
		replicas:      1,
		serviceRanges: iprange.MustParse("10.112.4.0/22"),
		clusterIPs:    []netip.Addr{netip.MustParseAddr("10.112.4.1")},
		version:       tenancyv1alpha1.ClusterVersionSpec{Version: "v1.36.3"},
		images:        images.Source{Version: "v1.36.3"},
		apiServerIP:   "10.96.1.1",
		etcdIP:        "10.96.1.2",
		hashes:        map[string]string{names.Etcd: "e", names.APIServer: "a", names.ControllerManager: "c", names.Scheduler: "s"},
	}
	for _, f := range change {
		f(&l)
	}
	return l
}

func workloads(l layout) []*appsv1.StatefulSet {
	return []*appsv1.StatefulSet{l.etcd(), l.apiServer(), l.controllerManager(), l.scheduler()}
}

func TestRendering(t *testing.T) {
	replicated := func(l *layout) { l.replicas = 3 }
	cases := map[string]struct {
		layout layout
		render func(layout) []client.Object
	}{
		"etcd":                    {layout: newLayout(), render: func(l layout) []client.Object { return []client.Object{l.etcd()} }},
		"kube-apiserver":          {layout: newLayout(), render: func(l layout) []client.Object { return []client.Object{l.apiServer()} }},
		"kube-controller-manager": {layout: newLayout(), render: func(l layout) []client.Object { return []client.Object{l.controllerManager()} }},
		"kube-scheduler":          {layout: newLayout(), render: func(l layout) []client.Object { return []client.Object{l.scheduler()} }},
		"services": {layout: newLayout(), render: func(l layout) []client.Object {
			apiServer, etcd, etcdClient := l.services(tenancyv1alpha1.ExposureSpec{Annotations: map[string]string{"example.org/lb": "internal"}})
			return []client.Object{apiServer, etcd, etcdClient}
		}},
		"etcd-replicated": {layout: newLayout(replicated), render: func(l layout) []client.Object {
			return []client.Object{l.etcd(), l.disruptionBudgets()[0]}
		}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var got strings.Builder
			for _, object := range tc.render(tc.layout) {
				text, err := yaml.Marshal(object)
				if err != nil {
					t.Fatalf("Marshal: %v", err)
				}
				got.WriteString("---\n")
				got.Write(text)
			}
			path := filepath.Join("testdata", name+".yaml")
			if *update {
				if err := os.WriteFile(path, []byte(got.String()), 0o600); err != nil {
					t.Fatalf("WriteFile: %v", err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatalf("ReadFile: %v", err)
			}
			if diff := cmp.Diff(string(want), got.String()); diff != "" {
				t.Errorf("run go test -update if this is meant (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPodsAreRestricted(t *testing.T) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, set := range workloads(newLayout()) {
		t.Run(set.Name, func(t *testing.T) {
			restricted := psa.LevelVersion{Level: psa.LevelRestricted, Version: psa.LatestVersion()}
			for _, result := range evaluator.EvaluatePod(restricted, &set.Spec.Template.ObjectMeta, &set.Spec.Template.Spec) {
				if !result.Allowed {
					t.Errorf("the Pod Security level restricted refuses it: %s %s", result.ForbiddenReason, result.ForbiddenDetail)
				}
			}
			pod, container := set.Spec.Template.Spec, set.Spec.Template.Spec.Containers[0]
			if !*pod.SecurityContext.RunAsNonRoot || *pod.SecurityContext.RunAsUser == 0 {
				t.Error("runs as root")
			}
			if pod.SecurityContext.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
				t.Error("has no seccomp profile")
			}
			if *pod.AutomountServiceAccountToken {
				t.Error("holds a credential of the super cluster")
			}
			if !*container.SecurityContext.ReadOnlyRootFilesystem || *container.SecurityContext.AllowPrivilegeEscalation {
				t.Error("can write to its image or gain privileges")
			}
			if diff := cmp.Diff([]corev1.Capability{"ALL"}, container.SecurityContext.Capabilities.Drop); diff != "" {
				t.Errorf("dropped capabilities (-want +got):\n%s", diff)
			}
			// Upstream's image of no other component has a program with a file capability: see test/supercluster/images/upstream.yaml.
			added := map[string][]corev1.Capability{names.APIServer: {"NET_BIND_SERVICE"}}[set.Name]
			if diff := cmp.Diff(added, container.SecurityContext.Capabilities.Add); diff != "" {
				t.Errorf("added capabilities (-want +got):\n%s", diff)
			}
			if container.Resources.Requests.Cpu().IsZero() || container.Resources.Requests.Memory().IsZero() {
				t.Error("requests nothing")
			}
			if container.ReadinessProbe.PeriodSeconds != 1 {
				t.Errorf("is probed every %d s, want 1", container.ReadinessProbe.PeriodSeconds)
			}
		})
	}
}

func TestPodsMountOnlyTheKeysTheyNeed(t *testing.T) {
	want := map[string][]string{
		names.Etcd: {"etcd-peer/tls.key", "etcd-server/tls.key"},
		names.APIServer: {
			"front-proxy-client/tls.key", "kube-apiserver-etcd-client/tls.key", "kube-apiserver-kubelet-client/tls.key",
			"kube-apiserver-serving/tls.key", "service-account-key/sa.key",
		},
		names.ControllerManager: {"cluster-ca/tls.key", "kube-controller-manager-client/tls.key", "service-account-key/sa.key"},
		names.Scheduler:         {"kube-scheduler-client/tls.key"},
	}
	got := map[string][]string{}
	for _, set := range workloads(newLayout()) {
		for _, volume := range set.Spec.Template.Spec.Volumes {
			if volume.Secret != nil {
				t.Errorf("%s mounts the whole Secret %s", set.Name, volume.Secret.SecretName)
			}
			if volume.Projected == nil {
				continue
			}
			for _, source := range volume.Projected.Sources {
				for _, item := range source.Secret.Items {
					if strings.HasSuffix(item.Key, ".key") {
						got[set.Name] = append(got[set.Name], item.Path)
					}
				}
			}
		}
		slices.Sort(got[set.Name])
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("private keys by component (-want +got):\n%s", diff)
	}
}

func TestClusterVersionOverrides(t *testing.T) {
	l := newLayout(func(l *layout) {
		l.version.APIServer = &tenancyv1alpha1.ComponentTemplate{
			Image:     "example.org/apiserver:x",
			ExtraArgs: map[string]string{"profiling": "true", "event-ttl": "10m"},
			Env:       []corev1.EnvVar{{Name: "GOGC", Value: "100"}, {Name: "EXTRA", Value: "1"}},
			Resources: &corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi")}},
		}
		l.version.ETCD = &tenancyv1alpha1.ComponentTemplate{Storage: &tenancyv1alpha1.StorageTemplate{Size: "20Gi", StorageClassName: new("fast")}}
	})
	container := l.apiServer().Spec.Template.Spec.Containers[0]
	if container.Image != "example.org/apiserver:x" {
		t.Errorf("image: got %s", container.Image)
	}
	for _, arg := range []string{"--profiling=true", "--event-ttl=10m", "--authorization-mode=RBAC"} {
		if !slices.Contains(container.Args, arg) {
			t.Errorf("arguments lack %s", arg)
		}
	}
	if slices.Contains(container.Args, "--profiling=false") {
		t.Error("the default of an argument stayed")
	}
	env := map[string]string{}
	for _, variable := range container.Env {
		env[variable.Name] = variable.Value
	}
	if diff := cmp.Diff(map[string]string{"POD_IP": "", "GOGC": "100", "EXTRA": "1"}, env); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
	if container.Resources.Limits.Memory().String() != "1Gi" || len(container.Resources.Requests) != 0 {
		t.Errorf("resources: got %v", container.Resources)
	}

	etcd := l.etcd()
	claim := etcd.Spec.VolumeClaimTemplates[0].Spec
	if size := claim.Resources.Requests[corev1.ResourceStorage]; size.String() != "20Gi" || *claim.StorageClassName != "fast" {
		t.Errorf("claim: got %s of class %s", size.String(), *claim.StorageClassName)
	}
	if arg := "--quota-backend-bytes=8589934592"; !slices.Contains(etcd.Spec.Template.Spec.Containers[0].Args, arg) {
		t.Errorf("etcd's arguments lack %s: its database must not outgrow what etcd supports", arg)
	}
}

func TestPrivateRegistry(t *testing.T) {
	l := newLayout(func(l *layout) {
		l.images.Registry, l.pullSecret = "registry.example.com/k8s", "image-pull"
		l.version.Scheduler = &tenancyv1alpha1.ComponentTemplate{Image: "example.org/scheduler:x"}
	})
	want := map[string]string{
		names.Etcd: "registry.example.com/k8s/etcd:3.6.8-0", names.APIServer: "registry.example.com/k8s/kube-apiserver:v1.36.3",
		names.ControllerManager: "registry.example.com/k8s/kube-controller-manager:v1.36.3", names.Scheduler: "example.org/scheduler:x",
	}
	for _, set := range workloads(l) {
		pod := set.Spec.Template.Spec
		if got := pod.Containers[0].Image; got != want[set.Name] {
			t.Errorf("the image of %s is %s, want %s", set.Name, got, want[set.Name])
		}
		if diff := cmp.Diff([]corev1.LocalObjectReference{{Name: "image-pull"}}, pod.ImagePullSecrets); diff != "" {
			t.Errorf("Secrets of %s that pull images (-want +got):\n%s", set.Name, diff)
		}
	}
}

func TestRawStatefulSetIsUsedAsWritten(t *testing.T) {
	raw := &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: "apiserver", Labels: map[string]string{"app": "apiserver"}},
		Spec: appsv1.StatefulSetSpec{
			ServiceName: "apiserver-svc",
			Selector:    &metav1.LabelSelector{MatchLabels: map[string]string{"component-name": "apiserver"}},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"component-name": "apiserver"}},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "apiserver", Image: "example.org/a", Command: []string{"kube-apiserver"}}}},
			},
		},
	}
	written := raw.DeepCopy()
	l := newLayout(func(l *layout) {
		l.version.APIServer = &tenancyv1alpha1.ComponentTemplate{StatefulSet: raw, Service: &corev1.Service{
			Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 6443, TargetPort: intstr.FromString("api")}}},
		}}
	})
	got := l.apiServer()

	if diff := cmp.Diff(written, raw); diff != "" {
		t.Errorf("the ClusterVersion was changed (-before +after):\n%s", diff)
	}
	if got.Name != names.APIServer || got.Namespace != l.namespace {
		t.Errorf("name: got %s/%s", got.Namespace, got.Name)
	}
	if diff := cmp.Diff(raw.Spec.Template.Spec, got.Spec.Template.Spec); diff != "" {
		t.Errorf("pod (-written +got):\n%s", diff)
	}
	if diff := cmp.Diff(raw.Spec.Selector, got.Spec.Selector); diff != "" {
		t.Errorf("selector (-written +got):\n%s", diff)
	}
	wantLabels := overlay(l.labels, map[string]string{"component-name": "apiserver", names.LabelComponent: names.APIServer})
	if diff := cmp.Diff(wantLabels, got.Spec.Template.Labels); diff != "" {
		t.Errorf("labels of pods (-want +got):\n%s", diff)
	}
	if got.Spec.Template.Annotations[names.AnnotationConfigHash] != "a" {
		t.Error("the pods do not carry the hash that rolls them")
	}
	service, _, _ := l.services(tenancyv1alpha1.ExposureSpec{})
	if target := service.Spec.Ports[0].TargetPort; target.String() != "api" {
		t.Errorf("the Service leads to port %s, want the one of the raw Service", target.String())
	}
}

func TestAddressesAreComplete(t *testing.T) {
	l := newLayout(func(l *layout) {
		l.replicas, l.domain = 3, "corp.example"
		l.serviceRanges = iprange.MustParse("10.112.4.0/22,fd00:112:4::/112")
		l.clusterIPs = append(l.clusterIPs, netip.MustParseAddr("fd00:112:4::1"))
	})
	service := &corev1.Service{
		Spec:   corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, ClusterIPs: []string{"10.96.1.1"}},
		Status: corev1.ServiceStatus{LoadBalancer: corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{{IP: "203.0.113.9"}, {Hostname: "lb.example.org"}}}},
	}
	nodes := []corev1.Node{node("n1", true, "192.0.2.1"), node("n2", false, "192.0.2.2")}
	got := l.addresses(hosts(tenancyv1alpha1.ExposureSpec{Hosts: []string{"api.example.org", "198.51.100.7"}}, service, nodes))

	for _, name := range []string{
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.corp.example", "localhost",
		"kube-apiserver", "kube-apiserver." + l.namespace, "kube-apiserver." + l.namespace + ".svc", "api.example.org", "lb.example.org",
	} {
		if !slices.Contains(got.apiServerDNS, name) {
			t.Errorf("kube-apiserver's certificate lacks the name %s", name)
		}
	}
	for _, ip := range []string{"127.0.0.1", "::1", "10.112.4.1", "fd00:112:4::1", "10.96.1.1", "203.0.113.9", "192.0.2.1", "192.0.2.2", "198.51.100.7"} {
		if !slices.ContainsFunc(got.apiServerIPs, net.ParseIP(ip).Equal) {
			t.Errorf("kube-apiserver's certificate lacks the address %s", ip)
		}
	}
	for _, list := range [][]string{got.etcdServerDNS, got.etcdPeerDNS} {
		if member := "etcd-2.etcd." + l.namespace + ".svc"; !slices.Contains(list, member) {
			t.Errorf("etcd's certificates lack the name %s", member)
		}
	}
	again := l.addresses(hosts(tenancyv1alpha1.ExposureSpec{Hosts: []string{"198.51.100.7", "api.example.org"}}, service, []corev1.Node{nodes[1], nodes[0]}))
	if diff := cmp.Diff(got, again, cmp.AllowUnexported(addresses{})); diff != "" {
		t.Errorf("another order gives another certificate:\n%s", diff)
	}
}

func node(name string, ready bool, ip string) corev1.Node {
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	return corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Status: corev1.NodeStatus{
			Addresses:  []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: name}, {Type: corev1.NodeInternalIP, Address: ip}},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: status}},
		},
	}
}
