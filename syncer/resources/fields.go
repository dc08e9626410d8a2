package resources

import (
	"reflect"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	policyv1 "k8s.io/api/policy/v1"
	resourcev1 "k8s.io/api/resource/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/virtualcluster-io/virtualcluster/syncer/resources/pods"
)

// Decision is what happens to one field of a type, on the way from the origin to the replica.
type Decision struct {
	Of     reflect.Type
	Field  string
	Action pods.Action
	Why    string
}

// Decisions lists the decisions about the fields of all types that are translated, but those of pods. A test holds each
// against what the translation does, and fails when a version of Kubernetes brings a field that nobody decided.
func Decisions() []Decision {
	var out []Decision
	for _, t := range fieldRules() {
		for _, r := range t.rules {
			for _, field := range r.fields {
				out = append(out, Decision{Of: t.of, Field: field, Action: r.action, Why: r.why})
			}
		}
	}
	return out
}

type typeRules struct {
	of    reflect.Type
	rules []fieldRule
}

type fieldRule struct {
	action pods.Action
	why    string
	fields []string
}

func rulesOf[T any](rules ...fieldRule) typeRules {
	return typeRules{of: reflect.TypeFor[T](), rules: rules}
}

func pass(why string, fields ...string) fieldRule    { return fieldRule{pods.Pass, why, fields} }
func mapped(why string, fields ...string) fieldRule  { return fieldRule{pods.Map, why, fields} }
func set(why string, fields ...string) fieldRule     { return fieldRule{pods.Set, why, fields} }
func drop(why string, fields ...string) fieldRule    { return fieldRule{pods.Drop, why, fields} }
func refused(why string, fields ...string) fieldRule { return fieldRule{pods.Refuse, why, fields} }

// Reasons that many fields share.
const (
	whySame      = "means the same on both sides"
	whyPodLabels = "pods have the same labels on both sides; keys that do not go down have the same replacement on pods and in selectors"
	whyOperator  = "is the operator's business"
	whyNested    = "each field in it is decided by itself"
	whyOffered   = "only of classes that are offered"
)

// meta are the decisions about what is around the fields of a kind.
func meta() fieldRule {
	return mapped("as described above", "TypeMeta", "ObjectMeta")
}

