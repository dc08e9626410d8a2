package shards

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

const (
	// defaultDuration is how long a replica lives after others last heard of it.
	defaultDuration = 3 * time.Second
	// modeDuration is how long the replicas of one number of shards keep out those of another. A leader without shards counts
	// as long for those that stand by.
	modeDuration = 15 * time.Second
	// modeInterval is how often that Lease is renewed.
	modeInterval = 3 * time.Second
	// modeTries bounds attempts to renew it at once: others do, too.
	modeTries = 4
)

// A duration is divided into these: a replica stops to write a margin before others may think that it has ended, renews its
// Lease at an interval, and looks at those of others at another.
const (
	margins = 5
	beats   = 4
	looks   = 15
)

// Options of a Coordinator.
type Options struct {
	// Config reaches the super cluster. Its writes are not fenced.
	Config *rest.Config
	// Namespace of the Leases.
	Namespace string
	// Name is what people call this replica: the name of its pod.
	Name string
	// Shards is how many there are.
	Shards int
	// Duration is how long a replica lives after others last heard of it. Default 3 s.
	Duration time.Duration
}

// Coordinator takes shards for this replica, and lets go of them.
type Coordinator struct {
	*Fence
	options Options
	leases  coordinationclient.LeaseInterface
	// gained is told that this replica may work for a shard. It must not block.
	gained func(shard int)
	// lost ends all work for a shard, and returns when nothing begins any more.
	lost func(shard int)
	// reports are what this replica and others say about what concerns all tenants.
	reports reports
	// rival is the last that was seen of the Lease of the number of shards while others held it.
	rival sighting
}

// New returns a Coordinator, which does nothing before Run.
func New(o Options) (*Coordinator, error) {
	if o.Duration <= 0 {
		o.Duration = defaultDuration
	}
	config := rest.CopyConfig(o.Config)
	config.QPS = -1
	config.Timeout = o.Duration / 2
	client, err := coordinationclient.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("creating a client for Leases: %w", err)
	}
	return &Coordinator{
		Fence: newFence(o.Shards, o.Name, time.Now), options: o, leases: client.Leases(o.Namespace),
		gained: func(int) {}, lost: func(int) {},
	}, nil
}

// Fenced returns a configuration whose writes to the super cluster are fenced.
func (c *Coordinator) Fenced(config *rest.Config) *rest.Config {
	config = rest.CopyConfig(config)
	config.Wrap(c.Super)
	return config
}

// Notify sets who is told of shards. It is called before Run. gained is told that this replica may work for a shard; it must not
// block. lost ends all work for a shard, and returns when nothing begins any more.
func (c *Coordinator) Notify(gained, lost func(shard int)) { c.gained, c.lost = gained, lost }

// Run takes part until the context ends. It returns when the shards of this replica are free for others.
func (c *Coordinator) Run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := c.serve(ctx); err != nil && ctx.Err() == nil {
			log.FromContext(ctx).Error(err, "This replica takes no part in sharing the tenants; it tries again")
		}
		pause(ctx, c.options.Duration/looks)
	}
}

// pause waits for a while, or until the context ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// membership is one life of this replica. Once others have declared that it ended, it begins another, under another name.
type membership struct {
	*Coordinator
	name  string // by which others know it
	lease *coordinationv1.Lease

	// What is known of others. Only used by the goroutine of serve.
	seen    map[string]sighting
	strayed map[string]time.Time
	handing sync.WaitGroup

	mu   sync.Mutex
	busy map[int]bool // guarded by mu: shards whose work is being ended
}

// sighting is the version of a Lease that was last seen, and when it was first seen.
type sighting struct {
	version string
	at      time.Time
}

// serve takes part until the context ends, or this replica must not any more.
func (c *Coordinator) serve(ctx context.Context) error {
	agreed, err := c.agree(ctx)
	if err != nil || !agreed {
		return err
	}
	m := &membership{Coordinator: c, seen: map[string]sighting{}, strayed: map[string]time.Time{}, busy: map[int]bool{}}
	if err := m.register(ctx); err != nil {
		return err
	}
	logger := log.FromContext(ctx).WithValues("replica", m.name)
	logger.Info("Takes part in sharing the tenants", "shards", c.options.Shards)
	beating, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- m.beat(beating) }() // ends with its context
	err = m.work(ctx, ended)
	if err == nil { // the context has ended, and others still know that this replica lives
		m.leave(ctx)
		stop()
		if err := <-ended; err != nil {
			return err
		}
		m.remove(context.WithoutCancel(ctx))
		return nil
	}
	stop()
	m.abandon()
	return err
}

