package pods

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// hostsFile is the file in which a pod finds its own name, and where the tenant's version of it is made.
const (
	hostsFile   = "/etc/hosts"
	hostsFolder = "/tenant"
	hostsKey    = "hosts"
)

// mountHosts gives a pod with a subdomain the hosts file of the tenant's cluster. The kubelet writes the super namespace and
// the super cluster's domain into its own, and there is no field to change that, so a container that runs first translates
// it. Programs take the answer of "hostname -f" for an address at which others reach them.
func (t *translation) mountHosts(dst, src *corev1.PodSpec) {
	if t.hostsImage == "" || src.Subdomain == "" || src.HostNetwork || dst.HostnameOverride != nil ||
		src.OS != nil && src.OS.Name == corev1.Windows {
		return
	}
	yes, no := true, false
	user := int64(names.Nonroot)
	translator := corev1.Container{
		Name: names.HostsContainer, Image: t.hostsImage, ImagePullPolicy: corev1.PullIfNotPresent,
		Command: []string{
			"/usr/local/bin/vn-hosts", "--to=" + hostsFolder + "/" + hostsKey,
			"--host=" + t.host(src), "--subdomain=" + src.Subdomain, "--fqdn=" + t.fqdn(src),
		},
		SecurityContext: &corev1.SecurityContext{
			RunAsNonRoot: &yes, RunAsUser: &user, AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
			Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
		VolumeMounts: []corev1.VolumeMount{{Name: names.HostsContainer, MountPath: hostsFolder}},
	}
	if t.pod.Status.QOSClass == corev1.PodQOSGuaranteed { // the pod keeps its class
		translator.Resources = *dst.Containers[0].Resources.DeepCopy()
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
		Name: names.HostsContainer, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}},
	})
}
