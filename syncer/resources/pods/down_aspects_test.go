package pods

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	psa "k8s.io/pod-security-admission/api"

	"github.com/virtualcluster-io/virtualcluster/internal/iprange"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

func to[T any](v T) *T { return &v }

// spec changes the spec of a pod.
func spec(change func(*corev1.PodSpec)) func(*corev1.Pod) {
	return func(p *corev1.Pod) { change(&p.Spec) }
}

// main changes the first container.
func mainContainer(change func(*corev1.Container)) func(*corev1.Pod) {
	return func(p *corev1.Pod) { change(&p.Spec.Containers[0]) }
}

func volumes(sources ...corev1.VolumeSource) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		for i, source := range sources {
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: string(rune('a' + i)), VolumeSource: source})
		}
	}
}

// Attacks P-01 to P-25: what must not run, and the reason the tenant is told.
func TestRefusals(t *testing.T) {
	hostPath := func(kind corev1.HostPathType) func(*corev1.Pod) {
		return volumes(corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/", Type: &kind}})
	}
	security := func(s corev1.SecurityContext) func(*corev1.Pod) {
		return mainContainer(func(c *corev1.Container) { c.SecurityContext = &s })
	}
	privileged := corev1.SecurityContext{Privileged: to(true)}
	affinity := func(term corev1.PodAffinityTerm) func(*corev1.Pod) {
		return spec(func(s *corev1.PodSpec) {
			s.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{term}}}
		})
	}
	for name, tc := range map[string]struct {
		change func(*corev1.Pod)
		reason string
		says   string
	}{
		"P01Privileged": {security(privileged), "PodSecurity", "privileged"},
		"P01PrivilegedInit": {spec(func(s *corev1.PodSpec) {
			s.InitContainers = []corev1.Container{{Name: "i", Image: "i", SecurityContext: &privileged}}
		}), "PodSecurity", "privileged"},
		"P01PrivilegedSidecar": {spec(func(s *corev1.PodSpec) {
			s.InitContainers = []corev1.Container{{Name: "i", Image: "i", RestartPolicy: to(corev1.ContainerRestartPolicyAlways), SecurityContext: &privileged}}
		}), "PodSecurity", "privileged"},
		"P01PrivilegedEphemeral": {spec(func(s *corev1.PodSpec) {
			s.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "e", Image: "e", SecurityContext: &privileged}}}
		}), "PodSecurity", "privileged"},
		"P02HostPath":       {hostPath(corev1.HostPathUnset), "PodSecurity", "hostPath"},
		"P02HostPathSocket": {hostPath(corev1.HostPathSocket), "PodSecurity", "hostPath"},
		"P02HostPathDevice": {hostPath(corev1.HostPathBlockDev), "PodSecurity", "hostPath"},
		"P03HostNetwork":    {spec(func(s *corev1.PodSpec) { s.HostNetwork = true }), "PodSecurity", "host namespaces"},
		"P03HostPort":       {mainContainer(func(c *corev1.Container) { c.Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 80}} }), "PodSecurity", "hostPort"},
		"P04HostPID":        {spec(func(s *corev1.PodSpec) { s.HostPID = true }), "PodSecurity", "host namespaces"},
		"P04HostIPC":        {spec(func(s *corev1.PodSpec) { s.HostIPC = true }), "PodSecurity", "host namespaces"},
		"P05Capabilities":   {security(corev1.SecurityContext{Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"SYS_ADMIN"}}}), "PodSecurity", "SYS_ADMIN"},
		"P05ProcMount":      {security(corev1.SecurityContext{ProcMount: to(corev1.UnmaskedProcMount)}), "PodSecurity", "procMount"},
		"P05SELinux":        {security(corev1.SecurityContext{SELinuxOptions: &corev1.SELinuxOptions{Type: "spc_t"}}), "PodSecurity", "seLinuxOptions"},
		"P05Seccomp":        {security(corev1.SecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeUnconfined}}), "PodSecurity", "seccompProfile"},
		"P05AppArmor":       {security(corev1.SecurityContext{AppArmorProfile: &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeUnconfined}}), "PodSecurity", "AppArmor"},
		"P05HostProcess":    {security(corev1.SecurityContext{WindowsOptions: &corev1.WindowsSecurityContextOptions{HostProcess: to(true)}}), "PodSecurity", "hostProcess"},
		"P05GMSA":           {security(corev1.SecurityContext{WindowsOptions: &corev1.WindowsSecurityContextOptions{GMSACredentialSpecName: to("x")}}), "Unsupported", "spec.containers[0].securityContext.windowsOptions.gmsaCredentialSpecName"},
		"P05Sysctl": {spec(func(s *corev1.PodSpec) {
			s.SecurityContext.Sysctls = []corev1.Sysctl{{Name: "kernel.msgmax", Value: "1"}}
		}), "PodSecurity", "sysctls"},
		"P12RuntimeClass": {spec(func(s *corev1.PodSpec) { s.RuntimeClassName = to("kata") }), "Unsupported", "spec.runtimeClassName: neither the runtime class kata nor one with its handler is offered"},
		"P13NFS":          {volumes(corev1.VolumeSource{NFS: &corev1.NFSVolumeSource{Server: "s", Path: "/"}}), "Unsupported", "spec.volumes[0].nfs: volumes of this type are not offered"},
		"P13GitRepo":      {volumes(corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}, corev1.VolumeSource{GitRepo: &corev1.GitRepoVolumeSource{Repository: "r"}}), "Unsupported", "spec.volumes[1].gitRepo"},
		"P13Empty":        {volumes(corev1.VolumeSource{RBD: &corev1.RBDVolumeSource{}}), "Unsupported", "spec.volumes[0].rbd"},
		"P13Unknown":      {volumes(corev1.VolumeSource{}), "Unsupported", "spec.volumes[0]: volumes of this type"},
		"P14CSI":          {volumes(corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: "d"}}), "Unsupported", "spec.volumes[0].csi"},
		"P17TrustBundle": {volumes(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{Path: "p"}}}}}),
			"Unsupported", "spec.volumes[0].projected.sources[0].clusterTrustBundle"},
		"P17PodCertificate": {volumes(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{PodCertificate: &corev1.PodCertificateProjection{SignerName: "s"}}}}}),
			"Unsupported", "spec.volumes[0].projected.sources[0].podCertificate"},
		"P18ProbeHost": {mainContainer(func(c *corev1.Container) {
			c.LivenessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Host: "169.254.169.254"}}}
		}), "PodSecurity", "probe or lifecycle host"},
		"P18LifecycleHost": {mainContainer(func(c *corev1.Container) {
			c.Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{Host: "127.0.0.1"}}}
		}), "PodSecurity", "probe or lifecycle host"},
		"P25HiddenDevices": {mainContainer(func(c *corev1.Container) {
			c.Resources.Limits = corev1.ResourceList{"deviceclass.resource.kubernetes.io/gpu": apiresource.MustParse("1")}
		}), "Unsupported", "spec.containers: the resource deviceclass.resource.kubernetes.io/gpu of container main is of a device class that is not offered"},
		"P25SchedulingGroup": {spec(func(s *corev1.PodSpec) { s.SchedulingGroup = &corev1.PodSchedulingGroup{PodGroupName: to("g")} }), "Unsupported", "spec.schedulingGroup"},
		"NamespaceSelector": {affinity(corev1.PodAffinityTerm{TopologyKey: "zone", NamespaceSelector: &metav1.LabelSelector{
			MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "team", Operator: "Fits"}},
		}}), "Unsupported", "namespaceSelector"},
		"UnknownFieldPath": {mainContainer(func(c *corev1.Container) {
			c.Env = []corev1.EnvVar{{Name: "A", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.managedFields"}}}}
		}), "Unsupported", `spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: the field "metadata.managedFields" is not known here`},
		"LongFQDN": {func(p *corev1.Pod) {
			p.Name, p.Spec.Subdomain, p.Spec.SetHostnameAsFQDN = "web-0", strings.Repeat("s", 60), to(true)
		}, "Unsupported", "spec.setHostnameAsFQDN: the name web-0.sss"},
	} {
		t.Run(name, func(t *testing.T) {
			replica, err := down(t, newWorld(), pod(tc.change))
			if replica != nil {
				t.Fatalf("it was created: %v", replica.Spec)
			}
			reject, ok := resource.AsReject(err)
			if !ok {
				t.Fatalf("got %v, want a rejection", err)
			}
			if reject.Reason != tc.reason || !strings.Contains(reject.Message, tc.says) {
				t.Errorf("got %s, want %s: ...%s...", reject, tc.reason, tc.says)
			}
			for _, secret := range []string{superShop(), string(tenantID)} {
				if strings.Contains(reject.Message, secret) {
					t.Errorf("the message tells of %q: %s", secret, reject.Message)
				}
			}
		})
	}
}

