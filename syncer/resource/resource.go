// Package resource is the vocabulary of the syncer: what one synced kind is, what one decision looks like, and the one
// function, Decide, that turns two states of an object into the operations that reconcile them. It is pure: no client,
// no context, no logger, no clock, so everything in it is tested with tables. Package syncer/resources describes the
// kinds with it; package syncer/engine feeds it from caches and carries out what it returns.
package resource

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	psa "k8s.io/pod-security-admission/api"

	"github.com/virtualcluster-io/virtualcluster/internal/iprange"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// Side is one of the two clusters an object lives in.
type Side uint8

// The two sides.
const (
	Tenant Side = iota
	Super
)

// String returns the word used in logs and metrics.
func (s Side) String() string {
	if s == Super {
		return "super"
	}
	return "tenant"
}

// Object is any API object.
type Object interface {
	metav1.Object
	runtime.Object
}

// Key identifies one logical object of one kind, by where the tenant sees it. It is comparable: it is the queue item.
type Key struct {
	Tenant    names.TenantID
	Namespace string
	Name      string
}

// String returns tenant/namespace/name.
func (k Key) String() string {
	return string(k.Tenant) + "/" + k.Namespace + "/" + k.Name
}

// Ref names an object of some kind, by where the tenant sees it. Without a name it means all objects of a kind that lies
// in no namespace.
type Ref struct {
	Kind      string
	Namespace string
	Name      string
}

// Facts are what a translation may know about the tenant.
type Facts struct {
	// ID of the tenant; also the name of its root namespace.
	ID names.TenantID
	// VirtualCluster is the object in the super cluster, UID its UID.
	VirtualCluster types.NamespacedName
	UID            types.UID
	// ClusterDomain is the DNS domain of the tenant's cluster, never empty.
	ClusterDomain string
	// ServiceRanges are the tenant's own ranges of cluster IPs, first that of its primary IP family; none when it shares the super
	// cluster's.
	ServiceRanges iprange.Ranges
	// PodSecurity is the Pod Security level of the tenant's pods.
	PodSecurity psa.Level
	// Transparent and Opaque are prefixes of metadata keys, see VirtualClusterSpec.
	Transparent, Opaque []string
	// Metadata is what the operator adds to BuiltInMetadata.
	Metadata []Metadata
	// Scheduler says that a scheduler of the tenant's own assigns its pods to nodes.
	Scheduler bool
	// Nodes are the nodes that the tenant sees.
	Nodes NodeFacts
	// Disabled are the names of the kinds that are switched off for the tenant.
	Disabled []string
}

// NodeFacts say which nodes of the super cluster a tenant sees, and what of them.
type NodeFacts struct {
	// Used limits them to those that run a pod of the tenant.
	Used bool
	// Selector are requirements that the labels of a node must meet; none for all nodes.
	Selector []corev1.NodeSelectorRequirement
	// HiddenTaints and HiddenLabels are keys that are not shown. One that ends in / stands for all that begin with it.
	HiddenTaints, HiddenLabels []string
}

