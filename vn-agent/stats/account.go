package stats

// maxRemembered is how many pods an account tells apart. Far more than a node runs at a time.
const maxRemembered = 1000

// Account adds up the CPU time of a tenant's pods on a node, so that the total never decreases when a pod goes: a
// decrease would look like a restart of the node. It is not safe for concurrent use.
type Account struct {
	// used by each pod, by the UID of the super pod, gone or not; past is what is not told apart any more.
	used map[string]float64
	past float64
	// time of the latest sample.
	time int64
}

// total returns what all pods have used until now, and when that was measured.
func (a *Account) total(used map[string]float64, time int64) (float64, int64) {
	if a.used == nil {
		a.used = map[string]float64{}
	}
	for uid, value := range used {
		// Samples of one pod may come from different sources, one of which is behind.
		a.used[uid] = max(a.used[uid], value)
	}
	if len(a.used) > maxRemembered {
		for uid, value := range a.used {
			if _, present := used[uid]; !present {
				a.past += value
				delete(a.used, uid)
			}
		}
	}
	total := a.past
	// In a fixed order, because the sum of floating point numbers depends on it.
	for _, uid := range sortedKeys(a.used) {
		total += a.used[uid]
	}
	a.time = max(a.time, time)
	return total, a.time
}
