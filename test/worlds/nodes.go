package worlds

import (
	"context"
	_ "embed" // for what the fake nodes do
	"fmt"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

//go:embed kwok.yaml
var kwokConfig []byte

// StartNodes makes fake nodes in the super cluster and starts what schedules to them and plays their kubelets, each in a
// process of its own, whose log is in the given directory. It returns when the nodes are ready. The caller ends the
// processes, those that are returned with an error, too.
func (w *Worlds) StartNodes(ctx context.Context, nodes int, logs string) ([]*Process, error) {
	for i := range nodes {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("node-%d", i)}}
		if _, err := w.Super.Client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{}); err != nil {
			return nil, fmt.Errorf("creating a node: %w", err)
		}
	}
	config := filepath.Join(w.dir, "kwok.yaml")
	if err := os.WriteFile(config, kwokConfig, 0o600); err != nil {
		return nil, fmt.Errorf("writing the configuration of kwok: %w", err)
	}
	port, err := FreePort(ctx)
	if err != nil {
		return nil, err
	}
	var started []*Process
	for name, args := range map[string][]string{
		"kwok": {
			"--config=" + config, "--manage-all-nodes", "--node-ip=192.0.2.1", "--cidr=10.0.0.0/8", "--node-lease-duration-seconds=0",
			fmt.Sprintf("--server-address=127.0.0.1:%d", port),
		},
		"kube-scheduler": {"--leader-elect=false", "--secure-port=0", "--kube-api-qps=5000", "--kube-api-burst=5000"},
	} {
		binary, err := Binary("", name)
		if err != nil {
			return started, err
		}
		p, err := StartProcess(filepath.Join(logs, name+".log"), binary, append(args, "--kubeconfig="+w.Super.KubeconfigPath())...)
		if err != nil {
			return started, err
		}
		started = append(started, p)
	}
	for _, p := range started {
		if err := p.AwaitReady(ctx, w.nodesReady); err != nil {
			return started, err
		}
	}
	return started, nil
}

func (w *Worlds) nodesReady(ctx context.Context) error {
	nodes, err := w.Super.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("listing nodes: %w", err)
	}
	for _, n := range nodes.Items {
		if n.Status.Allocatable.Pods().IsZero() {
			return fmt.Errorf("node %s is not ready", n.Name)
		}
	}
	return nil
}
