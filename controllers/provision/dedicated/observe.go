package dedicated

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtualcluster-io/virtualcluster/controllers/progress"
)

// Reasons for which a component is not ready.
const (
	reasonStarting      = "Starting"
	reasonUnschedulable = "Unschedulable"
	reasonImagePull     = "ImagePullFailed"
	reasonConfig        = "ContainerConfigInvalid"
	reasonCrashing      = "Crashing"
	reasonRollingOut    = "RollingOut"
	reasonEnded         = "PodFailed"
	reasonPodRefused    = "PodRefused"
	reasonMount         = "MountFailed"
	reasonSandbox       = "SandboxFailed"
	reasonUnhealthy     = "Unhealthy"
)

// observe returns nil when all replicas of a component are ready and up to date, and otherwise says why not. The note is about
// a component that is ready.
func (p *Provisioner) observe(ctx context.Context, set *appsv1.StatefulSet, now time.Time) (note string, err error) {
	want, status := replicas(set), set.Status
	current := status.ObservedGeneration >= set.Generation
	if current && status.ReadyReplicas >= want {
		if status.UpdatedReplicas >= want {
			return "", nil
		}
		if set.Spec.UpdateStrategy.Type == appsv1.OnDeleteStatefulSetStrategyType {
			return fmt.Sprintf("; %d of %d are up to date: with the update strategy OnDelete, delete the other pods to update them", status.UpdatedReplicas, want), nil
		}
	}
	var pods corev1.PodList
	if err := p.Client.List(ctx, &pods, client.InNamespace(set.Namespace), client.MatchingLabels(selector(set.Name))); err != nil {
		return "", fmt.Errorf("listing the pods of %s: %w", set.Name, err)
	}
	slices.SortFunc(pods.Items, func(a, b corev1.Pod) int { return cmp.Compare(a.Name, b.Name) })
	for i := range pods.Items {
		if err := diagnose(&pods.Items[i]); err != nil {
			return "", err
		}
	}
	if status.ReadyReplicas >= want {
		return "", &progress.Wait{Reason: reasonRollingOut, Message: fmt.Sprintf("%s: %d of %d replicas are up to date", set.Name, status.UpdatedReplicas, want)}
	}
	wait, err := p.awaited(ctx, set, pods.Items, now)
	if err != nil {
		return "", err
	}
	if wait == nil {
		wait = &progress.Wait{Reason: reasonStarting, Message: fmt.Sprintf("%s: %d of %d replicas are ready", set.Name, status.ReadyReplicas, want)}
	}
	wait.After = eventsDelay
	return "", wait
}

// replicas returns how many pods a component is to have.
func replicas(set *appsv1.StatefulSet) int32 {
	if set.Spec.Replicas == nil {
		return 1
	}
	return *set.Spec.Replicas
}

// diagnose says what keeps a pod from running, in a message that stays the same while the cause does.
func diagnose(pod *corev1.Pod) error {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Reason == corev1.PodReasonUnschedulable {
			return &progress.Wait{Reason: reasonUnschedulable, Message: fmt.Sprintf("pod %s cannot be scheduled: %s", pod.Name, c.Message)}
		}
	}
	if pod.Status.Phase == corev1.PodFailed && pod.Status.Reason != "" {
		return &progress.Wait{Reason: reasonEnded, Message: fmt.Sprintf("pod %s failed (%s): %s", pod.Name, pod.Status.Reason, pod.Status.Message)}
	}
	for _, container := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		waiting := container.State.Waiting
		if waiting == nil {
			continue
		}
		switch waiting.Reason {
		case "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable", "ImageInspectError":
			return &progress.Stall{
				Reason:  reasonImagePull,
				Message: fmt.Sprintf("the image %s of %s cannot be pulled; correct it in the ClusterVersion, or make it available", image(pod, container.Name), pod.Name),
			}
		case "CreateContainerConfigError", "CreateContainerError", "RunContainerError":
			return &progress.Wait{Reason: reasonConfig, Message: fmt.Sprintf("the container of %s cannot be started: %s", pod.Name, waiting.Message)}
		case "CrashLoopBackOff":
			message := fmt.Sprintf("%s exits again and again; its log says why", pod.Name)
			if last := container.LastTerminationState.Terminated; last != nil {
				message = fmt.Sprintf("%s exits again and again, last with code %d; its log says why", pod.Name, last.ExitCode)
			}
			return &progress.Wait{Reason: reasonCrashing, Message: message}
		}
	}
	return nil
}

// image returns the image that the pod asks for in a container.
func image(pod *corev1.Pod, name string) string {
	for _, container := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		if container.Name == name {
			return container.Image
		}
	}
	return ""
}