// The admin can let a tenant do what endangers nodes: the level goes for all that the table lets through.
func TestPrivilegedPodsPass(t *testing.T) {
	w := newWorld()
	w.facts.PodSecurity = psa.LevelPrivileged
	directory := corev1.HostPathDirectory
	in := pod(spec(func(s *corev1.PodSpec) {
		s.HostNetwork, s.HostPID, s.DNSPolicy = true, true, corev1.DNSClusterFirst
		s.Volumes = append(s.Volumes, corev1.Volume{Name: "h", VolumeSource: corev1.VolumeSource{
			HostPath: &corev1.HostPathVolumeSource{Path: "/etc", Type: &directory},
		}})
		c := &s.Containers[0]
		c.SecurityContext = &corev1.SecurityContext{Privileged: to(true)}
		c.Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 80, HostIP: "127.0.0.1", Protocol: corev1.ProtocolTCP}}
		c.Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{Host: "192.0.2.1", Port: intstr.FromInt32(80)}}}
	}))
	replica, err := down(t, w, in)
	if err != nil {
		t.Fatal(err)
	}
	got := replica.Spec
	if !got.HostNetwork || !got.HostPID || got.DNSPolicy != corev1.DNSClusterFirst || got.DNSConfig != nil {
		t.Errorf("the network is %t, %t, %s, %v", got.HostNetwork, got.HostPID, got.DNSPolicy, got.DNSConfig)
	}
	want, have := in.Spec.Containers[0], got.Containers[0]
	if diff := cmp.Diff(want.Ports, have.Ports); diff != "" {
		t.Errorf("ports: -want +got\n%s", diff)
	}
	if diff := cmp.Diff(want.SecurityContext, have.SecurityContext); diff != "" {
		t.Errorf("security context: -want +got\n%s", diff)
	}
	if diff := cmp.Diff(want.Lifecycle, have.Lifecycle); diff != "" {
		t.Errorf("lifecycle: -want +got\n%s", diff)
	}
	if !slices.ContainsFunc(got.Volumes, func(v corev1.Volume) bool { return v.HostPath != nil && v.HostPath.Path == "/etc" }) {
		t.Errorf("volumes are %v", got.Volumes)
	}
}

// A refusal is told even when something is missing too: waiting would hide it for ever.
func TestRefusalsComeBeforeWaiting(t *testing.T) {
	w := newWorld()
	w.remove(resource.Tenant, "services", "default", "kubernetes")
	_, err := down(t, w, pod(spec(func(s *corev1.PodSpec) { s.RuntimeClassName = to("kata") })))
	if _, ok := resource.AsReject(err); !ok {
		t.Errorf("got %v, want a rejection", err)
	}
}

func TestWaits(t *testing.T) {
	for name, tc := range map[string]struct {
		lose   func(*world)
		change func(*corev1.Pod)
		says   string
	}{
		"NoAPIService": {func(w *world) { w.remove(resource.Tenant, "services", "default", "kubernetes") }, nil, "default/kubernetes"},
		"NoAPIAddress": {func(w *world) { w.put(resource.Tenant, "services", "default", "kubernetes", clusterService("", 443)) }, nil, "default/kubernetes"},
		"NoDNSService": {func(w *world) { w.remove(resource.Tenant, "services", "kube-system", "kube-dns") }, nil, "kube-system/kube-dns"},
		"HeadlessDNSService": {func(w *world) {
			w.put(resource.Tenant, "services", "kube-system", "kube-dns", clusterService("None", 53))
		}, nil, "kube-system/kube-dns"},
		"APIAddressNotAdopted": {func(w *world) {
			w.put(resource.Super, "services", "default", "kubernetes", superService("10.96.7.7"))
		}, nil, "default/kubernetes"},
		"APIServiceNotReplicated": {func(w *world) { w.remove(resource.Super, "services", "default", "kubernetes") }, nil, "default/kubernetes"},
		"APIServiceMadeAgain": {func(w *world) {
			w.put(resource.Super, "services", "default", "kubernetes", madeFor("predecessor", superService("10.100.0.1")))
		}, nil, "default/kubernetes"},
		"DNSAddressNotAdopted": {func(w *world) {
			w.put(resource.Super, "services", "kube-system", "kube-dns", superService("10.96.7.8"))
		}, nil, "kube-system/kube-dns"},
		"DNSServiceNotReplicated": {func(w *world) { w.remove(resource.Super, "services", "kube-system", "kube-dns") }, nil, "kube-system/kube-dns"},
		"DNSServiceAhead": {func(w *world) {
			w.put(resource.Super, "services", "kube-system", "kube-dns", madeFor(names.UIDAhead, superService("10.100.0.10")))
		}, nil, "kube-system/kube-dns"},
		"ServiceAccountMissing": {nil, spec(func(s *corev1.PodSpec) { s.ServiceAccountName = "robot" }), `serviceaccount "robot", which does not exist`},
		"ServiceAccountOfTheOperator": {func(w *world) {
			w.share(kindAccounts, "robot")
			w.put(resource.Super, kindAccounts, shop, "robot", operators())
		}, spec(func(s *corev1.PodSpec) { s.ServiceAccountName = "robot" }), `events of the serviceaccount "robot" say why`},
		"SecretWithoutReplica": {func(w *world) {
			w.share("secrets", "s")
			w.remove(resource.Super, "secrets", shop, "s")
		}, volumes(corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s", Optional: to(true)}}), `events of the secret "s" say why`},
		"SuperNamespaceMissing":  {func(w *world) { w.remove(resource.Super, "namespaces", "", shop) }, nil, `namespace "shop", which the underlying cluster does not have yet`},
		"SuperNamespaceOfOthers": {func(w *world) { w.put(resource.Super, "namespaces", "", shop, &corev1.Namespace{}) }, nil, `namespace "shop", which the underlying cluster does not have yet`},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			if tc.lose != nil {
				tc.lose(w)
			}
			p := pod()
			if tc.change != nil {
				tc.change(p)
			}
			replica, err := down(t, w, p)
			wait, ok := resource.AsWait(err)
			if replica != nil || !ok || !strings.Contains(wait.Reason, tc.says) {
				t.Errorf("got %v and %v, want to wait for %s", replica, err, tc.says)
			}
		})
	}
}

