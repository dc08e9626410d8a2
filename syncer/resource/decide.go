package resource

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/strategicpatch"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// namespaces is the name of the kind whose replicas the others live in.
const namespaces = "namespaces"

// retryDependency is when a key that waits for a dependency is looked at again although no event arrived.
const retryDependency = 5 * time.Second

// Decide returns the operations that bring the pair closer to what it should be, in order; none when it is as it
// should be. The error is a Wait, a Reject, or a bug in a translation; operations returned beside it are still to be
// carried out.
func (r *Resource[T]) Decide(v View, key Key, p Pair[T]) ([]Op, error) {
	v.Kind, v.Key = r.Name, key
	var ops []Op
	var err error
	if r.Down != nil {
		ops, err = r.replicate(v, key, p)
	}
	follow := r.Unpaired
	if r.paired(v, key, p) {
		follow = r.Up
	}
	if follow == nil || v.Withdrawn || !v.Enabled(r.Name) {
		return ops, err
	}
	up, upErr := follow(v, p)
	if err == nil {
		err = upErr
	}
	return append(ops, up...), err
}

// paired says whether one object of the pair is the replica of the other, and of no predecessor of that.
func (r *Resource[T]) paired(v View, key Key, p Pair[T]) bool {
	origin, replica := p.Tenant, p.Super
	if r.Origin == Super {
		origin, replica = p.Super, p.Tenant
	}
	return present(origin) && present(replica) && r.ours(v, key, replica) && madeFrom(origin, replica)
}

// replicate decides about the replica alone.
func (r *Resource[T]) replicate(v View, key Key, p Pair[T]) ([]Op, error) {
	origin, replica, side := p.Tenant, p.Super, Super
	if r.Origin == Super {
		origin, replica, side = p.Super, p.Tenant, Tenant
	}
	if v.Withdrawn {
		return r.withdraw(v, key, side, replica), nil
	}
	if present(origin) && r.Skip != nil && r.Skip(origin) {
		return nil, nil
	}
	if present(origin) && origin.GetUID() == names.UIDAhead {
		return nil, Rejected("Unsupported", "an object with the UID %s is not replicated; delete it and make it again", names.UIDAhead)
	}
	if present(replica) && !r.ours(v, key, replica) {
		if !present(origin) || !r.needed(v, origin) {
			return nil, nil
		}
		return r.reclaim(v, key, side, origin, replica)
	}
	stays := present(replica) && r.stays(replica)
	switch {
	case !present(origin):
		if !present(replica) || replica.GetDeletionTimestamp() != nil || r.Keep || stays {
			return nil, nil
		}
		return r.remove(v, replica, Op{Side: side, Verb: Delete, Absent: true, Why: Orphaned})
	case origin.GetDeletionTimestamp() != nil && (r.DeleteWithOrigin || !present(replica)):
		if !present(replica) || replica.GetDeletionTimestamp() != nil || r.Keep || stays {
			return nil, nil
		}
		return []Op{{Side: side, Verb: Delete, Object: replica, Grace: origin.GetDeletionGracePeriodSeconds(), Why: Deleted}}, nil
	case present(replica) && replica.GetDeletionTimestamp() != nil:
		return nil, nil // its last event brings us back
	case present(replica) && !madeFrom(origin, replica) && !r.Keep && !stays:
		return r.remove(v, replica, Op{Side: side, Verb: Delete, Why: Replaced})
	case !r.needed(v, origin):
		if !present(replica) || stays {
			return nil, nil
		}
		return []Op{{Side: side, Verb: Delete, Object: replica, Why: Unwanted}}, nil
	}
	if err := r.namespaceReady(v, key, side); err != nil {
		return nil, err
	}
	if r.MetadataOnly && !v.Live {
		return nil, r.complete(v, key, side, origin, replica)
	}
	return r.follow(v, key, side, origin, replica)
}

// follow returns the operations that make the replica, or make it what it should be.
func (r *Resource[T]) follow(v View, key Key, side Side, origin, replica T) ([]Op, error) {
	want, refused := r.Down(v, origin)
	if refused != nil {
		if _, partly := AsReject(refused); !partly || !present(want) || !present(replica) {
			return nil, refused
		}
	}
	r.stamp(v, key, side, origin, want)
	if !present(replica) {
		return r.create(v, side, origin, want)
	}
	ops, err := r.update(side, replica, want)
	if err == nil {
		err = refused
	}
	return ops, err
}

