// Package cluster is a connection to one Kubernetes API server, a tenant's or the super cluster's: operations are
// written through a Client, and kinds are read from Caches. It knows nothing of tenants, ownership or decisions;
// package tenants and package engine use it.
package cluster

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"github.com/virtualcluster-io/virtualcluster/internal/connection"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// Client talks to one API server. Every call ends after the timeout at the latest.
type Client struct {
	config   *rest.Config
	http     *http.Client
	metadata metadata.Interface
	codecs   serializer.CodecFactory
	timeout  time.Duration
	maxList  int64 // how many bytes a list may have, which is then read in pages; 0 when that is not bounded

	mu      sync.Mutex
	clients map[clientKey]rest.Interface       // guarded by mu, never held over I/O
	plurals map[schema.GroupVersionKind]string // guarded by mu: of kinds whose plural cannot be guessed
}

// clientKey tells REST clients apart: custom resources are neither typed nor in protobuf.
type clientKey struct {
	schema.GroupVersion
	custom bool
}

// NewClient returns a Client of an API server that is trusted. Client-side rate limits are switched off: fairness is the
// engine's, and the server's priority and fairness protects the server.
func NewClient(config *rest.Config, timeout time.Duration) (*Client, error) {
	config = configure(config)
	h, err := rest.HTTPClientFor(config) //nolint:forbidigo // Its caller trusts it.
	if err != nil {
		return nil, fmt.Errorf("creating an HTTP client for %s: %w", config.Host, err)
	}
	return newClient(config, h, timeout)
}

// NewUntrusted returns a Client of an API server that is not trusted: what it sends is bounded, see package connection. It
// is like that of NewClient otherwise.
func NewUntrusted(config *rest.Config, timeout time.Duration) (*Client, error) {
	h, config, err := connection.New(connection.Options{Config: configure(config)})
	if err != nil {
		return nil, fmt.Errorf("the API server cannot be connected to: %w", err)
	}
	c, err := newClient(config, h, timeout)
	if err != nil {
		return nil, err
	}
	c.maxList = maxList
	return c, nil
}

func configure(config *rest.Config) *rest.Config {
	config = rest.CopyConfig(config)
	config.QPS = -1
	config.UserAgent = names.Syncer
	config.Timeout = 0 // watches live long; other calls carry a deadline of their own
	return config
}

func newClient(config *rest.Config, h *http.Client, timeout time.Duration) (*Client, error) {
	m, err := metadata.NewForConfigAndClient(config, h)
	if err != nil {
		return nil, fmt.Errorf("creating a client for metadata of %s: %w", config.Host, err)
	}
	return &Client{
		config: config, http: h, metadata: m, timeout: timeout,
		codecs:  serializer.NewCodecFactory(scheme.Scheme),
		clients: map[clientKey]rest.Interface{},
		plurals: map[schema.GroupVersionKind]string{},
	}, nil
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func (c *Client) rest(gvk schema.GroupVersionKind, custom bool) (rest.Interface, error) {
	key := clientKey{gvk.GroupVersion(), custom}
	c.mu.Lock()
	defer c.mu.Unlock()
	if r, ok := c.clients[key]; ok {
		return r, nil
	}
	r, err := apiutil.RESTClientForGVK(gvk, false, custom, c.config, c.codecs, c.http)
	if err != nil {
		return nil, fmt.Errorf("creating a client for %s: %w", gvk.GroupVersion(), err)
	}
	c.clients[key] = r
	return r, nil
}

// Get reads an object live into out.
func (c *Client) Get(ctx context.Context, namespace, name string, out resource.Object) error {
	r, plural, err := c.forObject(out)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	return r.Get().NamespaceIfScoped(namespace, namespace != "").Resource(plural).Name(name).Do(ctx).Into(out)
}

// Sight is one look at a control plane.
type Sight struct {
	// System is its namespace kube-system, whose UID is the identity of the control plane.
	System *corev1.Namespace
	// Revision is its resource version: one more with each write to it.
	Revision int64
}

// Look reads the identity and the resource version of the control plane, live.
func (c *Client) Look(ctx context.Context) (Sight, error) {
	list := &corev1.NamespaceList{}
	r, plural, err := c.forObject(&corev1.Namespace{})
	if err != nil {
		return Sight{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	// The version of a list that asks for none is that of the whole storage at this moment.
	options := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, metav1.NamespaceSystem).String()}
	if err := r.Get().Resource(plural).SpecificallyVersionedParams(&options, scheme.ParameterCodec, parametersVersion()).Do(ctx).Into(list); err != nil {
		return Sight{}, err
	}
	if len(list.Items) != 1 {
		return Sight{}, apierrors.NewNotFound(corev1.Resource("namespaces"), metav1.NamespaceSystem)
	}
	revision, err := strconv.ParseInt(list.ResourceVersion, 10, 64)
	if err != nil {
		return Sight{}, fmt.Errorf("reading the resource version of the control plane: %w", err)
	}
	return Sight{System: &list.Items[0], Revision: revision}, nil
}

// Do carries out one operation. Mint is not one of them: it needs two servers.
func (c *Client) Do(ctx context.Context, op resource.Op) error {
	o := op.Object
	r, plural, err := c.forObject(o)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	namespace, name := o.GetNamespace(), o.GetName()
	namespaced := namespace != ""
	patchType := types.StrategicMergePatchType
	if isUnstructured(o) {
		patchType = types.MergePatchType
	}
	patch := func(subresource ...string) error {
		return r.Patch(patchType).NamespaceIfScoped(namespace, namespaced).Resource(plural).Name(name).
			SubResource(subresource...).
			SpecificallyVersionedParams(&metav1.PatchOptions{FieldManager: names.Syncer}, scheme.ParameterCodec, parametersVersion()).
			Body(op.Patch).Do(ctx).Error()
	}
	switch op.Verb {
	case resource.Create:
		return c.create(ctx, r, plural, o)
	case resource.Record:
		return c.record(ctx, r, plural, o)
	case resource.Patch:
		return patch()
	case resource.PatchStatus:
		return patch("status")
	case resource.PatchResize:
		return patch("resize")
	case resource.PatchEphemeral:
		return patch("ephemeralcontainers")
	case resource.Bind:
		return r.Post().Namespace(namespace).Resource(plural).Name(name).SubResource("binding").Body(&corev1.Binding{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: o.GetUID()},
			Target:     corev1.ObjectReference{Kind: "Node", Name: op.Node},
		}).Do(ctx).Error()
	case resource.Delete:
		uid := o.GetUID()
		preconditions := &metav1.Preconditions{UID: &uid}
		if op.Exact {
			version := o.GetResourceVersion()
			preconditions.ResourceVersion = &version
		}
		return r.Delete().NamespaceIfScoped(namespace, namespaced).Resource(plural).Name(name).Body(&metav1.DeleteOptions{
			Preconditions:      preconditions,
			GracePeriodSeconds: op.Grace,
		}).Do(ctx).Error()
	default:
		return fmt.Errorf("operation %s cannot be carried out by one cluster", op.Verb)
	}
}

