package syncer_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtualcluster-io/virtualcluster/syncer/shards"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

// shardCount is how many shards the tests share. leaseNamespace is where their Leases are.
const (
	shardCount     = 16
	leaseNamespace = metav1.NamespaceDefault
)

// auditPolicy records writes.
const auditPolicy = `
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Metadata, verbs: [create, update, patch, delete]}
`

// shared are processes of vc-syncer that share tenants, and what was seen of them.
type shared struct {
	*running
	binary   string
	replicas map[string]*worlds.Process

	mu      sync.Mutex
	history map[int][]holding // guarded by mu: by shard
}

// holding says since when a replica has held a shard.
type holding struct {
	since   time.Time
	replica string // as it is called in audit logs, empty when the shard is free
}

// startShared starts worlds that record writes, and builds vc-syncer.
func startShared(t *testing.T, tenants int) *shared {
	t.Helper()
	policy := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(policy, []byte(auditPolicy), 0o600); err != nil {
		t.Fatal(err)
	}
	of := worlds.Start(t, worlds.Options{
		Tenants: tenants, SuperControllers: worlds.DefaultControllers(),
		APIServerArgs: []string{"--audit-policy-file=" + policy, "--audit-log-path=-"},
	})
	root, err := worlds.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	s := &shared{binary: filepath.Join(of.Dir(), "vc-syncer"), replicas: map[string]*worlds.Process{}, history: map[int][]holding{}}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", s.binary, "./cmd/vc-syncer")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building vc-syncer: %v: %s", err, out)
	}
	c, err := client.New(of.Super.Config, client.Options{Scheme: newScheme()})
	if err != nil {
		t.Fatal(err)
	}
	s.running = &running{worlds: of, client: c}
	if err := c.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "tenants"}}); err != nil {
		t.Fatal(err)
	}
	for _, world := range of.Tenants {
		s.tenants = append(s.tenants, s.virtualCluster(t, "tenants", world))
	}
	s.watchLeases(t)
	return s
}

// replica starts a process.
func (s *shared) replica(t *testing.T, name string) {
	t.Helper()
	p, err := worlds.StartProcess(filepath.Join(s.worlds.Dir(), name+".log"), s.binary,
		"--kubeconfig="+s.worlds.Super.KubeconfigPath(), "--namespace="+leaseNamespace, "--leader-elect", fmt.Sprintf("--shards=%d", shardCount),
		"--replica-name="+name, "--metrics-bind-address=0", "--health-probe-bind-address=0", "--trace-bind-address=0",
		"--probe-interval=500ms", "--patrol-interval=2s", "--timeout=2s")
	if err != nil {
		t.Fatal(err)
	}
	s.replicas[name] = p
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(s.worlds.Dir(), name+".log"))
			t.Logf("log of %s:\n%s", name, log[max(0, len(log)-6000):])
		}
	})
}

// watchLeases records who holds which shard.
func (s *shared) watchLeases(t *testing.T) {
	t.Helper()
	w, err := s.worlds.Super.Client.CoordinationV1().Leases(leaseNamespace).Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	go func() { // ends with the watch
		for event := range w.ResultChan() {
			if lease, ok := event.Object.(*coordinationv1.Lease); ok {
				s.note(lease)
			}
		}
	}()
}

func (s *shared) note(lease *coordinationv1.Lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for shard := range shardCount {
		if lease.Name != shards.LeaseOfShard(shard) {
			continue
		}
		now := holding{since: time.Now()}
		if lease.Spec.HolderIdentity != nil {
			now.replica, _, _ = strings.Cut(*lease.Spec.HolderIdentity, "_")
			now.since = lease.Spec.AcquireTime.Time
		}
		s.history[shard] = append(s.history[shard], now)
	}
}

// owner returns who serves a tenant at a time.
func (s *shared) owner(of tenant, at time.Time) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	owner := ""
	for _, h := range s.history[shards.Of(of.id, shardCount)] {
		if !h.since.After(at) {
			owner = h.replica
		}
	}
	return owner
}

// owned returns the tenants of a replica.
func (s *shared) owned(replica string) []tenant {
	return slices.DeleteFunc(slices.Clone(s.tenants), func(of tenant) bool { return s.owner(of, time.Now()) != replica })
}

