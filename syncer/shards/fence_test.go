package shards

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

const tenant names.TenantID = "ns-vc"

// fenced returns a Fence of one shard, which is held, and its clock.
func fenced() (*Fence, *time.Time) {
	now := time.Now()
	f := newFence(1, "a", func() time.Time { return now })
	f.renewed(term{from: now, length: 2 * time.Second})
	f.agreed(term{from: now, length: 10 * time.Second})
	f.open(0)
	return f, &now
}

// server counts what reaches it, and what of it has a whole body.
type server struct {
	requests, whole int
	before          func(*http.Request)
}

func (s *server) RoundTrip(req *http.Request) (*http.Response, error) {
	s.requests++
	if s.before != nil {
		s.before(req)
	}
	if _, err := io.Copy(io.Discard, req.Body); err != nil {
		return nil, err
	}
	s.whole++
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(bytes.NewReader(nil))}, nil
}

func send(ctx context.Context, t *testing.T, by http.RoundTripper, method string) error {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, "https://server/api", bytes.NewReader([]byte("{}")))
	if err != nil {
		t.Fatal(err)
	}
	res, err := by.RoundTrip(req)
	if err != nil {
		return err
	}
	return res.Body.Close()
}

func TestWritesAreRefused(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*Fence, *time.Time)
		method string
		want   bool
	}{
		{"in time", func(*Fence, *time.Time) {}, http.MethodPost, true},
		{"just in time", func(_ *Fence, now *time.Time) { *now = now.Add(2*time.Second - 1) }, http.MethodPatch, true},
		{"too late", func(_ *Fence, now *time.Time) { *now = now.Add(2 * time.Second) }, http.MethodPost, false},
		{"a read that is too late", func(_ *Fence, now *time.Time) { *now = now.Add(time.Hour) }, http.MethodGet, true},
		{"a machine that slept, whose monotonic clock stood still", func(_ *Fence, now *time.Time) { *now = now.Round(0).Add(3 * time.Second) }, http.MethodDelete, false},
		{"renewed again", func(f *Fence, now *time.Time) {
			*now = now.Add(time.Minute)
			f.renewed(term{*now, time.Second})
			f.agreed(term{*now, time.Second})
		}, http.MethodPost, true},
		{"the number of shards was not renewed", func(f *Fence, now *time.Time) {
			*now = now.Add(time.Minute)
			f.renewed(term{*now, time.Second})
		}, http.MethodPost, false},
		{"being handed over", func(f *Fence, _ *time.Time) { f.end(0) }, http.MethodPost, true},
		{"handed over", func(f *Fence, _ *time.Time) { f.close(0) }, http.MethodPost, false},
		{"lost", func(f *Fence, _ *time.Time) { f.closeAll() }, http.MethodPost, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			for side, wrap := range map[string]func(*Fence) func(http.RoundTripper) http.RoundTripper{
				"tenant": func(f *Fence) func(http.RoundTripper) http.RoundTripper { return f.Tenant(tenant) },
				"super":  func(f *Fence) func(http.RoundTripper) http.RoundTripper { return f.Super },
			} {
				f, now := fenced()
				test.change(f, now)
				s := &server{}
				err := send(f.For(t.Context(), tenant), t, wrap(f)(s), test.method)
				if (err == nil) != test.want || (s.requests > 0) != test.want || err != nil && !errors.Is(err, ErrFenced) {
					t.Errorf("%s: %d requests, error %v", side, s.requests, err)
				}
			}
		})
	}
}

// The clock on the wall is set back: the other one counts.
func TestTheLaterClockCounts(t *testing.T) {
	from := time.Now()
	if d := elapsed(from, from.Add(time.Second)); d != time.Second {
		t.Errorf("a second lasts %v", d)
	}
	slept := from.Round(0).Add(time.Hour) // no monotonic reading tells
	if d := elapsed(from, slept); d != time.Hour {
		t.Errorf("an hour asleep lasts %v", d)
	}
	if d := (term{}).left(from); d != 0 {
		t.Errorf("of no term, %v is left", d)
	}
}

// A process that is paused after it has begun a write, and before it has sent it.
func TestAPausedWriteIsNotSent(t *testing.T) {
	f, now := fenced()
	s := &server{before: func(*http.Request) { *now = now.Add(time.Minute) }}
	if err := send(t.Context(), t, f.Tenant(tenant)(s), http.MethodPost); !errors.Is(err, ErrFenced) || s.whole > 0 {
		t.Errorf("%d writes, error %v", s.whole, err)
	}
}

// A write ends before others may think that this replica has ended.
func TestWritesHaveADeadline(t *testing.T) {
	f, _ := fenced()
	s := &server{before: func(req *http.Request) {
		if deadline, ok := req.Context().Deadline(); !ok || time.Until(deadline) > 2*time.Second {
			t.Errorf("deadline %v, %v", deadline, ok)
		}
	}}
	if err := send(t.Context(), t, f.Tenant(tenant)(s), http.MethodPost); err != nil {
		t.Error(err)
	}
}

// A shard is not free before what was written for it has an answer.
func TestHandingOverWaitsForWrites(t *testing.T) {
	f, _ := fenced()
	var idle <-chan struct{}
	s := &server{before: func(*http.Request) {
		idle = f.close(0)
		select {
		case <-idle:
			t.Error("the shard is free while it is written")
		default:
		}
	}}
	if err := send(t.Context(), t, f.Tenant(tenant)(s), http.MethodPost); !errors.Is(err, ErrFenced) { // refused at its body
		t.Error(err)
	}
	<-idle
	<-f.close(0) // of a shard that is not held
}

func TestWritesSayOnWhoseBehalf(t *testing.T) {
	f, _ := fenced()
	s := &server{}
	if err := send(t.Context(), t, f.Super(s), http.MethodPost); !errors.Is(err, ErrFenced) || s.requests > 0 {
		t.Errorf("on nobody's: %v", err)
	}
	if err := send(f.ForAll(t.Context()), t, f.Super(s), http.MethodPost); err != nil {
		t.Errorf("on behalf of all: %v", err)
	}
	f.closeAll()
	if err := send(f.ForAll(t.Context()), t, f.Super(s), http.MethodPost); !errors.Is(err, ErrFenced) {
		t.Errorf("on behalf of all, by another replica: %v", err)
	}
	if err := send(Unfenced(t.Context()), t, f.Super(s), http.MethodPost); err != nil {
		t.Errorf("what changes nothing: %v", err)
	}
}
