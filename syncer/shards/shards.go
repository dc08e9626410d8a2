// Package shards shares the tenants among the replicas of vc-syncer. A tenant belongs to a shard, and a shard to one replica,
// which alone writes for its tenants. Who that is stands in Leases of the super cluster; a Fence keeps a replica from writing
// after others may think that it has ended, however long it was paused. It knows nothing of kinds and objects.
package shards

import (
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// Of returns the shard of a tenant, of n.
func Of(id names.TenantID, n int) int {
	return int(hash(string(id)) % uint64(n)) //nolint:gosec // it is less than n
}

// preferred returns which of the replicas a shard should belong to, the empty string when there is none: the one that, hashed
// together with the shard, comes first. Without a replica only its shards move, and a new one takes only what becomes its own.
func preferred(shard int, replicas []string) string {
	best, first := "", uint64(0)
	for _, r := range replicas {
		h := hash(strconv.Itoa(shard) + "/" + r)
		if best == "" || h > first || h == first && r > best {
			best, first = r, h
		}
	}
	return best
}

func hash(text string) uint64 {
	sum := sha256.Sum256([]byte(text))
	return binary.BigEndian.Uint64(sum[:])
}

// elapsed returns the time between two readings of the clocks, by that which says more: one does not count while the machine
// sleeps, and somebody may set the other.
func elapsed(from, to time.Time) time.Duration {
	return max(to.Sub(from), to.Round(0).Sub(from.Round(0)))
}

// situation is what a replica knows when it decides what to do.
type situation struct {
	me     string
	shards int
	// duration is how long a replica lives after it was last heard of.
	duration time.Duration
	// replicas are those that have a Lease.
	replicas map[string]replica
	// holders are the replicas that the Leases of shards name; the empty string is nobody.
	holders map[int]string
	// strays are holders that have no Lease, with how long they have had none.
	strays map[string]time.Duration
	// held are the shards that this replica works for.
	held map[int]bool
	// busy are the shards whose work is being ended.
	busy map[int]bool
}

// replica is what is known of one.
type replica struct {
	// ended says that it ended, or that another replica has declared that.
	ended bool
	// silent is for how long nothing was heard of it.
	silent time.Duration
}

// steps are what to do, all in order of names and numbers.
type steps struct {
	declare  []string // replicas to declare ended
	sweep    []string // replicas whose Lease nobody needs
	take     []int    // shards to take
	handOver []int    // shards to hand over to whom they should belong to
	free     []int    // shards that could not be freed before
	lost     []int    // shards whose Lease names another replica
}

// sweepAfter is after how many durations the Lease of a replica that ended is removed.
const sweepAfter = 10

// decide says what to do.
func decide(s situation) steps {
	var todo steps
	live := []string{s.me}
	for _, name := range slices.Sorted(maps.Keys(s.replicas)) {
		switch r := s.replicas[name]; {
		case name == s.me:
		case !r.ended && r.silent < s.duration:
			live = append(live, name)
		case !r.ended:
			todo.declare = append(todo.declare, name)
		case r.silent >= sweepAfter*s.duration && !slices.Contains(slices.Collect(maps.Values(s.holders)), name):
			todo.sweep = append(todo.sweep, name)
		}
	}
	for shard := range s.shards {
		holder, mine := s.holders[shard], preferred(shard, live) == s.me
		switch {
		case s.busy[shard]:
		case s.held[shard] && holder != s.me:
			todo.lost = append(todo.lost, shard)
		case s.held[shard] && !mine:
			todo.handOver = append(todo.handOver, shard)
		case !s.held[shard] && mine && s.free(holder):
			todo.take = append(todo.take, shard)
		case !s.held[shard] && holder == s.me:
			todo.free = append(todo.free, shard)
		}
	}
	return todo
}

// free says whether nobody works for a shard whose Lease names the holder. One that has no Lease may still work until it would
// have noticed.
func (s *situation) free(holder string) bool {
	if holder == "" || holder == s.me {
		return true
	}
	if r, ok := s.replicas[holder]; ok {
		return r.ended
	}
	return s.strays[holder] >= s.duration
}
