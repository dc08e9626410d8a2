package engine

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/tenants"
)

// enqueue asks for a key of a kind to be decided, because something happened. A tenant that is not connected has no queue:
// everything is queued when it gets in sync.
func (e *Engine) enqueue(w *kindState, key resource.Key) { e.put(w, key, live) }

// put queues a key.
func (e *Engine) put(w *kindState, key resource.Key, p priority) {
	if of := e.pool(key.Tenant); of != nil {
		w.stamps.queued(key, e.now())
		of.queue.add(item{w.Name, key}, p)
	}
}

// enqueueUp does so because the super object of the key changed.
func (e *Engine) enqueueUp(w *kindState, key resource.Key) {
	if t := e.registry.Get(key.Tenant); t != nil && t.State() == tenants.Synced {
		w.stamps.changed(key, resource.Super, e.now())
	}
	e.enqueue(w, key)
}

// enqueueBacklog does so because everything is looked at. What happens meanwhile comes first.
func (e *Engine) enqueueBacklog(w *kindState, key resource.Key) {
	e.put(w, key, backlog)
}

// enqueueAfter does so after a delay, because something happened.
func (e *Engine) enqueueAfter(w *kindState, key resource.Key, delay time.Duration) {
	e.putAfter(w, key, live, delay)
}

// lookAgain queues a key after a delay although nothing happened.
func (e *Engine) lookAgain(w *kindState, key resource.Key, delay time.Duration) {
	e.putAfter(w, key, backlog, delay)
}

// putAfter queues a key after a delay.
func (e *Engine) putAfter(w *kindState, key resource.Key, p priority, delay time.Duration) {
	if of := e.pool(key.Tenant); of != nil {
		of.queue.addAfter(item{w.Name, key}, p, delay)
	}
}

// tried says whether a key is known to fail when what was decided about it is carried out.
func (e *Engine) tried(w *kindState, key resource.Key) bool {
	p := e.pool(key.Tenant)
	return p != nil && p.retries.tried(item{w.Name, key})
}

// Changed implements tenants.Listener.
func (e *Engine) Changed(t *tenants.Tenant, kind string, old, now resource.Object) {
	defer e.survive(kind)
	w := e.kinds()[kind]
	if w == nil {
		return // it is not offered any more
	}
	key := tenantKey(t, now)
	e.sent.shown(kind, key, resource.Tenant)
	e.defined(t, w)
	if t.State() != tenants.Synced {
		return // everything is queued then
	}
	w.stamps.changed(key, resource.Tenant, e.now())
	e.enqueue(w, key)
	e.enqueueReferred(t, w, old, now)
	if old == nil || w.UpdatesAffectReferrers {
		e.enqueueReferrers(t, kind, key)
	}
	if w.AffectsAllReferrers(old, now) {
		e.enqueueReferrers(t, kind, resource.Key{})
	}
}

// Gone implements tenants.Listener.
func (e *Engine) Gone(t *tenants.Tenant, kind string, last resource.Object, seen bool) {
	defer e.survive(kind)
	w := e.kinds()[kind]
	if w == nil {
		return // it is not offered any more
	}
	key := tenantKey(t, last)
	e.sent.shown(kind, key, resource.Tenant)
	e.defined(t, w)
	if seen {
		w.stamps.changed(key, resource.Tenant, e.now())
	}
	if seen && !t.Known() {
		e.gate.witnessed(resource.Tenant, kind, key, e.now())
	}
	e.enqueue(w, key)
	e.enqueueRefs(t, w.References(last))
	e.enqueueReferrers(t, kind, key)
	if w.AffectsAllReferrers(last, nil) {
		e.enqueueReferrers(t, kind, resource.Key{})
	}
}

// Moved implements tenants.Listener.
func (e *Engine) Moved(t *tenants.Tenant, state tenants.State, message string) {
	defer e.survive("")
	e.align(t)
	if t.Braked() {
		e.gate.trip(t.Facts.ID)
	}
	for _, w := range e.kinds() {
		if w.OnDemand != nil && w.OnDemand(t.Facts) {
			w.needed()
		}
	}
	switch {
	case state == tenants.Synced:
		e.enqueueAll(t)
		if !t.Known() { // before much happens that would have to be explained
			e.askLook(t)
		}
	case state.Halted():
		e.askLook(t)
	}
	e.options.Moved(t.Facts.ID, state, message)
}

