package engine

import "sync"

// maxRemembered bounds how many keys it has; past it, it starts anew.
const maxRemembered = 10000

// remembered holds the last value of each key. Forgetting costs work that is done again, and nothing else.
type remembered[K comparable, V any] struct {
	mu   sync.Mutex
	last map[K]V // guarded by mu
}

// get returns the last value of a key, the zero value if there is none.
func (m *remembered[K, V]) get(key K) V {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last[key]
}

func (m *remembered[K, V]) put(key K, value V) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.last == nil || len(m.last) >= maxRemembered {
		m.last = map[K]V{}
	}
	m.last[key] = value
}
