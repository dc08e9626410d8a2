package trust

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

const (
	// publishInterval is how often the authorities are looked at: they are renewed long before they expire.
	publishInterval = 10 * time.Minute
	publishRetry    = 2 * time.Second
)

// Start publishes the authorities and keeps doing so until the context ends. It implements manager.Runnable.
func (a *Authorities) Start(ctx context.Context) error {
	for delay := time.Duration(0); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait.Jitter(delay, 0.1)):
		}
		delay = publishInterval
		if err := a.Publish(ctx, time.Now()); err != nil {
			log.FromContext(ctx).Error(err, "Cannot publish the authorities of vn-agent")
			delay = publishRetry
		}
	}
}
