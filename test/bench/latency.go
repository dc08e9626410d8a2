package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/watch"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/test/e2e/local"
)

const (
	podTimeout   = time.Minute
	readyTimeout = 5 * time.Minute
	// cleanupTimeout also applies after an interrupt.
	cleanupTimeout = 2 * time.Minute
)

// measurePods starts pods in the first tenant and directly in the super cluster, in turns, so that whatever else the
// machine does hits both.
func measurePods(ctx context.Context, cluster *local.Cluster, count int) (rows []row, err error) {
	sides := []*local.Access{cluster.Tenants[0].Access, cluster.Super}
	namespace := "bench-" + rand.String(5)
	for _, side := range sides {
		defer func() { err = errors.Join(err, deleteNamespace(ctx, side, namespace)) }()
		if err := createNamespace(ctx, side, namespace); err != nil {
			return nil, fmt.Errorf("creating namespace %s in %s: %w", namespace, side.Name, err)
		}
		// The first one pays for things that happen once in a namespace.
		if _, err := startPod(ctx, side, namespace, "first"); err != nil {
			return nil, fmt.Errorf("starting a first pod in %s: %w", side.Name, err)
		}
	}
	times := map[string][]time.Duration{}
	for i := range count {
		for _, side := range sides {
			progress("pod %d of %d in %s", i+1, count, side.Name)
			took, err := startPod(ctx, side, namespace, fmt.Sprintf("pod-%d", i))
			if err != nil {
				return nil, fmt.Errorf("starting pod %d in %s: %w", i, side.Name, err)
			}
			times[side.Name] = append(times[side.Name], took)
		}
	}
	return []row{
		summary("Tenant pod created -> Running seen in the tenant", times[sides[0].Name]),
		summary("Same pod created directly in the super cluster -> Running", times[sides[1].Name]),
	}, nil
}

func createNamespace(ctx context.Context, side *local.Access, name string) error {
	ctx, cancel := context.WithTimeout(ctx, podTimeout)
	defer cancel()
	accounts, err := side.Client.CoreV1().ServiceAccounts(name).Watch(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("watching service accounts: %w", err)
	}
	defer accounts.Stop()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := side.Client.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("creating: %w", err)
	}
	_, err = await(ctx, accounts, func(object runtime.Object) bool {
		account, ok := object.(*corev1.ServiceAccount)
		return ok && account.Name == "default"
	})
	return err
}

func deleteNamespace(ctx context.Context, side *local.Access, name string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	if err := side.Client.CoreV1().Namespaces().Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		return fmt.Errorf("deleting namespace %s in %s: %w", name, side.Name, err)
	}
	return nil
}

// startPod returns the time from just before the request until a watch shows the pod running, and deletes the pod.
func startPod(ctx context.Context, side *local.Access, namespace, name string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, podTimeout)
	defer cancel()
	pods := side.Client.CoreV1().Pods(namespace)
	watcher, err := pods.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	if err != nil {
		return 0, fmt.Errorf("watching: %w", err)
	}
	defer watcher.Stop()
	grace := int64(0)
	start := time.Now()
	_, err = pods.Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: &grace,
			Containers: []corev1.Container{{
				Name: "main", Image: local.Image, ImagePullPolicy: corev1.PullIfNotPresent, Command: []string{"sleep", "3600"},
			}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return 0, fmt.Errorf("creating: %w", err)
	}
	last, err := await(ctx, watcher, func(object runtime.Object) bool {
		pod, ok := object.(*corev1.Pod)
		return ok && pod.Status.Phase == corev1.PodRunning
	})
	if err != nil {
		if pod, ok := last.(*corev1.Pod); ok {
			return 0, fmt.Errorf("waiting for the pod to run: %w; it is in phase %s: %v", err, pod.Status.Phase, pod.Status.Conditions)
		}
		return 0, fmt.Errorf("waiting for the pod to run: %w", err)
	}
	took := time.Since(start)
	if err := pods.Delete(ctx, name, metav1.DeleteOptions{GracePeriodSeconds: &grace}); err != nil {
		return 0, fmt.Errorf("deleting: %w", err)
	}
	return took, nil
}

// measureVirtualClusters creates VirtualClusters with an empty spec, one after the other.
func measureVirtualClusters(ctx context.Context, cluster *local.Cluster, count int) (r row, err error) {
	namespace := "bench-" + rand.String(5)
	defer func() { err = errors.Join(err, deleteNamespace(ctx, cluster.Super, namespace)) }()
	if err := createNamespace(ctx, cluster.Super, namespace); err != nil {
		return row{}, fmt.Errorf("creating namespace %s: %w", namespace, err)
	}
	var times []time.Duration
	for i := range count {
		progress("VirtualCluster %d of %d", i+1, count)
		took, err := startVirtualCluster(ctx, cluster, namespace, fmt.Sprintf("vc-%d", i))
		if err != nil {
			return row{}, err
		}
		times = append(times, took)
	}
	return summary("VirtualCluster created -> Ready, images present", times), nil
}

// startVirtualCluster returns the time until a watch shows the VirtualCluster ready, and deletes it completely: the next
// one must not share the machine with its end.
func startVirtualCluster(ctx context.Context, cluster *local.Cluster, namespace, name string) (took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	resource := cluster.Super.Dynamic.Resource(tenancyv1alpha1.GroupVersion().WithResource("virtualclusters")).Namespace(namespace)
	watcher, err := resource.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	if err != nil {
		return 0, fmt.Errorf("watching: %w", err)
	}
	defer watcher.Stop()
	vc := &unstructured.Unstructured{}
	vc.SetGroupVersionKind(tenancyv1alpha1.GroupVersion().WithKind("VirtualCluster"))
	vc.SetName(name)
	start := time.Now()
	if _, err := resource.Create(ctx, vc, metav1.CreateOptions{}); err != nil {
		return 0, fmt.Errorf("creating VirtualCluster %s: %w", name, err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
		defer cancel()
		if e := resource.Delete(ctx, name, metav1.DeleteOptions{}); e != nil {
			err = errors.Join(err, fmt.Errorf("deleting VirtualCluster %s: %w", name, e))
			return
		}
		if err == nil {
			err = gone(ctx, watcher)
		}
	}()
	var state string
	_, err = await(ctx, watcher, func(object runtime.Object) bool {
		u, ok := object.(*unstructured.Unstructured)
		if !ok {
			return false
		}
		var current tenancyv1alpha1.VirtualCluster
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &current); err != nil {
			state = err.Error()
			return false
		}
		state = local.Conditions(&current)
		return apimeta.IsStatusConditionTrue(current.Status.Conditions, tenancyv1alpha1.ConditionReady)
	})
	if err != nil {
		return 0, fmt.Errorf("waiting for VirtualCluster %s: %w; %s", name, err, state)
	}
	return time.Since(start), nil
}

// await reads events until one satisfies the condition and returns the last object.
func await(ctx context.Context, watcher watch.Interface, ok func(runtime.Object) bool) (runtime.Object, error) {
	var last runtime.Object
	for {
		select {
		case <-ctx.Done():
			return last, ctx.Err()
		case event, open := <-watcher.ResultChan():
			if !open {
				return last, errors.New("the watch has ended")
			}
			last = event.Object
			if event.Type != watch.Deleted && ok(event.Object) {
				return last, nil
			}
		}
	}
}

// gone reads events until the object was deleted.
func gone(ctx context.Context, watcher watch.Interface) error {
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the end of the VirtualCluster: %w", ctx.Err())
		case event, open := <-watcher.ResultChan():
			if !open || event.Type == watch.Deleted {
				return nil
			}
		}
	}
}
