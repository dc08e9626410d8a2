package engine

import (
	"sync"

	"k8s.io/utils/lru"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// maxRemembered bounds how many keys of a tenant are remembered; past it, those that were not used for longest are
// forgotten.
const maxRemembered = 10000

// ofTenant is a key of which can be told whose it is.
type ofTenant interface {
	comparable
	tenant() names.TenantID
}

func (w witness) tenant() names.TenantID { return w.key.Tenant }

func (p place) tenant() names.TenantID { return p.key.Tenant }

// remembered holds the last value of each key of each tenant. Forgetting costs work that is done again, and nothing else.
type remembered[K ofTenant, V any] struct {
	mu       sync.Mutex
	byTenant map[names.TenantID]*lru.Cache // guarded by mu
}

func (m *remembered[K, V]) of(tenant names.TenantID) *lru.Cache {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.byTenant[tenant]
	if c == nil {
		if m.byTenant == nil {
			m.byTenant = map[names.TenantID]*lru.Cache{}
		}
		c = lru.New(maxRemembered)
		m.byTenant[tenant] = c
	}
	return c
}

// get returns the last value of a key, the zero value if there is none.
func (m *remembered[K, V]) get(key K) V {
	value, _ := m.of(key.tenant()).Get(key)
	v, _ := value.(V)
	return v
}

func (m *remembered[K, V]) put(key K, value V) { m.of(key.tenant()).Add(key, value) }

// forget forgets a key.
func (m *remembered[K, V]) forget(key K) {
	m.mu.Lock()
	c := m.byTenant[key.tenant()]
	m.mu.Unlock()
	if c != nil {
		c.Remove(key)
	}
}

// drop forgets a tenant.
func (m *remembered[K, V]) drop(tenant names.TenantID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.byTenant, tenant)
}
