// Package document keeps what programs measure in pages of docs: it puts a generated part into a page and says on which
// machine it was measured. It measures nothing. The benchmark and the conformance run use it.
package document

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Part is what a program writes into a page, between two lines that people do not touch.
type Part struct {
	Begin, End string
}

// Update replaces the part of the page at path.
func (p Part) Update(path, text string) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading the document: %w", err)
	}
	updated, err := p.replace(string(old), text)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := os.WriteFile(path, []byte(updated), 0o644); err != nil {
		return fmt.Errorf("writing the document: %w", err)
	}
	return nil
}

func (p Part) replace(page, text string) (string, error) {
	before, rest, ok := strings.Cut(page, p.Begin+"\n")
	if !ok {
		return "", fmt.Errorf("no line %q", p.Begin)
	}
	_, after, ok := strings.Cut(rest, p.End)
	if !ok {
		return "", fmt.Errorf("no line %q", p.End)
	}
	return before + p.Begin + "\n" + text + p.End + after, nil
}

// Machine names the machine that figures are of.
func Machine() (string, error) {
	var uname unix.Utsname
	if err := unix.Uname(&uname); err != nil {
		return "", fmt.Errorf("asking for the kernel: %w", err)
	}
	cpuinfo, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "", fmt.Errorf("reading the processor: %w", err)
	}
	model := "unknown processor"
	for line := range strings.Lines(string(cpuinfo)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			model = strings.TrimSpace(value)
			break
		}
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return "", fmt.Errorf("asking for the memory: %w", err)
	}
	gib := float64(info.Totalram) * float64(info.Unit) / (1 << 30)
	return fmt.Sprintf("%d cores (%s), %.0f GiB, Linux %s %s", runtime.NumCPU(), model, gib,
		unix.ByteSliceToString(uname.Release[:]), unix.ByteSliceToString(uname.Machine[:])), nil
}
