package tenants

import (
	"context"
	"testing"
	"time"

	"github.com/virtualcluster-io/virtualcluster/syncer/continuity"
)

// A mark may be announced and left while the tenant is asked for what it shows. It is ours, and one that nobody announced is not.
func TestMarksThatAreLeftWhileTheTenantIsAsked(t *testing.T) {
	super := continuity.Super{Identity: "super", Revision: 5}
	for name, tc := range map[string]struct {
		record, stored continuity.Record
		halts          bool
	}{
		"Announced": {record: continuity.Record{Sequence: 10, Next: 11, Revision: 7}, stored: continuity.Record{Sequence: 10, Next: 11, Revision: 7}},
		"Left":      {record: continuity.Record{Sequence: 11, Revision: 7}, stored: continuity.Record{Sequence: 10, Next: 11, Revision: 7}},
		"Stored":    {record: continuity.Record{Sequence: 11, Revision: 7}, stored: continuity.Record{Sequence: 11, Revision: 7}},
		"Wanted":    {record: continuity.Record{Sequence: 10, Next: 11, Revision: 7}, stored: continuity.Record{Sequence: 10, Revision: 7}, halts: true},
		"Foreign":   {record: continuity.Record{Sequence: 10, Revision: 7}, stored: continuity.Record{Sequence: 10, Revision: 7}, halts: true},
	} {
		of := &Tenant{listener: &told{}, options: Options{Super: func(context.Context, time.Duration) (continuity.Super, error) { return super, nil }}}
		of.history = history{record: tc.record, stored: tc.stored, verdict: continuity.Continuous, judged: true}
		before := continuity.Record{Sequence: 10, Revision: 7}
		err := of.judge(t.Context(), before, continuity.Sight{Revision: 8, Mark: &continuity.Mark{Sequence: 11, Super: super}, Super: super})
		if _, halts := halted(err); halts != tc.halts || !halts && err != nil {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
