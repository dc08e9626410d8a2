package stats

import (
	"encoding/json"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// Summary is an answer of a kubelet's /stats/summary.
type Summary struct {
	node statsapi.NodeStats
	pods map[string][]statsapi.PodStats
}

// ParseSummary reads the JSON. What the type does not know is not passed on.
func ParseSummary(body []byte) (*Summary, error) {
	in := statsapi.Summary{}
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, fmt.Errorf("parsing the summary: %w", err)
	}
	s := &Summary{node: in.Node, pods: map[string][]statsapi.PodStats{}}
	for i := range in.Pods {
		namespace := in.Pods[i].PodRef.Namespace
		s.pods[namespace] = append(s.pods[namespace], in.Pods[i])
	}
	return s, nil
}

// Namespaces implements Measured.
func (s *Summary) Namespaces() []string { return sortedKeys(s.pods) }

// Pods implements Measured.
func (s *Summary) Pods(namespace string) map[Pod]string {
	out := map[Pod]string{}
	for i := range s.pods[namespace] {
		ref := s.pods[namespace][i].PodRef
		out[Pod{Namespace: ref.Namespace, Name: ref.Name}] = ref.UID
	}
	return out
}

// For implements Measured.
func (s *Summary) For(owned Owned, account *Account) ([]byte, error) {
	return json.Marshal(s.filter(owned, account))
}

// CPUAndMemory is a Summary of which only CPU and memory are told.
type CPUAndMemory struct{ *Summary }

// For implements Measured.
func (c CPUAndMemory) For(owned Owned, account *Account) ([]byte, error) {
	out := c.filter(owned, account)
	out.Node.Swap = nil
	for i := range out.Pods {
		pod := &out.Pods[i]
		*pod = statsapi.PodStats{PodRef: pod.PodRef, StartTime: pod.StartTime, CPU: pod.CPU, Memory: pod.Memory, Containers: pod.Containers}
		for j := range pod.Containers {
			container := &pod.Containers[j]
			*container = statsapi.ContainerStats{Name: container.Name, StartTime: container.StartTime, CPU: container.CPU, Memory: container.Memory}
		}
	}
	return json.Marshal(out)
}

func (s *Summary) filter(owned Owned, account *Account) *statsapi.Summary {
	out := &statsapi.Summary{Pods: []statsapi.PodStats{}}
	for _, namespace := range s.Namespaces() {
		for i := range s.pods[namespace] {
			in := &s.pods[namespace][i]
			identity, ok := owned[Pod{Namespace: namespace, Name: in.PodRef.Name}]
			// A pod that was made again under the same name is another one.
			if ok && identity.SuperUID == in.PodRef.UID {
				out.Pods = append(out.Pods, podFor(in, identity))
			}
		}
	}
	out.Node = s.nodeFor(owned, account)
	return out
}

// podFor returns the measurements of a pod under the tenant's names. What is told of file systems, a container sees
// anyway.
func podFor(in *statsapi.PodStats, identity Identity) statsapi.PodStats {
	out := *in
	out.PodRef = statsapi.PodReference{Namespace: identity.Namespace, Name: in.PodRef.Name, UID: identity.UID}
	out.Containers = make([]statsapi.ContainerStats, 0, len(in.Containers))
	for _, container := range in.Containers {
		if container.Name == names.HostsContainer {
			continue
		}
		// They carry the ID of the device.
		container.Accelerators = nil
		out.Containers = append(out.Containers, container)
	}
	out.VolumeStats = nil
	for _, volume := range in.VolumeStats {
		if volume.Name == names.HostsContainer {
			continue
		}
		if volume.PVCRef != nil {
			// Claims have the same name on both sides.
			volume.PVCRef = &statsapi.PVCReference{Namespace: identity.Namespace, Name: volume.PVCRef.Name}
		}
		out.VolumeStats = append(out.VolumeStats, volume)
	}
	return out
}

// nodeFor returns node totals that are the sums over the tenant's pods. Of the machine, they tell the name and since when
// it is up.
func (s *Summary) nodeFor(owned Owned, account *Account) statsapi.NodeStats {
	sum := totals{used: map[string]float64{}}
	for namespace, pods := range s.pods {
		for i := range pods {
			identity, ok := owned[Pod{Namespace: namespace, Name: pods[i].PodRef.Name}]
			if ok && identity.SuperUID == pods[i].PodRef.UID {
				sum.add(&pods[i])
			}
		}
	}
	at := sum.time
	if at == 0 && s.node.CPU != nil {
		at = s.node.CPU.Time.UnixMilli()
	}
	used, at := account.total(sum.used, at)
	nanoseconds, when := uint64(used), metav1.NewTime(time.UnixMilli(at))
	out := statsapi.NodeStats{
		NodeName: s.node.NodeName, StartTime: s.node.StartTime,
		CPU:    &statsapi.CPUStats{Time: when, UsageNanoCores: &sum.cores, UsageCoreNanoSeconds: &nanoseconds},
		Memory: &statsapi.MemoryStats{Time: when, UsageBytes: &sum.usage, WorkingSetBytes: &sum.workingSet, RSSBytes: &sum.rss},
	}
	if s.node.Swap != nil {
		out.Swap = &statsapi.SwapStats{Time: when, SwapUsageBytes: &sum.swap}
	}
	return out
}

// totals are sums over pods.
type totals struct {
	// used CPU time in nanoseconds, by the UID of the super pod.
	used                                map[string]float64
	cores, usage, workingSet, rss, swap uint64
	time                                int64
}

func (t *totals) add(pod *statsapi.PodStats) {
	if cpu := pod.CPU; cpu != nil {
		t.cores += value(cpu.UsageNanoCores)
		t.used[pod.PodRef.UID] = float64(value(cpu.UsageCoreNanoSeconds))
		t.time = max(t.time, cpu.Time.UnixMilli())
	}
	if memory := pod.Memory; memory != nil {
		t.usage += value(memory.UsageBytes)
		t.workingSet += value(memory.WorkingSetBytes)
		t.rss += value(memory.RSSBytes)
	}
	if pod.Swap != nil {
		t.swap += value(pod.Swap.SwapUsageBytes)
	}
}

func value(pointer *uint64) uint64 {
	if pointer == nil {
		return 0
	}
	return *pointer
}
