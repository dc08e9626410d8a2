// Package names is the only place that maps tenant names to super names and knows the labels and annotations that
// VirtualCluster writes. It is pure and shared by vc-manager, vc-syncer, vn-agent and kubectl-vc, so that the mapping
// cannot be implemented twice. It holds no policy and talks to nobody.
package names

import (
	"crypto/sha256"
	"encoding/base32"
	"strings"

	"k8s.io/apimachinery/pkg/types"
)

// Keys of labels and annotations that VirtualCluster owns. Nothing a tenant writes under Prefix is ever copied.
const (
	// Prefix of every key.
	Prefix = "tenancy.x-k8s.io/"

	// LabelTenant, on every super object that was made for a tenant, holds the TenantID.
	LabelTenant = Prefix + "tenant"
	// LabelManagedBy names the component that owns the object: vc-syncer or vc-manager. Server-side selector of the
	// syncer's caches.
	LabelManagedBy = Prefix + "managed-by"
	// LabelPublic, on a class of the super cluster, is "true" when tenants are offered it, "false" when they are not. What no
	// label means depends on the kind. The retired project has the same label.
	LabelPublic = Prefix + "super.public"
	// LabelToken, on a Secret that holds the service account tokens of a tenant's pod, is "true".
	LabelToken = Prefix + "token"
	// LabelAggregateToSyncer, on a ClusterRole with the value "true", gives the syncer the rights in it, which it needs for
	// the custom resources that SyncPolicies offer.
	LabelAggregateToSyncer = "rbac." + Prefix + "aggregate-to-syncer"
	// OpaquePrefix begins the keys of labels that, on the pods of the super cluster, stand for labels of the tenant's whose
	// keys do not go down, see OpaqueKey.
	OpaquePrefix = "opaque." + Prefix
	// LabelComponent, on control plane objects: etcd, kube-apiserver, kube-controller-manager or
	// kube-scheduler.
	LabelComponent = Prefix + "component"
	// LabelRoot, on a root namespace, is "true".
	LabelRoot = Prefix + "root"
	// LabelPodSecurity, on a root namespace, is the Pod Security level of the tenant's pods: privileged, baseline (when it
	// is absent) or restricted. The admin of the super cluster sets it; who may only make VirtualClusters cannot.
	LabelPodSecurity = Prefix + "pod-security"

	// LabelServiceRange, on the Services of the super cluster by which a tenant has a range of cluster IPs, is "true". They keep
	// their addresses, and so they stay as long as the tenant does, whatever becomes of the tenant's Service.
	LabelServiceRange = Prefix + "service-range"

	// AnnotationServiceRange, on a Service with LabelServiceRange, is the range in CIDR notation.
	AnnotationServiceRange = Prefix + "service-range"
	// AnnotationNamespace, on a super object, is the namespace of the tenant object it was made from.
	AnnotationNamespace = Prefix + "namespace"
	// AnnotationName, on a super object whose name differs from the tenant's, is the tenant's name.
	AnnotationName = Prefix + "name"
	// AnnotationUID, on a super object, is the UID of the tenant object it was made from: the proof of ownership.
	AnnotationUID = Prefix + "uid"
	// UIDAhead is the value of AnnotationUID on what vc-manager made before there was a tenant object. The first tenant object
	// of that name becomes its origin.
	UIDAhead = "ahead"
	// AnnotationContent, on a replica whose content is cached by neither side, is the resource version of the tenant object that
	// the content was copied from, a dot, and the number of fields that were copied.
	AnnotationContent = Prefix + "content"
	// AnnotationVirtualCluster, on namespaces of the super cluster, is the namespace/name of the VirtualCluster.
	AnnotationVirtualCluster = Prefix + "virtualcluster"
	// AnnotationVirtualClusterUID, on namespaces of the super cluster, is the UID of the VirtualCluster.
	AnnotationVirtualClusterUID = Prefix + "virtualcluster-uid"
	// AnnotationGeneration, on a replica of a custom resource, is the generation of the object it was made from.
	AnnotationGeneration = Prefix + "generation"
	// AnnotationKeys, on a super object, lists the label and annotation keys that were copied from the tenant object, so
	// that they can be removed again without touching those of others.
	AnnotationKeys = Prefix + "keys"
	// AnnotationDigest, on what vc-manager applies, is a digest of the fields that were applied, so that one that is not
	// applied any more is noticed.
	AnnotationDigest = Prefix + "digest"
	// AnnotationConfigHash, on the pods of a control plane, is a hash over what they do not reload by themselves, so
	// that a change of it rolls them.
	AnnotationConfigHash = Prefix + "config-hash"
	// AnnotationPod, on a token Secret, is the name of the tenant pod that the tokens are for.
	AnnotationPod = Prefix + "pod"
	// AnnotationTokenExpiry, on a token Secret, is the RFC 3339 time of the earliest expiry in it.
	AnnotationTokenExpiry = Prefix + "token-expiry"
	// AnnotationPlacement, on a super pod, is a digest of what the tenant's own changes to its virtual nodes allow the pod.
	AnnotationPlacement = Prefix + "placement"
	// AnnotationReclaimPolicy, on a tenant PersistentVolume, is the reclaim policy that the volume of the super cluster had when
	// the two were last compared, so that the side that changed it since can be told. It has no reserved prefix, because
	// translations return it.
	AnnotationReclaimPolicy = "volume." + Prefix + "reclaim-policy"
	// AnnotationReaddress, on a tenant Service, is the JSON of the spec it gets back once its old cluster IP is released.
	AnnotationReaddress = Prefix + "readdress"
	// AnnotationMark, on the namespace kube-system of a tenant, tells whether the control plane was restored from a backup,
	// see package continuity.
	AnnotationMark = Prefix + "mark"
	// AnnotationReleaseBrake, on a VirtualCluster, lets deletions pass again after a mass disappearance had stopped them.
	// A person sets it, to any value; the syncer removes it.
	AnnotationReleaseBrake = Prefix + "release-brake"
	// AnnotationTokenIssued, on a token Secret, is the RFC 3339 time at which the tokens in it were issued.
	AnnotationTokenIssued = Prefix + "token-issued"
)

