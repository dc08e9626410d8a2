// Package supercluster runs a real Kubernetes cluster on one Linux machine for development and tests: etcd, a control
// plane and any number of nodes, each node a network namespace with its own containerd, kubelet and kube-proxy.
//
// It is an orchestrator of ordinary binaries, not a Kubernetes distribution: it writes certificates and configuration,
// starts processes, and finds them again by a mark in their environment, so that no record can become stale. Every step
// looks at what is there and does what is missing; running Up again is how a damaged cluster is repaired.
//
// cmd/supercluster is its only caller.
package supercluster
