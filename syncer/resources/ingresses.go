package resources

import (
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// +kubebuilder:rbac:groups=networking.k8s.io,resources=ingresses,verbs=get;list;watch;create;patch;delete

// Ingresses copies down the Ingresses of classes that the super cluster offers, and brings back the address. All others
// are for a controller of the tenant's own, or for nobody.
func Ingresses() resource.Kind {
	return resource.Of(resource.Resource[*networkingv1.Ingress]{
		Name: "ingresses",
		GVK:  networkingv1.SchemeGroupVersion.WithKind("Ingress"),
		New:  func() *networkingv1.Ingress { return &networkingv1.Ingress{} },
		Needed: func(v resource.View, in *networkingv1.Ingress) bool {
			class := ingressClass(in)
			return class != "" && v.OffersClass(kindIngressClasses, class)
		},
		Down: ingressDown,
		Merge: func(existing, want *networkingv1.Ingress) {
			existing.Spec = want.Spec
		},
		Up:         ingressUp,
		References: ingressReferences,
	})
}

// legacyClass is the annotation that named the class before there was a field.
const legacyClass = "kubernetes.io/ingress.class"

// ingressClass returns the name of the class of an Ingress, empty when it has none.
func ingressClass(in *networkingv1.Ingress) string {
	if in.Spec.IngressClassName != nil {
		return *in.Spec.IngressClassName
	}
	return in.Annotations[legacyClass]
}

// ingressReferences lists the class, the Secrets and the backends of an Ingress.
func ingressReferences(in *networkingv1.Ingress) []resource.Ref {
	refs := []resource.Ref{{Kind: kindIngressClasses, Name: ingressClass(in)}}
	add := func(kind, name string) {
		ref := resource.Ref{Kind: kind, Namespace: in.Namespace, Name: name}
		if name != "" && !slices.Contains(refs, ref) {
			refs = append(refs, ref)
		}
	}
	for _, tls := range in.Spec.TLS {
		add("secrets", tls.SecretName)
	}
	for _, key := range secretAnnotations() {
		if name, ok := ownSecret(in, in.Annotations[key]); ok {
			add("secrets", name)
		}
	}
	for _, b := range backends(&in.Spec) {
		if b.Service != nil {
			add(resource.Services, b.Service.Name)
		}
		if kind := backendKind(b); kind != "" {
			add(kind, b.Resource.Name)
		}
	}
	if refs[0].Name == "" {
		refs = refs[1:]
	}
	return refs
}

// backendKind returns the kind of a backend that is no Service, empty for one that is not offered.
func backendKind(b *networkingv1.IngressBackend) string {
	switch {
	case b.Resource == nil || b.Resource.APIGroup != nil && *b.Resource.APIGroup != "":
		return ""
	case b.Resource.Kind == "ConfigMap":
		return resource.ConfigMaps
	case b.Resource.Kind == "Secret":
		return resource.Secrets
	default:
		return ""
	}
}

// backends returns all backends of an Ingress.
func backends(spec *networkingv1.IngressSpec) []*networkingv1.IngressBackend {
	var out []*networkingv1.IngressBackend
	if spec.DefaultBackend != nil {
		out = append(out, spec.DefaultBackend)
	}
	for _, rule := range spec.Rules {
		if rule.HTTP == nil {
			continue
		}
		for i := range rule.HTTP.Paths {
			out = append(out, &rule.HTTP.Paths[i].Backend)
		}
	}
	return out
}

func ingressDown(v resource.View, in *networkingv1.Ingress) (*networkingv1.Ingress, error) {
	class, spec := ingressClass(in), in.Spec.DeepCopy()
	out := &networkingv1.Ingress{Spec: networkingv1.IngressSpec{
		IngressClassName: &class, DefaultBackend: spec.DefaultBackend, TLS: spec.TLS, Rules: spec.Rules,
	}}
	v.CopyMeta(in, out)
	for i := range out.Spec.TLS {
		out.Spec.TLS[i].SecretName = names.SuperSecret(out.Spec.TLS[i].SecretName)
	}
	for _, b := range backends(&out.Spec) {
		if err := backendDown(v, in.Namespace, b); err != nil {
			return nil, err
		}
	}
	annotations := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(in.Annotations)) {
		down, pass, err := ingressAnnotation(v, in, key, in.Annotations[key])
		if err != nil {
			return nil, err
		}
		if pass {
			annotations[key] = down
		}
	}
	out.SetAnnotations(annotations)
	return out, nil
}

