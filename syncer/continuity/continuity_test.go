package continuity_test

import (
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/virtualcluster-io/virtualcluster/syncer/continuity"
)

const vc, super = types.UID("vc-uid"), types.UID("super-uid")

func TestJudge(t *testing.T) {
	at := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	record := continuity.Record{Sequence: 7, Revision: 5000, At: at}
	announced := record
	announced.Next = 8
	sight := func(edit func(*continuity.Sight)) continuity.Sight {
		s := continuity.Sight{
			Revision: 5100, At: at.Add(time.Minute), Super: continuity.Super{Identity: super, Revision: 900},
			Mark: &continuity.Mark{Sequence: 7, VirtualCluster: vc, Super: continuity.Super{Identity: super, Revision: 800}},
		}
		if edit != nil {
			edit(&s)
		}
		return s
	}
	for name, tc := range map[string]struct {
		record continuity.Record
		sight  continuity.Sight
		want   continuity.Verdict
		// says are parts of the message.
		says []string
	}{
		"WentForward":              {record: record, sight: sight(nil), want: continuity.Continuous},
		"Unchanged":                {record: record, sight: sight(func(s *continuity.Sight) { s.Revision = 5000 }), want: continuity.Continuous},
		"FirstContact":             {sight: sight(func(s *continuity.Sight) { s.Mark = nil }), want: continuity.Unknown},
		"LowerRevision":            {record: record, sight: sight(func(s *continuity.Sight) { s.Revision = 4999 }), want: continuity.Rewound, says: []string{"4999", "5000"}},
		"LowerRevisionWithoutMark": {record: record, sight: sight(func(s *continuity.Sight) { s.Revision, s.Mark = 4999, nil }), want: continuity.Rewound},
		"OlderMark":                {record: record, sight: sight(func(s *continuity.Sight) { s.Mark.Sequence = 6 }), want: continuity.Rewound, says: []string{"mark 6", "was 7", "5100", "5000"}},
		"BumpedRevision":           {record: record, sight: sight(func(s *continuity.Sight) { s.Revision = 1_000_005_000 }), want: continuity.Rewound, says: []string{"1000005000", "5000"}},
		"BumpedRevisionOlderMark":  {record: record, sight: sight(func(s *continuity.Sight) { s.Revision, s.Mark.Sequence = 1_000_005_000, 2 }), want: continuity.Rewound},
		"MuchLoadForLong": {record: record, sight: sight(func(s *continuity.Sight) { s.Revision, s.At = 100_000_000, at.Add(12*time.Hour) }),
			want: continuity.Continuous},
		"NeverMarked":              {record: continuity.Record{Revision: 5000, At: at}, sight: sight(func(s *continuity.Sight) { s.Mark = nil }), want: continuity.Continuous},
		"MarkTakenAway":            {record: record, sight: sight(func(s *continuity.Sight) { s.Mark = nil }), want: continuity.Unknown, says: []string{"mark 7"}},
		"MarkAnnounced":            {record: announced, sight: sight(nil), want: continuity.Continuous},
		"MarkWrittenNotRemembered": {record: announced, sight: sight(func(s *continuity.Sight) { s.Mark.Sequence = 8 }), want: continuity.Continuous},
		"FirstMarkNotRemembered": {record: continuity.Record{Next: 1, Revision: 5000, At: at}, sight: sight(func(s *continuity.Sight) { s.Mark.Sequence = 1 }),
			want: continuity.Continuous},
		"CrashAtFirstContact": {record: continuity.Record{Next: 1}, sight: sight(func(s *continuity.Sight) { s.Mark.Sequence = 1 }), want: continuity.Unknown},
		"MarkIsAhead":         {record: record, sight: sight(func(s *continuity.Sight) { s.Mark.Sequence = 8 }), want: continuity.SuperChanged, says: []string{"mark 7", "mark 8"}},
		"MarkIsTwoAhead":      {record: announced, sight: sight(func(s *continuity.Sight) { s.Mark.Sequence = 9 }), want: continuity.SuperChanged},
		"OlderMarkAnnounced":  {record: announced, sight: sight(func(s *continuity.Sight) { s.Mark.Sequence = 6 }), want: continuity.Rewound},
		"MemoryLost":          {sight: sight(nil), want: continuity.SuperChanged, says: []string{"mark 0", "mark 7"}},
		"SuperRevisionWentBack": {record: record, sight: sight(func(s *continuity.Sight) { s.Super.Revision = 799 }), want: continuity.SuperChanged,
			says: []string{"799", "800"}},
		"OtherSuper": {record: record, sight: sight(func(s *continuity.Sight) { s.Super.Identity = "other" }), want: continuity.SuperChanged,
			says: []string{"UID super-uid", "UID other"}},
		"OtherSuperRemembersNothing": {sight: sight(func(s *continuity.Sight) { s.Super.Identity = "other" }), want: continuity.SuperChanged},
	} {
		t.Run(name, func(t *testing.T) {
			got, why := continuity.Judge(tc.record, tc.sight)
			if got != tc.want {
				t.Errorf("got %d (%s), want %d", got, why, tc.want)
			}
			for _, part := range tc.says {
				if !strings.Contains(why, part) {
					t.Errorf("%q does not say %q", why, part)
				}
			}
			if (got == continuity.Continuous) != (why == "") {
				t.Errorf("verdict %d is explained by %q", got, why)
			}
		})
	}
}

func TestMarkText(t *testing.T) {
	want := continuity.Mark{Sequence: 12, VirtualCluster: vc, Super: continuity.Super{Identity: super, Revision: 34}}
	if got := continuity.ParseMark(want.String(), vc); got == nil || *got != want {
		t.Errorf("got %+v from %q, want %+v", got, want.String(), want)
	}
	for name, text := range map[string]string{
		"Empty": "", "Other": "x", "Fields": "12/vc-uid/super-uid", "Sequence": "x/vc-uid/super-uid/34", "Zero": "0/vc-uid/super-uid/34",
		"Revision": "12/vc-uid/super-uid/", "OtherVirtualCluster": "12/other/super-uid/34", "More": "12/vc-uid/super-uid/34/5",
		"LongIdentity": "12/vc-uid/" + strings.Repeat("x", 65) + "/34", "Overflow": "99999999999999999999/vc-uid/super-uid/34",
	} {
		t.Run(name, func(t *testing.T) {
			if got := continuity.ParseMark(text, vc); got != nil {
				t.Errorf("%q is %+v", text, got)
			}
		})
	}
}
