package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// phase is the part of the conformance tests that one process group of the suite runs.
type phase struct {
	name string
	// filter selects the tests by their labels.
	filter string
}

// The tests that may run side by side, and those that must not. Of these, tenants run the ones of the scheduler, which
// preempt pods and resize nodes, with a scheduler of their own.
func parallelPhase() phase  { return phase{"parallel", "Conformance && !Serial"} }
func serialPhase() phase    { return phase{"serial", "Conformance && Serial && !sig-scheduling"} }
func schedulerPhase() phase { return phase{"scheduler", "Conformance && Serial && sig-scheduling"} }

func phases() []phase { return []phase{parallelPhase(), serialPhase(), schedulerPhase()} }

// suite is the upstream end-to-end suite, with the program that runs several processes of it.
type suite struct {
	ginkgo, binary, kubectl string
	focus, skip             []string
}

func newSuite(bin string) (suite, error) {
	s := suite{
		ginkgo:  filepath.Join(bin, "ginkgo"),
		binary:  filepath.Join(bin, "e2e.test"),
		kubectl: filepath.Join(bin, "kubectl"),
	}
	for _, program := range []string{s.ginkgo, s.binary, s.kubectl} {
		if _, err := os.Stat(program); err != nil {
			return suite{}, fmt.Errorf("finding the suite (make conformance-suite builds it): %w", err)
		}
	}
	return s, nil
}

// selection are the flags that choose tests.
func (s suite) selection(prefix string, p phase) []string {
	args := []string{prefix + "label-filter=" + p.filter}
	for _, f := range s.focus {
		args = append(args, prefix+"focus="+f)
	}
	for _, f := range s.skip {
		args = append(args, prefix+"skip="+f)
	}
	return args
}

