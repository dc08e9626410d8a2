package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// kind is a kind of fault.
type kind string

// The kinds of faults. Those of a process end it or stop it where it is; those of a link concern one direction of connections, from
// vc-syncer to an API server.
const (
	kill      kind = "kill"      // SIGKILL, and started again after the duration
	terminate kind = "terminate" // SIGTERM, and started again after the duration
	pause     kind = "pause"     // SIGSTOP for the duration
	cut       kind = "cut"       // connections end and are refused
	stall     kind = "stall"     // connections stay and nothing arrives
	delay     kind = "delay"     // everything arrives late
	fill      kind = "fill"      // the disk of an etcd is full
	empty     kind = "empty"     // an etcd that lost everything, until its data is found again
	restore   kind = "restore"   // a backup that is as old as the duration is put back
	unseen    kind = "unseen"    // the same while no vc-syncer runs, and the tenant works before one runs again
)

// exclusive faults are alone: what vc-syncer must not do while they last is checked, and that needs a super cluster that answers.
func (k kind) exclusive() bool { return slices.Contains([]kind{empty, restore, unseen}, k) }

// fault is something that happens to a target at a time after the start.
type fault struct {
	At     span   `json:"at"`
	For    span   `json:"for"`
	Kind   kind   `json:"kind"`
	Target string `json:"target"`
}

func (f fault) String() string {
	return fmt.Sprintf("%s %s at %s for %s", f.Kind, f.Target, time.Duration(f.At), time.Duration(f.For))
}

// span is a duration that is written as people do.
type span time.Duration

// MarshalText implements encoding.TextMarshaler.
func (s span) MarshalText() ([]byte, error) { //nolint:unparam // the interface has an error
	return []byte(time.Duration(s).String()), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *span) UnmarshalText(text []byte) error {
	d, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("reading a duration: %w", err)
	}
	*s = span(d)
	return nil
}

// setting is what faults can happen to.
type setting struct {
	Tenants, Syncers int
	// Disks says that the disks of etcds can be filled.
	Disks bool
}

// Names of targets.
const (
	superCluster = "super"
	manager      = "vc-manager"
)

func tenantName(i int) string { return fmt.Sprintf("tenant-%d", i) }
func syncerName(i int) string { return fmt.Sprintf("vc-syncer-%d", i) }

// linkName is that of the link to a tenant, or from a vc-syncer to the super cluster.
func linkName(of string) string { return "link of " + of }

// Suffixes of the targets that a control plane consists of.
const (
	ofAPIServer = "/kube-apiserver"
	ofEtcd      = "/etcd"
	ofDisk      = "/disk"
)

// targets lists what a kind of fault can happen to.
func (s setting) targets(k kind) []string {
	var tenants, syncers, servers, etcds, disks, links []string
	for i := range s.Syncers {
		syncers = append(syncers, syncerName(i))
		links = append(links, linkName(syncerName(i)))
	}
	for i := range s.Tenants {
		tenants = append(tenants, tenantName(i))
		links = append(links, linkName(tenantName(i)))
		if s.Disks {
			disks = append(disks, tenantName(i)+ofDisk)
		}
	}
	for _, world := range append([]string{superCluster}, tenants...) {
		servers, etcds = append(servers, world+ofAPIServer), append(etcds, world+ofEtcd)
	}
	switch k {
	case kill, pause:
		return slices.Concat(syncers, syncers, servers, etcds, []string{manager}) // what it is all about comes twice
	case terminate:
		return slices.Concat(syncers, servers, []string{manager})
	case cut, stall, delay:
		return links
	case fill:
		return disks
	default:
		return tenants
	}
}

// part is what two faults at once must not share: a control plane, or a program.
func part(target string) string {
	if strings.HasPrefix(target, "link of ") {
		return target
	}
	world, _, _ := strings.Cut(target, "/")
	return world
}

// The bounds of a schedule: a fault lasts long enough to be noticed, some longer than a leader's lease, and there is time to
// recover.
const (
	calm                = 15 * time.Second // at the start
	shortest, longest   = 3 * time.Second, 25 * time.Second
	shortRest, longRest = 4 * time.Second, 10 * time.Second
	exclusiveRest       = 10 * time.Second
	atOnce              = 3
)

// generate returns the faults of a seed, in the order of their start. All end before the given time has passed, as planned; what
// is done about some takes longer.
func generate(seed uint64, within time.Duration, s setting) []fault {
	rng := rand.New(rand.NewPCG(seed, 0))
	between := func(from, to time.Duration) time.Duration {
		return (from + time.Duration(rng.Int64N(int64(to-from)))).Round(100 * time.Millisecond)
	}
	var deck []kind
	draw := func() kind {
		if len(deck) == 0 { // every kind comes before one comes again
			deck = []kind{kill, kill, terminate, pause, pause, cut, stall, delay, empty, restore, unseen}
			if s.Disks {
				deck = append(deck, fill)
			}
			rng.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
		}
		k := deck[0]
		deck = deck[1:]
		return k
	}
	var out []fault
	for now := calm; ; {
		round := []kind{draw()}
		for n := rng.IntN(atOnce); n > 0 && !round[0].exclusive(); n-- {
			if k := draw(); !k.exclusive() {
				round = append(round, k)
			} else {
				deck = append(deck, k)
			}
		}
		end := now
		var faults []fault
		busy := map[string]bool{}
		for _, k := range round {
			targets := s.targets(k)
			f := fault{At: span(now + between(0, 2*time.Second)), For: span(between(shortest, longest)), Kind: k, Target: targets[rng.IntN(len(targets))]}
			if busy[part(f.Target)] {
				continue
			}
			busy[part(f.Target)] = true
			faults = append(faults, f)
			end = max(end, time.Duration(f.At+f.For))
		}
		if end > within {
			slices.SortStableFunc(out, func(a, b fault) int { return int(a.At - b.At) })
			return out
		}
		out = append(out, faults...)
		now = end + between(shortRest, longRest)
		if round[0].exclusive() {
			now += exclusiveRest
		}
	}
}
