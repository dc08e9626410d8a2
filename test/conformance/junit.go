package main

import (
	"encoding/xml"
	"fmt"
	"os"
	"strings"
	"unicode"
)

// The part of the JUnit format that readers agree on.
type (
	junitSuites struct {
		XMLName xml.Name     `xml:"testsuites"`
		Suites  []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name      string      `xml:"name,attr"`
		Tests     int         `xml:"tests,attr"`
		Failures  int         `xml:"failures,attr"`
		Skipped   int         `xml:"skipped,attr"`
		Time      string      `xml:"time,attr"`
		Timestamp string      `xml:"timestamp,attr"`
		Cases     []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Name      string        `xml:"name,attr"`
		ClassName string        `xml:"classname,attr"`
		Time      string        `xml:"time,attr"`
		Failure   *junitMessage `xml:"failure,omitempty"`
		Skipped   *junitMessage `xml:"skipped,omitempty"`
		Output    string        `xml:"system-out,omitempty"`
	}
	junitMessage struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
)

// writeJUnit writes results as one suite for each execution.
func writeJUnit(path string, all []result) error {
	var doc junitSuites
	for _, r := range all {
		doc.Suites = append(doc.Suites, r.junit())
	}
	data, err := xml.MarshalIndent(doc, "", " ")
	if err != nil {
		return fmt.Errorf("encoding JUnit: %w", err)
	}
	if err := os.WriteFile(path, append([]byte(xml.Header), append(data, '\n')...), 0o644); err != nil {
		return fmt.Errorf("writing JUnit: %w", err)
	}
	return nil
}

func (r result) junit() junitSuite {
	s := junitSuite{
		Name:      r.Target + " " + r.Phase,
		Time:      junitSeconds(r.Seconds),
		Timestamp: r.Started.Format("2006-01-02T15:04:05"),
	}
	for _, t := range r.Tests {
		c := junitCase{Name: t.Name, ClassName: s.Name, Time: junitSeconds(t.Seconds), Output: printable(t.Output)}
		message := &junitMessage{Message: firstLine(t.Message), Text: printable(t.Message)}
		switch t.outcome() {
		case fail:
			s.Failures++
			c.Failure = message
		case notRun:
			s.Skipped++
			c.Skipped = message
		}
		s.Tests++
		s.Cases = append(s.Cases, c)
	}
	return s
}

func junitSeconds(s float64) string { return fmt.Sprintf("%.3f", s) }

// printable drops what XML cannot hold; containers write anything.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return -1
	}, s)
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(printable(s), "\n")
	return line
}
