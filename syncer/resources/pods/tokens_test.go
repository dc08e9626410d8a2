package pods

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

// A token is for the group or the user for whom a kubelet would write it.
func TestModesOfTokens(t *testing.T) {
	user := func(id int64) *corev1.SecurityContext { return &corev1.SecurityContext{RunAsUser: to(id)} }
	ofPod := func(id int64) func(*corev1.PodSpec) {
		return func(s *corev1.PodSpec) { s.SecurityContext.RunAsUser = to(id) }
	}
	both := func(changes ...func(*corev1.PodSpec)) func(*corev1.PodSpec) {
		return func(s *corev1.PodSpec) {
			for _, change := range changes {
				change(s)
			}
		}
	}
	group := func(s *corev1.PodSpec) { s.SecurityContext.FSGroup = to(int64(2000)) }
	second := func(context *corev1.SecurityContext) func(*corev1.PodSpec) {
		return func(s *corev1.PodSpec) {
			s.Containers = append(s.Containers, corev1.Container{Name: "second", SecurityContext: context})
		}
	}
	first := func(context *corev1.SecurityContext) func(*corev1.PodSpec) {
		return func(s *corev1.PodSpec) {
			s.InitContainers = []corev1.Container{{Name: "first", SecurityContext: context}}
		}
	}
	for name, tc := range map[string]struct {
		change func(*corev1.PodSpec)
		want   *int32
	}{
		"UserOfTheImage":          {func(*corev1.PodSpec) {}, nil},
		"OneUser":                 {ofPod(1000), to(int32(0o444))},
		"Root":                    {ofPod(0), to(int32(0o600))},
		"Group":                   {group, to(int32(0o600))},
		"GroupAndUser":            {both(ofPod(1000), group), to(int32(0o600))},
		"SharedByAll":             {both(second(user(1000)), first(user(1000)), func(s *corev1.PodSpec) { s.Containers[0].SecurityContext = user(1000) }), to(int32(0o444))},
		"AnotherUser":             {both(ofPod(1000), second(user(1001))), nil},
		"AnotherUserAndGroup":     {both(ofPod(1000), second(user(1001)), group), to(int32(0o600))},
		"AnotherUserFirst":        {both(ofPod(1000), first(user(0))), nil},
		"OneOfTheImage":           {both(second(user(1000))), nil},
		"ContainerOverridesPod":   {both(ofPod(0), func(s *corev1.PodSpec) { s.Containers[0].SecurityContext = user(5) }), to(int32(0o444))},
		"ContextWithoutUser":      {both(ofPod(0), second(&corev1.SecurityContext{RunAsNonRoot: to(false)})), to(int32(0o600))},
		"NoContextInContainer":    {both(ofPod(1000), second(nil)), to(int32(0o444))},
		"NoContextInPodOrSpecial": {func(s *corev1.PodSpec) { s.SecurityContext = nil }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			tenant := pod(volumes(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{DefaultMode: to(int32(0o400)), Sources: []corev1.VolumeProjection{
				{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}},
				{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}, Items: []corev1.KeyToPath{{Key: "k", Path: "k"}}}},
			}}}), spec(tc.change))
			got := mustDown(t, newWorld(), tenant).Spec.Volumes[0].Projected
			if diff := cmp.Diff(tc.want, got.Sources[0].Secret.Items[0].Mode); diff != "" {
				t.Errorf("mode of the token (-want +got):\n%s", diff)
			}
			if *got.DefaultMode != 0o400 || got.Sources[1].Secret.Items[0].Mode != nil {
				t.Errorf("other files changed: %s", encode(got))
			}
		})
	}
}
