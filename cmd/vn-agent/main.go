// Command vn-agent answers the kubelet API on one node on behalf of tenants' virtual nodes. It only parses flags and
// wires; package vn-agent does the work.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"strconv"

	"github.com/go-logr/logr"
	"go.uber.org/zap/zapcore"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client/config"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"

	"github.com/virtualcluster-io/virtualcluster/internal/command"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	vnagent "github.com/virtualcluster-io/virtualcluster/vn-agent"
)

func main() { os.Exit(command.Run("vn-agent", run)) }

func run(ctx context.Context, args []string) error {
	options, logging := vnagent.Options{}, zap.Options{StacktraceLevel: zapcore.DPanicLevel}
	flags := flag.NewFlagSet("vn-agent", flag.ContinueOnError)
	config.RegisterFlags(flags)
	flags.StringVar(&options.NodeName, "node-name", os.Getenv("NODE_NAME"), "Name of the node that this vn-agent answers for. Default: the environment variable NODE_NAME.")
	flags.StringVar(&options.BindAddress, "bind-address", net.JoinHostPort("", strconv.Itoa(names.VNAgentPort)), "Address at which tenants' kube-apiservers connect.")
	flags.StringVar(&options.HealthAddress, "health-bind-address", net.JoinHostPort("127.0.0.1", strconv.Itoa(names.VNAgentPort+1)), "Address of /healthz, /readyz and /metrics, served without authentication.")
	flags.StringVar(&options.ClientCAFile, "client-ca-file", "/etc/vn-agent/trust/client-ca.crt", "File with the CAs, published by vc-manager, that client certificates of tenants are verified with. Read again when it changes.")
	flags.StringVar(&options.TLSCertFile, "tls-cert-file", "", "File with the serving certificate. When empty, it is requested from the super cluster.")
	flags.StringVar(&options.TLSKeyFile, "tls-private-key-file", "", "File with the key of the serving certificate.")
	flags.StringVar(&options.Namespace, "namespace", "vc-system", "Namespace of vc-manager, which writes there how to verify service account tokens of tenants.")
	flags.StringVar(&options.KubeletCAFile, "kubelet-certificate-authority", "", "File with the CAs that the serving certificate of the node's kubelet is verified with. When empty, those of the super cluster are used.")
	flags.BoolVar(&options.KubeletInsecureTLS, "kubelet-insecure-tls", false, "Do not verify the serving certificate of the node's kubelet, for clusters whose kubelets sign their own. Only an address of this machine is then connected to, so it needs the host's network.")
	logging.BindFlags(flags)
	if err := flags.Parse(args); err != nil {
		return err
	}

	logger := command.Logger(logging)
	// client-go logs through klog.
	klog.SetLogger(logger)
	super, err := config.GetConfig()
	if err != nil {
		return fmt.Errorf("finding the super cluster (outside of it, set --kubeconfig): %w", err)
	}
	options.Super = super
	return vnagent.Run(logr.NewContext(ctx, logger), options)
}
