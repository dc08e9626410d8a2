// Package images names the container images of control planes and of the CoreDNS in tenants: those that upstream pairs
// with a version of Kubernetes, in the registry of the administrator's choice. It also merges the credentials for that
// registry. It is pure; the provisioner of dedicated control planes and the VirtualCluster reconciler call it.
package images

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"

	"k8s.io/apimachinery/pkg/util/version"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// Upstream is the registry of the images that Kubernetes publishes.
const Upstream = "registry.k8s.io"

// CoreDNS is the name of the component that is installed into tenants.
const CoreDNS = "coredns"

// pair is what kubeadm runs beside a version of Kubernetes: the tags of the images of etcd and CoreDNS.
type pair struct {
	etcd, coreDNS string
}

// table has an entry for each minor version of Kubernetes 1: the constants DefaultEtcdVersion and CoreDNSVersion in
// cmd/kubeadm/app/constants of the patch release that our modules name.
func table() map[uint]pair {
	return map[uint]pair{
		34: {etcd: "3.6.5-0", coreDNS: "v1.12.1"},
		35: {etcd: "3.6.6-0", coreDNS: "v1.13.1"},
		36: {etcd: "3.6.8-0", coreDNS: "v1.14.2"},
		37: {etcd: "3.7.0-0", coreDNS: "v1.14.6"},
	}
}

// pairOf returns the pair of a version of Kubernetes. Versions older than the table get its oldest entry: tenants have run
// etcd 3.6 with them, and etcd 3.5 does not read the data of 3.6. Versions newer than the table, and those that cannot be
// read, get its newest entry.
func pairOf(kubernetes string) pair {
	pairs := table()
	minors := slices.Sorted(maps.Keys(pairs))
	oldest, newest := minors[0], minors[len(minors)-1]
	v, err := version.ParseGeneric(kubernetes)
	if err != nil || v.Major() > 1 {
		return pairs[newest]
	}
	if v.Major() < 1 {
		return pairs[oldest]
	}
	return pairs[min(max(v.Minor(), oldest), newest)]
}

// Source says where images come from that a ClusterVersion does not name.
type Source struct {
	// Registry takes the place of registry.k8s.io when it is not empty.
	Registry string
	// Version of Kubernetes, for instance v1.36.3.
	Version string
}

// Image returns the reference of a component's image.
func (s Source) Image(component string) string {
	registry := cmp.Or(s.Registry, Upstream)
	switch component {
	case names.Etcd:
		return fmt.Sprintf("%s/%s:%s", registry, component, pairOf(s.Version).etcd)
	case CoreDNS:
		return fmt.Sprintf("%s/coredns/%s:%s", registry, component, pairOf(s.Version).coreDNS)
	default:
		return fmt.Sprintf("%s/%s:%s", registry, component, s.Version)
	}
}

// registryPattern is a host with an optional port and path, as in the name of an image, or empty. The
// CustomResourceDefinition of ClusterVersion and the schema of the chart's values have it too.
const registryPattern = `^([a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*)?$`

// CheckRegistry returns an error when a registry cannot be the beginning of an image's name. Empty is no registry.
func CheckRegistry(name string) error {
	if regexp.MustCompile(registryPattern).MatchString(name) {
		return nil
	}
	return fmt.Errorf("%q is not a registry: write host[:port][/path], without a scheme such as https:// and without a slash at the end", name)
}
