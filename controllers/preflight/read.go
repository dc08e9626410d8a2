package preflight

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtualcluster-io/virtualcluster/controllers/servicecidr"
	"github.com/virtualcluster-io/virtualcluster/internal/iprange"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

//+kubebuilder:rbac:groups="",resources=services;configmaps,verbs=get;list;create
//+kubebuilder:rbac:groups="",resources=nodes,verbs=list
//+kubebuilder:rbac:groups=networking.k8s.io,resources=servicecidrs,verbs=get;list;create
//+kubebuilder:rbac:groups=apps,resources=daemonsets,resourceNames=kube-router,verbs=get
//+kubebuilder:rbac:groups=crd.projectcalico.org,resources=bgpconfigurations,resourceNames=default,verbs=get

// Discovery is what is asked about the API server itself.
type Discovery interface {
	discovery.ServerGroupsInterface
	discovery.ServerVersionInterface
}

// Super is a super cluster that is read.
type Super struct {
	// Client reads nodes, for which a cache is good enough, and makes dry runs; Live reads from the API server.
	Client    client.Client
	Live      client.Reader
	Discovery Discovery
}

// Check reads a super cluster and says what is found. The error is for one that cannot be read.
func Check(ctx context.Context, super Super, config Config) (*Report, error) {
	facts, err := read(ctx, super, config)
	if err != nil {
		return nil, err
	}
	return evaluate(facts, config), nil
}

// read reads all that evaluate needs.
func read(ctx context.Context, super Super, config Config) (*Facts, error) {
	version, err := super.Discovery.ServerVersion()
	if err != nil {
		return nil, fmt.Errorf("asking for the version of the super cluster: %w", err)
	}
	facts := &Facts{Version: version.GitVersion, Answers: map[string]Answer{}}
	for _, step := range []func(context.Context, Super, *Facts) error{readRanges, readTenants, readNodes, readDataplanes} {
		if err := step(ctx, super, facts); err != nil {
			return nil, err
		}
	}
	candidates, problem := plan(facts, config)
	if problem != nil {
		return facts, nil
	}
	for _, c := range candidates {
		if err := try(ctx, super.Client, facts, c); err != nil {
			return nil, err
		}
	}
	return facts, nil
}

// readRanges reads the ranges of the super cluster.
func readRanges(ctx context.Context, super Super, facts *Facts) error {
	var objects networkingv1.ServiceCIDRList
	err := super.Live.List(ctx, &objects)
	facts.API = err == nil || !servicecidr.Absent(err)
	if err := facts.skip("ServiceCIDRs", err); err != nil {
		return err
	}
	for i := range objects.Items {
		object := &objects.Items[i]
		ranges := parse(object.Spec.CIDRs)
		facts.served = append(facts.served, ranges...)
		if _, tenant := object.Labels[names.LabelTenant]; tenant {
			facts.Tenants = append(facts.Tenants, ranges...)
		} else if servicecidr.Serves(object) {
			facts.Ranges = append(facts.Ranges, ranges...)
		}
	}
	facts.Default, err = servicecidr.DiscoverRanges(ctx, super.Live, super.Client)
	if unknown, ok := errors.AsType[*servicecidr.UnknownRangeError](err); ok {
		facts.Unknown = unknown.Message
		return nil
	}
	if apierrors.IsForbidden(err) {
		facts.Unknown = err.Error()
		return nil
	}
	return err
}

// readTenants reads the ranges that tenants have without ServiceCIDRs.
func readTenants(ctx context.Context, super Super, facts *Facts) error {
	claims := &metav1.PartialObjectMetadataList{}
	claims.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("ServiceList"))
	err := super.Live.List(ctx, claims, client.HasLabels{names.LabelServiceRange})
	if err := facts.skip("Services of tenants", err); err != nil {
		return err
	}
	for i := range claims.Items {
		ranges, err := iprange.Parse(claims.Items[i].Annotations[names.AnnotationServiceRange])
		if err != nil {
			continue // A person wrote it.
		}
		for _, prefix := range ranges {
			if !slices.Contains(facts.Tenants, prefix) {
				facts.Tenants = append(facts.Tenants, prefix)
			}
		}
	}
	return nil
}

// readNodes reads the addresses of nodes and of their pods.
func readNodes(ctx context.Context, super Super, facts *Facts) error {
	var nodes corev1.NodeList
	if err := facts.skip("nodes", super.Client.List(ctx, &nodes)); err != nil {
		return err
	}
	labels := map[string]bool{}
	for i := range nodes.Items {
		object := &nodes.Items[i]
		node := Node{Name: object.Name}
		for _, cidr := range object.Spec.PodCIDRs {
			if prefix, err := netip.ParsePrefix(cidr); err == nil {
				node.PodRanges = append(node.PodRanges, prefix)
			}
		}
		for _, address := range object.Status.Addresses {
			if addr, err := netip.ParseAddr(address.Address); err == nil {
				node.Addresses = append(node.Addresses, addr)
			}
		}
		facts.Nodes = append(facts.Nodes, node)
		for key := range object.Labels {
			labels[key] = true
		}
	}
	for _, known := range rules() {
		if known.label != "" && labels[known.label] {
			facts.Dataplanes = append(facts.Dataplanes, Dataplane{Name: known.name})
		}
	}
	return nil
}