// View is everything a decision may depend on besides the two objects themselves: facts, and lookups in caches. What
// it returns is read-only.
type View struct {
	Tenant Facts
	// Kind and Key are what is being decided.
	Kind string
	Key  Key
	// Withdrawn says that the kind is not offered to the tenant any more: its replicas go.
	Withdrawn bool
	// Now is the time of the decision. Again asks for another one at a later time; it may be nil.
	Now   time.Time
	Again func(at time.Time)
	// Get returns an object from the caches, nil when absent. Namespace and name are the tenant's on both sides.
	Get func(side Side, ref Ref) Object
	// Whole returns an object of the tenant with its content, nil when absent. It fails with Incomplete while the content of
	// that kind is not cached and has not been read yet.
	Whole func(ref Ref) (Object, error)
	// Live says that the pair was read live, and so has the content that caches leave out.
	Live bool
	// Each calls f for every object of a kind whose objects lie in no namespace, or that lies in the tenant.
	Each func(side Side, kind string, f func(Object))
	// Owned calls f for every super object of the kind that another super object owns, whoever made it.
	Owned func(kind string, owner types.UID, f func(Object))
	// EachCustomized calls f for every tenant object of the kind that is odd.
	EachCustomized func(kind string, f func(Object))
	// Referenced says whether any synced object of the tenant refers to the object.
	Referenced func(ref Ref) bool
	// TenantNamespace returns the tenant's name of a super namespace, false if it is not one of the tenant's.
	TenantNamespace func(superNamespace string) (string, bool)
	// HasPodsOn says whether a node of the super cluster has a pod of the tenant.
	HasPodsOn func(node string) bool
	// RequestedByOthers returns what everything that is not the tenant's requests of a node of the super cluster.
	RequestedByOthers func(node string) corev1.ResourceList
	// NodeAddress says whether an IP address belongs to a node of the super cluster.
	NodeAddress func(ip string) bool
}

// LookAgain asks for another decision about the same object at a later time, whatever happens until then.
func (v View) LookAgain(at time.Time) {
	if v.Again != nil {
		v.Again(at)
	}
}

// Enabled says whether a kind is synchronised for the tenant.
func (v View) Enabled(kind string) bool { return !slices.Contains(v.Tenant.Disabled, kind) }

// Pair is the two states of one object; either may be absent (nil). Both are read-only.
type Pair[T Object] struct {
	Tenant, Super T
}

// Verb is what an operation does.
type Verb string

// The verbs.
const (
	// Create posts Object. An object of that name that exists and is not ours is a rejection.
	Create Verb = "Create"
	// Patch sends Patch to Object: a strategic merge patch or, for a custom resource, a JSON merge patch.
	Patch Verb = "Patch"
	// PatchStatus sends Patch to the status subresource of Object.
	PatchStatus Verb = "PatchStatus"
	// PatchResize sends Patch to the resize subresource of a pod.
	PatchResize Verb = "PatchResize"
	// PatchEphemeral sends Patch to the ephemeralcontainers subresource of a pod.
	PatchEphemeral Verb = "PatchEphemeral"
	// Delete deletes Object, if it still has its UID.
	Delete Verb = "Delete"
	// Bind assigns the pod Object to Node.
	Bind Verb = "Bind"
	// Record creates the Event Object, or updates its count when it exists.
	Record Verb = "Record"
	// Mint requests the service account tokens that Tokens describes from the tenant and stores them in Object, a Secret
	// of the super cluster.
	Mint Verb = "Mint"
)

// Op is one intended effect: a value that can be printed, counted, compared and refused.
type Op struct {
	Side   Side
	Verb   Verb
	Object Object
	// Patch is the body of a patch. It carries the UID of Object, so that it can never hit a successor.
	Patch []byte
	// MetadataPatch is the part of Patch that concerns labels and annotations, nil when there is none. It is sent when the whole
	// cannot be sent, or was refused.
	MetadataPatch []byte
	// IfRefused is what the tenant is told when its API server keeps refusing the operation, whose answer is added. Nil means
	// only that its object is delayed.
	IfRefused *Reject
	// Exact, on a Delete, means that it happens to the very version of Object or not at all.
	Exact bool
	// Grace is the grace period of a Delete in seconds, nil for the object's own.
	Grace *int64
	// Absent, on a Delete, means that it happens because an object is absent from the cache of the other side; the executor
	// confirms that with a live read. AbsentRef is that object, nil for the counterpart.
	Absent    bool
	AbsentRef *Ref
	// RestsOn are objects of the tenant as the decision saw them. The executor reads them live, and does nothing when one of
	// them has changed.
	RestsOn []Object
	// Node is the target of a Bind.
	Node string
	// Tokens are the tokens of a Mint.
	Tokens []Token
	// Why is the stable, machine-readable cause: Missing, Drifted, Orphaned, ...
	Why string
}

