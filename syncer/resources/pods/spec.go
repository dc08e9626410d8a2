package pods

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/virtualcluster-io/virtualcluster/internal/iprange"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/resources/nodes"
)

// defaultServiceAccount exists in every namespace of every cluster without our doing.
const defaultServiceAccount = "default"

// finishSpec sets what the table leaves to code in the spec itself.
func finishSpec(t *translation, dst, src *corev1.PodSpec) error {
	no := false
	dst.AutomountServiceAccountToken = &no
	if src.HostUsers != nil && !*src.HostUsers {
		dst.HostUsers = &no
	}
	if err := t.copy(&dst.EphemeralContainers, &src.EphemeralContainers); err != nil {
		return within("ephemeralContainers", err)
	}
	if err := t.hostname(dst, src); err != nil {
		return err
	}
	if err := t.copy(&dst.Tolerations, &src.Tolerations); err != nil {
		return within("tolerations", err)
	}
	dst.Tolerations = t.tolerations(dst.Tolerations)
	if err := t.placeSpec(dst, src); err != nil {
		return err
	}
	if err := t.classes(dst, src); err != nil {
		return err
	}
	if err := t.devices(src); err != nil {
		return err
	}
	t.mountTokens(dst, src)
	t.mountHosts(dst, src)
	if err := t.dns(dst, src); err != nil {
		return err
	}
	account := resource.Ref{Kind: kindAccounts, Namespace: t.pod.Namespace, Name: src.ServiceAccountName}
	if account.Name != "" && account.Name != defaultServiceAccount && !t.view.Replicated(account) {
		t.waitFor("%s", lacking(t.view, account))
	}
	return nil
}

const kindRuntimeClasses = "runtimeclasses"

// classes keeps the classes that the super cluster offers. What follows from them its admission fills in.
func (t *translation) classes(dst, src *corev1.PodSpec) error {
	if t.view.OffersClass(resource.PriorityClasses, src.PriorityClassName) {
		dst.PriorityClassName = src.PriorityClassName
	}
	if src.RuntimeClassName == nil || *src.RuntimeClassName == "" {
		return nil
	}
	class, ok := t.runtimeClass(*src.RuntimeClassName)
	if !ok {
		return &refusal{path: "runtimeClassName", why: fmt.Sprintf("neither the runtime class %s nor one with its handler is offered here", *src.RuntimeClassName)}
	}
	dst.RuntimeClassName = &class
	return nil
}

// runtimeClass returns the super cluster's class for the tenant's: that class, or for one of the tenant's own, one that is
// offered and has the same handler.
func (t *translation) runtimeClass(name string) (string, bool) {
	if t.view.OffersClass(kindRuntimeClasses, name) {
		return name, true
	}
	own, ok := t.view.Get(resource.Tenant, resource.Ref{Kind: kindRuntimeClasses, Name: name}).(*nodev1.RuntimeClass)
	if !ok || own == nil || !t.view.Enabled(kindRuntimeClasses) {
		return "", false
	}
	found := ""
	t.view.Each(resource.Super, kindRuntimeClasses, func(o resource.Object) {
		class, ok := o.(*nodev1.RuntimeClass)
		if ok && class.Handler == own.Handler && resource.ClassOffered(kindRuntimeClasses, class) && (found == "" || class.Name < found) {
			found = class.Name
		}
	})
	return found, found != ""
}

// longestHostname is the longest name that the kubelet sets without cutting it.
const longestHostname = 63

// hostname keeps the promise of setHostnameAsFQDN with the tenant's domain. The kubelet would build the name from the
// super namespace and the super cluster's domain.
func (t *translation) hostname(dst, src *corev1.PodSpec) error {
	if src.HostnameOverride != nil || src.SetHostnameAsFQDN == nil || !*src.SetHostnameAsFQDN || src.Subdomain == "" {
		dst.HostnameOverride, dst.SetHostnameAsFQDN = clone(src.HostnameOverride), clone(src.SetHostnameAsFQDN)
		return nil
	}
	fqdn := t.fqdn(src)
	if len(fqdn) > longestHostname {
		return &refusal{path: "setHostnameAsFQDN", why: fmt.Sprintf("the name %s is longer than %d characters", fqdn, longestHostname)}
	}
	dst.HostnameOverride = &fqdn
	return nil
}

// host returns the host name of the pod.
func (t *translation) host(src *corev1.PodSpec) string {
	if src.Hostname == "" {
		return t.pod.Name
	}
	return src.Hostname
}

// fqdn returns the name of a pod with a subdomain in the tenant's DNS.
func (t *translation) fqdn(src *corev1.PodSpec) string {
	return fmt.Sprintf("%s.%s.%s.svc.%s", t.host(src), src.Subdomain, t.pod.Namespace, t.view.Tenant.ClusterDomain)
}

