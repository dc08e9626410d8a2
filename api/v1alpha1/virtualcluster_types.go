package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// VirtualCluster asks for a Kubernetes control plane for one tenant. The smallest useful one has an empty spec.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=vc,categories=tenancy
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Version",type=string,JSONPath=`.status.version`
// +kubebuilder:printcolumn:name="Endpoint",type=string,JSONPath=`.status.endpoint`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Namespace",type=string,priority=1,JSONPath=`.status.clusterNamespace`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.message`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 63",message="the name of a VirtualCluster can have at most 63 characters, because it becomes part of namespace names"
type VirtualCluster struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +kubebuilder:default={}
	// +optional
	Spec VirtualClusterSpec `json:"spec,omitzero"`
	// +optional
	Status VirtualClusterStatus `json:"status,omitzero"`
}

// VirtualClusterSpec says what the tenant's control plane should be. Every field is optional.
//
// +kubebuilder:validation:XValidation:rule="!has(self.controlPlane) || self.controlPlane.type != 'External' || has(self.controlPlane.external)",message="controlPlane.type External needs controlPlane.external.kubeconfigSecret: the Secret that holds the kubeconfig of the existing control plane"
// +kubebuilder:validation:XValidation:rule=`!has(self.controlPlane) || self.controlPlane.type != 'External' || (has(self.serviceCidr) && self.serviceCidr != "")`,message="controlPlane.type External needs serviceCidr: the --service-cluster-ip-range of the existing control plane, so that its cluster IPs work in the super cluster too"
// +kubebuilder:validation:XValidation:rule="!has(self.controlPlane) || self.controlPlane.type == 'External' || !has(self.controlPlane.external)",message="controlPlane.external is only read when controlPlane.type is External; remove it or set the type"
// +kubebuilder:validation:XValidation:rule=`(has(self.serviceCidr) ? self.serviceCidr : "") == (has(oldSelf.serviceCidr) ? oldSelf.serviceCidr : "")`,message="serviceCidr cannot be changed after creation: cluster IPs have been handed out of it; create a new VirtualCluster"
// +kubebuilder:validation:XValidation:rule="(has(self.additionalServiceCidrs) ? self.additionalServiceCidrs : 0) >= (has(oldSelf.additionalServiceCidrs) ? oldSelf.additionalServiceCidrs : 0)",message="additionalServiceCidrs cannot be decreased: cluster IPs have been handed out of the ranges"
// +kubebuilder:validation:XValidation:rule="(has(self.serviceCidrSize) ? self.serviceCidrSize : 0) == (has(oldSelf.serviceCidrSize) ? oldSelf.serviceCidrSize : 0)",message="serviceCidrSize cannot be changed after creation: cluster IPs have been handed out of the range; create a new VirtualCluster"
// +kubebuilder:validation:XValidation:rule=`!has(self.serviceCidrSize) || self.serviceCidrSize == 0 || !has(self.serviceCidr) || self.serviceCidr == ""`,message="serviceCidrSize is only read when serviceCidr is empty; remove one of them"
// +kubebuilder:validation:XValidation:rule="(has(self.clusterDomain) ? self.clusterDomain : 'cluster.local') == (has(oldSelf.clusterDomain) ? oldSelf.clusterDomain : 'cluster.local')",message="clusterDomain cannot be changed after creation: certificates and running pods carry it"
type VirtualClusterSpec struct {
	// ClusterDomain is the DNS domain of the tenant's cluster.
	// +kubebuilder:default=cluster.local
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`
	// +optional
	ClusterDomain string `json:"clusterDomain,omitempty"`

	// ClusterVersionName names the ClusterVersion to run. When empty, the ClusterVersion annotated with
	// tenancy.x-k8s.io/is-default-version=true is used. Not used by an External control plane.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	ClusterVersionName string `json:"clusterVersionName,omitempty"`

	// ServiceCIDR is the range the tenant's cluster IPs come from, in CIDR notation, for instance 10.112.4.0/22, or one of
	// IPv4 and one of IPv6, separated by a comma, for dual stack. Services get addresses of the first unless they ask for
	// others. When empty, a range is allocated from the pool that the admin gave to vc-manager: by default, the range of the
	// super cluster. Required for an External control plane.
	// +kubebuilder:validation:XValidation:rule=`self == "" || self.split(",").all(range, isCIDR(range))`,message="serviceCidr must be a range in CIDR notation, for instance 10.112.4.0/22, or two separated by a comma"
	// +kubebuilder:validation:MaxLength=62
	// +optional
	ServiceCIDR string `json:"serviceCidr,omitempty"`

	// ServiceCIDRSize is the prefix length of the (first) range when it is allocated from the pool, for instance 24 for a
	// range with 254 addresses. When 0, it is that of the pool. It cannot be changed after creation.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=124
	// +optional
	ServiceCIDRSize int32 `json:"serviceCidrSize,omitempty"`

	// AdditionalServiceCIDRs is how many ranges the tenant has besides the first, when that is too small. They are allocated
	// from the pool, with the same size, and the tenant has a ServiceCIDR object for each. The number can be increased at any
	// time, but not decreased. The ranges must be parts of a range of the super cluster, and the tenant must run Kubernetes
	// 1.33 or later.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=16
	// +optional
	AdditionalServiceCIDRs int32 `json:"additionalServiceCidrs,omitempty"`

	// PKIExpireDays is the lifetime of leaf certificates in days. They are renewed after two thirds of it.
	// +kubebuilder:default=365
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=3650
	// +optional
	PKIExpireDays int64 `json:"pkiExpireDays,omitempty"`

	// TransparentMetaPrefixes lists prefixes of label and annotation keys that are copied from super objects to the
	// tenant's.
	// +kubebuilder:validation:MaxItems=64
	// +listType=set
	// +optional
	TransparentMetaPrefixes []string `json:"transparentMetaPrefixes,omitempty"`

	// OpaqueMetaPrefixes lists prefixes of label and annotation keys that are never copied from tenant objects and are
	// left alone on super objects. Such labels of pods, and selectors over pods that name them, have a replacement in the
	// super cluster that does not show them, so that selectors keep their meaning.
	// +kubebuilder:validation:MaxItems=64
	// +listType=set
	// +optional
	OpaqueMetaPrefixes []string `json:"opaqueMetaPrefixes,omitempty"`

	// Sync says what is synchronised.
	// +optional
	Sync SyncSpec `json:"sync,omitzero"`

	// Budget bounds what the tenant may cost others.
	// +optional
	Budget BudgetSpec `json:"budget,omitzero"`

	// Scheduler says who assigns the tenant's pods to nodes.
	// +optional
	Scheduler SchedulerSpec `json:"scheduler,omitzero"`

	// Nodes says which nodes of the super cluster the tenant sees and uses.
	// +optional
	Nodes NodesSpec `json:"nodes,omitzero"`

	// ControlPlane says where the control plane runs and how it is reached.
	// +kubebuilder:default={}
	// +optional
	ControlPlane ControlPlaneSpec `json:"controlPlane,omitzero"`

	// CoreDNS configures the cluster DNS that is installed into the tenant's kube-system namespace.
	// +optional
	CoreDNS CoreDNSSpec `json:"coreDNS,omitzero"`
}

// SyncSpec says what is synchronised between the tenant and the super cluster.
type SyncSpec struct {
	// Disabled lists kinds that are not synchronised. When one is added, the replicas that exist are removed. Kinds that
	// pods cannot do without, and those that hold data, cannot be switched off.
	// +kubebuilder:validation:MaxItems=32
	// +listType=set
	// +optional
	Disabled []OptionalKind `json:"disabled,omitempty"`
}

// SchedulerSpec says who assigns the tenant's pods to nodes.
type SchedulerSpec struct {
	// Enabled gives the tenant a scheduler of its own. Its pods then go to the super cluster once that scheduler has chosen
	// a virtual node, and run there or nowhere. A Dedicated control plane gets a kube-scheduler; with an External one its
	// operator runs it. Without it, the scheduler of the super cluster chooses.
	// +optional
	Enabled bool `json:"enabled,omitempty"`
}

// NodesMode says when a virtual node exists.
// +kubebuilder:validation:Enum=All;Used
type NodesMode string

const (
	// NodesAll shows every node that the tenant may use.
	NodesAll NodesMode = "All"
	// NodesUsed shows a node from the first pod of the tenant on it to the last.
	NodesUsed NodesMode = "Used"
)

// NodesSpec says which nodes of the super cluster the tenant sees and uses.
type NodesSpec struct {
	// Mode All shows every node that the tenant may use; Used, for large fleets, only those that run a pod of it.
	// +kubebuilder:default=All
	// +optional
	Mode NodesMode `json:"mode,omitempty"`
	// Selector of the labels of real nodes. The tenant sees only those that match, and its pods run only there. When
	// empty, all.
	// +optional
	Selector *metav1.LabelSelector `json:"selector,omitempty"`
	// HiddenTaints lists the keys of taints of real nodes that the tenant does not see. A key that ends in / stands for all
	// that begin with it. Whoever hides a taint sees to it that the tenant's pods tolerate it.
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=317
	// +listType=set
	// +optional
	HiddenTaints []string `json:"hiddenTaints,omitempty"`
	// HiddenLabels lists the keys of labels of real nodes that the tenant does not see. A key that ends in / stands for all
	// that begin with it.
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=317
	// +listType=set
	// +optional
	HiddenLabels []string `json:"hiddenLabels,omitempty"`
}

// ControlPlaneType is a way to provide a control plane.
// +kubebuilder:validation:Enum=Dedicated;External
type ControlPlaneType string

const (
	// Dedicated runs etcd, kube-apiserver and kube-controller-manager as StatefulSets of the super cluster.
	Dedicated ControlPlaneType = "Dedicated"
	// External uses a control plane that exists already, reached by a kubeconfig.
	External ControlPlaneType = "External"
)

// ControlPlaneSpec says where the control plane runs and how it is reached.
type ControlPlaneSpec struct {
	// Type is Dedicated (three StatefulSets in the super cluster) or External (bring a kubeconfig).
	// +kubebuilder:default=Dedicated
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="controlPlane.type cannot be changed after creation; create a new VirtualCluster"
	// +optional
	Type ControlPlaneType `json:"type,omitempty"`

	// External points to the existing control plane when type is External.
	// +optional
	External *ExternalControlPlane `json:"external,omitempty"`

	// Exposure says how clients outside the super cluster reach a Dedicated control plane.
	// +kubebuilder:default={}
	// +optional
	Exposure ExposureSpec `json:"exposure,omitzero"`

	// Replicas of each component of a Dedicated control plane. With more than one, they are spread over nodes and
	// protected by PodDisruptionBudgets.
	// +kubebuilder:default=1
	// +kubebuilder:validation:Enum=1;3;5
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="controlPlane.replicas cannot be changed after creation, because the members of etcd are fixed then; create a new VirtualCluster"
	// +optional
	Replicas int32 `json:"replicas,omitempty"`
}

// ExternalControlPlane points to an existing control plane.
type ExternalControlPlane struct {
	// KubeconfigSecret names the Secret, in the namespace of the VirtualCluster, whose kubeconfig reaches the control
	// plane with the rights of a cluster-admin.
	KubeconfigSecret SecretKeyReference `json:"kubeconfigSecret"`
}

// SecretKeyReference selects one key of a Secret in the same namespace.
type SecretKeyReference struct {
	// Name of the Secret.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// Key in the Secret's data.
	// +kubebuilder:default=kubeconfig
	// +kubebuilder:validation:MaxLength=253
	// +optional
	Key string `json:"key,omitempty"`
}

// ExposureType is the type of the Service in front of the tenant's kube-apiserver.
// +kubebuilder:validation:Enum=ClusterIP;NodePort;LoadBalancer
type ExposureType string

const (
	// ExposeClusterIP makes the control plane reachable inside the super cluster only.
	ExposeClusterIP ExposureType = "ClusterIP"
	// ExposeNodePort makes it reachable on a port of every node, and by cluster IP.
	ExposeNodePort ExposureType = "NodePort"
	// ExposeLoadBalancer asks the super cluster's load balancer for an address.
	ExposeLoadBalancer ExposureType = "LoadBalancer"
)

// ExposureSpec says how clients outside the super cluster reach the control plane.
type ExposureSpec struct {
	// Type of the Service in front of kube-apiserver.
	// +kubebuilder:default=NodePort
	// +optional
	Type ExposureType `json:"type,omitempty"`
	// Hosts are further DNS names and IP addresses by which clients reach the control plane. They are added to the
	// serving certificate; the first one is used in the kubeconfig.
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=253
	// +listType=set
	// +optional
	Hosts []string `json:"hosts,omitempty"`
	// Annotations of the Service, for instance for a cloud load balancer.
	// +optional
	Annotations map[string]string `json:"annotations,omitempty"`
}

// CoreDNSSpec configures cluster DNS in the tenant.
type CoreDNSSpec struct {
	// Enabled installs stock CoreDNS into the tenant's kube-system namespace. When not set: yes for a Dedicated control
	// plane, no for an External one.
	// +optional
	Enabled *bool `json:"enabled,omitempty"`
}

// VirtualClusterPhase is a one-word summary of the conditions, for people.
type VirtualClusterPhase string

const (
	// PhasePending means that the control plane is being provisioned.
	PhasePending VirtualClusterPhase = "Pending"
	// PhaseRunning means that the control plane is ready.
	PhaseRunning VirtualClusterPhase = "Running"
	// PhaseUpdating means that a ready control plane is being changed.
	PhaseUpdating VirtualClusterPhase = "Updating"
	// PhaseError means that something needs a person; the conditions say what. It is left as soon as the cause is gone.
	PhaseError VirtualClusterPhase = "Error"
	// PhaseDeleting means that the VirtualCluster and everything made for it is being removed.
	PhaseDeleting VirtualClusterPhase = "Deleting"
)

// VirtualClusterStatus is what was observed.
type VirtualClusterStatus struct {
	// ObservedGeneration is the generation of the spec that the rest of the status is about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Phase summarises the conditions in one word.
	// +optional
	Phase VirtualClusterPhase `json:"phase,omitempty"`
	// ClusterNamespace is the root namespace in the super cluster. Its name is also the tenant's ID.
	// +optional
	ClusterNamespace string `json:"clusterNamespace,omitempty"`
	// Message explains the phase in a sentence.
	// +optional
	Message string `json:"message,omitempty"`
	// Reason is the machine-readable cause of the phase.
	// +optional
	Reason string `json:"reason,omitempty"`
	// ClusterVersionName is the ClusterVersion that is run. It stays when another one becomes the default.
	// +optional
	ClusterVersionName string `json:"clusterVersionName,omitempty"`
	// Version is the Kubernetes version that the control plane reports.
	// +optional
	Version string `json:"version,omitempty"`
	// Endpoint is the URL at which clients reach the control plane.
	// +optional
	Endpoint string `json:"endpoint,omitempty"`
	// ServiceCIDR is the range the tenant's cluster IPs come from, or two separated by a comma. Empty when the tenant
	// shares the super cluster's.
	// +optional
	ServiceCIDR string `json:"serviceCidr,omitempty"`
	// AdditionalServiceCIDRs are further ranges of the tenant, each one range or two separated by a comma.
	// +listType=atomic
	// +optional
	AdditionalServiceCIDRs []string `json:"additionalServiceCidrs,omitempty"`
	// ServiceAddresses are cluster IPs that the super cluster chose for well-known Services of a tenant that shares its
	// range. The tenant's Services get them.
	// +optional
	ServiceAddresses *ServiceAddresses `json:"serviceAddresses,omitempty"`
	// ControlPlaneUID is the UID of the tenant's kube-system namespace, recorded at the first contact. A control plane
	// that answers with another one is not this tenant's any more and is not synced.
	// +optional
	ControlPlaneUID string `json:"controlPlaneUID,omitempty"`
	// KubeconfigSecret names the Secret, in the root namespace (Dedicated) or the VirtualCluster's own (External),
	// whose key holds the admin kubeconfig.
	// +optional
	KubeconfigSecret *SecretKeyReference `json:"kubeconfigSecret,omitempty"`
	// ReadyAfterSeconds is the time from creation to the first Ready, in seconds.
	// +optional
	ReadyAfterSeconds *int64 `json:"readyAfterSeconds,omitempty"`
	// Sync is what vc-syncer remembers across its restarts.
	// +optional
	Sync *SyncStatus `json:"sync,omitempty"`
	// Conditions are the state in detail; the types are the Condition constants of this package.
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// ServiceAddresses are cluster IPs of well-known Services.
type ServiceAddresses struct {
	// Kubernetes is the address of the Service kubernetes, by which pods reach the API server.
	// +optional
	Kubernetes string `json:"kubernetes,omitempty"`
	// DNS is the address of the Service kube-dns. It is empty when vc-manager installs no CoreDNS.
	// +optional
	DNS string `json:"dns,omitempty"`
}

// SyncStatus is what vc-syncer remembers of a tenant. It tells a control plane that deleted its objects from one that was
// restored from a backup.
type SyncStatus struct {
	// Revision is the highest resource version of the tenant that was seen, RevisionTime is when.
	// +optional
	Revision int64 `json:"revision,omitempty"`
	// +optional
	RevisionTime *metav1.Time `json:"revisionTime,omitempty"`
	// Mark is the number of the last mark that vc-syncer left in the tenant, in an annotation of namespace kube-system. A
	// control plane that was restored has an older one.
	// +optional
	Mark int64 `json:"mark,omitempty"`
	// NextMark is the number of the mark that vc-syncer is about to leave.
	// +optional
	NextMark int64 `json:"nextMark,omitempty"`
	// Halted says that vc-syncer waits for a person, and why. `kubectl vc release` ends it.
	// +optional
	Halted SyncHalt `json:"halted,omitempty"`
	// HaltedBecause explains it in a sentence.
	// +optional
	HaltedBecause string `json:"haltedBecause,omitempty"`
	// HeldCount is how many deletions wait for a person.
	// +optional
	HeldCount int64 `json:"heldCount,omitempty"`
	// Held are deletions that wait for a person, at most 200 of them: what holds data or other objects comes first.
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=200
	// +optional
	Held []HeldDeletion `json:"held,omitempty"`
}

// SyncHalt is why vc-syncer waits for a person.
// +kubebuilder:validation:Enum=DeletionBrake;Rewound;SuperChanged
type SyncHalt string

// The reasons to wait for a person.
const (
	// HaltDeletionBrake means that objects disappeared from the tenant and nothing tells whether they were deleted. Everything
	// but such deletions goes on.
	HaltDeletionBrake SyncHalt = "DeletionBrake"
	// HaltRewound means that the control plane of the tenant was restored from a backup. Nothing is synchronised.
	HaltRewound SyncHalt = "Rewound"
	// HaltSuperChanged means that the super cluster was restored from a backup, or that the tenant was synchronised with
	// another one. Nothing is synchronised.
	HaltSuperChanged SyncHalt = "SuperChanged"
)

// HeldDeletion is a deletion that waits for a person.
type HeldDeletion struct {
	// Side is where the object would be deleted: super or tenant.
	// +kubebuilder:validation:Enum=super;tenant
	Side string `json:"side"`
	// Resource is the kind of the object, as vc-syncer calls it.
	Resource string `json:"resource"`
	// Namespace and Name are those of the object in the tenant, on both sides.
	// +optional
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	// Cause is why it would be deleted: Orphaned, Replaced, Unwanted or Vanished.
	Cause string `json:"cause"`
}

// Condition types of a VirtualCluster. All but Reconciling and Stalled are good when True (kstatus conventions).
const (
	// ConditionReady summarises: clients can use the control plane. Whether it is synchronised says ConditionSyncing.
	ConditionReady = "Ready"
	// ConditionNamespaceReady says whether the root namespace exists and is ours.
	ConditionNamespaceReady = "NamespaceReady"
	// ConditionVersionResolved says whether the ClusterVersion was found and is valid.
	ConditionVersionResolved = "VersionResolved"
	// ConditionPullSecretsReady says whether the root namespace has the credentials for the images of the control plane. It
	// is there only when there are to be some.
	ConditionPullSecretsReady = "PullSecretsReady"
	// ConditionServiceCIDRAllocated says whether the tenant has a range for its cluster IPs.
	ConditionServiceCIDRAllocated = "ServiceCIDRAllocated"
	// ConditionPKIReady says whether all certificates exist and are fresh.
	ConditionPKIReady = "PKIReady"
	// ConditionEtcdReady, ConditionAPIServerReady and ConditionControllerManagerReady say whether the component's
	// replicas are ready.
	ConditionEtcdReady              = "EtcdReady"
	ConditionAPIServerReady         = "APIServerReady"
	ConditionControllerManagerReady = "ControllerManagerReady"
	// ConditionSchedulerReady says whether the replicas of the tenant's own scheduler are ready. It is there only when the
	// tenant has one.
	ConditionSchedulerReady = "SchedulerReady"
	// ConditionKubeconfigReady says whether the admin kubeconfig Secret exists and works.
	ConditionKubeconfigReady = "KubeconfigReady"
	// ConditionIdentityVerified says whether the control plane is the one that was pinned at the first contact.
	ConditionIdentityVerified = "IdentityVerified"
	// ConditionCoreDNSInstalled says whether cluster DNS was installed into the tenant.
	ConditionCoreDNSInstalled = "CoreDNSInstalled"
	// ConditionSyncing is written by the syncer: it is connected and all its caches of this tenant are in sync.
	ConditionSyncing = "Syncing"
	// ConditionWithinBudget is written by the syncer: nothing of the tenant waits or is left out because of spec.budget.
	ConditionWithinBudget = "WithinBudget"
	// ConditionReconciling is True while something is being changed.
	ConditionReconciling = "Reconciling"
	// ConditionStalled is True when nothing will happen until a person acts.
	ConditionStalled = "Stalled"
)

// VirtualClusterList is a list of VirtualClusters.
//
// +kubebuilder:object:root=true
type VirtualClusterList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []VirtualCluster `json:"items"`
}
