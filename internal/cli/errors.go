package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
)

// install is what to do in a cluster without VirtualCluster.
const install = "VirtualCluster is not installed in this cluster; from a checkout of github.com/virtualcluster-io/virtualcluster run: " +
	"helm install virtualcluster charts/virtualcluster --namespace vc-system --create-namespace"

// exitError makes the process exit with the code of the command it ran.
type exitError struct{ code int }

func (e *exitError) Error() string { return fmt.Sprintf("the command ended with code %d", e.code) }

// explain returns an error that says what to do.
func (c *cli) explain(err error) error {
	// Names what was asked for, when the API server said no.
	details := &metav1.StatusDetails{}
	if status, ok := errors.AsType[*apierrors.StatusError](err); ok && status.ErrStatus.Details != nil {
		details = status.ErrStatus.Details
	}
	unreachable, isUnreachable := errors.AsType[*url.Error](err)
	switch {
	case apierrors.IsNotFound(err) && apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse):
		return errors.New(install)
	case apierrors.IsNotFound(err) && details.Kind == "virtualclusters":
		return fmt.Errorf("there is no VirtualCluster %q in this namespace; kubectl vc list --all-namespaces shows all", details.Name)
	case apierrors.IsAlreadyExists(err):
		return fmt.Errorf("there is a VirtualCluster %q already; choose another name, or look at it with: kubectl vc status %s", details.Name, details.Name)
	case apierrors.IsUnauthorized(err):
		return errors.New("the super cluster does not accept your credentials; check --kubeconfig and --context")
	case clientcmd.IsEmptyConfig(err):
		return errors.New("no super cluster is configured; set KUBECONFIG, --kubeconfig or --context to one in which VirtualCluster is installed")
	case errors.Is(err, context.Canceled):
		return errors.New("interrupted")
	case isUnreachable:
		return fmt.Errorf("the super cluster cannot be reached; check --kubeconfig and --context: %w", unreachable)
	}
	return err
}