// expected asks the suite which tests a phase has, without running any.
func (s suite) expected(ctx context.Context, p phase) ([]string, error) {
	dir, err := os.MkdirTemp("", "conformance-")
	if err != nil {
		return nil, fmt.Errorf("making a temporary folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	report := filepath.Join(dir, "report.json")
	args := append(s.selection("--ginkgo.", p), "--ginkgo.dry-run", "--ginkgo.json-report="+report)
	out, err := exec.CommandContext(ctx, s.binary, args...).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("asking the suite for its %s tests: %w: %s", p.name, err, lastLines(string(out), 5))
	}
	tests, err := readReport(report)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, t := range tests {
		if t.State == passed {
			names = append(names, t.Name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// catalogue returns the tests of all phases.
func (s suite) catalogue(ctx context.Context) (map[string][]string, error) {
	all := map[string][]string{}
	chosen := 0
	for _, p := range phases() {
		names, err := s.expected(ctx, p)
		if err != nil {
			return nil, err
		}
		all[p.name] = names
		chosen += len(names)
	}
	if chosen == 0 {
		return nil, errors.New("no conformance test is chosen")
	}
	return all, nil
}

// execution is one process group of the suite against one cluster.
type execution struct {
	target     string
	phase      phase
	kubeconfig string
	processes  int
	// dir gets logs and reports.
	dir      string
	expected []string
	deadline time.Time
}

func (e execution) name() string { return e.target + "-" + e.phase.name }

// run runs the tests and writes down what became of every expected one. Tests that fail are a result, not an error.
func (s suite) run(ctx context.Context, e execution) error {
	r := result{Target: e.target, Phase: e.phase.name, Processes: e.processes, Focus: s.focus, Skip: s.skip, Started: time.Now().UTC()}
	if len(e.expected) == 0 {
		return nil
	}
	if err := os.MkdirAll(e.dir, 0o755); err != nil {
		return fmt.Errorf("making the folder of the results: %w", err)
	}
	report := filepath.Join(e.dir, reportFile)
	// A report of an earlier run would be taken for this one's.
	if err := os.RemoveAll(report); err != nil {
		return fmt.Errorf("removing an old report: %w", err)
	}
	ended := s.start(ctx, e)
	r.Seconds = time.Since(r.Started).Seconds()
	tests, err := readReport(report)
	if err != nil {
		err = fmt.Errorf("running %s: %w", e.name(), errors.Join(ended, err))
		tests = []test{{Name: "Report", State: "failed", Message: err.Error(), Extra: true}}
	}
	r.Tests = complete(e.expected, tests)
	return errors.Join(err, r.save(e.dir))
}

// start runs the processes and waits for them. That tests failed shows in the report; only without one the error tells
// something.
func (s suite) start(ctx context.Context, e execution) error {
	log, err := os.Create(filepath.Join(e.dir, logFile))
	if err != nil {
		return fmt.Errorf("creating the log: %w", err)
	}
	defer func() { _ = log.Close() }()
	shown := newProgress(e.name(), len(e.expected), log)
	defer shown.stop()

	args := append(s.selection("--", e.phase),
		"--procs="+strconv.Itoa(e.processes),
		// Otherwise tenants that start in the same second run the same tests at the same moment, and two pods that want the same
		// port of the same node cannot both have it.
		"--seed="+strconv.Itoa(int(rand.Int32())),
		// Time to clean up and to write the report.
		"--timeout="+time.Until(e.deadline.Add(-3*time.Minute)).Round(time.Second).String(),
		"--grace-period=1m",
		"--poll-progress-after=5m",
		"--no-color", "-v", "--silence-skips",
		"--output-dir="+e.dir,
		"--json-report="+reportFile,
		s.binary,
		"--",
		"--kubeconfig="+e.kubeconfig,
		"--kubectl-path="+s.kubectl,
		"--provider=skeleton",
		"--disable-log-dump",
		"--e2e-output-dir="+e.dir,
	)
	cmd := exec.CommandContext(ctx, s.ginkgo, args...)
	cmd.Dir = e.dir
	// kubectl keeps what it learns about an API server by address; an earlier one may have had this address.
	cmd.Env = append(os.Environ(), "KUBECACHEDIR="+filepath.Join(e.dir, "kubectl"))
	cmd.Stdout, cmd.Stderr = shown, shown
	// A group of its own: who stops us must reach all processes of the suite, once.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = 2 * time.Minute
	err = cmd.Run()
	if cmd.Process != nil {
		// Who did not end in time, or lost its parent.
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	if err != nil {
		return fmt.Errorf("see %s: %w", log.Name(), err)
	}
	return nil
}

// Names of the files of an execution.
const (
	reportFile = "report.json"
	logFile    = "suite.log"
)

// readReport reads what ginkgo reports about each test.
func readReport(path string) ([]test, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the report: %w", err)
	}
	var suites []struct {
		SpecReports []struct {
			ContainerHierarchyTexts []string
			LeafNodeType            string
			LeafNodeText            string
			State                   string
			RunTime                 time.Duration
			Failure                 struct {
				Message        string
				ForwardedPanic string
			}
			CapturedGinkgoWriterOutput string
		}
	}
	if err := json.Unmarshal(data, &suites); err != nil {
		return nil, fmt.Errorf("parsing %s: %w", path, err)
	}
	var tests []test
	for _, s := range suites {
		for _, spec := range s.SpecReports {
			t := test{
				Name:    strings.Join(append(spec.ContainerHierarchyTexts, spec.LeafNodeText), " "),
				State:   spec.State,
				Seconds: spec.RunTime.Seconds(),
				Message: strings.TrimSpace(spec.Failure.Message + "\n" + spec.Failure.ForwardedPanic),
			}
			if spec.LeafNodeType != "It" {
				// Preparation and cleaning up: worth mentioning when they fail.
				if t.State == passed {
					continue
				}
				t.Name, t.Extra = spec.LeafNodeType, true
			}
			if t.State != passed {
				t.Output = spec.CapturedGinkgoWriterOutput
			}
			tests = append(tests, t)
		}
	}
	return tests, nil
}

// lastLines is the end of a text.
func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
