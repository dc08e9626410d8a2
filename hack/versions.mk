# Versions of everything that is built from source besides our own code. Kubernetes and etcd are pinned where Go reads
# them: go.mod and test/etcd/go.mod.
CONTAINERD_VERSION     := v2.4.2
COREDNS_VERSION        := v1.14.6
HELM_VERSION           := v3.22.0
LOCAL_PATH_VERSION     := v0.0.30
METRICS_SERVER_VERSION := v0.9.0
KWOK_VERSION           := v0.8.0
BUSYBOX_VERSION        := 1.37.0
GOLANGCI_LINT_VERSION  := v2.15.0
CONTROLLER_GEN_VERSION := v0.21.0
CRD_REF_DOCS_VERSION   := v0.3.0
