// Command scale measures vc-syncer under load, on one machine and without nodes: real API servers of a super cluster and of
// many tenants, a real scheduler, and fake nodes of kwok whose pods become ready at once. The same load goes straight into
// the super cluster, in turns, so that figures can be read as a share of what the machine does without vc-syncer. It
// prints a Markdown table, writes figures and plots into a directory, and judges nothing.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/virtualcluster-io/virtualcluster/internal/command"
	"github.com/virtualcluster-io/virtualcluster/test/document"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

func main() { os.Exit(command.Run("scale", run)) }

// options are what the command line says. They are part of the results.
type options struct {
	Tenants, Nodes, Warmup, Rounds int
	BurstPods                      int // of each tenant
	LightRate                      int // pods per second, of all tenants
	LightSeconds                   int
	GreedyPods, RegularPods        int // of each tenant
	RestartPods                    int // of all tenants
	Idle, Churn                    time.Duration
	Tokens, Profile                bool
	Syncers                        []string

	out   string
	write bool
}

// parse reads the command line.
func parse(args []string) (options, error) {
	var o options
	var quick bool
	flags := flag.NewFlagSet("scale", flag.ContinueOnError)
	flags.IntVar(&o.Tenants, "tenants", 20, "Number of tenants, each with a kube-apiserver of its own.")
	flags.IntVar(&o.Nodes, "nodes", 20, "Number of fake nodes.")
	flags.IntVar(&o.Warmup, "warmup", 2, "Rounds that are not counted.")
	flags.IntVar(&o.Rounds, "rounds", 3, "Rounds that are counted.")
	flags.IntVar(&o.BurstPods, "burst-pods", 100, "Pods of each tenant in a burst.")
	flags.IntVar(&o.LightRate, "light-rate", 20, "Pods per second of the light load, over all tenants.")
	flags.IntVar(&o.LightSeconds, "light-seconds", 20, "Seconds of light load.")
	flags.IntVar(&o.GreedyPods, "greedy-pods", 400, "Pods of each greedy tenant; every fifth tenant is greedy.")
	flags.IntVar(&o.RegularPods, "regular-pods", 10, "Pods of each other tenant beside the greedy ones.")
	flags.IntVar(&o.RestartPods, "restart-pods", 12960, "Pods that exist, over all tenants, when vc-syncer restarts; 0 leaves this part out.")
	flags.DurationVar(&o.Idle, "idle", time.Minute, "Time over which an idle vc-syncer is measured.")
	flags.DurationVar(&o.Churn, "churn", 0, "Time for which pods come and go at the rate of the light load while memory is sampled; 0 leaves this part out.")
	flags.BoolVar(&o.Tokens, "tokens", true, "Pods have a service account token, as they have by default.")
	flags.BoolVar(&o.Profile, "profile", false, "Write a CPU profile of vc-syncer during the last burst; needs its flag --pprof-bind-address.")
	flags.BoolVar(&quick, "quick", false, "Two tenants, ten pods, one round: shows that everything works, not what it costs.")
	flags.StringVar(&o.out, "out", filepath.Join("_local", "scale", time.Now().UTC().Format("20060102-150405")), "Directory for the results.")
	flags.BoolVar(&o.write, "write", false, "Write the table into docs/performance.md.")
	flags.Func("syncer", "A vc-syncer to measure in place of the one built from this tree; repeat it to compare several.", func(path string) error {
		o.Syncers = append(o.Syncers, path)
		return nil
	})
	if err := flags.Parse(args); err != nil {
		return options{}, err
	}
	if quick {
		o.Tenants, o.Nodes, o.Warmup, o.Rounds, o.BurstPods = 2, 2, 0, 1, 5
		o.LightRate, o.LightSeconds, o.GreedyPods, o.RegularPods, o.RestartPods, o.Idle = 5, 2, 8, 2, 10, 2*time.Second
	}
	if flags.NArg() > 0 {
		return options{}, errors.New("give no arguments, only flags")
	}
	for _, n := range []int{o.Tenants - 1, o.Nodes, o.Rounds, o.BurstPods, o.LightRate, o.LightSeconds, o.GreedyPods, o.RegularPods} {
		if n < 1 {
			return options{}, errors.New("give numbers of at least 1, and at least 2 tenants")
		}
	}
	return o, nil
}

func run(ctx context.Context, args []string) error {
	ctrl.SetLogger(logr.Discard())
	o, err := parse(args)
	if err != nil {
		return err
	}
	root, err := worlds.ModuleRoot()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return fmt.Errorf("creating the directory for the results: %w", err)
	}
	if len(o.Syncers) == 0 {
		binary := filepath.Join(o.out, "vc-syncer")
		if err := build(ctx, root, binary); err != nil {
			return err
		}
		o.Syncers = []string{binary}
	}
	machine, err := document.Machine()
	if err != nil {
		return err
	}
	result := &results{Machine: machine, When: time.Now().UTC(), Options: o, Syncers: labels(o.Syncers), Still: make([]still, len(o.Syncers))}
	// What was measured until something failed is worth keeping.
	failed := measure(ctx, o, result)
	report := render(result)
	if err := errors.Join(failed, save(o.out, result, report)); err != nil {
		return err
	}
	fmt.Print(report)
	progress("results are in %s", o.out)
	if !o.write {
		return nil
	}
	return table().Update(filepath.Join(root, "docs", "performance.md"), report)
}

// measure starts everything, measures, and stops everything.
func measure(ctx context.Context, o options, result *results) (err error) {
	b, err := newBench(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.stop()) }()
	for _, step := range []func(context.Context, *results) error{b.idleMemory, b.rounds, b.restarts, b.churn} {
		if err := step(ctx, result); err != nil {
			return err
		}
	}
	return nil
}

func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "scale: %s "+format+"\n", append([]any{time.Now().Format(time.TimeOnly)}, args...)...)
}
