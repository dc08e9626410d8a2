package dedicated

import (
	"fmt"
	"net"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/virtualcluster-io/virtualcluster/controllers/keystore"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// apiServer renders the tenant's kube-apiserver.
func (l layout) apiServer() *appsv1.StatefulSet {
	// These two hooks sleep for a second before they do anything, and nobody has to wait for them.
	const ready = "/readyz?exclude=poststarthook/rbac/bootstrap-roles&exclude=poststarthook/scheduling/bootstrap-system-priority-classes"
	return l.statefulSet(component{
		name: names.APIServer,
		args: map[string]string{
			"advertise-address":                  "$(POD_IP)",
			"secure-port":                        fmt.Sprint(apiServerPort),
			"allow-privileged":                   "true",
			"authorization-mode":                 "RBAC",
			"profiling":                          "false",
			"service-cluster-ip-range":           l.serviceRanges.String(),
			"tls-cert-file":                      file(servingSecret, keystore.CertificateKey),
			"tls-private-key-file":               file(servingSecret, keystore.PrivateKeyKey),
			"client-ca-file":                     file(servingSecret, keystore.AuthorityKey),
			"etcd-servers":                       "https://" + net.JoinHostPort(l.etcdIP, fmt.Sprint(etcdClientPort)),
			"etcd-cafile":                        file(etcdClientSecret, keystore.AuthorityKey),
			"etcd-certfile":                      file(etcdClientSecret, keystore.CertificateKey),
			"etcd-keyfile":                       file(etcdClientSecret, keystore.PrivateKeyKey),
			"proxy-client-cert-file":             file(frontProxySecret, keystore.CertificateKey),
			"proxy-client-key-file":              file(frontProxySecret, keystore.PrivateKeyKey),
			"requestheader-allowed-names":        frontProxyName,
			"requestheader-client-ca-file":       file(frontProxySecret, keystore.AuthorityKey),
			"requestheader-extra-headers-prefix": "X-Remote-Extra-",
			"requestheader-group-headers":        "X-Remote-Group",
			"requestheader-username-headers":     "X-Remote-User",
			// vn-agents stand in for kubelets: they know the tenant by this certificate.
			"kubelet-certificate-authority":   file(kubeletClientSecret, keystore.AuthorityKey),
			"kubelet-client-certificate":      file(kubeletClientSecret, keystore.CertificateKey),
			"kubelet-client-key":              file(kubeletClientSecret, keystore.PrivateKeyKey),
			"kubelet-preferred-address-types": "InternalIP",
			"service-account-issuer":          "https://kubernetes.default.svc." + l.domain,
			// By default the address of the pod, which is in no certificate.
			"service-account-jwks-uri":         "https://kubernetes.default.svc." + l.domain + "/openid/v1/jwks",
			"service-account-signing-key-file": file(signingSecret, keystore.SigningKey),
			"service-account-key-file":         file(signingSecret, keystore.SigningPublicKey),
			// It taints new nodes not-ready, and the controller that takes the taint off does not run for virtual nodes.
			"disable-admission-plugins": "TaintNodesByCondition",
		},
		env: []corev1.EnvVar{
			fieldEnv("POD_IP", "status.podIP"),
			// Saves a third of the memory of an idle kube-apiserver for a little CPU.
			{Name: "GOGC", Value: "50"},
		},
		requests: requests("50m", "256Mi"),
		ports:    []corev1.ContainerPort{port("https", apiServerPort)},
		mounts:   []corev1.VolumeMount{pkiMount()},
		volumes: []corev1.Volume{pkiVolume(
			keys(servingSecret, keystore.CertificateKey, keystore.PrivateKeyKey, keystore.AuthorityKey),
			keys(etcdClientSecret, keystore.CertificateKey, keystore.PrivateKeyKey, keystore.AuthorityKey),
			keys(frontProxySecret, keystore.CertificateKey, keystore.PrivateKeyKey, keystore.AuthorityKey),
			keys(kubeletClientSecret, keystore.CertificateKey, keystore.PrivateKeyKey, keystore.AuthorityKey),
			keys(signingSecret, keystore.SigningKey, keystore.SigningPublicKey),
		)},
		// Upstream's binary has the file capability cap_net_bind_service=+ep: without the capability it cannot be executed.
		capabilities: []corev1.Capability{"NET_BIND_SERVICE"},

		readiness:   get(corev1.URISchemeHTTPS, apiServerPort, ready),
		liveness:    get(corev1.URISchemeHTTPS, apiServerPort, strings.Replace(ready, "/readyz", "/livez", 1)+"&exclude=etcd"),
		gracePeriod: 15,
		template:    l.version.APIServer,
	})
}
