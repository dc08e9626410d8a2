package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// proxy is a link to an API server that can be cut, stalled and slowed down. It forwards TCP connections, so that both ends see
// what they see of a bad network: connections that are reset or refused, packets that arrive late or, while it is stalled, not at all.
type proxy struct {
	target   string
	listener net.Listener
	ended    chan struct{}
	wg       sync.WaitGroup

	mu    sync.Mutex
	state linkState         // guarded by mu
	moved chan struct{}     // closed when the state changes; guarded by mu
	conns map[net.Conn]bool // guarded by mu
}

// linkState is how a link is: whole when it is zero.
type linkState struct {
	cut, stalled bool
	delay        time.Duration
}

// newProxy listens on a free port of the loopback interface. The caller closes it.
func newProxy(ctx context.Context, target string) (*proxy, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening for the link to %s: %w", target, err)
	}
	p := &proxy{target: target, listener: l, ended: make(chan struct{}), moved: make(chan struct{}), conns: map[net.Conn]bool{}}
	p.wg.Go(p.accept)
	return p, nil
}

func (p *proxy) address() string { return p.listener.Addr().String() }

// close ends all connections.
func (p *proxy) close() {
	close(p.ended)
	_ = p.listener.Close() // nobody else closes it
	p.set(linkState{cut: true})
	p.wg.Wait()
}

// set changes how the link is. A cut ends the connections that there are.
func (p *proxy) set(state linkState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = state
	close(p.moved)
	p.moved = make(chan struct{})
	if !state.cut {
		return
	}
	for c := range p.conns {
		reset(c)
	}
	clear(p.conns)
}

// reset ends a connection as a broken network does. What happens to one that has ended already does not matter.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

func (p *proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			p.wg.Go(func() { p.forward(c) })
		}
	}
}

// keep notes a connection, unless the link is cut.
func (p *proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state.cut {
		reset(c)
		return false
	}
	p.conns[c] = true
	return true
}

func (p *proxy) forward(client net.Conn) {
	if !p.keep(client) || !p.admit() {
		reset(client)
		return
	}
	server, err := (&net.Dialer{Timeout: 5 * time.Second}).Dial("tcp", p.target)
	if err != nil || !p.keep(server) {
		reset(client)
		return
	}
	var wg sync.WaitGroup
	for _, way := range [][2]net.Conn{{server, client}, {client, server}} {
		wg.Go(func() {
			p.pass(way[0], way[1])
			_, _ = client.Close(), server.Close() // the other way ends, too
		})
	}
	wg.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, client)
	delete(p.conns, server)
}

// pass forwards one direction. That it ends is news that travels as slowly as all else.
func (p *proxy) pass(to, from net.Conn) {
	buffer := make([]byte, 64<<10)
	for {
		n, readErr := from.Read(buffer)
		if !p.admit() {
			return
		}
		if _, err := to.Write(buffer[:n]); err != nil || readErr != nil {
			return
		}
	}
}

// admit waits as long as the link makes things wait, and says whether they arrive.
func (p *proxy) admit() bool {
	for {
		p.mu.Lock()
		state, moved := p.state, p.moved
		p.mu.Unlock()
		switch {
		case state.cut:
			return false
		case state.stalled:
			select {
			case <-moved:
			case <-p.ended:
				return false
			}
		case state.delay > 0:
			select {
			case <-time.After(state.delay):
				return true
			case <-p.ended:
				return false
			}
		default:
			return true
		}
	}
}
