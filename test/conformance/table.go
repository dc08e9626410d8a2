package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/virtualcluster-io/virtualcluster/test/document"
)

// page is where the report stands in docs/conformance.md.
func page() document.Part {
	return document.Part{
		Begin: "<!-- begin of what `make conformance` writes -->",
		End:   "<!-- end of what it writes -->",
	}
}

// about is what a report says besides the results.
type about struct {
	machine, command string
	// total are the tests of each phase in the suite, whatever was chosen.
	total map[string][]string
}

// render returns the report in Markdown.
func render(a about, all []result) string {
	var b strings.Builder
	if len(all) > 0 {
		fmt.Fprintf(&b, "Run on %s: %s.\n\n", all[0].Started.UTC().Format(time.DateOnly), a.machine)
	}
	fmt.Fprintf(&b, "```\n%s\n```\n\n", a.command)
	fmt.Fprintf(&b, "The suite has %d conformance tests that may run in parallel and %d Serial ones.\n\n",
		len(a.total[parallelPhase().name]), len(a.total[serialPhase().name])+len(a.total[schedulerPhase().name]))
	b.WriteString("| Cluster | Tests | Passed | Failed | Did not run | Processes | Started | Duration |\n|---|---|---|---|---|---|---|---|\n")
	for _, r := range all {
		n := r.counts()
		fmt.Fprintf(&b, "| %s | %s, %d | %d | %d | %d | %d | %s | %s |\n", r.Target, r.Phase, n[pass]+n[fail]+n[notRun],
			n[pass], n[fail], n[notRun], r.Processes, r.Started.UTC().Format("2006-01-02 15:04"),
			(time.Duration(r.Seconds) * time.Second).String())
	}
	list := findings(all)
	b.WriteString(renderFindings("Not passed by a tenant", "No test failed in a tenant that the bare cluster passes.",
		slices.DeleteFunc(slices.Clone(list), func(f finding) bool { return len(f.tenants()) == 0 || f.excused() })))
	b.WriteString(renderFindings("Not passed by the bare cluster", "The bare cluster passes every test that ran.",
		slices.DeleteFunc(slices.Clone(list), func(f finding) bool { return !f.excused() })))
	return b.String()
}

func renderFindings(title, none string, list []finding) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n### %s\n\n", title)
	if len(list) == 0 {
		return b.String() + none + "\n"
	}
	for _, f := range list {
		fmt.Fprintf(&b, "- **%s**: %s\n", f.name, f.describe())
		for line := range strings.SplitSeq(f.excerpt(), "\n") {
			fmt.Fprintf(&b, "      %s\n", line)
		}
	}
	return b.String()
}

// describe says where it passed and where not.
func (f finding) describe() string {
	targets := []string{bare}
	for target := range f.outcomes {
		if target != bare {
			targets = append(targets, target)
		}
	}
	slices.Sort(targets[1:])
	var parts []string
	for _, target := range targets {
		part := target + " " + f.outcomes[target].String()
		if o, ok := f.repeated[target]; ok {
			part += fmt.Sprintf(" (once more, alone: %s)", o)
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ", ")
}

// excerpt is the beginning of the message.
func (f finding) excerpt() string {
	const lines, columns = 4, 160
	var kept []string
	for line := range strings.Lines(printable(f.message)) {
		line = strings.TrimRight(line, " \n")
		if line == "" {
			continue
		}
		if r := []rune(line); len(r) > columns {
			line = string(r[:columns]) + "…"
		}
		if kept = append(kept, line); len(kept) == lines {
			break
		}
	}
	return strings.Join(kept, "\n")
}
