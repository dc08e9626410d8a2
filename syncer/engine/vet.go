package engine

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/tenants"
)

// maxNamed bounds how many unknown fields an event names.
const maxNamed = 5

// vetted remembers which unknown fields objects have, so that each version of an object is read once.
type vetted struct{ remembered[witness, verdict] }

type verdict struct {
	uid     types.UID
	version string
	unknown []string
}

// known returns the unknown fields of this version of the object, false if they have not been looked for.
func (v *vetted) known(w witness, o resource.Object) ([]string, bool) {
	last := v.get(w)
	return last.unknown, last.uid == o.GetUID() && last.version == specVersion(o)
}

func (v *vetted) note(w witness, o resource.Object, unknown []string) {
	v.put(w, verdict{uid: o.GetUID(), version: specVersion(o), unknown: unknown})
}

// specVersion changes when the spec of an object does.
func specVersion(o resource.Object) string {
	if generation := o.GetGeneration(); generation > 0 {
		return strconv.FormatInt(generation, 10)
	}
	return "version " + o.GetResourceVersion()
}

// vet takes out of what was decided about a tenant object whatever makes or changes its replica, but for labels and
// annotations, and says why, when the object has fields that the syncer does not know: left out, they would be lost without
// anybody noticing. Only API servers that are newer than the syncer have such objects.
func (e *Engine) vet(ctx context.Context, t *tenants.Tenant, w *kindState, key resource.Key, tenant, super resource.Object, ops []resource.Op) ([]resource.Op, error) {
	if !t.Newer() || w.Origin != resource.Tenant || w.SuperOnly || w.Name == kindNamespaces || // of a namespace nothing is copied
		tenant == nil || tenant.GetDeletionTimestamp() != nil || w.withdrawn(key.Tenant) ||
		super == nil && !slices.ContainsFunc(ops, shapes) {
		return ops, nil
	}
	if _, custom := tenant.(runtime.Unstructured); custom {
		return ops, nil // it has no type that could lack a field
	}
	who := witness{w.Name, key}
	unknown, known := e.vetted.known(who, tenant)
	if !known {
		var err error
		if unknown, err = t.Client.Unknown(ctx, tenant); err != nil {
			if apierrors.IsNotFound(err) {
				return nil, errStale
			}
			if unreachable(err) {
				t.Suspect()
			}
			return nil, fmt.Errorf("reading %s %s: %w", w.Name, key, err)
		}
		e.vetted.note(who, tenant, unknown)
	}
	if len(unknown) == 0 {
		return ops, nil
	}
	if len(unknown) > maxNamed {
		unknown = append(slices.Clone(unknown[:maxNamed]), "and others")
	}
	return withoutShape(ops), resource.Rejected("Unsupported",
		"the underlying cluster is of an older version and does not know %s; without it this object would not mean the same: remove it", strings.Join(unknown, ", "))
}

// withoutShape takes out what makes or changes a replica, except for its labels and annotations.
func withoutShape(ops []resource.Op) []resource.Op {
	var out []resource.Op
	for _, op := range ops {
		if op.MetadataPatch != nil {
			op.Patch = op.MetadataPatch
			out = append(out, op)
		} else if !shapes(op) {
			out = append(out, op)
		}
	}
	return out
}

// shapes says whether an operation makes or changes a replica.
func shapes(op resource.Op) bool {
	if op.Side != resource.Super {
		return false
	}
	switch op.Verb {
	case resource.Create, resource.Patch, resource.PatchResize, resource.PatchEphemeral:
		return true
	default:
		return false
	}
}
