package resource_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// hostile are keys that controllers of a super cluster act on.
func hostile() []string {
	return []string{
		"eks.amazonaws.com/role-arn", "iam.amazonaws.com/role", "iam.gke.io/gcp-service-account", "azure.workload.identity/use", "azure.workload.identity/client-id", "aadpodidbinding",
		"cluster-autoscaler.kubernetes.io/safe-to-evict", "karpenter.sh/do-not-disrupt", "descheduler.alpha.kubernetes.io/evict",
		"external-dns.alpha.kubernetes.io/hostname", "service.beta.kubernetes.io/aws-load-balancer-type", "metallb.io/loadBalancerIPs", "cert-manager.io/inject-ca-from-secret",
		"argocd.argoproj.io/secret-type", "argocd.argoproj.io/tracking-id", "meta.helm.sh/release-name", "prometheus.io/scrape", "velero.io/exclude-from-backup",
		"sidecar.istio.io/inject", "istio.io/rev", "linkerd.io/inject", "k8s.v1.cni.cncf.io/networks", "cni.projectcalico.org/ipAddrs", "ovn.kubernetes.io/ip_address", "io.cilium.proxy-visibility/x",
		"container.apparmor.security.beta.kubernetes.io/main", "seccomp.security.alpha.kubernetes.io/pod", "kubernetes.io/config.source", "kubernetes.io/service-account.name",
		"pv.kubernetes.io/bind-completed", "volume.kubernetes.io/selected-node", "volume.beta.kubernetes.io/storage-class", "reloader.stakater.com/auto", "replicator.v1.mittwald.de/replicate-from",
		corev1.LastAppliedConfigAnnotation, names.LabelTenant, names.AnnotationUID, names.OpaquePrefix + "x", "volume." + names.Prefix + "x", names.Prefix,
	}
}

func copied(kind string, facts resource.Facts, keys ...string) (labels, annotations map[string]string) {
	in, out := &corev1.ConfigMap{}, &corev1.ConfigMap{}
	in.Labels, in.Annotations = map[string]string{}, map[string]string{}
	for _, key := range keys {
		in.Labels[key], in.Annotations[key] = "1", "1"
	}
	resource.View{Kind: kind, Tenant: facts}.CopyMeta(in, out)
	return out.Labels, out.Annotations
}

func TestNoKindLetsATenantSteerControllers(t *testing.T) {
	for _, kind := range append(resource.MetadataKinds(), "unknown", "certificates.example.com") {
		labels, annotations := copied(kind, resource.Facts{}, append(hostile(), "note")...)
		delete(labels, "note") // of most kinds
		if len(labels)+len(annotations) > 0 {
			t.Errorf("%s: labels %v and annotations %v pass", kind, labels, annotations)
		}
	}
}

