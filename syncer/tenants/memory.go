package tenants

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/continuity"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// Memory is what is remembered of a tenant across restarts of the syncer.
type Memory struct {
	continuity.Record
	// Halt is the state in which the tenant waits for a person, Rewound or SuperChanged, empty when it does not; Why explains it.
	Halt State
	Why  string
	// Braked says that deletions wait for a person.
	Braked bool
}

// A mark is written soon after something was made that holds data or other objects, and a while after anything else was
// made: what was made after the last mark is not told from what a tenant deleted, should it be restored.
const (
	soonMark     = time.Second
	soonInterval = 10 * time.Second
	lateMark     = time.Minute
)

// history is what a Tenant knows about its own continuity. The lock of the Tenant guards it.
type history struct {
	record continuity.Record
	// verdict is Continuous or Unknown. What is unknown stays so until it is accepted.
	verdict continuity.Verdict
	judged  bool
	// braked says that deletions waited for a person when the tenant was remembered.
	braked bool
	halt   State
	why    string
	// stored is what is remembered outside. A mark is announced there before it is left, so that a crash at any moment is not
	// taken for a restore.
	stored continuity.Record
	// accepting says that a person accepts the control plane as it is.
	accepting bool

	due    time.Time // when the next mark is due, zero when none is
	marked time.Time // when the last one was written
	timer  *time.Timer
}

func newHistory(m Memory) history {
	return history{record: m.Record, halt: m.Halt, why: m.Why, stored: m.Record, verdict: continuity.Unknown, braked: m.Braked, judged: m.Braked}
}

// haltError says that a tenant waits for a person.
type haltError struct {
	state State
	why   string
}

// Error implements error.
func (e *haltError) Error() string { return e.why }

// Memory returns what is to be remembered of the tenant.
func (t *Tenant) Memory() Memory {
	t.mu.Lock()
	defer t.mu.Unlock()
	return Memory{Record: t.history.record, Halt: t.history.halt, Why: t.history.why}
}

// Stored tells the tenant what is remembered.
func (t *Tenant) Stored(record continuity.Record) {
	t.mu.Lock()
	announced := record.Next > t.history.stored.Next
	t.history.stored = record
	t.arm()
	accepting := t.history.accepting
	t.mu.Unlock()
	if announced && accepting {
		t.askProbe()
	}
}

// announced says whether the mark of the given sequence may be left. If not, it asks for that. The caller holds t.mu.
func (h *history) announced(sequence int64) bool {
	if h.stored.Next == sequence {
		return true
	}
	h.record.Next = sequence
	return false
}

// Braked says whether deletions waited for a person when the tenant was remembered, and nobody has released them since.
func (t *Tenant) Braked() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.history.braked
}

// Known says whether what is absent from the tenant was deleted by it. Otherwise nothing tells.
func (t *Tenant) Known() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.history.verdict == continuity.Continuous
}

// Accept continues with the control plane as it is, whatever is missing in it.
func (t *Tenant) Accept() {
	t.mu.Lock()
	t.history.accepting = true
	t.mu.Unlock()
	t.askProbe()
}

// Touched asks for a mark after something was made; soon when it holds data or other objects.
func (t *Tenant) Touched(soon bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.history.verdict == continuity.Continuous {
		t.touch(soon)
	}
}

// touch sets when the next mark is due. The caller holds t.mu.
func (t *Tenant) touch(soon bool) {
	due := latest(time.Now().Add(lateMark), t.history.marked.Add(lateMark))
	if soon {
		due = latest(time.Now().Add(soonMark), t.history.marked.Add(soonInterval))
	}
	if t.history.due.IsZero() || due.Before(t.history.due) {
		t.history.due = due
		t.arm()
	}
}

// arm wakes run when a mark is due. The caller holds t.mu.
func (t *Tenant) arm() {
	h := &t.history
	if h.due.IsZero() {
		return
	}
	if h.timer != nil {
		h.timer.Stop()
	}
	h.timer = time.AfterFunc(time.Until(h.due), func() {
		select {
		case t.marks <- struct{}{}:
		default: // it is asked already
		}
	})
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// judge compares what the tenant shows with what is remembered. It is called without t.mu, with the memory as it was before the
// tenant was asked: answers may overtake each other.
func (t *Tenant) judge(ctx context.Context, before continuity.Record, s continuity.Sight) error {
	verdict, why := continuity.Judge(before, s)
	if verdict == continuity.SuperChanged { // the super cluster may have been seen before somebody else's mark
		super, err := t.options.Super(ctx, 0)
		if err != nil {
			return err
		}
		s.Super = super
		since := before
		since.Next = t.lastAnnounced() // which may have been left while the tenant was asked
		verdict, why = continuity.Judge(since, s)
	}
	adopted, err := t.conclude(before, s, verdict, why)
	if adopted {
		t.listener.Remember(t)
	}
	return err
}

// lastAnnounced returns the sequence of the last mark that the tenant may have of us.
func (t *Tenant) lastAnnounced() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return max(t.history.record.Sequence, t.history.stored.Next)
}

