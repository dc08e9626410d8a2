package engine

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/tenants"
)

// cause is what a tenant may do only so fast.
type cause uint8

// The causes of waiting.
const (
	writes cause = iota
	decisions
	causes
)

// String implements fmt.Stringer.
func (c cause) String() string { return [causes]string{"writes", "decisions"}[c] }

// How a tenant exceeds its budget is told from what comes and goes: a tenant is throttled when its workers waited for half of the
// time in lastsFor looks in a row, and it is within its budget again after endsAfter looks. A look is as frequent as a probe.
const (
	lastsFor  = 2
	endsAfter = 6
)

// decisionWindow is over how long the time of decisions is averaged.
const decisionWindow = 10 * time.Second

// The reasons for which a tenant is not within its budget.
const (
	CacheExhausted   = "CacheExhausted"
	ObjectsExhausted = "ObjectsExhausted"
	Throttled        = "Throttled"
)

// OverBudget is how a tenant exceeds its budget; the zero value when it does not.
type OverBudget struct {
	// Reason is that of the condition, Message a sentence for people.
	Reason, Message string
}

// account is how a tenant stands to its budget. Nothing in it is shared with other tenants.
type account struct {
	mu      sync.Mutex
	budget  *resource.Budget      // guarded by mu: what the limits are set to
	limits  [causes]*rate.Limiter // guarded by mu: of writes, and of microseconds of decisions
	waited  [causes]time.Duration // guarded by mu: since the last look
	total   time.Duration         // guarded by mu: waited, ever
	refused map[string]*refused   // guarded by mu: by kind
	over    [causes]streak        // guarded by mu
	looked  *resource.Budget      // guarded by mu: the budget at the last look
	told    OverBudget            // guarded by mu
}

// align sets the limits to the budget. The caller holds a.mu.
func (a *account) align(b *resource.Budget, now time.Time) {
	if a.budget == b {
		return
	}
	a.budget = b
	const micro = float64(time.Second / time.Microsecond)
	a.limit(writes, float64(b.Writes), b.WriteBurst, now)
	a.limit(decisions, b.Decision*micro, int(b.Decision*micro*decisionWindow.Seconds()), now)
}

func (a *account) limit(c cause, perSecond float64, burst int, now time.Time) {
	limit := rate.Limit(perSecond)
	if perSecond <= 0 {
		limit = rate.Inf
	}
	if a.limits[c] == nil {
		a.limits[c] = rate.NewLimiter(limit, max(burst, 1))
		return
	}
	a.limits[c].SetLimitAt(now, limit)
	a.limits[c].SetBurstAt(now, max(burst, 1))
}

// delay returns how long to wait: for a write, which it counts, its turn; for a decision, until the time of earlier ones is
// made up for.
func (a *account) delay(b *resource.Budget, c cause, now time.Time) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.align(b, now)
	limiter, delay := a.limits[c], time.Duration(0)
	if limiter.Limit() == rate.Inf {
		return 0
	}
	if c == writes {
		delay = limiter.ReserveN(now, 1).DelayFrom(now)
	} else if debt := -limiter.TokensAt(now); debt > 0 {
		delay = time.Duration(debt / float64(limiter.Limit()) * float64(time.Second))
	}
	a.waited[c] += delay
	a.total += delay
	return delay
}

// spent counts the time of a decision.
func (a *account) spent(b *resource.Budget, took time.Duration, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.align(b, now)
	limiter := a.limits[decisions]
	limiter.ReserveN(now, min(int(took.Microseconds()), limiter.Burst()))
}

// pace waits until the tenant may do something, in a worker of its own and without anything that others need.
func (e *Engine) pace(ctx context.Context, p *pool, c cause) error {
	delay := p.account.delay(p.tenant.Budget(), c, time.Now())
	if delay <= 0 {
		return nil
	}
	e.metrics.paced.WithLabelValues(c.String()).Add(delay.Seconds())
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// spent charges a tenant for a decision.
func (e *Engine) spent(t *tenants.Tenant, took time.Duration) {
	if p := e.pool(t.Facts.ID); p != nil {
		p.account.spent(t.Budget(), took, time.Now())
	}
}

// afford waits until the tenant may write into the super cluster. A further object is refused when it has all that it may have.
func (e *Engine) afford(ctx context.Context, t *tenants.Tenant, w *kindState, op resource.Op) error {
	if op.Side != resource.Super {
		return nil
	}
	id, bound := t.Facts.ID, t.Budget().Of(w.Name).Replicated
	if makes(w, op) && bound > 0 && !w.tally.reserve(id, op, bound, e.now()) {
		return resource.Rejected(resource.ReasonBudgetExhausted,
			"the budget of %d %s of this virtual cluster is used up: delete some, or ask the operator of the cluster for more", bound, w.Name)
	}
	p := e.pool(id)
	if p == nil {
		return nil // it is let go of
	}
	err := e.pace(ctx, p, writes)
	if err != nil {
		w.tally.release(id, op)
	}
	return err
}

// refused are the objects of one kind for which there was no room, first come first served.
type refused struct {
	waiting map[resource.Key]bool
	line    []resource.Key // also of those that do not wait any more
	over    streak
}

func (r *refused) add(key resource.Key) {
	if r.waiting[key] {
		return
	}
	r.waiting[key] = true
	r.line = append(r.line, key)
	if len(r.line) > 2*len(r.waiting)+64 {
		seen := map[resource.Key]bool{}
		r.line = slices.DeleteFunc(r.line, func(key resource.Key) bool {
			gone := !r.waiting[key] || seen[key]
			seen[key] = true
			return gone
		})
	}
}

func (r *refused) next() (resource.Key, bool) {
	for len(r.line) > 0 {
		key := r.line[0]
		r.line = r.line[1:]
		if r.waiting[key] {
			delete(r.waiting, key)
			return key, true
		}
	}
	return resource.Key{}, false
}

// refuse notes an object for which there was no room.
func (a *account) refuse(kind string, key resource.Key) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.refused == nil {
		a.refused = map[string]*refused{}
	}
	of := a.refused[kind]
	if of == nil {
		of = &refused{waiting: map[resource.Key]bool{}}
		a.refused[kind] = of
	}
	of.add(key)
}

