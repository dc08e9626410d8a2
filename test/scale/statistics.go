package main

import (
	"math"
	"slices"
	"time"

	"github.com/virtualcluster-io/virtualcluster/test/figures"
)

// distribution describes durations, in milliseconds.
type distribution struct {
	Count               int
	Mean, P50, P99, Max float64
	// Percentiles are those of 0, 1, ... 100.
	Percentiles []float64
}

func distribute(durations []time.Duration) distribution {
	if len(durations) == 0 {
		return distribution{}
	}
	sorted := slices.Sorted(slices.Values(durations))
	d := distribution{Count: len(sorted), Max: figures.Milliseconds(sorted[len(sorted)-1])}
	for _, one := range sorted {
		d.Mean += figures.Milliseconds(one) / float64(len(sorted))
	}
	for p := range 101 {
		d.Percentiles = append(d.Percentiles, figures.Milliseconds(figures.Percentile(sorted, p)))
	}
	d.P50, d.P99 = d.Percentiles[50], d.Percentiles[99]
	return d
}

func mebi(bytes int64) float64 { return float64(bytes) / (1 << 20) }

// spread is a figure of several rounds.
type spread struct{ median, low, high float64 }

// over returns the spread of some values, of which there may be none.
func over(values []float64) spread {
	if len(values) == 0 {
		return spread{math.NaN(), math.NaN(), math.NaN()}
	}
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return spread{(sorted[(n-1)/2] + sorted[n/2]) / 2, sorted[0], sorted[n-1]}
}
