package resources_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/resources"
)

// withClasses is a world in which the class nginx is offered, hidden is not, and own is the tenant's.
func withClasses() world {
	class := func(name, uid, origin, public string) *networkingv1.IngressClass {
		c := &networkingv1.IngressClass{ObjectMeta: metav1.ObjectMeta{Name: name, UID: "x"}}
		if uid != "" {
			c.UID, c.Labels = "real", map[string]string{names.LabelPublic: public}
		}
		if origin != "" {
			c.Annotations = map[string]string{names.AnnotationUID: origin}
		}
		return c
	}
	web := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "web"}}
	w := world{
		super:  []resource.Object{class("nginx", "real", "", "true"), class("hidden", "real", "", "false"), class("own", "real", "", "true")},
		tenant: []resource.Object{class("nginx", "", "real", ""), class("hidden", "", "real", ""), class("own", "", "", "")},
	}
	// A cluster-scoped object comes first where two have one name.
	w.tenant, w.super = append(w.tenant, web), append(w.super, replicas(web)...)
	return w
}

func ingress(edit ...func(*networkingv1.Ingress)) *networkingv1.Ingress {
	name, prefix := "nginx", networkingv1.PathTypePrefix
	in := &networkingv1.Ingress{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "u", ResourceVersion: "3"},
		Spec: networkingv1.IngressSpec{
			IngressClassName: &name,
			DefaultBackend:   &networkingv1.IngressBackend{Resource: &corev1.TypedLocalObjectReference{Kind: "ConfigMap", Name: "page"}},
			TLS:              []networkingv1.IngressTLS{{Hosts: []string{"shop.example.com"}, SecretName: "cert"}, {SecretName: "cert"}},
			Rules: []networkingv1.IngressRule{{Host: "shop.example.com", IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{
				Paths: []networkingv1.HTTPIngressPath{{Path: "/", PathType: &prefix, Backend: networkingv1.IngressBackend{
					Service: &networkingv1.IngressServiceBackend{Name: "web", Port: networkingv1.ServiceBackendPort{Number: 80}},
				}}},
			}}}, {Host: "x.example.com"}},
		},
	}
	for _, f := range edit {
		f(in)
	}
	return in
}

// ingressReplica is what the super cluster has of it.
func ingressReplica() *networkingv1.Ingress {
	out := ingress()
	out.ObjectMeta = replicaMeta("shop", "web", "u")
	out.Spec.DefaultBackend.Resource.Name = names.SuperConfigMap("page")
	for i := range out.Spec.TLS {
		out.Spec.TLS[i].SecretName = names.SuperSecret("cert")
	}
	return out
}

func annotated(key, value string) func(*networkingv1.Ingress) {
	return func(in *networkingv1.Ingress) { in.Annotations = map[string]string{key: value} }
}

func ofClass(name string) func(*networkingv1.Ingress) {
	return func(in *networkingv1.Ingress) {
		in.Spec.IngressClassName = nil
		if name != "" {
			in.Spec.IngressClassName = &name
		}
	}
}

func TestIngressesOfOfferedClassesGoDown(t *testing.T) {
	for name, tc := range map[string]struct {
		in   *networkingv1.Ingress
		down bool
	}{
		"Offered": {ingress(), true},
		"Legacy":  {ingress(ofClass(""), annotated("kubernetes.io/ingress.class", "nginx")), true},
		"None":    {ingress(ofClass("")), false},
		"Hidden":  {ingress(ofClass("hidden")), false},
		"Own":     {ingress(ofClass("own")), false},
		"Unknown": {ingress(ofClass("traefik")), false},
	} {
		t.Run(name, func(t *testing.T) {
			ops, err := decide(t, resources.Ingresses(), withClasses(), "shop", "web", tc.in, nil)
			if tc.down {
				got := created[*networkingv1.Ingress](t, ops, err)
				if diff := cmp.Diff(ingressReplica().Spec, got.Spec); diff != "" {
					t.Errorf("-want +got\n%s", diff)
				}
				if _, legacy := got.Annotations["kubernetes.io/ingress.class"]; legacy {
					t.Error("the class is there twice")
				}
			} else if len(ops) > 0 || err != nil {
				t.Errorf("got %s, %v; want nothing", encode(t, ops), err)
			}
		})
	}
}

