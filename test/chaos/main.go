// Command chaos finds out whether vc-syncer keeps its promises when everything around it fails. It runs the real programs on one
// machine: the control planes of a super cluster and of tenants, each with an etcd of its own, a scheduler, fake nodes, vc-manager
// and two replicas of vc-syncer. For some minutes, users of the tenants create, update and delete, and faults from a seeded schedule
// happen. When all is healed, both sides are compared in full: nothing is lost, doubled, orphaned or on a wrong side, and tenants have
// what they were told. While the control plane of a tenant is empty or restored from a backup, nothing of it may be deleted.
//
// Cuts, stalls and delays are those of TCP proxies between vc-syncer and each API server, not of network namespaces. Full disks are
// those of tmpfs mounts in a mount namespace of this process. Tenants are External VirtualClusters, because control planes that
// vc-manager makes need kubelets; so do vn-agents, which do not take part.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/virtualcluster-io/virtualcluster/internal/command"
)

// mountsEnv says that this process is in a mount namespace of its own.
const mountsEnv = "CHAOS_MOUNTS"

// settleTimeout is how long both sides may take to be the same after the last fault.
const settleTimeout = 3 * time.Minute

func main() {
	if err := isolate(); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
	os.Exit(command.Run("chaos", run))
}

// isolate starts this program again in a mount namespace of its own, where that is allowed: what it mounts ends with it.
func isolate() error {
	if os.Getenv(mountsEnv) != "" {
		return nil
	}
	args := []string{"unshare", "--mount"}
	if os.Geteuid() != 0 {
		args = append(args, "--map-root-user")
	}
	//nolint:noctx // it ends at once
	allowed := exec.Command(args[0], append(args[1:], "true")...).Run() == nil
	if !allowed {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	unshare, err := exec.LookPath(args[0])
	if err != nil {
		return fmt.Errorf("finding unshare: %w", err)
	}
	return syscall.Exec(unshare, append(append(args, self), os.Args[1:]...), append(os.Environ(), mountsEnv+"=1"))
}

// options are what the command line says.
type options struct {
	Seed     uint64
	Duration time.Duration

	setting  setting
	interval time.Duration
	race     bool
	replay   string
	out      string
}

func parse(args []string) (options, error) {
	o := options{setting: setting{Syncers: 2, Disks: os.Getenv(mountsEnv) != ""}}
	flags := flag.NewFlagSet("chaos", flag.ContinueOnError)
	flags.Func("seed", "Seed of the faults and of the load; a new one by default.", func(text string) error {
		_, err := fmt.Sscan(text, &o.Seed)
		return err
	})
	flags.DurationVar(&o.Duration, "duration", 15*time.Minute, "Time for which faults happen.")
	flags.IntVar(&o.setting.Tenants, "tenants", 2, "Number of tenants.")
	flags.DurationVar(&o.interval, "interval", 100*time.Millisecond, "Pause of each of the two workers of a tenant after each change.")
	flags.BoolVar(&o.race, "race", false, "Build our programs with the race detector.")
	flags.StringVar(&o.replay, "replay", "", "File with a schedule, such as schedule.json of an earlier run, in place of that of the seed.")
	flags.StringVar(&o.out, "out", filepath.Join("_local", "chaos", time.Now().UTC().Format("20060102-150405")), "Directory for schedule and logs.")
	if err := flags.Parse(args); err != nil {
		return options{}, err
	}
	if flags.NArg() > 0 || o.setting.Tenants < 1 || o.Duration < calm || o.interval <= 0 {
		return options{}, fmt.Errorf("give no arguments, at least one tenant, a duration of at least %s and an interval", calm)
	}
	if o.Seed == 0 {
		o.Seed = rand.Uint64N(1_000_000) + 1
	}
	return o, nil
}

func run(ctx context.Context, args []string) error {
	ctrl.SetLogger(logr.Discard())
	o, err := parse(args)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return fmt.Errorf("creating the directory for logs: %w", err)
	}
	faults, err := o.schedule()
	if err != nil {
		return err
	}
	if !o.setting.Disks {
		progress("no mount namespace can be made here, so no disk is filled")
	}
	progress("seed %d, %d faults in %s; logs are in %s", o.Seed, len(faults), o.Duration, o.out)
	findings, err := suffer(ctx, o, faults)
	if err != nil {
		return err
	}
	for _, f := range findings {
		fmt.Println(f)
	}
	if len(findings) > 0 {
		return fmt.Errorf("%d things are wrong with SEED=%d DURATION=%s; logs are in %s", len(findings), o.Seed, o.Duration, o.out)
	}
	fmt.Printf("Nothing is lost, doubled, orphaned or on a wrong side after %d faults (SEED=%d DURATION=%s).\n", len(faults), o.Seed, o.Duration)
	return nil
}

// schedule returns the faults, and prints them.
func (o options) schedule() ([]fault, error) {
	faults := generate(o.Seed, o.Duration, o.setting)
	if o.replay != "" {
		text, err := os.ReadFile(o.replay)
		if err != nil {
			return nil, fmt.Errorf("reading the schedule: %w", err)
		}
		faults = nil
		if err := json.Unmarshal(text, &faults); err != nil {
			return nil, fmt.Errorf("reading the schedule: %w", err)
		}
	}
	text := []byte("[\n")
	for i, f := range faults {
		line, err := json.Marshal(f)
		if err != nil {
			return nil, fmt.Errorf("writing the schedule: %w", err)
		}
		if i > 0 {
			text = append(text, ",\n"...)
		}
		text = append(append(text, "  "...), line...)
	}
	text = append(text, "\n]\n"...)
	fmt.Print(string(text))
	if err := os.WriteFile(filepath.Join(o.out, "schedule.json"), text, 0o600); err != nil {
		return nil, fmt.Errorf("writing the schedule: %w", err)
	}
	return faults, nil
}

// suffer starts everything, lets the faults happen under load, compares, and stops everything.
func suffer(ctx context.Context, o options, faults []fault) (found []finding, err error) {
	h, err := newHarness(ctx, o)
	defer func() { err = errors.Join(err, h.stop()) }()
	if err != nil {
		return nil, err
	}
	working, rest := context.WithCancel(ctx)
	defer rest()
	load := h.work(working)
	h.run(ctx, faults)
	rest()
	load.Wait()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	for name, t := range h.tenants {
		progress("%s was told of %d changes", name, t.done.Load())
	}
	progress("all faults are healed; comparing")
	start := time.Now()
	found = h.settle(ctx, settleTimeout)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	progress("compared after %s", time.Since(start).Round(time.Second))
	found = append(h.findings, found...)
	for _, p := range h.programs {
		progress("%s was started %d times", p.name, p.starts)
		panics, err := p.panics()
		if err != nil {
			return nil, err
		}
		found = append(found, panics...)
	}
	return found, nil
}

func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "chaos: %s "+format+"\n", append([]any{time.Now().Format(time.TimeOnly)}, args...)...)
}
