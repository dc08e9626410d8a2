package main

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func everything() setting { return setting{Tenants: 2, Syncers: 2, Disks: true} }

func TestASeedIsReplayable(t *testing.T) {
	const within = 15 * time.Minute
	if diff := cmp.Diff(generate(7, within, everything()), generate(7, within, everything())); diff != "" {
		t.Errorf("the same seed gives other faults: %s", diff)
	}
	if cmp.Equal(generate(7, within, everything()), generate(8, within, everything())) {
		t.Error("two seeds give the same faults")
	}
	want := generate(7, within, everything())
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got []fault
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("a schedule changes when it is written and read: %s", diff)
	}
}

func TestSchedules(t *testing.T) {
	const within = 15 * time.Minute
	for seed := range uint64(200) {
		faults := generate(seed, within, everything())
		kinds := map[kind]int{}
		for i, f := range faults {
			kinds[f.Kind]++
			if !slices.Contains(everything().targets(f.Kind), f.Target) {
				t.Errorf("seed %d: nothing is called as in %s", seed, f)
			}
			end := f.At + f.For
			if time.Duration(f.At) < calm || time.Duration(end) > within || time.Duration(f.For) < shortest {
				t.Errorf("seed %d: %s", seed, f)
			}
			for _, g := range faults[i+1:] {
				overlap := g.At < end
				if overlap && (f.Kind.exclusive() || g.Kind.exclusive()) {
					t.Errorf("seed %d: %s is not alone: %s", seed, f, g)
				}
				if overlap && part(f.Target) == part(g.Target) {
					t.Errorf("seed %d: %s and %s at once", seed, f, g)
				}
				if g.At < f.At {
					t.Errorf("seed %d: %s comes before %s", seed, f, g)
				}
			}
		}
		for _, k := range []kind{kill, terminate, pause, cut, stall, delay, fill, empty, restore, unseen} {
			if kinds[k] == 0 {
				t.Errorf("seed %d has no %s in %s: %v", seed, k, within, kinds)
			}
		}
	}
}

func TestWithoutDisksNoneIsFilled(t *testing.T) {
	for _, f := range generate(1, time.Hour, setting{Tenants: 1, Syncers: 1}) {
		if f.Kind == fill {
			t.Errorf("%s", f)
		}
	}
}
