package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	tenancyv1alpha1 "github.com/virtualcluster-io/virtualcluster/api/v1alpha1"
)

// waiting is the pair of flags --wait and --timeout.
type waiting struct {
	enabled bool
	timeout time.Duration
}

func addWaiting(cmd *cobra.Command, what string) *waiting {
	w := &waiting{}
	cmd.Flags().BoolVar(&w.enabled, "wait", false, "Wait until "+what+", and show the progress.")
	cmd.Flags().DurationVar(&w.timeout, "timeout", 5*time.Minute, "How long to wait.")
	return w
}

// until looks at a VirtualCluster until done says so, and prints a line whenever what it says about itself changes. A
// VirtualCluster that is gone, or was created again, is passed as nil.
func (c *cli) until(ctx context.Context, super client.Client, vc *tenancyv1alpha1.VirtualCluster, timeout time.Duration, done func(*tenancyv1alpha1.VirtualCluster) (bool, error)) error {
	start, shown, uid := time.Now(), "", vc.UID
	key := client.ObjectKeyFromObject(vc)
	err := wait.PollUntilContextTimeout(ctx, c.poll, timeout, true, func(ctx context.Context) (bool, error) {
		err := super.Get(ctx, key, vc)
		if apierrors.IsNotFound(err) || (err == nil && vc.UID != uid) {
			return done(nil)
		}
		if err != nil {
			return false, err
		}
		if line := progress(vc); line != shown {
			shown = line
			c.say("[%4.0fs] %s\n", time.Since(start).Seconds(), line)
		}
		return done(vc)
	})
	// At the very end the client may say in its own words that no time is left.
	if errors.Is(err, context.DeadlineExceeded) || (err != nil && ctx.Err() == nil && time.Since(start) >= timeout) {
		return fmt.Errorf("%s is not there after %s: %s; kubectl vc status %s shows more", key.Name, timeout, shown, key.Name)
	}
	return err
}

// progress says in one line how far a VirtualCluster is.
func progress(vc *tenancyv1alpha1.VirtualCluster) string {
	phase := string(vc.Status.Phase)
	if phase == "" {
		phase = string(tenancyv1alpha1.PhasePending)
	}
	if vc.Status.Message == "" {
		return phase
	}
	return phase + ": " + vc.Status.Message
}

// ready says whether clients can use the VirtualCluster. It fails when only a person can change that.
func ready(vc *tenancyv1alpha1.VirtualCluster) (bool, error) {
	if vc == nil {
		return false, errors.New("the VirtualCluster was deleted while waiting for it")
	}
	current := func(kind string) bool {
		condition := apimeta.FindStatusCondition(vc.Status.Conditions, kind)
		return condition != nil && condition.Status == metav1.ConditionTrue && condition.ObservedGeneration >= vc.Generation
	}
	if current(tenancyv1alpha1.ConditionReady) {
		return true, nil
	}
	if current(tenancyv1alpha1.ConditionStalled) {
		condition := apimeta.FindStatusCondition(vc.Status.Conditions, tenancyv1alpha1.ConditionStalled)
		return false, fmt.Errorf("%s needs you: %s", vc.Name, condition.Message)
	}
	return false, nil
}

// gone says whether the VirtualCluster does not exist any more.
func gone(vc *tenancyv1alpha1.VirtualCluster) (bool, error) { return vc == nil, nil }
