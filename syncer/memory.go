package syncer

import (
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/syncer/continuity"
	"github.com/virtualcluster-io/virtualcluster/syncer/engine"
	"github.com/virtualcluster-io/virtualcluster/syncer/tenants"
)

// maxReported bounds how many held deletions the status names.
const maxReported = 200

// revisionAge is how old the remembered resource version of a tenant may become before it is stored again. What was made
// since the last mark is younger than that.
const revisionAge = 10 * time.Minute

// memoryOf returns what is remembered of a tenant.
func memoryOf(vc *tenancyv1alpha1.VirtualCluster) tenants.Memory {
	sync := vc.Status.Sync
	if sync == nil {
		return tenants.Memory{}
	}
	memory := tenants.Memory{Record: continuity.Record{Sequence: sync.Mark, Next: sync.NextMark, Revision: sync.Revision}}
	if sync.RevisionTime != nil {
		memory.At = sync.RevisionTime.Time
	}
	switch sync.Halted {
	case tenancyv1alpha1.HaltDeletionBrake:
		memory.Braked = true
	case tenancyv1alpha1.HaltRewound, tenancyv1alpha1.HaltSuperChanged:
		memory.Halt = tenants.State(sync.Halted)
		memory.Why = sync.HaltedBecause
	}
	return memory
}

// syncStatus returns the status that memoryOf reads.
func syncStatus(memory tenants.Memory, held []engine.Held, count int) *tenancyv1alpha1.SyncStatus {
	status := &tenancyv1alpha1.SyncStatus{Mark: memory.Sequence, NextMark: memory.Next, Revision: memory.Revision, HeldCount: int64(count)}
	if !memory.At.IsZero() {
		at := metav1.NewTime(memory.At.Truncate(time.Second))
		status.RevisionTime = &at
	}
	switch {
	case memory.Halt != "":
		status.Halted, status.HaltedBecause = tenancyv1alpha1.SyncHalt(memory.Halt), memory.Why
	case memory.Braked:
		status.Halted = tenancyv1alpha1.HaltDeletionBrake
	}
	for _, h := range held[:min(len(held), maxReported)] {
		status.Held = append(status.Held, tenancyv1alpha1.HeldDeletion{
			Side: h.Side.String(), Resource: h.Resource, Namespace: h.Namespace, Name: h.Name, Cause: h.Cause,
		})
	}
	return status
}

// worthStoring says whether what is remembered differs in more than the progress of the resource version.
func worthStoring(stored, now *tenancyv1alpha1.SyncStatus) bool {
	if stored == nil {
		return !equality.Semantic.DeepEqual(*now, tenancyv1alpha1.SyncStatus{})
	}
	if stored.Mark != now.Mark || stored.NextMark != now.NextMark || stored.Halted != now.Halted || stored.HaltedBecause != now.HaltedBecause ||
		stored.HeldCount != now.HeldCount || !slices.Equal(stored.Held, now.Held) {
		return true
	}
	if stored.RevisionTime == nil || now.RevisionTime == nil {
		return stored.Revision != now.Revision
	}
	return now.RevisionTime.Sub(stored.RevisionTime.Time) >= revisionAge
}
