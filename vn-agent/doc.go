// Package vnagent answers the kubelet API on one node on behalf of the virtual nodes of all tenants, so that logs, exec,
// attach and port-forward work from a tenant's control plane. It is a proxy with an identity check in front: it never
// talks to the kubelet or the container runtime, only to the super kube-apiserver, about exactly one pod at a time that
// was proven to be the tenant's and on this node. The vn-agent command runs it; nothing else imports it.
package vnagent
