package shards

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// ErrFenced says that a write was not made because this replica must not write for the tenant, or not any more.
var ErrFenced = errors.New("this replica of vc-syncer must not write")

// Fence lets a replica write only for the shards that it holds, and only while others know that it lives.
type Fence struct {
	shards int
	// agent names this replica in what it writes, so that audit logs tell who wrote.
	agent string
	now   func() time.Time

	mu   sync.Mutex
	self term           // guarded by mu: of the replica
	mode term           // guarded by mu: of the number of shards
	held map[int]*claim // guarded by mu
}

// term is the time for which a Lease was granted, counted from before it was asked for.
type term struct {
	from   time.Time
	length time.Duration
}

// left returns how much of the term is left, nothing when it is over.
func (t term) left(now time.Time) time.Duration {
	if t.from.IsZero() {
		return 0
	}
	return max(0, t.length-elapsed(t.from, now))
}

// claim is a shard that is held.
type claim struct {
	ending bool // says that nothing new begins
	closed bool // says that nothing is written any more
	writes int  // that have no answer
	idle   chan struct{}
}

func newFence(shards int, replica string, now func() time.Time) *Fence {
	return &Fence{shards: shards, agent: names.Syncer + " (" + replica + ")", now: now, held: map[int]*claim{}}
}

// Of returns the shard of a tenant.
func (f *Fence) Of(id names.TenantID) int { return Of(id, f.shards) }

// Owns says whether this replica may begin to work for a tenant.
func (f *Fence) Owns(id names.TenantID) bool { return f.Holds(Of(id, f.shards)) }

// Holds says whether this replica may begin to work for a shard.
func (f *Fence) Holds(shard int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.held[shard]
	return c != nil && !c.ending
}

// Held counts the shards that this replica works for.
func (f *Fence) Held() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.held)
}

func (f *Fence) renewed(t term) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.self = t
}

func (f *Fence) agreed(t term) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mode = t
}

// open lets the replica work for a shard.
func (f *Fence) open(shard int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held[shard] = &claim{idle: make(chan struct{})}
}

// end lets nothing begin for a shard any more. What is written goes on.
func (f *Fence) end(shard int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.held[shard]; c != nil {
		c.ending = true
	}
}

// close refuses further writes for a shard. The channel that it returns is closed when those that were made have an answer.
func (f *Fence) close(shard int) <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.held[shard]
	if c == nil {
		done := make(chan struct{})
		close(done)
		return done
	}
	delete(f.held, shard)
	c.ending, c.closed = true, true
	if c.writes == 0 {
		close(c.idle)
	}
	return c.idle
}

// closeAll refuses all writes at once, and returns the shards that were held.
func (f *Fence) closeAll() []int {
	f.mu.Lock()
	f.self, f.mode = term{}, term{}
	var all []int
	for shard := range f.held {
		all = append(all, shard)
	}
	f.mu.Unlock()
	for _, shard := range all {
		f.close(shard)
	}
	return all
}

// left returns how long a write for a claim may take. The caller holds f.mu.
func (f *Fence) left(shard int, c *claim) (time.Duration, error) {
	if c == nil || c.closed {
		return 0, fmt.Errorf("%w: shard %d belongs to another replica", ErrFenced, shard)
	}
	now := f.now()
	left := min(f.self.left(now), f.mode.left(now))
	if left <= 0 {
		return 0, fmt.Errorf("%w: its Lease has not been renewed in time, and another replica may have taken shard %d", ErrFenced, shard)
	}
	return left, nil
}

// begin begins a write, which has to end within the time that is returned.
func (f *Fence) begin(shard int) (*claim, time.Duration, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.held[shard]
	left, err := f.left(shard, c)
	if err != nil {
		return nil, 0, err
	}
	c.writes++
	return c, left, nil
}

// check says whether a write that has begun may still be made.
func (f *Fence) check(shard int, c *claim) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, err := f.left(shard, c)
	return err
}

// done ends a write.
func (f *Fence) done(c *claim) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.writes--; c.writes == 0 && c.closed {
		close(c.idle)
	}
}

