package engine

import (
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/tenants"
)

// Trace is what is known about one object of a tenant, for people: no content of objects is in it.
type Trace struct {
	// Kind is the name of the kind in the syncer.
	Kind string `json:"kind"`
	// Connection is the state of the connection to the tenant, and what explains it.
	Connection string `json:"connection"`
	// Tenant and Super are the two objects as the caches have them, nil when there is none.
	Tenant *Traced `json:"tenant,omitempty"`
	Super  *Traced `json:"super,omitempty"`
	// Replica says how the one is related to the other.
	Replica string `json:"replica"`
	// Outcome is one of InStep, Changing, Waiting, Refused, Failing and Unknown; Message says why.
	Outcome string `json:"outcome"`
	Message string `json:"message,omitempty"`
	// Next are the operations that a decision would return now.
	Next []string `json:"next,omitempty"`
	// Since is when the object began to wait or to fail.
	Since *metav1.Time `json:"since,omitempty"`
	// Last is what came of the last decision that left the object unlike it should be, and Tries how many did in a row.
	Last  string       `json:"last,omitempty"`
	At    *metav1.Time `json:"at,omitempty"`
	Tries int          `json:"tries,omitempty"`
}

// Traced names one object.
type Traced struct {
	Namespace         string      `json:"namespace,omitempty"`
	Name              string      `json:"name"`
	UID               types.UID   `json:"uid"`
	ResourceVersion   string      `json:"resourceVersion"`
	CreationTimestamp metav1.Time `json:"creationTimestamp"`
	Deleting          bool        `json:"deleting,omitempty"`
}

// Values of the Outcome of a Trace.
const (
	InStep   = "InStep"
	Changing = "Changing"
	Waiting  = "Waiting"
	Refuses  = "Refused"
	Failing  = "Failing"
	Unknown  = "Unknown"
)

// Trace returns what is known about an object, by the tenant's names. The kind is a name of the syncer, such as pods, or that
// of the API, such as Pod. It fails when the tenant is not connected or the kind is not synchronised.
func (e *Engine) Trace(id names.TenantID, kind, namespace, name string) (*Trace, error) {
	t := e.registry.Get(id)
	if t == nil {
		return nil, fmt.Errorf("tenant %s is not connected to this syncer; the condition Syncing of its VirtualCluster may say why", id)
	}
	w, err := e.named(kind)
	if err != nil {
		return nil, err
	}
	key := resource.Key{Tenant: id, Namespace: namespace, Name: name}
	if w.Cluster {
		key.Namespace = ""
	}
	tenant, super := e.pair(t, w.Kind, key)
	out := &Trace{Kind: w.Name, Connection: strings.TrimSuffix(string(t.State())+": "+t.Message(), ": "),
		Tenant: traced(tenant), Super: traced(super), Replica: related(w.Kind, tenant, super)}
	out.decide(e, t, w, key, tenant, super)
	since, last := e.notices.recall(witness{w.Name, key})
	out.Last, out.Tries, out.Since, out.At = last.err, last.tries, timeOf(since), timeOf(last.at)
	if out.Outcome == Changing && last.err != "" { // what is to be done was tried
		out.Outcome, out.Message = last.kind, last.err
	}
	return out, nil
}

// decide adds what a decision would say now.
func (out *Trace) decide(e *Engine, t *tenants.Tenant, w *kindState, key resource.Key, tenant, super resource.Object) {
	switch {
	case !e.ready(t, w):
		out.Outcome, out.Message = Unknown, "the caches are not current: "+out.Connection
		return
	case tenant == nil && super == nil:
		out.Outcome, out.Message = Unknown, "neither cluster has the object"
		return
	}
	v := e.view(t)
	v.Withdrawn = w.withdrawn(key.Tenant)
	ops, err := w.Decide(v, key, tenant, super)
	for _, op := range ops {
		if !e.pointless(w, key, op) {
			out.Next = append(out.Next, fmt.Sprintf("%s in the %s cluster (%s)", op.Verb, op.Side, op.Why))
		}
	}
	_, incomplete := resource.AsIncomplete(err)
	switch {
	case incomplete && e.compared.get(witness{w.Name, key}) == versionsOf(tenant, super):
		out.Outcome = InStep
	case incomplete:
		out.Outcome, out.Message = Changing, "the content of both is to be compared"
	case err != nil:
		out.Outcome, out.Message = kindOf(err), err.Error()
	case len(out.Next) > 0:
		out.Outcome = Changing
	default:
		out.Outcome = InStep
	}
}

// kindOf returns the Outcome that an error stands for.
func kindOf(err error) string {
	if _, waits := resource.AsWait(err); waits {
		return Waiting
	}
	if _, refused := resource.AsReject(err); refused {
		return Refuses
	}
	return Failing
}

// related says whether one of the two objects is the replica of the other.
func related(k resource.Kind, tenant, super resource.Object) string {
	origin, replica := tenant, super
	if k.Origin == resource.Super {
		origin, replica = super, tenant
	}
	switch {
	case replica == nil:
		return "there is none"
	case replica.GetAnnotations()[names.AnnotationUID] == "":
		return "what has its name is not of the syncer"
	case replica.GetAnnotations()[names.AnnotationUID] == names.UIDAhead:
		return "it was made ahead of its origin"
	case origin == nil:
		return "its origin is gone"
	case replica.GetAnnotations()[names.AnnotationUID] != string(origin.GetUID()):
		return "it is of a predecessor with UID " + replica.GetAnnotations()[names.AnnotationUID]
	default:
		return "of this origin"
	}
}

func traced(o resource.Object) *Traced {
	if o == nil {
		return nil
	}
	return &Traced{
		Namespace: o.GetNamespace(), Name: o.GetName(), UID: o.GetUID(), ResourceVersion: o.GetResourceVersion(),
		CreationTimestamp: o.GetCreationTimestamp(), Deleting: o.GetDeletionTimestamp() != nil,
	}
}

func timeOf(t time.Time) *metav1.Time {
	if t.IsZero() {
		return nil
	}
	return &metav1.Time{Time: t}
}

// named finds a kind.
func (e *Engine) named(kind string) (*kindState, error) {
	var known []string
	for name, w := range e.kinds() {
		if w.SuperOnly {
			continue
		}
		if strings.EqualFold(kind, name) || strings.EqualFold(kind, w.GVK.Kind) {
			return w, nil
		}
		known = append(known, name)
	}
	slices.Sort(known)
	return nil, fmt.Errorf("kind %q is not synchronised; these are: %s", kind, strings.Join(known, ", "))
}
