// Command conformance runs the conformance tests of the upstream end-to-end suite: on the bare super cluster, in all
// tenants at the same time, and the Serial ones in one tenant after the other. It writes logs, JUnit files and a report
// that says of each test that did not pass whether the bare cluster passes it. It starts no cluster; hack/conformance does.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/virtualcluster-io/virtualcluster/internal/command"
	"github.com/virtualcluster-io/virtualcluster/test/document"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

func main() { os.Exit(command.Run("conformance", run)) }

// options are what the command line says.
type options struct {
	kubeconfig, dir, bare string
	runs, tenants         []string
	focus, skip           []string
	processes             int
	privileged            bool
	timeout               time.Duration
	write                 bool
	command               string
}

// Names of runs on the command line.
const (
	runBare    = "bare"
	runTenants = "tenants"
	runSerial  = "serial"
	runAgain   = "again"
	runReport  = "report"
)

func parse(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("conformance", flag.ContinueOnError)
	flags.StringVar(&o.kubeconfig, "kubeconfig", "", "Kubeconfig of the super cluster's administrator (default: _local/conform.kubeconfig).")
	flags.StringVar(&o.dir, "dir", "", "Folder of the results; those of other runs that are there count, too (default: a new one in _local/conformance).")
	flags.StringVar(&o.bare, "bare", "", "Folder with results of the bare cluster to compare with, if this run has none (default: the newest of all tests).")
	runs := flags.String("runs", "bare,tenants,serial", "What to run: bare (all tests, on the super cluster), tenants (parallel tests in all tenants at the same time), serial (Serial tests in tenants, those of the scheduler with schedulers of the tenants), again (what failed in tenants, once and alone; both results are reported, and the first one counts), report (nothing, only the report).")
	tenants := flags.String("tenants", "tenants/tenant-a,tenants/tenant-b", "VirtualClusters to run in.")
	focus := flags.String("focus", "", "Regular expression: run only tests whose name matches.")
	skip := flags.String("skip", "", "Regular expression: leave tests out whose name matches.")
	flags.IntVar(&o.processes, "procs", 4, "Processes in each tenant; the bare cluster gets as many as all tenants together.")
	flags.BoolVar(&o.privileged, "privileged", true, "As administrator, allow the tenants privileged pods first; with false, forbid them.")
	flags.DurationVar(&o.timeout, "timeout", 5*time.Hour, "Limit of the whole run.")
	flags.BoolVar(&o.write, "write", false, "Write the report into docs/conformance.md.")
	flags.StringVar(&o.command, "command", "go run ./test/conformance "+strings.Join(args, " "), "The command that the report names.")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	o.runs, o.tenants, o.focus, o.skip = list(*runs), list(*tenants), one(*focus), one(*skip)
	if flags.NArg() > 0 || o.processes < 1 || len(o.runs) == 0 {
		return o, errors.New("give no arguments, at least one process, and at least one run")
	}
	for _, t := range o.tenants {
		if namespace, name, _ := strings.Cut(t, "/"); namespace == "" || name == "" {
			return o, fmt.Errorf("tenant %q: want namespace/name", t)
		}
	}
	for _, r := range o.runs {
		if !slices.Contains([]string{runBare, runTenants, runSerial, runAgain, runReport}, r) {
			return o, fmt.Errorf("unknown run %q", r)
		}
	}
	return o, nil
}

// list splits at commas and spaces.
func list(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
}

func one(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

func run(ctx context.Context, args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	root, err := worlds.ModuleRoot()
	if err != nil {
		return err
	}
	local := filepath.Join(root, "_local")
	o.kubeconfig = cmp.Or(o.kubeconfig, filepath.Join(local, "conform.kubeconfig"))
	o.dir = cmp.Or(o.dir, filepath.Join(local, "conformance", time.Now().UTC().Format("20060102-150405")))
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return fmt.Errorf("resolving %s: %w", o.dir, err)
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	s, err := newSuite(filepath.Join(local, "bin"))
	if err != nil {
		return err
	}
	total, err := s.catalogue(ctx)
	if err != nil {
		return err
	}
	expected := total
	if s.focus, s.skip = o.focus, o.skip; len(s.focus)+len(s.skip) > 0 {
		if expected, err = s.catalogue(ctx); err != nil {
			return err
		}
	}
	machine, err := document.Machine()
	if err != nil {
		return err
	}
	a := about{machine: machine, command: o.command, total: total}
	r := runner{options: o, suite: s, bin: filepath.Join(local, "bin"), expected: expected}
	// Whoever stops us wants to see what there is.
	return errors.Join(r.all(ctx), conclude(root, o, a))
}

// conclude writes the report and returns an error unless all is well.
func conclude(root string, o options, a about) error {
	all, err := load(o.dir)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return fmt.Errorf("no results in %s", o.dir)
	}
	if !slices.ContainsFunc(all, result.isBare) {
		earlier, err := earlierBare(o)
		if err != nil {
			return err
		}
		all = append(earlier, all...)
	}
	report := render(a, all)
	fmt.Print(report)
	if err := os.WriteFile(filepath.Join(o.dir, "report.md"), []byte(report), 0o644); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	if err := writeJUnit(filepath.Join(o.dir, "junit.xml"), all); err != nil {
		return err
	}
	if o.write {
		if err := page().Update(filepath.Join(root, "docs", "conformance.md"), report); err != nil {
			return err
		}
	}
	if reasons := verdict(all); len(reasons) > 0 {
		return fmt.Errorf("%d tests did not pass that should:\n  %s", len(reasons), strings.Join(reasons, "\n  "))
	}
	return nil
}

// earlierBare returns the results of the bare cluster to compare with: those asked for, or else the newest with all tests.
func earlierBare(o options) ([]result, error) {
	dirs := []string{o.bare}
	if o.bare == "" {
		var err error
		if dirs, err = filepath.Glob(filepath.Join(filepath.Dir(o.dir), "*")); err != nil {
			return nil, fmt.Errorf("looking for earlier runs: %w", err)
		}
	}
	// Folders are named by time.
	slices.Sort(dirs)
	for _, dir := range slices.Backward(dirs) {
		all, err := load(dir)
		if err != nil {
			return nil, err
		}
		all = slices.DeleteFunc(all, func(r result) bool {
			return !r.isBare() || o.bare == "" && len(r.Focus)+len(r.Skip) > 0
		})
		if len(all) > 0 {
			return all, nil
		}
	}
	return nil, nil
}
