// Command addresses measures what tenants' ranges of cluster IPs cost, and what becomes of Services of tenants whose addresses the
// super cluster has handed out itself, with real API servers on one machine and without nodes. It prints Markdown tables and judges
// nothing; whether Services were left in a wrong state is an error all the same.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/virtualcluster-io/virtualcluster/internal/command"
	"github.com/virtualcluster-io/virtualcluster/test/document"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

func main() { os.Exit(command.Run("addresses", run)) }

// options are what the command line says.
type options struct {
	ranges     rangeOptions
	collisions []collisionOptions
	only       string
	write      bool
}

// The two parts of the measurement, by which --only names them.
const (
	partRanges     = "ranges"
	partCollisions = "collisions"
)

// parse reads the command line.
func parse(args []string) (options, error) {
	var o options
	var quick bool
	tenants := "0,256,1000,2000"
	r := rangeOptions{Size: 23}
	c := collisionOptions{}
	flags := flag.NewFlagSet("addresses", flag.ContinueOnError)
	flags.StringVar(&o.only, "only", "", "Only this part: ranges or collisions.")
	flags.BoolVar(&quick, "quick", false, "Few tenants, Services and seconds: shows that everything works, not what it costs.")
	flags.BoolVar(&o.write, "write", false, "Write the tables into docs/performance.md.")
	flags.StringVar(&tenants, "ranges", tenants, "Numbers of tenants whose ranges are claimed, separated by commas.")
	flags.DurationVar(&r.Window, "window", time.Minute, "Time over which the quiet API server is measured. API servers look at all ServiceCIDRs again every 10 minutes, so 11m includes that.")
	flags.IntVar(&r.Events, "events", 100, "Events of a ServiceCIDR that are measured.")
	flags.IntVar(&r.Services, "services", 200, "Services of the operator that are created while the ranges are claimed.")
	flags.IntVar(&r.Released, "released", 10, "Tenants whose ranges are released.")
	flags.IntVar(&r.Parallel, "parallel", 8, "Tenants whose ranges are claimed at the same time.")
	flags.IntVar(&c.Tenants, "tenants", 200, "Tenants that have Services, as many as have room.")
	flags.IntVar(&c.Real, "api-servers", 4, "Tenants of these that have a kube-apiserver; the Services of the others exist in the super cluster only.")
	flags.IntVar(&c.Each, "each", 50, "Services that each tenant has at the same time.")
	flags.IntVar(&c.Created, "created", 10000, "Services that tenants with a kube-apiserver create one after the other. The small range has a quarter of it.")
	flags.IntVar(&c.Rate, "rate", 10, "Services that they create per second, all together.")
	flags.IntVar(&c.Operator, "operator", 500, "Services of the operator.")
	flags.IntVar(&c.Churn, "churn", 2, "Percent of them that are replaced per second.")
	flags.DurationVar(&c.Limit, "limit", 20*time.Minute, "Time after which tenants create no more Services.")
	if err := flags.Parse(args); err != nil {
		return options{}, err
	}
	if flags.NArg() > 0 {
		return options{}, errors.New("give no arguments, only flags")
	}
	if quick {
		tenants = "0,20"
		r.Window, r.Events, r.Services, r.Released = 2*time.Second, 20, 20, 2
		c.Tenants, c.Real, c.Each, c.Created, c.Rate, c.Operator, c.Churn, c.Limit = 8, 2, 10, 160, 20, 500, 2, 20*time.Second
	}
	for n := range strings.SplitSeq(tenants, ",") {
		i, err := strconv.Atoi(n)
		if err != nil || i < 0 {
			return options{}, fmt.Errorf("--ranges has %q, which is not a number of tenants", n)
		}
		r.Tenants = append(r.Tenants, i)
	}
	for _, n := range []int{r.Events, r.Services, r.Released, r.Parallel, c.Tenants, c.Real, c.Each, c.Created, c.Rate, c.Operator, c.Churn} {
		if n < 1 {
			return options{}, errors.New("give numbers of at least 1")
		}
	}
	if o.only != "" && o.only != partRanges && o.only != partCollisions {
		return options{}, fmt.Errorf("--only is %q, must be %s or %s", o.only, partRanges, partCollisions)
	}
	o.ranges = r
	for _, super := range []string{"10.96.0.0/12", "10.96.0.0/18"} {
		one := c
		one.Super, one.Size = netip.MustParsePrefix(super), 22
		// The first part has the addresses of the super cluster's own kubernetes and DNS.
		if room := 1<<(one.Size-one.Super.Bits()) - 1; one.Tenants > room {
			one.Tenants, one.Created = room*4/5, max(1, c.Created/4)
		}
		if one.Real > one.Tenants {
			return options{}, fmt.Errorf("%d API servers are more than the %d tenants in %s", one.Real, one.Tenants, super)
		}
		o.collisions = append(o.collisions, one)
	}
	return o, nil
}

func run(ctx context.Context, args []string) error {
	ctrl.SetLogger(logr.Discard())
	klog.SetLogger(logr.Discard())
	o, err := parse(args)
	if err != nil {
		return err
	}
	root, err := worlds.ModuleRoot()
	if err != nil {
		return err
	}
	machine, err := document.Machine()
	if err != nil {
		return err
	}
	measured := fmt.Sprintf("Measured on %s: %s.", time.Now().UTC().Format(time.DateOnly), machine)
	for _, part := range []struct {
		name    string
		measure func(context.Context) (string, error)
		table   document.Part
	}{
		{partRanges, func(ctx context.Context) (string, error) {
			all, err := measureRanges(ctx, o.ranges)
			return renderRanges(o.ranges, all), err
		}, rangeTable()},
		{partCollisions, func(ctx context.Context) (string, error) {
			all, err := measureCollisions(ctx, root, o.collisions)
			return renderCollisions(all), err
		}, collisionTable()},
	} {
		if o.only != "" && o.only != part.name {
			continue
		}
		table, err := part.measure(ctx)
		report := measured + "\n\n" + table
		if table != "" { // what was measured until something failed is worth printing
			fmt.Println(report)
		}
		if err != nil {
			return fmt.Errorf("measuring %s: %w", part.name, err)
		}
		if !o.write {
			continue
		}
		if err := part.table.Update(filepath.Join(root, "docs", "performance.md"), report); err != nil {
			return err
		}
	}
	return nil
}

func logf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "addresses: %s "+format+"\n", append([]any{time.Now().Format(time.TimeOnly)}, args...)...)
}

// pause waits, unless the context ends before.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// poll calls check until it says yes.
func poll(ctx context.Context, timeout time.Duration, what string, check func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for {
		ok, err := check(ctx)
		if ok || err != nil {
			return err
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("waiting for %s: %w", what, err)
		}
	}
}
