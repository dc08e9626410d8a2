package syncer

import (
	"context"
	"fmt"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/engine"
	"github.com/virtualcluster-io/virtualcluster/syncer/shards"
	"github.com/virtualcluster-io/virtualcluster/syncer/tenants"
)

// sharing says which tenants this replica serves. Without shards, it serves all.
type sharing struct {
	shards *shards.Coordinator // nil without shards
	// ending is held while a shard is let go of, and shared while a tenant is connected.
	ending sync.RWMutex
}

// owns says whether this replica may begin to serve a tenant.
func (s *sharing) owns(id names.TenantID) bool { return s.shards == nil || s.shards.Owns(id) }

// onBehalf notes in a context for which tenant the super cluster is written to.
func (s *sharing) onBehalf(ctx context.Context, id names.TenantID) context.Context {
	if s.shards == nil {
		return ctx
	}
	return s.shards.For(ctx, id)
}

// setupSharing adds the sharing of tenants to a manager. It begins when the caches of the super cluster are filled: a replica
// takes no tenants that it would keep waiting.
func setupSharing(mgr manager.Manager, f *follower, wake func(types.NamespacedName), registerer prometheus.Registerer) error {
	s := f.sharing.shards
	if s == nil {
		return nil
	}
	s.Notify(func(shard int) { go f.gained(shard, wake) }, f.letGo) // it ends with its last wake
	err := registerer.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "vc_syncer_shards", Help: "Shards of the tenants that this replica works for.",
	}, func() float64 { return float64(s.Held()) }))
	if err != nil {
		return fmt.Errorf("registering metrics: %w", err)
	}
	err = mgr.Add(manager.RunnableFunc(func(ctx context.Context) error {
		select {
		case <-ctx.Done():
		case <-f.engine.Current():
			s.Run(ctx)
		}
		return nil
	}))
	if err != nil {
		return fmt.Errorf("adding the sharing of tenants to the manager: %w", err)
	}
	return nil
}

// gained looks at the VirtualClusters of a shard that this replica may serve now.
func (f *follower) gained(shard int, wake func(types.NamespacedName)) {
	var list tenancyv1alpha1.VirtualClusterList
	ctx := context.Background() // the list is one of the cache
	if err := f.client.List(ctx, &list); err != nil {
		log.Log.Error(err, "Cannot list VirtualClusters")
		return // each is looked at again when it changes
	}
	for i := range list.Items {
		if vc := &list.Items[i]; f.sharing.shards.Of(names.Tenant(client.ObjectKeyFromObject(vc), vc.UID)) == shard {
			wake(client.ObjectKeyFromObject(vc))
		}
	}
}

// letGo drops the tenants of a shard that this replica must not serve any more. It returns when nothing is written for them.
func (f *follower) letGo(shard int) {
	f.sharing.ending.Lock()   // what is being connected is known then, and nothing will be
	f.sharing.ending.Unlock() //nolint:staticcheck // see above
	f.mu.Lock()
	var all []types.NamespacedName
	for vc, id := range f.connected {
		if f.sharing.shards.Of(id) == shard {
			all = append(all, vc)
		}
	}
	f.mu.Unlock()
	var dropping sync.WaitGroup
	for _, vc := range all {
		dropping.Go(func() { f.follow(vc, "") })
	}
	dropping.Wait()
}

// elsewhere forgets a VirtualCluster that another replica serves. The tenant that it is now was dropped, or will be, when its
// shard was let go of; one that it was before, under the same name, is dropped here.
func (f *follower) elsewhere(vc types.NamespacedName, id names.TenantID) {
	f.contacts.forget(vc)
	f.mu.Lock()
	before := f.connected[vc]
	f.mu.Unlock()
	if before != "" && before != id {
		f.follow(vc, "")
	}
}

// connect connects a tenant. It is false when another replica serves it.
func (f *follower) connect(vc types.NamespacedName, spec *tenants.Spec) (bool, error) {
	f.sharing.ending.RLock()
	defer f.sharing.ending.RUnlock()
	if !f.sharing.owns(spec.Facts.ID) {
		return false, nil
	}
	f.follow(vc, spec.Facts.ID)
	return true, f.engine.Tenants().Ensure(*spec)
}

// current returns how to connect to a tenant that is not connected that way, as the API server says: what the replica that
// served it before has remembered last may not be in the cache yet.
func (f *follower) current(ctx context.Context, vc *tenancyv1alpha1.VirtualCluster, spec *tenants.Spec) (*tenants.Spec, error) {
	t := f.engine.Tenants().Get(spec.Facts.ID)
	if f.sharing.shards == nil || t != nil && t.Hash == spec.Hash {
		return spec, nil
	}
	key, uid := client.ObjectKeyFromObject(vc), vc.UID
	if err := f.live.Get(ctx, key, vc); err != nil {
		return nil, fmt.Errorf("reading VirtualCluster %s: %w", key, err)
	}
	if vc.UID != uid || !vc.DeletionTimestamp.IsZero() {
		return nil, nil // its event brings it back
	}
	return f.spec(ctx, vc)
}

// leads says whether this replica writes what concerns all tenants.
func (s *sharing) leads() bool { return s.shards == nil || s.shards.Holds(0) }

// forAll returns a context in which the super cluster is written to on behalf of all tenants.
func (s *sharing) forAll(ctx context.Context) context.Context {
	if s.shards == nil {
		return ctx
	}
	return s.shards.ForAll(ctx)
}

// fence keeps this replica from writing to a tenant that another serves.
func (s *sharing) fence(config *rest.Config, id names.TenantID) {
	if s.shards != nil {
		config.Wrap(s.shards.Tenant(id))
	}
}

// version tells versions of a policy apart, and whether it is ending.
func version(policy *tenancyv1alpha1.SyncPolicy) string {
	return fmt.Sprintf("%s/%d/%t", policy.UID, policy.Generation, !policy.DeletionTimestamp.IsZero())
}

// done says whether nothing is left of a policy in the tenants of any replica, once nothing is in those of this one.
func (s *sharing) done(policy *tenancyv1alpha1.SyncPolicy, here bool) bool {
	if s.shards == nil {
		return here
	}
	s.shards.Report(policy.Name, shards.Report{Of: version(policy), Done: here})
	return here && s.leads() && s.shards.Reported(policy.Name, version(policy)).Done
}

// addUp counts how far the tenants of all replicas are with a policy, from how far those of this one are.
func (s *sharing) addUp(policy *tenancyv1alpha1.SyncPolicy, count map[engine.Progress]int) {
	if s.shards == nil {
		return
	}
	all := count[engine.Pending] + count[engine.Serving] + count[engine.Refused]
	s.shards.Report(policy.Name, shards.Report{Of: version(policy), Serving: count[engine.Serving], Refused: count[engine.Refused]})
	sum := s.shards.Reported(policy.Name, version(policy))
	count[engine.Serving], count[engine.Refused] = sum.Serving, sum.Refused
	count[engine.Pending] = max(0, all-sum.Serving-sum.Refused)
}

// forget ends what is reported about a policy.
func (s *sharing) forget(policy string) {
	if s.shards != nil {
		s.shards.Forget(policy)
	}
}