// settled notes that an object does not wait for room, and says whether others of its kind do.
func (a *account) settled(kind string, key resource.Key) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	of := a.refused[kind]
	if of == nil {
		return false
	}
	delete(of.waiting, key)
	return len(of.waiting) > 0
}

// next returns the object that has waited for room longest.
func (a *account) next(kind string) (resource.Key, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	of := a.refused[kind]
	if of == nil {
		return resource.Key{}, false
	}
	return of.next()
}

// awaitRoom notes whether an object waits for room. When it does not, and left room, the next one is looked at.
func (e *Engine) awaitRoom(p *pool, w *kindState, key resource.Key, err error) {
	if reject, ok := resource.AsReject(err); ok && reject.Reason == resource.ReasonBudgetExhausted {
		p.account.refuse(w.Name, key)
		return
	}
	if p.account.settled(w.Name, key) && e.hasRoom(p, w) {
		e.room(w, key.Tenant)
	}
}

// hasRoom says whether the tenant may have another object of the kind.
func (e *Engine) hasRoom(p *pool, w *kindState) bool {
	bound := p.tenant.Budget().Of(w.Name).Replicated
	return bound <= 0 || w.tally.free(p.tenant.Facts.ID, bound, e.now())
}

// room looks again at the object that has waited longest for room.
func (e *Engine) room(w *kindState, id names.TenantID) {
	if p := e.pool(id); p != nil {
		if key, ok := p.account.next(w.Name); ok {
			e.enqueue(w, key)
		}
	}
}

// streak tells what lasts from what comes and goes.
type streak struct {
	on    bool
	other int // looks in a row that said otherwise
}

// look returns what holds, which changes after so many looks that say otherwise.
func (s *streak) look(is bool, begins, ends int) bool {
	needed := begins
	if s.on {
		needed = ends
	}
	if is == s.on {
		s.other = 0
	} else if s.other++; s.other >= needed {
		s.on, s.other = is, 0
	}
	return s.on
}

// look sees how the tenant stands to its budget. It says whether that changed, and of which kinds objects wait that a new budget
// may have room for.
func (a *account) look(b *resource.Budget, since time.Duration) (changed bool, again []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var reasons, messages []string
	for _, kind := range slices.Sorted(maps.Keys(a.refused)) {
		of := a.refused[kind]
		if of.over.look(len(of.waiting) > 0, 1, endsAfter) {
			reasons = append(reasons, ObjectsExhausted)
			messages = append(messages, fmt.Sprintf("the budget of %d %s was used up, and further ones are not replicated", b.Of(kind).Replicated, kind))
		} else if len(of.waiting) == 0 {
			delete(a.refused, kind)
		}
	}
	if a.looked != b {
		a.looked, again = b, slices.Sorted(maps.Keys(a.refused))
	}
	for c, message := range [causes]string{
		fmt.Sprintf("writes into the super cluster wait, because there are more than %d per second", b.Writes),
		fmt.Sprintf("decisions about objects wait, because they take more than %g seconds of each", b.Decision),
	} {
		if a.over[c].look(a.waited[c] >= since/2, lastsFor, endsAfter) {
			reasons, messages = append(reasons, Throttled), append(messages, message)
		}
		a.waited[c] = 0
	}
	told := OverBudget{}
	if len(reasons) > 0 {
		told = OverBudget{Reason: reasons[0], Message: strings.Join(messages, "; ")}
	}
	changed, a.told = told != a.told, told
	return changed, again
}

// watchBudgets looks at the budgets of tenants until the context ends, and says what changed.
func (e *Engine) watchBudgets(ctx context.Context) {
	ticker := time.NewTicker(e.options.Probe)
	defer ticker.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		since := time.Since(last)
		last = time.Now()
		e.eachPool(func(p *pool) { e.lookAtBudget(p, since) })
	}
}

func (e *Engine) lookAtBudget(p *pool, since time.Duration) {
	changed, again := p.account.look(p.tenant.Budget(), since)
	if changed {
		e.options.Moved(p.tenant.Facts.ID, p.tenant.State(), p.tenant.Message())
	}
	for _, kind := range again { // each that fits makes the next one be looked at
		if w := e.kinds()[kind]; w != nil {
			e.room(w, p.tenant.Facts.ID)
		}
	}
}

// OverBudget returns how a tenant exceeds its budget.
func (e *Engine) OverBudget(t *tenants.Tenant) OverBudget {
	if t.State() == tenants.Overfull {
		return OverBudget{Reason: CacheExhausted, Message: t.Message()}
	}
	p := e.pool(t.Facts.ID)
	if p == nil {
		return OverBudget{}
	}
	p.account.mu.Lock()
	defer p.account.mu.Unlock()
	return p.account.told
}

// throttled returns for how long workers of a tenant have waited because it was over its budget, since it was connected.
func (e *Engine) throttled(t *tenants.Tenant) time.Duration {
	p := e.pool(t.Facts.ID)
	if p == nil {
		return 0
	}
	p.account.mu.Lock()
	defer p.account.mu.Unlock()
	return p.account.total
}
