package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/virtualcluster-io/virtualcluster/test/document"
	"github.com/virtualcluster-io/virtualcluster/test/figures"
)

// rangeTable and collisionTable stand in docs/performance.md.
func rangeTable() document.Part {
	return document.Part{
		Begin: "<!-- begin of the table of ranges that `make addresses` writes -->",
		End:   "<!-- end of the table of ranges -->",
	}
}

func collisionTable() document.Part {
	return document.Part{
		Begin: "<!-- begin of the table of collisions that `make addresses` writes -->",
		End:   "<!-- end of the table of collisions -->",
	}
}

// table writes a Markdown table whose columns are measurements.
func table(head []string, rows [][]string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "| %s |\n|%s\n", strings.Join(head, " | "), strings.Repeat("---|", len(head)))
	for _, row := range rows {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
	}
	return b.String()
}

// row returns the cells of a row, one for each measurement.
func row[T any](what string, all []T, cell func(*T) string) []string {
	cells := []string{what}
	for i := range all {
		cells = append(cells, cell(&all[i]))
	}
	return cells
}

func renderRanges(o rangeOptions, all []rangeCost) string {
	if len(all) == 0 {
		return ""
	}
	head := row("What", all, func(r *rangeCost) string {
		if r.Tenants == 0 {
			return "No tenants"
		}
		return fmt.Sprintf("%d by %s", r.Tenants, r.Side)
	})
	some := func(cell func(*rangeCost) string) func(*rangeCost) string {
		return func(r *rangeCost) string {
			if r.Tenants == 0 {
				return ""
			}
			return cell(r)
		}
	}
	rows := [][]string{
		row("Claiming all ranges", all, some(func(r *rangeCost) string { return seconds(r.Claim.Took) })),
		row("CPU of vc-manager for it", all, some(func(r *rangeCost) string { return seconds(r.ClaimManager) })),
		row("CPU of the API server for it", all, some(func(r *rangeCost) string { return seconds(r.Claim.CPU) })),
		row("Lines in its log for it", all, some(func(r *rangeCost) string { return thousands(r.Claim.Log.All) })),
		row("Looking at all claims again", all, some(func(r *rangeCost) string { return seconds(r.Keep.Took) })),
		row("CPU of vc-manager for it", all, some(func(r *rangeCost) string { return seconds(r.KeepManager) })),
		row("Making the tenants' `kubernetes` and `kube-dns`", all, some(func(r *rangeCost) string {
			if r.Side == byServices {
				return "part of the claim"
			}
			return seconds(r.Replicas.Took)
		})),
		row("Start of an API server until `/readyz`", all, func(r *rangeCost) string { return seconds(r.Start.Took) }),
		row("CPU of the start until it is quiet", all, func(r *rangeCost) string { return seconds(r.Start.CPU + r.Settle.CPU) }),
		row("Lines in its log until then", all, func(r *rangeCost) string { return thousands(r.Start.Log.All + r.Settle.Log.All) }),
		row("... of these, \""+allocatorLine+"\"", all, func(r *rangeCost) string { return thousands(r.Start.Log.Allocator + r.Settle.Log.Allocator) }),
		row("Size of its log until then", all, func(r *rangeCost) string {
			return fmt.Sprintf("%.1f MiB", float64(r.Start.Log.Bytes+r.Settle.Log.Bytes)/(1<<20))
		}),
		row("Anonymous memory", all, func(r *rangeCost) string { return fmt.Sprintf("%.0f MiB", float64(r.Memory)/(1<<20)) }),
		row(fmt.Sprintf("CPU in %s without requests", o.Window), all, func(r *rangeCost) string { return seconds(r.Quiet.CPU) }),
		row("Lines in its log in that time", all, func(r *rangeCost) string { return thousands(r.Quiet.Log.All) }),
		row("A change of one ServiceCIDR: CPU", all, func(r *rangeCost) string { return milliseconds(r.Event.CPU) }),
		row("A change of one ServiceCIDR: lines", all, func(r *rangeCost) string { return thousands(r.Event.Log.All) }),
		row("Creating a Service of the operator, median", all, func(r *rangeCost) string { return percentile(r.Created, 50) }),
		row("Creating a Service of the operator, p99", all, func(r *rangeCost) string { return percentile(r.Created, 99) }),
		row(fmt.Sprintf("Of %d such Services, in tenants' ranges", o.Services), all, func(r *rangeCost) string { return fmt.Sprint(r.Inside) }),
		row("Tenants whose ranges these would keep from being released", all, some(func(r *rangeCost) string {
			if r.Side == byServices {
				return "none"
			}
			return fmt.Sprint(r.Ranges)
		})),
		row(fmt.Sprintf("Releasing %d ranges", o.Released), all, some(func(r *rangeCost) string { return seconds(r.Release) })),
		row("CPU of kube-controller-manager for it", all, some(func(r *rangeCost) string { return seconds(r.Controllers) })),
	}
	return table(head, rows)
}