func TestPassingMetadata(t *testing.T) {
	for name, tc := range map[string]struct {
		kind                string
		facts               resource.Facts
		key                 string
		labels, annotations bool
	}{
		"Plain":                {"services", resource.Facts{}, "app", true, false},
		"PlainSecret":          {"secrets", resource.Facts{}, "grafana_datasource", false, false},
		"PlainConfigMap":       {"configmaps", resource.Facts{}, "grafana_dashboard", false, false},
		"PlainAccount":         {"serviceaccounts", resource.Facts{}, "app", false, false},
		"Recommended":          {"persistentvolumeclaims", resource.Facts{}, "app.kubernetes.io/name", true, false},
		"Proxy":                {"services", resource.Facts{}, "service.kubernetes.io/service-proxy-name", true, false},
		"Headless":             {"endpointslices", resource.Facts{}, corev1.IsHeadlessService, true, false},
		"Topology":             {"services", resource.Facts{}, corev1.AnnotationTopologyMode, false, true},
		"Sources":              {"services", resource.Facts{}, corev1.AnnotationLoadBalancerSourceRangesKey, false, true},
		"Bandwidth":            {"pods", resource.Facts{}, "kubernetes.io/egress-bandwidth", false, true},
		"OwnGroup":             {"certificates.example.com", resource.Facts{}, "example.com/policy", false, true},
		"Subdomain":            {"certificates.example.com", resource.Facts{}, "x.example.com/policy", false, false},
		"Opaque":               {"services", resource.Facts{Opaque: []string{"ap"}}, "app", false, false},
		"Transparent":          {"services", resource.Facts{Transparent: []string{"ap"}}, "app", false, false},
		"Added":                {"services", adds("services:annotations:example.com/a"), "example.com/a", false, true},
		"AddedPrefix":          {"services", adds("services:annotations:example.com/"), "example.com/a", false, true},
		"AddedStar":            {"services", adds("services:labels:example.com/a*"), "example.com/abc", true, false},
		"AddedOther":           {"services", adds("services:labels:example.com/a"), "example.com/ab", false, false},
		"AddedToOthers":        {"services", adds("pods:labels:example.com/a"), "example.com/a", false, false},
		"AddedToAll":           {"services", adds("*:labels:example.com/a"), "example.com/a", true, false},
		"AddedAccount":         {"serviceaccounts", adds("serviceaccounts:annotations:eks.amazonaws.com/role-arn"), "eks.amazonaws.com/role-arn", false, true},
		"AddedCustom":          {"certificates.example.com", adds("certificates.example.com:annotations:a.example.com/"), "a.example.com/b", false, true},
		"AddedOpaque":          {"services", resource.Facts{Opaque: []string{"example.com/"}, Metadata: adds("services:annotations:example.com/a").Metadata}, "example.com/a", false, false},
		"AddedReserved":        {"services", adds("*:annotations:" + names.Prefix), names.AnnotationUID, false, false},
		"AddedVolumeRecord":    {"persistentvolumeclaims", adds("*:annotations:pv.kubernetes.io/"), "pv.kubernetes.io/bind-completed", false, false},
		"AddedTokenOfAnother":  {"secrets", adds("*:annotations:kubernetes.io/*"), "kubernetes.io/service-account.name", false, false},
		"AddedLastApplication": {"secrets", adds("*:annotations:kubectl.kubernetes.io/"), corev1.LastAppliedConfigAnnotation, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			labels, annotations := copied(tc.kind, tc.facts, tc.key)
			if (len(labels) > 0) != tc.labels || (len(annotations) > 0) != tc.annotations {
				t.Errorf("labels %v and annotations %v pass", labels, annotations)
			}
		})
	}
}

// adds are the facts of a tenant whose operator adds something.
func adds(text string) resource.Facts {
	m, err := resource.ParseMetadata(text)
	if err != nil {
		panic(err)
	}
	return resource.Facts{Metadata: []resource.Metadata{m}}
}

func TestParseMetadata(t *testing.T) {
	for text, want := range map[string]resource.Metadata{
		"pods:labels:example.com/": {Kind: "pods", Labels: []string{"example.com/"}},
		"*:annotations:a":          {Kind: "*", Annotations: []string{"a"}},
		"x.example.com:labels:a*":  {Kind: "x.example.com", Labels: []string{"a*"}},
	} {
		got, err := resource.ParseMetadata(text)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: %v; -want +got\n%s", text, err, diff)
		}
	}
	for text, want := range map[string]string{
		"":                   "write kind:labels:key",
		"pods:labels":        "write kind:labels:key",
		"pods:labels:*":      "write kind:labels:key",
		"pod:labels:a":       `kind "pod" is not known`,
		"nodes:labels:a":     `kind "nodes" is not known`,
		"pods:finalizers:a":  `"finalizers" is neither`,
		":annotations:a":     "write kind:labels:key",
		"pods:annotations:/": "write kind:labels:key",
	} {
		if _, err := resource.ParseMetadata(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