// Values of LabelManagedBy; also the names of the field managers.
const (
	Manager = "vc-manager"
	Syncer  = "vc-syncer"
)

// RootCAConfigMap is the ConfigMap that every namespace of every Kubernetes cluster has.
const RootCAConfigMap = "kube-root-ca.crt"

// Marker ends the names, in super namespaces, of the Secrets and ConfigMaps that were made for a tenant. Operators do not
// use it, so a tenant's object that names a Secret or ConfigMap never reaches one of the operator's.
const Marker = ".tenancy.x-k8s.io"

// Names inside a root namespace that more than one component must know.
const (
	// APIServerService is the Service in front of the tenant's kube-apiserver.
	APIServerService = "kube-apiserver"
	// AdminKubeconfigSecret holds, under KubeconfigKey, the kubeconfig for people and tools outside the super cluster,
	// and under InternalKubeconfigKey the one with the in-cluster address, which the syncer uses.
	AdminKubeconfigSecret = "admin-kubeconfig"
	KubeconfigKey         = "kubeconfig"
	InternalKubeconfigKey = "kubeconfig-internal"
)

// Finalizer of a VirtualCluster: vc-manager removes everything made for it in the super cluster first.
const Finalizer = Prefix + "cleanup"

// FinalizerReplicas of a SyncPolicy: vc-syncer removes the replicas that there are because of it first.
const FinalizerReplicas = Prefix + "replicas"

// Names of the control plane's components: of their StatefulSets and values of LabelComponent.
const (
	Etcd              = "etcd"
	APIServer         = "kube-apiserver"
	ControllerManager = "kube-controller-manager"
	Scheduler         = "kube-scheduler"
)

// Names inside the namespace of vc-manager by which vn-agent and the tenants' kube-apiservers trust each other.
const (
	// VNAgentClientCASecret signs one client certificate for each tenant; its key never leaves the namespace.
	VNAgentClientCASecret = "vn-agent-client-ca"
	// VNAgentServingCASecret signs the serving certificates that vn-agents ask for by CertificateSigningRequest.
	VNAgentServingCASecret = "vn-agent-serving-ca"
	// VNAgentTrustConfigMap publishes both CA certificates, under the two keys.
	VNAgentTrustConfigMap = "vn-agent-trust"
	VNAgentClientCAKey    = "client-ca.crt"
	VNAgentServingCAKey   = "serving-ca.crt"
	// VNAgentServiceAccount is the service account that vn-agent runs as.
	VNAgentServiceAccount = "vn-agent"
	// VNAgentStreamsRole is the ClusterRole that lets vn-agent stream from pods; it is bound in each super namespace.
	VNAgentStreamsRole = "vc-vn-agent-streams"
	// VNAgentCommonNamePrefix and the name of the node are the common name of vn-agent's serving certificate.
	VNAgentCommonNamePrefix = "system:vn-agent:"
	// VNAgentServingOrganization is the organization of vn-agents' serving certificates.
	VNAgentServingOrganization = "system:vn-agents"
)

// HostsContainer is the name of the container, and of its volume, that the syncer adds to pods with a subdomain.
const HostsContainer = "tenancy-x-k8s-io-hosts"

// Nonroot is the ID of the user and group that containers of VirtualCluster run as.
const Nonroot = 65532

// Keys of the ConfigMap, in the namespace of vc-manager, by which vn-agent finds the API server that issued a token.
const (
	// VNAgentTenantKey is the TenantID; VNAgentServerKey the URL of its API server, the host being a name that its
	// certificate has; VNAgentAddressKey where it is reached; VNAgentServerCAKey what its certificate is verified with.
	VNAgentTenantKey   = "tenant"
	VNAgentServerKey   = "server"
	VNAgentAddressKey  = "address"
	VNAgentServerCAKey = "ca.crt"
)

