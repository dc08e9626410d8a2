package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// record creates an Event, or brings the one that we recorded before about the same object up to date. The name may be taken by
// an event of somebody else; then it fails with AlreadyExists.
func (c *Client) record(ctx context.Context, r rest.Interface, plural string, o resource.Object) error {
	event, ok := o.(*corev1.Event)
	if !ok {
		return fmt.Errorf("recording %T: only events can be recorded", o)
	}
	var taken error
	if event.Count <= 1 && event.Series == nil { // it is new, nearly always
		if taken = c.create(ctx, r, plural, event); !apierrors.IsAlreadyExists(taken) {
			return taken
		}
	}
	existing := &corev1.Event{}
	err := r.Get().Namespace(event.Namespace).Resource(plural).Name(event.Name).Do(ctx).Into(existing)
	switch {
	case apierrors.IsNotFound(err) && taken == nil:
		return c.create(ctx, r, plural, event)
	case err != nil:
		return err
	case !recorded(existing, event):
		return apierrors.NewAlreadyExists(corev1.Resource(plural), event.Name)
	}
	patch, err := repetition(existing, event)
	if err != nil || patch == nil {
		return err
	}
	return r.Patch(types.MergePatchType).Namespace(event.Namespace).Resource(plural).Name(event.Name).
		VersionedParams(&metav1.PatchOptions{FieldManager: names.Syncer}, scheme.ParameterCodec).
		Body(patch).Do(ctx).Error()
}

// recorded says whether an existing event is one that we made about the same object.
func recorded(existing, event *corev1.Event) bool {
	return existing.InvolvedObject.UID == event.InvolvedObject.UID &&
		slices.ContainsFunc(existing.ManagedFields, func(e metav1.ManagedFieldsEntry) bool { return e.Manager == names.Syncer })
}

// repetition returns the patch that brings an event up to date, nil when it is. What happened again since counts once more at
// least: whoever says so may not know how often it was said before.
func repetition(existing, event *corev1.Event) ([]byte, error) {
	count, last := event.Count, event.LastTimestamp
	if again := last.Unix() > existing.LastTimestamp.Unix(); again && count > 0 {
		count = max(count, existing.Count+1)
	} else if !again {
		count, last = max(count, existing.Count), existing.LastTimestamp
	}
	if count == existing.Count && last.Equal(&existing.LastTimestamp) && event.Message == existing.Message && equality.Semantic.DeepEqual(event.Series, existing.Series) {
		return nil, nil
	}
	patch, err := json.Marshal(map[string]any{
		"metadata":      map[string]any{"uid": existing.UID},
		"count":         count,
		"lastTimestamp": last,
		"series":        event.Series,
		"message":       event.Message,
	})
	if err != nil {
		return nil, fmt.Errorf("encoding the patch of event %s/%s: %w", event.Namespace, event.Name, err)
	}
	return patch, nil
}
