package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/cluster"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/tenants"
)

// identityAge is how old the last proof of the identity of a control plane may be when something is deleted.
const identityAge = 5 * time.Second

// errStale says that a cache lags behind a server; the event that brings it up to date brings the key back.
var errStale = errors.New("the cache lags behind")

// execute carries out one operation.
func (e *Engine) execute(ctx context.Context, t *tenants.Tenant, w *kindState, key resource.Key, v resource.View, tenant, super resource.Object, op resource.Op) error {
	e.notices.says(witness{w.Name, key}, op)
	if e.pointless(w, key, op) {
		return nil
	}
	if makes(w, op) && e.sent.making(w.Name, key, op.Side, e.now()) {
		return resource.Waiting(awaitAgain, "the cache to show what was made")
	}
	if err := e.afford(ctx, t, w, op); err != nil {
		return err
	}
	began := e.now()
	err := e.once(ctx, t, w, key, op)
	e.metrics.done(w, key, op, began, err)
	if err == nil {
		e.done(ctx, t, w, key, op)
		return nil
	}
	if w.Optional && cluster.NotServed(err) {
		return resource.Blocked(retryUnserved, "NotServed", "the kind %s, which the underlying cluster does not know", w.GVK.Kind)
	}
	if op.Side == resource.Tenant {
		if unreachable(err) {
			t.Suspect()
		}
		return tenantError(w, key, op, err)
	}
	if refusal(err) {
		return e.refused(ctx, t, w, key, v, tenant, super, op, status(err))
	}
	e.suspectSuper(err)
	return fmt.Errorf("%s of %s %s in the super cluster: %w", op.Verb, w.Name, key, err)
}

// refused does what follows when the super cluster refused an operation: what the kind says, or it tells the tenant.
func (e *Engine) refused(
	ctx context.Context, t *tenants.Tenant, w *kindState, key resource.Key, v resource.View, tenant, super resource.Object, op resource.Op, answer string,
) error {
	message := v.ForTenant(answer, key.Namespace, func() []resource.Ref {
		if tenant == nil {
			return nil
		}
		return w.References(tenant)
	})
	ops, told := w.Refused(v, tenant, super, op, message)
	for _, op := range ops {
		if err := e.execute(ctx, t, w, key, v, tenant, super, op); err != nil {
			return err
		}
	}
	if len(ops) > 0 {
		return fmt.Errorf("%w after the super cluster refused %s %s", errStale, w.Name, key)
	}
	if op.MetadataPatch != nil && !bytes.Equal(op.Patch, op.MetadataPatch) {
		op.Patch = op.MetadataPatch
		if err := e.execute(ctx, t, w, key, v, tenant, super, op); err != nil {
			return err
		}
	}
	if told != nil {
		return told
	}
	return resource.Rejected("Refused", "the underlying cluster refused it: %s", message)
}

// retryRefused is when an operation is tried again that the API server of the tenant refused.
const retryRefused = time.Second

// tenantError says what an error of a call to the tenant means. A namespace that ends takes nothing in; what is in it ends, too.
func tenantError(w *kindState, key resource.Key, op resource.Op, err error) error {
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return resource.Waiting(retryEnding, "the end of namespace %q", key.Namespace)
	}
	if op.IfRefused != nil && !unreachable(err) && !apierrors.IsConflict(err) {
		told := &resource.Reject{Reason: op.IfRefused.Reason, Message: op.IfRefused.Message + ": " + status(err)}
		return &resource.Wait{Reason: told.Message, After: retryRefused, Told: told}
	}
	return fmt.Errorf("%s of %s %s in the tenant: %w", op.Verb, w.Name, key, err)
}

// once makes the call, and notes a replica that it makes before the cache can show it.
func (e *Engine) once(ctx context.Context, t *tenants.Tenant, w *kindState, key resource.Key, op resource.Op) error {
	if !makes(w, op) {
		return e.attempt(ctx, t, w, key, op)
	}
	e.sent.made(w.Name, key, op.Side, e.now())
	err := e.attempt(ctx, t, w, key, op)
	if err != nil {
		e.sent.shown(w.Name, key, op.Side) // there is nothing to show
		w.tally.release(t.Facts.ID, op)
	}
	return err
}

