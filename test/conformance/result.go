package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// passed is what the suite calls a test that did.
const passed = "passed"

// absent is the state of a test that the suite does not mention although it should have run.
const absent = "absent"

// test is what became of one test.
type test struct {
	Name    string  `json:"name"`
	State   string  `json:"state"`
	Seconds float64 `json:"seconds"`
	// Message says why it failed or was skipped.
	Message string `json:"message,omitempty"`
	// Output is the log of the test, unless it passed.
	Output string `json:"output,omitempty"`
	// Extra marks what is no test: preparation and cleaning up of the suite.
	Extra bool `json:"extra,omitempty"`
}

// outcome is what counts.
type outcome int

const (
	unknown outcome = iota
	pass
	fail
	notRun
)

func (o outcome) String() string {
	return [...]string{"not asked", "passed", "failed", "did not run"}[o]
}

func (t test) outcome() outcome {
	switch t.State {
	case passed:
		return pass
	case "skipped", "pending", absent:
		return notRun
	default:
		return fail
	}
}

// result is what became of all tests of one execution.
type result struct {
	Target    string    `json:"target"`
	Phase     string    `json:"phase"`
	Processes int       `json:"processes"`
	Focus     []string  `json:"focus,omitempty"`
	Skip      []string  `json:"skip,omitempty"`
	Started   time.Time `json:"started"`
	Seconds   float64   `json:"seconds"`
	Tests     []test    `json:"tests"`
}

// complete returns one entry for each expected test, and the failures of what is no test.
func complete(expected []string, reported []test) []test {
	byName := map[string]test{}
	var all []test
	for _, t := range reported {
		if t.Extra {
			if t.outcome() == fail {
				all = append(all, t)
			}
			continue
		}
		byName[t.Name] = t
	}
	for _, name := range expected {
		t, ok := byName[name]
		if !ok {
			t = test{Name: name, State: absent, Message: "the suite's report does not mention it"}
		}
		all = append(all, t)
	}
	return all
}

// counts returns the number of tests with each outcome; what is no test is not counted.
func (r result) counts() map[outcome]int {
	n := map[outcome]int{}
	for _, t := range r.Tests {
		if !t.Extra {
			n[t.outcome()]++
		}
	}
	return n
}

// resultFile is written next to the logs.
const resultFile = "result.json"

func (r result) save(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("making the folder of the results: %w", err)
	}
	data, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return fmt.Errorf("encoding the results: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, resultFile), data, 0o644); err != nil {
		return fmt.Errorf("writing the results: %w", err)
	}
	return writeJUnit(filepath.Join(dir, "junit.xml"), []result{r})
}

// load reads the results of all executions in a folder, in the order in which they were made.
func load(dir string) ([]result, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*", resultFile))
	if err != nil {
		return nil, fmt.Errorf("looking for results: %w", err)
	}
	var all []result
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("reading results: %w", err)
		}
		var r result
		if err := json.Unmarshal(data, &r); err != nil {
			return nil, fmt.Errorf("parsing %s: %w", file, err)
		}
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b result) int {
		return cmp.Or(a.Started.Truncate(time.Minute).Compare(b.Started.Truncate(time.Minute)), strings.Compare(a.Target, b.Target))
	})
	return all, nil
}

// bare is the target that is no tenant.
const bare = "bare"

// again is the phase that repeats, once and apart, what failed. It is reported and changes no verdict.
const again = "again"

// finding is a test that did not pass everywhere.
type finding struct {
	name string
	// outcomes by target, and the repetitions.
	outcomes, repeated map[string]outcome
	// message of the first target where it did not pass, tenants first.
	message string
}

// excused tells whether the bare cluster does not pass the test either.
func (f finding) excused() bool {
	return f.outcomes[bare] == fail || f.outcomes[bare] == notRun
}

// tenants that did not pass.
func (f finding) tenants() []string {
	var list []string
	for target, o := range f.outcomes {
		if target != bare && o != pass {
			list = append(list, target)
		}
	}
	slices.Sort(list)
	return list
}

// findings compares all results, by name.
func findings(all []result) []finding {
	byName := map[string]*finding{}
	// The bare cluster comes last, so that the message is a tenant's if there is one.
	ordered := slices.Clone(all)
	slices.SortStableFunc(ordered, func(a, b result) int { return rank(a) - rank(b) })
	for _, r := range ordered {
		for _, t := range r.Tests {
			f := byName[t.Name]
			if f == nil {
				f = &finding{name: t.Name, outcomes: map[string]outcome{}, repeated: map[string]outcome{}}
				byName[t.Name] = f
			}
			if r.Phase == again {
				f.repeated[r.Target] = t.outcome()
				continue
			}
			f.outcomes[r.Target] = t.outcome()
			if t.outcome() != pass && f.message == "" {
				f.message = t.Message
			}
		}
	}
	var list []finding
	for _, f := range byName {
		for _, o := range f.outcomes {
			if o != pass {
				list = append(list, *f)
				break
			}
		}
	}
	slices.SortFunc(list, func(a, b finding) int { return strings.Compare(a.name, b.name) })
	return list
}

func (r result) isBare() bool { return r.Target == bare }

func rank(r result) int {
	if r.isBare() {
		return 1
	}
	return 0
}

// verdict returns why the run is no success, nothing if it is one.
func verdict(all []result) []string {
	var reasons []string
	for _, f := range findings(all) {
		for _, target := range f.tenants() {
			if !f.excused() {
				reasons = append(reasons, fmt.Sprintf("%s %s: %s (bare cluster: %s)", target, f.outcomes[target], f.name, f.outcomes[bare]))
			}
		}
		// Who is not asked cannot answer: the list of what the bare cluster cannot do has to be complete.
		if f.outcomes[bare] == notRun {
			reasons = append(reasons, fmt.Sprintf("%s %s: %s", bare, notRun, f.name))
		}
	}
	return reasons
}