// awaitShare waits until every shard is held by one of the replicas, and each of these has some.
func (s *shared) awaitShare(t *testing.T, replicas ...string) {
	t.Helper()
	worlds.Eventually(t, limit, fmt.Sprintf("%v to share all shards", replicas), func(context.Context) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		count := map[string]int{}
		for shard := range shardCount {
			if h := s.history[shard]; len(h) > 0 {
				count[h[len(h)-1].replica]++
			}
		}
		n := 0
		for _, r := range replicas {
			if n += count[r]; count[r] == 0 {
				return fmt.Errorf("shards by replica: %v", count)
			}
		}
		if n != shardCount {
			return fmt.Errorf("shards by replica: %v", count)
		}
		return nil
	})
}

// service makes a headless Service in a tenant.
func service(ctx context.Context, of tenant, name string) error {
	_, err := of.CoreV1().Services(metav1.NamespaceDefault).Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone, Ports: []corev1.ServicePort{{Port: 80}}},
	}, metav1.CreateOptions{})
	return err
}

// served makes a Service in a tenant and returns how long it takes until the super cluster has it.
func (s *shared) served(t *testing.T, of tenant, name string) time.Duration {
	t.Helper()
	began := time.Now()
	if err := service(t.Context(), of, name); err != nil {
		t.Fatal(err)
	}
	worlds.Eventually(t, limit, fmt.Sprintf("Service %s of %s in the super cluster", name, of.vc), func(ctx context.Context) error {
		_, err := s.worlds.Super.Client.CoreV1().Services(of.super(metav1.NamespaceDefault)).Get(ctx, name, metav1.GetOptions{})
		return err
	})
	return time.Since(began)
}

// write is one that an API server has carried out.
type write struct {
	by, what string
	of       tenant
	at       time.Time
}

// agent is what a replica calls itself.
var agent = regexp.MustCompile(`^vc-syncer \((.*)\)$`)

// writes returns what the replicas have written for tenants, as the API servers recorded it.
func (s *shared) writes(t *testing.T) []write {
	t.Helper()
	byNamespace := map[string]tenant{}
	byName := map[types.NamespacedName]tenant{}
	for _, of := range s.tenants {
		byName[of.vc] = of
		list, err := of.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, ns := range list.Items {
			byNamespace[of.super(ns.Name)] = of
		}
	}
	var all []write
	for i, world := range s.worlds.All() {
		eachWrite(t, world, func(by string, e *auditv1.Event) {
			var of tenant
			var ok bool
			switch ref := e.ObjectRef; {
			case world != s.worlds.Super:
				of, ok = s.tenants[i-1], true
			case ref.Resource == "virtualclusters":
				of, ok = byName[types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}]
			case ref.Namespace != "":
				of, ok = byNamespace[ref.Namespace]
			default:
				of, ok = byNamespace[ref.Name]
			}
			if ok {
				what := fmt.Sprintf("%s %s %s/%s in %s", e.Verb, e.ObjectRef.Resource, e.ObjectRef.Namespace, e.ObjectRef.Name, world.Name)
				all = append(all, write{by: by, what: what, of: of, at: e.RequestReceivedTimestamp.Time})
			}
		})
	}
	return all
}

