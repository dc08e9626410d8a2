package engine

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
	"github.com/virtualcluster-io/virtualcluster/syncer/tenants"
)

// mint requests the tokens from the tenant and stores them in the Secret, creating it or replacing its data.
func (e *Engine) mint(ctx context.Context, t *tenants.Tenant, op resource.Op) error {
	want, ok := op.Object.(*corev1.Secret)
	if !ok {
		return fmt.Errorf("minting into %T: only a Secret holds tokens", op.Object)
	}
	secret := want.DeepCopy()
	secret.Data = map[string][]byte{}
	var first time.Time
	for _, token := range op.Tokens {
		status, err := t.Client.Token(ctx, token)
		if err != nil {
			if apierrors.IsNotFound(err) { // the pod or its account is gone, or not there yet
				return resource.Blocked(retryTokens, "Waiting", "service account %q, which does not exist", token.ServiceAccount)
			}
			return fmt.Errorf("requesting a token of service account %s/%s: %w", token.Namespace, token.ServiceAccount, err)
		}
		secret.Data[token.Key] = []byte(status.Token)
		if expiry := status.ExpirationTimestamp.Time; first.IsZero() || expiry.Before(first) {
			first = expiry
		}
	}
	if secret.Annotations == nil {
		secret.Annotations = map[string]string{}
	}
	secret.Annotations[names.AnnotationTokenExpiry] = first.UTC().Format(time.RFC3339)
	secret.Annotations[names.AnnotationTokenIssued] = e.now().UTC().Format(time.RFC3339)
	super := e.superFor(t)
	err := super.Do(ctx, resource.Op{Side: resource.Super, Verb: resource.Create, Object: secret})
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	existing := &corev1.Secret{}
	if err := super.Get(ctx, secret.Namespace, secret.Name, existing); err != nil {
		return fmt.Errorf("reading the token secret %s/%s: %w", secret.Namespace, secret.Name, err)
	}
	if existing.Labels[names.LabelTenant] != string(t.Facts.ID) && !stripped(existing, secret) {
		return fmt.Errorf("secret %s/%s is not ours", secret.Namespace, secret.Name)
	}
	renewed := existing.DeepCopy()
	renewed.Data, renewed.Annotations, renewed.Labels, renewed.OwnerReferences = secret.Data, secret.Annotations, secret.Labels, secret.OwnerReferences
	patch, err := resource.Diff(existing, renewed, resource.Guarded)
	if err != nil || patch == nil {
		return err
	}
	return super.Do(ctx, resource.Op{Side: resource.Super, Verb: resource.Patch, Object: existing, Patch: patch})
}

// retryTokens is when a pod whose service account does not exist is looked at again although no event arrived.
const retryTokens = 5 * time.Second
