package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// forwardPort forwards a free local port to a pod of the super cluster, as kubectl port-forward does.
func (c *cli) forwardPort(ctx context.Context, pod client.ObjectKey, port int) (string, func(), error) {
	config, err := c.flags.ToRESTConfig()
	if err != nil {
		return "", nil, fmt.Errorf("reading the kubeconfig: %w", err)
	}
	clients, err := kubernetes.NewForConfig(config) //nolint:forbidigo // Of the super cluster.
	if err != nil {
		return "", nil, fmt.Errorf("making a client: %w", err)
	}
	url := clients.CoreV1().RESTClient().Post().Resource("pods").Namespace(pod.Namespace).Name(pod.Name).SubResource("portforward").URL()
	transport, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		return "", nil, fmt.Errorf("preparing to forward a port: %w", err)
	}
	tunnel, err := portforward.NewSPDYOverWebsocketDialer(url, config)
	if err != nil {
		return "", nil, fmt.Errorf("preparing to forward a port: %w", err)
	}
	dialer := portforward.NewFallbackDialer(tunnel, spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, url), func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
	stop, ready := make(chan struct{}), make(chan struct{})
	forwarder, err := portforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, []string{fmt.Sprintf("0:%d", port)}, stop, ready, io.Discard, io.Discard)
	if err != nil {
		return "", nil, fmt.Errorf("preparing to forward a port: %w", err)
	}
	ended := make(chan error, 1)
	var running sync.WaitGroup
	running.Go(func() { ended <- forwarder.ForwardPorts() })
	end := func() {
		close(stop)
		running.Wait()
	}
	select {
	case err := <-ended:
		return "", nil, fmt.Errorf("forwarding a port to pod %s: %w", pod, err)
	case <-ctx.Done():
		end()
		return "", nil, ctx.Err()
	case <-ready:
	}
	ports, err := forwarder.GetPorts()
	if err != nil {
		end()
		return "", nil, fmt.Errorf("forwarding a port to pod %s: %w", pod, err)
	}
	return fmt.Sprintf("127.0.0.1:%d", ports[0].Local), end, nil
}
