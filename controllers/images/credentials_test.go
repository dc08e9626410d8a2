package images

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func secret(name string, kind corev1.SecretType, key, content string) corev1.Secret {
	return corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, Type: kind, Data: map[string][]byte{key: []byte(content)}}
}

func TestMergeCredentials(t *testing.T) {
	json := func(name, content string) corev1.Secret {
		return secret(name, corev1.SecretTypeDockerConfigJson, corev1.DockerConfigJsonKey, content)
	}
	a := json("a", `{"auths":{"a.example.com":{"auth":"YQ=="}},"credsStore":"x"}`)
	for name, tc := range map[string]struct {
		secrets []corev1.Secret
		want    string
		problem string
	}{
		"None":         {nil, `{"auths":{}}`, ""},
		"One":          {[]corev1.Secret{a}, `{"auths":{"a.example.com":{"auth":"YQ=="}}}`, ""},
		"OldFormat":    {[]corev1.Secret{a, secret("b", corev1.SecretTypeDockercfg, corev1.DockerConfigKey, `{"b.example.com":{"auth":"Yg=="}}`)}, `{"auths":{"a.example.com":{"auth":"YQ=="},"b.example.com":{"auth":"Yg=="}}}`, ""},
		"SameRegistry": {[]corev1.Secret{a, json("c", `{"auths":{"a.example.com":{}}}`)}, "", "the Secrets a and c both have credentials for a.example.com"},
		"WrongType":    {[]corev1.Secret{secret("o", corev1.SecretTypeOpaque, "password", "hidden")}, "", "the Secret o is of type Opaque"},
		"NotJSON":      {[]corev1.Secret{json("n", "hidden")}, "", "the Secret n does not contain JSON"},
		"OtherJSON":    {[]corev1.Secret{json("n", `{"auths":"hidden"}`)}, "", "the Secret n does not contain JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := MergeCredentials(tc.secrets)
			if tc.problem != "" {
				if err == nil || !strings.Contains(err.Error(), tc.problem) || strings.Contains(err.Error(), "hidden") {
					t.Errorf("got %v, want %q and nothing secret", err, tc.problem)
				}
				return
			}
			if err != nil || string(got[corev1.DockerConfigJsonKey]) != tc.want {
				t.Errorf("got %s (%v), want %s", got[corev1.DockerConfigJsonKey], err, tc.want)
			}
		})
	}
}
