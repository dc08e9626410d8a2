package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/virtualcluster-io/virtualcluster/test/figures"
)

const (
	burst       = "burst"
	light       = "light"
	alone       = "regular tenants alone"
	crowded     = "regular tenants beside greedy ones"
	baseline    = "baseline"
	regularStep = 100 * time.Millisecond
	// profileTime is enough for a burst on a small machine.
	profileTime = 30 * time.Second
)

// round is what was measured of one load on one side. Times are in milliseconds.
type round struct {
	Measure, Side string
	Number        int
	WarmUp        bool
	Pods          int
	PodsPerSecond float64
	Ready         distribution  // created -> seen ready by the same user
	Down, Run, Up *distribution `json:",omitempty"`
	SyncerCPU     float64       // per pod
	SuperCPU      float64       // of the super cluster's kube-apiserver, per pod
	TenantsCPU    float64       // of all tenants' kube-apiservers together, per pod
	OtherCPU      float64       // of etcd, the scheduler, the nodes and the load itself, per pod
	// Requests of vc-syncer per pod, see requests.
	Requests requests `json:",omitempty"`
}

// generator creates the pods of a measure.
type generator func(ctx context.Context, b *bench, l *load) error

// rounds measures everything that has a baseline, in turns.
func (b *bench) rounds(ctx context.Context, result *results) error {
	for number := range b.options.Warmup + b.options.Rounds {
		for side := range len(result.Syncers) + 1 {
			if err := b.turn(ctx, result, number, side-1); err != nil {
				return fmt.Errorf("round %d: %w", number+1, err)
			}
		}
	}
	return nil
}

// turn measures one side once. A vc-syncer runs only in its own turns; the baseline is -1.
func (b *bench) turn(ctx context.Context, result *results, number, side int) error {
	targets, name := b.baseline, baseline
	var s *syncer
	if side >= 0 {
		targets, name = b.tenants, result.Syncers[side]
		var err error
		if s, err = b.serve(ctx, b.options.Syncers[side]); err != nil {
			return err
		}
		defer s.end()
	}
	greedy := max(1, len(targets)/5)
	for _, m := range []struct {
		name     string
		measured []target
		generate generator
	}{
		{burst, targets, func(ctx context.Context, b *bench, l *load) error {
			return b.create(ctx, l, b.options.BurstPods, 0, targets...)
		}},
		{light, targets, func(ctx context.Context, b *bench, l *load) error {
			return b.drip(ctx, l, b.options.LightRate*b.options.LightSeconds, b.options.LightRate)
		}},
		{alone, targets[greedy:], func(ctx context.Context, b *bench, l *load) error {
			return b.create(ctx, l, b.options.RegularPods, regularStep, targets[greedy:]...)
		}},
		{crowded, targets[greedy:], func(ctx context.Context, b *bench, l *load) error {
			return b.crowd(ctx, l, targets[:greedy], targets[greedy:])
		}},
	} {
		r := round{Measure: m.name, Side: name, Number: number - b.options.Warmup + 1, WarmUp: number < b.options.Warmup}
		wait := func() error { return nil }
		if s != nil && b.options.Profile && m.name == burst && number == b.options.Warmup+b.options.Rounds-1 {
			wait = s.profile(ctx, filepath.Join(b.options.out, fmt.Sprintf("%d.pprof", side)), profileTime)
		}
		if err := b.measure(ctx, s, &r, newLoad(fmt.Sprintf("r%d", number), targets), m.measured, m.generate); err != nil {
			return fmt.Errorf("%s, %s: %w", name, m.name, err)
		}
		if err := errors.Join(b.clean(ctx, targets), wait()); err != nil {
			return fmt.Errorf("after %s, %s: %w", name, m.name, err)
		}
		progress("round %d, %s, %s: %.0f pods/s, p50 %.0f ms, p99 %.0f ms; CPU per pod: vc-syncer %.1f ms, super API server %.1f ms",
			r.Number, r.Side, r.Measure, r.PodsPerSecond, r.Ready.P50, r.Ready.P99, r.SyncerCPU, r.SuperCPU)
		result.Rounds = append(result.Rounds, r)
	}
	return nil
}

// crowd has regular tenants create pods while those of greedy ones wait for their turn.
func (b *bench) crowd(ctx context.Context, l *load, greedy, regular []target) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		err := b.create(ctx, l, b.options.GreedyPods, 0, greedy...)
		if err != nil {
			cancel() // nobody waits for pods that will not come
		}
		done <- err
	}()
	err := l.half(ctx, b.options.GreedyPods*len(greedy))
	if err == nil {
		err = b.create(ctx, l, b.options.RegularPods, regularStep, regular...)
	}
	return errors.Join(err, <-done)
}

// measure runs a load and accounts for it.
func (b *bench) measure(ctx context.Context, s *syncer, r *round, l *load, measured []target, generate generator) error {
	before, err := b.account(ctx, s)
	if err != nil {
		return err
	}
	if err := generate(ctx, b, l); err != nil {
		return err
	}
	if err := errors.Join(b.awaitReady(ctx, l), pause(ctx, tail)); err != nil {
		return err
	}
	after, err := b.account(ctx, s)
	if err != nil {
		return err
	}
	o, err := b.outcome(l, measured)
	if err != nil {
		return err
	}
	r.Pods = len(l.pods)
	r.PodsPerSecond = float64(len(o.all)) / o.took.Seconds()
	r.Ready = distribute(o.all)
	if s != nil {
		down, run, up := distribute(o.down), distribute(o.run), distribute(o.up)
		r.Down, r.Run, r.Up = &down, &run, &up
	}
	r.SyncerCPU = figures.Milliseconds(after.syncer-before.syncer) / float64(r.Pods)
	r.SuperCPU = figures.Milliseconds(after.super-before.super) / float64(r.Pods)
	r.TenantsCPU = figures.Milliseconds(after.tenants-before.tenants) / float64(r.Pods)
	r.OtherCPU = figures.Milliseconds(after.other-before.other) / float64(r.Pods)
	r.Requests = after.requests.since(before.requests, r.Pods)
	return nil
}

// account is what processes have used so far.
type account struct {
	syncer, super, tenants, other time.Duration
	requests                      requests
}

// account reads what everything that runs has used; a vc-syncer when there is one.
func (b *bench) account(ctx context.Context, s *syncer) (account, error) {
	var a account
	var tenants, other []int
	for _, w := range b.worlds.Tenants {
		tenants = append(tenants, w.PID())
	}
	for _, p := range b.helpers {
		other = append(other, p.PID())
	}
	of := map[*time.Duration][]int{
		&a.super: {b.worlds.Super.PID()}, &a.tenants: tenants, &a.other: append(other, os.Getpid(), b.worlds.EtcdPID()),
	}
	var err error
	if s != nil {
		of[&a.syncer] = []int{s.PID()}
		if a.requests, err = b.requests(ctx, s); err != nil {
			return account{}, err
		}
	}
	for sum, processes := range of {
		for _, pid := range processes {
			used, err := figures.CPU(pid)
			if err != nil {
				return account{}, err
			}
			*sum += used
		}
	}
	return a, nil
}
