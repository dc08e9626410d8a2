package dedicated

import (
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestEventsSayWhatIsWrong(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	event := func(reason string, ago time.Duration, message string) corev1.Event {
		return corev1.Event{Reason: reason, Message: message, LastTimestamp: metav1.NewTime(now.Add(-ago))}
	}
	waiting := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "etcd-0", CreationTimestamp: metav1.NewTime(now.Add(-time.Hour))}}
	young := waiting.DeepCopy()
	young.CreationTimestamp = metav1.NewTime(now.Add(-20 * time.Second))
	running := waiting.DeepCopy()
	running.Status.ContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
	set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "etcd", CreationTimestamp: waiting.CreationTimestamp}}
	cases := map[string]struct {
		pods   []corev1.Pod
		events []corev1.Event
		want   string
	}{
		"Nothing": {pods: []corev1.Pod{*waiting}},
		"Mounts": {
			pods:   []corev1.Pod{*waiting},
			events: []corev1.Event{event("FailedMount", 0, "b"), event("FailedMount", time.Minute, "a"), event("FailedMount", 2*time.Minute, "b")},
			want:   "MountFailed etcd-0: a; b",
		},
		"TheNewestReason": {
			pods:   []corev1.Pod{*waiting},
			events: []corev1.Event{event("FailedMount", time.Minute, "a"), event("FailedCreatePodSandBox", 0, "no network for "+strings.Repeat("0a", 32))},
			want:   "SandboxFailed etcd-0: no network for ...",
		},
		"LongAgo":                  {pods: []corev1.Pod{*waiting}, events: []corev1.Event{event("FailedMount", 7*time.Minute, "a")}},
		"OfAnEarlierPod":           {pods: []corev1.Pod{*young}, events: []corev1.Event{event("FailedMount", time.Minute, "a")}},
		"BeforeItsContainersRan":   {pods: []corev1.Pod{*running}, events: []corev1.Event{event("FailedMount", 0, "a")}},
		"OnlyTheNewestProbe":       {pods: []corev1.Pod{*running}, events: []corev1.Event{event("Unhealthy", 0, "new"), event("Unhealthy", time.Minute, "old")}, want: "Unhealthy etcd-0: new"},
		"Refused":                  {events: []corev1.Event{event("FailedCreate", 15*time.Minute, "exceeded quota")}, want: "PodRefused etcd: exceeded quota"},
		"OfNoInterest":             {pods: []corev1.Pod{*waiting}, events: []corev1.Event{event("Whatever", 0, "a")}},
		"ReadyPodsAreNotAskedFor":  {pods: []corev1.Pod{{Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}}}},
		"RefusedButThePodIsThere":  {pods: []corev1.Pod{*waiting}, events: []corev1.Event{event("FailedCreate", 0, "exceeded quota")}},
		"ReasonsOfANewEventSeries": {pods: []corev1.Pod{*waiting}, events: []corev1.Event{{Reason: "FailedMount", Message: "a", Series: &corev1.EventSeries{LastObservedTime: metav1.NewMicroTime(now)}}}, want: "MountFailed etcd-0: a"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := ""
			for _, s := range subjects(set, tc.pods) {
				if wait := s.blocked(tc.events, now); wait != nil {
					got = wait.Reason + " " + wait.Message
				}
			}
			if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}
