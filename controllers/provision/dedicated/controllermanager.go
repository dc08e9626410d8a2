package dedicated

import (
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/virtualcluster-io/virtualcluster/controllers/keystore"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// controllerManager renders the tenant's kube-controller-manager.
func (l layout) controllerManager() *appsv1.StatefulSet {
	return l.statefulSet(component{
		name: names.ControllerManager,
		args: map[string]string{
			"kubeconfig":                       kubeconfigDir + "/" + names.KubeconfigKey,
			"secure-port":                      fmt.Sprint(controllerManagerPort),
			"profiling":                        "false",
			"controllers":                      controllers(),
			"use-service-account-credentials":  "true",
			"service-account-private-key-file": file(signingSecret, keystore.SigningKey),
			"root-ca-file":                     file(clusterCASecret, keystore.CertificateKey),
			"cluster-signing-cert-file":        file(clusterCASecret, keystore.CertificateKey),
			"cluster-signing-key-file":         file(clusterCASecret, keystore.PrivateKeyKey),
			"cluster-name":                     l.namespace,
			"leader-elect":                     fmt.Sprint(l.replicas > 1),
		},
		env:      []corev1.EnvVar{{Name: "GOGC", Value: "50"}},
		requests: requests("20m", "64Mi"),
		ports:    []corev1.ContainerPort{port("https", controllerManagerPort)},
		mounts:   []corev1.VolumeMount{pkiMount(), kubeconfigMount()},
		volumes: []corev1.Volume{
			pkiVolume(
				keys(clusterCASecret, keystore.CertificateKey, keystore.PrivateKeyKey),
				keys(signingSecret, keystore.SigningKey),
				keys(controllerManagerSecret, keystore.CertificateKey, keystore.PrivateKeyKey, keystore.AuthorityKey),
			),
			kubeconfigVolume(names.ControllerManager),
		},
		readiness:   get(corev1.URISchemeHTTPS, controllerManagerPort, "/healthz"),
		liveness:    get(corev1.URISchemeHTTPS, controllerManagerPort, "/healthz"),
		gracePeriod: 10,
		template:    l.version.ControllerManager,
	})
}

// controllers selects all controllers that make sense without nodes of one's own. What is off watches over kubelets or
// volumes that are attached to nodes, which happens in the super cluster. Every version that tenants may run must know the
// names; those of cloud providers do nothing without one, and 1.37 does not know them any more.
func controllers() string {
	return strings.Join([]string{
		"*",
		"-node-ipam-controller",
		"-node-lifecycle-controller",
		"-device-taint-eviction-controller",
		"-ttl-controller",
		"-persistentvolume-attach-detach-controller",
		"-persistentvolume-expander-controller",
	}, ",")
}
