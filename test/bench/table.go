package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// Between these two lines of a document stands the table.
const (
	begin = "<!-- begin of the table that `make bench` writes -->"
	end   = "<!-- end of the table -->"
)

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

// update replaces the table in a document.
func update(path, table string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading the document: %w", err)
	}
	updated, err := replace(string(text), table)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := os.WriteFile(path, []byte(updated), 0o644); err != nil {
		return fmt.Errorf("writing the document: %w", err)
	}
	return nil
}

func replace(text, table string) (string, error) {
	before, rest, ok := strings.Cut(text, begin+"\n")
	if !ok {
		return "", fmt.Errorf("no line %q", begin)
	}
	_, after, ok := strings.Cut(rest, end)
	if !ok {
		return "", fmt.Errorf("no line %q", end)
	}
	return before + begin + "\n" + table + end + after, nil
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
