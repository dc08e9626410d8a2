package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/test/worlds"
)

const (
	// healTimeout bounds what ends a fault: the start of servers.
	healTimeout = 2 * time.Minute
	// reactTimeout bounds how long vc-syncer may take to be back to work, to leave a mark, or to halt a tenant.
	reactTimeout = 2 * time.Minute
	// watchful is for how long nothing may be deleted when a tenant waits for a person.
	watchful = 10 * time.Second
	// slow is the delay of a slow link, each way.
	slow = 400 * time.Millisecond
)

// run does everything of a schedule, and returns when all faults have ended and the time is up.
func (h *harness) run(ctx context.Context, faults []fault) {
	start := time.Now()
	var wg sync.WaitGroup
	var late time.Duration // what exclusive faults took longer than planned
	for _, f := range faults {
		if wait(ctx, time.Until(start.Add(time.Duration(f.At)+late))) != nil {
			break
		}
		inject := func() {
			progress("%s", f)
			if err := h.inject(ctx, f); err != nil && ctx.Err() == nil {
				h.found(finding{What: "fault did not go as planned", Of: f.Target, Have: fmt.Sprintf("%s: %v", f, err)})
			}
			progress("end of %s %s", f.Kind, f.Target)
		}
		if !f.Kind.exclusive() {
			wg.Go(inject)
			continue
		}
		wg.Wait()
		inject()
		late = max(late, time.Since(start)-time.Duration(f.At+f.For))
	}
	wg.Wait()
	_ = wait(ctx, time.Until(start.Add(h.options.Duration))) // whoever cancels looks at the context
}

// inject does one fault and heals it, also when the context ends.
func (h *harness) inject(ctx context.Context, f fault) error {
	healing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Duration(f.For)+healTimeout)
	defer cancel()
	last := func() { _ = wait(ctx, time.Duration(f.For)) } // it is healed then, or when the context ends
	if p := h.programs[f.Target]; p != nil {
		switch f.Kind {
		case pause:
			p.pause()
			last()
			p.resume()
		default:
			p.hold(f.Kind == terminate)
			last()
			p.letGo()
		}
		return nil
	}
	if link := h.links[f.Target]; link != nil {
		link.set(map[kind]linkState{cut: {cut: true}, stall: {stalled: true}, delay: {delay: slow}}[f.Kind])
		last()
		link.set(linkState{})
		return nil
	}
	name, server, _ := strings.Cut(f.Target, "/")
	world := h.worlds.Super
	t := h.tenants[name]
	if t != nil {
		world = t.world
	}
	switch {
	case f.Kind == empty:
		return h.emptied(ctx, healing, t, last)
	case f.Kind == restore || f.Kind == unseen:
		return h.restored(ctx, t, f, last)
	case f.Kind == fill:
		return h.filled(ctx, healing, t, last)
	case "/"+server == ofEtcd:
		return etcdFault(healing, world, f.Kind, last)
	default:
		return serverFault(healing, world, f.Kind, last)
	}
}

func etcdFault(healing context.Context, world *worlds.World, k kind, last func()) error {
	if k == pause {
		if err := world.PauseEtcd(); err != nil {
			return err
		}
		last()
		return world.ResumeEtcd()
	}
	world.KillEtcd()
	last()
	return world.StartEtcd(healing)
}

func serverFault(healing context.Context, world *worlds.World, k kind, last func()) error {
	switch k {
	case pause:
		if err := world.Pause(); err != nil {
			return err
		}
		last()
		return world.Resume()
	case terminate:
		ctx, cancel := context.WithTimeout(healing, grace)
		world.Terminate(ctx)
		cancel()
	default:
		world.Kill()
	}
	last()
	return world.Restart(healing)
}

// filled fills the disk of a tenant's etcd. The log of an etcd has room that is allocated already, so more is written than the load
// writes, until it ends.
func (h *harness) filled(ctx, healing context.Context, t *tenant, last func()) error {
	path := filepath.Join(h.disks[t.world.Name], "full")
	if err := fillUp(path); err != nil {
		return err
	}
	const big = 500 << 10
	written := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: "big"}}
	for range 2 * diskSize / big {
		writing, cancel := context.WithTimeout(ctx, callTimeout)
		written.Data = map[string]string{"big": strings.Repeat(string(rune('a'+time.Now().UnixNano()%26)), big)}
		written.ResourceVersion = ""
		err := t.client.Update(writing, written)
		if client.IgnoreNotFound(err) == nil && err != nil {
			err = t.client.Create(writing, written)
		}
		cancel()
		if err != nil {
			progress("%s cannot write: %v", t.world.Name, err)
			break
		}
	}
	last()
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("freeing a disk: %w", err)
	}
	return t.world.StartEtcd(healing)
}