// work shares the tenants until the context ends, or this replica must not write any more.
func (m *membership) work(ctx context.Context, ended <-chan error) error {
	ticker := time.NewTicker(m.options.Duration / looks)
	defer ticker.Stop()
	for {
		declared, err := m.look(ctx)
		if declared { // their shards can be taken
			_, err = m.look(ctx)
		}
		if err != nil && ctx.Err() == nil {
			log.FromContext(ctx).Info("Cannot look at the Leases of replicas and shards", "reason", err.Error())
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-ended:
			return err
		case <-ticker.C:
		}
	}
}

// leave hands over all shards.
func (m *membership) leave(ctx context.Context) {
	for shard := range m.options.Shards {
		if m.Holds(shard) {
			m.handOver(context.WithoutCancel(ctx), shard)
		}
	}
	m.handing.Wait()
}

// abandon ends all work, after others may have taken the shards.
func (m *membership) abandon() {
	held := m.closeAll()
	var ending sync.WaitGroup
	for _, shard := range held {
		ending.Go(func() { m.lost(shard) })
	}
	ending.Wait()
	m.handing.Wait()
}

const (
	// prefixReplica and prefixShard begin names of Leases.
	prefixReplica = names.Syncer + "-replica-"
	prefixShard   = names.Syncer + "-shard-"
)

// LeaseOfShard names the Lease whose holder works for a shard.
func LeaseOfShard(shard int) string { return prefixShard + strconv.Itoa(shard) }

// id is the part of a replica's name that no other has.
func id(name string) string { return name[strings.LastIndexByte(name, '_')+1:] }

// register makes the Lease of this replica.
func (m *membership) register(ctx context.Context) error {
	m.name = m.options.Name + "_" + rand.String(10)
	asked := m.now()
	lease, err := m.leases.Create(ctx, &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: prefixReplica + id(m.name), Namespace: m.options.Namespace},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity: &m.name, LeaseDurationSeconds: seconds(m.options.Duration), RenewTime: new(metav1.NewMicroTime(asked)),
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("creating the Lease of this replica: %w", err)
	}
	m.lease = lease
	m.renewed(m.term(asked))
	return nil
}

// term is how long this replica may write after it asked for a renewal.
func (m *membership) term(asked time.Time) term {
	return term{from: asked, length: m.options.Duration - m.options.Duration/margins}
}

func seconds(d time.Duration) *int32 {
	return new(max(1, int32(d.Round(time.Second)/time.Second))) //nolint:gosec // it is not long
}

// errEnded says that others have declared that this replica ended.
var errEnded = errors.New("the Lease of this replica was taken from it")

// beat renews the Lease of this replica and that of the number of shards until the context ends, or one of them is lost.
func (m *membership) beat(ctx context.Context) error {
	ticker := time.NewTicker(m.options.Duration / beats)
	defer ticker.Stop()
	next := m.now().Add(modeInterval)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if err := m.renew(ctx); errors.Is(err, errEnded) {
			m.closeAllNow()
			return err
		}
		if m.now().Before(next) {
			continue
		}
		next = m.now().Add(modeInterval)
		agreed, err := m.agree(ctx)
		if err == nil && !agreed {
			m.closeAllNow()
			return errOtherShards
		}
	}
}

// closeAllNow makes the Fence refuse everything, at once; abandon ends the work.
func (m *membership) closeAllNow() {
	m.renewed(term{})
	m.agreed(term{})
}

// renew renews the Lease of this replica. It fails with errEnded when that cannot be done any more.
func (m *membership) renew(ctx context.Context) error {
	asked := m.now()
	lease := m.lease.DeepCopy()
	lease.Spec.RenewTime = new(metav1.NewMicroTime(asked))
	m.reports.publish(lease)
	after, err := m.leases.Update(ctx, lease, metav1.UpdateOptions{})
	switch {
	case err == nil:
		m.lease = after
		m.renewed(m.term(asked))
		return nil
	case apierrors.IsNotFound(err):
		return errEnded
	case !apierrors.IsConflict(err):
		return err // an answer was lost, perhaps
	}
	now, err := m.leases.Get(ctx, m.lease.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || err == nil && (now.UID != m.lease.UID || holder(now) != m.name) {
		return errEnded
	}
	if err == nil {
		m.lease = now // it was renewed, and the answer lost
	}
	return err
}

// remove removes the Lease of this replica. It has no shards.
func (m *membership) remove(ctx context.Context) {
	_ = m.leases.Delete(ctx, m.lease.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &m.lease.UID}}) // others declare that it ended
}

