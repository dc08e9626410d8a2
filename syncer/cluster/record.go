package cluster

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// record creates an Event, or brings the count and time of the existing one up to date.
func (c *Client) record(ctx context.Context, r rest.Interface, plural string, o resource.Object) error {
	event, ok := o.(*corev1.Event)
	if !ok {
		return fmt.Errorf("recording %T: only events can be recorded", o)
	}
	err := c.create(ctx, r, plural, event)
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	patch, err := json.Marshal(map[string]any{
		"count":         event.Count,
		"lastTimestamp": event.LastTimestamp,
		"series":        event.Series,
		"message":       event.Message,
	})
	if err != nil {
		return fmt.Errorf("encoding the patch of event %s/%s: %w", event.Namespace, event.Name, err)
	}
	return r.Patch(types.MergePatchType).Namespace(event.Namespace).Resource(plural).Name(event.Name).
		VersionedParams(&metav1.PatchOptions{FieldManager: names.Syncer}, scheme.ParameterCodec).
		Body(patch).Do(ctx).Error()
}
