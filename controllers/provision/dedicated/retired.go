package dedicated

import (
	"context"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/controllers/apply"
	"github.com/virtualcluster-io/virtualcluster/controllers/keystore"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/internal/pki"
)

// What the raw StatefulSets of the retired project refer to: the Secrets that its package secret names and its native
// provisioner writes, in kubernetes-sigs/cluster-api-provider-nested, virtualcluster/pkg/controller. Those with a
// certificate hold tls.crt and tls.key, kubeconfigs are under a key with the name of their Secret, and serviceaccount-rsa
// holds the public key in tls.crt and the private key in tls.key.
//
// The retired project has one CA, the root CA. It verifies the clients and peers of etcd, the clients of kube-apiserver and
// the front proxy, and kube-controller-manager signs with it, so the file must hold exactly one certificate. A control plane
// for its templates therefore has no CAs for etcd and the front proxy: the cluster CA stands for all three. The names
// etcd-ca and front-proxy-ca are then those of leaf certificates, as in the retired project.
const (
	retiredRootSecret              = "root-ca"
	retiredAPIServerSecret         = "apiserver-ca"
	retiredEtcdSecret              = etcdCASecret
	retiredFrontProxySecret        = frontProxyCASecret
	retiredSigningSecret           = "serviceaccount-rsa"
	retiredControllerManagerSecret = "controller-manager-kubeconfig"
	// The key, in the Secret of the same name, of the kubeconfig for people.
	retiredAdminKubeconfigKey = "admin-kubeconfig"
)

// Where a raw kube-apiserver finds its identity at vn-agents.
const (
	vnAgentVolume = "tenancy-x-k8s-io-vn-agent"
	vnAgentDir    = "/var/run/secrets/tenancy.x-k8s.io/vn-agent"
)

// rawSet returns the StatefulSet that a template spells out, or nil.
func rawSet(template *tenancyv1alpha1.ComponentTemplate) *appsv1.StatefulSet {
	if template == nil {
		return nil
	}
	return template.StatefulSet
}

// rawTemplates returns the templates that spell out a StatefulSet, by component.
func (l layout) rawTemplates() map[string]*tenancyv1alpha1.ComponentTemplate {
	templates := map[string]*tenancyv1alpha1.ComponentTemplate{
		names.Etcd: l.version.ETCD, names.APIServer: l.version.APIServer, names.ControllerManager: l.version.ControllerManager,
	}
	if l.scheduled {
		templates[names.Scheduler] = l.version.Scheduler
	}
	maps.DeleteFunc(templates, func(_ string, template *tenancyv1alpha1.ComponentTemplate) bool { return rawSet(template) == nil })
	return templates
}

// retired says whether what raw templates refer to is published. That is decided when the control plane is made, because the
// Secret etcd-ca holds something else otherwise: a CA is never replaced by a leaf, nor the other way round.
func (p *Provisioner) retired(ctx context.Context, l layout) (bool, error) {
	secret := &corev1.Secret{}
	err := p.Client.Get(ctx, client.ObjectKey{Namespace: l.namespace, Name: etcdCASecret}, secret)
	if apierrors.IsNotFound(err) {
		return len(l.rawTemplates()) > 0, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading Secret %s: %w", etcdCASecret, err)
	}
	certificate, err := pki.ParseCertificate(secret.Data[keystore.CertificateKey])
	// What cannot be read is reported by the store, as a key that is lost.
	return err == nil && !certificate.IsCA, nil
}

// retiredLeaves returns the certificates of the retired project. That of kube-apiserver is also its client certificate for
// etcd, and that of etcd is for its peers too.
func retiredLeaves(id names.TenantID, ca *pki.Authority, a addresses) []leaf {
	both := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	etcdDNS := uniqueNames(slices.Concat(a.etcdServerDNS, a.etcdPeerDNS))
	return []leaf{
		{retiredAPIServerSecret, ca, ca, pki.Request{CommonName: string(id), DNSNames: a.apiServerDNS, IPs: a.apiServerIPs, Usages: both}},
		{retiredEtcdSecret, ca, ca, pki.Request{CommonName: "kube-etcd", DNSNames: etcdDNS, IPs: a.etcdServerIPs, Usages: both}},
		{retiredFrontProxySecret, ca, ca, pki.Request{CommonName: frontProxyName, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}},
	}
}

