package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
)

// seen is when a watch showed a pod first, and when it showed the pod ready first.
type seen struct{ added, ready time.Time }

// podWatch is one watch of all pods of a cluster.
type podWatch struct {
	name string

	mu   sync.Mutex
	pods map[types.NamespacedName]seen
	err  error
}

// watchPods watches until the context ends. API servers end a watch after half an hour or more; it begins again from where
// it was.
func watchPods(ctx context.Context, name string, client kubernetes.Interface) (*podWatch, error) {
	list, err := client.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("listing pods in %s: %w", name, err)
	}
	w := &podWatch{name: name, pods: map[types.NamespacedName]seen{}}
	version := list.ResourceVersion
	go func() {
		for ctx.Err() == nil {
			options := metav1.ListOptions{ResourceVersion: version, AllowWatchBookmarks: true}
			watcher, err := client.CoreV1().Pods("").Watch(ctx, options)
			if err != nil {
				w.fail(err)
				return
			}
			for event := range watcher.ResultChan() {
				pod, ok := event.Object.(*corev1.Pod)
				if !ok {
					w.fail(fmt.Errorf("the watch failed: %v", event.Object))
					watcher.Stop()
					return
				}
				version = pod.ResourceVersion
				w.observe(event.Type, pod)
			}
		}
	}()
	return w, nil
}

func (w *podWatch) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = fmt.Errorf("watching pods in %s: %w", w.name, err)
}

func (w *podWatch) observe(event watch.EventType, pod *corev1.Pod) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	key := types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}
	switch event {
	case watch.Deleted:
		delete(w.pods, key)
	case watch.Added, watch.Modified:
		s := w.pods[key]
		if s.added.IsZero() {
			s.added = now
		}
		if s.ready.IsZero() && ready(pod) {
			s.ready = now
		}
		w.pods[key] = s
	}
}

func ready(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func (w *podWatch) get(namespace, name string) (seen, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pods[types.NamespacedName{Namespace: namespace, Name: name}], w.err
}

// count is how many pods there are in a namespace.
func (w *podWatch) count(namespace string) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for key := range w.pods {
		if key.Namespace == namespace {
			n++
		}
	}
	return n, w.err
}

// poll calls check until it says yes. What is measured is when watches saw things, so the interval does not matter.
func poll(ctx context.Context, timeout time.Duration, what string, check func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := check()
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, ctx.Err())
		case <-tick.C:
		}
	}
}

// pause waits, unless the context ends before.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
