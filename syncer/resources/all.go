// Package resources describes the kinds that the syncer synchronises, one file each, in the vocabulary of package
// resource. It is pure: translations return new objects and never write to their inputs. All lists the kinds. CONTRIBUTING.md
// says how to add one, and TestEveryKindIsComplete names what is missing.
package resources

import (
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/resources/nodes"
	"github.com/virtualcluster-io/virtualcluster/syncer/resources/pods"
)

// Options of the kinds.
type Options struct {
	// AgentNamespace is the namespace of vn-agent's service account, which gets the right to stream from pods in each
	// super namespace.
	AgentNamespace string
	// HostsImage is the image that contains vn-hosts; empty to leave the kubelet's hosts files to pods.
	HostsImage string
}

// All returns the kinds, in no particular order.
func All(o Options) []resource.Kind { return append(required(o), Switchable()...) }

// required returns the kinds that pods cannot do without, and those that hold data.
func required(o Options) []resource.Kind {
	return []resource.Kind{
		Namespaces(o.AgentNamespace),
		StreamRights(),
		pods.Kind(o.HostsImage),
		Services(),
		EndpointSlices(),
		ConfigMaps(),
		Secrets(),
		Tokens(),
		ServiceAccounts(),
		nodes.Kind(),
		OtherPods(),
		PersistentVolumeClaims(),
		PersistentVolumes(),
	}
}

// Switchable returns the kinds that an administrator can switch off for a tenant.
func Switchable() []resource.Kind {
	return []resource.Kind{
		Events(),
		StorageClasses(),
		IngressClasses(),
		Ingresses(),
		NetworkPolicies(),
		PodDisruptionBudgets(),
		PriorityClasses(),
		DeviceClasses(),
		ResourceClaims(),
		RuntimeClasses(),
		VolumeAttributesClasses(),
	}
}
