# VirtualCluster: build, test, and run it on a local cluster. Everything made here is below _local.
include hack/versions.mk

SHELL         := /bin/bash
.SHELLFLAGS   := -euo pipefail -c
.DEFAULT_GOAL := help
# Compilers fill the machine: one thing after the other.
.NOTPARALLEL:

# Name of the local cluster, unique on the machine.
export CLUSTER ?= super

LOCAL  := $(CURDIR)/_local
BIN    := $(LOCAL)/bin
IMAGES := $(LOCAL)/images

export PATH := $(BIN):$(PATH)
export CGO_ENABLED ?= 0

KUBERNETES_VERSION = $(shell go list -m -f '{{.Version}}' k8s.io/kubernetes)
VERSION            = $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS            = -s -w
OWN                = $(patsubst %/main.go,./%,$(wildcard cmd/*/main.go)) ./test/supercluster/programs/...
# Packages with tests that need nothing but Go.
UNIT               = $(shell go list ./... | grep -vE '/test/(worlds|e2e|operators)')

##@ Use

.PHONY: help
help: ## Show this help
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

.PHONY: up
up: ## Everything: packages, build, super cluster, VirtualCluster, two tenants; again is harmless
	@hack/up

.PHONY: super
super: build images ## Only the super cluster, without VirtualCluster
	@$(BIN)/supercluster up --dir _local/$(CLUSTER)

.PHONY: down
down: $(BIN)/supercluster ## Remove all that runs, and its files
	@$(BIN)/supercluster down --dir _local/$(CLUSTER)
	@rm -rf $(LOCAL)/tenants $(LOCAL)/logs $(IMAGES)

##@ Build

.PHONY: build
build: third-party own ## Build everything from source into _local/bin

.PHONY: own
own: ## Build only our own commands
	@echo "Building our own commands"
	@go build -trimpath -ldflags "$(LDFLAGS) -X k8s.io/component-base/version.gitVersion=$(VERSION)" -o $(BIN)/.own/ $(OWN)
	@# A program that is the same keeps its time, so that its image is not built again.
	@for new in $(BIN)/.own/*; do \
		old=$(BIN)/$${new##*/}; if ! cmp -s $$new $$old; then mv $$new $$old; fi; done
	@rm -rf $(BIN)/.own

$(BIN)/supercluster:
	@go build -trimpath -o $(BIN)/ ./cmd/supercluster

.PHONY: images
images: ## Build the archives of all container images whose binaries have changed
	@$(BIN)/supercluster images

.PHONY: conformance-images
conformance-images: packages build $(BIN)/.e2e-images-$(KUBERNETES_VERSION) $(BIN)/.busybox-$(BUSYBOX_VERSION) ## Build stand-ins for the images of the conformance suite
	@$(BIN)/supercluster images --from test/conformance/images/images.yaml --out $(IMAGES)/conformance

.PHONY: operator-images
operator-images: packages build $(addprefix $(BIN)/operators/.,programs prometheus-operator prometheus) ## Build the images that the operators' tests use
	@$(BIN)/supercluster images --from test/operators/images.yaml --out $(IMAGES)/operators

# Programs of others. A stamp carries the version, so that a new version is built and the same one is not.
THIRD_PARTY = kubernetes-$(KUBERNETES_VERSION) etcd containerd-$(CONTAINERD_VERSION) coredns-$(COREDNS_VERSION) \
	helm-$(HELM_VERSION) local-path-provisioner-$(LOCAL_PATH_VERSION) kube-log-runner-$(KUBERNETES_VERSION)

.PHONY: third-party
third-party: $(THIRD_PARTY:%=$(BIN)/.%)

# Without the linker flags components would call themselves v0.0.0-master.
kubernetes-flag = -X k8s.io/component-base/version.$(1)
kubernetes-flags = -s -w $(call kubernetes-flag,gitVersion=$*) $(call kubernetes-flag,gitTreeState=clean) \
	$(call kubernetes-flag,gitMajor=$(word 1,$(subst ., ,$(*:v%=%)))) $(call kubernetes-flag,gitMinor=$(word 2,$(subst ., ,$*)))
$(BIN)/.kubernetes-%:
	@echo "Building Kubernetes $* (some minutes the first time)"
	@go build -trimpath -o $(BIN)/ -ldflags "$(kubernetes-flags)" \
		$(addprefix k8s.io/kubernetes/cmd/,kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl)
	@touch $@

# The program /go-runner of upstream's images.
$(BIN)/.kube-log-runner-%:
	@go build -trimpath -ldflags "-s -w" -o $(BIN)/ k8s.io/component-base/logs/kube-log-runner
	@touch $@

# Control planes that are older and newer than the super cluster, each from a module of its own; their minors are folders.
SKEW = $(foreach module,$(wildcard test/kubernetes/v*),$(shell go list -C $(module) -m -f '{{.Version}}' k8s.io/kubernetes))

.PHONY: control-planes
control-planes: $(SKEW:%=$(BIN)/.control-plane-%) ## Build the API servers and controllers of other Kubernetes versions

$(BIN)/.control-plane-%:
	@echo "Building a control plane of Kubernetes $* (some minutes the first time)"
	@go build -C test/kubernetes/$(basename $*) -trimpath -o $(BIN)/kubernetes-$(patsubst v%,%,$(basename $*))/ \
		-ldflags "$(kubernetes-flags)" tool
	@touch $@

# The suite needs modules that Kubernetes itself does not, so it has a module of its own.
$(BIN)/.e2e-suite-%: test/conformance/suite/go.mod
	@echo "Building the end-to-end suite of Kubernetes $* (some minutes the first time)"
	@go test -C test/conformance/suite -c -trimpath -o $(BIN)/e2e.test -ldflags "$(kubernetes-flags)" k8s.io/kubernetes/test/e2e
	@go build -C test/conformance/suite -trimpath -o $(BIN)/ginkgo -ldflags "-s -w" github.com/onsi/ginkgo/v2/ginkgo
	@touch $@

# The server's module has replace directives, so it cannot be installed by version.
$(BIN)/.etcd: test/etcd/go.mod
	@echo "Building etcd"
	@go build -C test/etcd -trimpath -ldflags "-s -w" -o $(BIN)/etcd go.etcd.io/etcd/server/v3
	@go build -C test/etcd -trimpath -ldflags "-s -w" -o $(BIN)/etcdctl go.etcd.io/etcd/etcdctl/v3
	@touch $@

install = GOBIN=$(BIN) go install -trimpath -ldflags "-s -w"

$(BIN)/.containerd-%:
	@echo "Building containerd $*"
	@for command in containerd containerd-shim-runc-v2 ctr; do \
		$(install) github.com/containerd/containerd/v2/cmd/$$command@$*; done
	@touch $@

$(BIN)/.coredns-%:
	@echo "Building CoreDNS $*"
	@$(install) github.com/coredns/coredns@$*
	@touch $@

$(BIN)/.helm-%:
	@echo "Building Helm $*"
	@$(install) helm.sh/helm/v3/cmd/helm@$*
	@touch $@

$(BIN)/.local-path-provisioner-%:
	@echo "Building local-path-provisioner $*"
	@$(install) github.com/rancher/local-path-provisioner@$*
	@touch $@

$(BIN)/.metrics-server-%:
	@echo "Building metrics-server $*"
	@$(install) sigs.k8s.io/metrics-server/cmd/metrics-server@$*
	@touch $@

$(BIN)/.kwok-%:
	@echo "Building kwok $*"
	@$(install) sigs.k8s.io/kwok/cmd/kwok@$*
	@touch $@

# Programs and files of the conformance suite's images; the module has what Kubernetes itself does not need.
$(BIN)/.e2e-images-%: test/conformance/images/go.mod
	@echo "Building programs of the conformance suite's images"
	@mkdir -p $(BIN)/e2e
	@go build -C test/conformance/images -trimpath -ldflags "-s -w" -o $(BIN)/e2e/ tool
	@source=$$(go list -m -f '{{.Dir}}' k8s.io/kubernetes)/test/images; \
		install -D -m 0644 -t $(BIN)/e2e/kitten $$source/kitten/html/*; \
		install -D -m 0644 -t $(BIN)/e2e/nautilus $$source/nautilus/html/*; \
		install -D -m 0644 -t $(BIN)/e2e/porter $$source/agnhost/porter/localhost.*
	@touch $@

$(BIN)/.busybox-%:
	@echo "Building busybox $* (some minutes)"
	@test/conformance/images/build-busybox $* $(LOCAL)/busybox $(BIN)/e2e/busybox >$(LOCAL)/busybox.log 2>&1 || { tail -n 20 $(LOCAL)/busybox.log; exit 1; }
	@touch $@

# Operators of others, in modules that differ where they need other versions of the same libraries. The tags leave of
# Prometheus's many ways to find targets only Kubernetes.
$(BIN)/operators/.%: test/operators/%/go.mod
	@echo "Building $* of the operators' tests (some minutes the first time)"
	@mkdir -p $(@D)
	@go build -C test/operators/$* -trimpath -ldflags "-s -w" -tags remove_all_sd,enable_kubernetes_sd -o $(@D)/ tool
	@touch $@

$(BIN)/.golangci-lint-%:
	@echo "Building golangci-lint $*"
	@$(install) github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$*
	@touch $@

$(BIN)/.controller-gen-%:
	@echo "Building controller-gen $*"
	@$(install) sigs.k8s.io/controller-tools/cmd/controller-gen@$*
	@touch $@

$(BIN)/.crd-ref-docs-%:
	@echo "Building crd-ref-docs $*"
	@$(install) github.com/elastic/crd-ref-docs@$*
	@touch $@

##@ Check

.PHONY: test
test: unit worlds e2e ## All tests: unit, two-world and end-to-end

.PHONY: packages
packages:
	@hack/install-packages

.PHONY: unit
unit: packages $(BIN)/.helm-$(HELM_VERSION) ## Tests that need nothing but Go
	@hack/gotest $(UNIT)
	@cd test/monitoring && go test -count=1 ./...

FUZZTIME ?= 1m

.PHONY: fuzz
fuzz: ## Try translations with objects of any content, each test for FUZZTIME
	@for package in $$(grep -rlE '^func Fuzz' --include=*_test.go syncer | xargs -n 1 dirname | sort -u); do \
		for test in $$(grep -hoE '^func Fuzz[A-Za-z0-9]*' $$package/*_test.go | cut -d ' ' -f 2); do \
			go test -run '^$$' -fuzz "^$$test$$" -fuzztime $(FUZZTIME) ./$$package || exit; \
		done; \
	done

.PHONY: worlds
worlds: packages third-party control-planes ## Two-world tests: real API servers, no nodes
	@hack/gotest -p 1 -timeout 25m ./test/worlds/...

.PHONY: e2e-images
e2e-images: $(BIN)/supercluster $(BIN)/.metrics-server-$(METRICS_SERVER_VERSION)
	@$(BIN)/supercluster images --from test/e2e/images.yaml --out $(IMAGES)/e2e

.PHONY: e2e
e2e: up e2e-images ## End-to-end tests on the local super cluster
	@$(BIN)/supercluster load --dir _local/$(CLUSTER) $(IMAGES)/e2e/*.tar
	@hack/gotest -timeout 40m ./test/e2e/...

.PHONY: operators
operators: up operator-images ## Run well-known operators in both tenants
	@$(BIN)/supercluster load --dir _local/$(CLUSTER) $(IMAGES)/operators/*.tar
	@hack/gotest -timeout 30m ./test/operators/...

.PHONY: bench
bench: up ## Measure, and write the figures into docs/performance.md
	@go run ./test/bench -write

# FLAGS for instance: -write, --quick, --restart-pods 2000, --syncer PATH --syncer PATH.
.PHONY: scale
scale: third-party $(BIN)/.kwok-$(KWOK_VERSION) ## Measure vc-syncer under load against real API servers (FLAGS)
	@go run ./test/scale $(FLAGS)

# FLAGS for instance: -write, --quick, --only ranges, --only collisions.
.PHONY: addresses
addresses: third-party ## Measure what tenants' ranges of cluster IPs cost, and how often addresses are taken (FLAGS)
	@go run ./test/addresses $(FLAGS)

DURATION ?= 15m

# FLAGS for instance: -race, -tenants 3, -replay FILE. It is not run by go run, which would leave it alone when told to stop.
.PHONY: chaos
chaos: third-party $(BIN)/.kwok-$(KWOK_VERSION) ## Let everything around vc-syncer fail under load, and compare both sides (SEED, DURATION, FLAGS)
	@go build -trimpath -o $(LOCAL)/chaos/chaos ./test/chaos
	@exec $(LOCAL)/chaos/chaos -duration $(DURATION) $(if $(SEED),-seed $(SEED)) $(FLAGS)

.PHONY: conformance-suite
conformance-suite: $(BIN)/.e2e-suite-$(KUBERNETES_VERSION)

# A cluster of its own, unless one is named.
.PHONY: conformance
conformance: export CLUSTER := $(if $(filter file,$(origin CLUSTER)),conform,$(CLUSTER))
conformance: packages build images conformance-images conformance-suite ## Kubernetes' conformance tests, on the bare cluster and in two tenants at once (RUNS, FOCUS, SKIP, PROCS)
	@hack/conformance

.PHONY: lint
lint: $(BIN)/.golangci-lint-$(GOLANGCI_LINT_VERSION) $(BIN)/.helm-$(HELM_VERSION) ## Lint Go code and the chart
	@golangci-lint run
	@cd test/monitoring && golangci-lint run --config $(CURDIR)/.golangci.yml
	@helm lint --quiet charts/virtualcluster

.PHONY: generate
generate: $(BIN)/.controller-gen-$(CONTROLLER_GEN_VERSION) $(BIN)/.crd-ref-docs-$(CRD_REF_DOCS_VERSION) ## Regenerate deep copies, CRDs, roles and reference pages
	@go run ./hack/kinds api/v1alpha1/zz_generated.kinds.go
	@controller-gen object paths=./api/... crd output:crd:dir=config/crd
	@cp config/crd/*.yaml charts/virtualcluster/crds/
	@controller-gen rbac:roleName=vc-manager paths=./controllers/... output:rbac:dir=config/rbac/vc-manager
	@controller-gen rbac:roleName=vc-syncer paths=./syncer/... output:rbac:dir=config/rbac/vc-syncer
	@cp config/rbac/vc-syncer/role.yaml charts/virtualcluster/vc-syncer-rights.yaml
	@crd-ref-docs --source-path=api/v1alpha1 --config=hack/docs/reference.yaml --templates-dir=hack/docs --renderer=markdown \
		--output-path=docs/reference.md --log-level=ERROR
	@go run ./hack/docs docs/compatibility.md
	@go run -C test/monitoring . $(CURDIR)/charts/virtualcluster/dashboards

.PHONY: verify
verify: generate ## Fail when generated files are not those committed
	@go mod tidy -diff
	@changes=$$(git status --porcelain -- api config charts docs/reference.md docs/compatibility.md); \
		if [[ -n $$changes ]]; then echo "Generated files differ; run make generate and commit:"; echo "$$changes"; exit 1; fi

.PHONY: clean
clean: down ## Remove _local: binaries, too
	@rm -rf $(LOCAL)
