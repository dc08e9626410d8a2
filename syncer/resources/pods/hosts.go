package pods

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// hostsFile is the file in which a pod finds its own name, and where the tenant's version of it is made.
const (
	hostsFile   = "/etc/hosts"
	hostsFolder = "/tenant"
	hostsKey    = "hosts"
)

// hostsVolumeSize bounds the volume of that file, because some clusters demand a bound. A file that aliases make large fits.
const hostsVolumeSize = 8 << 20

// mountHosts gives a pod with a subdomain the hosts file of the tenant's cluster. The kubelet writes the super namespace and
// the super cluster's domain into its own, and there is no field to change that, so a container that runs first translates
// it. Programs take the answer of "hostname -f" for an address at which others reach them.
func (t *translation) mountHosts(dst, src *corev1.PodSpec) {
	if t.hostsImage == "" || len(dst.Containers) == 0 || src.Subdomain == "" || src.HostNetwork || dst.HostnameOverride != nil ||
		src.OS != nil && src.OS.Name == corev1.Windows {
		return
	}
	translator := corev1.Container{
		Name: names.HostsContainer, Image: t.hostsImage, ImagePullPolicy: pullPolicy(dst),
		Command: []string{
			"/usr/local/bin/vn-hosts", "--to=" + hostsFolder + "/" + hostsKey,
			"--host=" + t.host(src), "--subdomain=" + src.Subdomain, "--fqdn=" + t.fqdn(src),
		},
		Resources:       ordinary(dst.Containers[0].Resources),
		SecurityContext: confined(dst),
		VolumeMounts:    []corev1.VolumeMount{{Name: names.HostsContainer, MountPath: hostsFolder}},
	}
	mount := func(containers []corev1.Container) {
		for i := range containers {
			c := &containers[i]
			if !slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == hostsFile }) {
				c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: names.HostsContainer, MountPath: hostsFile, SubPath: hostsKey})
			}
		}
	}
	mount(dst.InitContainers)
	mount(dst.Containers)
	dst.InitContainers = slices.Insert(dst.InitContainers, 0, translator)
	dst.Volumes = append(dst.Volumes, corev1.Volume{
		Name: names.HostsContainer, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{
			SizeLimit: apiresource.NewQuantity(hostsVolumeSize, apiresource.BinarySI),
		}},
	})
}

// ordinary returns the resources of a container without devices and claims. A container that runs first with the resources of
// another one changes neither what the pod takes nor its QoS class, and passes the quotas and limits that the other one passes.
func ordinary(in corev1.ResourceRequirements) corev1.ResourceRequirements {
	native := func(in corev1.ResourceList) corev1.ResourceList {
		out := in.DeepCopy()
		maps.DeleteFunc(out, func(name corev1.ResourceName, _ apiresource.Quantity) bool {
			return strings.Contains(string(name), "/")
		})
		if len(out) == 0 {
			return nil
		}
		return out
	}
	return corev1.ResourceRequirements{Requests: native(in.Requests), Limits: native(in.Limits)}
}

// pullPolicy returns Always for a pod that passes a policy which demands it. All others use the image that the node has.
func pullPolicy(pod *corev1.PodSpec) corev1.PullPolicy {
	for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
		if c.ImagePullPolicy != corev1.PullAlways {
			return corev1.PullIfNotPresent
		}
	}
	return corev1.PullAlways
}

// confined returns a security context that passes the Pod Security level restricted, and policies about users, groups and
// SELinux labels that the pod's first container passes. Without a user of that container's, the user is that of the image.
func confined(pod *corev1.PodSpec) *corev1.SecurityContext {
	yes, no := true, false
	out := &corev1.SecurityContext{
		RunAsNonRoot: &yes, AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
		Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	if first := pod.Containers[0].SecurityContext; first != nil {
		out.RunAsUser, out.RunAsGroup, out.SELinuxOptions = clone(first.RunAsUser), clone(first.RunAsGroup), clone(first.SELinuxOptions)
	}
	if user := runAsUser(pod, &pod.Containers[0]); user != nil && *user == 0 {
		nonroot := int64(names.Nonroot)
		out.RunAsUser = &nonroot
	}
	return out
}

// runAsUser returns the user that a pod's spec gives to a container, nil if it is the image's.
func runAsUser(pod *corev1.PodSpec, container *corev1.Container) *int64 {
	if own := container.SecurityContext; own != nil && own.RunAsUser != nil {
		return own.RunAsUser
	}
	if pod.SecurityContext != nil {
		return pod.SecurityContext.RunAsUser
	}
	return nil
}
