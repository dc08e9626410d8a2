package engine

import (
	"time"

	"k8s.io/client-go/util/workqueue"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// Failing keys are retried after firstRetry, doubling up to lastRetry. The limit is per key: there is no bucket that one
// tenant could empty for the others.
const (
	firstRetry = 20 * time.Millisecond
	lastRetry  = time.Minute
)

// newQueue returns a work queue that serves tenants in turn.
func newQueue(name string) workqueue.TypedRateLimitingInterface[resource.Key] {
	base := workqueue.NewTypedWithConfig(workqueue.TypedQueueConfig[resource.Key]{Name: name, Queue: newFair()})
	delaying := workqueue.NewTypedDelayingQueueWithConfig(workqueue.TypedDelayingQueueConfig[resource.Key]{Name: name, Queue: base})
	return workqueue.NewTypedRateLimitingQueueWithConfig(
		workqueue.NewTypedItemExponentialFailureRateLimiter[resource.Key](firstRetry, lastRetry),
		workqueue.TypedRateLimitingQueueConfig[resource.Key]{Name: name, DelayingQueue: delaying},
	)
}

// fair orders keys first come first served within a tenant, and takes tenants in turn. The work queue that holds it
// serialises all calls.
type fair struct {
	waiting map[names.TenantID][]resource.Key
	turns   []names.TenantID // tenants that have keys waiting, next first
	total   int
}

func newFair() *fair { return &fair{waiting: map[names.TenantID][]resource.Key{}} }

// Touch implements workqueue.Queue.
func (f *fair) Touch(resource.Key) {}

// Push implements workqueue.Queue.
func (f *fair) Push(k resource.Key) {
	keys := f.waiting[k.Tenant]
	if len(keys) == 0 {
		f.turns = append(f.turns, k.Tenant)
	}
	f.waiting[k.Tenant] = append(keys, k)
	f.total++
}

// Len implements workqueue.Queue.
func (f *fair) Len() int { return f.total }

// Pop implements workqueue.Queue.
func (f *fair) Pop() resource.Key {
	tenant := f.turns[0]
	f.turns = f.turns[1:]
	keys := f.waiting[tenant]
	k := keys[0]
	f.total--
	if len(keys) == 1 {
		delete(f.waiting, tenant)
	} else {
		f.waiting[tenant] = keys[1:]
		f.turns = append(f.turns, tenant)
	}
	return k
}
