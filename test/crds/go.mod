// Package-less module that pins the projects whose CustomResourceDefinitions tests install. Nothing of them is linked.
module github.com/virtualcluster-io/virtualcluster/test/crds

go 1.26.0

require (
	github.com/kubernetes-csi/external-snapshotter/client/v8 v8.6.0
	github.com/prometheus-operator/prometheus-operator v0.85.0
	sigs.k8s.io/gateway-api v1.5.1
)
