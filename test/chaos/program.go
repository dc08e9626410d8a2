package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

const (
	// backoff is the pause before a program that ended by itself starts again.
	backoff = time.Second
	// grace is how long a program that is told to end may take.
	grace = 20 * time.Second
)

// program is one of ours. It starts again when it ends, as a kubelet starts it, unless a fault keeps it down.
type program struct {
	name, binary, log string
	args              []string

	mu      sync.Mutex
	process *worlds.Process // guarded by mu
	down    bool            // guarded by mu
	starts  int             // guarded by mu
}

// keep runs the program until the context ends.
func (p *program) keep(ctx context.Context) error {
	for ctx.Err() == nil {
		process, err := p.start()
		if err != nil {
			return err
		}
		if process != nil {
			select {
			case <-process.Done():
			case <-ctx.Done():
				process.Kill()
			}
		}
		_ = wait(ctx, backoff) // the loop ends with the context
	}
	return nil
}

// start starts the program, unless a fault keeps it down.
func (p *program) start() (*worlds.Process, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down {
		return nil, nil
	}
	var err error
	if p.process, err = worlds.StartProcess(p.log, p.binary, p.args...); err != nil {
		return nil, err
	}
	p.starts++
	return p.process, nil
}

// hold ends the program and keeps it down until let go.
func (p *program) hold(gracefully bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = true
	if !gracefully {
		p.process.Kill()
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	p.process.Terminate(ctx)
}

// letGo ends a hold.
func (p *program) letGo() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = false
}

// pause stops the program where it is, and resume goes on. One that has ended is as good.
func (p *program) pause() {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.process.Pause()
}

func (p *program) resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.process.Resume()
}

// Texts in the log of a program that are always a defect.
func defects() []string {
	return []string{"Survived a panic", "panic: ", "fatal error: ", "WARNING: DATA RACE"}
}

// panics returns a finding for each line of the log that tells of a defect of the program itself.
func (p *program) panics() ([]finding, error) {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return nil, fmt.Errorf("reading the log of %s: %w", p.name, err)
	}
	var out []finding
	for line := range bytes.Lines(text) {
		for _, defect := range defects() {
			if bytes.Contains(line, []byte(defect)) {
				out = append(out, finding{What: "panicked", Of: p.name, Key: key{Kind: "program", Name: p.name}, Have: string(bytes.TrimSpace(line))})
			}
		}
	}
	return out, nil
}

// wait waits, unless the context ends before.
func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
