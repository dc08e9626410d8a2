package dedicated

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/controllers/images"
	"github.com/virtualcluster-io/virtualcluster/internal/iprange"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// Ports of the components' containers.
const (
	apiServerPort         = 6443
	etcdClientPort        = 2379
	etcdPeerPort          = 2380
	etcdMetricsPort       = 2381
	controllerManagerPort = 10257
	schedulerPort         = 10259
)

// Where files are in the containers.
const (
	pkiDir        = "/etc/kubernetes/pki"
	kubeconfigDir = "/etc/kubernetes/kubeconfig"
	etcdDataDir   = "/var/lib/etcd"
)

// layout is everything that the objects of a control plane are rendered from.
type layout struct {
	namespace           string
	labels, annotations map[string]string
	domain              string
	replicas            int32
	serviceRanges       iprange.Ranges
	// clusterIPs are those by which pods reach the API server.
	clusterIPs []netip.Addr
	version    tenancyv1alpha1.ClusterVersionSpec
	// images names the images that the ClusterVersion does not.
	images images.Source
	// pullSecret names the Secret with credentials for the images, if there is one.
	pullSecret string
	// scheduled says that the tenant has a scheduler of its own.
	scheduled bool
	// retired says that what raw templates of the retired project refer to is published, see retired.go.
	retired bool
	// apiServerIP and etcdIP are cluster IPs of the super cluster: the components find each other without DNS.
	apiServerIP, etcdIP string
	// hashes, by component, are over what the component does not reload.
	hashes map[string]string
}

// disruptionBudgets returns a PodDisruptionBudget for each component that has more than one replica.
func (l layout) disruptionBudgets() []*policyv1.PodDisruptionBudget {
	if l.replicas <= 1 {
		return nil
	}
	var budgets []*policyv1.PodDisruptionBudget
	for _, component := range l.components() {
		one := intstr.FromInt32(1)
		budgets = append(budgets, &policyv1.PodDisruptionBudget{
			ObjectMeta: l.meta(component, component),
			Spec: policyv1.PodDisruptionBudgetSpec{
				MaxUnavailable: &one,
				Selector:       &metav1.LabelSelector{MatchLabels: selector(component)},
			},
		})
	}
	return budgets
}

// components lists the names of the components.
func (l layout) components() []string {
	list := []string{names.Etcd, names.APIServer, names.ControllerManager}
	if l.scheduled {
		list = append(list, names.Scheduler)
	}
	return list
}

// selector returns the labels that select the pods of a component in the root namespace.
func selector(component string) map[string]string {
	return map[string]string{names.LabelComponent: component}
}

// meta returns the metadata of an object of a component.
func (l layout) meta(name, component string) metav1.ObjectMeta {
	labels := maps.Clone(l.labels)
	if component != "" {
		labels[names.LabelComponent] = component
	}
	return metav1.ObjectMeta{Namespace: l.namespace, Name: name, Labels: labels, Annotations: maps.Clone(l.annotations)}
}

// component is what differs between the components' StatefulSets.
type component struct {
	name     string
	args     map[string]string
	env      []corev1.EnvVar
	requests corev1.ResourceList
	ports    []corev1.ContainerPort
	mounts   []corev1.VolumeMount
	volumes  []corev1.Volume
	claims   []corev1.PersistentVolumeClaim
	service  string

	// capabilities are those that the component's program needs; all others are dropped.
	capabilities []corev1.Capability

	readiness, liveness corev1.ProbeHandler
	gracePeriod         int64
	template            *tenancyv1alpha1.ComponentTemplate
}

