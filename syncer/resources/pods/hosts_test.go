package pods

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

const hostsImage = "registry.example/vn-agent:v1"

// In pods with a subdomain the hosts file is translated before any container of the tenant starts.
func TestHostsFile(t *testing.T) {
	subdomain := spec(func(s *corev1.PodSpec) {
		s.Subdomain = "web"
		s.InitContainers = []corev1.Container{{Name: "i", Image: "i"}}
	})
	guaranteed := func(p *corev1.Pod) {
		p.Status.QOSClass = corev1.PodQOSGuaranteed
		p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceCPU: apiresource.MustParse("1")}
	}
	k := &kind{copiers: compile(table()), admit: podSecurity(), hostsImage: hostsImage}
	for name, tc := range map[string]struct {
		change  []func(*corev1.Pod)
		command []string
		limits  corev1.ResourceList
	}{
		"NoSubdomain": {nil, nil, nil},
		"OfPodName": {[]func(*corev1.Pod){subdomain}, []string{
			"/usr/local/bin/vn-hosts", "--to=/tenant/hosts", "--host=web-0", "--subdomain=web", "--fqdn=web-0.web.shop.svc.cluster.local",
		}, nil},
		"OfHostname": {[]func(*corev1.Pod){subdomain, spec(func(s *corev1.PodSpec) { s.Hostname = "h" })}, []string{
			"/usr/local/bin/vn-hosts", "--to=/tenant/hosts", "--host=h", "--subdomain=web", "--fqdn=h.web.shop.svc.cluster.local",
		}, nil},
		"KeepsTheClass": {[]func(*corev1.Pod){subdomain, guaranteed}, []string{
			"/usr/local/bin/vn-hosts", "--to=/tenant/hosts", "--host=web-0", "--subdomain=web", "--fqdn=web-0.web.shop.svc.cluster.local",
		}, corev1.ResourceList{corev1.ResourceCPU: apiresource.MustParse("1")}},
		"FQDNAsHostname": {[]func(*corev1.Pod){subdomain, spec(func(s *corev1.PodSpec) { s.SetHostnameAsFQDN = to(true) })}, nil, nil},
		"Override":       {[]func(*corev1.Pod){subdomain, spec(func(s *corev1.PodSpec) { s.HostnameOverride = to("x") })}, nil, nil},
		"Windows":        {[]func(*corev1.Pod){subdomain, spec(func(s *corev1.PodSpec) { s.OS = &corev1.PodOS{Name: corev1.Windows} })}, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			in := pod(append([]func(*corev1.Pod){func(p *corev1.Pod) { p.Name = "web-0" }}, tc.change...)...)
			w := newWorld()
			got, _, err := k.translateSpec(w.view(), in)
			if err != nil {
				t.Fatal(err)
			}
			var command []string
			var limits corev1.ResourceList
			if c := got.InitContainers; len(c) > 0 && c[0].Name == names.HostsContainer {
				command, limits = c[0].Command, c[0].Resources.Limits
			}
			if diff := cmp.Diff(tc.command, command); diff != "" {
				t.Errorf("command: -want +got\n%s", diff)
			}
			if diff := cmp.Diff(tc.limits, limits); diff != "" {
				t.Errorf("limits: -want +got\n%s", diff)
			}
			for _, c := range append(got.InitContainers, got.Containers...) {
				mounted := false
				for _, m := range c.VolumeMounts {
					mounted = mounted || m.MountPath == "/etc/hosts" && m.SubPath == "hosts"
				}
				if want := tc.command != nil && c.Name != names.HostsContainer; mounted != want {
					t.Errorf("container %s: mounted is %t", c.Name, mounted)
				}
			}
		})
	}
}

// What the syncer adds must not be what the tenant's Pod Security level refuses.
func TestHostsContainerIsRestricted(t *testing.T) {
	w := newWorld()
	k := &kind{copiers: compile(table()), admit: podSecurity(), hostsImage: hostsImage}
	got, _, err := k.translateSpec(w.view(), pod(spec(func(s *corev1.PodSpec) { s.Subdomain = "web" })))
	if err != nil {
		t.Fatal(err)
	}
	got.Containers = got.InitContainers[:1]
	if err := podSecurity()("restricted", &corev1.Pod{Spec: got}); err != nil {
		t.Error(err)
	}
}

// A container of the tenant's that mounts a hosts file of its own keeps it.
func TestOwnHostsFileStays(t *testing.T) {
	w := newWorld()
	own := corev1.VolumeMount{Name: "own", MountPath: "/etc/hosts", SubPath: "mine"}
	k := &kind{copiers: compile(table()), admit: podSecurity(), hostsImage: hostsImage}
	got, _, err := k.translateSpec(w.view(), pod(spec(func(s *corev1.PodSpec) {
		s.Subdomain = "web"
		s.Volumes = append(s.Volumes, corev1.Volume{Name: "own", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
		s.Containers[0].VolumeMounts = []corev1.VolumeMount{own}
	})))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]corev1.VolumeMount{own}, got.Containers[0].VolumeMounts); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// Statuses and events of the container that the syncer adds are not the tenant's business.
func TestHostsContainerIsNotShown(t *testing.T) {
	in := pod()
	super := pod()
	super.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: names.HostsContainer}, {Name: "unknown"}}
	k := &kind{copiers: compile(table())}
	w := newWorld()
	tr := &translation{copiers: k.copiers, view: w.view(), pod: in, super: super, lenient: true}
	var got corev1.PodStatus
	if err := tr.copy(&got, &super.Status); err != nil {
		t.Fatal(err)
	}
	if len(got.InitContainerStatuses) > 0 {
		t.Errorf("the tenant sees %v", got.InitContainerStatuses)
	}
}
