package vnagent

import (
	"sync"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

// calls counts what each tenant has open, so that one tenant cannot use up a node's vn-agent.
type calls struct {
	mu   sync.Mutex
	open map[names.TenantID]int
}

// begin says whether the tenant may open one more. If so, end must follow.
func (c *calls) begin(tenant names.TenantID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[tenant] >= maxCallsPerTenant {
		return false
	}
	if c.open == nil {
		c.open = map[names.TenantID]int{}
	}
	c.open[tenant]++
	return true
}

func (c *calls) end(tenant names.TenantID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[tenant]--; c.open[tenant] == 0 {
		delete(c.open, tenant)
	}
}
