package syncer

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/virtualcluster-io/virtualcluster/syncer/cluster"
)

// contactTimeout bounds the first contact with an external control plane.
const contactTimeout = 10 * time.Second

// contacts asks control planes who they are, each in the background: an address may be one that nobody answers at.
type contacts struct {
	// ask returns the identity of a control plane.
	ask func(*rest.Config) (types.UID, error)
	// answered is told that there is an answer, or that there will be none.
	answered func(types.NamespacedName)

	mu    sync.Mutex
	asked map[types.NamespacedName]*contact // guarded by mu
}

// contact is one question.
type contact struct {
	hash string // of whom it is asked
	done bool
	uid  types.UID
	err  error
}

func newContacts(ctx context.Context, answered func(types.NamespacedName)) *contacts {
	return &contacts{
		ask:      func(config *rest.Config) (types.UID, error) { return identityOf(ctx, config) },
		answered: answered,
		asked:    map[types.NamespacedName]*contact{},
	}
}

// identity returns the identity of the control plane of a VirtualCluster that a config leads to; hash changes when that may be
// another one. The identity is empty while it is being asked for. An answer, or an error, is returned once.
func (c *contacts) identity(vc types.NamespacedName, hash string, config *rest.Config) (types.UID, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	last := c.asked[vc]
	switch {
	case last == nil || last.hash != hash:
		last = &contact{hash: hash}
		c.asked[vc] = last
		go c.contact(vc, last, config) // ends with the deadline of the call
		return "", nil
	case !last.done:
		return "", nil
	}
	delete(c.asked, vc)
	return last.uid, last.err
}

func (c *contacts) contact(vc types.NamespacedName, of *contact, config *rest.Config) {
	uid, err := c.ask(config)
	c.mu.Lock()
	of.done, of.uid, of.err = true, uid, err
	c.mu.Unlock()
	c.answered(vc)
}

// forget drops an answer that nobody will ask for.
func (c *contacts) forget(vc types.NamespacedName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.asked, vc)
}

// identityOf asks a control plane who it is.
func identityOf(ctx context.Context, config *rest.Config) (types.UID, error) {
	c, err := cluster.NewUntrusted(config, contactTimeout)
	if err != nil {
		return "", err
	}
	defer c.Close()
	var ns corev1.Namespace
	err = c.Get(ctx, "", metav1.NamespaceSystem, &ns)
	return ns.UID, err
}
