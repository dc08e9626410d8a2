package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/pager"

	"github.com/virtualcluster-io/virtualcluster/internal/connection"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

const (
	// maxList bounds the bytes of a list in pages: 100,000 pods have less. pageSize is how many objects a page has at first,
	// and listTimeout is for all pages.
	maxList     = 1 << 30
	pageSize    = 100
	listTimeout = 10 * time.Minute
)

// list reads a list. From an API server that is not trusted, it is read in pages, as an answer is bounded there: pages get
// smaller while one is too large. Only a complete list is returned, since what is not in it counts as deleted.
func (c *Client) list(ctx context.Context, from source, k resource.Kind, opts metav1.ListOptions, admit Admit) (runtime.Object, error) {
	read := func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, int64, error) {
		ctx, cancel := context.WithTimeout(ctx, 6*c.timeout) // a full list takes longer than an object
		defer cancel()
		return from.list(ctx, opts)
	}
	if c.maxList == 0 {
		list, _, err := read(ctx, opts)
		return list, err
	}
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	// Pages are cut from a consistent list only. The watch cache would return a list that is not, and ignore the limit.
	opts.ResourceVersion, opts.ResourceVersionMatch = "", ""
	size, total, held := int64(pageSize), int64(0), &sum{}
	pages := pager.New(func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
		for {
			opts.Limit = size
			page, bytes, err := read(ctx, opts)
			if errors.Is(err, connection.ErrTooLarge) && size > 1 {
				size = max(1, size/10)
				continue
			}
			if err != nil {
				return nil, err
			}
			if total += bytes; total > c.maxList {
				return nil, fmt.Errorf("%w: the list of %s has more than %d bytes", connection.ErrTooLarge, k.Name, c.maxList)
			}
			return page, trim(page, k, held, admit)
		}
	})
	pages.FullListIfExpired = false // it is listed anew then
	list, _, err := pages.ListWithAlloc(ctx, opts)
	return list, err
}

// trim removes from the objects of a page what is not kept, so that it does not add up, and bounds what does.
func trim(page runtime.Object, k resource.Kind, held *sum, admit Admit) error {
	return apimeta.EachListItem(page, func(o runtime.Object) error {
		obj, ok := o.(resource.Object)
		if ok && !k.MetadataOnly { // else who manages its fields is of interest
			k.Trim(obj)
		}
		if !ok || admit == nil {
			return nil
		}
		return admit(held.changed(nil, obj))
	})
}
