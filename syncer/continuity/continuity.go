// Package continuity judges whether a control plane went on from where it was last seen, or came back from a backup. Two
// things tell: the resource version, which only grows while a control plane lives, and a mark, which the syncer leaves in the
// tenant and remembers in the super cluster. A control plane that was restored has an older mark than is remembered, also
// when its resource version has overtaken the one that was seen. The package is pure: it is told what was seen, and when.
package continuity

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Mark is what the syncer leaves in a tenant.
type Mark struct {
	// Sequence counts the marks of the tenant, from 1.
	Sequence int64
	// VirtualCluster is the UID of the VirtualCluster that the mark was left for.
	VirtualCluster types.UID
	// Super is the super cluster that the tenant was synchronised with, and how far it was.
	Super Super
}

// Super is one sight of the super cluster.
type Super struct {
	// Identity is the UID of its namespace kube-system.
	Identity types.UID
	// Revision is its resource version.
	Revision int64
}

// markParts is the number of fields of a Mark's text, maxIdentity the longest UID that is read from it.
const markParts, maxIdentity = 4, 64

// String returns the text that ParseMark reads.
func (m Mark) String() string {
	return fmt.Sprintf("%d/%s/%s/%d", m.Sequence, m.VirtualCluster, m.Super.Identity, m.Super.Revision)
}

// ParseMark reads what String wrote. A text that is not a mark, or one of another VirtualCluster, is no mark: a tenant may
// write what it likes there.
func ParseMark(text string, virtualCluster types.UID) *Mark {
	parts := strings.Split(text, "/")
	if len(parts) != markParts || parts[1] != string(virtualCluster) || len(parts[2]) > maxIdentity {
		return nil
	}
	sequence, err := strconv.ParseInt(parts[0], 10, 64)
	if err != nil || sequence < 1 {
		return nil
	}
	revision, err := strconv.ParseInt(parts[3], 10, 64)
	if err != nil {
		return nil
	}
	return &Mark{Sequence: sequence, VirtualCluster: virtualCluster, Super: Super{Identity: types.UID(parts[2]), Revision: revision}}
}

// Record is what is remembered of a tenant outside of it. The zero value means that nothing is remembered.
type Record struct {
	// Sequence is that of the last mark, 0 when there was none. Next is that of the mark that may have been left since, 0 when
	// none may have been.
	Sequence, Next int64
	// Revision is the highest resource version of the tenant that was seen, 0 when none was; At is when.
	Revision int64
	At       time.Time
}

// Sight is what one look at both control planes shows.
type Sight struct {
	// Revision is the resource version of the tenant.
	Revision int64
	// Mark is that of the tenant, nil when it has none.
	Mark  *Mark
	Super Super
	// At is the time of the look.
	At time.Time
}

// Verdict is what a Sight means.
type Verdict uint8

// The verdicts.
const (
	// Continuous means that what is absent was deleted by the tenant.
	Continuous Verdict = iota
	// Unknown means that nothing tells: too little is remembered.
	Unknown
	// Rewound means that the control plane was restored from a backup.
	Rewound
	// SuperChanged means that the super cluster was restored from a backup, or is not the one that the tenant was
	// synchronised with.
	SuperChanged
)

// A resource version that leaps by more than leap, and by more than leapRate for each second, was raised by a restore (etcd's
// --bump-revision): no load makes so many writes.
const (
	leap     = 1_000_000
	leapRate = 10_000
)

// Judge compares a sight with what is remembered, and explains in a sentence for people.
func Judge(r Record, s Sight) (Verdict, string) {
	if verdict, why := judgeSuper(r, s); verdict != Continuous {
		return verdict, why
	}
	if r.Revision == 0 && r.Sequence == 0 {
		return Unknown, "nothing is remembered of the control plane"
	}
	if s.Revision < r.Revision {
		return Rewound, fmt.Sprintf("the control plane was restored from a backup: its resource version is %d, and was %d before", s.Revision, r.Revision)
	}
	if s.Mark != nil && s.Mark.Sequence < r.Sequence {
		return Rewound, fmt.Sprintf("the control plane was restored from a backup: it has mark %d of vc-syncer, the last one was %d (its resource version is %d, and was %d before)",
			s.Mark.Sequence, r.Sequence, s.Revision, r.Revision)
	}
	if r.Revision > 0 && s.Revision-r.Revision > leap+int64(s.At.Sub(r.At).Seconds())*leapRate {
		return Rewound, fmt.Sprintf("the control plane was restored from a backup: its resource version leapt from %d to %d in %s, which no load explains",
			r.Revision, s.Revision, s.At.Sub(r.At).Round(time.Second))
	}
	if s.Mark == nil && r.Sequence > 0 {
		return Unknown, fmt.Sprintf("mark %d of vc-syncer is missing in the control plane", r.Sequence)
	}
	return Continuous, ""
}

// judgeSuper judges the super cluster by the mark.
func judgeSuper(r Record, s Sight) (Verdict, string) {
	switch {
	case s.Mark == nil:
		return Continuous, ""
	case s.Mark.Super.Identity != s.Super.Identity:
		return SuperChanged, fmt.Sprintf("the tenant was synchronised with another super cluster, whose kube-system namespace has UID %s; that of this one has UID %s",
			s.Mark.Super.Identity, s.Super.Identity)
	case s.Mark.Super.Revision > s.Super.Revision:
		return SuperChanged, fmt.Sprintf("the super cluster was restored from a backup: its resource version is %d, and was %d before", s.Super.Revision, s.Mark.Super.Revision)
	case s.Mark.Sequence > max(r.Sequence, r.Next):
		return SuperChanged, fmt.Sprintf("the super cluster was restored from a backup: it remembers mark %d of vc-syncer, the tenant has mark %d", r.Sequence, s.Mark.Sequence)
	default:
		return Continuous, ""
	}
}