// addRetiredNames adds the names that raw templates use: those of their Services, and of the members of etcd below them,
// from the shortest on.
func (l layout) addRetiredNames(a *addresses) {
	services := []string{etcdService}
	templates := l.rawTemplates()
	if t := templates[names.Etcd]; t != nil && t.Service != nil && t.Service.Name != "" {
		services = append(services, t.Service.Name)
	}
	for _, service := range services {
		list := serviceNames(service, l.namespace)
		for i := range l.etcdReplicas() {
			list = append(list, serviceNames(fmt.Sprintf("%s-%d.%s", names.Etcd, i, service), l.namespace)...)
		}
		a.etcdServerDNS, a.etcdPeerDNS = append(a.etcdServerDNS, list...), append(a.etcdPeerDNS, list...)
	}
	if t := templates[names.APIServer]; t != nil && t.Service != nil && t.Service.Name != "" {
		a.apiServerDNS = append(a.apiServerDNS, serviceNames(t.Service.Name, l.namespace)...)
	}
}

// ensureRetired publishes what raw templates of the retired project refer to, besides leaf certificates. The kubeconfig holds
// its certificate, because a template may mount it anywhere, so a new certificate also changes the hash that rolls the pods.
func (p *Provisioner) ensureRetired(ctx context.Context, l layout, certs *certificates) error {
	if !l.retired {
		return nil
	}
	config, err := kubeconfig(names.ControllerManager, l.apiServerURL(), names.ControllerManager,
		clientcmdapi.Cluster{CertificateAuthorityData: certs.clusterCA.Certificate}, inline(certs.controllerManager))
	if err != nil {
		return err
	}
	for _, secret := range []*corev1.Secret{
		l.secret(retiredRootSecret, corev1.SecretTypeTLS, pairData(certs.clusterCA.Pair)),
		l.secret(retiredSigningSecret, corev1.SecretTypeOpaque, pairData(certs.signingKey)),
		l.secret(retiredControllerManagerSecret, corev1.SecretTypeOpaque, map[string][]byte{retiredControllerManagerSecret: config}),
	} {
		if _, err := apply.Object(ctx, p.Client, secret); err != nil {
			return err
		}
	}
	for _, service := range l.retiredServices() {
		if service.Spec.ClusterIP == "" && service.Spec.Type != corev1.ServiceTypeExternalName {
			if err := p.createService(ctx, service); err != nil {
				return err
			}
		}
		if _, err := apply.Object(ctx, p.Client, service); err != nil {
			return err
		}
	}
	return nil
}

// pairData is what a Secret of type kubernetes.io/tls holds.
func pairData(pair pki.Pair) map[string][]byte {
	return map[string][]byte{corev1.TLSCertKey: pair.Certificate, corev1.TLSPrivateKeyKey: pair.Key}
}

// retiredServices returns the Services that raw templates spell out, except those that there are anyway. They select the pods
// of their component whatever they say: its labels are on the pods.
func (l layout) retiredServices() []*corev1.Service {
	ours := []string{"", names.APIServerService, etcdService, etcdClientService}
	templates := l.rawTemplates()
	var services []*corev1.Service
	for _, component := range slices.Sorted(maps.Keys(templates)) {
		raw := templates[component].Service
		if raw == nil || slices.Contains(ours, raw.Name) {
			continue
		}
		service := l.service(raw.Name, component, *raw.Spec.DeepCopy())
		service.Labels, service.Annotations = overlay(raw.Labels, service.Labels), overlay(raw.Annotations, service.Annotations)
		services = append(services, service)
	}
	return services
}

// complete fills in what only vc-manager knows: the members of etcd, and of kube-apiserver the range of the tenant's cluster
// IPs, which the super cluster must have too, and the tenant's identity at vn-agents. It turns off one admission plugin, for
// the reason that apiServer gives. Flags that a command line does not have are only added where it has others of its kind: a
// container that does not run the component is left alone.
func (l layout) complete(component string, set *appsv1.StatefulSet) {
	for i := range set.Spec.Template.Spec.Containers {
		container := &set.Spec.Template.Spec.Containers[i]
		switch component {
		case names.Etcd:
			l.completeEtcd(container, set)
		case names.APIServer:
			if _, ok := flagValue(container, "etcd-servers"); ok {
				l.completeAPIServer(container, &set.Spec.Template.Spec)
			}
		case names.ControllerManager:
			if _, ok := flagValue(container, "service-cluster-ip-range"); ok {
				setFlag(container, "service-cluster-ip-range", l.serviceRanges.String())
			}
		}
	}
}

