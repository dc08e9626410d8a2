package engine

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/util/workqueue"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// item is what a work queue holds: a key of a kind.
type item struct {
	kind string
	key  resource.Key
}

// priority tells what happened just now from what is looked at because everything is.
type priority uint8

// The priorities, the lowest first.
const (
	// backlog is what a start or a patrol asks for.
	backlog priority = iota
	// live is what an event asks for.
	live
	priorities
)

// queue is the work queue of one tenant. It hands out an item to one worker at a time. It has no name, because a metric
// would have one label for each tenant.
type queue struct {
	workqueue.TypedDelayingInterface[item]
	order *order
}

func newQueue() *queue {
	o := newOrder()
	base := workqueue.NewTypedWithConfig(workqueue.TypedQueueConfig[item]{Queue: o})
	return &queue{
		TypedDelayingInterface: workqueue.NewTypedDelayingQueueWithConfig(workqueue.TypedDelayingQueueConfig[item]{Queue: base}),
		order:                  o,
	}
}

// add queues an item. One that is queued already gets the higher of both priorities.
func (q *queue) add(i item, p priority) {
	if p == live {
		q.order.hurry(i)
	}
	q.Add(i)
}

// addAfter queues an item after a delay.
func (q *queue) addAfter(i item, p priority, delay time.Duration) {
	if p == live {
		q.order.hurry(i)
	}
	q.AddAfter(i, delay)
}

// backlogTurn is how often an item of the backlog is taken while there are live ones: a tenant whose objects change without
// end is served completely all the same.
const backlogTurn = 8

// order takes live items before those of the backlog, kinds in turn, and items of one kind first come first served. A kind
// with many items does not delay the others.
type order struct {
	mu      sync.Mutex
	hurried sets.Set[item]    // guarded by mu: to be live when they are queued
	queued  map[item]priority // guarded by mu
	counts  map[string]int    // guarded by mu: items that are queued, by kind
	lines   [priorities]line  // guarded by mu
	taken   int               // guarded by mu: live items since the last one of the backlog
}

func newOrder() *order {
	o := &order{hurried: sets.New[item](), queued: map[item]priority{}, counts: map[string]int{}}
	for p := range o.lines {
		o.lines[p].waiting = map[string][]item{}
	}
	return o
}

// hurry makes an item live from when it is queued next, or at once if it is queued.
func (o *order) hurry(i item) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.hurried.Insert(i)
}

// depth returns how many items are queued, by kind.
func (o *order) depth(kind string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.counts[kind]
}

// Push implements workqueue.Queue.
func (o *order) Push(i item) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.counts[i.kind]++
	o.put(i)
}

// Touch implements workqueue.Queue: an item is added that is queued.
func (o *order) Touch(i item) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.hurried.Has(i) && o.queued[i] != live {
		o.put(i) // where it was before it is passed over
	}
	o.hurried.Delete(i)
}

func (o *order) put(i item) {
	p := backlog
	if o.hurried.Has(i) {
		p = live
	}
	o.hurried.Delete(i)
	o.queued[i] = p
	o.lines[p].push(i)
}

// Len implements workqueue.Queue.
func (o *order) Len() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.queued)
}

// Pop implements workqueue.Queue.
func (o *order) Pop() item {
	o.mu.Lock()
	defer o.mu.Unlock()
	first, second := live, backlog
	if o.taken >= backlogTurn-1 {
		first, second = backlog, live
	}
	p := first
	i, ok := o.next(first)
	if !ok {
		p = second
		i, _ = o.next(second)
	}
	o.taken++
	if p == backlog {
		o.taken = 0
	}
	delete(o.queued, i)
	if o.counts[i.kind]--; o.counts[i.kind] == 0 {
		delete(o.counts, i.kind)
	}
	return i
}

// next takes the next item of a priority, and passes over those that have another one since.
func (o *order) next(p priority) (item, bool) {
	for {
		i, ok := o.lines[p].pop()
		if !ok {
			return item{}, false
		}
		if at, queued := o.queued[i]; queued && at == p {
			return i, true
		}
	}
}

// line holds the items of one priority.
type line struct {
	waiting map[string][]item // by kind
	turns   []string          // kinds that have items waiting, next first
}

func (l *line) push(i item) {
	items := l.waiting[i.kind]
	if len(items) == 0 {
		l.turns = append(l.turns, i.kind)
	}
	l.waiting[i.kind] = append(items, i)
}

func (l *line) pop() (item, bool) {
	if len(l.turns) == 0 {
		return item{}, false
	}
	kind := l.turns[0]
	l.turns = l.turns[1:]
	items := l.waiting[kind]
	if len(items) == 1 {
		delete(l.waiting, kind)
	} else {
		l.waiting[kind] = items[1:]
		l.turns = append(l.turns, kind)
	}
	return items[0], true
}