// readDataplanes reads which dataplanes there are.
func readDataplanes(ctx context.Context, super Super, facts *Facts) error {
	groups, err := super.Discovery.ServerGroups()
	if err != nil {
		return fmt.Errorf("asking for the APIs of the super cluster: %w", err)
	}
	for _, known := range rules() {
		switch {
		case known.group != "":
			if !slices.ContainsFunc(groups.Groups, func(g metav1.APIGroup) bool { return g.Name == known.group }) {
				continue
			}
		case known.daemonSet != "":
			err := super.Live.Get(ctx, client.ObjectKey{Namespace: metav1.NamespaceSystem, Name: known.daemonSet}, &appsv1.DaemonSet{})
			if servicecidr.Absent(err) {
				continue
			}
			if err := facts.skip("the DaemonSet "+known.daemonSet, err); err != nil {
				return err
			}
			if err != nil {
				continue
			}
		default:
			continue
		}
		found := Dataplane{Name: known.name}
		switch known.name {
		case cilium:
			found.PodRanges, err = readCilium(ctx, super.Live, facts)
		case calico:
			found.Advertised, err = readCalico(ctx, super.Live, facts)
		}
		if err != nil {
			return err
		}
		facts.Dataplanes = append(facts.Dataplanes, found)
	}
	return nil
}

// readCilium returns the ranges that Cilium takes pods' addresses from when it does so itself.
func readCilium(ctx context.Context, live client.Reader, facts *Facts) ([]netip.Prefix, error) {
	object := &corev1.ConfigMap{}
	err := live.Get(ctx, client.ObjectKey{Namespace: metav1.NamespaceSystem, Name: "cilium-config"}, object)
	if !servicecidr.Absent(err) {
		if err := facts.skip("the configuration of Cilium", err); err != nil {
			return nil, err
		}
	}
	if ipam := object.Data["ipam"]; ipam != "" && ipam != "cluster-pool" && ipam != "multi-pool" {
		return nil, nil // It is in the nodes, or not of this cluster.
	}
	configured := parse(strings.Fields(object.Data["cluster-pool-ipv4-cidr"] + " " + object.Data["cluster-pool-ipv6-cidr"]))
	if len(configured) == 0 {
		return parse([]string{ciliumPods}), nil
	}
	return configured, nil
}

// BGPConfiguration is the kind of Calico that says which cluster IPs it advertises.
func BGPConfiguration() schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: "crd.projectcalico.org", Version: "v1", Kind: "BGPConfiguration"}
}

// readCalico returns the ranges of cluster IPs that Calico advertises.
func readCalico(ctx context.Context, live client.Reader, facts *Facts) ([]netip.Prefix, error) {
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(BGPConfiguration())
	err := live.Get(ctx, client.ObjectKey{Name: "default"}, object)
	if servicecidr.Absent(err) {
		return nil, nil
	}
	if err := facts.skip("the BGPConfiguration of Calico", err); err != nil {
		return nil, err
	}
	items, _, _ := unstructured.NestedSlice(object.Object, "spec", "serviceClusterIPs")
	var cidrs []string
	for _, item := range items {
		if entry, ok := item.(map[string]any); ok {
			cidr, _, _ := unstructured.NestedString(entry, "cidr")
			cidrs = append(cidrs, cidr)
		}
	}
	return parse(cidrs), nil
}

// skip notes what must not be read, and returns errors of other kinds.
func (f *Facts) skip(what string, err error) error {
	switch {
	case err == nil, servicecidr.Absent(err):
		return nil
	case apierrors.IsForbidden(err):
		f.NotRead = append(f.NotRead, fmt.Sprintf("%s: %v", what, err))
		return nil
	}
	return fmt.Errorf("reading %s: %w", what, err)
}

// try asks the API server by dry runs whether it would take what tenants of a range need.
func try(ctx context.Context, dryRun client.Writer, facts *Facts, c candidate) error {
	for _, addr := range c.addresses() {
		wanted := addr.String()
		if facts.several(addr) {
			wanted = ""
		}
		_, err := servicecidr.TryService(ctx, dryRun, familyOf(addr), wanted)
		said, err := answer(err)
		if err != nil {
			return fmt.Errorf("asking for a Service at %s: %w", addr, err)
		}
		facts.Answers[addr.String()] = said
	}
	if prefix := c.own(); prefix.IsValid() && facts.API {
		said, err := answer(tryServiceCIDR(ctx, dryRun, prefix))
		if err != nil {
			return fmt.Errorf("asking for a ServiceCIDR of %s: %w", prefix, err)
		}
		facts.Answers[prefix.String()] = said
	}
	return nil
}

// several says whether there is more than one range of the IP family of an address. In a dry run, the API server then looks at
// one of them, whichever, so an address tells nothing; that the range is served follows from its ServiceCIDR.
func (f *Facts) several(addr netip.Addr) bool {
	all := iprange.Ranges{}
	for _, prefix := range f.served {
		if prefix.Addr().Is4() == addr.Is4() && !slices.Contains(all, prefix) {
			all = append(all, prefix)
		}
	}
	return len(all) > 1
}

// parse returns those texts that are ranges.
func parse(cidrs []string) []netip.Prefix {
	var prefixes []netip.Prefix
	for _, cidr := range cidrs {
		if prefix, err := netip.ParsePrefix(cidr); err == nil {
			prefixes = append(prefixes, prefix.Masked())
		}
	}
	return prefixes
}