// madeFor makes a replica that of an object with the UID.
func madeFor(uid string, s *corev1.Service) *corev1.Service {
	s.Annotations[names.AnnotationUID] = uid
	return s
}

// With a range of its own, the addresses of a tenant are what they are.
func TestAddressesOfAnOwnRangeNeedNoReplica(t *testing.T) {
	w := newWorld()
	w.facts.ServiceRanges = iprange.MustParse("10.100.0.0/22")
	w.remove(resource.Super, "services", "default", "kubernetes")
	w.remove(resource.Super, "services", "kube-system", "kube-dns")
	got := mustDown(t, w, pod())
	if got.Spec.Containers[0].Env[0].Value != "10.100.0.1" || got.Spec.DNSConfig.Nameservers[0] != "10.100.0.10" {
		t.Errorf("got %v, %v", got.Spec.Containers[0].Env, got.Spec.DNSConfig)
	}
}

func TestServiceAccountThatExists(t *testing.T) {
	w := newWorld()
	w.share(kindAccounts, "robot")
	got := mustDown(t, w, pod(spec(func(s *corev1.PodSpec) { s.ServiceAccountName = "robot"; s.AutomountServiceAccountToken = to(true) })))
	if got.Spec.ServiceAccountName != "robot" || got.Spec.AutomountServiceAccountToken == nil || *got.Spec.AutomountServiceAccountToken {
		t.Errorf("got account %q, automount %v", got.Spec.ServiceAccountName, got.Spec.AutomountServiceAccountToken)
	}
}

// What asks for something only the super cluster can give meaning to is left out.
func TestDroppedFields(t *testing.T) {
	got := mustDown(t, newWorld(), pod(spec(func(s *corev1.PodSpec) {
		s.SchedulerName = "kube-scheduler-of-somebody" // P-11
		s.PriorityClassName = "system-node-critical"   // P-10
		s.Priority = to(int32(2000001000))
		s.PreemptionPolicy = to(corev1.PreemptLowerPriority)
		s.Overhead = corev1.ResourceList{}
		s.RuntimeClassName = to("")
		s.HostUsers = to(true)
		s.DeprecatedServiceAccount = "other"
	})))
	s := got.Spec
	if s.SchedulerName != "" || s.PriorityClassName != "" || s.Priority != nil || s.PreemptionPolicy != nil || s.Overhead != nil ||
		s.RuntimeClassName != nil || s.HostUsers != nil || s.DeprecatedServiceAccount != "" {
		t.Errorf("got %+v", s)
	}
	own := mustDown(t, newWorld(), pod(spec(func(s *corev1.PodSpec) { s.HostUsers = to(false) })))
	if own.Spec.HostUsers == nil || *own.Spec.HostUsers {
		t.Errorf("a user namespace was asked for and not given")
	}
}

// Attacks M-01, M-07: nothing that a tenant writes into metadata becomes ours.
func TestMetadata(t *testing.T) {
	w := newWorld()
	w.facts.Opaque = []string{"secret.example.com/"}
	w.facts.Transparent = []string{"node.example.com/"}
	got := mustDown(t, w, pod(func(p *corev1.Pod) {
		p.GenerateName = "web-"
		p.Finalizers = []string{"example.com/keep"}
		p.OwnerReferences = []metav1.OwnerReference{{Kind: "ReplicaSet", Name: "web", UID: "rs"}}
		p.Labels = map[string]string{
			"app": "web", "app.kubernetes.io/name": "web", names.LabelTenant: "victim", names.LabelManagedBy: "vc-manager", "secret.example.com/a": "1", "node.example.com/b": "1",
			"azure.workload.identity/use": "true", "sidecar.istio.io/inject": "true", "aadpodidbinding": "operators",
		}
		p.Annotations = map[string]string{
			"note": "hello",
			"kubectl.kubernetes.io/default-container":             "main",
			"cluster-autoscaler.kubernetes.io/safe-to-evict":      "false",
			"karpenter.sh/do-not-disrupt":                         "true",
			"iam.amazonaws.com/role":                              "admin",
			"prometheus.io/scrape":                                "true",
			names.AnnotationUID:                                   "forged",
			names.AnnotationNamespace:                             "victim",
			names.AnnotationName:                                  "victim",
			names.AnnotationKeys:                                  "l:" + names.LabelTenant,
			downwardPrefix + "labels":                             "forged",
			"secret.example.com/a":                                "1",
			"node.example.com/b":                                  "1",
			corev1.LastAppliedConfigAnnotation:                    "{}",
			"container.apparmor.security.beta.kubernetes.io/main": "runtime/default",
			"seccomp.security.alpha.kubernetes.io/pod":            "runtime/default",
			"k8s.v1.cni.cncf.io/networks":                         "kube-system/host",
			"kubernetes.io/config.source":                         "file",
		}
	}))
	labels := map[string]string{"app": "web", "app.kubernetes.io/name": "web", names.LabelTenant: string(tenantID), names.LabelManagedBy: names.Syncer}
	keys := []string{"a:kubectl.kubernetes.io/default-container", "l:app", "l:app.kubernetes.io/name"}
	for key, value := range map[string]string{
		names.LabelTenant: "victim", names.LabelManagedBy: "vc-manager", "secret.example.com/a": "1",
		"azure.workload.identity/use": "true", "sidecar.istio.io/inject": "true", "aadpodidbinding": "operators",
	} {
		labels[names.OpaqueKey(tenantID, key)] = names.OpaqueValue(tenantID, key, value)
		keys = append(keys, "l:"+names.OpaqueKey(tenantID, key))
	}
	slices.Sort(keys)
	want := metav1.ObjectMeta{
		Namespace: superShop(), Name: "web-0", Labels: labels,
		Annotations: map[string]string{
			"kubectl.kubernetes.io/default-container": "main", names.AnnotationNamespace: shop, names.AnnotationUID: "tenant-uid", names.AnnotationKeys: strings.Join(keys, ","),
		},
	}
	if diff := cmp.Diff(want, got.ObjectMeta); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
}

