package pods

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
	psa "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"

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

// Whatever level and version a tenant's pod passes, its replica passes.
func TestHostsContainerIsRestricted(t *testing.T) {
	restricted := mainContainer(func(c *corev1.Container) {
		c.SecurityContext = &corev1.SecurityContext{
			AllowPrivilegeEscalation: to(false), RunAsNonRoot: to(true), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		}
	})
	ofPod := spec(func(s *corev1.PodSpec) {
		s.SecurityContext = &corev1.PodSecurityContext{
			RunAsNonRoot: to(true), RunAsUser: to(int64(1000)), FSGroup: to(int64(2000)), SupplementalGroups: []int64{3000},
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeLocalhost, LocalhostProfile: to("mine.json")},
		}
		s.Containers[0].SecurityContext = &corev1.SecurityContext{
			AllowPrivilegeEscalation: to(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		}
	})
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		level  psa.Level
		change func(*corev1.Pod)
	}{
		"Baseline":   {psa.LevelBaseline, func(*corev1.Pod) {}},
		"Root":       {psa.LevelBaseline, mainContainer(func(c *corev1.Container) { c.SecurityContext = &corev1.SecurityContext{RunAsUser: to(int64(0))} })},
		"Restricted": {psa.LevelRestricted, restricted},
		"OfPod":      {psa.LevelRestricted, ofPod},
		"OtherUser": {psa.LevelRestricted, func(p *corev1.Pod) {
			ofPod(p)
			p.Spec.SecurityContext.RunAsUser = nil
			p.Spec.Containers[0].SecurityContext.RunAsUser = to(int64(7))
		}},
		"RootInAnother": {psa.LevelBaseline, func(p *corev1.Pod) {
			restricted(p)
			p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: to(int64(0))}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			tenant := pod(spec(func(s *corev1.PodSpec) { s.Subdomain = "web" }), tc.change)
			super := withHosts(t, tenant)
			for minor := range 37 {
				version := psa.LevelVersion{Level: tc.level, Version: psa.MajorMinorVersion(1, minor)}
				passes := func(p *corev1.Pod) policy.AggregateCheckResult {
					return policy.AggregateCheckResults(evaluator.EvaluatePod(version, &p.ObjectMeta, &p.Spec))
				}
				if result := passes(tenant); !result.Allowed {
					t.Fatalf("%v refuses the tenant's: %s", version, result.ForbiddenDetail())
				}
				if result := passes(super); !result.Allowed {
					t.Errorf("%v refuses the replica: %s", version, result.ForbiddenDetail())
				}
			}
			added := super.Spec.InitContainers[0]
			if user := runAsUser(&super.Spec, &added); user != nil && *user == 0 {
				t.Error("the kubelet refuses root in a container that must not run as root")
			}
		})
	}
}

// An API server that does not validate may have a pod without containers.
func TestHostsFileOfAPodWithoutContainers(t *testing.T) {
	w := newWorld()
	w.pods = describe(hostsImage)
	empty := spec(func(s *corev1.PodSpec) { s.Subdomain, s.Containers = "db", nil })
	if super := mustDown(t, w, pod(empty)); len(super.Spec.InitContainers) > 0 {
		t.Errorf("init containers are %+v", super.Spec.InitContainers)
	}
}

// withHosts returns the replica of a pod with the container that the syncer adds.
func withHosts(t *testing.T, tenant *corev1.Pod) *corev1.Pod {
	t.Helper()
	w := newWorld()
	w.pods = describe(hostsImage)
	super := mustDown(t, w, tenant)
	if len(super.Spec.InitContainers) == 0 || super.Spec.InitContainers[0].Name != names.HostsContainer {
		t.Fatalf("init containers are %+v", super.Spec.InitContainers)
	}
	return super
}