// VNAgentTenantConfigMap returns the name of that ConfigMap, given the ID of the key that signs the tenant's service
// account tokens (kid).
func VNAgentTenantConfigMap(keyID string) string { return "vn-agent-tenant-" + Hash("key", keyID) }

// KubeletServingCAConfigMap, in the namespace kube-system of a tenant, holds under KubeletServingCAKey the CA by which the
// tenant's own scrapers verify the kubelets of virtual nodes, which are vn-agents.
const (
	KubeletServingCAConfigMap = "kubelet-serving-ca"
	KubeletServingCAKey       = "ca.crt"
)

// VNAgentPort is the port of every node on which vn-agent serves the kubelet API to tenants' kube-apiservers.
const VNAgentPort = 10550

// TracePort and TracePath are where vc-syncer, by default, answers kubectl vc trace, on a loopback address.
const (
	TracePort = 8082
	TracePath = "/trace"
)

// VNAgentOrganization is the organization (O) of client certificates that vn-agent accepts; the common name is the
// TenantID. They are issued only by the vn-agent client CA, which lives in the namespace of vc-manager.
const VNAgentOrganization = Prefix + "tenant"

// VNAgentSigner is the name of the signer, in CertificateSigningRequests, of vn-agent's serving certificates.
const VNAgentSigner = Prefix + "vn-agent-serving"

// TenantID identifies a tenant in the super cluster: the name of its root namespace.
type TenantID string

// maxName is the longest name of a namespace (an RFC 1123 label).
const maxName = 63

// hashLength is the number of base32 characters of a hash kept in a name: 65 bits.
const hashLength = 13

// Tenant returns the ID, and so the name of the root namespace, of the VirtualCluster with the given namespace, name
// and UID. Two VirtualClusters never share one, not even one that was deleted and created again.
func Tenant(virtualCluster types.NamespacedName, uid types.UID) TenantID {
	readable := virtualCluster.Namespace + "-" + virtualCluster.Name
	return TenantID(hashed(readable, "tenant", virtualCluster.Namespace, virtualCluster.Name, string(uid)))
}

// SuperNamespace returns the name of the super namespace that holds the given namespace of a tenant. The name ends in
// a hash over both, so that it is injective for all practical purposes whatever a tenant calls its namespaces: the
// readable part is only for people. Ownership is still proven by annotations, never by the name.
func SuperNamespace(tenant TenantID, namespace string) string {
	return hashed(readableTenant(tenant)+"-"+namespace, "namespace", string(tenant), namespace)
}

// readableTenant drops the hash from a TenantID.
func readableTenant(tenant TenantID) string {
	s := string(tenant)
	if len(s) > hashLength+1 {
		return s[:len(s)-hashLength-1]
	}
	return s
}

// hashed returns a valid namespace name of at most 63 characters: the readable text, cut, and a hash over the parts.
func hashed(readable string, parts ...string) string {
	const room = maxName - hashLength - 1
	readable = strings.ReplaceAll(readable, ".", "-")
	if len(readable) > room {
		readable = readable[:room]
	}
	return strings.Trim(readable, "-") + "-" + Hash(parts...)
}

// Hash returns 13 characters (65 bits) of a SHA-256 over the parts, in the lower-case base32 alphabet of RFC 4648,
// which is valid anywhere in a Kubernetes name. Parts may contain anything but a NUL byte.
func Hash(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:]))[:hashLength]
}

// Reserved says whether a label or annotation key belongs to VirtualCluster.
func Reserved(key string) bool {
	return strings.HasPrefix(key, Prefix)
}

// OpaqueKey returns the key that stands, on the pods of the super cluster, for the key of a label that does not go down.
// It says nothing about that key, and is another one for every tenant.
func OpaqueKey(tenant TenantID, key string) string {
	return OpaquePrefix + Hash("label", string(tenant), key)
}

// OpaqueValue returns the value that stands for the value of such a label.
func OpaqueValue(tenant TenantID, key, value string) string {
	return Hash("value", string(tenant), key, value)
}

// SuperConfigMap returns the name, in the super namespace, of a tenant's ConfigMap.
func SuperConfigMap(name string) string { return marked(name) }

// SuperSecret returns the name, in the super namespace, of a tenant's Secret.
func SuperSecret(name string) string { return marked(name) }

// maxObjectName is the longest name of an object (an RFC 1123 subdomain).
const maxObjectName = 253

// marked appends the Marker to a name. A name that is too long for that is cut and gets a hash over the whole of it.
func marked(name string) string {
	const room = maxObjectName - len(Marker)
	if name == "" {
		return ""
	}
	if len(name) > room {
		name = strings.TrimRight(name[:room-hashLength-1], "-.") + "-" + Hash("object", name)
	}
	return name + Marker
}

// AbsentService returns a name that no Service has. It stands, in objects of the super cluster, for a Service that the
// tenant names and does not have there.
func AbsentService(name string) string { return AbsentPrefix + Hash("service", name) }

// AbsentPrefix begins the names that AbsentService returns.
const AbsentPrefix = "absent-"
