// Package stats reduces what a kubelet measures to what one tenant may see: its own pods, by the names that it knows, and
// node totals made of nothing else. It is pure: it neither asks a kubelet nor finds out whose a pod is. vn-agent does
// both and calls it.
package stats

import (
	"maps"
	"slices"
)

// Pod names a pod of the super cluster.
type Pod struct {
	Namespace, Name string
}

// Identity is what the tenant knows a pod by.
type Identity struct {
	// Namespace and UID of the tenant's pod; its name is that of the super pod.
	Namespace, UID string
	// SuperUID is the UID of the super pod.
	SuperUID string
}

// Owned holds the pods of one tenant.
type Owned map[Pod]Identity

// Measured is an answer of a kubelet.
type Measured interface {
	// Namespaces of all pods in it.
	Namespaces() []string
	// Pods of a namespace in it, with their UIDs if the answer tells these.
	Pods(namespace string) map[Pod]string
	// For returns what the tenant gets, given its pods and what its node totals are to be reckoned with.
	For(owned Owned, account *Account) ([]byte, error)
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