// Constraints between pods count labels that do not go down.
func TestConstraintsWithOpaqueLabels(t *testing.T) {
	w := newWorld()
	w.facts.Opaque = []string{"team.example.com/"}
	const role = "team.example.com/role"
	selector := &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: role, Operator: metav1.LabelSelectorOpIn, Values: []string{"a", "b"}}}}
	got := mustDown(t, w, pod(spec(func(s *corev1.PodSpec) {
		term := corev1.PodAffinityTerm{TopologyKey: "zone", LabelSelector: selector, MismatchLabelKeys: []string{role}}
		s.Affinity = &corev1.Affinity{
			PodAffinity:     &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{term}},
			PodAntiAffinity: &corev1.PodAntiAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{{Weight: 1, PodAffinityTerm: term}}},
		}
		s.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{MaxSkew: 1, TopologyKey: "zone", LabelSelector: selector.DeepCopy(), MatchLabelKeys: []string{"app"}}}
	}))).Spec
	key := names.OpaqueKey(tenantID, role)
	want := &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: key, Operator: metav1.LabelSelectorOpIn, Values: []string{
		names.OpaqueValue(tenantID, role, "a"), names.OpaqueValue(tenantID, role, "b"),
	}}}}
	term := corev1.PodAffinityTerm{TopologyKey: "zone", LabelSelector: want, MismatchLabelKeys: []string{key}}
	if diff := cmp.Diff([]corev1.PodAffinityTerm{term, term}, []corev1.PodAffinityTerm{
		got.Affinity.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution[0],
		got.Affinity.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution[0].PodAffinityTerm,
	}); diff != "" {
		t.Errorf("affinity (-want +got):\n%s", diff)
	}
	spread := []corev1.TopologySpreadConstraint{{MaxSkew: 1, TopologyKey: "zone", LabelSelector: want, MatchLabelKeys: []string{"app"}}}
	if diff := cmp.Diff(spread, got.TopologySpreadConstraints); diff != "" {
		t.Errorf("spread (-want +got):\n%s", diff)
	}
}

func TestStaticPodsAreNotOurs(t *testing.T) {
	ops, err := decide(newWorld(), pod(func(p *corev1.Pod) {
		p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
		deleting(0)(p)
	}), nil)
	if err != nil || len(ops) > 0 {
		t.Errorf("got %v, %v", summary(ops), err)
	}
}

func TestGatedPodsAreNotReplicated(t *testing.T) {
	ops, err := decide(newWorld(), pod(spec(func(s *corev1.PodSpec) { s.SchedulingGates = []corev1.PodSchedulingGate{{Name: "quota"}} })), nil)
	if err != nil || len(ops) > 0 {
		t.Errorf("got %v, %v", summary(ops), err)
	}
}

func TestEnvironment(t *testing.T) {
	fieldRef := func(path string) *corev1.EnvVarSource {
		return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: path}}
	}
	w := newWorld()
	w.unread = true
	w.put(resource.Tenant, "configmaps", shop, "endpoint", &corev1.ConfigMap{Data: map[string]string{"KUBERNETES_PORT": "x", "SERVICE_PORT": "x"}})
	w.put(resource.Tenant, "secrets", shop, "endpoint", &corev1.Secret{Data: map[string][]byte{"KUBERNETES_PORT_443_TCP": nil}})
	w.put(resource.Super, "configmaps", shop, "endpoint", &corev1.ConfigMap{})
	w.put(resource.Super, "secrets", shop, "endpoint", &corev1.Secret{})
	tenant := pod(func(p *corev1.Pod) {
		p.Spec.InitContainers = []corev1.Container{{Name: "init", Image: "i"}}
		p.Spec.Containers[0].Env = []corev1.EnvVar{
			{Name: "URL", Value: "https://$(KUBERNETES_SERVICE_HOST)"},
			{Name: "KUBERNETES_SERVICE_HOST", Value: "proxy"},
			{Name: "NAMESPACE", ValueFrom: fieldRef("metadata.namespace")},
			{Name: "UID", ValueFrom: fieldRef("metadata.uid")},
			{Name: "NODE", ValueFrom: fieldRef("spec.nodeName")},
			{Name: "CM", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"}, Key: "ca.crt"}}},
			{Name: "S", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}, Key: "k"}}},
		}
		p.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{
			{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "endpoint"}}},
			{Prefix: "KUBERNETES_", ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "endpoint"}}},
			{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "endpoint"}}},
			{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"}}},
		}
	})
	_, err := down(t, w, tenant)
	if lacks, ok := resource.AsIncomplete(err); !ok || lacks.Ref != (resource.Ref{Kind: "configmaps", Namespace: shop, Name: "endpoint"}) {
		t.Errorf("before the ConfigMap was read: got %v", err)
	}
	w.unread = false
	got := mustDown(t, w, tenant)
	w.unread = true
	if _, err := decide(w, tenant, running(t, newWorld(), pod())); err != nil {
		t.Errorf("a pod that exists: got %v", err)
	}
	want := []corev1.EnvVar{
		{Name: "KUBERNETES_SERVICE_PORT_HTTPS", Value: "443"},
		{Name: "KUBERNETES_PORT_443_TCP_PROTO", Value: "tcp"},
		{Name: "KUBERNETES_PORT_443_TCP_PORT", Value: "443"},
		{Name: "KUBERNETES_PORT_443_TCP_ADDR", Value: "10.100.0.1"},
		{Name: "URL", Value: "https://$(KUBERNETES_SERVICE_HOST)"},
		{Name: "KUBERNETES_SERVICE_HOST", Value: "proxy"},
		{Name: "NAMESPACE", ValueFrom: fieldRef("metadata.annotations['tenancy.x-k8s.io/namespace']")},
		{Name: "UID", ValueFrom: fieldRef("metadata.annotations['tenancy.x-k8s.io/uid']")},
		{Name: "NODE", ValueFrom: fieldRef("spec.nodeName")},
		{Name: "CM", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: names.SuperConfigMap(names.RootCAConfigMap)}, Key: "ca.crt"}}},
		{Name: "S", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: names.SuperSecret("s")}, Key: "k"}}},
	}
	if diff := cmp.Diff(want, got.Spec.Containers[0].Env); diff != "" {
		t.Errorf("env (-want +got):\n%s", diff)
	}
	if name := got.Spec.Containers[0].EnvFrom[3].ConfigMapRef.Name; name != names.SuperConfigMap(names.RootCAConfigMap) {
		t.Errorf("envFrom refers to %s", name)
	}
	if n := len(got.Spec.InitContainers[0].Env); n != 8 {
		t.Errorf("the init container got %d variables", n)
	}
}