// An Ingress leads to Services of the tenant only. Where there is none, the other paths are served all the same.
func TestIngressBackends(t *testing.T) {
	service := func(uid types.UID, edit func(*corev1.Service)) *corev1.Service {
		s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "api", UID: uid}}
		if edit != nil {
			edit(s)
		}
		return s
	}
	operators := service("operators", func(s *corev1.Service) { s.Namespace = names.SuperNamespace(tenantID, "shop") })
	own := service("own", nil)
	external := service("own", func(s *corev1.Service) {
		s.Spec.Type, s.Spec.ExternalName = corev1.ServiceTypeExternalName, "kubernetes.default.svc"
	})
	for name, tc := range map[string]struct {
		tenant, super []resource.Object
		told          string
	}{
		"Own":           {[]resource.Object{own}, replicas(own), ""},
		"NotInTenant":   {nil, []resource.Object{operators}, `Service "api", which does not exist`},
		"Operators":     {[]resource.Object{own}, []resource.Object{operators}, `Service "api", which the underlying cluster does not have`},
		"NotReplicated": {[]resource.Object{own}, nil, `Service "api", which the underlying cluster does not have`},
		"Predecessors":  {[]resource.Object{own}, replicas(service("older", nil)), `Service "api", which the underlying cluster does not have`},
		"External":      {[]resource.Object{external}, replicas(external), `Service "api", which is of type ExternalName`},
	} {
		t.Run(name, func(t *testing.T) {
			w := withClasses()
			w.tenant, w.super = append(w.tenant, tc.tenant...), append(w.super, tc.super...)
			in := ingress(func(in *networkingv1.Ingress) {
				in.Spec.DefaultBackend = &networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: "api"}}
			})
			ops, err := decide(t, resources.Ingresses(), w, "shop", "web", in, nil)
			want := "api"
			if tc.told != "" {
				want = names.AbsentService("api")
			}
			got := created[*networkingv1.Ingress](t, ops, nil)
			if got.Spec.DefaultBackend.Service.Name != want || got.Spec.Rules[0].HTTP.Paths[0].Backend.Service.Name != "web" {
				t.Errorf("it leads to %s", encode(t, got.Spec))
			}
			if err != nil {
				t.Errorf("nothing is there to report yet: %v", err)
			}
			replica := got.DeepCopy()
			replica.UID = "super"
			ops, err = decide(t, resources.Ingresses(), w, "shop", "web", in, replica)
			wait, waits := resource.AsWait(err)
			if len(ops) > 0 || waits != (tc.told != "") || waits && (wait.Told == nil || !strings.Contains(wait.Told.Message, tc.told)) {
				t.Errorf("in sync: %s, %v", encode(t, ops), err)
			}
		})
	}
	for _, kind := range []string{"Service", "StorageBucket"} {
		in := ingress(func(in *networkingv1.Ingress) { in.Spec.DefaultBackend.Resource.Kind = kind })
		ops, err := decide(t, resources.Ingresses(), withClasses(), "shop", "web", in, nil)
		rejectedWith(t, ops, err, "BackendNotAllowed")
	}
}

