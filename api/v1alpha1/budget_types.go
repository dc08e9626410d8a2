package v1alpha1

import "k8s.io/apimachinery/pkg/api/resource"

// BudgetSpec bounds what a tenant may cost vc-syncer, the super cluster and thereby other tenants. A field that is not set, or zero,
// has the default of vc-syncer, which its flags change.
type BudgetSpec struct {
	// Weight is how many calls to the super cluster the tenant makes in each of its turns while others wait for theirs. A
	// tenant of weight 3 gets three times as many as one of weight 1. When not set, 1.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	// +optional
	Weight int32 `json:"weight,omitempty"`

	// WritesPerSecond is how many writes into the super cluster are made for the tenant, on average. Further ones wait, and
	// nobody else does. A pod costs two to four, from its creation to its end. When not set, 100.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100000
	// +optional
	WritesPerSecond int32 `json:"writesPerSecond,omitempty"`

	// WriteBurst is how many writes may come at once, after a time without. When not set, ten times writesPerSecond.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000
	// +optional
	WriteBurst int32 `json:"writeBurst,omitempty"`

	// DecisionCPU is how much of a processor decisions about objects of the tenant take, on average over ten seconds, in cores:
	// 500m is half a second in each second. Further decisions wait. The time of a decision is measured by the clock. When not
	// set, 1.
	// +optional
	DecisionCPU *resource.Quantity `json:"decisionCPU,omitempty"`

	// CachedBytes bounds what vc-syncer keeps of the tenant's objects, of all kinds together. An object counts with its size in
	// protobuf and 1 KiB. A tenant with more is not synchronised until it has less. When not set, 256Mi.
	// +optional
	CachedBytes *resource.Quantity `json:"cachedBytes,omitempty"`

	// Resources bound single kinds.
	// +kubebuilder:validation:MaxItems=64
	// +listType=map
	// +listMapKey=resource
	// +optional
	Resources []ResourceBudget `json:"resources,omitempty"`
}

// ResourceBudget bounds the objects of one kind.
type ResourceBudget struct {
	// Resource is the plural name of the kind, such as configmaps; for one that a SyncPolicy offers, that of the policy's
	// spec.resource. "*" stands for every kind without an entry, each by itself.
	// +kubebuilder:validation:Pattern=`^(\*|[a-z0-9]([-a-z0-9.]*[a-z0-9])?)$`
	// +kubebuilder:validation:MaxLength=253
	// +required
	Resource string `json:"resource"`

	// ReplicatedObjects is how many objects of the kind the tenant may have in the super cluster. Further ones stay in the
	// tenant, and an event on each says why. Those that are there are updated and deleted as always. When not set, 20000.
	// +kubebuilder:validation:Minimum=1
	// +optional
	ReplicatedObjects int64 `json:"replicatedObjects,omitempty"`

	// CachedObjects is how many objects of the kind vc-syncer keeps, replicated or not. A tenant with more is not synchronised
	// until it has less. When not set, 100000.
	// +kubebuilder:validation:Minimum=1
	// +optional
	CachedObjects int64 `json:"cachedObjects,omitempty"`

	// CachedBytes bounds what vc-syncer keeps of the kind, as spec.budget.cachedBytes does for all kinds together. When not
	// set, only that one counts.
	// +optional
	CachedBytes *resource.Quantity `json:"cachedBytes,omitempty"`
}