// The container that the syncer adds has what the pod's first container has, so quotas and limits see no difference.
func TestHostsContainerTakesNothing(t *testing.T) {
	quantities := func(pairs ...string) corev1.ResourceList {
		out := corev1.ResourceList{}
		for i := 0; i < len(pairs); i += 2 {
			out[corev1.ResourceName(pairs[i])] = apiresource.MustParse(pairs[i+1])
		}
		return out
	}
	none := corev1.ResourceRequirements{}
	for name, tc := range map[string]struct {
		first, second, want corev1.ResourceRequirements
		pod                 *corev1.ResourceRequirements
	}{
		"BestEffort": {},
		"Requests": {
			first: corev1.ResourceRequirements{Requests: quantities("cpu", "100m")},
			want:  corev1.ResourceRequirements{Requests: quantities("cpu", "100m")},
		},
		"Guaranteed": {
			first:  corev1.ResourceRequirements{Requests: quantities("cpu", "1", "memory", "1Gi"), Limits: quantities("cpu", "1", "memory", "1Gi")},
			second: corev1.ResourceRequirements{Requests: quantities("cpu", "2", "memory", "2Gi"), Limits: quantities("cpu", "2", "memory", "2Gi")},
			want:   corev1.ResourceRequirements{Requests: quantities("cpu", "1", "memory", "1Gi"), Limits: quantities("cpu", "1", "memory", "1Gi")},
		},
		"NotTheFirst": {
			second: corev1.ResourceRequirements{Limits: quantities("cpu", "1", "memory", "1Gi")},
			want:   none,
		},
		"AllThatIsOrdinary": {
			first: corev1.ResourceRequirements{Limits: quantities("cpu", "1", "memory", "1Gi", "ephemeral-storage", "1Gi", "hugepages-2Mi", "4Mi")},
			want:  corev1.ResourceRequirements{Limits: quantities("cpu", "1", "memory", "1Gi", "ephemeral-storage", "1Gi", "hugepages-2Mi", "4Mi")},
		},
		"NoDevices": {
			first: corev1.ResourceRequirements{Limits: quantities("example.com/gpu", "1"), Requests: quantities("cpu", "1", "example.com/gpu", "1")},
			want:  corev1.ResourceRequirements{Requests: quantities("cpu", "1")},
		},
		"NoClaims": {
			first: corev1.ResourceRequirements{Limits: quantities("cpu", "1"), Claims: []corev1.ResourceClaim{{Name: "gpu"}}},
			want:  corev1.ResourceRequirements{Limits: quantities("cpu", "1")},
		},
		"OfPod": {
			pod:   &corev1.ResourceRequirements{Limits: quantities("cpu", "3", "memory", "1Gi")},
			first: corev1.ResourceRequirements{Requests: quantities("cpu", "1")},
			want:  corev1.ResourceRequirements{Requests: quantities("cpu", "1")},
		},
	} {
		t.Run(name, func(t *testing.T) {
			in := &corev1.PodSpec{
				Subdomain: "web", Resources: tc.pod,
				Containers: []corev1.Container{{Name: "first", Resources: tc.first}, {Name: "second", Resources: tc.second}},
			}
			w := newWorld()
			tr := &translation{view: w.view(), pod: pod(), hostsImage: hostsImage}
			got := in.DeepCopy()
			tr.mountHosts(got, in)
			if diff := cmp.Diff(tc.want, got.InitContainers[0].Resources); diff != "" {
				t.Errorf("resources (-want +got):\n%s", diff)
			}
			for what, sum := range map[string]func(*corev1.Pod, resourcehelper.PodResourcesOptions) corev1.ResourceList{
				"requests": resourcehelper.PodRequests, "limits": resourcehelper.PodLimits,
			} {
				o := resourcehelper.PodResourcesOptions{}
				if diff := cmp.Diff(sum(&corev1.Pod{Spec: *in}, o), sum(&corev1.Pod{Spec: *got}, o)); diff != "" {
					t.Errorf("%s of the pod (-tenant's +replica's):\n%s", what, diff)
				}
			}
		})
	}
}

// Policies about images, users and volumes of containers find nothing in the one that the syncer adds that they do not find in
// the tenant's.
func TestHostsContainerPassesOtherPolicies(t *testing.T) {
	always := func(c *corev1.Container) { c.ImagePullPolicy = corev1.PullAlways }
	for name, tc := range map[string]struct {
		change func(*corev1.PodSpec)
		pull   corev1.PullPolicy
		user   *int64
		group  *int64
		labels *corev1.SELinuxOptions
	}{
		"Plain":  {change: func(*corev1.PodSpec) {}, pull: corev1.PullIfNotPresent},
		"Always": {change: func(s *corev1.PodSpec) { always(&s.Containers[0]) }, pull: corev1.PullAlways},
		"NotAll": {change: func(s *corev1.PodSpec) {
			always(&s.Containers[0])
			s.InitContainers = s.Containers[:1:1]
			s.Containers = []corev1.Container{{ImagePullPolicy: corev1.PullNever}}
		}, pull: corev1.PullIfNotPresent},
		"UserOfPod": {change: func(s *corev1.PodSpec) { s.SecurityContext.RunAsUser = to(int64(1000)) }, pull: corev1.PullIfNotPresent},
		"RootOfPod": {change: func(s *corev1.PodSpec) { s.SecurityContext.RunAsUser = to(int64(0)) }, pull: corev1.PullIfNotPresent, user: to(int64(names.Nonroot))},
		"OwnContext": {
			change: func(s *corev1.PodSpec) {
				s.Containers[0].SecurityContext = &corev1.SecurityContext{RunAsUser: to(int64(1000)), RunAsGroup: to(int64(2000)), SELinuxOptions: &corev1.SELinuxOptions{Level: "s0:c1,c2"}, Privileged: to(true)}
			},
			pull: corev1.PullIfNotPresent, user: to(int64(1000)), group: to(int64(2000)), labels: &corev1.SELinuxOptions{Level: "s0:c1,c2"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			in := pod(spec(tc.change), spec(func(s *corev1.PodSpec) { s.Subdomain = "web" })).Spec
			w := newWorld()
			tr := &translation{view: w.view(), pod: pod(), hostsImage: hostsImage}
			got := in.DeepCopy()
			tr.mountHosts(got, &in)
			added := got.InitContainers[0]
			if added.ImagePullPolicy != tc.pull {
				t.Errorf("images are pulled %s", added.ImagePullPolicy)
			}
			want := &corev1.SecurityContext{
				RunAsNonRoot: to(true), AllowPrivilegeEscalation: to(false), ReadOnlyRootFilesystem: to(true),
				Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
				RunAsUser:      tc.user, RunAsGroup: tc.group, SELinuxOptions: tc.labels,
			}
			if diff := cmp.Diff(want, added.SecurityContext); diff != "" {
				t.Errorf("security context (-want +got):\n%s", diff)
			}
			volume := got.Volumes[len(got.Volumes)-1].EmptyDir
			if volume == nil || volume.SizeLimit == nil || volume.Medium != "" {
				t.Errorf("the volume is %+v", volume)
			}
		})
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