// Attack M-04.
func TestIngressAnnotations(t *testing.T) {
	const nginx = "nginx.ingress.kubernetes.io/"
	own := names.SuperNamespace(tenantID, "shop")
	for name, tc := range map[string]struct {
		key, value string
		want       string // empty: stays in the tenant
		reject     bool
	}{
		"Rewrite":        {nginx + "rewrite-target", "/$2", "/$2", false},
		"Origin":         {nginx + "cors-allow-origin", "https://a.example.com, https://b.example.com:8443", "https://a.example.com, https://b.example.com:8443", false},
		"Secret":         {nginx + "auth-secret", "users", names.SuperSecret("users"), false},
		"OwnSecret":      {nginx + "auth-tls-secret", "shop/ca", own + "/" + names.SuperSecret("ca"), false},
		"ForeignSecret":  {nginx + "auth-secret", "kube-system/users", "", true},
		"SuperSecret":    {nginx + "auth-tls-secret", own + "/ca", "", true},
		"StrangeSecret":  {nginx + "auth-secret", "shop/a/b", "", true},
		"EmptySecret":    {nginx + "auth-secret", "shop/", "", true},
		"Injected":       {nginx + "rewrite-target", "/;} location /x {", "", true},
		"Lines":          {nginx + "proxy-body-size", "1m\nlua", "", true},
		"Snippet":        {nginx + "configuration-snippet", "x", "", true},
		"ServerSnippet":  {nginx + "server-snippet", "x", "", true},
		"AuthURL":        {nginx + "auth-url", "http://169.254.169.254/", "", true},
		"ServerAlias":    {nginx + "server-alias", "bank.example.com", "", true},
		"MirrorTarget":   {nginx + "mirror-target", "http://x", "", true},
		"Unknown":        {nginx + "to-be-invented", "x", "", true},
		"Traefik":        {"traefik.ingress.kubernetes.io/router.middlewares", "other-auth@kubernetescrd", "", true},
		"ALB":            {"alb.ingress.kubernetes.io/group.name", "theirs", "", true},
		"GCE":            {"kubernetes.io/ingress.global-static-ip-name", "theirs", "", true},
		"HAProxy":        {"haproxy.org/backend-config-snippet", "x", "", true},
		"Bare":           {"ingress.kubernetes.io/rewrite-target", "/", "", true},
		"ExternalDNS":    {"external-dns.alpha.kubernetes.io/hostname", "bank.example.com", "", false},
		"CertManager":    {"cert-manager.io/cluster-issuer", "operators", "", false},
		"TLSACME":        {"kubernetes.io/tls-acme", "true", "", false},
		"Note":           {"note", "x", "", false},
		"AlmostTheirs":   {"xingress.kubernetes.io/a", "x", "", false},
		"ReservedByUs":   {names.AnnotationNamespace, "kube-system", "", false},
		"WithoutADomain": {"haproxy.org", "x", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			ops, err := decide(t, resources.Ingresses(), withClasses(), "shop", "web", ingress(annotated(tc.key, tc.value)), nil)
			if tc.reject {
				rejectedWith(t, ops, err, "AnnotationNotAllowed")
				return
			}
			want := map[string]string{names.AnnotationNamespace: "shop", names.AnnotationUID: "u"}
			if tc.want != "" {
				want[tc.key], want[names.AnnotationKeys] = tc.want, "a:"+tc.key
			}
			if diff := cmp.Diff(want, created[*networkingv1.Ingress](t, ops, err).Annotations); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// What the operator adds passes as it is; what names a Secret still names one of the tenant's.
func TestAddedIngressAnnotations(t *testing.T) {
	const nginx = "nginx.ingress.kubernetes.io/"
	w := withClasses()
	w.facts.Opaque = []string{"kept.example.com/", nginx + "app-root"}
	w.facts.Metadata = []resource.Metadata{{Kind: "ingresses", Annotations: []string{"external-dns.alpha.kubernetes.io/", nginx, "kept.example.com/"}}}
	in := ingress(func(in *networkingv1.Ingress) {
		in.Annotations = map[string]string{
			"external-dns.alpha.kubernetes.io/ttl": "60", nginx + "custom-headers": "x", nginx + "auth-secret": "users", nginx + "app-root": "/x",
			"kept.example.com/a": "x", "cert-manager.io/issuer": "x",
		}
	})
	ops, err := decide(t, resources.Ingresses(), w, "shop", "web", in, nil)
	got := created[*networkingv1.Ingress](t, ops, err).Annotations
	delete(got, names.AnnotationKeys)
	want := map[string]string{
		"external-dns.alpha.kubernetes.io/ttl": "60", nginx + "custom-headers": "x", nginx + "auth-secret": names.SuperSecret("users"),
		names.AnnotationNamespace: "shop", names.AnnotationUID: "u",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestIngressReferences(t *testing.T) {
	in := ingress(annotated("nginx.ingress.kubernetes.io/auth-secret", "shop/users"))
	group := "k8s.example.com"
	in.Spec.Rules[0].HTTP.Paths = append(in.Spec.Rules[0].HTTP.Paths,
		networkingv1.HTTPIngressPath{Backend: networkingv1.IngressBackend{Resource: &corev1.TypedLocalObjectReference{Kind: "Secret", Name: "asset"}}},
		networkingv1.HTTPIngressPath{Backend: networkingv1.IngressBackend{Resource: &corev1.TypedLocalObjectReference{APIGroup: &group, Kind: "Secret", Name: "other"}}})
	want := []resource.Ref{
		{Kind: "ingressclasses", Name: "nginx"},
		{Kind: "secrets", Namespace: "shop", Name: "cert"},
		{Kind: "secrets", Namespace: "shop", Name: "users"},
		{Kind: "configmaps", Namespace: "shop", Name: "page"},
		{Kind: "services", Namespace: "shop", Name: "web"},
		{Kind: "secrets", Namespace: "shop", Name: "asset"},
	}
	if diff := cmp.Diff(want, resources.Ingresses().References(in)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestIngressesLive(t *testing.T) {
	replica := ingressReplica()
	address := networkingv1.IngressStatus{LoadBalancer: networkingv1.IngressLoadBalancerStatus{Ingress: []networkingv1.IngressLoadBalancerIngress{{IP: "192.0.2.1"}}}}
	replica.Status = address
	ops, err := decide(t, resources.Ingresses(), withClasses(), "shop", "web", ingress(), replica)
	if err != nil || len(ops) != 1 {
		t.Fatalf("got %s, %v", encode(t, ops), err)
	}
	current := patched(t, ingress(), resource.Tenant, ops)
	if diff := cmp.Diff(address, current.Status); diff != "" {
		t.Errorf("status: -want +got\n%s", diff)
	}
	if ops, err = decide(t, resources.Ingresses(), withClasses(), "shop", "web", current, replica); len(ops) > 0 || err != nil {
		t.Errorf("in sync: %s, %v", encode(t, ops), err)
	}
	drifted := replica.DeepCopy()
	drifted.Spec.Rules = nil
	ops, err = decide(t, resources.Ingresses(), withClasses(), "shop", "web", current, drifted)
	if diff := cmp.Diff(replica.Spec, patched(t, drifted, resource.Super, ops).Spec); diff != "" || err != nil {
		t.Errorf("after drift: %v; -want +got\n%s", err, diff)
	}
	// The class changes to one that is none of ours.
	ops, err = decide(t, resources.Ingresses(), withClasses(), "shop", "web", ingress(ofClass("own")), replica)
	if err != nil || len(ops) != 1 || ops[0].Verb != resource.Delete || ops[0].Side != resource.Super {
		t.Errorf("of another class: %s, %v", encode(t, ops), err)
	}
}
