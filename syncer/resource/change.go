package resource

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
