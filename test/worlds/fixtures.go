package worlds

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// MakeNamespace creates a namespace in which pods can be created: it has its default service account, made by the
// controllers of the world or, when none run, by this function. It is deleted when the test ends; without a
// namespace controller it then stays in phase Terminating, so tests that share a world need names of their own.
func (w *World) MakeNamespace(t testing.TB, name string) *corev1.Namespace {
	t.Helper()
	created, err := w.Client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{Name: name},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("creating namespace %s in %s: %v", name, w.Name, err)
	}
	t.Cleanup(func() {
		// The context of the test has ended by now.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Second)
		defer cancel()
		err := w.Client.CoreV1().Namespaces().Delete(ctx, name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			t.Errorf("deleting namespace %s in %s: %v", name, w.Name, err)
		}
	})
	if err := w.ensureServiceAccount(t.Context(), name); err != nil {
		t.Fatalf("creating the service account of namespace %s in %s: %v", name, w.Name, err)
	}
	return created
}

func (w *World) ensureServiceAccount(ctx context.Context, namespace string) error {
	accounts := w.Client.CoreV1().ServiceAccounts(namespace)
	if !w.hasControllers() {
		_, err := accounts.Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("creating: %w", err)
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return poll(ctx, func(ctx context.Context) error {
		_, err := accounts.Get(ctx, "default", metav1.GetOptions{})
		return err
	}, 20*time.Millisecond)
}

func (w *World) hasControllers() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.controllers != nil
}

// Pod returns a pod of one container that names no token, volume or node.
func Pod(namespace, name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"app": name}},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Name: "main", Image: "registry.k8s.io/pause:3.10"}},
		},
	}
}

// Service returns a ClusterIP service that selects the pods Pod makes under the same name.
func Service(namespace, name string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": name},
			Ports:    []corev1.ServicePort{{Name: "http", Port: 80}},
		},
	}
}

// ConfigMap returns a ConfigMap with the given data.
func ConfigMap(namespace, name string, data map[string]string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Data: data}
}

// MakePod creates a pod that some other thing is expected to run.
func (w *World) MakePod(t testing.TB, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	created, err := w.Client.CoreV1().Pods(pod.Namespace).Create(t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("creating pod %s/%s in %s: %v", pod.Namespace, pod.Name, w.Name, err)
	}
	return created
}

// RunPod plays scheduler and kubelet: it creates the node when it does not exist, binds the pod to it and reports the
// pod as running and ready with the given IP.
func (w *World) RunPod(t testing.TB, namespace, name, node, ip string) *corev1.Pod {
	t.Helper()
	ctx := t.Context()
	core := w.Client.CoreV1()
	_, err := core.Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatalf("creating node %s in %s: %v", node, w.Name, err)
	}
	err = core.Pods(namespace).Bind(ctx, &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Target:     corev1.ObjectReference{Kind: "Node", Name: node},
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsConflict(err) {
		t.Fatalf("binding pod %s/%s in %s: %v", namespace, name, w.Name, err)
	}
	var running *corev1.Pod
	Eventually(t, 10*time.Second, "status of pod "+namespace+"/"+name+" to be written", func(ctx context.Context) error {
		pod, err := core.Pods(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return fmt.Errorf("getting the pod: %w", err)
		}
		if pod.Spec.NodeName != node {
			return errors.New("the pod is bound to node " + pod.Spec.NodeName)
		}
		setRunning(pod, ip)
		running, err = core.Pods(namespace).UpdateStatus(ctx, pod, metav1.UpdateOptions{})
		if err != nil {
			return fmt.Errorf("updating the status: %w", err)
		}
		return nil
	})
	return running
}

func setRunning(pod *corev1.Pod, ip string) {
	now := metav1.Now()
	pod.Status.Phase = corev1.PodRunning
	pod.Status.PodIP = ip
	pod.Status.PodIPs = []corev1.PodIP{{IP: ip}}
	pod.Status.StartTime = &now
	pod.Status.Conditions = nil
	for _, condition := range []corev1.PodConditionType{
		corev1.PodScheduled, corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady,
	} {
		pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{
			Type: condition, Status: corev1.ConditionTrue, LastTransitionTime: now,
		})
	}
	pod.Status.ContainerStatuses = nil
	started := true
	for _, container := range pod.Spec.Containers {
		pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, corev1.ContainerStatus{
			Name: container.Name, Image: container.Image, Ready: true, Started: &started,
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
		})
	}
}
