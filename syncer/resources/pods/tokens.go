package pods

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtualcluster-io/virtualcluster/internal/names"
	"github.com/virtualcluster-io/virtualcluster/syncer/resource"
)

// defaultExpiration is the lifetime of a token whose pod asks for none, in seconds.
const defaultExpiration = 3600

// Kinds that pods refer to in a way of their own.
const (
	kindTokens   = "tokens"
	kindAccounts = "serviceaccounts"
)

// checkMinted is when a pod is looked at again after its tokens were made: how long they last is known then.
const checkMinted = time.Minute

// oldToken is the age at which a token is renewed however long it lasts, as the kubelet does.
const oldToken = 24 * time.Hour

// TokenSecret returns the name of the Secret in the super namespace that holds the service account tokens of a tenant's
// pod. It depends on the pod's UID, so that no pod sees those of its predecessor.
func TokenSecret(pod *corev1.Pod) string {
	return "token-" + names.Hash("token", string(pod.UID))
}

// tokenKey names a token by its place among the volumes.
func tokenKey(volume, source int) string {
	return fmt.Sprintf("%d-%d", volume, source)
}

// Modes of the file of a token.
const (
	modeOwner    = 0o600 // the kubelet makes it readable for the fsGroup
	modeReadable = 0o444
)

// mountTokens puts keys of the token Secret where the tenant asks for tokens.
func (t *translation) mountTokens(dst, src *corev1.PodSpec) {
	mode := tokenMode(src)
	for i := range src.Volumes {
		if src.Volumes[i].Projected == nil {
			continue
		}
		for j := range src.Volumes[i].Projected.Sources {
			if token := src.Volumes[i].Projected.Sources[j].ServiceAccountToken; token != nil {
				dst.Volumes[i].Projected.Sources[j].Secret = &corev1.SecretProjection{
					LocalObjectReference: corev1.LocalObjectReference{Name: TokenSecret(t.pod)},
					Items:                []corev1.KeyToPath{{Key: tokenKey(i, j), Path: token.Path, Mode: clone(mode)}},
				}
			}
		}
	}
}

// tokenMode returns the mode of the files of tokens, nil for that of their volume. A kubelet gives a token to the fsGroup or,
// without one, to the user that all containers share, and to nobody else. Files of Secrets belong to root, so a token that is
// for another user alone has to be readable by all users of the pod.
func tokenMode(pod *corev1.PodSpec) *int32 {
	user, shared := sharedUser(pod)
	mode := int32(modeOwner)
	switch {
	case pod.SecurityContext != nil && pod.SecurityContext.FSGroup != nil, shared && user == 0:
		return &mode
	case shared:
		mode = modeReadable
		return &mode
	default:
		return nil
	}
}

// sharedUser returns the user that the pod's spec gives to all containers, false if there is no such user.
func sharedUser(pod *corev1.PodSpec) (int64, bool) {
	var shared *int64
	for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
		user := runAsUser(pod, &c)
		if user == nil || shared != nil && *user != *shared {
			return 0, false
		}
		shared = user
	}
	if shared == nil {
		return 0, false
	}
	return *shared, true
}

// tokens lists the tokens that a tenant's pod asks for.
func tokens(pod *corev1.Pod) []resource.Token {
	account := pod.Spec.ServiceAccountName
	if account == "" {
		account = defaultServiceAccount
	}
	var out []resource.Token
	for i, volume := range pod.Spec.Volumes {
		if volume.Projected == nil {
			continue
		}
		for j, source := range volume.Projected.Sources {
			if source.ServiceAccountToken == nil {
				continue
			}
			token := resource.Token{
				Key: tokenKey(i, j), ServiceAccount: account, Audience: source.ServiceAccountToken.Audience,
				ExpirationSeconds: defaultExpiration, PodName: pod.Name, PodUID: pod.UID, Namespace: pod.Namespace,
			}
			if seconds := source.ServiceAccountToken.ExpirationSeconds; seconds != nil {
				token.ExpirationSeconds = *seconds
			}
			out = append(out, token)
		}
	}
	return out
}

// renew returns the operation that gives a pod that exists its tokens, and new ones in time. They name the node that the pod
// is bound to (KEP-4193), so a pod gets them when it has one: the kubelet waits for the Secret.
func renew(v resource.View, tenant, super *corev1.Pod) ([]resource.Op, error) {
	if over(tenant, super) || super.Spec.NodeName == "" {
		return nil, nil
	}
	return mint(v, tenant)
}

// prepare returns the operation that makes the tokens of a pod that comes with a node before its replica. Of a pod without
// one it tells whose choice the node is.
func prepare(v resource.View, tenant *corev1.Pod) ([]resource.Op, error) {
	if tenant.Spec.NodeName == "" {
		return ignored(v, tenant), nil
	}
	return mint(v, tenant)
}

// mint returns the operation that makes the Secret with the pod's tokens, or puts new ones into it, if that is needed.
func mint(v resource.View, tenant *corev1.Pod) ([]resource.Op, error) {
	wanted := tokens(tenant)
	if len(wanted) == 0 {
		return nil, nil
	}
	ref := resource.Ref{Kind: kindTokens, Namespace: tenant.Namespace, Name: TokenSecret(tenant)}
	existing, _ := v.Get(resource.Super, ref).(*corev1.Secret)
	why := resource.Missing
	if existing != nil {
		switch {
		case existing.Annotations[names.AnnotationUID] != string(tenant.UID):
			why = resource.Replaced
		default:
			if due := renewal(existing); v.Now.Before(due) {
				v.LookAgain(due)
				return nil, nil
			}
			why = resource.Expiring
		}
	}
	v.LookAgain(v.Now.Add(checkMinted))
	return []resource.Op{{Side: resource.Super, Verb: resource.Mint, Tokens: wanted, Why: why, Object: &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Name:      ref.Name,
			Namespace: names.SuperNamespace(v.Tenant.ID, tenant.Namespace),
			Labels: map[string]string{
				names.LabelTenant:    string(v.Tenant.ID),
				names.LabelManagedBy: names.Syncer,
				names.LabelToken:     "true",
			},
			Annotations: map[string]string{
				names.AnnotationNamespace: tenant.Namespace,
				names.AnnotationPod:       tenant.Name,
				names.AnnotationUID:       string(tenant.UID),
			},
		},
		Type: corev1.SecretTypeOpaque,
	}}}, nil
}

// renewal returns when it is time for new tokens: after four fifths of their life, or a day. It is long ago when the Secret does
// not tell.
func renewal(secret *corev1.Secret) time.Time {
	issued, err := time.Parse(time.RFC3339, secret.Annotations[names.AnnotationTokenIssued])
	if err != nil {
		return time.Time{}
	}
	expiry, err := time.Parse(time.RFC3339, secret.Annotations[names.AnnotationTokenExpiry])
	if err != nil {
		return time.Time{}
	}
	return issued.Add(min(expiry.Sub(issued)*4/5, oldToken))
}