// The fallback of $(VAR) to the API server's address works as without us: a variable of ours comes first.
func TestVariablesOfTheAPIServerComeFirst(t *testing.T) {
	got := mustDown(t, newWorld(), pod(mainContainer(func(c *corev1.Container) {
		c.Env = []corev1.EnvVar{{Name: "URL", Value: "https://$(KUBERNETES_SERVICE_HOST)"}}
	})))
	env := got.Spec.Containers[0].Env
	if env[0].Name != "KUBERNETES_SERVICE_HOST" || env[len(env)-1].Name != "URL" {
		t.Errorf("got %v", env)
	}
}

// Attack P-20: what a container sees of its pod is what the tenant sees of it.
func TestDownwardAPI(t *testing.T) {
	file := func(name, path string) corev1.DownwardAPIVolumeFile {
		return corev1.DownwardAPIVolumeFile{Path: name, FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}
	}
	tenant := pod(func(p *corev1.Pod) {
		p.Labels = map[string]string{"app": "web", "tier": "a\"b", names.LabelTenant: "forged"}
		p.Annotations = map[string]string{"note": "two\nlines", corev1.LastAppliedConfigAnnotation: "{}", names.AnnotationUID: "forged"}
		items := []corev1.DownwardAPIVolumeFile{
			file("name", "metadata.name"), file("namespace", "metadata.namespace"), file("uid", "metadata.uid"),
			file("labels", "metadata.labels"), file("annotations", "metadata.annotations"),
			file("app", "metadata.labels['app']"), file("absent", "metadata.labels['absent']"), file("reserved", "metadata.labels['tenancy.x-k8s.io/tenant']"),
			file("note", "metadata.annotations['note']"), file("keys", "metadata.annotations['tenancy.x-k8s.io/keys']"),
			file("super", "metadata.annotations['cni.projectcalico.org/podIP']"),
			file("zone", "metadata.labels['topology.kubernetes.io/zone']"),
		}
		p.Spec.Volumes = []corev1.Volume{
			{Name: "v", VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: items}}},
			{Name: "p", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{DownwardAPI: &corev1.DownwardAPIProjection{Items: items}}}}}},
		}
	})
	got := mustDown(t, newWorld(), tenant)
	got.Annotations["cni.projectcalico.org/podIP"] = "10.1.0.5" // of the super cluster
	got.Labels["topology.kubernetes.io/zone"] = "z"
	want := map[string]string{
		"name": "web-0", "namespace": shop, "uid": "tenant-uid",
		"labels":      "app=\"web\"\ntier=\"a\\\"b\"",
		"annotations": "kubectl.kubernetes.io/last-applied-configuration=\"{}\"\nnote=\"two\\nlines\"",
		"app":         "web", "absent": "", "reserved": "", "note": "two\nlines", "keys": "", "super": "", "zone": "z",
	}
	for _, items := range [][]corev1.DownwardAPIVolumeFile{got.Spec.Volumes[0].DownwardAPI.Items, got.Spec.Volumes[1].Projected.Sources[0].DownwardAPI.Items} {
		seen := map[string]string{}
		for _, item := range items {
			seen[item.Path] = kubeletReads(got, item.FieldRef.FieldPath)
		}
		if diff := cmp.Diff(want, seen); diff != "" {
			t.Errorf("what containers see (-want +got):\n%s", diff)
		}
	}

	// When the tenant's labels change, so do the files.
	w := newWorld()
	changed := tenant.DeepCopy()
	changed.Labels = map[string]string{"tier": "b"}
	super := mustDown(t, w, tenant)
	super.UID = "super-uid"
	ops, err := decide(w, changed, super)
	if err != nil {
		t.Fatal(err)
	}
	_, after, err := w.apply(changed, super, ops)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for _, item := range after.Spec.Volumes[0].DownwardAPI.Items {
		seen[item.Path] = kubeletReads(after, item.FieldRef.FieldPath)
	}
	want["labels"], want["app"], want["super"], want["zone"] = "tier=\"b\"", "", "", ""
	if diff := cmp.Diff(want, seen); diff != "" {
		t.Errorf("what containers see after the change (-want +got):\n%s", diff)
	}
}

// kubeletReads is what a kubelet puts into a file for a path.
func kubeletReads(p *corev1.Pod, path string) string {
	switch path {
	case "metadata.name":
		return p.Name
	case "metadata.namespace":
		return p.Namespace
	case "metadata.uid":
		return string(p.UID)
	case "metadata.labels", "metadata.annotations":
		return "the whole map of the super pod"
	}
	if key, ok := subscript(path, "metadata.labels"); ok {
		return p.Labels[key]
	}
	if key, ok := subscript(path, "metadata.annotations"); ok {
		return p.Annotations[key]
	}
	return "not a path: " + path
}

func TestVolumes(t *testing.T) {
	claim := corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data", ReadOnly: true}
	tokenSecret := TokenSecret(pod())
	for name, tc := range map[string]struct{ in, want corev1.VolumeSource }{
		"EmptyDir": {
			corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}},
			corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}},
		},
		"Secret": {
			corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s", DefaultMode: to(int32(0o400))}},
			corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: names.SuperSecret("s"), DefaultMode: to(int32(0o400))}},
		},
		"ConfigMap": {
			corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "c"}, Optional: to(true)}},
			corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: names.SuperConfigMap("c")}, Optional: to(true)}},
		},
		"RootCA": {
			corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"}}},
			corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: names.SuperConfigMap(names.RootCAConfigMap)}}},
		},
		"Claim": {corev1.VolumeSource{PersistentVolumeClaim: &claim}, corev1.VolumeSource{PersistentVolumeClaim: &claim}},
		"Ephemeral": {
			corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{VolumeClaimTemplate: &corev1.PersistentVolumeClaimTemplate{Spec: corev1.PersistentVolumeClaimSpec{VolumeName: "victims"}}}},
			corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "web-0-a"}},
		},
		"Image": {
			corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: "data:1", PullPolicy: corev1.PullAlways}},
			corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: "data:1", PullPolicy: corev1.PullAlways}},
		},
		// Attack P-16: the kubelet is never asked for a token.
		"Tokens": {
			corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{DefaultMode: to(int32(0o644)), Sources: []corev1.VolumeProjection{
				{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}},
				{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"}}},
				{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "vault/token", Audience: "vault", ExpirationSeconds: to(int64(600))}},
			}}},
			corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{DefaultMode: to(int32(0o644)), Sources: []corev1.VolumeProjection{
				{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: tokenSecret}, Items: []corev1.KeyToPath{{Key: "0-0", Path: "token"}}}},
				{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: names.SuperConfigMap(names.RootCAConfigMap)}}},
				{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: tokenSecret}, Items: []corev1.KeyToPath{{Key: "0-2", Path: "vault/token"}}}},
			}}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			w.share(kindVolumeClaims, "data")
			w.share(kindVolumeClaims, "web-0-a")
			own := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{UID: "of-tenant", OwnerReferences: []metav1.OwnerReference{
				{UID: "tenant-uid", Controller: to(true)},
			}}}
			w.put(resource.Tenant, kindVolumeClaims, shop, "web-0-a", own)
			got := mustDown(t, w, pod(volumes(tc.in)))
			if diff := cmp.Diff(tc.want, got.Spec.Volumes[0].VolumeSource); diff != "" {
				t.Errorf("volume (-want +got):\n%s", diff)
			}
		})
	}
}

