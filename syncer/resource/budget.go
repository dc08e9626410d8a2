package resource

// Budget bounds what one tenant may cost the others. What is zero is not bounded.
type Budget struct {
	// Weight is how many calls to the super cluster the tenant makes in each of its turns; zero is one.
	Weight int
	// Writes into the super cluster per second, and how many may come at once.
	Writes, WriteBurst int
	// Decision is how many seconds of decisions there may be in a second.
	Decision float64
	// CachedBytes bounds the caches of the tenant, of all kinds together.
	CachedBytes int64
	// Each is for every kind that is not in Kinds.
	Each KindBudget
	// Kinds are budgets of single kinds, by name.
	Kinds map[string]KindBudget
}

// KindBudget bounds the objects of one kind.
type KindBudget struct {
	// Replicated bounds the objects in the super cluster.
	Replicated int64
	// Cached and CachedBytes bound the objects in the tenant's cache.
	Cached, CachedBytes int64
}

// DefaultBudget is what a tenant has whose VirtualCluster says nothing: more than a tenant needs that is not out of control,
// see docs/adr/0012-budgets-of-tenants.md.
func DefaultBudget() Budget {
	return Budget{
		Weight: 1, Writes: 100, WriteBurst: 1000, Decision: 1, CachedBytes: 256 << 20,
		Each: KindBudget{Replicated: 20_000, Cached: 100_000},
	}
}

// Of returns the budget of a kind.
func (b *Budget) Of(kind string) KindBudget {
	if of, ok := b.Kinds[kind]; ok {
		return of
	}
	return b.Each
}

// ReasonBudgetExhausted is the reason of a Reject of an object for which there is no room.
const ReasonBudgetExhausted = "BudgetExhausted"