// backendDown replaces the name of a backend by that of its replica. A Service that the tenant does not have there becomes
// one that nobody has: the ingress controller serves the other paths, as it does where a Service does not exist.
func backendDown(v resource.View, namespace string, b *networkingv1.IngressBackend) error {
	if b.Service != nil && noBackend(v, namespace, b.Service.Name) != "" {
		b.Service.Name = names.AbsentService(b.Service.Name)
	}
	if b.Resource == nil {
		return nil
	}
	kind := backendKind(b)
	if kind == "" {
		return resource.Rejected("BackendNotAllowed", "the backend %s %q is not offered here: use a Service, a ConfigMap or a Secret", b.Resource.Kind, b.Resource.Name)
	}
	b.Resource.Name, _ = resource.Renamed(kind, b.Resource.Name)
	return nil
}

// noBackend says why an Ingress does not lead to a Service, or nothing.
func noBackend(v resource.View, namespace, name string) string {
	ref := resource.Ref{Kind: resource.Services, Namespace: namespace, Name: name}
	service, ok := v.Get(resource.Tenant, ref).(*corev1.Service)
	switch {
	case !ok || service == nil:
		return "which does not exist"
	case service.Spec.Type == corev1.ServiceTypeExternalName:
		return "which is of type ExternalName: the ingress controller would look for that name in the underlying cluster"
	case !v.Replicated(ref):
		return "which the underlying cluster does not have yet; if that lasts, events of the Service say why"
	default:
		return ""
	}
}

// retryBackend is when an Ingress without one of its backends is looked at again although no event arrived.
const retryBackend = time.Minute

// ingressUp brings back where the Ingress is reached, and tells which of its Services are not.
func ingressUp(v resource.View, p resource.Pair[*networkingv1.Ingress]) ([]resource.Op, error) {
	if !v.OffersClass(kindIngressClasses, ingressClass(p.Tenant)) {
		return nil, nil // another controller may write it by now
	}
	ops, err := resource.ReportStatus(p.Tenant, func(to *networkingv1.Ingress) { to.Status = *p.Super.Status.DeepCopy() })
	if err != nil {
		return nil, err
	}
	for _, b := range backends(&p.Tenant.Spec) {
		if b.Service == nil {
			continue
		}
		if why := noBackend(v, p.Tenant.Namespace, b.Service.Name); why != "" {
			return ops, resource.Blocked(retryBackend, "BackendNotFound", "Service %q, %s", b.Service.Name, why)
		}
	}
	return ops, nil
}

// Annotations of an Ingress are instructions to a controller that all tenants share: they write into its configuration,
// make it call addresses, and point to objects of any namespace. So they are on an allow-list. What is not on it but
// looks like an instruction is refused and not left out, because leaving out an access restriction opens what it was to
// protect. Everything else means nothing to an ingress controller, and might mean something to another controller of
// the super cluster, so it stays in the tenant.