// Attack P-22: ClusterFirst never means the DNS of the super cluster.
func TestDNS(t *testing.T) {
	searches := []string{"shop.svc.cluster.local", "svc.cluster.local", "cluster.local"}
	option := func(name, value string) corev1.PodDNSConfigOption {
		return corev1.PodDNSConfigOption{Name: name, Value: &value}
	}
	many := make([]string, 40)
	for i := range many {
		many[i] = strings.Repeat("x", i+1) + ".example"
	}
	for name, tc := range map[string]struct {
		policy     corev1.DNSPolicy
		config     *corev1.PodDNSConfig
		facts      func(*world)
		wantPolicy corev1.DNSPolicy
		want       *corev1.PodDNSConfig
	}{
		"ClusterFirst": {policy: corev1.DNSClusterFirst, wantPolicy: corev1.DNSNone,
			want: &corev1.PodDNSConfig{Nameservers: []string{"10.100.0.10"}, Searches: searches, Options: []corev1.PodDNSConfigOption{option("ndots", "5")}}},
		"Unset": {wantPolicy: corev1.DNSNone,
			want: &corev1.PodDNSConfig{Nameservers: []string{"10.100.0.10"}, Searches: searches, Options: []corev1.PodDNSConfigOption{option("ndots", "5")}}},
		"ClusterFirstWithHostNet": {policy: corev1.DNSClusterFirstWithHostNet, wantPolicy: corev1.DNSNone,
			want: &corev1.PodDNSConfig{Nameservers: []string{"10.100.0.10"}, Searches: searches, Options: []corev1.PodDNSConfigOption{option("ndots", "5")}}},
		"Default": {policy: corev1.DNSDefault, wantPolicy: corev1.DNSDefault},
		"None": {policy: corev1.DNSNone, config: &corev1.PodDNSConfig{Nameservers: []string{"1.2.3.4"}}, wantPolicy: corev1.DNSNone,
			want: &corev1.PodDNSConfig{Nameservers: []string{"1.2.3.4"}}},
		"Merged": {policy: corev1.DNSClusterFirst, wantPolicy: corev1.DNSNone,
			config: &corev1.PodDNSConfig{
				Nameservers: []string{"10.100.0.10", "1.1.1.1", "2.2.2.2", "3.3.3.3"}, Searches: []string{"example.com", "cluster.local"},
				Options: []corev1.PodDNSConfigOption{{Name: "rotate"}, option("ndots", "2")},
			},
			want: &corev1.PodDNSConfig{
				Nameservers: []string{"10.100.0.10", "1.1.1.1", "2.2.2.2"}, Searches: append(append([]string{}, searches...), "example.com"),
				Options: []corev1.PodDNSConfigOption{option("ndots", "2"), {Name: "rotate"}},
			}},
		"TooManySearches": {policy: corev1.DNSClusterFirst, config: &corev1.PodDNSConfig{Searches: many}, wantPolicy: corev1.DNSNone,
			want: &corev1.PodDNSConfig{Nameservers: []string{"10.100.0.10"}, Searches: append(append([]string{}, searches...), many[:29]...), Options: []corev1.PodDNSConfigOption{option("ndots", "5")}}},
		"NoServiceYet": {policy: corev1.DNSClusterFirst, wantPolicy: corev1.DNSNone,
			facts: func(w *world) {
				w.remove(resource.Tenant, "services", "kube-system", "kube-dns")
				w.facts.ServiceRanges = iprange.MustParse("10.112.4.0/22")
			},
			want: &corev1.PodDNSConfig{Nameservers: []string{"10.112.4.10"}, Searches: searches, Options: []corev1.PodDNSConfigOption{option("ndots", "5")}}},
		"NoServiceYetIPv6": {policy: corev1.DNSClusterFirst, wantPolicy: corev1.DNSNone,
			facts: func(w *world) {
				w.remove(resource.Tenant, "services", "kube-system", "kube-dns")
				w.facts.ServiceRanges = iprange.MustParse("fd00:1::/112,10.112.4.0/22")
			},
			want: &corev1.PodDNSConfig{Nameservers: []string{"fd00:1::a"}, Searches: searches, Options: []corev1.PodDNSConfigOption{option("ndots", "5")}}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			if tc.facts != nil {
				tc.facts(w)
			}
			got := mustDown(t, w, pod(spec(func(s *corev1.PodSpec) { s.DNSPolicy, s.DNSConfig = tc.policy, tc.config })))
			if got.Spec.DNSPolicy != tc.wantPolicy {
				t.Errorf("policy %s, want %s", got.Spec.DNSPolicy, tc.wantPolicy)
			}
			if diff := cmp.Diff(tc.want, got.Spec.DNSConfig); diff != "" {
				t.Errorf("config (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSearchPathsThatResolversCannotRead(t *testing.T) {
	long := strings.Repeat("a.", 127)
	in := []string{"one", long + long, "two"}
	for range 20 {
		in = append(in, long[:120])
	}
	got := fitting(in)
	if got[0] != "one" || got[1] != "two" || len(strings.Join(got, " ")) > maxSearchesChars || len(got) != 18 {
		t.Errorf("got %d: %v", len(got), got)
	}
}

func TestHostname(t *testing.T) {
	type names struct {
		Hostname, Subdomain string
		FQDN                *bool
		Override            *string
	}
	for name, tc := range map[string]struct{ in, want names }{
		"Plain":          {names{Hostname: "h", Subdomain: "s"}, names{Hostname: "h", Subdomain: "s"}},
		"FQDN":           {names{Hostname: "h", Subdomain: "s", FQDN: to(true)}, names{Hostname: "h", Subdomain: "s", Override: to("h.s.shop.svc.cluster.local")}},
		"FQDNOfThePod":   {names{Subdomain: "s", FQDN: to(true)}, names{Subdomain: "s", Override: to("web-0.s.shop.svc.cluster.local")}},
		"NoSubdomain":    {names{FQDN: to(true)}, names{FQDN: to(true)}},
		"NotFQDN":        {names{Subdomain: "s", FQDN: to(false)}, names{Subdomain: "s", FQDN: to(false)}},
		"TenantOverride": {names{Subdomain: "s", Override: to("x.y")}, names{Subdomain: "s", Override: to("x.y")}},
	} {
		t.Run(name, func(t *testing.T) {
			s := mustDown(t, newWorld(), pod(spec(func(s *corev1.PodSpec) {
				s.Hostname, s.Subdomain, s.SetHostnameAsFQDN, s.HostnameOverride = tc.in.Hostname, tc.in.Subdomain, tc.in.FQDN, tc.in.Override
			}))).Spec
			got := names{s.Hostname, s.Subdomain, s.SetHostnameAsFQDN, s.HostnameOverride}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("names (-want +got):\n%s", diff)
			}
		})
	}
}

// Attack P-09: a toleration of everything is not one of the operator's taints.
func TestTolerations(t *testing.T) {
	exists := func(key string, effect corev1.TaintEffect) corev1.Toleration {
		return corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: effect}
	}
	var lifecycle []corev1.Toleration
	for _, key := range lifecycleTaints() {
		lifecycle = append(lifecycle, exists(key, ""))
	}
	for name, tc := range map[string]struct{ in, want []corev1.Toleration }{
		"Own":            {[]corev1.Toleration{{Key: "gpu", Operator: corev1.TolerationOpEqual, Value: "yes", Effect: corev1.TaintEffectNoSchedule}}, []corev1.Toleration{{Key: "gpu", Operator: corev1.TolerationOpEqual, Value: "yes", Effect: corev1.TaintEffectNoSchedule}}},
		"ControlPlane":   {[]corev1.Toleration{exists("node-role.kubernetes.io/control-plane", corev1.TaintEffectNoSchedule)}, nil},
		"Master":         {[]corev1.Toleration{exists("node-role.kubernetes.io/master", "")}, nil},
		"Uninitialized":  {[]corev1.Toleration{exists("node.cloudprovider.kubernetes.io/uninitialized", "")}, nil},
		"OutOfService":   {[]corev1.Toleration{exists(corev1.TaintNodeOutOfService, "")}, nil},
		"Ours":           {[]corev1.Toleration{exists(names.Prefix+"reserved", "")}, nil},
		"Autoscaler":     {[]corev1.Toleration{exists("ToBeDeletedByClusterAutoscaler", "")}, nil},
		"Everything":     {[]corev1.Toleration{{Operator: corev1.TolerationOpExists}}, lifecycle},
		"EverythingOnce": {[]corev1.Toleration{exists(corev1.TaintNodeNotReady, ""), {Operator: corev1.TolerationOpExists}}, lifecycle},
	} {
		t.Run(name, func(t *testing.T) {
			got := mustDown(t, newWorld(), pod(spec(func(s *corev1.PodSpec) { s.Tolerations = tc.in }))).Spec.Tolerations
			if diff := cmp.Diff(tc.want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("tolerations (-want +got):\n%s", diff)
			}
		})
	}
}

// A toleration of everything is one of every taint that the tenant sees and may tolerate, however it got there: a DaemonSet
// counts on it.
func TestTolerationOfEverything(t *testing.T) {
	const operators = "node-role.kubernetes.io/control-plane"
	taints := func(keys ...string) func(*corev1.Node) {
		return func(n *corev1.Node) {
			var ids []string
			for _, key := range keys {
				tainted(key, corev1.TaintEffectNoSchedule)(n)
				ids = append(ids, key+":NoSchedule")
			}
			n.Annotations["node."+names.Prefix+"taints"] = strings.Join(ids, ",") // they are the real node's
		}
	}
	w := newWorld()
	w.putNode(node, taints("example.com/b", "example.com/a", operators, corev1.TaintNodeNotReady))
	w.putNode("node-2", taints("example.com/a", "example.com/c"))
	for name, tc := range map[string]struct {
		toleration corev1.Toleration
		change     func(*corev1.Pod)
		want       []string
	}{
		"AllNodes": {corev1.Toleration{Operator: corev1.TolerationOpExists}, func(*corev1.Pod) {}, []string{"example.com/a", "example.com/b", "example.com/c"}},
		"ItsNode":  {corev1.Toleration{Operator: corev1.TolerationOpExists}, onNode("node-2"), []string{"example.com/a", "example.com/c"}},
		"NoNode":   {corev1.Toleration{Operator: corev1.TolerationOpExists}, onNode("unknown"), nil},
		"Seconds": {corev1.Toleration{Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: to(int64(7))}, func(*corev1.Pod) {},
			[]string{"example.com/a", "example.com/b", "example.com/c"}},
		"OneKey": {corev1.Toleration{Key: "example.com/a", Operator: corev1.TolerationOpExists}, func(*corev1.Pod) {}, []string{"example.com/a"}},
	} {
		t.Run(name, func(t *testing.T) {
			in := pod(tc.change, spec(func(s *corev1.PodSpec) { s.Tolerations = []corev1.Toleration{tc.toleration} }))
			var got []string
			for _, toleration := range mustDown(t, w, in).Spec.Tolerations {
				if slices.Contains(lifecycleTaints(), toleration.Key) {
					continue
				}
				got = append(got, toleration.Key)
				want := tc.toleration
				want.Key = toleration.Key
				if diff := cmp.Diff(want, toleration); diff != "" {
					t.Errorf("-want +got\n%s", diff)
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("keys (-want +got):\n%s", diff)
			}
		})
	}

	// A pod that waits for a node tolerates what was not there when it was made.
	in := pod(spec(func(s *corev1.PodSpec) { s.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}} }))
	super := mustDown(t, w, in)
	super.UID, super.ResourceVersion = "super-uid", "9"
	w.putNode("node-3", taints("example.com/new"))
	ops, err := decide(w, in, super)
	if err != nil || len(ops) == 0 || ops[0].Side != resource.Super {
		t.Fatalf("operations are %v, %v", summary(ops), err)
	}
	after, err := patch(super, ops[0])
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(append(super.Spec.Tolerations, corev1.Toleration{Key: "example.com/new", Operator: corev1.TolerationOpExists}), after.Spec.Tolerations); diff != "" {
		t.Errorf("tolerations of the replica (-want +got):\n%s", diff)
	}
}

// Attack P-07: a node that the tenant chose is a wish to the scheduler.
func TestNodeNameBecomesAffinity(t *testing.T) {
	zone := corev1.NodeSelectorRequirement{Key: "zone", Operator: corev1.NodeSelectorOpIn, Values: []string{"z"}}
	other := corev1.NodeSelectorRequirement{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{"node-2"}}
	only := corev1.NodeSelectorRequirement{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{node}}
	for name, tc := range map[string]struct{ in, want []corev1.NodeSelectorTerm }{
		"NoTerms": {nil, []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{only}}}},
		"EveryTerm": {
			[]corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{zone}}, {MatchFields: []corev1.NodeSelectorRequirement{other}}},
			[]corev1.NodeSelectorTerm{
				{MatchExpressions: []corev1.NodeSelectorRequirement{zone}, MatchFields: []corev1.NodeSelectorRequirement{only}},
				{MatchFields: []corev1.NodeSelectorRequirement{other, only}},
			},
		},
		"EmptyTermMatchesNothing": {[]corev1.NodeSelectorTerm{{}}, []corev1.NodeSelectorTerm{{}}},
	} {
		t.Run(name, func(t *testing.T) {
			got := mustDown(t, newWorld(), pod(spec(func(s *corev1.PodSpec) {
				s.NodeName = node
				if tc.in != nil {
					s.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: tc.in}}}
				}
			})))
			if got.Spec.NodeName != "" {
				t.Errorf("the replica is bound to %s", got.Spec.NodeName)
			}
			if diff := cmp.Diff(tc.want, got.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms); diff != "" {
				t.Errorf("terms (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPodAffinityStaysInTheTenant(t *testing.T) {
	selector := func() *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}, MatchExpressions: []metav1.LabelSelectorRequirement{
			{Key: "pod-template-hash", Operator: metav1.LabelSelectorOpIn, Values: []string{"1"}},
			{Key: "team", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"a"}},
		}}
	}
	got := mustDown(t, newWorld(), pod(spec(func(s *corev1.PodSpec) {
		s.Affinity = &corev1.Affinity{
			PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{
				LabelSelector: selector(), TopologyKey: "zone", Namespaces: []string{"shop", "kube-system"},
				MatchLabelKeys: []string{"pod-template-hash", "absent"}, MismatchLabelKeys: []string{"team"},
			}}},
			PodAntiAffinity: &corev1.PodAntiAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{{
				Weight: 3, PodAffinityTerm: corev1.PodAffinityTerm{TopologyKey: "zone", NamespaceSelector: &metav1.LabelSelector{}},
			}}},
		}
		s.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{MaxSkew: 1, TopologyKey: "zone", LabelSelector: selector(), MatchLabelKeys: []string{"pod-template-hash"}}}
	}))).Spec
	want := &corev1.Affinity{
		PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{
			LabelSelector: selector(), TopologyKey: "zone",
			Namespaces:     []string{superShop(), names.SuperNamespace(tenantID, "kube-system")},
			MatchLabelKeys: []string{"absent"},
		}}},
		PodAntiAffinity: &corev1.PodAntiAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{{
			Weight: 3, PodAffinityTerm: corev1.PodAffinityTerm{
				TopologyKey: "zone", NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{names.LabelTenant: string(tenantID)}},
			},
		}}},
	}
	if diff := cmp.Diff(want, got.Affinity); diff != "" {
		t.Errorf("affinity (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]corev1.TopologySpreadConstraint{{MaxSkew: 1, TopologyKey: "zone", LabelSelector: selector()}}, got.TopologySpreadConstraints); diff != "" {
		t.Errorf("spread (-want +got):\n%s", diff)
	}
}

