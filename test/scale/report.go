package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/virtualcluster-io/virtualcluster/test/document"
)

// results are everything that one run measured.
type results struct {
	Machine string
	When    time.Time
	Options options
	Syncers []string // names of those that were measured
	Rounds  []round
	Still   []still
}

// labels name binaries by what tells their paths apart.
func labels(paths []string) []string {
	if len(paths) == 1 {
		return []string{"vc-syncer"}
	}
	var names []string
	for i, path := range paths {
		names = append(names, fmt.Sprintf("%c: %s", 'A'+i, filepath.Base(path)))
	}
	return names
}

// table stands in docs/performance.md.
func table() document.Part {
	return document.Part{
		Begin: "<!-- begin of the table that `make scale` writes -->",
		End:   "<!-- end of the table of `make scale` -->",
	}
}

// line is one line of the table.
type line struct {
	what, unit, aim string
	// measure names the rounds that figure is of.
	measure string
	figure  func(round) float64
	// still, in place of them, is a figure that no round has.
	still func(still) float64
	// compare says how a figure relates to that of the baseline in the same round; nil when the baseline has none.
	compare func(ours, baseline float64) float64
	as      string // format of the comparison
}

func share(ours, baseline float64) float64 { return ours / baseline }
func added(ours, baseline float64) float64 { return ours - baseline }

// when is a figure that is not one unless it was measured.
func when(measured bool, figure float64) float64 {
	if measured {
		return figure
	}
	return math.NaN()
}

func lines(o options) []line {
	p50 := func(r round) float64 { return r.Ready.P50 }
	p99 := func(r round) float64 { return r.Ready.P99 }
	mean := func(r round) float64 { return r.Ready.Mean }
	syncer := func(r round) float64 { return r.SyncerCPU }
	super := func(r round) float64 { return r.SuperCPU }
	times, plus := "%.2f x", "%+.0f ms"
	all := []line{
		{what: fmt.Sprintf("Burst of %d x %d pods: rate", o.Tenants, o.BurstPods), unit: "pods/s", aim: ">= 0.55 x", measure: burst,
			figure: func(r round) float64 { return r.PodsPerSecond }, compare: share, as: times},
		{what: "Burst: created -> Ready, median", unit: "ms", measure: burst, figure: p50, compare: share, as: times},
		{what: "Burst: created -> Ready, p99", unit: "ms", aim: "<= 1.9 x", measure: burst, figure: p99, compare: share, as: times},
		{what: "Burst: CPU of vc-syncer for a pod", unit: "ms", aim: "<= 1.0 ms", measure: burst, figure: syncer},
		{what: "Burst: CPU of the super API server for a pod", unit: "ms", aim: "<= 1.2 x", measure: burst, figure: super, compare: share, as: times},
		{what: "Burst: CPU of the tenants' API servers for a pod", unit: "ms", measure: burst, figure: func(r round) float64 { return r.TenantsCPU }},
		{what: "Burst: CPU of etcd, scheduler, nodes and load for a pod", unit: "ms", measure: burst, figure: func(r round) float64 { return r.OtherCPU }},
		{what: fmt.Sprintf("Light load, %d pods/s: created -> Ready, median", o.LightRate), unit: "ms", aim: "<= +5 ms", measure: light,
			figure: p50, compare: added, as: plus},
		{what: "Light load: created -> Ready, p99", unit: "ms", measure: light, figure: p99, compare: added, as: plus},
		{what: "Light load: CPU of vc-syncer for a pod", unit: "ms", aim: "<= 1.5 ms", measure: light, figure: syncer},
	}
	for _, m := range []string{burst, light} {
		all = append(all, phases(m)...)
	}
	all = append(all, []line{
		{what: "Regular tenants beside greedy ones: created -> Ready, mean", unit: "ms", aim: "<= 1.1 x", measure: crowded, figure: mean, compare: share, as: times},
		{what: "Regular tenants beside greedy ones: p99", unit: "ms", measure: crowded, figure: p99, compare: share, as: times},
		{what: "Regular tenants alone: created -> Ready, mean", unit: "ms", measure: alone, figure: mean, compare: share, as: times},
		{what: "Regular tenants alone: p99", unit: "ms", measure: alone, figure: p99, compare: share, as: times},
		{what: "Memory of vc-syncer without tenants", unit: "MiB", still: func(s still) float64 {
			return when(s.Empty > 0, mebi(s.Empty))
		}},
		{what: "Memory for an idle tenant", unit: "MiB", aim: "<= 1 MB", still: func(s still) float64 {
			return when(s.Tenants > 0, mebi(s.Tenants-s.Empty)/float64(o.Tenants))
		}},
	}...)
	if o.RestartPods < o.Tenants {
		return all
	}
	return append(all, []line{
		{what: "Memory for a synchronised pod", unit: "KiB", aim: "<= 6 KB", still: func(s still) float64 {
			return when(s.Full > 0, float64(s.Full-s.Tenants)/1024/float64(s.RestartPods))
		}},
		{what: fmt.Sprintf("Restart with %d pods: until a new pod of each tenant is Ready", o.RestartPods), unit: "ms", aim: "<= 2 s",
			still: func(s still) float64 { return when(s.RestartPods > 0, s.Restart) }},
		{what: "The same pods, nothing changing: use of a core", unit: "%", aim: "<= 0.5 %", still: func(s still) float64 {
			return when(s.Full > 0, s.IdleCPU)
		}},
	}...)
}