// reclaim gives a replica of the very origin the label of its tenant back, which somebody took away. Anything else is not
// ours.
func (r *Resource[T]) reclaim(v View, key Key, side Side, origin, replica T) ([]Op, error) {
	if side != Super || replica.GetLabels()[names.LabelTenant] != "" || !r.made(key, replica) || !madeFrom(origin, replica) {
		return nil, NameTaken(r.GVK.Kind, key)
	}
	if err := r.namespaceReady(v, key, side); err != nil {
		return nil, err
	}
	return Relabel(v.Tenant.ID, replica)
}

// remove returns the operation that deletes a replica whose origin is gone.
func (r *Resource[T]) remove(v View, replica T, op Op) ([]Op, error) {
	op.Object = replica
	if r.Hold != nil {
		var err error
		if op.RestsOn, err = r.Hold(v, replica); err != nil {
			return nil, err
		}
	}
	return []Op{op}, nil
}

// update returns the operation that makes an existing replica what it should be.
func (r *Resource[T]) update(side Side, replica, want T) ([]Op, error) {
	if r.Merge == nil {
		return nil, nil
	}
	merged, err := copyOf(replica)
	if err != nil {
		return nil, err
	}
	r.Merge(merged, want)
	mergeMeta(merged, want)
	if equality.Semantic.DeepEqual(replica, merged) {
		return nil, nil
	}
	op := Op{Side: side, Verb: Patch, Object: replica, Why: Drifted}
	if op.Patch, err = Diff(replica, merged, Guarded); err != nil || op.Patch == nil {
		return nil, err
	}
	op.MetadataPatch, err = metadataPatch(replica, merged)
	return []Op{op}, err
}

// metadataPatch returns the patch of the labels and annotations alone, nil when they do not change.
func metadataPatch[T Object](from, to T) ([]byte, error) {
	if maps.Equal(from.GetLabels(), to.GetLabels()) && maps.Equal(from.GetAnnotations(), to.GetAnnotations()) {
		return nil, nil
	}
	part, err := copyOf(from)
	if err != nil {
		return nil, err
	}
	part.SetLabels(to.GetLabels())
	part.SetAnnotations(to.GetAnnotations())
	return Diff(from, part, Guarded)
}

func copyOf[T Object](o T) (T, error) {
	c, ok := o.DeepCopyObject().(T)
	if !ok {
		return c, fmt.Errorf("copying %T: it became another type", o)
	}
	return c, nil
}

// needed says whether the origin is to have a replica now.
func (r *Resource[T]) needed(v View, origin T) bool {
	return v.Enabled(r.Name) && (r.Needed == nil || r.Needed(v, origin))
}

// withdraw returns the operations that remove a replica, whatever its origin.
func (r *Resource[T]) withdraw(v View, key Key, side Side, replica T) []Op {
	if !present(replica) || replica.GetDeletionTimestamp() != nil || r.Keep || !r.ours(v, key, replica) {
		return nil
	}
	return []Op{{Side: side, Verb: Delete, Object: replica, Why: Withdrawn}}
}

// create returns the operations that make the replica.
func (r *Resource[T]) create(v View, side Side, origin, want T) ([]Op, error) {
	var ops []Op
	if r.Prepare != nil {
		var err error
		if ops, err = r.Prepare(v, origin); err != nil {
			return nil, err
		}
	}
	if r.Notes != nil {
		annotations := want.GetAnnotations()
		maps.Copy(annotations, r.Notes(v, origin))
		want.SetAnnotations(annotations)
	}
	return append(ops, Op{Side: side, Verb: Create, Object: want, Why: Missing}), nil
}

// namespaceReady waits until the super namespace of the key exists and proves to be the one made for this tenant
// namespace: only then may anything be written into it.
func (r *Resource[T]) namespaceReady(v View, key Key, side Side) error {
	if key.Namespace == "" || side != Super {
		return nil
	}
	ref := Ref{Kind: namespaces, Name: key.Namespace}
	inTenant, inSuper := v.Get(Tenant, ref), v.Get(Super, ref)
	if inTenant == nil || inSuper == nil ||
		inSuper.GetDeletionTimestamp() != nil ||
		inSuper.GetLabels()[names.LabelTenant] != string(v.Tenant.ID) ||
		inSuper.GetAnnotations()[names.AnnotationNamespace] != key.Namespace ||
		!madeFrom(inTenant, inSuper) {
		return Blocked(retryDependency, "Waiting", "namespace %q, which the underlying cluster does not have yet; if that lasts, events of the namespace say why", key.Namespace)
	}
	return nil
}