// superGone notes that the deletion of a super object was seen.
func (e *Engine) superGone(w *kindState, last resource.Object) {
	defer e.survive(w.Name)
	id, ref, ok := e.superRef(w.Kind, last)
	if t := e.registry.Get(id); ok && t != nil && !t.Known() {
		e.gate.witnessed(resource.Super, ref.Kind, resource.Key{Tenant: id, Namespace: ref.Namespace, Name: ref.Name}, e.now())
	}
}

// superChanged queues what a super object belongs to; now is nil when it is gone, old is nil when it is new.
func (e *Engine) superChanged(w *kindState, old, now resource.Object) {
	defer e.survive(w.Name)
	select {
	case <-e.superSynced:
	default:
		return // everything is queued then
	}
	if old != nil && now != nil && old.GetLabels()[names.LabelTenant] != now.GetLabels()[names.LabelTenant] {
		e.superChanged(w, old, nil) // somebody took the label away: for the tenant it is gone
	}
	o := now
	if o == nil {
		o = old
	}
	e.enqueueNodes(w.Kind, old, now)
	if w.Everyone {
		if unchangedObject(old, now) {
			return
		}
		for _, t := range e.registry.All() {
			e.enqueueUp(w, resource.Key{Tenant: t.Facts.ID, Namespace: w.home(), Name: o.GetName()})
		}
		return
	}
	e.enqueueAffected(w.Kind, old, now)
	id, ref, ok := e.superRef(w.Kind, o)
	if !ok {
		if old == nil {
			e.enqueueOwners(o)
		}
		return
	}
	e.sent.shown(ref.Kind, resource.Key{Tenant: id, Namespace: ref.Namespace, Name: ref.Name}, resource.Super)
	if routed := e.kinds()[ref.Kind]; routed != nil {
		e.enqueueUp(routed, resource.Key{Tenant: id, Namespace: ref.Namespace, Name: ref.Name})
	}
	if !cameOrWent(old, now) {
		return
	}
	t := e.registry.Get(id)
	if t == nil {
		return
	}
	key := resource.Key{Tenant: id, Namespace: ref.Namespace, Name: ref.Name}
	e.enqueueReferrers(t, ref.Kind, key)
	if ref.Kind == kindNamespaces && now != nil {
		e.enqueueNamespace(t, ref.Name)
	}
}

// cameOrWent says whether a replica is new, or gone. One that was made ahead, or from a predecessor, is new when its origin takes
// it over: what lies in such a namespace has waited for that.
func cameOrWent(old, now resource.Object) bool {
	return old == nil || now == nil || old.GetAnnotations()[names.AnnotationUID] != now.GetAnnotations()[names.AnnotationUID]
}

// nodeRequestsDelay gathers changes of what is taken of a node, each of which is a write in each tenant with a scheduler.
const nodeRequestsDelay = time.Second

// enqueueNodes queues the virtual nodes of which a super object takes more or less than before, in tenants that have
// schedulers of their own.
func (e *Engine) enqueueNodes(k resource.Kind, old, now resource.Object) {
	before, was := k.NodeRequests(old)
	after, is := k.NodeRequests(now)
	w := e.kinds()[kindNodes]
	if w == nil || before == after && equality.Semantic.DeepEqual(was, is) {
		return
	}
	for _, t := range e.registry.All() {
		for _, node := range []string{before, after} {
			if t.Facts.Scheduler && node != "" {
				e.enqueueAfter(w, resource.Key{Tenant: t.Facts.ID, Name: node}, nodeRequestsDelay)
			}
		}
	}
}

// requestedByOthers returns what everything that is not the tenant's requests of a node.
func (e *Engine) requestedByOthers(id names.TenantID, node string) corev1.ResourceList {
	sum := corev1.ResourceList{}
	for _, w := range e.kinds() {
		w.cache.By(indexHost, node, func(o resource.Object) {
			if o.GetLabels()[names.LabelTenant] == string(id) {
				return
			}
			_, requests := w.NodeRequests(o)
			for name, quantity := range requests {
				total := sum[name]
				total.Add(quantity)
				sum[name] = total
			}
		})
	}
	return sum
}

