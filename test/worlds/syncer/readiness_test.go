package syncer_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	ctrlconfig "sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/virtualcluster-io/virtualcluster/syncer"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

// replica is a syncer with an endpoint for probes.
type replica struct {
	manager manager.Manager
	address string
	metrics *prometheus.Registry

	mu  sync.Mutex
	log []string // guarded by mu
}

// startReplica starts a syncer that takes part in an election, until the test ends.
func startReplica(t *testing.T, as *rest.Config, lease string) *replica {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &replica{address: listener.Addr().String(), metrics: prometheus.NewRegistry()}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	again := true
	logging := logr.NewContext(context.Background(), funcr.New(r.note, funcr.Options{}))
	r.manager, err = ctrl.NewManager(as, ctrl.Options{
		Scheme: newScheme(), Cache: syncer.Cache(), Metrics: metricsserver.Options{BindAddress: "0"},
		HealthProbeBindAddress: r.address, BaseContext: func() context.Context { return logging },
		Controller:     ctrlconfig.Controller{SkipNameValidation: &again, UsePriorityQueue: new(false)},
		LeaderElection: true, LeaderElectionID: lease, LeaderElectionNamespace: metav1.NamespaceDefault,
		LeaderElectionConfig: w.Super.Config, LeaderElectionReleaseOnCancel: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background()) // ends after the test
	if err := syncer.Setup(ctx, r.manager, syncer.Options{AgentNamespace: agentNamespace, Registerer: r.metrics}); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- r.manager.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the syncer ended with %v", err)
		}
	})
	return r
}

func (r *replica) note(prefix, line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log = append(r.log, prefix+line)
}

// logged says whether a line of the log has all parts.
func (r *replica) logged(parts ...string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.log, func(line string) bool {
		return !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(line, part) })
	})
}

// readyz returns what the replica answers a readiness probe.
func (r *replica) readyz(ctx context.Context) (int, string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.address+"/readyz?verbose", http.NoBody)
	if err != nil {
		return 0, "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, string(body), err
}

// awaitReadyz waits for an answer to a readiness probe with all parts.
func (r *replica) awaitReadyz(t *testing.T, status int, parts ...string) {
	t.Helper()
	worlds.Eventually(t, limit, fmt.Sprintf("readiness %d with %q", status, parts), func(ctx context.Context) error {
		got, body, err := r.readyz(ctx)
		if err != nil {
			return err
		}
		for _, part := range parts {
			if !strings.Contains(body, part) {
				return fmt.Errorf("got %d, %s", got, body)
			}
		}
		if got != status {
			return fmt.Errorf("got %d, %s", got, body)
		}
		return nil
	})
}

// active returns the metric that says whether the replica works.
func (r *replica) active(t *testing.T) float64 {
	t.Helper()
	families, err := r.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == "vc_syncer_active" {
			return family.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatal("vc_syncer_active is missing")
	return 0
}

// lacking is an account with the rights of the syncer, except to read one resource, and the function that grants it.
func lacking(t *testing.T, resource string) (*rest.Config, func()) {
	t.Helper()
	roles := w.Super.Client.RbacV1().ClusterRoles()
	full, err := roles.Get(t.Context(), "vc-syncer", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	name := "vc-syncer-without-" + resource
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}}
	for _, rule := range full.Rules {
		rule.Resources = slices.DeleteFunc(slices.Clone(rule.Resources), func(r string) bool { return r == resource })
		if len(rule.Resources) > 0 {
			role.Rules = append(role.Rules, rule)
		}
	}
	if role, err = roles.Create(t.Context(), role, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name}},
	}
	if _, err := w.Super.Client.RbacV1().ClusterRoleBindings().Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if err := w.Super.Client.RbacV1().ClusterRoleBindings().Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
		if err := roles.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	config := rest.CopyConfig(w.Super.Config)
	config.Impersonate.UserName = name
	return config, func() {
		role.Rules = full.Rules
		if _, err := roles.Update(t.Context(), role, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

// A right is missing in the super cluster, so that one kind cannot be read and nothing is synchronised. The leader is not
// ready, and says which kind it is; it gets ready when it has the right.
func TestReadinessNamesTheKindThatCannotBeRead(t *testing.T) {
	as, grant := lacking(t, "poddisruptionbudgets")
	r := startReplica(t, as, "readiness")
	r.awaitReadyz(t, http.StatusInternalServerError, "[-]cache-poddisruptionbudgets failed", "[+]cache-pods ok", "[+]cache-secrets ok")
	worlds.Eventually(t, limit, "the log to name the kind and the reason", func(context.Context) error {
		if r.logged("Nothing is synchronised", `"resource"="poddisruptionbudgets"`, "forbidden") {
			return nil
		}
		return errors.New("it does not")
	})
	if r.logged("Nothing is synchronised", `"resource"="pods"`) {
		t.Error("the log names a kind that was read")
	}
	if got := r.active(t); got != 0 {
		t.Errorf("vc_syncer_active is %v", got)
	}
	grant()
	r.awaitReadyz(t, http.StatusOK, "[+]cache-poddisruptionbudgets ok")
	worlds.Eventually(t, limit, "vc_syncer_active", func(context.Context) error {
		if got := r.active(t); got != 1 {
			return fmt.Errorf("it is %v", got)
		}
		return nil
	})
}

// A rollout waits for the new replica, which cannot lead before the old one is gone: a replica on standby is ready.
func TestStandbyIsReady(t *testing.T) {
	leader := startReplica(t, asSyncer(w.Super), "standby")
	select {
	case <-leader.manager.Elected():
	case <-t.Context().Done():
	}
	leader.awaitReadyz(t, http.StatusOK)
	standby := startReplica(t, asSyncer(w.Super), "standby")
	standby.awaitReadyz(t, http.StatusOK, "[+]cache-pods ok")
	select {
	case <-standby.manager.Elected():
		t.Error("both lead")
	default:
	}
	if got := standby.active(t); got != 0 {
		t.Errorf("vc_syncer_active of the standby is %v", got)
	}
}
