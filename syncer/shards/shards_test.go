package shards

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

func TestTenantsAreSpreadOverShards(t *testing.T) {
	const tenants, shards = 6400, 64
	count := map[int]int{}
	for i := range tenants {
		shard := Of(names.TenantID(fmt.Sprintf("ns-vc-%d", i)), shards)
		if shard < 0 || shard >= shards {
			t.Fatalf("shard %d", shard)
		}
		count[shard]++
	}
	for shard := range shards {
		if n := count[shard]; n < 50 || n > 150 { // the mean is 100, and the deviation 10
			t.Errorf("shard %d has %d tenants", shard, n)
		}
	}
	if all := Of("ns-vc", 1); all != 0 {
		t.Errorf("of one shard: %d", all)
	}
}

func owners(shards int, replicas []string) map[int]string {
	out := map[int]string{}
	for shard := range shards {
		out[shard] = preferred(shard, replicas)
	}
	return out
}

// Only the shards of a replica that goes move, and only what a new one gets.
func TestShardsMoveNoMoreThanTheyMust(t *testing.T) {
	const shards = 256
	replicas := []string{"a_1", "b_2", "c_3", "d_4"}
	all := owners(shards, replicas)
	count := map[string]int{}
	for _, owner := range all {
		count[owner]++
	}
	for _, r := range replicas {
		if n := count[r]; n < 35 || n > 93 { // the mean is 64, and the deviation 7
			t.Errorf("%s has %d of %d shards", r, n, shards)
		}
	}
	for i, gone := range replicas {
		left := append(append([]string{}, replicas[:i]...), replicas[i+1:]...)
		for shard, owner := range owners(shards, left) {
			if before := all[shard]; before != gone && before != owner {
				t.Errorf("without %s, shard %d moved from %s to %s", gone, shard, before, owner)
			}
		}
	}
	if owner := preferred(1, nil); owner != "" {
		t.Errorf("nobody is %q", owner)
	}
}

// mineOf returns a shard that belongs to a replica, whoever lives.
func mineOf(t *testing.T, replicas ...string) int {
	t.Helper()
	for shard := range 64 {
		if preferred(shard, replicas) == replicas[0] {
			return shard
		}
	}
	t.Fatal("no shard")
	return 0
}

func TestDecide(t *testing.T) {
	const me, other, duration = "me_1", "other_2", 3 * time.Second
	mine, theirs := mineOf(t, me, other), mineOf(t, other, me)
	live := map[string]replica{me: {}, other: {silent: duration - 1}}
	for _, test := range []struct {
		name  string
		s     situation
		shard int
		want  steps
	}{
		{"a shard that nobody has had", situation{replicas: live}, mine, steps{take: []int{mine}}},
		{"a shard that is free", situation{replicas: live, holders: map[int]string{mine: ""}}, mine, steps{take: []int{mine}}},
		{"a free shard that should be another's", situation{replicas: live}, theirs, steps{}},
		{"a shard that another has and should hand over", situation{replicas: live, holders: map[int]string{mine: other}}, mine, steps{}},
		{"a shard to hand over", situation{replicas: live, holders: map[int]string{theirs: me}, held: map[int]bool{theirs: true}}, theirs, steps{handOver: []int{theirs}}},
		{"a shard that is kept", situation{replicas: live, holders: map[int]string{mine: me}, held: map[int]bool{mine: true}}, mine, steps{}},
		{"a shard that is being handed over is not taken again", situation{replicas: live, holders: map[int]string{mine: me}, busy: map[int]bool{mine: true}}, mine, steps{}},
		{"a shard that is ours and not worked for", situation{replicas: live, holders: map[int]string{mine: me}}, mine, steps{take: []int{mine}}},
		{"a shard that could not be freed", situation{replicas: live, holders: map[int]string{theirs: me}}, theirs, steps{free: []int{theirs}}},
		{"a shard that somebody took", situation{replicas: live, holders: map[int]string{mine: other}, held: map[int]bool{mine: true}}, mine, steps{lost: []int{mine}}},
		{
			"a replica that is silent is declared ended, and its shard is not taken yet",
			situation{replicas: map[string]replica{other: {silent: duration}}, holders: map[int]string{theirs: other}}, theirs,
			steps{declare: []string{other}},
		},
		{
			"a replica that was declared ended",
			situation{replicas: map[string]replica{other: {ended: true}}, holders: map[int]string{theirs: other}}, theirs,
			steps{take: []int{theirs}},
		},
		{
			"the Lease of a replica that ended is kept while a shard names it",
			situation{replicas: map[string]replica{other: {ended: true, silent: sweepAfter * duration}}, holders: map[int]string{theirs: other}, busy: map[int]bool{theirs: true}},
			theirs, steps{},
		},
		{
			"the Lease of a replica that ended is removed",
			situation{replicas: map[string]replica{other: {ended: true, silent: sweepAfter * duration}}, holders: map[int]string{theirs: me}, held: map[int]bool{theirs: true}},
			theirs, steps{sweep: []string{other}},
		},
		{
			"a holder without a Lease may still write",
			situation{holders: map[int]string{mine: "gone_3"}, strays: map[string]time.Duration{"gone_3": duration - 1}}, mine, steps{},
		},
		{
			"a holder that has had no Lease for long",
			situation{holders: map[int]string{mine: "gone_3"}, strays: map[string]time.Duration{"gone_3": duration}}, mine, steps{take: []int{mine}},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := test.s
			s.me, s.shards, s.duration = me, 64, duration
			if s.busy == nil {
				s.busy = map[int]bool{}
			}
			for shard := range s.shards {
				if shard != test.shard {
					s.busy[shard] = true
				}
			}
			if diff := cmp.Diff(test.want, decide(s), cmp.AllowUnexported(steps{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}
