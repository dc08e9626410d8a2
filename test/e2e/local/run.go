package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	utilrand "k8s.io/apimachinery/pkg/util/rand"
)

// CommandTimeout bounds every command; those that wait for something have shorter timeouts of their own.
const CommandTimeout = 3 * time.Minute

// Unique makes a name that no earlier run that was killed can have left behind.
func Unique(prefix string) string { return prefix + "-" + utilrand.String(5) }

// Result is how a command ended.
type Result struct {
	Stdout, Stderr string
	Code           int
}

func (r Result) String() string {
	return fmt.Sprintf("exit code %d\nstdout: %s\nstderr: %s", r.Code, r.Stdout, r.Stderr)
}

// Run runs a command to its end and does not judge it.
func Run(t testing.TB, stdin string, cmd *exec.Cmd) Result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	// A child that keeps the pipes open must not keep us.
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatalf("running %s: %v", strings.Join(cmd.Args, " "), err)
	}
	return Result{Stdout: stdout.String(), Stderr: stderr.String(), Code: cmd.ProcessState.ExitCode()}
}

// Must runs a command of _local/bin and fails the test when the command fails.
func (a *Access) Must(t testing.TB, stdin, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), CommandTimeout)
	defer cancel()
	got := Run(t, stdin, a.Command(ctx, name, args...))
	if got.Code != 0 {
		t.Fatalf("%s: %s %s: %s", a.Name, name, strings.Join(args, " "), got)
	}
	return got.Stdout
}

// Kubectl runs kubectl and fails the test when it fails.
func (a *Access) Kubectl(t testing.TB, args ...string) string {
	t.Helper()
	return a.Must(t, "", "kubectl", args...)
}

// Fails runs kubectl, expects it to fail and returns what it said.
func (a *Access) Fails(t testing.TB, stdin string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), CommandTimeout)
	defer cancel()
	got := Run(t, stdin, a.Command(ctx, "kubectl", args...))
	if got.Code == 0 {
		t.Fatalf("%s: kubectl %s succeeded: %s", a.Name, strings.Join(args, " "), got)
	}
	return got.Stderr
}

// Cleanup runs a command of _local/bin when the test has ended and reports a failure.
func (a *Access) Cleanup(t testing.TB, name string, args ...string) {
	t.Cleanup(func() {
		// The context of the test has ended by now.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), CommandTimeout)
		defer cancel()
		if got := Run(t, "", a.Command(ctx, name, args...)); got.Code != 0 {
			t.Errorf("%s: cleaning up: %s %s: %s", a.Name, name, strings.Join(args, " "), got)
		}
	})
}

// RunTests runs the tests of a package that needs the local cluster with two tenants, and returns the exit code.
func RunTests(m *testing.M) int {
	if _, err := Open(context.Background(), 2); err != nil {
		fmt.Fprintln(os.Stderr, "local cluster:", err)
		return 1
	}
	cache, err := os.MkdirTemp("", "e2e-kubectl-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "creating a cache for kubectl:", err)
		return 1
	}
	defer func() { _ = os.RemoveAll(cache) }()
	if err := os.Setenv("KUBECACHEDIR", cache); err != nil {
		fmt.Fprintln(os.Stderr, "setting the cache for kubectl:", err)
		return 1
	}
	return m.Run()
}
