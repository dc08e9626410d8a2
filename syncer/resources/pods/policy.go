package pods

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	psa "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"

	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// podSecurity returns the check that refuses what the tenant's Pod Security level refuses. The version is pinned, so
// that an update of the library alone changes nobody's pods.
func podSecurity() func(psa.Level, *corev1.Pod) error {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		return func(psa.Level, *corev1.Pod) error { return fmt.Errorf("preparing the Pod Security checks: %w", err) }
	}
	return func(of psa.Level, pod *corev1.Pod) error {
		level := psa.LevelVersion{Level: of, Version: psa.MajorMinorVersion(1, 36)}
		result := policy.AggregateCheckResults(evaluator.EvaluatePod(level, &pod.ObjectMeta, &pod.Spec))
		if result.Allowed {
			return nil
		}
		return resource.Rejected("PodSecurity", "the pod violates the Pod Security level %q: %s", level.Level, result.ForbiddenDetail())
	}
}
