package virtualcluster

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/controllers/apply"
	"github.com/virtualcluster-io/virtualcluster/controllers/images"
	"github.com/virtualcluster-io/virtualcluster/controllers/progress"
	"github.com/virtualcluster-io/virtualcluster/controllers/provision"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// Reasons for which there are no credentials for images.
const (
	reasonPullSecretMissing = "PullSecretMissing"
	reasonPullSecretInvalid = "PullSecretInvalid"
)

const (
	// pullSecretName is the Secret in root namespaces with credentials for the images of control planes.
	pullSecretName = "image-pull"
	// coreDNSPullSecretName is the Secret in the tenant's namespace kube-system with those for CoreDNS.
	coreDNSPullSecretName = "coredns-image-pull"
)

// ensurePullSecret copies the credentials for the images of the control plane into the root namespace. They go with it; when
// there are to be none any more, an empty Secret stays.
func (r *Reconciler) ensurePullSecret(ctx context.Context, tenant *provision.Tenant) (string, error) {
	sources := r.pullSecrets(tenant)
	if len(sources) == 0 {
		apimeta.RemoveStatusCondition(&tenant.VirtualCluster.Status.Conditions, tenancyv1alpha1.ConditionPullSecretsReady)
		err := r.Client.Get(ctx, client.ObjectKey{Namespace: string(tenant.ID), Name: pullSecretName}, &corev1.Secret{})
		if apierrors.IsNotFound(err) {
			return "", nil
		}
		if err != nil {
			return "", fmt.Errorf("reading Secret %s: %w", pullSecretName, err)
		}
		return "", r.writePullSecret(ctx, tenant, nil)
	}
	tenant.PullSecret = pullSecretName
	err := r.writePullSecret(ctx, tenant, sources)
	tenant.Report(tenancyv1alpha1.ConditionPullSecretsReady, "Secret "+pullSecretName+" holds the credentials for images of the control plane", err)
	return "", err
}

func (r *Reconciler) writePullSecret(ctx context.Context, tenant *provision.Tenant, sources []string) error {
	data, err := r.credentials(ctx, sources)
	if err != nil {
		return err
	}
	_, err = apply.Object(ctx, r.Client, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: string(tenant.ID), Name: pullSecretName, Labels: tenant.Labels(), Annotations: tenant.Annotations()},
		Type:       corev1.SecretTypeDockerConfigJson,
		Data:       data,
	})
	return err
}

// pullSecrets names the Secrets with credentials for the images of the tenant's control plane.
func (r *Reconciler) pullSecrets(tenant *provision.Tenant) []string {
	switch {
	case tenant.Version == nil:
		return nil
	case len(tenant.Version.Spec.ImagePullSecrets) > 0:
		return namesOf(tenant.Version.Spec.ImagePullSecrets)
	default:
		return r.Images.PullSecrets
	}
}

// coreDNSPullSecrets names the Secrets with credentials for the image of the tenant's CoreDNS.
func (r *Reconciler) coreDNSPullSecrets(tenant *provision.Tenant) []string {
	if v := tenant.Version; v != nil && v.Spec.CoreDNS != nil && len(v.Spec.CoreDNS.ImagePullSecrets) > 0 {
		return namesOf(v.Spec.CoreDNS.ImagePullSecrets)
	}
	return r.Images.CoreDNSPullSecrets
}

func namesOf(references []corev1.LocalObjectReference) []string {
	var list []string
	for _, reference := range references {
		list = append(list, reference.Name)
	}
	return list
}

// credentials reads Secrets in the namespace of vc-manager and merges them.
func (r *Reconciler) credentials(ctx context.Context, sources []string) (map[string][]byte, error) {
	var secrets []corev1.Secret
	for _, name := range sources {
		secret := corev1.Secret{}
		err := r.Live.Get(ctx, client.ObjectKey{Namespace: r.Namespace, Name: name}, &secret)
		if apierrors.IsNotFound(err) {
			return nil, &progress.Stall{
				Reason:  reasonPullSecretMissing,
				Message: fmt.Sprintf("Secret %s/%s, which has the credentials for images, does not exist; create it, or take it out of the ClusterVersion or of the flags of vc-manager", r.Namespace, name),
			}
		}
		if err != nil {
			return nil, fmt.Errorf("reading Secret %s/%s: %w", r.Namespace, name, err)
		}
		secrets = append(secrets, secret)
	}
	data, err := images.MergeCredentials(secrets)
	if err != nil {
		return nil, &progress.Stall{Reason: reasonPullSecretInvalid, Message: fmt.Sprintf("in namespace %s, %v", r.Namespace, err)}
	}
	return data, nil
}

// pullsImages says whether a Secret is named as one with credentials for images.
func (r *Reconciler) pullsImages(ctx context.Context, secret *metav1.PartialObjectMetadata) bool {
	if secret.Namespace != r.Namespace {
		return false
	}
	if slices.Contains(r.Images.PullSecrets, secret.Name) || slices.Contains(r.Images.CoreDNSPullSecrets, secret.Name) {
		return true
	}
	var versions tenancyv1alpha1.ClusterVersionList
	if err := r.Client.List(ctx, &versions); err != nil {
		log.FromContext(ctx).Error(err, "Cannot list ClusterVersions")
		return false
	}
	return slices.ContainsFunc(versions.Items, func(v tenancyv1alpha1.ClusterVersion) bool {
		named := v.Spec.ImagePullSecrets
		if v.Spec.CoreDNS != nil {
			named = slices.Concat(named, v.Spec.CoreDNS.ImagePullSecrets)
		}
		return slices.Contains(namesOf(named), secret.Name)
	})
}

// ensureCoreDNSPullSecret copies the credentials for the image of CoreDNS into the tenant.
func (r *Reconciler) ensureCoreDNSPullSecret(ctx context.Context, tenant *provision.Tenant, c client.Client) error {
	sources := r.coreDNSPullSecrets(tenant)
	if len(sources) == 0 {
		return nil
	}
	data, err := r.credentials(ctx, sources)
	if err != nil {
		return err
	}
	current := &corev1.Secret{}
	err = c.Get(ctx, client.ObjectKey{Namespace: metav1.NamespaceSystem, Name: coreDNSPullSecretName}, current)
	if client.IgnoreNotFound(err) != nil {
		return unreachable(tenant, err)
	}
	if err == nil && equality.Semantic.DeepEqual(current.Data, data) {
		return nil
	}
	object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&corev1.Secret{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: metav1.NamespaceSystem, Name: coreDNSPullSecretName, Labels: map[string]string{names.LabelManagedBy: names.Manager},
		},
		Type: corev1.SecretTypeDockerConfigJson,
		Data: data,
	})
	if err != nil {
		return fmt.Errorf("converting Secret %s: %w", coreDNSPullSecretName, err)
	}
	return writeToTenant(ctx, tenant, c, &unstructured.Unstructured{Object: object})
}

// removeCoreDNSPullSecret removes the credentials from the tenant.
func removeCoreDNSPullSecret(ctx context.Context, tenant *provision.Tenant, c client.Client) error {
	secret := &corev1.Secret{}
	err := c.Get(ctx, client.ObjectKey{Namespace: metav1.NamespaceSystem, Name: coreDNSPullSecretName}, secret)
	if err == nil && secret.Labels[names.LabelManagedBy] == names.Manager {
		err = c.Delete(ctx, secret, client.Preconditions{UID: &secret.UID})
	}
	if client.IgnoreNotFound(err) != nil {
		return unreachable(tenant, err)
	}
	return nil
}