func (c *Client) create(ctx context.Context, r rest.Interface, plural string, o resource.Object) error {
	return r.Post().NamespaceIfScoped(o.GetNamespace(), o.GetNamespace() != "").Resource(plural).
		SpecificallyVersionedParams(&metav1.CreateOptions{FieldManager: names.Syncer}, scheme.ParameterCodec, parametersVersion()).
		Body(o).Do(ctx).Error()
}

// Token requests one service account token, bound to its pod.
func (c *Client) Token(ctx context.Context, t resource.Token) (*authenticationv1.TokenRequestStatus, error) {
	r, err := c.rest(corev1.SchemeGroupVersion.WithKind("ServiceAccount"), false)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: &t.ExpirationSeconds,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: t.PodName, UID: t.PodUID},
	}}
	if t.Audience != "" {
		request.Spec.Audiences = []string{t.Audience}
	}
	err = r.Post().Namespace(t.Namespace).Resource("serviceaccounts").Name(t.ServiceAccount).SubResource("token").
		Body(request).Do(ctx).Into(request)
	if err != nil {
		return nil, err
	}
	return &request.Status, nil
}

// learn notes the plural resource name of a kind.
func (c *Client) learn(gvk schema.GroupVersionKind, plural string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.plurals[gvk] = plural
}

// forObject returns the client and the plural resource name of an object.
func (c *Client) forObject(o resource.Object) (rest.Interface, string, error) {
	gvk, err := apiutil.GVKForObject(o, scheme.Scheme)
	if err != nil {
		return nil, "", fmt.Errorf("finding the kind of %T: %w", o, err)
	}
	r, err := c.rest(gvk, isUnstructured(o))
	if err != nil {
		return nil, "", err
	}
	c.mu.Lock()
	plural, known := c.plurals[gvk]
	c.mu.Unlock()
	if !known {
		guess, _ := apimeta.UnsafeGuessKindToResource(gvk)
		plural = guess.Resource
	}
	return r, plural, nil
}

// isUnstructured says whether an object is one of a custom resource.
func isUnstructured(o runtime.Object) bool {
	_, ok := o.(runtime.Unstructured)
	return ok
}

// parametersVersion is the version whose names of URL parameters are used. They are the same for every group; the scheme
// knows them for built-in ones only.
func parametersVersion() schema.GroupVersion { return corev1.SchemeGroupVersion }