// madeFrom says whether a replica was made from this very origin. A tenant whose API server calls an object ahead has made none
// of what was made ahead.
func madeFrom(origin, replica Object) bool {
	uid := replica.GetAnnotations()[names.AnnotationUID]
	return uid == string(origin.GetUID()) && uid != names.UIDAhead
}

// ours says whether the replica was made by us for this key, whatever UID its origin had then.
func (r *Resource[T]) ours(v View, key Key, replica T) bool {
	if r.Origin == Super {
		return replica.GetAnnotations()[names.AnnotationUID] != ""
	}
	return replica.GetLabels()[names.LabelTenant] == string(v.Tenant.ID) && r.made(key, replica)
}

// stays says whether a replica stays without its origin, and the next origin takes it over: it was made ahead of its first one,
// or the kind says so. What the super cluster is the truth of lies in the tenant, who could claim either.
func (r *Resource[T]) stays(replica T) bool {
	return r.Origin == Tenant && (replica.GetAnnotations()[names.AnnotationUID] == names.UIDAhead || r.Stays != nil && r.Stays(replica))
}

// made says whether the annotations of an object of the super cluster say that it was made for this key.
func (r *Resource[T]) made(key Key, replica T) bool {
	a := replica.GetAnnotations()
	name, renamed := a[names.AnnotationName]
	if !renamed {
		name = key.Name
	}
	namespace := a[names.AnnotationNamespace]
	if r.Name == namespaces {
		name, namespace = namespace, ""
	}
	return a[names.AnnotationUID] != "" && namespace == key.Namespace && name == key.Name
}

// stamp gives the replica its name and the marks of ownership, last, so that nothing the tenant wrote survives under a
// reserved key.
func (r *Resource[T]) stamp(v View, key Key, side Side, origin, want T) {
	labels := withoutReserved(want.GetLabels())
	annotations := withoutReserved(want.GetAnnotations())
	keys := managedKeys(labels, annotations)
	if side == Super {
		labels[names.LabelTenant] = string(v.Tenant.ID)
		labels[names.LabelManagedBy] = names.Syncer
		if r.Name == namespaces {
			want.SetName(names.SuperNamespace(v.Tenant.ID, key.Name))
			annotations[names.AnnotationNamespace] = key.Name
			annotations[names.AnnotationVirtualCluster] = v.Tenant.VirtualCluster.String()
			annotations[names.AnnotationVirtualClusterUID] = string(v.Tenant.UID)
		} else {
			superName := r.SuperName(key.Name)
			want.SetName(superName)
			want.SetNamespace(names.SuperNamespace(v.Tenant.ID, key.Namespace))
			annotations[names.AnnotationNamespace] = key.Namespace
			if superName != key.Name {
				annotations[names.AnnotationName] = key.Name
			}
		}
	} else {
		want.SetName(key.Name)
		want.SetNamespace(key.Namespace)
	}
	annotations[names.AnnotationUID] = string(origin.GetUID())
	if r.Content != nil {
		annotations[names.AnnotationContent] = contentNote(origin.GetResourceVersion(), r.Content(want))
	}
	if r.Generation {
		annotations[names.AnnotationGeneration] = strconv.FormatInt(origin.GetGeneration(), 10)
	}
	if keys != "" {
		annotations[names.AnnotationKeys] = keys
	}
	want.SetLabels(labels)
	want.SetAnnotations(annotations)
}