// done notes that an operation was carried out.
func (e *Engine) done(ctx context.Context, t *tenants.Tenant, w *kindState, key resource.Key, op resource.Op) {
	if op.Verb == resource.Create {
		t.Touched(w.Precious)
	}
	e.sent.accepted(w.Name, key, op, e.now())
	e.notices.wrote(witness{w.Name, key}, op, e.now())
	log.FromContext(ctx).V(1).Info("Done", "resource", w.Name, "key", key.String(), "side", op.Side.String(), "verb", string(op.Verb), "why", op.Why)
}

// attempt makes the call and absorbs answers that mean the goal is reached.
func (e *Engine) attempt(ctx context.Context, t *tenants.Tenant, w *kindState, key resource.Key, op resource.Op) error {
	client := e.superFor(t)
	if op.Side == resource.Tenant {
		client = t.Client
	}
	if deletes(op) {
		err := e.permit(ctx, t, w, key, op)
		if errors.Is(err, errStale) && op.Side == resource.Tenant {
			return errors.Join(err, e.reclaim(ctx, t, w, key, op.Object))
		}
		if err != nil {
			return err
		}
	}
	for _, o := range op.RestsOn {
		if err := unchanged(ctx, t, o); err != nil {
			return err
		}
	}
	if op.Verb == resource.Mint {
		return e.mint(ctx, t, op)
	}
	err := client.Do(ctx, op)
	switch {
	case err == nil:
		return nil
	case apierrors.IsNotFound(err) && op.Verb != resource.Create && op.Verb != resource.Record:
		return nil // it is gone; its event brings the key back
	case apierrors.IsConflict(err) && op.Verb == resource.Delete:
		return nil // a successor of the same name stands there; its event brings the key back
	case op.Verb == resource.Create && (apierrors.IsAlreadyExists(err) || refusal(err)):
		return e.adopt(ctx, t, client, w, key, op, err)
	default:
		return err
	}
}

// adopt looks at what stands where an object was to be created, after the server refused to: it may be the very object,
// made a moment ago, because what else the server checks (whether an address is free) it checks before the name.
func (e *Engine) adopt(ctx context.Context, t *tenants.Tenant, client caller, w *kindState, key resource.Key, op resource.Op, refused error) error {
	existing, ok := emptyLike(op.Object)
	if !ok {
		return refused
	}
	if err := client.Get(ctx, op.Object.GetNamespace(), op.Object.GetName(), existing); err != nil {
		if apierrors.IsNotFound(err) {
			return refused
		}
		return err
	}
	if op.Side == resource.Super && stripped(existing, op.Object) && reflect.TypeOf(existing) == reflect.TypeOf(w.New()) {
		return e.relabel(ctx, t, existing)
	}
	if op.Side == resource.Super && existing.GetLabels()[names.LabelTenant] != string(key.Tenant) {
		return resource.NameTaken(w.GVK.Kind, key)
	}
	if existing.GetAnnotations()[names.AnnotationUID] == op.Object.GetAnnotations()[names.AnnotationUID] {
		return nil // made by us a moment ago; the cache will show it
	}
	return errStale
}

// permit proves with live reads what a deletion rests on, and asks the gate: that both control planes are the right ones and
// went on from where they were last seen, and that what seems absent is.
func (e *Engine) permit(ctx context.Context, t *tenants.Tenant, w *kindState, key resource.Key, op resource.Op) error {
	if op.Why == resource.Withdrawn {
		return nil // the operator says so, whatever the tenant is
	}
	age := identityAge
	if w.Precious && infers(op) {
		age = 0
	}
	if err := t.Verify(ctx, age); err != nil {
		t.Suspect()
		return resource.Waiting(retryUnproven, "proof of the identity of the control plane: %v", err)
	}
	if op.Side == resource.Tenant {
		if _, err := e.superHistory.look(ctx, age); err != nil {
			return resource.Waiting(retryUnproven, "proof of the identity of the super cluster: %v", err)
		}
	}
	if op.Absent {
		if err := e.confirmAbsence(ctx, t, w, key, op); err != nil {
			return err
		}
	}
	if e.gate.allow(w.Name, key, groundOf(t, w, key, op), e.now()) {
		return nil
	}
	e.options.Moved(t.Facts.ID, t.State(), t.Message())
	return resource.Waiting(retryBraked, "a person to release the deletion brake")
}

