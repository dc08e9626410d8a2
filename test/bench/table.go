package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/virtualcluster-io/virtualcluster/test/document"
)

// table stands in docs/performance.md.
func table() document.Part {
	return document.Part{
		Begin: "<!-- begin of the table that `make bench` writes -->",
		End:   "<!-- end of the table -->",
	}
}

// row is one figure.
type row struct {
	what, figure, detail string
}

// render returns the table in Markdown.
func render(machine string, when time.Time, rows []row) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Measured on %s: %s.\n\n", when.UTC().Format(time.DateOnly), machine)
	b.WriteString("| What | Figure | Detail |\n|---|---|---|\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", r.what, r.figure, r.detail)
	}
	return b.String()
}

// summary gives median, fastest and slowest of some durations.
func summary(what string, all []time.Duration) row {
	sorted := slices.Sorted(slices.Values(all))
	return row{
		what:   what,
		figure: seconds(median(sorted)),
		detail: fmt.Sprintf("median of %d; fastest %s, slowest %s", len(sorted), seconds(sorted[0]), seconds(sorted[len(sorted)-1])),
	}
}

// median of sorted durations, of which there is at least one.
func median(sorted []time.Duration) time.Duration {
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

func mebibytes(bytes int64) string { return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20)) }