// Token describes one service account token of a tenant pod.
type Token struct {
	// Key in the Secret.
	Key string
	// ServiceAccount in the tenant, in the namespace of the pod.
	ServiceAccount string
	// Audience, empty for the tenant's API server.
	Audience string
	// ExpirationSeconds that the pod asked for.
	ExpirationSeconds int64
	// PodName and PodUID are the tenant pod the token is bound to.
	PodName string
	PodUID  types.UID
	// Namespace of the tenant pod.
	Namespace string
}

// Causes of operations.
const (
	Missing     = "Missing"
	Drifted     = "Drifted"
	Orphaned    = "Orphaned"
	Replaced    = "Replaced"
	Superseded  = "Superseded"
	Unwanted    = "Unwanted"
	Withdrawn   = "Withdrawn"
	FieldsUp    = "Filled"
	Deleted     = "Deleted"
	Vanished    = "Vanished"
	Status      = "Status"
	Bound       = "Bound"
	Expiring    = "Expiring"
	Readdressed = "Readdressed"
	Relabelled  = "Relabelled"
)

// Resource describes how one kind is synchronised. Zero fields mean the common case: the tenant's spec is the truth
// and is copied down under the same name while the tenant object exists.
type Resource[T Object] struct {
	// Name is the plural resource name: flag, metric label, log value.
	Name string
	// Group and Version of the kind; Cluster is true when it is not namespaced. Plural is its name in URLs, when that
	// cannot be guessed.
	GVK     schema.GroupVersionKind
	Cluster bool
	Plural  string
	// Optional says that not every API server serves the kind. One that does not has no objects of it.
	Optional bool
	// New returns an empty object.
	New func() T
	// Origin is the side whose spec is the truth.
	Origin Side
	// TenantSelector and SuperSelector limit what is watched. An empty SuperSelector is the usual one: objects that the
	// syncer made.
	TenantSelector, SuperSelector Selector
	// SuperOnly is true when the tenant's side is not watched: for what is only recorded there (events), and for super
	// objects that another kind makes (see Route).
	SuperOnly bool
	// Skip says that an origin object is none of our business, as if it did not exist.
	Skip func(T) bool
	// Needed says whether an origin object is to be replicated now; nil means always. When it stops being needed the
	// replica is deleted.
	Needed func(View, T) bool
	// Trim drops what nobody reads from an object before it is cached. Managed fields go anyway.
	Trim func(T)
	// MetadataOnly says that caches hold the metadata of objects without their content, which may be large, or secret. Objects
	// from caches are of type T, with nothing but metadata; a pair has its content when the View is Live. A kind with Down
	// also has Content.
	MetadataOnly bool
	// Content counts the fields of a replica's content, each of which has a field manager. Decide asks for the content when
	// the tenant object has changed since it was copied, or when somebody else manages a field of the copy.
	Content func(T) int
	// Rename maps the tenant's name to the super name; nil means they are equal. The reverse comes from the annotation.
	Rename func(string) string
	// Precious says that objects hold data or other objects, so that more is lost with one than itself.
	Precious bool
	// Keep says that replicas are never deleted, because too much would go with them.
	Keep bool
	// Stays says that a replica is not deleted because its origin is gone, or not needed: the next origin of its name takes it over.
	// Nil means that none stays.
	Stays func(T) bool
	// Generation notes the generation of the origin in an annotation of the replica, so that what is said about the
	// replica's generation can be said about the origin's.
	Generation bool
	// DeleteWithOrigin deletes the replica as soon as the deletion of the origin begins, with the grace period of the
	// origin. All other replicas stay until the origin is gone: an object whose finalizers are not done still exists.
	DeleteWithOrigin bool
	// Hold returns an error, usually a Wait, while a replica must stay although its origin is gone. The tenant objects that
	// a nil error rests on are read live before the replica is deleted. Nil means that nothing holds a replica.
	Hold func(View, T) ([]Object, error)
	// Down returns the replica that should exist, built from nothing: only what is ours, on an allow-list. Names, labels
	// and annotations that prove ownership are stamped by Decide. Nil means that nothing is replicated. A Reject that is
	// returned together with an object concerns a part of the origin: a replica that exists follows the object all the same.
	Down func(View, T) (T, error)
	// Prepare returns what must be carried out before the replica is created; nil means nothing.
	Prepare func(View, T) ([]Op, error)
	// Notes returns annotations of ours, besides the marks of ownership, that a new replica gets. They stay as they are.
	Notes func(View, T) map[string]string
	// Merge sets what we own in an existing replica to what Down returned; labels and annotations follow after it. Nothing
	// is to be done when that changes nothing. Nil means that replicas are never changed.
	Merge func(existing, want T)
	// Up returns what flows back, and everything else that follows from a pair: both objects are there, and one is the replica
	// of the other. Its operations are carried out after those that change the replica.
	Up func(View, Pair[T]) ([]Op, error)
	// Unpaired returns what follows while that is not so: one object or both may be nil, and the super object may be the replica
	// of a predecessor, or not ours. Its operations are carried out after those that make the replica.
	Unpaired func(View, Pair[T]) ([]Op, error)
	// Refused returns what to do, instead of telling the tenant, when the super cluster refused an operation, to create or change
	// the replica, with the given message. Nil, or no operations, tells the tenant: the error, if there is one, or the message.
	Refused func(View, Pair[T], Op, string) ([]Op, error)
	// References lists what the tenant object refers to: those keys are decided again when it changes, they count as
	// referenced while it exists, and it is decided again when one of them comes or goes on either side.
	References func(T) []Ref
	// AffectsAllReferrers says that a change of a tenant object (old is nil when it is new, now when it is gone) makes everything that
	// refers to the kind as a whole, by a Ref without a name, worth deciding again. Nil means never.
	AffectsAllReferrers func(old, now T) bool
	// Customized says that a tenant object has something of the tenant's that others of the kind do not have, see View.EachCustomized.
	Customized func(T) bool
	// UpdatesAffectReferrers says that also an update of an object of this kind makes those that refer to it worth deciding again.
	UpdatesAffectReferrers bool
	// ReferrerUpdatesMatter says that also an update of an object that refers to one of this kind makes that one worth deciding again,
	// not only a change of what it refers to.
	ReferrerUpdatesMatter bool
	// Passing says that a super object is kept until it was decided about, and not longer: nobody asks for it again.
	Passing bool
	// OnDemand says which tenants need the super objects of a kind that is SuperOnly, which are not watched before there is one.
	// Nil means all.
	OnDemand func(Facts) bool
	// Published, on a namespaced kind whose truth is in the super cluster, says which objects every tenant gets.
	Published *Published
	// Home returns the super namespace that an object of a kind whose truth is in the super cluster belongs to, and by that
	// the tenant; it is empty when there is none. Nil means the namespace it lies in, and every tenant for kinds that lie
	// in none.
	Home func(T) string
	// AffectedRefs lists, by the tenant's names, what else is to be decided again when it begins or ceases to be touched by a super
	// object that was made for the tenant.
	AffectedRefs func(T) []Ref
	// NodeRequests returns what a super object takes of which node, no node when it takes nothing. Nil means that none does.
	NodeRequests func(T) (node string, requests corev1.ResourceList)
	// Route finds the kind and name that a super object belongs to when that is not this kind itself: an object made by
	// an Up of that kind. It returns false for the usual.
	Route func(T) (Ref, bool)
}

// Published says that the objects of one namespace of the super cluster are shown in one namespace of tenants.
type Published struct {
	Super, Tenant string
}

// Selector limits a list and watch on the server.
type Selector struct {
	Labels, Fields string
	// All says that nothing is selected away. It tells "everything" from "the usual".
	All bool
}

// SuperName returns the super name of the tenant's name.
func (r *Resource[T]) SuperName(name string) string {
	if r.Rename == nil {
		return name
	}
	return r.Rename(name)
}