// phases are the lines that say where a pod of a tenant spends its time, and what vc-syncer asks of API servers for it.
func phases(measure string) []line {
	title := strings.ToUpper(measure[:1]) + measure[1:]
	of := func(d *distribution) float64 {
		if d == nil {
			return 0
		}
		return d.P50
	}
	return []line{
		{what: title + ": created -> in the super cluster, median", unit: "ms", measure: measure, figure: func(r round) float64 { return of(r.Down) }},
		{what: title + ": in the super cluster -> Ready there, median", unit: "ms", measure: measure, figure: func(r round) float64 { return of(r.Run) }},
		{what: title + ": Ready there -> Ready in the tenant, median", unit: "ms", measure: measure, figure: func(r round) float64 { return of(r.Up) }},
		{what: title + ": writes to the super API server for a pod", measure: measure, figure: func(r round) float64 {
			return r.Requests.sum(func(key string) bool { return isWrite(key) && strings.HasPrefix(key, "super ") })
		}},
		{what: title + ": writes to the tenant's API server for a pod", measure: measure, figure: func(r round) float64 {
			return r.Requests.sum(func(key string) bool { return isWrite(key) && strings.HasPrefix(key, "tenant ") })
		}},
	}
}

// render returns the table in Markdown.
func render(r *results) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Measured on %s: %s. Medians of %d rounds; their range is in brackets.\n\n", r.When.Format(time.DateOnly), r.Machine, r.Options.Rounds)
	head := append([]string{"What", "Baseline"}, r.Syncers...)
	if len(r.Syncers) == 2 {
		head = append(head, "B / A")
	}
	head = append(head, "Aim")
	fmt.Fprintf(&b, "| %s |\n|%s\n", strings.Join(head, " | "), strings.Repeat("---|", len(head)))
	for _, l := range lines(r.Options) {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(l.cells(r), " | "))
	}
	return b.String()
}

func (l line) cells(r *results) []string {
	cells := []string{l.what, ""}
	if l.compare != nil {
		cells[1] = l.value(over(r.values(l, baseline)))
	}
	var medians []float64
	for i, name := range r.Syncers {
		if l.still != nil {
			medians = append(medians, l.still(r.Still[i]))
			cells = append(cells, l.value(over(medians[i:])))
			continue
		}
		s := over(r.values(l, name))
		medians = append(medians, s.median)
		cell := l.value(s)
		if l.compare != nil && known(s.median) {
			cell += fmt.Sprintf("; **"+l.as+"**", over(r.compared(l, name)).median)
		}
		cells = append(cells, cell)
	}
	if len(medians) == 2 {
		cell := ""
		if ratio := medians[1] / medians[0]; known(ratio) {
			cell = fmt.Sprintf("%.2f", ratio)
		}
		cells = append(cells, cell)
	}
	return append(cells, l.aim)
}

func known(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// value writes a figure and, when rounds differ, their range.
func (l line) value(s spread) string {
	if !known(s.median) {
		return "not measured"
	}
	format := func(v float64) string {
		if math.Abs(v) >= 100 || v == 0 {
			return fmt.Sprintf("%.0f", v)
		}
		return fmt.Sprintf("%.2g", v)
	}
	text := strings.TrimSpace(format(s.median) + " " + l.unit)
	if s.low != s.high {
		text += fmt.Sprintf(" (%s - %s)", format(s.low), format(s.high))
	}
	return text
}

// values are the figures of a line in each round that counts.
func (r *results) values(l line, side string) []float64 {
	var values []float64
	for _, one := range r.Rounds {
		if one.Measure == l.measure && one.Side == side && !one.WarmUp {
			values = append(values, l.figure(one))
		}
	}
	return values
}

// compared are the figures of a line in relation to those of the baseline in the same round.
func (r *results) compared(l line, side string) []float64 {
	ours, baselines := r.values(l, side), r.values(l, baseline)
	var values []float64
	for i := range min(len(ours), len(baselines)) {
		values = append(values, l.compare(ours[i], baselines[i]))
	}
	return values
}

// save writes everything into the directory of the run.
func save(dir string, r *results, report string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the results: %w", err)
	}
	files := map[string][]byte{"results.json": append(text, '\n'), "table.md": []byte(report)}
	if files["ready.svg"], err = plotReady(r); err != nil {
		return err
	}
	if r.Options.Churn > 0 {
		if files["churn.svg"], err = plotChurn(r); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := os.WriteFile(filepath.Join(dir, name), files[name], 0o644); err != nil {
			return fmt.Errorf("writing the results: %w", err)
		}
	}
	return nil
}
