package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/internal/kubeconfig"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

func (c *cli) kubeconfigCommand() *cobra.Command {
	var merge, internal bool
	var file string
	cmd := &cobra.Command{
		Use:   "kubeconfig NAME",
		Short: "Print the admin kubeconfig of a VirtualCluster, or merge it into yours",
		Example: `  kubectl vc kubeconfig team-a -o team-a.kubeconfig
  kubectl vc kubeconfig team-a --merge`,
		Args:              exactlyOneName,
		ValidArgsFunction: c.completeNames,
	}
	cmd.Flags().BoolVar(&merge, "merge", false, "Add it as a context to your kubeconfig. The current context stays.")
	cmd.Flags().BoolVar(&internal, "internal", false, "With the address that works inside the super cluster.")
	cmd.Flags().StringVarP(&file, "output", "o", "", "File to write, which only you can read.")
	cmd.MarkFlagsMutuallyExclusive("merge", "output")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		super, vc, err := c.find(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		key := publicKey
		if internal {
			key = internalKey
		}
		config, err := adminKubeconfig(cmd.Context(), super, vc, key)
		if err != nil {
			return err
		}
		if merge {
			return c.merge(config)
		}
		content, err := clientcmd.Write(*config)
		if err != nil {
			return fmt.Errorf("writing the kubeconfig: %w", err)
		}
		if file == "" {
			_, err := c.Out.Write(content)
			return err
		}
		return writePrivate(file, content)
	}
	return cmd
}

// publicKey and internalKey choose the key of the Secret, given the one in the status.
func publicKey(key string) string { return key }

func internalKey(string) string { return names.InternalKubeconfigKey }

// contextName is the name of context, cluster and user in the kubeconfig of a VirtualCluster.
func contextName(vc *tenancyv1alpha1.VirtualCluster) string {
	return "vc/" + vc.Namespace + "/" + vc.Name
}

// adminKubeconfig returns the kubeconfig of a VirtualCluster with one context.
func adminKubeconfig(ctx context.Context, super client.Client, vc *tenancyv1alpha1.VirtualCluster, key func(string) string) (*clientcmdapi.Config, error) {
	ref := vc.Status.KubeconfigSecret
	if ref == nil {
		return nil, fmt.Errorf("%s has no kubeconfig yet (%s); kubectl vc status %s shows what it waits for", vc.Name, progress(vc), vc.Name)
	}
	at := client.ObjectKey{Namespace: vc.Status.ClusterNamespace, Name: ref.Name}
	if vc.Spec.ControlPlane.Type == tenancyv1alpha1.External {
		at.Namespace = vc.Namespace
	}
	secret := &corev1.Secret{}
	if err := super.Get(ctx, at, secret); apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("the Secret %s with the kubeconfig does not exist; kubectl vc status %s may say why", at, vc.Name)
	} else if err != nil {
		return nil, fmt.Errorf("getting the kubeconfig: %w", err)
	}
	name := key(ref.Key)
	content, ok := secret.Data[name]
	if !ok {
		return nil, fmt.Errorf("the Secret %s has no key %s", at, name)
	}
	config, err := kubeconfig.Load(content)
	if err != nil {
		return nil, fmt.Errorf("the kubeconfig in the Secret %s cannot be used: %w", at, err)
	}
	return rename(config, contextName(vc)), nil
}

// rename gives the only context of a kubeconfig, its cluster and its user a new name.
func rename(config *clientcmdapi.Config, name string) *clientcmdapi.Config {
	entry := config.Contexts[config.CurrentContext]
	result := clientcmdapi.NewConfig()
	result.Clusters[name], result.AuthInfos[name] = config.Clusters[entry.Cluster], config.AuthInfos[entry.AuthInfo]
	result.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name, Namespace: entry.Namespace}
	result.CurrentContext = name
	return result
}

// merge adds the only context of config to the user's kubeconfig.
func (c *cli) merge(config *clientcmdapi.Config) error {
	access := c.flags.ToRawKubeConfigLoader().ConfigAccess()
	mine, err := access.GetStartingConfig()
	if err != nil {
		return fmt.Errorf("reading your kubeconfig: %w", err)
	}
	name := config.CurrentContext
	mine.Clusters[name], mine.AuthInfos[name], mine.Contexts[name] = config.Clusters[name], config.AuthInfos[name], config.Contexts[name]
	if err := clientcmd.ModifyConfig(access, *mine, true); err != nil {
		return fmt.Errorf("writing your kubeconfig: %w", err)
	}
	c.say("Added the context %s. Use it with: kubectl --context %s get namespaces\n", name, name)
	return nil
}

// writePrivate writes a file that only the user can read, at once: a reader never sees half of it.
func writePrivate(path string, content []byte) (err error) {
	temporary, err := os.CreateTemp(filepath.Dir(path), ".kubeconfig-")
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	_, err = temporary.ReadFrom(bytes.NewReader(content))
	if err = errors.Join(err, temporary.Close()); err == nil {
		err = os.Rename(temporary.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("writing %s: %w", path, err), os.Remove(temporary.Name()))
	}
	return nil
}
