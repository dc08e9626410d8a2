package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// progress passes the output of a suite on into its log, and says meanwhile how far it is and what failed.
type progress struct {
	name  string
	total int
	log   io.Writer
	began time.Time
	done  chan struct{}

	mu           sync.Mutex
	line         []byte
	failing      bool
	ended, fails int
}

func newProgress(name string, total int, log io.Writer) *progress {
	p := &progress{name: name, total: total, log: log, began: time.Now(), done: make(chan struct{})}
	p.say("%d tests, log in %s", total, nameOf(log))
	go p.tick()
	return p
}

func nameOf(w io.Writer) string {
	if f, ok := w.(*os.File); ok {
		return f.Name()
	}
	return "memory"
}

// tick runs until stop.
func (p *progress) tick() {
	ticker := time.NewTicker(time.Minute)
	defer ticker.Stop()
	for {
		select {
		case <-p.done:
			return
		case <-ticker.C:
			ended, fails := p.counts()
			p.say("%d of %d, %d failed", ended, p.total, fails)
		}
	}
}

func (p *progress) stop() {
	close(p.done)
	ended, fails := p.counts()
	p.say("ended after %s: %d of %d, %d failed", time.Since(p.began).Round(time.Second), ended, p.total, fails)
}

func (p *progress) counts() (ended, fails int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ended, p.fails
}

// Write takes output of the suite.
func (p *progress) Write(b []byte) (int, error) {
	failed := p.scan(b)
	for _, name := range failed {
		p.say("failed: %s", name)
	}
	n, err := p.log.Write(b)
	if err != nil {
		return n, fmt.Errorf("writing the log: %w", err)
	}
	return n, nil
}

// scan counts the lines with which ginkgo ends a test, and returns the names of those that failed.
func (p *progress) scan(b []byte) (failed []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.line = append(p.line, b...)
	for {
		i := bytes.IndexByte(p.line, '\n')
		if i < 0 {
			return failed
		}
		line := string(p.line[:i])
		p.line = p.line[i+1:]
		if p.failing {
			failed = append(failed, line)
			p.failing = false
		}
		if !strings.HasPrefix(line, "• [") {
			continue
		}
		p.ended++
		// "• [FAILED] [3.2 seconds]" has the name on the next line; "• [3.2 seconds]" passed.
		if c := line[len("• [")]; c < '0' || c > '9' {
			p.fails++
			p.failing = true
		}
	}
}

func (p *progress) say(format string, args ...any) {
	say(p.name+": "+format, args...)
}

func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%s "+format+"\n", append([]any{time.Now().Format(time.TimeOnly)}, args...)...)
}
