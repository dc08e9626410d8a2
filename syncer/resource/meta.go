package resource

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// Controllers and webhooks of the super cluster act on labels and annotations, most of them in all namespaces. A tenant that
// sets such a key would control what belongs to the operator. So labels and annotations are on an allow-list: what features of
// the super cluster need, and what the operator adds. The object of the tenant has all of its keys, whatever passes.

// Metadata says which labels and annotations of the tenants' objects of a kind the super cluster gets.
type Metadata struct {
	// Kind is the name of the kind, or AnyKind.
	Kind string
	// Plain says that labels pass whose keys have no prefix, such as app.
	Plain bool
	// Labels and Annotations are keys that pass. One that ends in / stands for all that begin with it, and one that ends in *
	// for all that begin with what precedes the *.
	Labels, Annotations []string
	// Why is the reason, for documentation.
	Why string
}

// AnyKind is the name, in Metadata, of all kinds.
const AnyKind = "*"

// MetadataKinds lists the kinds whose labels and annotations go down, besides those that SyncPolicies offer.
func MetadataKinds() []string {
	return []string{
		Pods, Services, EndpointSlices, "ingresses", "networkpolicies", "persistentvolumeclaims", "poddisruptionbudgets", "resourceclaims",
		ConfigMaps, Secrets, ServiceAccounts,
	}
}

// BuiltInMetadata returns what passes of a kind when the operator adds nothing.
func BuiltInMetadata(kind string) Metadata {
	m := Metadata{Kind: kind, Plain: true, Labels: []string{"app.kubernetes.io/", "helm.sh/chart"}, Why: "the operator finds objects by them"}
	switch kind {
	case Pods:
		m.Labels = append(m.Labels, "apps.kubernetes.io/", "batch.kubernetes.io/", "statefulset.kubernetes.io/", "topology.kubernetes.io/")
		m.Annotations = []string{"kubectl.kubernetes.io/default-container", "kubernetes.io/egress-bandwidth", "kubernetes.io/ingress-bandwidth"}
		m.Why = "what workloads of Kubernetes set, and limits of the bandwidth of the pod itself; other labels have a replacement, also in selectors"
	case Services:
		m.Labels = append(m.Labels, labelServiceProxy)
		m.Annotations = []string{corev1.AnnotationTopologyMode, corev1.DeprecatedAnnotationTopologyAwareHints, corev1.AnnotationLoadBalancerSourceRangesKey}
		m.Why = "how the Service itself is reached, and from where"
	case EndpointSlices:
		m.Labels = append(m.Labels, labelServiceProxy, corev1.IsHeadlessService)
		m.Why = "who serves the Service"
	case "ingresses":
		m.Why += "; annotations are on a list of their own, and an instruction that is not is refused"
	case ConfigMaps, Secrets:
		return Metadata{Kind: kind, Why: "programs of the operator load such objects from all namespaces by their labels"}
	case ServiceAccounts:
		return Metadata{Kind: kind, Why: "clouds give rights to pods by labels and annotations of their accounts"}
	default:
		if _, group, custom := strings.Cut(kind, "."); custom {
			m.Annotations = []string{group + "/"}
		}
	}
	return m
}

// labelServiceProxy is the label of a Service that another proxy than kube-proxy serves.
const labelServiceProxy = "service.kubernetes.io/service-proxy-name"

// ParseMetadata reads what an operator adds, in the form kind:labels:key or kind:annotations:key. The error says what is wrong.
func ParseMetadata(text string) (Metadata, error) {
	kind, rest, _ := strings.Cut(text, ":")
	what, key, _ := strings.Cut(rest, ":")
	m := Metadata{Kind: kind}
	switch {
	case kind == "" || key == "" || strings.Trim(key, "/*") == "":
		return m, errors.New("write kind:labels:key or kind:annotations:key; a key that ends in / or * stands for all that begin so")
	case kind != AnyKind && !strings.Contains(kind, ".") && !slices.Contains(MetadataKinds(), kind):
		return m, fmt.Errorf("kind %q is not known: use * for all, the name of a SyncPolicy, or one of %s", kind, strings.Join(MetadataKinds(), ", "))
	case what == "labels":
		m.Labels = []string{key}
	case what == "annotations":
		m.Annotations = []string{key}
	default:
		return m, fmt.Errorf("%q is neither labels nor annotations", what)
	}
	return m, nil
}

// CopyMeta gives a replica the labels and annotations of the tenant's object that pass.
func (v View) CopyMeta(in, out Object) {
	out.SetLabels(v.passing(in.GetLabels(), v.labelPasses))
	out.SetAnnotations(v.PassingAnnotations(in.GetAnnotations()))
}

// PassingAnnotations returns those of the annotations of the tenant's object that pass.
func (v View) PassingAnnotations(in map[string]string) map[string]string {
	return v.passing(in, v.AnnotationPasses)
}

func (v View) passing(in map[string]string, passes func(kind, key string) bool) map[string]string {
	var out map[string]string
	for key, value := range in {
		if passes(v.Kind, key) {
			if out == nil {
				out = make(map[string]string, len(in))
			}
			out[key] = value
		}
	}
	return out
}

// labelPasses says whether a label of an object of a kind passes.
func (v View) labelPasses(kind, key string) bool {
	return !v.Kept(key) && (labelIn(BuiltInMetadata(kind), key) || v.added(kind, func(m Metadata) bool { return labelIn(m, key) }))
}

func labelIn(m Metadata, key string) bool {
	return m.Plain && !strings.Contains(key, "/") || matches(m.Labels, key)
}

// AnnotationPasses says whether an annotation of an object of a kind passes.
func (v View) AnnotationPasses(kind, key string) bool {
	return !v.Kept(key) && (matches(BuiltInMetadata(kind).Annotations, key) || v.AnnotationAdded(kind, key))
}

// AnnotationAdded says whether the operator added an annotation to those that pass.
func (v View) AnnotationAdded(kind, key string) bool {
	return !v.Kept(key) && v.added(kind, func(m Metadata) bool { return matches(m.Annotations, key) })
}

func (v View) added(kind string, has func(Metadata) bool) bool {
	return slices.ContainsFunc(v.Tenant.Metadata, func(m Metadata) bool { return (m.Kind == kind || m.Kind == AnyKind) && has(m) })
}

// Kept says that a key does not pass whatever the operator adds: it is ours, the admin keeps it in the tenant or in the super
// cluster, the tenant's own control plane writes it about its own objects, or it gives rights.
func (v View) Kept(key string) bool {
	begins := func(prefix string) bool { return strings.HasPrefix(key, prefix) }
	return strings.Contains("."+key, "."+names.Prefix) || slices.ContainsFunc(v.Tenant.Opaque, begins) || v.transparent(key) ||
		matches([]string{
			corev1.LastAppliedConfigAnnotation, // a whole copy of the object
			"kubernetes.io/config.*", "kubernetes.io/service-account.*",
			"pv.kubernetes.io/", "volume.kubernetes.io/", "volume.beta.kubernetes.io/",
			"aadpodidbinding", // an identity in the cloud
		}, key)
}

// transparent says that a key comes up from the super cluster.
func (v View) transparent(key string) bool {
	return slices.ContainsFunc(v.Tenant.Transparent, func(prefix string) bool { return strings.HasPrefix(key, prefix) })
}

// matches says whether a key is one of a list.
func matches(keys []string, key string) bool {
	return slices.ContainsFunc(keys, func(k string) bool {
		prefix, all := strings.CutSuffix(k, "*")
		return k == key || (all || strings.HasSuffix(k, "/")) && strings.HasPrefix(key, prefix)
	})
}
