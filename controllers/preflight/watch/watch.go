// Package watch makes vc-manager check the super cluster again and again, and say what it finds in a condition of its Pod, a
// metric and its log. It stops nothing: vc-manager reconciles whatever is found. The checks are in package preflight.
package watch

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/virtualcluster-io/virtualcluster/controllers/preflight"
	"github.com/virtualcluster-io/virtualcluster/internal/names"
)

//+kubebuilder:rbac:groups="",resources=pods,verbs=get
//+kubebuilder:rbac:groups="",namespace=vc-system,resources=pods/status,verbs=patch

// ConditionServiceAddresses is a condition of vc-manager's Pod. It is True when nothing keeps tenants from having Services that
// work.
const ConditionServiceAddresses corev1.PodConditionType = names.Prefix + "ServiceAddresses"

const (
	// interval is the time between two checks.
	interval = 10 * time.Minute
	// checkTimeout bounds a check, requestTimeout each request about the API server itself.
	checkTimeout, requestTimeout = 2 * time.Minute, 15 * time.Second
)

// NewMetric registers the metric of findings.
func NewMetric(registerer prometheus.Registerer) (*prometheus.GaugeVec, error) {
	metric := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "vc_manager_preflight_findings",
		Help: "Number of findings about the addresses of Services in the super cluster, by severity and reason.",
	}, []string{"severity", "reason"})
	if err := registerer.Register(metric); err != nil {
		return nil, fmt.Errorf("registering metrics: %w", err)
	}
	return metric, nil
}

// Watch checks a super cluster again and again.
type Watch struct {
	Super  preflight.Super
	Config preflight.Config
	// Pod is that of this process; without a name, findings are only logged and counted.
	Pod    client.ObjectKey
	Metric *prometheus.GaugeVec
	Clock  clock.Clock

	last *preflight.Report
}

// Add adds a Watch to a manager.
func Add(mgr ctrl.Manager, registerer prometheus.Registerer, config preflight.Config, pod client.ObjectKey) error {
	metric, err := NewMetric(registerer)
	if err != nil {
		return err
	}
	// These requests take no context.
	bounded := rest.CopyConfig(mgr.GetConfig())
	bounded.Timeout = requestTimeout
	about, err := discovery.NewDiscoveryClientForConfig(bounded)
	if err != nil {
		return fmt.Errorf("making a client of the super cluster: %w", err)
	}
	super := preflight.Super{Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Discovery: about}
	return mgr.Add(&Watch{Super: super, Config: config, Pod: pod, Metric: metric, Clock: clock.RealClock{}})
}

// Start implements manager.Runnable. It never fails: tenants do not depend on it.
func (w *Watch) Start(ctx context.Context) error {
	for {
		w.round(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-w.Clock.After(interval):
		}
	}
}

// round checks once and says what was found.
func (w *Watch) round(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	logger := log.FromContext(ctx).WithName("preflight")
	report, err := preflight.Check(ctx, w.Super, w.Config)
	if err != nil {
		logger.Error(err, "Failed to check the addresses of Services")
		return
	}
	w.Metric.Reset()
	for _, f := range report.Findings {
		w.Metric.WithLabelValues(string(f.Severity), f.Reason).Inc()
	}
	if !reflect.DeepEqual(report, w.last) {
		logger.Info("Checked the addresses of Services", "mode", report.Mode, "serviceRanges", report.ServiceRanges, "ranges", report.Ranges, "ok", !report.Failed())
		for _, f := range report.Findings {
			if f.Severity != preflight.Info {
				logger.Info("Found a problem with the addresses of Services", "severity", f.Severity, "reason", f.Reason, "why", f.Message, "action", f.Action)
			}
		}
		w.last = report
	}
	if w.Pod.Name == "" {
		return
	}
	if err := w.tell(ctx, report); err != nil {
		logger.Error(err, "Failed to set the condition", "pod", w.Pod)
	}
}

// tell sets the condition of the Pod.
func (w *Watch) tell(ctx context.Context, report *preflight.Report) error {
	pod := &corev1.Pod{}
	if err := w.Super.Live.Get(ctx, w.Pod, pod); err != nil {
		return fmt.Errorf("reading the pod of vc-manager: %w", err)
	}
	before := pod.DeepCopy()
	if !setCondition(&pod.Status, conditionOf(report), metav1.NewTime(w.Clock.Now())) {
		return nil
	}
	return w.Super.Client.Status().Patch(ctx, pod, client.StrategicMergeFrom(before))
}

// conditionOf returns what the condition of vc-manager says about a report.
func conditionOf(report *preflight.Report) corev1.PodCondition {
	condition := corev1.PodCondition{Type: ConditionServiceAddresses, Status: corev1.ConditionTrue, Reason: string(report.Mode)}
	var messages []string
	for _, f := range report.Findings {
		if f.Severity == preflight.Error && condition.Status == corev1.ConditionTrue {
			condition.Status, condition.Reason = corev1.ConditionFalse, f.Reason
		}
		if f.Severity == preflight.Error || condition.Status == corev1.ConditionTrue && (f.Reason == string(report.Mode) || f.Reason == preflight.ReasonCapacity) {
			messages = append(messages, f.Message)
		}
	}
	condition.Message = strings.Join(messages, "; ")
	return condition
}

// setCondition sets a condition and says whether that changed anything.
func setCondition(status *corev1.PodStatus, condition corev1.PodCondition, now metav1.Time) bool {
	condition.LastTransitionTime = now
	for i := range status.Conditions {
		existing := &status.Conditions[i]
		if existing.Type != condition.Type {
			continue
		}
		if existing.Status == condition.Status {
			condition.LastTransitionTime = existing.LastTransitionTime
		}
		changed := !reflect.DeepEqual(*existing, condition)
		*existing = condition
		return changed
	}
	status.Conditions = append(status.Conditions, condition)
	return true
}