// eachWrite calls f for what replicas have written to an API server.
func eachWrite(t *testing.T, world *worlds.World, f func(by string, e *auditv1.Event)) {
	t.Helper()
	log, err := os.Open(world.LogPath())
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close() //nolint:errcheck // it is only read
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		e := &auditv1.Event{}
		if !strings.HasPrefix(lines.Text(), `{"kind":"Event"`) || json.Unmarshal(lines.Bytes(), e) != nil {
			continue
		}
		by := agent.FindStringSubmatch(e.UserAgent)
		if by != nil && e.ResponseStatus != nil && e.ResponseStatus.Code < 300 && e.ObjectRef != nil {
			f(by[1], e)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
}

// checkWriters fails the test for every write by a replica that did not hold the tenant's shard.
func (s *shared) checkWriters(t *testing.T) (counted map[string]int) {
	t.Helper()
	counted = map[string]int{}
	for _, w := range s.writes(t) {
		counted[w.by]++
		if owner := s.owner(w.of, w.at); owner != w.by {
			t.Errorf("%s wrote at %s: %s, for %s, which %q served", w.by, w.at.Format(time.StampMicro), w.what, w.of.vc, owner)
		}
	}
	return counted
}

// busiest returns the replica that serves most tenants, and the other.
func (s *shared) busiest(a, b string) (busy, other string) {
	if len(s.owned(a)) >= len(s.owned(b)) {
		return a, b
	}
	return b, a
}

// Replicas share the tenants. When one is killed, only its tenants wait, and not for long. One that was paused for longer than its
// Lease writes nothing for tenants that it has lost.
func TestReplicasShareTenants(t *testing.T) {
	s := startShared(t, 3)
	s.replica(t, "a")
	s.replica(t, "b")
	s.awaitShare(t, "a", "b")
	for _, of := range s.tenants {
		s.waitFor(t, of, metav1.ConditionTrue, "Synced")
		t.Logf("%s is served by %s; a Service took %v", of.vc, s.owner(of, time.Now()), s.served(t, of, "first"))
	}

	t.Run("one is killed", func(t *testing.T) {
		victim, other := s.busiest("a", "b")
		lost, kept := s.owned(victim), s.owned(other)
		s.replicas[victim].Kill()
		delete(s.replicas, victim)
		killed := time.Now()
		for _, of := range kept {
			if took := s.served(t, of, "kept"); took > 3*time.Second {
				t.Errorf("%s was served all the time, and a Service took %v", of.vc, took)
			}
		}
		var waiting sync.WaitGroup
		for _, of := range lost {
			if err := service(t.Context(), of, "lost"); err != nil {
				t.Fatal(err)
			}
			waiting.Go(func() {
				worlds.Eventually(t, limit, "the Service of "+of.vc.String(), func(ctx context.Context) error {
					_, err := s.worlds.Super.Client.CoreV1().Services(of.super(metav1.NamespaceDefault)).Get(ctx, "lost", metav1.GetOptions{})
					return err
				})
				t.Logf("after SIGKILL, %s was served again after %v", of.vc, time.Since(killed))
			})
		}
		waiting.Wait()
		for _, of := range lost {
			if owner := s.owner(of, time.Now()); owner != other {
				t.Errorf("%s is served by %q", of.vc, owner)
			}
		}
	})
	other := slices.Collect(maps.Keys(s.replicas))[0]
	s.replica(t, "c") // in the place of the one that was killed
	s.awaitShare(t, other, "c")
	t.Run("one is paused", func(t *testing.T) {
		victim, other := s.busiest(other, "c")
		lost := s.owned(victim)
		stop := s.load(t, lost)
		defer stop()
		worlds.Eventually(t, limit, "the victim to write", func(ctx context.Context) error {
			list, err := s.worlds.Super.Client.CoreV1().Services(lost[0].super(metav1.NamespaceDefault)).List(ctx, metav1.ListOptions{})
			if err == nil && len(list.Items) < 40 {
				err = fmt.Errorf("%d Services", len(list.Items))
			}
			return err
		})
		if err := s.replicas[victim].Pause(); err != nil {
			t.Fatal(err)
		}
		s.awaitShare(t, other)
		for _, of := range lost {
			t.Logf("%s is served by %s; a Service took %v", of.vc, other, s.served(t, of, "paused"))
		}
		woken := time.Now()
		if err := s.replicas[victim].Resume(); err != nil {
			t.Fatal(err)
		}
		s.awaitShare(t, victim, other) // it takes part again, under another name
		stop()
		for _, of := range s.tenants {
			t.Logf("%s is served by %s; a Service took %v", of.vc, s.owner(of, time.Now()), s.served(t, of, "after"))
		}
		early := 0
		for _, w := range s.writes(t) {
			if w.by == victim && w.at.After(woken) {
				early++
			}
		}
		t.Logf("since it woke, the replica has made %d writes", early)
	})

	counted := s.checkWriters(t)
	for _, name := range []string{"a", "b", "c"} {
		if counted[name] == 0 {
			t.Errorf("%s has written nothing: %v", name, counted)
		}
	}
	t.Logf("writes: %v", counted)
}

// loadInterval is how often a worker of load makes a Service: more often than one is synchronised on a busy machine would only
// make the queue longer.
const loadInterval = 40 * time.Millisecond

// load makes Services in tenants until it is stopped.
func (s *shared) load(t *testing.T, in []tenant) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for _, of := range in {
		for worker := range 2 {
			running.Go(func() {
				tick := time.NewTicker(loadInterval)
				defer tick.Stop()
				for i := 0; ctx.Err() == nil; i++ {
					<-tick.C
					if err := service(ctx, of, fmt.Sprintf("load-%d-%d", worker, i)); err != nil && ctx.Err() == nil {
						t.Error(err)
						return
					}
				}
			})
		}
	}
	return sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
}
