package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/virtualcluster-io/virtualcluster/test/e2e/local"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

// open returns the local cluster with two tenants.
func open(t *testing.T) (*local.Cluster, *local.Tenant, *local.Tenant) {
	t.Helper()
	c, err := local.Open(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	return c, c.Tenants[0], c.Tenants[1]
}

func unique(prefix string) string { return local.Unique(prefix) }

func try(t testing.TB, stdin string, cmd *exec.Cmd) local.Result {
	t.Helper()
	return local.Run(t, stdin, cmd)
}

// must runs kubectl as somebody and fails the test when kubectl fails.
func must(t testing.TB, a *local.Access, args ...string) string {
	t.Helper()
	return a.Kubectl(t, args...)
}

func mustInput(t testing.TB, a *local.Access, stdin string, args ...string) string {
	t.Helper()
	return a.Must(t, stdin, "kubectl", args...)
}

// fails runs kubectl as somebody, expects it to fail and returns what it said.
func fails(t testing.TB, a *local.Access, args ...string) string {
	t.Helper()
	return a.Fails(t, "", args...)
}

// cleanup runs kubectl when the test has ended and reports a failure.
func cleanup(t testing.TB, a *local.Access, args ...string) {
	t.Helper()
	a.Cleanup(t, "kubectl", args...)
}

// session is a command that somebody talks to.
type session struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	done chan struct{}

	mu   sync.Mutex
	text []byte
}

func (s *session) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text = append(s.text, p...)
	return len(p), nil
}

func (s *session) output() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(s.text)
}

// talk starts a command with pipes. The end of the test ends it.
func talk(t testing.TB, cmd *exec.Cmd) *session {
	t.Helper()
	s := &session{cmd: cmd, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = s, s
	cmd.WaitDelay = 5 * time.Second
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatalf("making a pipe: %v", err)
	}
	s.in = in
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting %s: %v", strings.Join(cmd.Args, " "), err)
	}
	go func() {
		defer close(s.done)
		// How it ended is read from the process state.
		_ = cmd.Wait()
	}()
	t.Cleanup(s.kill)
	return s
}

// typeAt starts a command at a terminal of 40 rows and 100 columns.
func typeAt(t testing.TB, cmd *exec.Cmd) *session {
	t.Helper()
	s := &session{cmd: cmd, done: make(chan struct{})}
	terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 40, Cols: 100})
	if err != nil {
		t.Fatalf("starting %s at a terminal: %v", strings.Join(cmd.Args, " "), err)
	}
	s.in = terminal
	go func() {
		defer close(s.done)
		// A terminal whose last process has ended answers with an error instead of an end of file.
		_, _ = io.Copy(s, terminal)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		s.kill()
		_ = terminal.Close()
	})
	return s
}

func (s *session) send(t testing.TB, line string) {
	t.Helper()
	if _, err := io.WriteString(s.in, line+"\n"); err != nil {
		t.Fatalf("writing to %s: %v; output: %s", strings.Join(s.cmd.Args, " "), err, s.output())
	}
}

// expect waits for a text in the output.
func (s *session) expect(t testing.TB, want string) {
	t.Helper()
	worlds.Eventually(t, 30*time.Second, fmt.Sprintf("%q", want), func(context.Context) error {
		if got := s.output(); !strings.Contains(got, want) {
			return fmt.Errorf("output of %s is %q", strings.Join(s.cmd.Args, " "), got)
		}
		return nil
	})
}

// exit waits for the end and returns the exit code.
func (s *session) exit(t testing.TB) int {
	t.Helper()
	worlds.Eventually(t, 30*time.Second, "the end of the command", func(context.Context) error {
		select {
		case <-s.done:
			return nil
		default:
			return fmt.Errorf("%s still runs, output %q", strings.Join(s.cmd.Args, " "), s.output())
		}
	})
	return s.cmd.ProcessState.ExitCode()
}

func (s *session) kill() {
	// An error means that it has ended already.
	if err := s.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return
	}
	<-s.done
}
