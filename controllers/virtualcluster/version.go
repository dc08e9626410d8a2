package virtualcluster

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/controllers/progress"
	"github.com/virtualcluster-io/virtualcluster/controllers/provision"
)

// Reasons for which the version is not known.
const (
	reasonVersionMissing   = "ClusterVersionMissing"
	reasonVersionNoDefault = "NoDefaultClusterVersion"
	reasonVersionInvalid   = "ClusterVersionInvalid"
)

// resolveVersion looks up the ClusterVersion to run. One that was chosen because it was the default is kept when
// another becomes the default: a running control plane is not upgraded by that.
func (r *Reconciler) resolveVersion(ctx context.Context, tenant *provision.Tenant) (string, error) {
	vc := tenant.VirtualCluster
	tenant.Images.Registry = r.Images.Registry
	if controlPlaneType(vc) == tenancyv1alpha1.External {
		return "an External control plane has its own version", nil
	}
	name := cmp.Or(vc.Spec.ClusterVersionName, vc.Status.ClusterVersionName)
	version := &tenancyv1alpha1.ClusterVersion{}
	if name == "" {
		var err error
		if version, err = r.defaultVersion(ctx); err != nil {
			return "", err
		}
	} else if err := r.Client.Get(ctx, client.ObjectKey{Name: name}, version); apierrors.IsNotFound(err) {
		return "", &progress.Stall{
			Reason:  reasonVersionMissing,
			Message: fmt.Sprintf("ClusterVersion %q does not exist; create it, or set spec.clusterVersionName to one that does (kubectl get clusterversions)", name),
		}
	} else if err != nil {
		return "", fmt.Errorf("reading ClusterVersion %s: %w", name, err)
	}
	if missing := withoutImage(&version.Spec, vc.Spec.Scheduler.Enabled); missing != "" {
		return "", &progress.Stall{
			Reason:  reasonVersionInvalid,
			Message: fmt.Sprintf("ClusterVersion %q says neither a version nor an image for %s; set spec.version", version.Name, missing),
		}
	}
	tenant.Version = version
	tenant.Images.Version = version.Spec.Version
	tenant.Images.Registry = cmp.Or(version.Spec.ImageRegistry, r.Images.Registry)
	vc.Status.ClusterVersionName = version.Name
	return fmt.Sprintf("runs ClusterVersion %s", version.Name), nil
}

// withoutImage returns the name of a component whose image is not known, or nothing.
func withoutImage(spec *tenancyv1alpha1.ClusterVersionSpec, scheduled bool) string {
	if spec.Version != "" {
		return ""
	}
	known := func(template *tenancyv1alpha1.ComponentTemplate) bool {
		return template != nil && (template.Image != "" || template.StatefulSet != nil)
	}
	switch {
	case !known(spec.APIServer):
		return "apiServer"
	case !known(spec.ControllerManager):
		return "controllerManager"
	case scheduled && !known(spec.Scheduler):
		return "scheduler"
	default:
		return ""
	}
}

// defaultVersion returns the ClusterVersion that is annotated as the default; of several, the newest.
func (r *Reconciler) defaultVersion(ctx context.Context) (*tenancyv1alpha1.ClusterVersion, error) {
	var list tenancyv1alpha1.ClusterVersionList
	if err := r.Client.List(ctx, &list); err != nil {
		return nil, fmt.Errorf("listing ClusterVersions: %w", err)
	}
	defaults := slices.DeleteFunc(list.Items, func(v tenancyv1alpha1.ClusterVersion) bool { return !isDefault(&v) })
	if len(defaults) == 0 {
		return nil, &progress.Stall{
			Reason:  reasonVersionNoDefault,
			Message: fmt.Sprintf("no ClusterVersion is the default; annotate one with %s=true, or set spec.clusterVersionName", tenancyv1alpha1.DefaultVersionAnnotation),
		}
	}
	newest := slices.MaxFunc(defaults, func(a, b tenancyv1alpha1.ClusterVersion) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	return &newest, nil
}

func isDefault(version *tenancyv1alpha1.ClusterVersion) bool {
	return version.Annotations[tenancyv1alpha1.DefaultVersionAnnotation] == "true"
}