// onBehalf is the key of a context under which it says for whom is written.
type onBehalf struct{}

// anyReplica says that every replica may make a write, because it changes nothing.
const anyReplica = -1

// For returns a context in which the super cluster is written to on behalf of a tenant.
func (f *Fence) For(ctx context.Context, id names.TenantID) context.Context {
	return context.WithValue(ctx, onBehalf{}, Of(id, f.shards))
}

// ForAll returns a context in which the super cluster is written to on behalf of all tenants, by the replica that holds the
// first shard.
func (f *Fence) ForAll(ctx context.Context) context.Context {
	return context.WithValue(ctx, onBehalf{}, 0)
}

// Unfenced returns a context for requests that have the form of a write and change nothing, such as reviews.
func Unfenced(ctx context.Context) context.Context {
	return context.WithValue(ctx, onBehalf{}, anyReplica)
}

// Super wraps the transport to the super cluster: what is written has to say on whose behalf, by its context.
func (f *Fence) Super(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(req *http.Request) (*http.Response, error) {
		if reads(req) {
			return next.RoundTrip(req)
		}
		shard, ok := req.Context().Value(onBehalf{}).(int)
		if !ok {
			return refuse(req, fmt.Errorf("%w %s to the super cluster: the context does not say on whose behalf", ErrFenced, req.Method))
		}
		if shard == anyReplica {
			return next.RoundTrip(req)
		}
		return f.write(next, req, shard)
	})
}

// Tenant returns what wraps the transport to the API server of a tenant.
func (f *Fence) Tenant(id names.TenantID) func(http.RoundTripper) http.RoundTripper {
	shard := Of(id, f.shards)
	return func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(req *http.Request) (*http.Response, error) {
			if reads(req) {
				return next.RoundTrip(req)
			}
			return f.write(next, req, shard)
		})
	}
}

// write makes a request that ends before the Lease does.
func (f *Fence) write(next http.RoundTripper, req *http.Request, shard int) (*http.Response, error) {
	c, left, err := f.begin(shard)
	if err != nil {
		return refuse(req, err)
	}
	ctx, cancel := context.WithTimeout(req.Context(), left)
	end := sync.OnceFunc(func() {
		cancel()
		f.done(c)
	})
	guarded := req.Clone(ctx)
	guarded.Header.Set("User-Agent", f.agent)
	guard := func(body io.ReadCloser) io.ReadCloser {
		return &guardedBody{ReadCloser: body, check: func() error { return f.check(shard, c) }}
	}
	if req.Body != nil && req.Body != http.NoBody {
		guarded.Body = guard(req.Body)
		if again := req.GetBody; again != nil {
			guarded.GetBody = func() (io.ReadCloser, error) {
				body, err := again()
				if err != nil {
					return nil, err
				}
				return guard(body), nil
			}
		}
	}
	res, err := next.RoundTrip(guarded)
	if err != nil {
		end()
		return nil, err
	}
	res.Body = &endingBody{ReadCloser: res.Body, end: end}
	return res, nil
}

// guardedBody is the body of a write. It is read when the connection is there, just before it is sent, and an API server does
// nothing with a body that ends too early.
type guardedBody struct {
	io.ReadCloser
	check func() error
}

// Read implements io.Reader.
func (b *guardedBody) Read(p []byte) (int, error) {
	if err := b.check(); err != nil {
		return 0, err
	}
	return b.ReadCloser.Read(p)
}

// endingBody is the answer to a write.
type endingBody struct {
	io.ReadCloser
	end func()
}

// Close implements io.Closer.
func (b *endingBody) Close() error {
	defer b.end()
	return b.ReadCloser.Close()
}

func reads(req *http.Request) bool {
	return req.Method == http.MethodGet || req.Method == http.MethodHead || req.Method == http.MethodOptions
}

func refuse(req *http.Request, err error) (*http.Response, error) {
	if req.Body != nil {
		_ = req.Body.Close() // a RoundTripper closes it, whatever happens
	}
	return nil, err
}

// roundTripper makes an http.RoundTripper of a function.
type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }
