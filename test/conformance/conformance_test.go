package main

import (
	"bytes"
	"encoding/xml"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// results builds one result; the tests are given as name and state.
func results(target string, p string, tests ...string) result {
	r := result{Target: target, Phase: p, Processes: 2, Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Seconds: 61}
	for i := 0; i < len(tests); i += 2 {
		t := test{Name: tests[i], State: tests[i+1]}
		if t.State != passed {
			t.Message = target + " says no\nbecause"
		}
		r.Tests = append(r.Tests, t)
	}
	return r
}

func TestVerdict(t *testing.T) {
	for name, tc := range map[string]struct {
		results []result
		want    []string
	}{
		"AllPass": {
			results: []result{results(bare, "parallel", "x", passed), results("a", "parallel", "x", passed)},
		},
		"TenantFails": {
			results: []result{results(bare, "parallel", "x", passed), results("a", "parallel", "x", "failed")},
			want:    []string{"a failed: x (bare cluster: passed)"},
		},
		"TenantPanics": {
			results: []result{results(bare, "parallel", "x", passed), results("a", "parallel", "x", "panicked")},
			want:    []string{"a failed: x (bare cluster: passed)"},
		},
		"BareFailsToo": {
			results: []result{results(bare, "parallel", "x", "timedout"), results("a", "parallel", "x", "failed")},
		},
		"BareWasNotAsked": {
			results: []result{results("a", "parallel", "x", "failed")},
			want:    []string{"a failed: x (bare cluster: not asked)"},
		},
		"DidNotRunInTenant": {
			results: []result{results(bare, "serial", "x", passed), results("a", "serial", "x", absent)},
			want:    []string{"a did not run: x (bare cluster: passed)"},
		},
		"DidNotRunOnBareCluster": {
			results: []result{results(bare, "serial", "x", "skipped"), results("a", "serial", "x", passed)},
			want:    []string{"bare did not run: x"},
		},
		"OneTenantOfTwo": {
			results: []result{
				results(bare, "parallel", "x", passed), results("a", "parallel", "x", passed), results("b", "parallel", "x", "failed"),
			},
			want: []string{"b failed: x (bare cluster: passed)"},
		},
		"RepetitionChangesNothing": {
			results: []result{
				results(bare, "parallel", "x", passed), results("a", "parallel", "x", "failed"), results("a", again, "x", passed),
			},
			want: []string{"a failed: x (bare cluster: passed)"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, verdict(tc.results)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestCompleteFindsWhatDidNotRun(t *testing.T) {
	got := complete([]string{"x", "y"}, []test{
		{Name: "y", State: passed},
		{Name: "not chosen", State: "skipped"},
		{Name: "SynchronizedBeforeSuite", State: "failed", Extra: true},
		{Name: "ReportAfterSuite", State: "skipped", Extra: true},
	})
	want := []test{
		{Name: "SynchronizedBeforeSuite", State: "failed", Extra: true},
		{Name: "x", State: absent, Message: "the suite's report does not mention it"},
		{Name: "y", State: passed},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestReadReport(t *testing.T) {
	path := filepath.Join(t.TempDir(), "report.json")
	const report = `[{"SpecReports": [
		{"LeafNodeType": "SynchronizedBeforeSuite", "State": "passed"},
		{"LeafNodeType": "It", "ContainerHierarchyTexts": ["[sig-x] Y", "z"], "LeafNodeText": "works", "State": "passed", "RunTime": 1500000000,
		 "CapturedGinkgoWriterOutput": "much"},
		{"LeafNodeType": "It", "ContainerHierarchyTexts": null, "LeafNodeText": "fails", "State": "panicked", "RunTime": 0,
		 "Failure": {"Message": "Test Panicked", "ForwardedPanic": "nil"}, "CapturedGinkgoWriterOutput": "log"}
	]}]`
	if err := os.WriteFile(path, []byte(report), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := readReport(path)
	if err != nil {
		t.Fatal(err)
	}
	want := []test{
		{Name: "[sig-x] Y z works", State: passed, Seconds: 1.5},
		{Name: "fails", State: "panicked", Message: "Test Panicked\nnil", Output: "log"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestProgressCounts(t *testing.T) {
	var log bytes.Buffer
	p := &progress{log: &log}
	const output = "------\n• [3.205 seconds]\n[sig-x] good\n------\n• [FAILED] [1.000 seconds]\n[sig-x] bad\n• [PANICKED] [0.1 seconds]\n[sig-x] worse\n"
	var failed []string
	// In pieces, as a pipe delivers them.
	for piece := range strings.SplitAfterSeq(output, "e") {
		failed = append(failed, p.scan([]byte(piece))...)
	}
	if diff := cmp.Diff([]string{"[sig-x] bad", "[sig-x] worse"}, failed); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if ended, fails := p.counts(); ended != 3 || fails != 2 {
		t.Errorf("%d ended and %d failed, want 3 and 2", ended, fails)
	}
}

func TestSerialTestsRunAfterTheParallelOnes(t *testing.T) {
	tenants := []target{{name: "a"}, {name: "b"}}
	for name, tc := range map[string]struct {
		runs []string
		want [][]string
	}{
		"Default": {[]string{runTenants, runSerial}, [][]string{
			{"a-parallel", "b-parallel"}, {"a-serial", "b-serial"}, {"a-scheduler"}, {"b-scheduler"},
		}},
		"Serial": {[]string{runSerial}, [][]string{{"a-serial", "b-serial"}, {"a-scheduler"}, {"b-scheduler"}}},
		"Bare":   {[]string{runBare}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			r := runner{options: options{runs: tc.runs, processes: 2}}
			var got [][]string
			for _, p := range r.tenantPhases() {
				for _, g := range r.tenantGroups(tenants, p) {
					var names []string
					for _, e := range g {
						names = append(names, e.name())
					}
					got = append(got, names)
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestASuiteThatDiesLeavesTestsThatDidNotRun(t *testing.T) {
	dir := t.TempDir()
	s := suite{ginkgo: "/bin/false"}
	e := execution{target: "a", phase: parallelPhase(), dir: filepath.Join(dir, "a-parallel"), expected: []string{"x"}, deadline: time.Now().Add(time.Hour)}
	if err := s.run(t.Context(), e); err == nil {
		t.Error("no error although there is no report")
	}
	got, err := load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0].counts()[notRun] != 1 || len(verdict(got)) == 0 {
		t.Errorf("got %+v, want one test that did not run", got)
	}
}

func TestSaveAndLoad(t *testing.T) {
	dir := t.TempDir()
	want := []result{results("a", "parallel", "x", passed, "y", "failed"), results("a", "serial", "z", absent)}
	want[1].Started = want[0].Started.Add(time.Hour)
	for _, r := range want {
		if err := r.save(filepath.Join(dir, r.Target+"-"+r.Phase)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestJUnitCountsAndStaysReadable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "junit.xml")
	r := results("a", "parallel", "x", passed, "y", "failed", "z", "skipped")
	r.Tests[1].Output = "colour \x1b[31m and \x00 zero"
	if err := writeJUnit(path, []result{r}); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got junitSuites
	if err := xml.Unmarshal(data, &got); err != nil {
		t.Fatalf("%v\n%s", err, data)
	}
	s := got.Suites[0]
	if s.Tests != 3 || s.Failures != 1 || s.Skipped != 1 {
		t.Errorf("%d tests, %d failures, %d skipped, want 3, 1, 1", s.Tests, s.Failures, s.Skipped)
	}
	if c := s.Cases[1]; c.Failure == nil || c.Failure.Message != "a says no" || c.Output != "colour [31m and  zero" {
		t.Errorf("got %+v", c)
	}
}

func TestRender(t *testing.T) {
	all := []result{
		results(bare, "parallel", "w", "failed", "x", passed, "y", passed),
		results("a", "parallel", "w", "failed", "x", "failed", "y", passed),
		results("a", again, "x", passed),
	}
	got := render(about{
		machine: "a machine", command: "make conformance",
		total: map[string][]string{"parallel": {"w", "x", "y"}, "serial": {"z"}},
	}, all)
	const want = "Run on 2026-01-02: a machine.\n\n```\nmake conformance\n```\n\n" +
		`The suite has 3 conformance tests that may run in parallel and 1 Serial ones.

| Cluster | Tests | Passed | Failed | Did not run | Processes | Started | Duration |
|---|---|---|---|---|---|---|---|
| bare | parallel, 3 | 2 | 1 | 0 | 2 | 2026-01-02 03:04 | 1m1s |
| a | parallel, 3 | 1 | 2 | 0 | 2 | 2026-01-02 03:04 | 1m1s |
| a | again, 1 | 1 | 0 | 0 | 2 | 2026-01-02 03:04 | 1m1s |

### Not passed by a tenant

- **x**: bare passed, a failed (once more, alone: passed)
      a says no
      because

### Not passed by the bare cluster

- **w**: bare failed, a failed
      a says no
      because
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