// statefulSet renders a component.
func (l layout) statefulSet(c component) *appsv1.StatefulSet {
	if c.template != nil && c.template.StatefulSet != nil {
		return l.raw(c)
	}
	requests := corev1.ResourceRequirements{Requests: c.requests}
	image := l.images.Image(c.name)
	if c.template != nil {
		image = cmp.Or(c.template.Image, image)
		if c.template.Resources != nil {
			requests = *c.template.Resources
		}
		maps.Copy(c.args, c.template.ExtraArgs)
		c.env = mergeEnv(c.env, c.template.Env)
	}
	meta := l.meta(c.name, c.name)
	return &appsv1.StatefulSet{
		ObjectMeta: meta,
		Spec: appsv1.StatefulSetSpec{
			Replicas:             &l.replicas,
			ServiceName:          c.service,
			PodManagementPolicy:  appsv1.ParallelPodManagement,
			Selector:             &metav1.LabelSelector{MatchLabels: selector(c.name)},
			VolumeClaimTemplates: c.claims,
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: meta.Labels, Annotations: l.podAnnotations(c.name)},
				Spec: corev1.PodSpec{
					AutomountServiceAccountToken:  new(false),
					EnableServiceLinks:            new(false),
					TerminationGracePeriodSeconds: &c.gracePeriod,
					Affinity:                      l.affinity(c.name),
					ImagePullSecrets:              l.imagePullSecrets(),
					SecurityContext: &corev1.PodSecurityContext{
						RunAsNonRoot:        new(true),
						RunAsUser:           new(int64(names.Nonroot)),
						RunAsGroup:          new(int64(names.Nonroot)),
						FSGroup:             new(int64(names.Nonroot)),
						FSGroupChangePolicy: new(corev1.FSGroupChangeOnRootMismatch),
						SeccompProfile:      &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
					},
					Containers: []corev1.Container{{
						Name:            c.name,
						Image:           image,
						ImagePullPolicy: corev1.PullIfNotPresent,
						Command:         []string{"/usr/local/bin/" + c.name},
						Args:            flags(c.args),
						Env:             c.env,
						Ports:           c.ports,
						Resources:       requests,
						VolumeMounts:    c.mounts,
						ReadinessProbe: &corev1.Probe{
							ProbeHandler: c.readiness, PeriodSeconds: 1, TimeoutSeconds: 5, FailureThreshold: 5,
						},
						LivenessProbe: &corev1.Probe{
							ProbeHandler: c.liveness, PeriodSeconds: 10, TimeoutSeconds: 15, FailureThreshold: 6, InitialDelaySeconds: 60,
						},
						SecurityContext: &corev1.SecurityContext{
							AllowPrivilegeEscalation: new(false),
							ReadOnlyRootFilesystem:   new(true),
							Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: c.capabilities},
						},
					}},
					Volumes: c.volumes,
				},
			},
		},
	}
}

// raw returns the StatefulSet that the ClusterVersion spells out, with what identifies it as this component added and what
// only vc-manager knows filled in.
func (l layout) raw(c component) *appsv1.StatefulSet {
	set := c.template.StatefulSet.DeepCopy()
	meta := l.meta(c.name, c.name)
	set.Namespace, set.Name = meta.Namespace, meta.Name
	set.Labels = overlay(set.Labels, meta.Labels)
	set.Annotations = overlay(set.Annotations, meta.Annotations)
	set.Spec.Template.Labels = overlay(set.Spec.Template.Labels, meta.Labels)
	set.Spec.Template.Annotations = overlay(set.Spec.Template.Annotations, l.podAnnotations(c.name))
	set.Status = appsv1.StatefulSetStatus{}
	if set.Spec.Replicas == nil {
		set.Spec.Replicas = &l.replicas
	}
	if set.Spec.Selector == nil {
		set.Spec.Selector = &metav1.LabelSelector{MatchLabels: selector(c.name)}
	}
	l.complete(c.name, set)
	return set
}

// podAnnotations lead back to the VirtualCluster and roll the pods when what they do not reload changes.
func (l layout) podAnnotations(component string) map[string]string {
	return overlay(l.annotations, map[string]string{names.AnnotationConfigHash: l.hashes[component]})
}

