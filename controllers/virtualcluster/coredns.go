package virtualcluster

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/template"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/controllers/images"
	"github.com/virtualcluster-io/virtualcluster/controllers/progress"
	"github.com/virtualcluster-io/virtualcluster/controllers/provision"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

const (
	coreDNSName = "coredns"
	corefileKey = "Corefile"
	// reasonCoreDNSRejected is the reason when the tenant does not accept CoreDNS.
	reasonCoreDNSRejected = "Rejected"
	// reasonAddressTaken is the reason while the address of the cluster DNS is in use in the tenant.
	reasonAddressTaken = "AddressTaken"
)

// coreDNSManifests are kubeadm's, apart from what TestCoreDNSIsThatOfKubeadm lists.
//
//go:embed coredns.yaml
var coreDNSManifests string

// coreDNSValues is what differs between tenants.
type coreDNSValues struct {
	Domain, Image, Address string
	// PullSecret names a Secret with credentials for the image, if there is one.
	PullSecret string
}

// installCoreDNS puts stock CoreDNS into the tenant's kube-system namespace. It is applied again when what is wanted
// changed or when it is gone, but not otherwise: the tenant is free to change it.
func (r *Reconciler) installCoreDNS(ctx context.Context, tenant *provision.Tenant) (string, error) {
	if !wantsCoreDNS(tenant.VirtualCluster) {
		return "is not asked for", nil
	}
	values := coreDNSValuesOf(tenant)
	if len(r.coreDNSPullSecrets(tenant)) > 0 {
		values.PullSecret = coreDNSPullSecretName
	}
	objects, digest, err := renderCoreDNS(values)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, tenantTimeout)
	defer cancel()
	c, err := r.connect(ctx, tenant)
	if err != nil {
		return "", err
	}

	pullErr := r.ensureCoreDNSPullSecret(ctx, tenant, c)
	if pullErr != nil && !errors.As(pullErr, new(*progress.Stall)) {
		return "", pullErr
	}
	const done = "CoreDNS is installed in the namespace kube-system of the tenant"
	current := &appsv1.Deployment{}
	err = c.Get(ctx, client.ObjectKey{Namespace: metav1.NamespaceSystem, Name: coreDNSName}, current)
	if err == nil && current.Annotations[names.AnnotationDigest] == digest {
		return done, pullErr
	}
	if client.IgnoreNotFound(err) != nil {
		return "", unreachable(tenant, err)
	}
	if values.PullSecret == "" {
		if err := removeCoreDNSPullSecret(ctx, tenant, c); err != nil {
			return "", err
		}
	}
	for _, object := range objects {
		if err := writeToTenant(ctx, tenant, c, object); err != nil {
			return "", err
		}
	}
	return done, pullErr
}

// writeToTenant writes one object of CoreDNS.
func writeToTenant(ctx context.Context, tenant *provision.Tenant, c client.Client, object *unstructured.Unstructured) error {
	err := writeCoreDNS(ctx, c, object)
	if apierrors.IsInvalid(err) && strings.Contains(err.Error(), "already allocated") {
		return &progress.Wait{Reason: reasonAddressTaken, Message: "a Service of the tenant has the address of its cluster DNS; it gets another one: " + err.Error(), After: time.Second}
	}
	if apierrors.IsInvalid(err) || apierrors.IsForbidden(err) {
		return &progress.Stall{
			Reason:  reasonCoreDNSRejected,
			Message: fmt.Sprintf("the tenant does not accept %s %s of CoreDNS: %v", object.GetKind(), object.GetName(), err),
		}
	}
	if err != nil {
		return unreachable(tenant, err)
	}
	return nil
}

// writeCoreDNS applies one object. The configuration belongs to the tenant once it is there, except for the port.
func writeCoreDNS(ctx context.Context, c client.Client, object *unstructured.Unstructured) error {
	if object.GetKind() == "ConfigMap" {
		current := &corev1.ConfigMap{}
		err := c.Get(ctx, client.ObjectKeyFromObject(object), current)
		if err == nil {
			return moveCoreDNS(ctx, c, current)
		}
		if !apierrors.IsNotFound(err) {
			return err
		}
	}
	return c.Apply(ctx, client.ApplyConfigurationFromUnstructured(object), client.FieldOwner(names.Manager), client.ForceOwnership)
}

// moveCoreDNS changes the port of a configuration that an earlier version wrote, which listened on port 1053: the Service
// and the pods now use port 53.
func moveCoreDNS(ctx context.Context, c client.Client, config *corev1.ConfigMap) error {
	corefile := strings.ReplaceAll(config.Data[corefileKey], ".:1053 {", ".:53 {")
	if corefile == config.Data[corefileKey] {
		return nil
	}
	base := config.DeepCopy()
	config.Data[corefileKey] = corefile
	return patch(ctx, c, config, base)
}

// wantsCoreDNS says whether CoreDNS is to be installed: by default only into control planes that we made.
func wantsCoreDNS(vc *tenancyv1alpha1.VirtualCluster) bool {
	if enabled := vc.Spec.CoreDNS.Enabled; enabled != nil {
		return *enabled
	}
	return controlPlaneType(vc) != tenancyv1alpha1.External
}

// coreDNSValuesOf returns what the tenant's CoreDNS is rendered from.
func coreDNSValuesOf(tenant *provision.Tenant) coreDNSValues {
	values := coreDNSValues{
		Domain: cmp.Or(tenant.VirtualCluster.Spec.ClusterDomain, "cluster.local"),
		Image:  tenant.Images.Image(images.CoreDNS),
	}
	if tenant.Version != nil && tenant.Version.Spec.CoreDNS != nil && tenant.Version.Spec.CoreDNS.Image != "" {
		values.Image = tenant.Version.Spec.CoreDNS.Image
	}
	if tenant.DNSIP.IsValid() {
		values.Address = tenant.DNSIP.String()
	}
	return values
}

// renderCoreDNS returns the objects of CoreDNS, the Deployment carrying a digest of them all, and the digest. The
// Deployment is last, so that the digest says that everything was applied.
func renderCoreDNS(values coreDNSValues) ([]*unstructured.Unstructured, string, error) {
	manifests, err := template.New(coreDNSName).Option("missingkey=error").Parse(coreDNSManifests)
	if err != nil {
		return nil, "", fmt.Errorf("reading the manifests of CoreDNS: %w", err)
	}
	var rendered bytes.Buffer
	if err := manifests.Execute(&rendered, values); err != nil {
		return nil, "", fmt.Errorf("rendering the manifests of CoreDNS: %w", err)
	}
	sum := sha256.Sum256(rendered.Bytes())
	digest := hex.EncodeToString(sum[:8])

	var objects []*unstructured.Unstructured
	decoder := utilyaml.NewYAMLOrJSONDecoder(&rendered, 4096)
	for {
		object := &unstructured.Unstructured{}
		if err := decoder.Decode(&object.Object); err == io.EOF { //nolint:errorlint // The decoder returns it as it is.
			break
		} else if err != nil {
			return nil, "", fmt.Errorf("reading the manifests of CoreDNS: %w", err)
		}
		if object.GetKind() == "Deployment" {
			object.SetAnnotations(map[string]string{names.AnnotationDigest: digest})
		}
		objects = append(objects, object)
	}
	return objects, digest, nil
}
