package engine

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/tenants"
)

// compared remembers which versions of a pair were found to have the same content, where metadata does not tell.
type compared struct {
	remembered[witness, versions]
}

// equal remembers that a pair has the same content. Without a replica nothing was compared: the object was not
// needed at that moment, and may be needed later without a change of its own.
func (c *compared) equal(of witness, tenant, super resource.Object) {
	if tenant != nil && super != nil {
		c.put(of, versionsOf(tenant, super))
	}
}

// versions are those of the two objects of a pair.
type versions struct{ tenant, super string }

func versionsOf(tenant, super resource.Object) versions {
	version := func(o resource.Object) string {
		if o == nil {
			return ""
		}
		return string(o.GetUID()) + "/" + o.GetResourceVersion()
	}
	return versions{version(tenant), version(super)}
}

// decide decides about a pair. What the decision depends on and the caches leave out it reads live. It returns the pair that
// the operations were decided from.
func (e *Engine) decide(ctx context.Context, t *tenants.Tenant, w *kindState, v resource.View, key resource.Key, tenant, super resource.Object) (ops []resource.Op, seenTenant, seenSuper resource.Object, err error) {
	read := map[resource.Ref]resource.Object{}
	v.Whole = e.whole(t, read)
	for {
		began := e.now()
		ops, err = w.Decide(v, key, tenant, super)
		e.metrics.decided(w, began)
		e.spent(t, e.now().Sub(began))
		lacks, incomplete := resource.AsIncomplete(err)
		switch {
		case !incomplete:
			if v.Live && err == nil && len(ops) == 0 {
				e.compared.equal(witness{w.Name, key}, tenant, super)
			}
			return ops, tenant, super, err
		case lacks.Ref != (resource.Ref{}):
			if read[lacks.Ref], err = readInTenant(ctx, t, t.Get(lacks.Ref)); err != nil {
				return nil, tenant, super, err
			}
		case e.compared.get(witness{w.Name, key}) == versionsOf(tenant, super):
			return nil, tenant, super, nil
		default:
			v.Live = true
			if tenant, err = readInTenant(ctx, t, tenant); err == nil {
				super, err = readLive(ctx, e.superFor(t), super)
			}
			if err != nil {
				return nil, tenant, super, err
			}
		}
	}
}

// whole returns what View.Whole is, with the objects that were read so far.
func (e *Engine) whole(t *tenants.Tenant, read map[resource.Ref]resource.Object) func(resource.Ref) (resource.Object, error) {
	return func(ref resource.Ref) (resource.Object, error) {
		o := t.Get(ref)
		if w := e.kinds()[ref.Kind]; o == nil || w == nil || !w.MetadataOnly {
			return o, nil
		}
		if whole, ok := read[ref]; ok {
			return whole, nil
		}
		return nil, &resource.Incomplete{Ref: ref}
	}
}

// readInTenant reads an object of the tenant, and asks for a probe of the tenant when nobody answers.
func readInTenant(ctx context.Context, t *tenants.Tenant, cached resource.Object) (resource.Object, error) {
	o, err := readLive(ctx, t.Client, cached)
	if err != nil && !errors.Is(err, errStale) && unreachable(err) {
		t.Suspect()
	}
	return o, err
}

// readLive reads an object of which a cache has the metadata; nil stays nil. It fails with errStale when the object has gone.
func readLive(ctx context.Context, client caller, cached resource.Object) (resource.Object, error) {
	if cached == nil {
		return nil, nil
	}
	out, ok := emptyLike(cached)
	if !ok {
		return cached, fmt.Errorf("reading %T: it cannot be made", cached)
	}
	err := client.Get(ctx, cached.GetNamespace(), cached.GetName(), out)
	if apierrors.IsNotFound(err) || err == nil && out.GetUID() != cached.GetUID() {
		return cached, errStale
	}
	if err != nil {
		return cached, fmt.Errorf("reading %s/%s: %w", cached.GetNamespace(), cached.GetName(), err)
	}
	return out, nil
}