func fieldRules() []typeRules {
	return []typeRules{
		rulesOf[corev1.ConfigMap](meta(), pass(whySame, "Data", "BinaryData", "Immutable")),
		rulesOf[corev1.Secret](
			meta(),
			pass(whySame, "Data", "Immutable"),
			drop("written by clients only, the API server moves it to data", "StringData"),
			mapped("service account tokens become opaque, because the super cluster would bind the type to an account of its own", "Type")),
		rulesOf[corev1.ServiceAccount](
			meta(),
			set("false: tokens of the super cluster are never mounted", "AutomountServiceAccountToken"),
			drop("the tenant's admission has written them into pods", "ImagePullSecrets"),
			drop("accounts have no tokens in the super cluster", "Secrets")),
		rulesOf[corev1.ServiceSpec](
			mapped("NodePort or ClusterIP instead of a LoadBalancer that has a class, see loadBalancerClass, or an annotation that is not allowed; all others pass", "Type"),
			mapped(whyPodLabels, "Selector"),
			pass(whySame, "Ports", "SessionAffinity", "SessionAffinityConfig", "PublishNotReadyAddresses",
				"ExternalTrafficPolicy", "InternalTrafficPolicy", "TrafficDistribution", "AllocateLoadBalancerNodePorts", "LoadBalancerSourceRanges"),
			mapped("those of a tenant with ranges of its own, whose Services get other addresses when theirs are not of these; otherwise the super cluster chooses", "ClusterIP", "ClusterIPs"),
			pass(whySame, "IPFamilies"),
			mapped("SingleStack for a Service that has one family in the tenant", "IPFamilyPolicy"),
			drop("the super cluster chooses", "HealthCheckNodePort", "LoadBalancerIP"),
			drop("a controller of the tenant's own serves the class: the replica has node ports or a cluster IP, no load balancer, and the status is left alone", "LoadBalancerClass"),
			drop("a Service of type ExternalName stays in the tenant: only DNS reads the name", "ExternalName"),
			refused("would take traffic for addresses of others", "ExternalIPs")),
		rulesOf[discoveryv1.EndpointSlice](
			meta(),
			pass(whySame, "AddressType", "Ports"),
			mapped(whyNested, "Endpoints")),
		rulesOf[discoveryv1.Endpoint](
			pass("an endpoint with an address that is not that of a workload is left out", "Addresses"),
			pass(whySame, "Conditions", "Hostname", "NodeName", "Zone", "Hints"),
			drop("the pods of a Service without selector are not known to be the tenant's", "TargetRef"),
			drop("an old form of zone and node name", "DeprecatedTopology")),
		rulesOf[corev1.PersistentVolumeClaimSpec](
			pass(whySame, "AccessModes", "StorageClassName", "VolumeMode"),
			mapped("requests, which is what claims have", "Resources"),
			mapped("only the replica of a claim of the namespace, or of a snapshot where they are offered; others are refused", "DataSource", "DataSourceRef"),
			mapped("only of classes that are offered; a claim that has another keeps it", "VolumeAttributesClassName"),
			refused("unless it names a volume that an earlier claim of the tenant left, with the reclaim policy Retain", "VolumeName"),
			refused("volumes are provisioned for the claim", "Selector")),
		rulesOf[networkingv1.IngressSpec](
			mapped("only of classes that are offered; also taken from the old annotation", "IngressClassName"),
			mapped("without a Service that is not the tenant's own; other resources than ConfigMaps and Secrets are refused", "DefaultBackend", "Rules"),
			mapped("the replica of a Secret has a name that the operator's objects do not have", "TLS")),
		rulesOf[networkingv1.NetworkPolicySpec](
			mapped(whyPodLabels, "PodSelector"),
			pass(whySame, "PolicyTypes"),
			mapped(whyNested, "Ingress", "Egress")),
		rulesOf[networkingv1.NetworkPolicyIngressRule](
			pass(whySame, "Ports"),
			mapped(whyNested, "From")),
		rulesOf[networkingv1.NetworkPolicyEgressRule](
			pass(whySame, "Ports"),
			mapped(whyNested, "To")),
		rulesOf[networkingv1.NetworkPolicyPeer](
			mapped(whyPodLabels, "PodSelector"),
			mapped("the names of the super namespaces that it selects in the tenant", "NamespaceSelector"),
			pass(whySame, "IPBlock")),
		rulesOf[policyv1.PodDisruptionBudgetSpec](
			mapped(whyPodLabels, "Selector"),
			pass(whySame, "UnhealthyPodEvictionPolicy"),
			mapped("the number of healthy pods that the tenant's controller computed", "MinAvailable"),
			drop("is in minAvailable", "MaxUnavailable")),
		rulesOf[resourcev1.DeviceClaim](
			mapped(whyNested, "Requests"),
			pass(whySame, "Constraints"),
			pass("is for the driver of the devices", "Config")),
		rulesOf[resourcev1.DeviceRequest](
			pass(whySame, "Name"),
			mapped(whyNested, "Exactly", "FirstAvailable")),
		rulesOf[resourcev1.ExactDeviceRequest](
			mapped(whyOffered, "DeviceClassName"),
			pass(whySame, "Selectors", "AllocationMode", "Count", "Tolerations", "Capacity"),
			refused("reaches devices that others use", "AdminAccess")),
		rulesOf[resourcev1.DeviceSubRequest](
			mapped(whyOffered, "DeviceClassName"),
			pass(whySame, "Name", "Selectors", "AllocationMode", "Count", "Tolerations", "Capacity")),

		rulesOf[corev1.PersistentVolumeSpec](
			pass(whySame, "Capacity", "AccessModes", "VolumeMode", "StorageClassName", "NodeAffinity"),
			pass("until the tenant changes it: then the volume of the super cluster follows, but never to Delete where the class says Retain", "PersistentVolumeReclaimPolicy"),
			mapped("the tenant's claim; of a volume that was retained, who claims it next is up to the tenant", "ClaimRef"),
			mapped("a CSI volume without what leads to the storage", "PersistentVolumeSource"),
			mapped("when the claim asks for one", "VolumeAttributesClassName"),
			drop(whyOperator, "MountOptions")),
		rulesOf[storagev1.StorageClass](
			meta(),
			pass(whySame, "Provisioner", "ReclaimPolicy", "AllowVolumeExpansion", "VolumeBindingMode", "AllowedTopologies"),
			mapped("without those that name Secrets", "Parameters"),
			drop(whyOperator, "MountOptions")),
		rulesOf[storagev1.VolumeAttributesClass](
			meta(),
			pass(whySame, "DriverName"),
			mapped("without those that name Secrets", "Parameters")),
		rulesOf[networkingv1.IngressClassSpec](
			pass(whySame, "Controller"),
			drop(whyOperator, "Parameters")),
		rulesOf[schedulingv1.PriorityClass](
			meta(),
			pass(whySame, "Value", "Description", "PreemptionPolicy"),
			drop("what pods get that name none is the tenant's choice", "GlobalDefault")),
		rulesOf[resourcev1.DeviceClassSpec](
			pass(whySame, "Selectors", "ExtendedResourceName"),
			drop(whyOperator, "Config")),
		rulesOf[nodev1.RuntimeClass](meta(), pass(whySame, "Handler", "Overhead", "Scheduling")),
	}
}

