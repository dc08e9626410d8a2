package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// SyncPolicy offers a custom resource of the super cluster to tenants: its CustomResourceDefinition appears in their
// control planes, and its objects are synchronised like those of built-in kinds.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,categories=tenancy
// +kubebuilder:printcolumn:name="Resource",type=string,JSONPath=`.spec.resource`
// +kubebuilder:printcolumn:name="Direction",type=string,JSONPath=`.spec.direction`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Tenants",type=integer,JSONPath=`.status.tenants`
// +kubebuilder:printcolumn:name="Serving",type=integer,JSONPath=`.status.serving`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
type SyncPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +required
	Spec SyncPolicySpec `json:"spec"`
	// +optional
	Status SyncPolicyStatus `json:"status,omitzero"`
}

// SyncPolicySpec says which custom resource is offered, to whom, and what of its objects passes.
//
// +kubebuilder:validation:XValidation:rule="self.direction == 'ToTenant' || !has(self.publish)",message="publish is only for direction ToTenant"
// +kubebuilder:validation:XValidation:rule="self.direction == 'ToSuper' || !has(self.references)",message="references are only followed in direction ToSuper"
// +kubebuilder:validation:XValidation:rule="self.direction == 'ToSuper' || !has(self.fields) || (!has(self.fields.refuse) && !has(self.fields.up))",message="fields.refuse and fields.up are only for direction ToSuper"
type SyncPolicySpec struct {
	// Resource names the custom resource as its CustomResourceDefinition is named: plural.group. A resource can be offered
	// by one policy; of several, the oldest counts.
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+$`
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="resource cannot be changed; create another SyncPolicy"
	// +required
	Resource string `json:"resource"`

	// Version is the version that is synchronised. When empty, the one that the super cluster stores.
	// +kubebuilder:validation:MaxLength=63
	// +optional
	Version string `json:"version,omitempty"`

	// Direction says whose objects are the truth: ToSuper, the tenants', whose status comes back; or ToTenant, the super
	// cluster's, which tenants can read.
	// +kubebuilder:default=ToSuper
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="direction cannot be changed; create another SyncPolicy"
	// +optional
	Direction SyncDirection `json:"direction,omitempty"`

	// Tenants selects VirtualClusters by their labels. When empty, all.
	// +optional
	Tenants *metav1.LabelSelector `json:"tenants,omitempty"`

	// Selector selects objects by their labels, on the side whose objects are the truth. When empty, all.
	// +optional
	Selector *metav1.LabelSelector `json:"selector,omitempty"`

	// Publish says which objects of a namespaced resource tenants get in direction ToTenant.
	// +optional
	Publish *Publish `json:"publish,omitempty"`

	// Fields restricts what passes. By default everything but metadata passes down, and the status passes up.
	// +optional
	Fields SyncFields `json:"fields,omitzero"`

	// References lists the fields by which an object refers to others that go down with it.
	// +kubebuilder:validation:MaxItems=64
	// +listType=atomic
	// +optional
	References []SyncReference `json:"references,omitempty"`
}

// SyncDirection says whose objects are the truth.
// +kubebuilder:validation:Enum=ToSuper;ToTenant
type SyncDirection string

// The directions.
const (
	// ToSuper means that tenants' objects go down and their status comes up.
	ToSuper SyncDirection = "ToSuper"
	// ToTenant means that objects of the super cluster are shown to tenants.
	ToTenant SyncDirection = "ToTenant"
)

// Publish names what tenants see of a namespaced resource.
//
// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="publish cannot be changed; create another SyncPolicy"
type Publish struct {
	// Namespace of the super cluster whose objects are shown.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +required
	Namespace string `json:"namespace"`
	// TenantNamespace is where tenants see them; it is made where it does not exist. When empty, a namespace of the same
	// name.
	// +kubebuilder:validation:MaxLength=63
	// +optional
	TenantNamespace string `json:"tenantNamespace,omitempty"`
}

// FieldPath leads to fields of an object: names separated by dots, as in .spec.listeners[*].tls. The suffix [*] stands for
// every element of a list or map; a name with other characters than letters, digits, - and _ is written ['like.this'].
// +kubebuilder:validation:MaxLength=512
// +kubebuilder:validation:Pattern=`^(\.[A-Za-z_$][-A-Za-z0-9_$]*|\['[^']+'\]|\[\*\])+$`
type FieldPath string

// SyncFields restricts what passes between the two sides.
type SyncFields struct {
	// Allow lists the only fields that pass down. When empty, all do but metadata and status.
	// +kubebuilder:validation:MaxItems=128
	// +listType=atomic
	// +optional
	Allow []FieldPath `json:"allow,omitempty"`
	// Drop lists fields that do not pass. Below .status it is about what does not pass up; elsewhere, what the super
	// cluster has there stays as it is.
	// +kubebuilder:validation:MaxItems=128
	// +listType=atomic
	// +optional
	Drop []FieldPath `json:"drop,omitempty"`
	// Refuse lists fields that tenants may not set: an object that does stays where it is, and an event says why.
	// +kubebuilder:validation:MaxItems=128
	// +listType=atomic
	// +optional
	Refuse []FieldPath `json:"refuse,omitempty"`
	// Up lists fields outside .status that the super cluster decides: they do not pass down, and are copied to the
	// tenant's object once the super cluster has set them. A path must not go through a list.
	// +kubebuilder:validation:MaxItems=128
	// +kubebuilder:validation:XValidation:rule="self.all(p, !p.contains('[*]') && !p.startsWith('.metadata') && !p.startsWith('.status'))",message="a path in fields.up cannot go through a list, and cannot be in metadata or status"
	// +listType=atomic
	// +optional
	Up []FieldPath `json:"up,omitempty"`
	// Verbatim lists fields that pass as they are although their name says that they hold the name of a namespace. All
	// other fields called namespace, namespaces, or with a name that ends in Namespace or Namespaces, are taken for names of
	// namespaces, which differ between the two sides.
	// +kubebuilder:validation:MaxItems=128
	// +listType=atomic
	// +optional
	Verbatim []FieldPath `json:"verbatim,omitempty"`
}

// SyncReference is a field that names another object of the same tenant.
type SyncReference struct {
	// Path of the reference: either of a string, the name of an object in the same namespace, or of an object that has the
	// fields name and, possibly, namespace, kind and group.
	// +required
	Path FieldPath `json:"path"`
	// Group of what is referred to; empty for the core group. A reference that says its own group or kind is of these.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	Group string `json:"group,omitempty"`
	// Kind of what is referred to, for instance Secret or ConfigMap, which go down only while something refers to them.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +required
	Kind string `json:"kind"`
}

// SyncPolicyStatus is what was observed.
type SyncPolicyStatus struct {
	// ObservedGeneration is the generation of the spec that the rest of the status is about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Version is the version that is synchronised.
	// +optional
	Version string `json:"version,omitempty"`
	// Tenants is the number of connected VirtualClusters that it is offered to.
	// +optional
	Tenants int32 `json:"tenants"`
	// Serving is the number of those that it is synchronised with.
	// +optional
	Serving int32 `json:"serving"`
	// Conditions are the state in detail: Ready.
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// Reasons of the condition Ready of a SyncPolicy.
const (
	// ReasonServing means that every tenant that it is offered to is synchronised.
	ReasonServing = "Serving"
	// ReasonStarting means that some tenants do not serve it yet.
	ReasonStarting = "Starting"
	// ReasonDefinedByTenant means that some tenants have a CustomResourceDefinition of their own in its place, which is
	// left as it is; their objects are not synchronised.
	ReasonDefinedByTenant = "DefinedByTenant"
	// ReasonCRDNotFound means that the super cluster has no such CustomResourceDefinition, or does not serve it yet.
	ReasonCRDNotFound = "CRDNotFound"
	// ReasonVersionNotServed means that the super cluster does not serve the version.
	ReasonVersionNotServed = "VersionNotServed"
	// ReasonScopeUnsupported means that resources of this scope cannot be synchronised in this direction.
	ReasonScopeUnsupported = "ScopeUnsupported"
	// ReasonResourceNotAllowed means that the resource is none that can be offered.
	ReasonResourceNotAllowed = "ResourceNotAllowed"
	// ReasonForbidden means that the syncer lacks rights; the message says which.
	ReasonForbidden = "Forbidden"
	// ReasonConflict means that an older policy offers the resource.
	ReasonConflict = "Conflict"
	// ReasonInvalid means that the spec cannot be used.
	ReasonInvalid = "Invalid"
	// ReasonEnding means that replicas are being removed because the policy is being deleted.
	ReasonEnding = "Ending"
)

// SyncPolicyList is a list of SyncPolicies.
//
// +kubebuilder:object:root=true
type SyncPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []SyncPolicy `json:"items"`
}