func holder(l *coordinationv1.Lease) string {
	if l.Spec.HolderIdentity == nil {
		return ""
	}
	return *l.Spec.HolderIdentity
}

// look finds out what has changed, and does what has to be done. It says whether it has done no more than to declare that
// replicas have ended.
func (m *membership) look(ctx context.Context) (declared bool, err error) {
	asked := m.now()
	list, err := m.leases.List(ctx, metav1.ListOptions{})
	if err != nil {
		return false, err
	}
	leases := map[string]*coordinationv1.Lease{}
	for i := range list.Items {
		leases[list.Items[i].Name] = &list.Items[i]
	}
	todo := decide(m.situation(leases, asked, m.now()))
	m.reports.read(m.options.Shards, leases)
	if len(todo.declare) > 0 {
		for _, name := range todo.declare {
			m.declare(ctx, name, leases[prefixReplica+id(name)])
		}
		return true, nil
	}
	for _, name := range todo.sweep {
		l := leases[prefixReplica+id(name)]
		_ = m.leases.Delete(ctx, l.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &l.UID, ResourceVersion: &l.ResourceVersion}}) // there is another look
	}
	for _, shard := range todo.lost {
		log.FromContext(ctx).Info("Another replica has this shard", "shard", shard)
		m.close(shard)
		m.handOver(context.WithoutCancel(ctx), shard)
	}
	for _, shard := range slices.Concat(todo.handOver, todo.free) {
		m.handOver(context.WithoutCancel(ctx), shard)
	}
	m.takeAll(ctx, todo.take, leases)
	return false, nil
}

// situation reads the Leases, which were asked for and received at the given times.
func (m *membership) situation(leases map[string]*coordinationv1.Lease, asked, received time.Time) situation {
	s := situation{
		me: m.name, shards: m.options.Shards, duration: m.options.Duration,
		replicas: map[string]replica{}, holders: map[int]string{}, strays: map[string]time.Duration{}, held: map[int]bool{}, busy: m.ending(),
	}
	present := map[string]bool{}
	for name, l := range leases {
		if !strings.HasPrefix(name, prefixReplica) {
			continue
		}
		was := m.seen[name]
		if was.version != l.ResourceVersion {
			was = sighting{l.ResourceVersion, received}
			m.seen[name] = was
		}
		present[name] = true
		// A Lease that has ended keeps the name of the replica, by which shards name their holder, in an annotation.
		who, ended := holder(l), false
		if who == "" {
			who, ended = l.Annotations[annotationWas], true
		}
		if prefixReplica+id(who) != name {
			continue // somebody else made it
		}
		s.replicas[who] = replica{ended: ended, silent: elapsed(was.at, asked)}
	}
	maps.DeleteFunc(m.seen, func(name string, _ sighting) bool { return !present[name] })
	strays := map[string]time.Time{}
	for shard := range m.options.Shards {
		l := leases[LeaseOfShard(shard)]
		if l == nil {
			continue
		}
		who := holder(l)
		s.holders[shard] = who
		if _, known := s.replicas[who]; who == "" || known {
			continue
		}
		strays[who] = received
		if at, before := m.strayed[who]; before {
			strays[who] = at
			s.strays[who] = elapsed(at, asked)
		}
	}
	m.strayed = strays
	for shard := range m.options.Shards {
		if m.Holds(shard) {
			s.held[shard] = true
		}
	}
	return s
}

// annotationWas, on the Lease of a replica that ended, holds the name that the replica had.
const annotationWas = names.Prefix + "ended-replica"

// declare declares that a replica has ended, unless it has been heard of since: from then on it cannot renew its Lease.
func (m *membership) declare(ctx context.Context, name string, l *coordinationv1.Lease) {
	ended := l.DeepCopy()
	ended.Spec.HolderIdentity = nil
	ended.Annotations = map[string]string{annotationWas: name}
	_, err := m.leases.Update(ctx, ended, metav1.UpdateOptions{}) // with the resource version that was seen
	if err != nil && !apierrors.IsConflict(err) {
		log.FromContext(ctx).Info("Cannot declare that a replica has ended", "replica", name, "reason", err.Error())
		return
	}
	if err == nil {
		log.FromContext(ctx).Info("A replica has ended; its shards are free", "replica", name)
	}
}

// takers is how many Leases are taken at the same time.
const takers = 8

// takeAll takes shards that are free.
func (m *membership) takeAll(ctx context.Context, shards []int, leases map[string]*coordinationv1.Lease) {
	for part := range slices.Chunk(shards, takers) {
		var taking sync.WaitGroup
		for _, shard := range part {
			taking.Go(func() { m.take(ctx, shard, leases[LeaseOfShard(shard)]) })
		}
		taking.Wait()
	}
}