// conclude notes a verdict. It says whether the mark of the tenant is to be remembered: it was written, and not remembered.
func (t *Tenant) conclude(before continuity.Record, s continuity.Sight, verdict continuity.Verdict, why string) (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := &t.history
	if h.halt != "" {
		return false, &haltError{h.halt, h.why}
	}
	switch verdict {
	case continuity.Rewound:
		h.halt, h.why = Rewound, why
		return false, &haltError{h.halt, h.why}
	case continuity.SuperChanged:
		h.halt, h.why = SuperChanged, why
		return false, &haltError{h.halt, h.why}
	case continuity.Unknown:
		if before == h.record {
			h.verdict, h.judged = continuity.Unknown, true
		}
		return false, nil
	case continuity.Continuous:
	}
	if h.judged && h.verdict == continuity.Unknown {
		return false, nil
	}
	h.verdict, h.judged = continuity.Continuous, true
	if s.Revision > h.record.Revision {
		h.record.Revision, h.record.At = s.Revision, s.At
	}
	adopted := s.Mark != nil && s.Mark.Sequence > h.record.Sequence
	if adopted {
		h.record.Sequence, h.record.Next = s.Mark.Sequence, 0
	}
	if h.record.Sequence == 0 {
		t.touch(true)
	}
	return adopted, nil
}

// accept takes the control plane as it is for what is remembered, if a person said so. It says whether it did.
func (t *Tenant) accept(ctx context.Context, s continuity.Sight) (bool, error) {
	t.mu.Lock()
	accepting, next := t.history.accepting, t.history.record.Sequence+1
	if s.Mark != nil {
		next = max(next, s.Mark.Sequence+1)
	}
	announced := accepting && t.history.announced(next)
	t.mu.Unlock()
	if !accepting {
		return false, nil
	}
	if !announced {
		t.listener.Remember(t)
		return false, nil
	}
	record := continuity.Record{Sequence: next, Revision: s.Revision, At: s.At}
	if err := t.writeMark(ctx, record.Sequence); err != nil {
		return false, err
	}
	t.mu.Lock()
	t.history.record, t.history.verdict = record, continuity.Continuous
	t.history.halt, t.history.why, t.history.accepting, t.history.braked = "", "", false, false
	t.history.judged = true
	t.history.due, t.history.marked = time.Time{}, time.Now()
	t.mu.Unlock()
	t.listener.Remember(t)
	return true, nil
}

// mark writes the next mark, if one is due, or announces it.
func (t *Tenant) mark(ctx context.Context) error {
	t.mu.Lock()
	h := &t.history
	due := !h.due.IsZero() && h.halt == "" && h.verdict == continuity.Continuous
	next := h.record.Sequence + 1
	announced := due && h.announced(next)
	t.mu.Unlock()
	if !due {
		return nil
	}
	if !announced {
		t.listener.Remember(t)
		return nil
	}
	if err := t.writeMark(ctx, next); err != nil {
		return err
	}
	t.mu.Lock()
	h.record.Sequence, h.record.Next = next, 0
	h.due, h.marked = time.Time{}, time.Now()
	t.mu.Unlock()
	t.listener.Remember(t)
	return nil
}

// writeMark leaves a mark in the tenant.
func (t *Tenant) writeMark(ctx context.Context, sequence int64) error {
	super, err := t.options.Super(ctx, 0)
	if err != nil {
		return err
	}
	mark := continuity.Mark{Sequence: sequence, VirtualCluster: t.Facts.UID, Super: super}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": t.Identity, "annotations": map[string]string{names.AnnotationMark: mark.String()},
	}})
	if err != nil {
		return fmt.Errorf("encoding a mark: %w", err)
	}
	op := resource.Op{Side: resource.Tenant, Verb: resource.Patch, Object: systemNamespace(), Patch: patch}
	if err := t.Client.Do(ctx, op); err != nil {
		return fmt.Errorf("leaving a mark in namespace %s of tenant %s: %w", metav1.NamespaceSystem, t.Facts.ID, err)
	}
	return nil
}

// halted returns why the tenant waits for a person, if that is what the error says.
func halted(err error) (*haltError, bool) {
	var h *haltError
	return h, errors.As(err, &h)
}