// completeEtcd lists the members, as etcd needs it where it advertises peers, under the names by which they advertise
// themselves. Members wait for each other, so they start together.
func (l layout) completeEtcd(container *corev1.Container, set *appsv1.StatefulSet) {
	peer, ok := flagValue(container, "initial-advertise-peer-urls")
	name, named := flagValue(container, "name")
	if _, listed := flagValue(container, "initial-cluster"); !ok || listed || !named || !strings.HasPrefix(name, "$(") {
		return
	}
	var members []string
	for i := range *set.Spec.Replicas {
		pod := fmt.Sprintf("%s-%d", names.Etcd, i)
		members = append(members, pod+"="+strings.ReplaceAll(peer, name, pod))
	}
	setFlag(container, "initial-cluster", strings.Join(members, ","))
	if len(members) > 1 && set.Spec.PodManagementPolicy == "" {
		set.Spec.PodManagementPolicy = appsv1.ParallelPodManagement
	}
}

// completeAPIServer sets what ties kube-apiserver to this super cluster.
func (l layout) completeAPIServer(container *corev1.Container, pod *corev1.PodSpec) {
	const plugins, taints = "disable-admission-plugins", "TaintNodesByCondition"
	setFlag(container, "service-cluster-ip-range", l.serviceRanges.String())
	if disabled, _ := flagValue(container, plugins); !slices.Contains(strings.Split(disabled, ","), taints) {
		setFlag(container, plugins, strings.TrimPrefix(disabled+","+taints, ","))
	}
	setFlag(container, "kubelet-certificate-authority", vnAgentDir+"/"+keystore.AuthorityKey)
	setFlag(container, "kubelet-client-certificate", vnAgentDir+"/"+keystore.CertificateKey)
	setFlag(container, "kubelet-client-key", vnAgentDir+"/"+keystore.PrivateKeyKey)
	setFlag(container, "kubelet-preferred-address-types", "InternalIP")
	pod.Volumes = append(pod.Volumes, corev1.Volume{Name: vnAgentVolume, VolumeSource: corev1.VolumeSource{
		Secret: &corev1.SecretVolumeSource{SecretName: kubeletClientSecret},
	}})
	container.VolumeMounts = append(container.VolumeMounts, corev1.VolumeMount{Name: vnAgentVolume, MountPath: vnAgentDir, ReadOnly: true})
}

// flagValue returns the value of a flag on the command line of a container, and whether it is there.
func flagValue(container *corev1.Container, name string) (string, bool) {
	line, i := find(container, name)
	if i < 0 {
		return "", false
	}
	if _, value, ok := strings.Cut((*line)[i], "="); ok {
		return value, true
	}
	if i+1 < len(*line) && !strings.HasPrefix((*line)[i+1], "-") {
		return (*line)[i+1], true
	}
	return "", true
}

// setFlag puts a flag on the command line of a container, in place of what the flag was.
func setFlag(container *corev1.Container, name, value string) {
	arg := "--" + name + "=" + value
	line, i := find(container, name)
	if i < 0 {
		container.Args = append(container.Args, arg)
		return
	}
	end := i + 1
	if old, _ := flagValue(container, name); end < len(*line) && (*line)[end] == old && !strings.Contains((*line)[i], "=") {
		end++
	}
	*line = slices.Replace(*line, i, end, arg)
}

// find returns where a flag is: in the command or the arguments of a container. The index is -1 when it is nowhere.
func find(container *corev1.Container, name string) (*[]string, int) {
	for _, line := range []*[]string{&container.Args, &container.Command} {
		i := slices.IndexFunc(*line, func(arg string) bool {
			arg, _, _ = strings.Cut(arg, "=")
			return arg == "--"+name || arg == "-"+name
		})
		if i >= 0 {
			return line, i
		}
	}
	return nil, -1
}