// lifecycleTaints are put on nodes by Kubernetes itself, by what happens to the node.
func lifecycleTaints() []string {
	return []string{
		corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable, corev1.TaintNodeUnschedulable, corev1.TaintNodeMemoryPressure,
		corev1.TaintNodeDiskPressure, corev1.TaintNodePIDPressure, corev1.TaintNodeNetworkUnavailable,
	}
}

// tolerations drops those for the operator's taints. A toleration of every taint, which would let the pod on any node,
// becomes one of each life cycle taint and of each other taint that the tenant sees.
func (t *translation) tolerations(in []corev1.Toleration) []corev1.Toleration {
	var out []corev1.Toleration
	add := func(toleration corev1.Toleration) {
		if !slices.ContainsFunc(out, func(o corev1.Toleration) bool { return o.MatchToleration(&toleration) }) {
			out = append(out, toleration)
		}
	}
	for _, toleration := range in {
		toleration.TolerationSeconds = clone(toleration.TolerationSeconds)
		switch {
		case toleration.Key == "":
			for _, key := range slices.Concat(lifecycleTaints(), t.openTaints()) {
				each := toleration
				each.Key, each.Operator, each.TolerationSeconds = key, corev1.TolerationOpExists, clone(toleration.TolerationSeconds)
				add(each)
			}
		case !nodes.OperatorTaint(toleration.Key):
			add(toleration)
		}
	}
	return out
}