// enqueueAffected queues what a super object has begun or ceased to touch.
func (e *Engine) enqueueAffected(k resource.Kind, old, now resource.Object) {
	before, after := k.AffectedRefs(old), k.AffectedRefs(now)
	if slices.Equal(before, after) {
		return
	}
	id := ""
	for _, o := range []resource.Object{old, now} {
		if o != nil {
			id = o.GetLabels()[names.LabelTenant]
		}
	}
	for _, ref := range slices.Concat(before, after) {
		if w := e.kinds()[ref.Kind]; w != nil {
			e.enqueue(w, resource.Key{Tenant: names.TenantID(id), Namespace: ref.Namespace, Name: ref.Name})
		}
	}
}

// enqueueOwners queues the replicas for which a controller of the super cluster made an object.
func (e *Engine) enqueueOwners(o resource.Object) {
	for _, owner := range o.GetOwnerReferences() {
		for _, w := range e.kinds() {
			if w.GVK.Kind != owner.Kind || w.GVK.GroupVersion().String() != owner.APIVersion || w.Cluster {
				continue
			}
			if replica := w.cache.Get(o.GetNamespace(), owner.Name); replica != nil && replica.GetUID() == owner.UID {
				e.superChanged(w, replica, replica)
			}
		}
	}
}

// superRef finds the tenant and the tenant's name of what a super object belongs to. It trusts only what we stamped.
func (e *Engine) superRef(k resource.Kind, o resource.Object) (names.TenantID, resource.Ref, bool) {
	annotations := o.GetAnnotations()
	id := names.TenantID(o.GetLabels()[names.LabelTenant])
	namespace, ok := annotations[names.AnnotationNamespace]
	if k.Origin == resource.Super { // not made by us: it belongs to a namespace that was, or outlived one
		if of, in, current := e.tenantNamespace(k.Home(o)); current {
			id, namespace, ok = of, in, true
		}
		if k.Cluster {
			namespace = ""
		}
		return id, resource.Ref{Kind: k.Name, Namespace: namespace, Name: o.GetName()}, ok && id != ""
	}
	if id == "" || !ok {
		return "", resource.Ref{}, false
	}
	if ref, routed := k.Route(o); routed {
		return id, ref, e.kinds()[ref.Kind] != nil
	}
	if k.Name == kindNamespaces {
		return id, resource.Ref{Kind: k.Name, Name: namespace}, true
	}
	name, renamed := annotations[names.AnnotationName]
	if !renamed {
		name = o.GetName()
	}
	return id, resource.Ref{Kind: k.Name, Namespace: namespace, Name: name}, true
}

// tenantNamespace returns the tenant that a super namespace was made for, and the tenant's name of it.
func (e *Engine) tenantNamespace(super string) (names.TenantID, string, bool) {
	ns := e.cache(kindNamespaces).Get("", super)
	if ns == nil {
		return "", "", false
	}
	namespace := ns.GetAnnotations()[names.AnnotationNamespace]
	return names.TenantID(ns.GetLabels()[names.LabelTenant]), namespace, namespace != ""
}

func tenantKey(t *tenants.Tenant, o resource.Object) resource.Key {
	return resource.Key{Tenant: t.Facts.ID, Namespace: o.GetNamespace(), Name: o.GetName()}
}

func (e *Engine) enqueueRefs(t *tenants.Tenant, refs []resource.Ref) {
	for _, ref := range refs {
		if w := e.kinds()[ref.Kind]; w != nil && ref.Name != "" {
			e.enqueue(w, resource.Key{Tenant: t.Facts.ID, Namespace: ref.Namespace, Name: ref.Name})
		}
	}
}

// enqueueReferred queues what an object that appeared or changed refers to, or has ceased to refer to. Where that stays the
// same, only kinds to which it matters are queued.
func (e *Engine) enqueueReferred(t *tenants.Tenant, w *kindState, old, now resource.Object) {
	before, after := w.References(old), w.References(now)
	if old != nil && old.GetUID() == now.GetUID() && slices.Equal(before, after) {
		before = nil
		after = slices.DeleteFunc(after, func(ref resource.Ref) bool {
			of := e.kinds()[ref.Kind]
			return of == nil || !of.ReferrerUpdatesMatter
		})
	}
	e.enqueueRefs(t, before)
	e.enqueueRefs(t, after)
}