// confirmAbsence proves with a live read that what a deletion rests on is absent.
func (e *Engine) confirmAbsence(ctx context.Context, t *tenants.Tenant, w *kindState, key resource.Key, op resource.Op) error {
	ref := resource.Ref{Kind: w.Name, Namespace: key.Namespace, Name: key.Name}
	if op.AbsentRef != nil {
		if ref = *op.AbsentRef; e.kinds()[ref.Kind] == nil {
			return fmt.Errorf("%w: %s is not synchronised", errStale, ref.Kind)
		}
		w = e.kinds()[ref.Kind]
	}
	if op.Side == resource.Tenant {
		namespace, name := superName(w.Kind, t.Facts.ID, ref)
		return absent(e.superFor(t).Get(ctx, namespace, name, w.New()))
	}
	return absent(t.Client.Get(ctx, ref.Namespace, ref.Name, w.New()))
}

// deletes says whether an operation is a deletion.
func deletes(op resource.Op) bool { return op.Verb == resource.Delete }

// unchanged proves with a live read that an object of the tenant is still what a decision saw.
func unchanged(ctx context.Context, t *tenants.Tenant, o resource.Object) error {
	live, ok := emptyLike(o)
	if !ok {
		return fmt.Errorf("reading %T: it cannot be made", o)
	}
	err := t.Client.Get(ctx, o.GetNamespace(), o.GetName(), live)
	if apierrors.IsNotFound(err) || err == nil && (live.GetUID() != o.GetUID() || live.GetResourceVersion() != o.GetResourceVersion()) {
		return errStale
	}
	if err != nil {
		if unreachable(err) {
			t.Suspect()
		}
		return fmt.Errorf("reading %s of the tenant: %s", o.GetName(), status(err)) // the super cluster has refused nothing
	}
	return nil
}

// emptyLike returns an empty object of the kind of another.
func emptyLike(o resource.Object) (resource.Object, bool) {
	empty, ok := reflect.New(reflect.TypeOf(o).Elem()).Interface().(resource.Object)
	if ok {
		empty.GetObjectKind().SetGroupVersionKind(o.GetObjectKind().GroupVersionKind())
	}
	return empty, ok
}

func absent(err error) error {
	if err == nil {
		return errStale
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// accountMissing is in the answer of the ServiceAccount admission plugin to a pod whose account is not there yet: the
// super cluster makes the default account of a namespace a moment after the namespace.
const accountMissing = "error looking up service account"

// refusal says whether the super cluster will give the same answer until the object or a policy changes.
func refusal(err error) bool {
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) || strings.Contains(err.Error(), accountMissing) {
		return false
	}
	return apierrors.IsInvalid(err) || apierrors.IsForbidden(err) || apierrors.IsBadRequest(err) ||
		apierrors.IsRequestEntityTooLargeError(err) || apierrors.IsMethodNotSupported(err)
}

// unreachable says whether a call failed because nobody answered.
func unreachable(err error) bool {
	var s apierrors.APIStatus
	return !errors.As(err, &s) || apierrors.IsUnauthorized(err) || apierrors.IsTimeout(err) || apierrors.IsServiceUnavailable(err)
}

// status returns the message of an API error.
func status(err error) string {
	var s apierrors.APIStatus
	if errors.As(err, &s) {
		return s.Status().Message
	}
	return strings.TrimSpace(err.Error())
}
