package main

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// echo serves what it is sent, and returns its address.
func echo(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
	return l.Addr().String()
}

func TestProxy(t *testing.T) {
	p, err := newProxy(t.Context(), echo(t))
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	dial := func() net.Conn {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", p.address())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	send := func(c net.Conn) {
		t.Helper()
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	read := func(c net.Conn, within time.Duration) error {
		if err := c.SetReadDeadline(time.Now().Add(within)); err != nil {
			t.Fatal(err)
		}
		_, err := io.ReadFull(c, make([]byte, 1))
		return err
	}
	c := dial()
	send(c)
	if err := read(c, 5*time.Second); err != nil {
		t.Fatalf("a whole link: %v", err)
	}

	p.set(linkState{stalled: true})
	send(c)
	if err := read(c, 100*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("a stalled link: %v", err)
	}
	p.set(linkState{})
	if err := read(c, 5*time.Second); err != nil {
		t.Fatalf("what was sent over a stalled link did not arrive later: %v", err)
	}

	const late = 50 * time.Millisecond
	p.set(linkState{delay: late})
	start := time.Now()
	send(c)
	if err := read(c, 5*time.Second); err != nil || time.Since(start) < 2*late {
		t.Fatalf("a slow link took %s, both ways: %v", time.Since(start), err)
	}

	p.set(linkState{cut: true})
	if err := read(c, 5*time.Second); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("a connection over a link that was cut: %v", err)
	}
	if c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", p.address()); err == nil { // it is reset at once, or a little later
		if err := read(c, 5*time.Second); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("a new connection over a link that is cut: %v", err)
		}
		_ = c.Close()
	}
	p.set(linkState{})
	c = dial()
	send(c)
	if err := read(c, 5*time.Second); err != nil {
		t.Fatalf("a link that is whole again: %v", err)
	}
}