func renderCollisions(all []collisions) string {
	if len(all) == 0 {
		return ""
	}
	head := row("What", all, func(c *collisions) string { return "Range " + c.options.Super.String() })
	rows := [][]string{
		row("Tenants, each with a range", all, func(c *collisions) string { return fmt.Sprintf("%d of /%d", c.options.Tenants, c.options.Size) }),
		row("... of these, with a kube-apiserver", all, func(c *collisions) string { return fmt.Sprint(c.options.Real) }),
		row("Services of each tenant at the same time", all, func(c *collisions) string { return fmt.Sprint(c.options.Each) }),
		row("Services of the operator at the same time", all, func(c *collisions) string { return fmt.Sprint(c.options.Operator) }),
		row("... of these, replaced per second", all, func(c *collisions) string {
			return fmt.Sprintf("%.0f", float64(c.Replaced)/max(c.Took, time.Second).Seconds())
		}),
		row("Services that tenants created", all, func(c *collisions) string { return fmt.Sprintf("%d in %s", c.Created, c.Took.Round(time.Second)) }),
		row("... of these, readdressed", all, func(c *collisions) string { return fmt.Sprint(c.Readdressed) }),
		row("... because a deleted Service of the tenant still had it", all, func(c *collisions) string { return fmt.Sprint(c.Own) }),
		row("... because the operator had it", all, func(c *collisions) string { return fmt.Sprint(c.Readdressed - c.Own) }),
		row("... expected of addresses chosen at random", all, func(c *collisions) string { return fmt.Sprintf("%.1f", c.Expected) }),
		row("Times that an address was exchanged", all, func(c *collisions) string { return fmt.Sprint(c.Flips) }),
		row("Events `"+reasonChanged+"` in tenants", all, func(c *collisions) string { return fmt.Sprint(c.Events) }),
		row("Created -> reachable, address kept", all, func(c *collisions) string { return spread(c.Plain) }),
		row("Created -> reachable, readdressed", all, func(c *collisions) string { return spread(c.Late) }),
		row("First write of the exchange -> reachable", all, func(c *collisions) string { return spread(c.Flip) }),
		row("Cores that the super cluster's API server used", all, func(c *collisions) string {
			return fmt.Sprintf("%.2f", c.CPU.Seconds()/max(c.Took, time.Second).Seconds())
		}),
		row("Left with different addresses or in between", all, func(c *collisions) string { return fmt.Sprint(c.Unfinished) }),
	}
	return table(head, rows)
}

// spread describes sorted durations.
func spread(sorted []time.Duration) string {
	if len(sorted) == 0 {
		return "none"
	}
	return fmt.Sprintf("%s, p99 %s, slowest %s", percentile(sorted, 50), percentile(sorted, 99), percentile(sorted, 100))
}

func percentile(durations []time.Duration, percent int) string {
	if len(durations) == 0 {
		return ""
	}
	return milliseconds(figures.Percentile(slices.Sorted(slices.Values(durations)), percent))
}

func milliseconds(d time.Duration) string {
	if d < 10*time.Millisecond {
		return fmt.Sprintf("%.1f ms", figures.Milliseconds(d))
	}
	return fmt.Sprintf("%.0f ms", figures.Milliseconds(d))
}

func seconds(d time.Duration) string {
	if d < 10*time.Second {
		return fmt.Sprintf("%.2f s", d.Seconds())
	}
	return fmt.Sprintf("%.0f s", d.Seconds())
}

// thousands writes a number with separators.
func thousands(n int64) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