// fillUp writes a file until there is no more space.
func fillUp(path string) error {
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("filling a disk: %w", err)
	}
	chunk := make([]byte, 1<<20)
	for len(chunk) > 0 {
		if _, err := file.Write(chunk); err != nil {
			chunk = chunk[:len(chunk)/2]
		}
	}
	return file.Close()
}

// standing lists the replicas of what the tenant certainly has, while its load is still.
func (h *harness) standing(ctx context.Context, t *tenant) (map[types.UID]client.Object, error) {
	ctx, cancel := context.WithTimeout(ctx, healTimeout)
	defer cancel()
	all, err := read(ctx, h.super, client.MatchingLabels{names.LabelManagedBy: names.Syncer, names.LabelTenant: string(t.id)})
	if err != nil {
		return nil, err
	}
	out := map[types.UID]client.Object{}
	for _, o := range all {
		k := key{kindOf(o), o.GetAnnotations()[names.AnnotationNamespace], o.GetName()}
		if k.Kind == kindNamespace {
			k = key{Kind: kindNamespace, Name: k.Namespace}
		}
		e, _ := t.journal.get(k)
		if e.exists() && e.UID == o.GetAnnotations()[names.AnnotationUID] && o.GetDeletionTimestamp() == nil {
			out[o.GetUID()] = o
		}
	}
	return out, nil
}

// stand checks that what stood still does.
func (h *harness) stand(ctx context.Context, t *tenant, stood map[types.UID]client.Object, when string) error {
	ctx, cancel := context.WithTimeout(ctx, healTimeout)
	defer cancel()
	all, err := read(ctx, h.super, client.MatchingLabels{names.LabelTenant: string(t.id)})
	if err != nil {
		return err
	}
	now := map[types.UID]client.Object{}
	for _, o := range all {
		now[o.GetUID()] = o
	}
	for uid, o := range stood {
		if still := now[uid]; still == nil || still.GetDeletionTimestamp() != nil {
			h.found(finding{
				What: "deleted " + when, Of: t.world.Name, Key: key{kindOf(o), o.GetNamespace(), o.GetName()},
				Want: fmt.Sprintf("one of %d that stay", len(stood)),
			})
		}
	}
	return nil
}

// emptied has the control plane of a tenant come back without anything, and later with everything.
func (h *harness) emptied(ctx, healing context.Context, t *tenant, last func()) error {
	if err := h.followed(ctx, t); err != nil {
		return err
	}
	t.still.Lock()
	defer t.still.Unlock()
	stood, err := h.standing(ctx, t)
	if err != nil {
		return err
	}
	aside := func(data string) string { return data + ".aside" }
	if err := t.world.Replace(healing, func(data string) error { return os.Rename(data, aside(data)) }); err != nil {
		return err
	}
	last()
	err = h.stand(ctx, t, stood, "when the control plane was empty")
	return errors.Join(err, t.world.Replace(healing, func(data string) error {
		if err := os.RemoveAll(data); err != nil {
			return fmt.Errorf("removing the empty data: %w", err)
		}
		return os.Rename(aside(data), data)
	}), h.stand(ctx, t, stood, "after the control plane was empty"))
}

// followed waits until vc-syncer makes the replica of a new namespace: it works.
func (h *harness) followed(ctx context.Context, t *tenant) error {
	ctx, cancel := context.WithTimeout(ctx, reactTimeout)
	defer cancel()
	t.still.RLock()
	defer t.still.RUnlock()
	k := key{Kind: kindNamespace, Name: fmt.Sprintf("probe-%d", t.named.Add(1))}
	if err := t.create(ctx, k); err != nil {
		return fmt.Errorf("creating a namespace: %w", err)
	}
	return poll(ctx, "the replica of a namespace", func(ctx context.Context) error {
		return h.super.Get(ctx, client.ObjectKey{Name: names.SuperNamespace(t.id, k.Name)}, &corev1.Namespace{})
	})
}

// remembered returns what vc-syncer remembers of a tenant.
func (h *harness) remembered(ctx context.Context, t *tenant) (tenancyv1alpha1.SyncStatus, error) {
	var vc tenancyv1alpha1.VirtualCluster
	if err := h.super.Get(ctx, t.vc, &vc); err != nil {
		return tenancyv1alpha1.SyncStatus{}, fmt.Errorf("reading VirtualCluster %s: %w", t.vc, err)
	}
	if vc.Status.Sync == nil {
		return tenancyv1alpha1.SyncStatus{}, nil
	}
	return *vc.Status.Sync, nil
}

