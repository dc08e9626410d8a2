package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

const (
	// loadTimeout bounds every wait for pods.
	loadTimeout = 10 * time.Minute
	// parallel is how many requests a user of a tenant has in flight.
	parallel = 5
	// tail is measured together with a load: what is done about a pod does not end when it is ready.
	tail = 2 * time.Second
)

// load is the pods that were created together.
type load struct {
	name    string
	targets []target

	mu   sync.Mutex
	pods []made
}

// made is a pod that was created.
type made struct {
	target target
	name   string
	at     time.Time // just before the request
}

func newLoad(name string, targets []target) *load { return &load{name: name, targets: targets} }

// create creates pods in each of the targets, with a time between two pods of one target; with none, as fast as a few
// requests at a time allow.
func (b *bench) create(ctx context.Context, l *load, pods int, interval time.Duration, targets ...target) error {
	workers := parallel
	if interval > 0 {
		workers = 1
	}
	errs := make(chan error, len(targets)*workers)
	var wg sync.WaitGroup
	for _, t := range targets {
		var next atomic.Int64
		for range workers {
			wg.Go(func() {
				for int(next.Add(1)) <= pods {
					if err := errors.Join(b.createPod(ctx, l, t), pause(ctx, interval)); err != nil {
						errs <- err
						return
					}
				}
			})
		}
	}
	wg.Wait()
	close(errs)
	return errors.Join(slices.Collect(func(yield func(error) bool) {
		for err := range errs {
			if !yield(err) {
				return
			}
		}
	})...)
}

// createPod creates one pod. Its name is unique in the load.
func (b *bench) createPod(ctx context.Context, l *load, t target) error {
	l.mu.Lock()
	name := fmt.Sprintf("%s-%d", l.name, len(l.pods))
	l.pods = append(l.pods, made{target: t, name: name, at: time.Now()})
	l.mu.Unlock()
	pod := worlds.Pod(t.namespace, name)
	pod.Labels["app"] = l.name
	pod.Spec.AutomountServiceAccountToken = &b.options.Tokens
	if _, err := t.client.CoreV1().Pods(t.namespace).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("creating pod %s: %w", name, err)
	}
	return nil
}

// drip creates pods at a rate, in one target after the other.
func (b *bench) drip(ctx context.Context, l *load, pods, perSecond int) error {
	tick := time.NewTicker(time.Second / time.Duration(perSecond))
	defer tick.Stop()
	errs := make([]error, pods)
	var wg sync.WaitGroup
	for i := range pods {
		wg.Go(func() { errs[i] = b.createPod(ctx, l, l.targets[i%len(l.targets)]) })
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	wg.Wait()
	return errors.Join(errs...)
}

// awaitReady waits until watches have shown every pod ready.
func (b *bench) awaitReady(ctx context.Context, l *load) error {
	next := 0
	err := poll(ctx, loadTimeout, "pods to be ready", func() (bool, error) {
		for ; next < len(l.pods); next++ {
			p := l.pods[next]
			s, err := p.target.pods.get(p.target.namespace, p.name)
			if err != nil || s.ready.IsZero() {
				return false, err
			}
		}
		return true, nil
	})
	if err != nil && next < len(l.pods) {
		p := l.pods[next]
		return fmt.Errorf("%w; pod %s of %s is not", err, p.name, p.target.pods.name)
	}
	return err
}

// outcome is what became of a load.
type outcome struct {
	took time.Duration // from the first request until the last pod was ready
	all  []time.Duration
	// down, run and up are the parts of it for pods of tenants: until the super cluster had the pod, until the pod was
	// ready there, and until the tenant saw that.
	down, run, up []time.Duration
}

// outcome reads the watches, which have seen every pod ready. The condition selects the targets.
func (b *bench) outcome(l *load, targets []target) (outcome, error) {
	var o outcome
	var first, last time.Time
	for _, p := range l.pods {
		if !slices.Contains(targets, p.target) {
			continue
		}
		tenant, err := p.target.pods.get(p.target.namespace, p.name)
		if err != nil {
			return outcome{}, err
		}
		if first.IsZero() || p.at.Before(first) {
			first = p.at
		}
		if tenant.ready.After(last) {
			last = tenant.ready
		}
		o.all = append(o.all, tenant.ready.Sub(p.at))
		if p.target.super == "" {
			continue
		}
		super, err := b.watches[0].get(p.target.super, p.name)
		if err != nil {
			return outcome{}, err
		}
		if super.ready.IsZero() {
			return outcome{}, fmt.Errorf("pod %s was seen ready in %s and not in the super cluster", p.name, p.target.pods.name)
		}
		o.down = append(o.down, super.added.Sub(p.at))
		o.run = append(o.run, super.ready.Sub(super.added))
		o.up = append(o.up, tenant.ready.Sub(super.ready))
	}
	o.took = last.Sub(first)
	return o, nil
}

// half returns when half of a number of pods were created.
func (l *load) half(ctx context.Context, pods int) error {
	return poll(ctx, loadTimeout, "greedy tenants", func() (bool, error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.pods) >= pods/2, nil
	})
}
