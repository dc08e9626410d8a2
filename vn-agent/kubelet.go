package vnagent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

const (
	// kubeletTimeout bounds one request to the kubelet: measuring many pods takes seconds.
	kubeletTimeout = 20 * time.Second
	// maxMeasured bounds an answer of the kubelet.
	maxMeasured = 32 << 20
	// addressTTL is how long the kubelet's address is believed.
	addressTTL = time.Minute
)

// kubelet is that of the super node. It is asked only for measurements, with the credentials of vn-agent.
type kubelet struct {
	super    kubernetes.Interface
	nodeName string
	client   *http.Client
	// onlyLocal allows only addresses of this machine: the kubelet's certificate is not verified.
	onlyLocal bool
	address   recent[struct{}, string]
}

// newKubelet returns a client that verifies the kubelet's certificate, by default with the CAs of the super cluster.
func newKubelet(super *rest.Config, client kubernetes.Interface, options Options) (*kubelet, error) {
	if options.KubeletInsecureTLS && options.KubeletCAFile != "" {
		return nil, errors.New("either the kubelet is verified with a certificate authority or it is not verified")
	}
	config := rest.CopyConfig(super)
	config.ServerName = ""
	switch {
	case options.KubeletInsecureTLS:
		config.Insecure, config.CAFile, config.CAData = true, "", nil
	case options.KubeletCAFile != "":
		config.CAFile, config.CAData = options.KubeletCAFile, nil
	}
	// The token must not go to anybody in between.
	config.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil }
	transport, err := rest.TransportFor(config) //nolint:forbidigo // Of the kubelet of this node.
	if err != nil {
		return nil, fmt.Errorf("creating a transport to the kubelet: %w", err)
	}
	return &kubelet{
		super: client, nodeName: options.NodeName, onlyLocal: options.KubeletInsecureTLS,
		client: &http.Client{
			Transport: transport,
			// Nor to where the kubelet, or who poses as it, sends us.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		address: recent[struct{}, string]{ttl: addressTTL, timeout: lookupTimeout},
	}, nil
}

// get returns the kubelet's answer.
func (k *kubelet) get(ctx context.Context, path string) ([]byte, error) {
	address, err := k.address.get(ctx, struct{}{}, k.findAddress)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address+path, nil)
	if err != nil {
		return nil, fmt.Errorf("asking the kubelet: %w", err)
	}
	request.Header.Set("Accept", "application/json, text/plain;version=0.0.4")
	response, err := k.client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("asking the kubelet: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("asking the kubelet for %s: it answered %s", path, response.Status)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxMeasured+1))
	if err != nil {
		return nil, fmt.Errorf("reading the kubelet's answer to %s: %w", path, err)
	}
	if len(body) > maxMeasured {
		return nil, fmt.Errorf("the kubelet's answer to %s is longer than %d bytes", path, maxMeasured)
	}
	return body, nil
}

// findAddress returns host and port of the kubelet.
func (k *kubelet) findAddress(ctx context.Context) (string, error) {
	node, err := k.super.CoreV1().Nodes().Get(ctx, k.nodeName, metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("getting node %s: %w", k.nodeName, err)
	}
	port := strconv.Itoa(int(node.Status.DaemonEndpoints.KubeletEndpoint.Port))
	for _, address := range node.Status.Addresses {
		if address.Type != corev1.NodeInternalIP {
			continue
		}
		if k.onlyLocal {
			if err := local(address.Address); err != nil {
				return "", err
			}
		}
		return net.JoinHostPort(address.Address, port), nil
	}
	return "", fmt.Errorf("node %s has no internal address", k.nodeName)
}

// local returns an error unless the address is one of this machine.
func local(address string) error {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return fmt.Errorf("listing the addresses of this machine: %w", err)
	}
	ip := net.ParseIP(address)
	for _, own := range addresses {
		if network, ok := own.(*net.IPNet); ok && network.IP.Equal(ip) {
			return nil
		}
	}
	return fmt.Errorf("the kubelet at %s is not verified, and the address is not one of this machine", address)
}
