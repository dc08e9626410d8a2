package vnagent

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/vn-agent/stats"
)

const (
	// measuredTTL is how old an answer of the kubelet, or a tenant's part of one, may be. The kubelet measures every ten
	// seconds or so.
	measuredTTL = time.Second
	// measureTimeout bounds what a tenant waits for: the kubelet and the lookup of its pods.
	measureTimeout = kubeletTimeout + 10*time.Second
	// accountTTL is how long after the last request the account of a tenant is kept.
	accountTTL = time.Hour
)

// measurements gives each tenant its part of what the kubelet measures.
type measurements struct {
	kubelet   *kubelet
	directory directory
	// answers of the kubelet, for all tenants; parts of them, for each.
	answers recent[what, stats.Measured]
	parts   recent[share, []byte]

	mu sync.Mutex
	// accounts are used by one request at a time: parts makes each share once at a time.
	accounts map[share]*account
}

// what is asked of the kubelet.
type what struct {
	verb         Verb
	cpuAndMemory bool
}

// share is what a tenant asks.
type share struct {
	tenant names.TenantID
	what   what
}

type account struct {
	stats.Account
	used time.Time
}

func newMeasurements(kubelet *kubelet, owner owner) *measurements {
	return &measurements{
		kubelet:   kubelet,
		directory: directory{owner: owner},
		answers:   recent[what, stats.Measured]{ttl: measuredTTL, timeout: kubeletTimeout},
		parts:     recent[share, []byte]{ttl: measuredTTL, timeout: measureTimeout},
	}
}

// get returns the tenant's part and its content type.
func (m *measurements) get(ctx context.Context, tenant names.TenantID, verb Verb, query url.Values) ([]byte, string, error) {
	contentType := "text/plain; version=0.0.4; charset=utf-8"
	asked := what{verb: verb}
	if verb == StatsSummary {
		contentType = "application/json"
		// Whatever is not a boolean is none.
		asked.cpuAndMemory, _ = strconv.ParseBool(query.Get("only_cpu_and_memory"))
	}
	part := share{tenant, asked}
	body, err := m.parts.get(ctx, part, func(ctx context.Context) ([]byte, error) { return m.part(ctx, part) })
	return body, contentType, err
}

func (m *measurements) part(ctx context.Context, part share) ([]byte, error) {
	measured, err := m.answers.get(ctx, part.what, func(ctx context.Context) (stats.Measured, error) { return m.answer(ctx, part.what) })
	if err != nil {
		return nil, err
	}
	owned, err := m.directory.owned(ctx, part.tenant, measured)
	if err != nil {
		return nil, err
	}
	body, err := measured.For(owned, m.account(part))
	if err != nil {
		return nil, fmt.Errorf("reducing %s to a tenant: %w", part.what.verb, err)
	}
	return body, nil
}

// answer asks the kubelet.
func (m *measurements) answer(ctx context.Context, asked what) (stats.Measured, error) {
	path := "/" + string(asked.verb)
	if asked.cpuAndMemory {
		path += "?only_cpu_and_memory=true"
	}
	body, err := m.kubelet.get(ctx, path)
	if err != nil {
		return nil, err
	}
	if asked.verb != StatsSummary {
		return stats.ParseExposition(string(body)), nil
	}
	summary, err := stats.ParseSummary(body)
	if err != nil || !asked.cpuAndMemory {
		return summary, err
	}
	return stats.CPUAndMemory{Summary: summary}, nil
}

// account returns that of the tenant, and forgets those that nobody has used for long. Each kind of answer has its own,
// because they are not measured at the same moment.
func (m *measurements) account(part share) *stats.Account {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	found, ok := m.accounts[part]
	if !ok {
		for other, unused := range m.accounts {
			if now.Sub(unused.used) > accountTTL {
				delete(m.accounts, other)
			}
		}
		if m.accounts == nil {
			m.accounts = map[share]*account{}
		}
		found = &account{}
		m.accounts[part] = found
	}
	found.used = now
	return &found.Account
}
