package engine

import (
	"context"
	"errors"
	"net/url"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

// askAgain is how often a super cluster that does not answer is asked, and over which time what failed is retried once it
// does.
const askAgain = time.Second

// suspectSuper asks whether the super cluster answers, if that may be why a call failed.
func (e *Engine) suspectSuper(err error) {
	if !outage(err) {
		return
	}
	select {
	case e.suspected <- struct{}{}:
	default: // it is asked already
	}
}

// watchSuper retries what failed, or was refused, as soon as the super cluster answers again after an outage.
func (e *Engine) watchSuper(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.suspected:
		}
		err := e.superAnswers(ctx)
		if err == nil {
			continue
		}
		began := time.Now()
		log.FromContext(ctx).Error(err, "The super cluster does not answer")
		for err != nil {
			select {
			case <-ctx.Done():
				return
			case <-time.After(askAgain):
			}
			err = e.superAnswers(ctx)
		}
		log.FromContext(ctx).Info("The super cluster answers again", "after", time.Since(began).String())
		e.eachPool(func(p *pool) { p.retryAll(askAgain) })
	}
}

// outage says whether a call may have failed because the API server, or what it stores in, is away.
func outage(err error) bool {
	var call *url.Error
	return errors.As(err, &call) || apierrors.IsTimeout(err) || apierrors.IsServerTimeout(err) ||
		apierrors.IsServiceUnavailable(err) || apierrors.IsInternalError(err)
}

// superAnswers returns why the super cluster cannot work, nil if it can. An API server that has just started forbids
// everything, because it does not know anybody's rights yet.
func (e *Engine) superAnswers(ctx context.Context) error {
	return e.super.Get(ctx, "", metav1.NamespaceSystem, &corev1.Namespace{})
}
