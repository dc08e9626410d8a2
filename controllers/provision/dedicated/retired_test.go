package dedicated

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// rawTemplate is a template of one container with the given command line.
func rawTemplate(replicas *int32, service string, command []string, args ...string) *tenancyv1alpha1.ComponentTemplate {
	set := &appsv1.StatefulSet{}
	set.Spec.Replicas = replicas
	set.Spec.Template.Spec.Containers = []corev1.Container{{Name: "main", Command: command, Args: args}}
	return &tenancyv1alpha1.ComponentTemplate{StatefulSet: set, Service: &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: service}}}
}

func TestRawCommandLinesAreCompleted(t *testing.T) {
	peers := []string{"etcd", "--name=$(HOSTNAME)", "--initial-advertise-peer-urls=https://$(HOSTNAME).etcd:2380"}
	cases := map[string]struct {
		component string
		template  *tenancyv1alpha1.ComponentTemplate
		want      []string
	}{
		"OneMember": {names.Etcd, rawTemplate(nil, "etcd", nil, peers...), append(slices.Clone(peers),
			"--initial-cluster=etcd-0=https://etcd-0.etcd:2380")},
		"ThreeMembers": {names.Etcd, rawTemplate(new(int32(3)), "etcd", nil, peers...), append(slices.Clone(peers),
			"--initial-cluster=etcd-0=https://etcd-0.etcd:2380,etcd-1=https://etcd-1.etcd:2380,etcd-2=https://etcd-2.etcd:2380")},
		"FlagsOfTwoWordsInTheCommand": {names.Etcd, rawTemplate(nil, "etcd", []string{"etcd", "-name", "$(POD)", "--initial-advertise-peer-urls", "http://$(POD).peers:2380"}),
			[]string{"etcd", "-name", "$(POD)", "--initial-advertise-peer-urls", "http://$(POD).peers:2380", "--initial-cluster=etcd-0=http://etcd-0.peers:2380"}},
		"MembersListedAlready": {names.Etcd, rawTemplate(nil, "etcd", nil, append(slices.Clone(peers), "--initial-cluster=own")...), append(slices.Clone(peers), "--initial-cluster=own")},
		"FixedName":            {names.Etcd, rawTemplate(nil, "etcd", nil, "--name=x", peers[2]), []string{"--name=x", peers[2]}},
		"NotEtcd":              {names.Etcd, rawTemplate(nil, "etcd", []string{"/start"}), []string{"/start"}},
		"APIServer": {names.APIServer, rawTemplate(nil, "", []string{"kube-apiserver"},
			"--etcd-servers=https://etcd-0.etcd:2379", "--service-cluster-ip-range", "10.32.0.0/16", "--kubelet-client-key=/own", "--disable-admission-plugins=Priority"),
			[]string{
				"kube-apiserver", "--etcd-servers=https://etcd-0.etcd:2379", "--service-cluster-ip-range=10.112.4.0/22",
				"--kubelet-client-key=" + vnAgentDir + "/tls.key", "--disable-admission-plugins=Priority,TaintNodesByCondition",
				"--kubelet-certificate-authority=" + vnAgentDir + "/ca.crt", "--kubelet-client-certificate=" + vnAgentDir + "/tls.crt",
				"--kubelet-preferred-address-types=InternalIP",
			}},
		"NotAPIServer":      {names.APIServer, rawTemplate(nil, "", []string{"/proxy"}, "--kubelet-client-key=/own"), []string{"/proxy", "--kubelet-client-key=/own"}},
		"ControllerManager": {names.ControllerManager, rawTemplate(nil, "", nil, "--service-cluster-ip-range=10.32.0.0/24", "--v=2"), []string{"--service-cluster-ip-range=10.112.4.0/22", "--v=2"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			l := newLayout(func(l *layout) {
				switch tc.component {
				case names.Etcd:
					l.version.ETCD = tc.template
				case names.APIServer:
					l.version.APIServer = tc.template
				default:
					l.version.ControllerManager = tc.template
				}
			})
			set := map[string]func() *appsv1.StatefulSet{names.Etcd: l.etcd, names.APIServer: l.apiServer, names.ControllerManager: l.controllerManager}[tc.component]()
			container := set.Spec.Template.Spec.Containers[0]
			if diff := cmp.Diff(tc.want, slices.Concat(container.Command, container.Args)); diff != "" {
				t.Errorf("command line (-want +got):\n%s", diff)
			}
			if parallel := set.Spec.PodManagementPolicy == appsv1.ParallelPodManagement; parallel != (*set.Spec.Replicas > 1) {
				t.Errorf("pods are started together: %t", parallel)
			}
			if mounts := len(container.VolumeMounts) == 1 && len(set.Spec.Template.Spec.Volumes) == 1; mounts != (name == "APIServer") {
				t.Errorf("mounts are %v", container.VolumeMounts)
			}
		})
	}
}

func TestCertificatesHaveTheNamesOfRawTemplates(t *testing.T) {
	l := newLayout(func(l *layout) {
		l.retired = true
		l.version.ETCD = rawTemplate(new(int32(2)), "peers", nil)
		l.version.APIServer = rawTemplate(nil, "apiserver-svc", nil)
	})
	a := l.addresses(nil)
	for _, name := range []string{"peers", "etcd-1.peers", "etcd-1.peers." + l.namespace, "etcd-1.etcd", "etcd-1.etcd." + l.namespace + ".svc.cluster.local"} {
		if !slices.Contains(a.etcdServerDNS, name) || !slices.Contains(a.etcdPeerDNS, name) {
			t.Errorf("etcd's certificates lack the name %s", name)
		}
	}
	if !slices.Contains(a.apiServerDNS, "apiserver-svc."+l.namespace) {
		t.Error("kube-apiserver's certificate lacks the name of the raw Service")
	}
	if slices.ContainsFunc(a.etcdServerDNS, func(name string) bool { return strings.HasPrefix(name, "etcd-2") }) {
		t.Error("etcd's certificate has a name of a member that there is not")
	}
	if got := newLayout().addresses(nil); slices.Contains(got.etcdServerDNS, "etcd-0.etcd") {
		t.Error("an ordinary control plane got the short names, too")
	}
}

func TestRawServicesAreMade(t *testing.T) {
	l := newLayout(func(l *layout) {
		l.version.ETCD = rawTemplate(nil, "etcd", nil)
		l.version.APIServer = rawTemplate(nil, "apiserver-svc", nil)
		l.version.APIServer.Service.Spec = corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Selector: map[string]string{"component-name": "apiserver"}}
		l.version.APIServer.Service.Annotations = map[string]string{"example.org/lb": "internal"}
		l.version.ControllerManager = &tenancyv1alpha1.ComponentTemplate{Service: &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "not-raw"}}}
	})
	services := l.retiredServices()
	if len(services) != 1 || services[0].Name != "apiserver-svc" || services[0].Namespace != l.namespace {
		t.Fatalf("got %v", services)
	}
	got := services[0]
	if diff := cmp.Diff(selector(names.APIServer), got.Spec.Selector); diff != "" {
		t.Errorf("selector (-want +got):\n%s", diff)
	}
	if got.Spec.Type != corev1.ServiceTypeLoadBalancer || got.Annotations["example.org/lb"] != "internal" || got.Labels[names.LabelTenant] == "" {
		t.Errorf("got %+v", got)
	}
	if l.version.APIServer.Service.Spec.Selector["component-name"] == "" {
		t.Error("the ClusterVersion was changed")
	}
}
