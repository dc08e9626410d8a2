// Package vnagent answers the kubelet API on one node on behalf of the virtual nodes of all tenants, so that logs, exec,
// attach, port-forward and metrics work from a tenant's control plane. It is a proxy with an identity check in front: it
// asks the super kube-apiserver about exactly one pod at a time that was proven to be the tenant's and on this node, and
// the kubelet only for measurements, of which package stats leaves the tenant's part. It never talks to the container
// runtime. The vn-agent command runs it; nothing else imports it.
package vnagent
