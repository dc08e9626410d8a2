// Package kubeconfig reads kubeconfigs that somebody else wrote, from Secrets. It refuses whatever would make the reader
// run a program or read its own files, connections that are not verified, and proxies: whoever may write a Secret must not
// get more than a connection to the server named in it. Used by vc-manager, vc-syncer and kubectl-vc.
package kubeconfig

import (
	"errors"
	"fmt"
	"net/url"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Load returns the current context of a kubeconfig with its cluster and user, and nothing else. Errors complete the
// sentence "the kubeconfig cannot be used: ...".
func Load(data []byte) (*clientcmdapi.Config, error) {
	config, err := clientcmd.Load(data)
	if err != nil {
		return nil, errors.New("it is not a kubeconfig")
	}
	current, ok := config.Contexts[config.CurrentContext]
	if !ok {
		return nil, errors.New("it has no current context")
	}
	cluster, user := config.Clusters[current.Cluster], config.AuthInfos[current.AuthInfo]
	if cluster == nil || user == nil {
		return nil, errors.New("it lacks the cluster or the user of its current context")
	}
	if err := errors.Join(safeCluster(cluster), safeUser(user)); err != nil {
		return nil, err
	}
	out := clientcmdapi.NewConfig()
	out.CurrentContext = config.CurrentContext
	out.Contexts[config.CurrentContext] = current
	out.Clusters[current.Cluster], out.AuthInfos[current.AuthInfo] = cluster, user
	return out, nil
}

// RESTConfig returns how to reach the server of the current context. Errors are as those of Load.
func RESTConfig(data []byte) (*rest.Config, error) {
	config, err := Load(data)
	if err != nil {
		return nil, err
	}
	result, err := clientcmd.NewDefaultClientConfig(*config, &clientcmd.ConfigOverrides{}).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("it is not complete: %w", err)
	}
	return result, nil
}

func safeCluster(cluster *clientcmdapi.Cluster) error {
	server, err := url.Parse(cluster.Server)
	switch {
	case err != nil || server.Scheme != "https" || server.Host == "" || server.User != nil:
		return errors.New("its server is not a plain URL with https, such as https://example.org:6443")
	case cluster.ProxyURL != "":
		return errors.New("it names a proxy (proxy-url); give the address of the server, or configure a proxy for the program that reads it")
	case cluster.CertificateAuthority != "":
		return errors.New("it names a file (certificate-authority); use certificate-authority-data")
	case cluster.InsecureSkipTLSVerify:
		return errors.New("it skips the verification of the server (insecure-skip-tls-verify); give certificate-authority-data")
	default:
		return nil
	}
}

func safeUser(user *clientcmdapi.AuthInfo) error {
	switch {
	case user.Exec != nil || user.AuthProvider != nil:
		return errors.New("it runs a program to log in (exec or auth-provider); use a token or a client certificate")
	case user.ClientCertificate != "" || user.ClientKey != "" || user.TokenFile != "":
		return errors.New("it names a file (client-certificate, client-key or tokenFile); use the -data fields or token")
	default:
		return nil
	}
}