// mergeMeta sets the labels and annotations we want and removes those we once set and no longer want, which the keys
// annotation remembers. Those of others stay.
func mergeMeta(merged, want Object) {
	labels, annotations := merged.GetLabels(), merged.GetAnnotations()
	if labels == nil {
		labels = map[string]string{}
	}
	if annotations == nil {
		annotations = map[string]string{}
	}
	for _, k := range strings.Split(annotations[names.AnnotationKeys], ",") {
		if label, ok := strings.CutPrefix(k, "l:"); ok {
			delete(labels, label)
		} else if annotation, ok := strings.CutPrefix(k, "a:"); ok {
			delete(annotations, annotation)
		}
	}
	delete(annotations, names.AnnotationKeys)
	maps.Copy(labels, want.GetLabels())
	maps.Copy(annotations, want.GetAnnotations())
	if len(labels) == 0 {
		labels = nil // an untyped object tells the difference
	}
	merged.SetLabels(labels)
	merged.SetAnnotations(annotations)
}

// managedKeys lists keys in a form that mergeMeta reads.
func managedKeys(labels, annotations map[string]string) string {
	var keys []string
	for k := range labels {
		keys = append(keys, "l:"+k)
	}
	for k := range annotations {
		keys = append(keys, "a:"+k)
	}
	slices.Sort(keys)
	return strings.Join(keys, ",")
}

func withoutReserved(in map[string]string) map[string]string {
	out := make(map[string]string, len(in)+4)
	for k, v := range in {
		if !names.Reserved(k) {
			out[k] = v
		}
	}
	return out
}

// Guard is what a patch insists on.
type Guard uint8

const (
	// Guarded patches apply only to the very version they were computed from.
	Guarded Guard = iota
	// SameObject patches apply to any version of the object, but not to a successor of the same name.
	SameObject
)

// Diff returns the patch that turns one state of an object into another, with the preconditions of the guard, or nil when
// there is no difference: a strategic merge patch or, for a custom resource, a JSON merge patch.
func Diff[T Object](from, to T, guard Guard) ([]byte, error) {
	if _, custom := any(from).(runtime.Unstructured); !custom && equality.Semantic.DeepEqual(from, to) {
		return nil, nil
	}
	body, err := changes(from, to)
	if err != nil {
		return nil, fmt.Errorf("computing the patch of %T: %w", from, err)
	}
	if len(body) == 0 {
		return nil, nil
	}
	meta, _ := body["metadata"].(map[string]any)
	if meta == nil {
		meta = map[string]any{}
		body["metadata"] = meta
	}
	meta["uid"] = string(from.GetUID())
	if guard == Guarded && from.GetResourceVersion() != "" {
		meta["resourceVersion"] = from.GetResourceVersion()
	}
	return json.Marshal(body)
}

// changes returns the body of the patch that turns one state of an object into another.
func changes(from, to any) (map[string]any, error) {
	if u, ok := from.(runtime.Unstructured); ok {
		v, ok := to.(runtime.Unstructured)
		if !ok {
			return nil, fmt.Errorf("it became a %T", to)
		}
		return mergePatch(u.UnstructuredContent(), v.UnstructuredContent()), nil
	}
	before, err := json.Marshal(from)
	if err != nil {
		return nil, err
	}
	after, err := json.Marshal(to)
	if err != nil || bytes.Equal(before, after) {
		return nil, err
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(before, after, from)
	if err != nil {
		return nil, err
	}
	var body map[string]any
	return body, utiljson.Unmarshal(patch, &body) // which keeps large integers
}

// mergePatch returns the JSON merge patch between two states, empty when there is none. The libraries for that compute with
// floating-point numbers, and make patches that change nothing of a null that is to be set, which no merge patch can do.
func mergePatch(from, to map[string]any) map[string]any {
	patch := map[string]any{}
	for key := range from {
		if _, stays := to[key]; !stays {
			patch[key] = nil
		}
	}
	for key, want := range to {
		has, there := from[key]
		before, wasMap := has.(map[string]any)
		after, isMap := want.(map[string]any)
		switch {
		case want == nil && has == nil || there && reflect.DeepEqual(has, want):
		case wasMap && isMap:
			if inner := mergePatch(before, after); len(inner) > 0 {
				patch[key] = inner
			}
		default:
			patch[key] = want
		}
	}
	return patch
}

// NameTaken returns the Reject that tells a tenant that the place of its object is taken.
func NameTaken(kind string, key Key) error {
	return Rejected("NameTaken", "%s %q cannot be used here: an object of that name exists in the underlying cluster and belongs to its operator; choose another name", kind, key.Name)
}

// present says whether an object is there. A nil pointer inside the interface is absent too.
func present[T Object](o T) bool {
	var zero T
	return any(o) != any(zero)
}