func (e *Engine) enqueueReferrers(t *tenants.Tenant, kind string, key resource.Key) {
	t.Referrers(resource.Ref{Kind: kind, Namespace: key.Namespace, Name: key.Name}, func(kind string, o resource.Object) {
		if w := e.kinds()[kind]; w != nil {
			e.enqueue(w, tenantKey(t, o))
		}
	})
}

// enqueueNamespace queues everything in a tenant namespace, once its super namespace exists.
func (e *Engine) enqueueNamespace(t *tenants.Tenant, namespace string) {
	for name, w := range e.kinds() {
		if c := t.Cache(name); c != nil && !w.Cluster {
			c.By(tenants.IndexNamespace, namespace, func(o resource.Object) { e.enqueue(w, tenantKey(t, o)) })
		}
	}
}

// enqueueAll queues every key of the tenant, of both sides.
func (e *Engine) enqueueAll(t *tenants.Tenant) {
	e.eachKey(t, e.enqueueBacklog)
	for _, w := range e.kinds() {
		if w.Origin != resource.Super || w.Cluster {
			continue
		}
		e.eachOwn(t.Facts.ID, w, func(ref resource.Ref) { // what happened while nobody could record it
			e.enqueueBacklog(w, resource.Key{Tenant: t.Facts.ID, Namespace: ref.Namespace, Name: ref.Name})
		})
	}
}

// eachOwn calls f for every super object that belongs to a tenant, of a kind whose truth is in the super cluster. It may do
// so twice.
func (e *Engine) eachOwn(id names.TenantID, w *kindState, f func(resource.Ref)) {
	visit := func(o resource.Object) {
		if of, ref, ok := e.superRef(w.Kind, o); ok && of == id {
			f(ref)
		}
	}
	w.cache.By(indexTenant, string(id), visit) // what outlived its namespace
	e.cache(kindNamespaces).By(indexTenant, string(id), func(ns resource.Object) { w.cache.By(indexHome, ns.GetName(), visit) })
}

// eachKey calls f for every key of the tenant that either cache knows.
func (e *Engine) eachKey(t *tenants.Tenant, f func(*kindState, resource.Key)) {
	for _, w := range e.kinds() {
		e.eachKeyOf(t, w, func(key resource.Key) { f(w, key) })
	}
}

// eachKeyOf does so for one kind.
func (e *Engine) eachKeyOf(t *tenants.Tenant, w *kindState, f func(resource.Key)) {
	seen := map[types.NamespacedName]bool{}
	visit := func(namespace, name string) {
		n := types.NamespacedName{Namespace: namespace, Name: name}
		if !seen[n] {
			seen[n] = true
			f(resource.Key{Tenant: t.Facts.ID, Namespace: namespace, Name: name})
		}
	}
	if c := t.Cache(w.Name); c != nil {
		c.Each(func(o resource.Object) { visit(o.GetNamespace(), o.GetName()) })
	}
	if w.Origin == resource.Super {
		switch {
		case w.Everyone:
			w.cache.Each(func(o resource.Object) { visit(w.home(), o.GetName()) })
		case w.Cluster:
			e.eachOwn(t.Facts.ID, w, func(ref resource.Ref) { visit("", ref.Name) })
		}
		return // what lies in namespaces is recorded, not replicated
	}
	w.cache.By(indexTenant, string(t.Facts.ID), func(o resource.Object) {
		if _, ref, ok := e.superRef(w.Kind, o); ok && ref.Kind == w.Name {
			visit(ref.Namespace, ref.Name)
		}
	})
}

// home is the tenant namespace of what everyone gets.
func (w *kindState) home() string {
	if w.Published != nil {
		return w.Published.Tenant
	}
	return ""
}

// unchangedObject says whether nothing but the version of an object has changed, of what is cached of it.
func unchangedObject(old, now resource.Object) bool {
	if old == nil || now == nil || old.GetUID() != now.GetUID() {
		return false
	}
	same, ok := now.DeepCopyObject().(resource.Object)
	if !ok {
		return false
	}
	same.SetResourceVersion(old.GetResourceVersion())
	return equality.Semantic.DeepEqual(old, same)
}
