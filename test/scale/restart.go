package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/virtualcluster-io/virtualcluster/test/figures"
)

// still is what was measured of a vc-syncer that has nothing to do, or that starts.
type still struct {
	Syncer string
	// Memory that no file backs, in bytes: without tenants, with idle tenants, and with the pods of the restart.
	Empty, Tenants, Full int64
	// RestartPods is how many pods there were.
	RestartPods int
	// Restart is the time from the start of the process until each tenant has seen a new pod ready, in milliseconds.
	Restart float64
	// IdleCPU is the use of one core while nothing changes, in percent.
	IdleCPU float64
	// Churn is the memory in bytes while pods come and go, each second.
	Churn []int64 `json:",omitempty"`
}

// idleMemory measures each vc-syncer without tenants and with tenants that do nothing.
func (b *bench) idleMemory(ctx context.Context, result *results) error {
	for i, name := range result.Syncers {
		result.Still[i].Syncer = name
		s, err := b.startSyncer(ctx, b.options.Syncers[i])
		if err != nil {
			return err
		}
		err = s.AwaitReady(ctx, func(ctx context.Context) error { _, err := b.connected(ctx, s); return err })
		if err == nil {
			result.Still[i].Empty, _, err = b.rest(ctx, s)
		}
		s.end()
		if err != nil {
			return fmt.Errorf("measuring an empty %s: %w", name, err)
		}
	}
	if err := b.makeVirtualClusters(ctx); err != nil {
		return err
	}
	for i, name := range result.Syncers {
		// The first one gives tenants what vc-syncer always gives; the second one finds it.
		for range 2 {
			s, err := b.synced(ctx, b.options.Syncers[i])
			if err != nil {
				return err
			}
			result.Still[i].Tenants, _, err = b.rest(ctx, s)
			s.end()
			if err != nil {
				return fmt.Errorf("measuring an idle %s: %w", name, err)
			}
		}
		progress("%s: %.1f MiB without tenants, %.1f MiB with %d idle ones", name,
			mebi(result.Still[i].Empty), mebi(result.Still[i].Tenants), b.options.Tenants)
	}
	return nil
}

// rest returns memory in bytes and the use of a core in percent of a vc-syncer with nothing to do.
func (b *bench) rest(ctx context.Context, s *syncer) (int64, float64, error) {
	// What its start or the last load left to do ends first.
	if err := pause(ctx, b.options.Idle/4); err != nil {
		return 0, 0, err
	}
	before, err := figures.CPU(s.PID())
	if err != nil {
		return 0, 0, err
	}
	start := time.Now()
	if err := pause(ctx, b.options.Idle); err != nil {
		return 0, 0, err
	}
	after, err := figures.CPU(s.PID())
	if err != nil {
		return 0, 0, err
	}
	memory, err := figures.Anonymous(s.PID())
	return memory, 100 * (after - before).Seconds() / time.Since(start).Seconds(), err
}

// restarts fills the tenants with pods and restarts each vc-syncer.
func (b *bench) restarts(ctx context.Context, result *results) error {
	perTenant := b.options.RestartPods / b.options.Tenants
	if perTenant == 0 {
		return nil
	}
	progress("creating %d pods in each tenant", perTenant)
	s, err := b.serve(ctx, b.options.Syncers[0])
	if err != nil {
		return err
	}
	full := newLoad("full", b.tenants)
	err = errors.Join(b.create(ctx, full, perTenant, 0, b.tenants...), b.awaitReady(ctx, full), pause(ctx, tail))
	s.end()
	if err != nil {
		return fmt.Errorf("filling the tenants with pods: %w", err)
	}
	for i, name := range result.Syncers {
		if err := b.restart(ctx, b.options.Syncers[i], len(full.pods), &result.Still[i]); err != nil {
			return fmt.Errorf("restarting %s: %w", name, err)
		}
	}
	if s, err = b.synced(ctx, b.options.Syncers[0]); err != nil {
		return err
	}
	defer s.end()
	return b.clean(ctx, b.tenants)
}

func (b *bench) restart(ctx context.Context, binary string, pods int, result *still) error {
	s, err := b.startSyncer(ctx, binary)
	if err != nil {
		return err
	}
	defer s.end()
	l := newLoad(fmt.Sprintf("again-%d", s.PID()), b.tenants)
	if err := errors.Join(b.create(ctx, l, 1, 0, b.tenants...), b.awaitReady(ctx, l)); err != nil {
		return err
	}
	var last time.Time
	for _, p := range l.pods {
		seen, err := p.target.pods.get(p.target.namespace, p.name)
		if err != nil {
			return err
		}
		if seen.ready.After(last) {
			last = seen.ready
		}
	}
	result.RestartPods, result.Restart = pods, figures.Milliseconds(last.Sub(s.started))
	result.Full, result.IdleCPU, err = b.rest(ctx, s)
	if err != nil {
		return err
	}
	progress("restart with %d pods: new pods ready after %.1f s; then %.1f MiB, %.2f %% of a core", pods,
		result.Restart/1000, mebi(result.Full), result.IdleCPU)
	return nil
}

// churn has pods come and go and samples the memory of each vc-syncer.
func (b *bench) churn(ctx context.Context, result *results) error {
	if b.options.Churn == 0 {
		return nil
	}
	for i, name := range result.Syncers {
		s, err := b.serve(ctx, b.options.Syncers[i])
		if err != nil {
			return err
		}
		result.Still[i].Churn, err = b.churnOne(ctx, s)
		s.end()
		if err != nil {
			return fmt.Errorf("churn with %s: %w", name, err)
		}
	}
	return nil
}

func (b *bench) churnOne(ctx context.Context, s *syncer) ([]int64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		end := time.Now().Add(b.options.Churn)
		var err error
		for i := 0; err == nil && time.Now().Before(end); i++ {
			l := newLoad(fmt.Sprintf("churn-%d", i), b.tenants)
			err = errors.Join(b.drip(ctx, l, 10*b.options.LightRate, b.options.LightRate), b.awaitReady(ctx, l), b.clean(ctx, b.tenants))
		}
		done <- err
	}()
	var samples []int64
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return samples, err
		case <-tick.C:
			memory, err := figures.Anonymous(s.PID())
			if err != nil {
				cancel()
				return nil, errors.Join(err, <-done)
			}
			samples = append(samples, memory)
		}
	}
}
