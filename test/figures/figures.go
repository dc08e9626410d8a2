// Package figures reads what processes use and sums up durations. It starts nothing and knows no program. The load generators
// test/scale and test/addresses call it.
package figures

import (
	"fmt"
	"math"
	"time"

	"github.com/prometheus/procfs"
)

// CPU is the CPU time that a process has used, by the system's accounting.
func CPU(pid int) (time.Duration, error) {
	p, err := procfs.NewProc(pid)
	if err != nil {
		return 0, fmt.Errorf("finding process %d: %w", pid, err)
	}
	stat, err := p.Stat()
	if err != nil {
		return 0, fmt.Errorf("reading the CPU time of process %d: %w", pid, err)
	}
	return time.Duration(stat.CPUTime() * float64(time.Second)), nil
}

// Anonymous is the resident memory of a process that no file backs, in bytes.
func Anonymous(pid int) (int64, error) {
	p, err := procfs.NewProc(pid)
	if err != nil {
		return 0, fmt.Errorf("finding process %d: %w", pid, err)
	}
	status, err := p.NewStatus()
	if err != nil {
		return 0, fmt.Errorf("reading the memory of process %d: %w", pid, err)
	}
	return int64(status.RssAnon), nil
}

// Percentile of sorted values, of which there is at least one: the smallest one that so many percent do not exceed.
func Percentile(sorted []time.Duration, percent int) time.Duration {
	rank := int(math.Ceil(float64(percent*len(sorted)) / 100))
	return sorted[max(rank, 1)-1]
}

// Milliseconds is a duration as a number for people.
func Milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
