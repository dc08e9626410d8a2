package progress

import (
	"errors"
	"fmt"
	"net"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestClassify(t *testing.T) {
	plain := errors.New("boom")
	stall := &Stall{Reason: "Broken", Message: "somebody must act"}
	wait, later := &Wait{Reason: "Starting", Message: "not yet"}, &Wait{Reason: "Later", Message: "after that"}
	cases := map[string]struct {
		err    error
		want   error
		reason string
	}{
		"Nothing":              {},
		"NothingJoined":        {err: errors.Join(nil, nil)},
		"Plain":                {err: plain, want: plain, reason: ReasonError},
		"PlainWithReason":      {err: Because("Unreachable", plain), want: plain, reason: "Unreachable"},
		"FirstOfTwoWaits":      {err: errors.Join(nil, wait, later), want: wait, reason: "Starting"},
		"StallBeforeWait":      {err: errors.Join(wait, stall), want: stall, reason: "Broken"},
		"PlainBeforeAll":       {err: errors.Join(wait, stall, plain), want: plain, reason: ReasonError},
		"Nested":               {err: errors.Join(errors.Join(wait, errors.Join(stall)), later), want: stall, reason: "Broken"},
		"WrappedKeepsItsKind":  {err: errors.Join(wait, fmt.Errorf("provisioning: %w", stall)), want: stall, reason: "Broken"},
		"WrappedPlainHasCause": {err: errors.Join(wait, fmt.Errorf("applying: %w", plain)), want: plain, reason: ReasonError},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := Classify(tc.err)
			if !errors.Is(got, tc.want) {
				t.Fatalf("Classify: got %v, want %v", got, tc.want)
			}
			if got != nil && Reason(got) != tc.reason {
				t.Errorf("Reason: got %s, want %s", Reason(got), tc.reason)
			}
		})
	}
}

func TestStableHasNoLocalPort(t *testing.T) {
	attempt := func(port int) error {
		return fmt.Errorf("Get https://10.0.0.1: %w", &net.OpError{
			Op: "read", Net: "tcp",
			Source: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 2), Port: port},
			Addr:   &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 443},
			Err:    errors.New("connection reset by peer"),
		})
	}
	const want = "read tcp 10.0.0.1:443: connection reset by peer"
	for _, port := range []int{40001, 40002} {
		if diff := cmp.Diff(want, Stable(attempt(port)).Error()); diff != "" {
			t.Errorf("message (-want +got):\n%s", diff)
		}
	}
}