// About says, for users, what happens to the objects of each kind, by its name.
func About() map[string]string {
	return map[string]string{
		"configmaps":              "While a pod or an Ingress refers to them. The replica of `x` is called `x.tenancy.x-k8s.io`, so that no reference reaches an object of the operator.",
		"deviceclasses":           "Those of the super cluster, except those labelled `tenancy.x-k8s.io/super.public: \"false\"`, without their configuration. Classes that tenants make stay in the tenant.",
		"endpointslices":          "All of Services that are in the super cluster, but those that the tenant's controller computes from the selector of a Service; these the super cluster computes from its own pods. Endpoints with host names or the addresses of nodes, loopback, link-local and multicast addresses are left out, with an event.",
		"events":                  "Those about pods, Services, PersistentVolumeClaims and Ingresses of the tenant. Events of tenants stay in the tenant.",
		"ingressclasses":          "Those of the super cluster, except those labelled `tenancy.x-k8s.io/super.public: \"false\"`, without their parameters. Classes that tenants make stay in the tenant.",
		"ingresses":               "Those of a class that is offered; the address comes up. All others are for a controller in the tenant. Secrets that they name go with them. A backend must be a Service of the tenant that is not of type `ExternalName`, or a ConfigMap or Secret: a Service that is not leads nowhere, with the event `BackendNotFound`, and other resources are refused with the reason `BackendNotAllowed`. Of the annotations only instructions to the ingress controller that concern nothing but the Ingress itself go down, see [tenants](tenants.md#ingresses); the other instructions are refused with the reason `AnnotationNotAllowed`, and annotations that are none stay in the tenant.",
		"namespaces":              "One super namespace for each tenant namespace. Labels and annotations stay in the tenant.",
		"networkpolicies":         "The spec goes down. A `namespaceSelector` becomes the names of the super namespaces that it selects among the tenant's namespaces, and follows their labels; `{}` means all of the tenant. `podSelector` selects the same pods; `ipBlock` and ports pass.",
		"nodes":                   "One virtual node for each node of the super cluster that the tenant may use or has a pod on, without the IDs of the machine and the list of its images.",
		"otherpods":               "Pods of the super cluster that no tenant made. They are only counted: what they request of a node is taken off its allocatable resources in tenants with a scheduler of their own.",
		"persistentvolumeclaims":  "The spec goes down; what the claim holds, its class of volume attributes, and how far a change of them is come up. A class that is not offered is refused with the reason `VolumeAttributesClassNotOffered`. `selector` is refused, and so is `volumeName`, unless it names a volume that an earlier claim of the tenant left with the reclaim policy Retain. Only a claim of the same namespace, or a snapshot where they are offered, can be its data source. The volume stays until the tenant's claim is gone, its finalizers included.",
		"persistentvolumes":       "A replica of each volume that a claim of the tenant has in the super cluster, without what leads to the storage behind it. The tenant may change the reclaim policy. Volumes that tenants make by hand are refused with events.",
		"poddisruptionbudgets":    "The replica asks for the number of healthy pods that the tenant's controller computed, so that draining a node honours it. Its status stays in the super cluster.",
		"pods":                    "The spec goes down; binding, status and the end come up. A pod waits for the replicas of its ServiceAccount, Secrets, ConfigMaps and claims; when that lasts, the event `Waiting` names what it waits for, and `FailedScheduling` names a claim that does not exist. Field by field below.",
		"priorityclasses":         "Those of the super cluster that are labelled `tenancy.x-k8s.io/super.public: \"true\"`, and never `system-*`. None is the default. Classes that tenants make stay in the tenant, and have no effect on pods.",
		"resourceclaims":          "While a pod refers to them. Devices are allocated by the scheduler of the super cluster; what is allocated comes up without the operator's configuration of the class, and so do the reservations, with the tenant's pods. Requests of a class that is not offered are refused with the reason `DeviceClassNotOffered`, `adminAccess` with `AdminAccessNotAllowed`. ResourceClaimTemplates stay in the tenant, whose control plane makes claims of them.",
		"rolebindings":            "One in each super namespace gives vn-agent its rights there. RoleBindings of tenants stay in the tenant.",
		"runtimeclasses":          "Those of the super cluster, except those labelled `tenancy.x-k8s.io/super.public: \"false\"`, with overhead and scheduling. A class that a tenant makes stands for an offered one with the same handler.",
		"secrets":                 "While a pod or an Ingress refers to them. The replica of `x` is called `x.tenancy.x-k8s.io`, so that no reference reaches an object of the operator. Service account token Secrets become opaque ones.",
		"serviceaccounts":         "While a pod runs as them: the name, without rights and without tokens of the super cluster.",
		"services":                "The spec goes down; the status of the load balancer comes up. Cluster IPs, of both families where the tenant has both, and node ports are the same on both sides; a node port that is taken is replaced, and so is a cluster IP that is taken or from a ServiceCIDR of the tenant's own. `externalIPs` are refused. A LoadBalancer with a `loadBalancerClass` is left to a controller of the tenant's own: it has its cluster IP and node ports in the super cluster, no load balancer, and its status stays. A LoadBalancer with an annotation for load balancers that is not allowed has no load balancer either, with the event `AnnotationNotAllowed`. A Service of type `ExternalName` stays in the tenant. `loadBalancerIP` and `healthCheckNodePort` do not go down.",
		"storageclasses":          "Those of the super cluster, all of them, without parameters that name secrets. Classes that tenants make stay in the tenant.",
		"tokens":                  "Secrets with the service account tokens that a pod mounts, requested from the tenant's API server. They are made when the pod has a node, which they name, and go with it.",
		"volumeattributesclasses": "Those of the super cluster, except those labelled `tenancy.x-k8s.io/super.public: \"false\"`, without parameters that name secrets. Classes that tenants make stay in the tenant, and claims cannot name them.",
	}
}