// take takes one shard, unless somebody else does.
func (m *membership) take(ctx context.Context, shard int, l *coordinationv1.Lease) {
	now := new(metav1.NewMicroTime(m.now()))
	var err error
	if l == nil {
		_, err = m.leases.Create(ctx, &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Name: LeaseOfShard(shard), Namespace: m.options.Namespace},
			Spec:       coordinationv1.LeaseSpec{HolderIdentity: &m.name, AcquireTime: now},
		}, metav1.CreateOptions{})
	} else {
		l = l.DeepCopy()
		transitions := int32(1)
		if l.Spec.LeaseTransitions != nil {
			transitions += *l.Spec.LeaseTransitions
		}
		l.Spec.HolderIdentity, l.Spec.AcquireTime, l.Spec.LeaseTransitions = &m.name, now, &transitions
		_, err = m.leases.Update(ctx, l, metav1.UpdateOptions{})
	}
	if err != nil {
		if !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) {
			log.FromContext(ctx).Info("Cannot take a shard", "shard", shard, "reason", err.Error())
		}
		return
	}
	m.open(shard)
	log.FromContext(ctx).Info("Works for a shard", "shard", shard)
	m.gained(shard)
}

// ending returns the shards whose work is being ended.
func (m *membership) ending() map[int]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.busy)
}

// mark notes whether the work for a shard is being ended.
func (m *membership) mark(shard int, busy bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.busy[shard] = busy
}

// handOver ends the work for a shard, if there is any, and frees it, in the background.
func (m *membership) handOver(ctx context.Context, shard int) {
	m.mark(shard, true)
	m.end(shard)
	m.handing.Go(func() {
		defer m.mark(shard, false)
		m.lost(shard)
		<-m.close(shard)
		if err := m.release(ctx, shard); err != nil {
			log.FromContext(ctx).Info("Cannot free a shard yet", "shard", shard, "reason", err.Error())
			return
		}
		log.FromContext(ctx).Info("Has handed over a shard", "shard", shard)
	})
}

// release frees a shard that nothing is written for.
func (m *membership) release(ctx context.Context, shard int) error {
	l, err := m.leases.Get(ctx, LeaseOfShard(shard), metav1.GetOptions{})
	if err != nil || holder(l) != m.name {
		return err
	}
	l.Spec.HolderIdentity = nil
	_, err = m.leases.Update(ctx, l, metav1.UpdateOptions{})
	return err
}

// errOtherShards says that replicas with another number of shards, or a leader, serve the tenants.
var errOtherShards = errors.New("replicas with another --shards, or a leader without, serve the tenants")

// agree renews the Lease that says how many shards there are, which is that of the leader where there are none. It takes it
// when nobody has renewed it for its duration. It is false while others hold it.
func (c *Coordinator) agree(ctx context.Context) (bool, error) {
	ours := strconv.Itoa(c.options.Shards) + "-shards"
	var err error
	for range modeTries {
		var agreed bool
		if agreed, err = c.tryAgree(ctx, ours); !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) {
			return agreed, err
		}
	}
	return false, err
}

func (c *Coordinator) tryAgree(ctx context.Context, ours string) (bool, error) {
	asked := c.now()
	l, err := c.leases.Get(ctx, names.Syncer, metav1.GetOptions{})
	missing := apierrors.IsNotFound(err)
	if err != nil && !missing {
		return false, fmt.Errorf("reading the Lease %s: %w", names.Syncer, err)
	}
	if missing {
		l = &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: names.Syncer, Namespace: c.options.Namespace}}
	}
	if who := holder(l); who != "" && who != ours {
		if c.rival.version != l.ResourceVersion {
			c.rival = sighting{l.ResourceVersion, c.now()}
		}
		if elapsed(c.rival.at, asked) < modeDuration {
			return false, nil
		}
	}
	requested := c.now()
	l.Spec.RenewTime = new(metav1.NewMicroTime(requested))
	l.Spec.LeaseDurationSeconds = seconds(modeDuration)
	if holder(l) != ours {
		l.Spec.HolderIdentity, l.Spec.AcquireTime = &ours, l.Spec.RenewTime
	}
	if missing {
		_, err = c.leases.Create(ctx, l, metav1.CreateOptions{})
	} else {
		_, err = c.leases.Update(ctx, l, metav1.UpdateOptions{})
	}
	if err != nil {
		return false, err
	}
	c.agreed(term{from: requested, length: modeDuration - modeDuration/margins})
	return true, nil
}
