package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// side is one of the two that a Service is on.
type side int

const (
	inTenant side = iota
	inSuper
)

// serviceKey is a Service of a tenant, by the number of the tenant.
type serviceKey struct {
	tenant int
	types.NamespacedName
}

// seen is what watches showed of a Service of a tenant.
type seen struct {
	created time.Time // just before the request
	// marked is when the annotation was seen first by which vc-syncer gives a Service another address, flips how often it came.
	marked time.Time
	flips  int
	mark   bool
	// agreed is when both sides had the same address first, again after each flip.
	agreed    time.Time
	addresses [2]string
	// own says that it got another address because the super cluster still had a deleted Service of the same tenant.
	own bool
	// all are the addresses that it ever had on a side, and gone how often it was deleted there.
	all  [2]map[string]bool
	gone [2]int
}

// observe takes in an event at a time.
func (s *seen) observe(on side, event watch.EventType, service *corev1.Service, at time.Time) {
	if event == watch.Deleted {
		s.addresses[on] = ""
		s.gone[on]++
		return
	}
	s.addresses[on] = service.Spec.ClusterIP
	if ip := service.Spec.ClusterIP; ip != "" {
		if s.all[on] == nil {
			s.all[on] = map[string]bool{}
		}
		s.all[on][ip] = true
	}
	if on == inTenant {
		mark := service.Annotations[names.AnnotationReaddress] != ""
		if mark && !s.mark {
			s.flips++
			s.agreed = time.Time{}
			if s.marked.IsZero() {
				s.marked = at
			}
		}
		s.mark = mark
	}
	if !s.mark && s.agreed.IsZero() && s.agrees() {
		s.agreed = at
	}
}

func (s *seen) agrees() bool {
	return s.addresses[inTenant] != "" && s.addresses[inTenant] == s.addresses[inSuper]
}

// ledger has all Services of tenants that have an API server.
type ledger struct {
	mu       sync.Mutex
	services map[serviceKey]*seen
	// holders are the Services that have an address in the super cluster, left is when the last one lost it.
	holders map[string]serviceKey
	left    map[string]time.Time
	err     error
}

func newLedger() *ledger {
	return &ledger{services: map[serviceKey]*seen{}, holders: map[string]serviceKey{}, left: map[string]time.Time{}}
}

// observe takes in an event at a time.
func (l *ledger) observe(key serviceKey, on side, event watch.EventType, service *corev1.Service, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.of(key)
	had, flips := s.addresses[on], s.flips
	s.observe(on, event, service, at)
	if on == inSuper && had != s.addresses[on] {
		if had != "" && l.holders[had] == key {
			delete(l.holders, had)
			l.left[had] = at
		}
		if ip := s.addresses[on]; ip != "" {
			l.holders[ip] = key
		}
	}
	if s.flips > flips {
		_, held := l.holders[had]
		s.own = held || l.left[had].After(s.created)
	}
}

// begin notes a Service that is about to be created.
func (l *ledger) begin(key serviceKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.of(key).created = time.Now()
}

// of returns what was seen of a Service. The caller holds the lock.
func (l *ledger) of(key serviceKey) *seen {
	if l.services[key] == nil {
		l.services[key] = &seen{}
	}
	return l.services[key]
}

// agreed says whether both sides of a Service have the same address.
func (l *ledger) agreed(key serviceKey) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.of(key)
	return !s.mark && s.agrees(), l.err
}

// all returns what was seen of all Services in a namespace.
func (l *ledger) all(namespace string) []seen {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []seen
	for key, s := range l.services {
		if key.Namespace == namespace {
			found = append(found, *s)
		}
	}
	return found
}

func (l *ledger) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = errors.Join(l.err, err)
}

// watch follows the Services of a cluster until the context ends. The key of a Service is that which keyOf returns, if any.
func (l *ledger) watch(ctx context.Context, client kubernetes.Interface, on side, selector string, keyOf func(*corev1.Service) (serviceKey, bool)) error {
	list, err := client.CoreV1().Services("").List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return fmt.Errorf("listing Services: %w", err)
	}
	observe := func(event watch.EventType, service *corev1.Service) {
		now := time.Now()
		if key, ok := keyOf(service); ok {
			l.observe(key, on, event, service, now)
		}
	}
	for i := range list.Items {
		observe(watch.Added, &list.Items[i])
	}
	version := list.ResourceVersion
	go func() {
		for ctx.Err() == nil {
			options := metav1.ListOptions{LabelSelector: selector, ResourceVersion: version, AllowWatchBookmarks: true}
			watcher, err := client.CoreV1().Services("").Watch(ctx, options)
			if err != nil {
				if ctx.Err() == nil {
					l.fail(fmt.Errorf("watching Services: %w", err))
				}
				return
			}
			for event := range watcher.ResultChan() {
				service, ok := event.Object.(*corev1.Service)
				if !ok {
					watcher.Stop()
					l.fail(fmt.Errorf("the watch of Services failed: %v", event.Object))
					return
				}
				version = service.ResourceVersion
				if event.Type != watch.Bookmark {
					observe(event.Type, service)
				}
			}
		}
	}()
	return nil
}

// outcome sums up Services of tenants.
type outcome struct {
	Created     int
	Readdressed int // Services that got another address
	Own         int // of these, because of a deleted Service of the same tenant
	Flips       int // more than that when an address was taken again
	// Plain is from the creation of those that kept their address until both sides had it, Late the same of the others, and
	// Flip, of these, from when the annotation was seen.
	Plain, Late, Flip []time.Duration
	// Unfinished have not the same address on both sides in the end, or are still being readdressed.
	Unfinished int
}

func sumUp(services []seen) outcome {
	var o outcome
	for i := range services {
		s := &services[i]
		o.Created++
		o.Flips += s.flips
		if s.flips > 0 {
			o.Readdressed++
			if s.own {
				o.Own++
			}
		}
		switch {
		case s.agreed.IsZero(): // as it is while it is being readdressed
			o.Unfinished++
		case s.flips > 0:
			o.Late = append(o.Late, s.agreed.Sub(s.created))
			o.Flip = append(o.Flip, s.agreed.Sub(s.marked))
		default:
			o.Plain = append(o.Plain, s.agreed.Sub(s.created))
		}
	}
	for _, durations := range [][]time.Duration{o.Plain, o.Late, o.Flip} {
		slices.Sort(durations)
	}
	return o
}

// touched says how a Service that keeps its address did not, in words; empty when it did.
func (s *seen) touched() string {
	tenant, super := slices.Sorted(maps.Keys(s.all[inTenant])), slices.Sorted(maps.Keys(s.all[inSuper]))
	if s.flips == 0 && len(tenant) == 1 && slices.Equal(tenant, super) && s.gone == [2]int{} && s.agrees() {
		return ""
	}
	return fmt.Sprintf("addresses %v in the tenant and %v in the super cluster, %d flips, deleted %v times", tenant, super, s.flips, s.gone)
}