// openTaints returns the keys of the taints of the pod's node, or of all nodes that the tenant sees, without the operator's.
func (t *translation) openTaints() []string {
	var keys []string
	add := func(o resource.Object) {
		if n, ok := o.(*corev1.Node); ok && n != nil {
			for _, taint := range n.Spec.Taints {
				if !nodes.OperatorTaint(taint.Key) {
					keys = append(keys, taint.Key)
				}
			}
		}
	}
	if node := t.pod.Spec.NodeName; node != "" {
		add(t.view.Get(resource.Tenant, resource.Ref{Kind: kindNodes, Name: node}))
	} else {
		t.view.Each(resource.Tenant, kindNodes, add)
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// finishAffinityTerm keeps the scope of a term inside the tenant.
func finishAffinityTerm(t *translation, dst, src *corev1.PodAffinityTerm) error {
	dst.LabelSelector = t.view.PodSelector(src.LabelSelector)
	for _, namespace := range src.Namespaces {
		dst.Namespaces = append(dst.Namespaces, names.SuperNamespace(t.view.Tenant.ID, namespace))
	}
	if src.NamespaceSelector != nil {
		selector, err := t.view.SelectNamespaces(src.NamespaceSelector)
		if err != nil {
			return err
		}
		dst.NamespaceSelector = selector
	}
	dst.MatchLabelKeys = t.view.PodKeys(unmerged(src.MatchLabelKeys, src.LabelSelector, metav1.LabelSelectorOpIn))
	dst.MismatchLabelKeys = t.view.PodKeys(unmerged(src.MismatchLabelKeys, src.LabelSelector, metav1.LabelSelectorOpNotIn))
	return nil
}

func finishSpread(t *translation, dst, src *corev1.TopologySpreadConstraint) error {
	dst.LabelSelector = t.view.PodSelector(src.LabelSelector)
	dst.MatchLabelKeys = t.view.PodKeys(unmerged(src.MatchLabelKeys, src.LabelSelector, metav1.LabelSelectorOpIn))
	return nil
}

// unmerged returns the keys that are not in the selector yet.
func unmerged(keys []string, selector *metav1.LabelSelector, operator metav1.LabelSelectorOperator) []string {
	var out []string
	for _, key := range keys {
		if selector == nil || !slices.ContainsFunc(selector.MatchExpressions, func(r metav1.LabelSelectorRequirement) bool {
			return r.Key == key && r.Operator == operator && len(r.Values) == 1
		}) {
			out = append(out, key)
		}
	}
	return out
}

// finishVolume refuses volumes of a type that this version does not know: the super cluster would take them for an
// empty directory.
func finishVolume(t *translation, dst, src *corev1.Volume) error {
	if src.Ephemeral != nil {
		dst.PersistentVolumeClaim = &corev1.PersistentVolumeClaimVolumeSource{ClaimName: t.pod.Name + "-" + src.Name}
	}
	if dst.VolumeSource == (corev1.VolumeSource{}) && !t.lenient {
		return &refusal{why: whyVolumeType}
	}
	return nil
}

// configMap sets the name under which a ConfigMap is found in the super namespace.
func configMap(dst *string, name string) error {
	*dst = names.SuperConfigMap(name)
	return nil
}

// secret sets the name under which a Secret is found in the super namespace.
func secret(dst *string, name string) error {
	*dst = names.SuperSecret(name)
	return nil
}

// Limits of resolv.conf, as the API and the kubelet have them.
const (
	maxNameservers   = 3
	maxSearches      = 32
	maxSearchesChars = 2048
)

// dns points the pod to the tenant's DNS, where the kubelet would point it to the super cluster's. Other policies have
// their meaning.
func (t *translation) dns(dst, src *corev1.PodSpec) error {
	if err := t.copy(&dst.DNSConfig, &src.DNSConfig); err != nil {
		return within("dnsConfig", err)
	}
	// In the network of the node ClusterFirst means the node's DNS.
	hostNetwork := src.HostNetwork && src.DNSPolicy == corev1.DNSClusterFirst
	if src.DNSPolicy == corev1.DNSNone || src.DNSPolicy == corev1.DNSDefault || hostNetwork {
		dst.DNSPolicy = src.DNSPolicy
		return nil
	}
	server := t.dnsServer()
	if server == "" {
		t.waitFor("the cluster IP of the Service kube-system/kube-dns")
		return nil
	}
	domain := t.view.Tenant.ClusterDomain
	ndots := "5"
	config := &corev1.PodDNSConfig{
		Nameservers: []string{server},
		Searches:    []string{t.pod.Namespace + ".svc." + domain, "svc." + domain, domain},
		Options:     []corev1.PodDNSConfigOption{{Name: "ndots", Value: &ndots}},
	}
	if own := dst.DNSConfig; own != nil {
		config.Nameservers = append(config.Nameservers, own.Nameservers...)
		config.Searches = append(config.Searches, own.Searches...)
		config.Options = mergeOptions(config.Options, own.Options)
	}
	config.Nameservers = unique(config.Nameservers)
	if len(config.Nameservers) > maxNameservers {
		config.Nameservers = config.Nameservers[:maxNameservers]
	}
	config.Searches = fitting(unique(config.Searches))
	dst.DNSPolicy, dst.DNSConfig = corev1.DNSNone, config
	return nil
}

// dnsServer returns the address of the tenant's DNS: of its Service, or the one that Service will get.
func (t *translation) dnsServer() string {
	if ip := clusterIP(t.view, metav1.NamespaceSystem, "kube-dns"); ip != "" {
		return ip
	}
	primary := t.view.Tenant.ServiceRanges.Primary()
	if !primary.IsValid() {
		return ""
	}
	return iprange.DNS(primary).String()
}

// mergeOptions overrides options of the same name, in their place.
func mergeOptions(options, own []corev1.PodDNSConfigOption) []corev1.PodDNSConfigOption {
	for _, option := range own {
		i := slices.IndexFunc(options, func(o corev1.PodDNSConfigOption) bool { return o.Name == option.Name })
		if i < 0 {
			options = append(options, option)
			continue
		}
		options[i] = option
	}
	return options
}

// fitting cuts a search path to what resolvers accept, from its end.
func fitting(searches []string) []string {
	searches = slices.DeleteFunc(searches, func(s string) bool { return len(s) > validation.DNS1123SubdomainMaxLength })
	if len(searches) > maxSearches {
		searches = searches[:maxSearches]
	}
	for len(strings.Join(searches, " ")) > maxSearchesChars {
		searches = searches[:len(searches)-1]
	}
	return searches
}

// unique drops repetitions.
func unique(in []string) []string {
	var out []string
	for _, s := range in {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// clusterIP returns the cluster IP of a tenant's Service, empty when there is none.
func clusterIP(v resource.View, namespace, name string) string {
	if service := service(v, namespace, name); service != nil {
		return service.Spec.ClusterIP
	}
	return ""
}

// service returns a tenant's Service if it has a cluster IP for good: of the tenant's own range, or the one that the super
// cluster gave its replica. Until then the address is somebody else's, and pods keep what they get.
func service(v resource.View, namespace, name string) *corev1.Service {
	ref := resource.Ref{Kind: resource.Services, Namespace: namespace, Name: name}
	s, ok := v.Get(resource.Tenant, ref).(*corev1.Service)
	if !ok || s == nil || s.Spec.ClusterIP == "" || s.Spec.ClusterIP == corev1.ClusterIPNone {
		return nil
	}
	if len(v.Tenant.ServiceRanges) > 0 {
		return s
	}
	super, ok := v.Get(resource.Super, ref).(*corev1.Service)
	if !ok || !v.Replicated(ref) || super.Spec.ClusterIP != s.Spec.ClusterIP {
		return nil
	}
	return s
}

func clone[T any](p *T) *T {
	if p == nil {
		return nil
	}
	c := *p
	return &c
}
