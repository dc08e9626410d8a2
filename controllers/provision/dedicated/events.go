package dedicated

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtualcluster-io/virtualcluster/controllers/progress"
)

const (
	// eventsAfter is how old a pod must be before its events are read: most start earlier, and no watch tells of events.
	eventsAfter = 10 * time.Second
	// eventsDelay is when to read them again.
	eventsDelay = 10 * time.Second
	// eventsFresh is how long after it was seen last an event of a pod still says what is wrong. A kubelet records at least one
	// in five minutes of what fails again and again (k8s.io/client-go/tools/record, the spam filter).
	eventsFresh = 6 * time.Minute
	// refusalsFresh is the same for the events of a StatefulSet, whose controller tries at least every 1000 seconds
	// (k8s.io/client-go/util/workqueue, the default rate limiter).
	refusalsFresh = 20 * time.Minute
)

// identifiers are what differs in the message of an event from one attempt to the next.
var identifiers = regexp.MustCompile(`[0-9a-f]{32,}`)

// subject is an object whose events may say what is wrong, which its status does not say. The reasons of these events are
// mapped to those of conditions.
type subject struct {
	client.Object
	kind    string
	reasons map[string]string
	fresh   time.Duration
}

// subjects returns the pods that are not ready, and the StatefulSet when it has fewer pods than it should.
func subjects(set *appsv1.StatefulSet, pods []corev1.Pod) []subject {
	var list []subject
	for i := range pods {
		pod := &pods[i]
		if ready(pod) {
			continue
		}
		reasons := map[string]string{
			"FailedMount":            reasonMount,
			"FailedAttachVolume":     reasonMount,
			"FailedMapVolume":        reasonMount,
			"FailedCreatePodSandBox": reasonSandbox,
		}
		if slices.ContainsFunc(pod.Status.ContainerStatuses, func(c corev1.ContainerStatus) bool { return c.State.Running != nil }) {
			reasons = map[string]string{"Unhealthy": reasonUnhealthy}
		}
		list = append(list, subject{pod, "Pod", reasons, eventsFresh})
	}
	if len(pods) < int(replicas(set)) {
		list = append(list, subject{set, "StatefulSet", map[string]string{"FailedCreate": reasonPodRefused}, refusalsFresh})
	}
	return list
}

// awaited says what keeps the pods of a component from being ready when their status does not.
func (p *Provisioner) awaited(ctx context.Context, set *appsv1.StatefulSet, pods []corev1.Pod, now time.Time) (*progress.Wait, error) {
	for _, s := range subjects(set, pods) {
		if now.Sub(s.GetCreationTimestamp().Time) < eventsAfter {
			continue
		}
		var list corev1.EventList
		err := p.Live.List(ctx, &list, client.InNamespace(set.Namespace), client.MatchingFields{
			"involvedObject.kind": s.kind, "involvedObject.name": s.GetName(), "type": corev1.EventTypeWarning,
		})
		if err != nil {
			return nil, fmt.Errorf("listing the events of %s: %w", s.GetName(), err)
		}
		if wait := s.blocked(list.Items, now); wait != nil {
			return wait, nil
		}
	}
	return nil, nil
}

// blocked returns what the fresh events of an object say, or nil. Several of one reason, for instance for several volumes, are
// put in an order that does not change.
func (s subject) blocked(events []corev1.Event, now time.Time) *progress.Wait {
	latest := map[string]time.Time{}
	messages := map[string][]string{}
	for i := range events {
		event := &events[i]
		reason, ok := s.reasons[event.Reason]
		seen := lastSeen(event)
		// An event may be of an earlier pod of the same name.
		if !ok || now.Sub(seen) > s.fresh || seen.Before(s.GetCreationTimestamp().Time) {
			continue
		}
		message := identifiers.ReplaceAllString(strings.TrimSpace(event.Message), "...")
		switch newest := seen.After(latest[reason]); {
		case reason != reasonUnhealthy:
			messages[reason] = append(messages[reason], message)
		case newest:
			messages[reason] = []string{message} // a probe says only how it is now
		}
		if seen.After(latest[reason]) {
			latest[reason] = seen
		}
	}
	if len(messages) == 0 {
		return nil
	}
	// What was seen last is where the pod is now.
	reason := slices.MaxFunc(slices.Sorted(maps.Keys(messages)), func(a, b string) int { return latest[a].Compare(latest[b]) })
	said := messages[reason]
	slices.Sort(said)
	return &progress.Wait{Reason: reason, Message: s.GetName() + ": " + strings.Join(slices.Compact(said), "; ")}
}

// lastSeen returns when an event happened last, in either form that events have.
func lastSeen(event *corev1.Event) time.Time {
	seen := event.LastTimestamp.Time
	for _, other := range []time.Time{event.EventTime.Time, event.CreationTimestamp.Time} {
		if other.After(seen) {
			seen = other
		}
	}
	if event.Series != nil && event.Series.LastObservedTime.After(seen) {
		seen = event.Series.LastObservedTime.Time
	}
	return seen
}

// ready says whether a pod is ready.
func ready(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}