// ingressAnnotation returns what becomes of an annotation, and whether it goes down.
func ingressAnnotation(v resource.View, in *networkingv1.Ingress, key, value string) (string, bool, error) {
	domain, name, _ := strings.Cut(key, "/")
	switch {
	case v.AnnotationAdded(v.Kind, key) && !slices.Contains(secretAnnotations(), key):
		return value, true, nil
	case v.Kept(key) || key == legacyClass || !instructive(key):
		return "", false, nil
	case slices.Contains(secretAnnotations(), key):
		secret, ok := ownSecret(in, value)
		if !ok {
			return "", false, resource.Rejected("AnnotationNotAllowed", "annotation %s can only name a Secret of the namespace of the Ingress", key)
		}
		secret = names.SuperSecret(secret)
		if strings.Contains(value, "/") {
			secret = names.SuperNamespace(v.Tenant.ID, in.Namespace) + "/" + secret
		}
		return secret, true, nil
	case domain != nginxDomain || !slices.Contains(nginxAnnotations(), name):
		return "", false, resource.Rejected("AnnotationNotAllowed", "annotation %s is not offered here, because the ingress controller is shared; remove it", key)
	case strings.ContainsAny(value, "\n\r\x00;{}\"'`\\#"):
		return "", false, resource.Rejected("AnnotationNotAllowed", "the value of annotation %s has characters that are not allowed", key)
	}
	return value, true, nil
}

// instructive says that an annotation is an instruction to an ingress controller.
func instructive(key string) bool {
	return strings.HasPrefix(key, "kubernetes.io/ingress.") ||
		inDomains(key, "ingress.kubernetes.io", "nginx.org", "nginx.com", "haproxy.org", "haproxy-ingress.github.io", "konghq.com", "projectcontour.io",
			"networking.gke.io", "getambassador.io")
}

// inDomains says whether the prefix of a key is one of the domains, or a subdomain of one.
func inDomains(key string, domains ...string) bool {
	prefix, _, _ := strings.Cut(key, "/")
	return slices.ContainsFunc(domains, func(of string) bool { return prefix == of || strings.HasSuffix(prefix, "."+of) })
}

// nginxDomain is that of ingress-nginx, whose annotations many others understand, too.
const nginxDomain = "nginx.ingress.kubernetes.io"

// nginxAnnotations are those that concern nothing but the Ingress itself.
func nginxAnnotations() []string {
	return []string{
		"affinity", "affinity-mode", "session-cookie-name", "session-cookie-path", "session-cookie-max-age", "session-cookie-expires",
		"session-cookie-samesite", "session-cookie-secure", "session-cookie-change-on-failure",
		"app-root", "rewrite-target", "use-regex", "ssl-redirect", "force-ssl-redirect", "preserve-trailing-slash", "from-to-www-redirect",
		"backend-protocol", "service-upstream", "load-balance",
		"canary", "canary-by-header", "canary-by-header-value", "canary-by-cookie", "canary-weight", "canary-weight-total",
		"enable-cors", "cors-allow-origin", "cors-allow-methods", "cors-allow-headers", "cors-allow-credentials", "cors-expose-headers", "cors-max-age",
		"auth-type", "auth-realm", "auth-secret-type",
		"limit-connections", "limit-rps", "limit-rpm", "limit-burst-multiplier",
		"allowlist-source-range", "whitelist-source-range", "denylist-source-range",
		"client-body-buffer-size", "proxy-body-size", "proxy-buffering", "proxy-buffer-size", "proxy-buffers-number", "proxy-request-buffering",
		"proxy-connect-timeout", "proxy-send-timeout", "proxy-read-timeout", "proxy-next-upstream", "proxy-next-upstream-timeout",
		"proxy-next-upstream-tries", "proxy-http-version",
	}
}

// secretAnnotations hold the name of a Secret, some of them with its namespace.
func secretAnnotations() []string {
	return []string{nginxDomain + "/auth-secret", nginxDomain + "/auth-tls-secret", nginxDomain + "/proxy-ssl-secret"}
}

// ownSecret returns the name of the Secret that an annotation names, if it is one of the namespace of the Ingress.
func ownSecret(in *networkingv1.Ingress, value string) (string, bool) {
	namespace, name, qualified := strings.Cut(value, "/")
	if !qualified {
		namespace, name = in.Namespace, value
	}
	return name, namespace == in.Namespace && name != "" && !strings.ContainsAny(name, "/\n\r;{} ")
}
