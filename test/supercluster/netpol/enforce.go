package netpol

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// settle is how long to collect changes before rendering; they come in bursts.
const settle = 50 * time.Millisecond

// retry is the pause after the rules could not be applied.
const retry = 2 * time.Second

// Run enforces the policies on the pods of a node until ctx ends. The rules stay when it ends, so that a restart opens
// nothing.
func Run(ctx context.Context, client kubernetes.Interface, node string) error {
	factory := informers.NewSharedInformerFactory(client, 0)
	pods := factory.Core().V1().Pods()
	namespaces := factory.Core().V1().Namespaces()
	policies := factory.Networking().V1().NetworkPolicies()
	changed := make(chan struct{}, 1)
	notify := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { notify() },
		UpdateFunc: func(any, any) { notify() },
		DeleteFunc: func(any) { notify() },
	}
	for _, informer := range []cache.SharedIndexInformer{pods.Informer(), namespaces.Informer(), policies.Informer()} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return fmt.Errorf("watching: %w", err)
		}
	}
	factory.Start(ctx.Done())
	defer factory.Shutdown()
	for kind, synced := range factory.WaitForCacheSync(ctx.Done()) {
		if !synced {
			return fmt.Errorf("waiting for all %s: %w", kind, ctx.Err())
		}
	}
	state := func() (State, error) {
		s := State{Node: node}
		var errs [3]error
		s.Pods, errs[0] = pods.Lister().List(labels.Everything())
		s.Namespaces, errs[1] = namespaces.Lister().List(labels.Everything())
		s.Policies, errs[2] = policies.Lister().List(labels.Everything())
		return s, errors.Join(errs[:]...)
	}
	notify()
	return enforce(ctx, changed, state)
}

// enforce applies the rules after each change that alters them.
func enforce(ctx context.Context, changed <-chan struct{}, state func() (State, error)) error {
	log := logr.FromContextOrDiscard(ctx)
	applied := ""
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-again:
		case <-changed:
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(settle):
			}
		}
		again = nil
		s, err := state()
		if err != nil {
			return fmt.Errorf("reading the cache: %w", err)
		}
		rules, err := Rules(s)
		if err == nil && rules != applied {
			err = apply(ctx, rules)
		}
		if err != nil {
			log.Error(err, "Rules are not applied, trying again")
			again = time.After(retry)
			continue
		}
		applied = rules
	}
}

func apply(ctx context.Context, rules string) error {
	cmd := exec.CommandContext(ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("running nft: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}
