package images

import (
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// Defaults are for ClusterVersions that do not say otherwise.
type Defaults struct {
	// Registry takes the place of registry.k8s.io when it is not empty.
	Registry string
	// PullSecrets and CoreDNSPullSecrets name Secrets in the namespace of vc-manager, with credentials for the images of
	// control planes and for that of the CoreDNS in tenants. Tenants can read the latter.
	PullSecrets, CoreDNSPullSecrets []string
}

// registries are credentials by the registry that they are for.
type registries map[string]json.RawMessage

// MergeCredentials returns the credentials in Secrets for pulling images as the content of one Secret of type
// kubernetes.io/dockerconfigjson. One Secret, whose name is ours, cannot be in the way of another one in its namespace.
func MergeCredentials(secrets []corev1.Secret) (map[string][]byte, error) {
	merged, from := registries{}, map[string]string{}
	for i := range secrets {
		secret := &secrets[i]
		found, err := credentials(secret)
		if err != nil {
			return nil, err
		}
		for registry, credential := range found {
			if other, ok := from[registry]; ok {
				return nil, fmt.Errorf("the Secrets %s and %s both have credentials for %s; use one of them", other, secret.Name, registry)
			}
			merged[registry], from[registry] = credential, secret.Name
		}
	}
	content, err := json.Marshal(map[string]registries{"auths": merged})
	if err != nil {
		return nil, fmt.Errorf("encoding credentials: %w", err)
	}
	return map[string][]byte{corev1.DockerConfigJsonKey: content}, nil
}

// credentials returns those in a Secret.
func credentials(secret *corev1.Secret) (registries, error) {
	var (
		found registries
		err   error
	)
	switch secret.Type {
	case corev1.SecretTypeDockerConfigJson:
		config := struct {
			Auths registries `json:"auths"`
		}{}
		err = json.Unmarshal(secret.Data[corev1.DockerConfigJsonKey], &config)
		found = config.Auths
	case corev1.SecretTypeDockercfg:
		err = json.Unmarshal(secret.Data[corev1.DockerConfigKey], &found)
	default:
		return nil, fmt.Errorf("the Secret %s is of type %s, not %s: create it with kubectl create secret docker-registry", secret.Name, secret.Type, corev1.SecretTypeDockerConfigJson)
	}
	if err != nil {
		// The error of the decoder could quote what is secret.
		return nil, fmt.Errorf("the Secret %s does not contain JSON as its type %s demands: create it with kubectl create secret docker-registry", secret.Name, secret.Type)
	}
	return found, nil
}
