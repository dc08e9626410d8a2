package dedicated

import (
	"context"
	"fmt"
	"net"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/controllers/apply"
	"github.com/virtualcluster-io/virtualcluster/controllers/keystore"
	"github.com/virtualcluster-io/virtualcluster/controllers/provision"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/internal/pki"
)

// kubeconfig returns a kubeconfig with one context.
func kubeconfig(name, server, user string, cluster clientcmdapi.Cluster, auth clientcmdapi.AuthInfo) ([]byte, error) {
	cluster.Server = server
	config := clientcmdapi.NewConfig()
	config.Clusters[name] = &cluster
	config.AuthInfos[user] = &auth
	config.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: user}
	config.CurrentContext = name
	data, err := clientcmd.Write(*config)
	if err != nil {
		return nil, fmt.Errorf("writing the kubeconfig of %s: %w", user, err)
	}
	return data, nil
}

// ensureKubeconfigs writes the Secret with the kubeconfigs for people and for the syncer.
func (p *Provisioner) ensureKubeconfigs(ctx context.Context, tenant *provision.Tenant, l layout, certs *certificates, endpoint string) error {
	vc := tenant.VirtualCluster
	cluster := clientcmdapi.Cluster{CertificateAuthorityData: certs.clusterCA.Certificate}
	external, err := kubeconfig(vc.Name, endpoint, "admin", cluster, inline(certs.admin))
	if err != nil {
		return err
	}
	internal, err := kubeconfig(vc.Name, internalURL(l.namespace), names.Syncer, cluster, inline(certs.syncer))
	if err != nil {
		return err
	}
	secret := l.secret(names.AdminKubeconfigSecret, corev1.SecretTypeOpaque, map[string][]byte{
		names.KubeconfigKey: external, names.InternalKubeconfigKey: internal,
	})
	if l.retired {
		secret.Data[retiredAdminKubeconfigKey] = external
	}
	if _, err := apply.Object(ctx, p.Client, secret); err != nil {
		return err
	}
	vc.Status.KubeconfigSecret = &tenancyv1alpha1.SecretKeyReference{Name: secret.Name, Key: names.KubeconfigKey}
	return nil
}

// componentKubeconfig renders the kubeconfig of a component with the certificate in a Secret. It names files, so that a
// renewed certificate is used without a restart.
func (l layout) componentKubeconfig(component, secret string) (*corev1.ConfigMap, error) {
	data, err := kubeconfig(component, l.apiServerURL(), component,
		clientcmdapi.Cluster{CertificateAuthority: file(secret, keystore.AuthorityKey)},
		clientcmdapi.AuthInfo{
			ClientCertificate: file(secret, keystore.CertificateKey),
			ClientKey:         file(secret, keystore.PrivateKeyKey),
		})
	if err != nil {
		return nil, err
	}
	return &corev1.ConfigMap{
		ObjectMeta: l.meta(component, component),
		Data:       map[string]string{names.KubeconfigKey: string(data)},
	}, nil
}

// apiServerURL returns the URL by which the other components reach kube-apiserver, without DNS.
func (l layout) apiServerURL() string {
	return "https://" + net.JoinHostPort(l.apiServerIP, fmt.Sprint(apiServerServicePort))
}

// secret returns a Secret of the root namespace.
func (l layout) secret(name string, kind corev1.SecretType, data map[string][]byte) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: l.meta(name, ""), Type: kind, Data: data}
}

func inline(pair pki.Pair) clientcmdapi.AuthInfo {
	return clientcmdapi.AuthInfo{ClientCertificateData: pair.Certificate, ClientKeyData: pair.Key}
}