// restored puts a backup of a tenant back. Nothing may be deleted until a person decides; then the control plane that is there is followed.
func (h *harness) restored(ctx context.Context, t *tenant, f fault, last func()) error {
	if err := h.followed(ctx, t); err != nil {
		return err
	}
	backup, saved, err := t.backUp(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(backup) }() // it goes with the worlds otherwise
	before, err := h.remembered(ctx, t)
	if err != nil {
		return err
	}
	// What tells of a restore is that vc-syncer has seen, and left, something newer than the backup.
	if err := h.followed(ctx, t); err != nil {
		return err
	}
	last()
	reacting, cancel := context.WithTimeout(ctx, reactTimeout)
	defer cancel()
	err = poll(reacting, "a mark that is newer than the backup", func(ctx context.Context) error {
		now, err := h.remembered(ctx, t)
		if err == nil && now.Mark <= before.Mark {
			err = fmt.Errorf("the last mark is %d, as before", now.Mark)
		}
		return err
	})
	if err != nil {
		return err
	}
	if f.Kind == unseen {
		for i := range h.options.setting.Syncers {
			p := h.programs[syncerName(i)]
			p.hold(false)
			defer p.letGo()
		}
	}
	stood, err := t.goBack(ctx, h, backup, saved)
	if err != nil {
		return err
	}
	if f.Kind == unseen {
		_ = wait(ctx, watchful) // the load overtakes the resource version of before
		for i := range h.options.setting.Syncers {
			h.programs[syncerName(i)].letGo()
		}
	}
	return h.released(ctx, t, stood)
}

// backUp takes a backup of a tenant and of what its user knows then.
func (t *tenant) backUp(ctx context.Context) (string, map[key]entry, error) {
	ctx, cancel := context.WithTimeout(ctx, healTimeout)
	defer cancel()
	t.still.Lock()
	defer t.still.Unlock()
	saved := t.journal.save()
	backup, err := t.world.Backup(ctx)
	return backup, saved, err
}

// goBack puts a backup back. It returns what must stand until a person decides.
func (t *tenant) goBack(ctx context.Context, h *harness, backup string, saved map[key]entry) (map[types.UID]client.Object, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), healTimeout)
	defer cancel()
	t.still.Lock()
	defer t.still.Unlock()
	stood, err := h.standing(ctx, t)
	if err != nil {
		return nil, err
	}
	if err := t.world.Restore(ctx, backup); err != nil {
		return nil, err
	}
	t.journal.load(saved)
	return stood, nil
}

// released waits until a tenant waits for a person, checks that nothing of it is deleted, and decides as kubectl vc release does.
func (h *harness) released(ctx context.Context, t *tenant, stood map[types.UID]client.Object) error {
	reacting, cancel := context.WithTimeout(ctx, reactTimeout)
	defer cancel()
	err := poll(reacting, "the tenant to be halted", func(ctx context.Context) error {
		now, err := h.remembered(ctx, t)
		if err == nil && now.Halted != tenancyv1alpha1.HaltRewound {
			err = fmt.Errorf("it is halted by %q (mark %d, revision %d)", now.Halted, now.Mark, now.Revision)
		}
		return err
	})
	if err != nil {
		return errors.Join(err, h.stand(ctx, t, stood, "after a restore that was not noticed"))
	}
	_ = wait(ctx, watchful)
	if err := h.stand(ctx, t, stood, "after a restore, before a person decided"); err != nil {
		return err
	}
	body := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:"true"}}}`, names.AnnotationReleaseBrake)
	vc := &tenancyv1alpha1.VirtualCluster{ObjectMeta: metav1.ObjectMeta{Namespace: t.vc.Namespace, Name: t.vc.Name}}
	releasing, cancel := context.WithTimeout(ctx, reactTimeout)
	defer cancel()
	if err := h.super.Patch(releasing, vc, client.RawPatch(types.MergePatchType, body)); err != nil {
		return fmt.Errorf("releasing %s: %w", t.world.Name, err)
	}
	return poll(releasing, "the tenant to go on", func(ctx context.Context) error {
		if f, bad := h.waiting(ctx, t); bad {
			return errors.New(f.Have)
		}
		return nil
	})
}
