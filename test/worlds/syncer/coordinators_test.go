package syncer_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/shards"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

// ledger notes who works for which shard, and finds fault with two who do.
type ledger struct {
	mu      sync.Mutex
	holders map[int]string
	moved   int
	last    time.Time // when something moved last
	faults  []string
}

func (l *ledger) gained(who string, shard int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if other := l.holders[shard]; other != "" {
		l.faults = append(l.faults, fmt.Sprintf("%s has shard %d while %s works for it", who, shard, other))
	}
	l.holders[shard] = who
	l.moved++
	l.last = time.Now()
}

func (l *ledger) lost(who string, shard int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.holders[shard] == who {
		delete(l.holders, shard)
		l.last = time.Now()
	}
}

// count returns how many shards each works for.
func (l *ledger) count() (counts map[string]int, all, moved int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	counts = map[string]int{}
	for _, who := range l.holders {
		counts[who]++
	}
	return counts, len(l.holders), l.moved
}

// rested is how long nothing has moved.
func (l *ledger) rested() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Since(l.last)
}

// joins starts a replica without a syncer, and returns what stops it.
func (l *ledger) joins(t *testing.T, namespace, name string, n int) (leave func()) {
	t.Helper()
	c, err := shards.New(shards.Options{Config: w.Super.Config, Namespace: namespace, Name: name, Shards: n})
	if err != nil {
		t.Fatal(err)
	}
	c.Notify(func(shard int) { l.gained(name, shard) }, func(shard int) { l.lost(name, shard) })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.Run(ctx)
	}()
	leave = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	t.Cleanup(leave)
	return leave
}

// await waits until the replicas share all shards, and nothing has moved for several looks of theirs.
func (l *ledger) await(t *testing.T, n int, replicas ...string) (moved int) {
	t.Helper()
	worlds.Eventually(t, limit, fmt.Sprintf("%v to work for %d shards", replicas, n), func(context.Context) error {
		counts, all, m := l.count()
		moved = m
		for _, r := range replicas {
			if counts[r] == 0 {
				return fmt.Errorf("shards: %v", counts)
			}
		}
		if all != n || len(counts) != len(replicas) {
			return fmt.Errorf("shards: %v", counts)
		}
		if l.rested() < time.Second {
			return fmt.Errorf("shards move still: %v", counts)
		}
		return nil
	})
	return moved
}

// A replica that comes takes only its share, and one that goes leaves only its own; nobody works for a shard that another does.
func TestShardsAreHandedOver(t *testing.T) {
	const n, namespace = 32, "shards"
	w.Super.MakeNamespace(t, namespace)
	l := &ledger{holders: map[int]string{}}
	l.joins(t, namespace, "a", n)
	l.await(t, n, "a")
	l.joins(t, namespace, "b", n)
	before := l.await(t, n, "a", "b")
	if before == 2*n {
		t.Errorf("all %d shards moved when a second replica came", n)
	}
	leave := l.joins(t, namespace, "c", n)
	settled := l.await(t, n, "a", "b", "c")
	counts, _, _ := l.count()
	if got := settled - before; got != counts["c"] {
		t.Errorf("%d shards moved to or between %v when c came", got, counts)
	}
	leave()
	if got := l.await(t, n, "a", "b") - settled; got != counts["c"] {
		t.Errorf("%d shards moved when c, which had %d, went", got, counts["c"])
	}
	for _, fault := range l.faults {
		t.Error(fault)
	}
}

// A leader without shards, and replicas with another number of them, are waited for.
func TestOnlyOneNumberOfShards(t *testing.T) {
	const namespace = "shards-mode"
	w.Super.MakeNamespace(t, namespace)
	leases := w.Super.Client.CoordinationV1().Leases(namespace)
	leader := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: names.Syncer},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: new("leader_1"), LeaseDurationSeconds: new(int32(15)), RenewTime: new(metav1.NowMicro())},
	}
	leader, err := leases.Create(t.Context(), leader, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	l := &ledger{holders: map[int]string{}}
	leave := l.joins(t, namespace, "a", 4)
	began := time.Now()
	leader.Spec.RenewTime = new(metav1.NowMicro())
	if leader, err = leases.Update(t.Context(), leader, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	l.await(t, 4, "a")
	if took := time.Since(began); took < 15*time.Second {
		t.Errorf("shards were taken %v after the leader was last heard of", took)
	}
	leader.Spec.RenewTime = new(metav1.NowMicro())
	if _, err := leases.Update(t.Context(), leader, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("the leader can still renew: %v", err)
	}
	l.joins(t, namespace, "b", 8)
	leave()
	ended := time.Now()
	l.await(t, 8, "b")
	if took := time.Since(ended); took < 11*time.Second { // the last renewal may have been up to 3 s before
		t.Errorf("replicas of another number of shards were waited for %v", took)
	}
	for _, fault := range l.faults {
		t.Error(fault)
	}
}