// What a pod mounts is there before it is; what the tenant does not have either is waited for by the kubelet, as anywhere.
func TestPodsWaitForTheReplicasOfWhatTheyMount(t *testing.T) {
	tenant := pod(volumes(corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s"}}))
	w := newWorld()
	mustDown(t, w, tenant)
	w.put(resource.Tenant, "secrets", shop, "s", &corev1.Secret{})
	ops, err := decide(w, tenant, nil)
	if _, waits := resource.AsWait(err); !waits || len(ops) > 0 {
		t.Errorf("got %v, %v; want to wait", summary(ops), err)
	}
	w.put(resource.Super, "secrets", shop, "s", &corev1.Secret{})
	mustDown(t, w, tenant)
}

// Tokens name the node of their pod, so they are made as soon as it has one.
func TestTokensComeWithTheNode(t *testing.T) {
	w := newWorld()
	tenant := pod(withToken)
	check := func(what string, tenant, super *corev1.Pod, want ...string) {
		t.Helper()
		ops, err := decide(w, tenant, super)
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		got := summary(ops)
		if diff := cmp.Diff(want, got[:min(len(got), len(want))], cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
		for _, op := range got[min(len(got), len(want)):] {
			if strings.HasPrefix(op, string(resource.Mint)) {
				t.Errorf("%s: %v", what, got)
			}
		}
	}
	check("without a node", tenant, nil, "Create super Missing")
	super := mustDown(t, w, tenant)
	super.UID, super.ResourceVersion = "super-uid", "9"
	check("not scheduled", tenant, super)
	super.Spec.NodeName = node
	check("scheduled", tenant, super, "Bind tenant Bound", "Mint super Missing")
	placed := tenant.DeepCopy()
	placed.Spec.NodeName = node
	check("made with a node", placed, nil, "Mint super Missing", "Create super Missing")
}

func TestReferences(t *testing.T) {
	ref := func(kind, name string) resource.Ref { return resource.Ref{Kind: kind, Namespace: shop, Name: name} }
	local := func(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }
	got := References(pod(func(p *corev1.Pod) {
		p.Spec.ServiceAccountName = "robot"
		p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{local("pull"), local("")}
		p.Spec.InitContainers = []corev1.Container{{EnvFrom: []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: local("from")}}, {ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: local("from")}}}}}
		p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Env: []corev1.EnvVar{
			{Name: "PLAIN"},
			{Name: "S", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: local("key")}}},
			{Name: "C", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: local("key")}}},
		}}}}
		volumes(
			corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "volume"}},
			corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: local("volume")}},
			corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{Secret: &corev1.SecretProjection{LocalObjectReference: local("projected")}},
				{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: local("kube-root-ca.crt")}},
				{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}},
			}}},
		)(p)
	}))
	want := []resource.Ref{
		ref("configmaps", "from"), ref("configmaps", "key"), ref("configmaps", "kube-root-ca.crt"), ref("configmaps", "volume"),
		{Kind: kindNodes}, ref("secrets", "from"), ref("secrets", "key"), ref("secrets", "projected"), ref("secrets", "pull"), ref("secrets", "volume"),
		ref("serviceaccounts", "robot"), ref("tokens", TokenSecret(pod())),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("references (-want +got):\n%s", diff)
	}
}
