package supercluster

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"
)

// Steps reports progress to a person: what is being done and how much time has passed.
type Steps struct {
	start time.Time

	mu  sync.Mutex
	out io.Writer
}

// NewSteps returns a reporter that writes to out; the clock starts now.
func NewSteps(out io.Writer) *Steps { return &Steps{start: time.Now(), out: out} }

// Run reports and performs one step; its error names the step.
func (s *Steps) Run(ctx context.Context, name string, step func(context.Context) error) error {
	began := time.Now()
	s.Say("%s", name)
	if err := step(ctx); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if took := time.Since(began); took > time.Second {
		s.Say("%s: done in %.1fs", name, took.Seconds())
	}
	return nil
}

// Say prints one line after the elapsed time.
func (s *Steps) Say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, _ = fmt.Fprintf(s.out, "[%6.1fs] %s\n", time.Since(s.start).Seconds(), fmt.Sprintf(format, args...))
}
