package resource

import "github.com/virtualcluster-io/virtualcluster/internal/names"

// Change returns the operation that makes an object what mutate makes of it, none when that is the same. The given operation
// says on which side, how and why.
func Change[T Object](op Op, o T, guard Guard, mutate func(to T)) ([]Op, error) {
	to, err := copyOf(o)
	if err != nil {
		return nil, err
	}
	mutate(to)
	op.Object = o
	if op.Patch, err = Diff(o, to, guard); err != nil || op.Patch == nil {
		return nil, err
	}
	return []Op{op}, nil
}

// ReportStatus returns the operation that brings the status of a tenant's object up to date, none when it is.
func ReportStatus[T Object](tenant T, mutate func(to T)) ([]Op, error) {
	return Change(Op{Side: Tenant, Verb: PatchStatus, Why: Status}, tenant, SameObject, mutate)
}

// Relabel returns the operation that gives a replica in the super cluster the labels back by which we find it, none when it
// has them. The caller has proved that it is ours.
func Relabel[T Object](id names.TenantID, replica T) ([]Op, error) {
	return Change(Op{Side: Super, Verb: Patch, Why: Relabelled}, replica, Guarded, func(to T) {
		labels := to.GetLabels()
		if labels == nil {
			labels = map[string]string{}
		}
		labels[names.LabelTenant], labels[names.LabelManagedBy] = string(id), names.Syncer
		to.SetLabels(labels)
	})
}