// imagePullSecrets names the Secret with credentials for the images.
func (l layout) imagePullSecrets() []corev1.LocalObjectReference {
	if l.pullSecret == "" {
		return nil
	}
	return []corev1.LocalObjectReference{{Name: l.pullSecret}}
}

// affinity spreads the replicas of a component over nodes.
func (l layout) affinity(component string) *corev1.Affinity {
	if l.replicas <= 1 {
		return nil
	}
	return &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
		// Preferred, so that a small super cluster can run three replicas too.
		PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{{
			Weight: 100,
			PodAffinityTerm: corev1.PodAffinityTerm{
				TopologyKey:   corev1.LabelHostname,
				LabelSelector: &metav1.LabelSelector{MatchLabels: selector(component)},
			},
		}},
	}}
}

// flags returns command-line flags in a stable order.
func flags(args map[string]string) []string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(args)) {
		list = append(list, "--"+name+"="+args[name])
	}
	return list
}

// mergeEnv returns base with the variables of extra added, or in place of those of the same name.
func mergeEnv(base, extra []corev1.EnvVar) []corev1.EnvVar {
	merged := slices.Clone(base)
	for _, variable := range extra {
		i := slices.IndexFunc(merged, func(e corev1.EnvVar) bool { return e.Name == variable.Name })
		if i >= 0 {
			merged[i] = variable
			continue
		}
		merged = append(merged, variable)
	}
	return merged
}

// overlay returns a new map with the entries of both, those of over winning.
func overlay(base, over map[string]string) map[string]string {
	merged := make(map[string]string, len(base)+len(over))
	maps.Copy(merged, base)
	maps.Copy(merged, over)
	return merged
}

// requests returns what a component asks of a node when its ClusterVersion does not say.
func requests(cpu, memory string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
}

// fieldEnv is a variable that takes its value from the pod.
func fieldEnv(name, path string) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: path}}}
}

// port is a named TCP port of a container.
func port(name string, number int32) corev1.ContainerPort {
	return corev1.ContainerPort{Name: name, ContainerPort: number, Protocol: corev1.ProtocolTCP}
}

// get is an HTTP probe.
func get(scheme corev1.URIScheme, port int32, path string) corev1.ProbeHandler {
	return corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Scheme: scheme, Port: intstr.FromInt32(port), Path: path}}
}

// keys projects keys of a Secret into a directory of the same name.
func keys(secret string, keys ...string) corev1.VolumeProjection {
	projection := &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: secret}}
	for _, key := range keys {
		projection.Items = append(projection.Items, corev1.KeyToPath{Key: key, Path: secret + "/" + key})
	}
	return corev1.VolumeProjection{Secret: projection}
}

// pkiVolume is a volume of the given keys and certificates, readable only by the component's group.
func pkiVolume(sources ...corev1.VolumeProjection) corev1.Volume {
	return corev1.Volume{Name: "pki", VolumeSource: corev1.VolumeSource{
		Projected: &corev1.ProjectedVolumeSource{DefaultMode: new(int32(0o440)), Sources: sources},
	}}
}

// pkiMount mounts the pki volume.
func pkiMount() corev1.VolumeMount {
	return corev1.VolumeMount{Name: "pki", MountPath: pkiDir, ReadOnly: true}
}

// kubeconfigVolume holds the kubeconfig of a component, see componentKubeconfig.
func kubeconfigVolume(component string) corev1.Volume {
	return corev1.Volume{Name: "kubeconfig", VolumeSource: corev1.VolumeSource{
		ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: component}},
	}}
}

// kubeconfigMount mounts the kubeconfig volume.
func kubeconfigMount() corev1.VolumeMount {
	return corev1.VolumeMount{Name: "kubeconfig", MountPath: kubeconfigDir, ReadOnly: true}
}

// file returns the path of a key of a Secret in the pki volume.
func file(secret, key string) string { return pkiDir + "/" + secret + "/" + key }
