package worlds

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// errPortTaken says that somebody else got the port between our choice and the server's bind.
var errPortTaken = errors.New("the port was taken")

// process is a child that dies with us. One goroutine owns it: it starts the child, waits for it and closes done.
type process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{}
}

func startProcess(log, binary string, args ...string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the log of %s: %w", filepath.Base(binary), err)
	}
	//nolint:noctx // it outlives the context of its start; Stop ends it
	p := &process{cmd: exec.Command(binary, args...), log: log, done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = childAttributes()

	started := make(chan error)
	go func() {
		defer close(p.done)
		defer func() { _ = out.Close() }()
		// The kernel kills the child when the thread that made it ends, so the thread must live as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			// How a server that was killed ends does not matter; one that ends early is noticed through done.
			_ = p.cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", filepath.Base(binary), err)
	}
	return p, nil
}

func (p *process) signal(sig syscall.Signal) error {
	select {
	case <-p.done:
		return fmt.Errorf("signalling %s: it has ended: %s", filepath.Base(p.cmd.Path), p.tail())
	default:
	}
	if err := p.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("signalling %s: %w", filepath.Base(p.cmd.Path), err)
	}
	return nil
}

// kill ends the child, paused or not, and waits for its end.
func (p *process) kill() {
	// An error means that it has ended already.
	_ = p.signal(syscall.SIGKILL)
	<-p.done
}

// terminate asks the child to end and kills it when it has not by the deadline of the context.
func (p *process) terminate(ctx context.Context) {
	// A paused process acts on SIGTERM only when it continues. Errors mean that it has ended already.
	_ = p.signal(syscall.SIGTERM)
	_ = p.signal(syscall.SIGCONT)
	select {
	case <-p.done:
	case <-ctx.Done():
		p.kill()
	}
}

// awaitReady polls until ready returns nil, and fails at once when the child ends.
func (p *process) awaitReady(ctx context.Context, ready func(context.Context) error) error {
	var last error
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-p.done:
			tail := p.tail()
			if strings.Contains(tail, "address already in use") {
				return errPortTaken
			}
			return fmt.Errorf("%s ended: %s", filepath.Base(p.cmd.Path), tail)
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w; last: %w; log: %s", filepath.Base(p.cmd.Path), ctx.Err(), last, p.tail())
		case <-tick.C:
			if last = ready(ctx); last == nil {
				return nil
			}
		}
	}
}

// tail returns the end of the log in one line.
func (p *process) tail() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	if len(lines) > 8 {
		lines = lines[len(lines)-8:]
	}
	return string(bytes.Join(lines, []byte(" | ")))
}

// FreePort returns a port of the loopback interface that nobody listens on. It is below the range from which the
// kernel takes ports for outgoing connections, so that a server can have it again after a restart.
func FreePort(ctx context.Context) (int, error) {
	for range 100 {
		port := 12000 + rand.IntN(18000)
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			return 0, fmt.Errorf("closing a listener: %w", err)
		}
		return port, nil
	}
	return 0, errors.New("no free port on 127.0.0.1")
}

func httpOK(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("making a request: %w", err)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("asking for health: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("asking for health: %s", res.Status)
	}
	return nil
}

// cleaner removes a directory when it is told to, or when this process ends in whatever way: a test that panics, runs
// into its timeout or is killed runs no cleanup of its own.
type cleaner struct {
	cmd   *exec.Cmd
	stdin io.Closer
	once  sync.Once
	err   error
}

func startCleaner(dir string) (*cleaner, error) {
	// It reads until we close the pipe or die. Servers that die with us may still be writing, hence the second attempt.
	//nolint:noctx // it must outlive us
	cmd := exec.Command("/bin/sh", "-c", `read -r _; rm -rf -- "$1" || { sleep 1; rm -rf -- "$1"; }`, "sh", dir)
	// A session of its own: an interrupt typed at the terminal must not end it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("making a pipe to the cleaner: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the cleaner: %w", err)
	}
	return &cleaner{cmd: cmd, stdin: stdin}, nil
}

func (c *cleaner) run() error {
	c.once.Do(func() {
		if err := c.stdin.Close(); err != nil {
			c.err = fmt.Errorf("closing the pipe to the cleaner: %w", err)
			return
		}
		if err := c.cmd.Wait(); err != nil {
			c.err = fmt.Errorf("removing the files of the servers: %w", err)
		}
	})
	return c.err
}

// Process is a program that is killed when this process ends in whatever way.
type Process struct{ *process }

// StartProcess starts a program whose output is appended to a file. The caller ends it.
func StartProcess(log, binary string, args ...string) (*Process, error) {
	p, err := startProcess(log, binary, args...)
	if err != nil {
		return nil, err
	}
	return &Process{p}, nil
}

// PID is the number of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the program has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Pause stops the program where it is.
func (p *Process) Pause() error { return p.signal(syscall.SIGSTOP) }

// Resume ends a Pause.
func (p *Process) Resume() error { return p.signal(syscall.SIGCONT) }

// Kill ends the program at once and waits for its end.
func (p *Process) Kill() { p.kill() }

// Terminate asks the program to end and kills it when it has not by the deadline of the context.
func (p *Process) Terminate(ctx context.Context) { p.terminate(ctx) }

// AwaitReady polls until ready returns nil. It fails when the context ends, and at once when the program does.
func (p *Process) AwaitReady(ctx context.Context, ready func(context.Context) error) error {
	return p.awaitReady(ctx, ready)
}

// Program starts a program that is killed when the test ends, or with the test's process. Its output goes to a file.
func Program(t testing.TB, log, binary string, args ...string) {
	t.Helper()
	p, err := startProcess(log, binary, args...)
	if err != nil {
		t.Fatalf("starting a program: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s: %s", filepath.Base(binary), p.tail())
		}
		p.kill()
	})
}
