package main

import (
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	for name, tc := range map[string]struct {
		in   []time.Duration
		want time.Duration
	}{
		"One":  {[]time.Duration{3}, 3},
		"Odd":  {[]time.Duration{1, 2, 9}, 2},
		"Even": {[]time.Duration{1, 2, 4, 9}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			if got := median(tc.in); got != tc.want {
				t.Errorf("got %d, want %d", got, tc.want)
			}
		})
	}
}

func TestPodUID(t *testing.T) {
	const uid = "0b0c9d5e-7c1a-4f0e-9f36-111111111111"
	for name, tc := range map[string]struct{ cgroup, want string }{
		"ControlGroups1": {"9:memory:/supercluster/node-1/kubepods/burstable/pod" + uid + "/abc\n1:cpu:/x\n", uid},
		"ControlGroups2": {"0::/kubepods/pod" + uid + "/abc\n", uid},
		"Host":           {"0::/init.scope\n", ""},
		"OtherName":      {"0::/podman/x\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := string(podUID(tc.cgroup)); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestParseStatus(t *testing.T) {
	got, pause, err := parseStatus([]byte("Name:\tetcd\nVmRSS:\t   30000 kB\nRssAnon:\t   20000 kB\n"))
	if err != nil || pause || got != (usage{30000 << 10, 20000 << 10}) {
		t.Errorf("got %v, %v, %v", got, pause, err)
	}
	if _, pause, err := parseStatus([]byte("Name:\tpause\n")); err != nil || !pause {
		t.Errorf("pause: got %v, %v", pause, err)
	}
	if _, _, err := parseStatus([]byte("VmRSS:\tmany kB\n")); err == nil {
		t.Error("a number that is none was accepted")
	}
}
