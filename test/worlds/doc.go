// Package worlds starts the two worlds that the syncer stands between, for tests: one super cluster and any number of
// tenants, each a real kube-apiserver with its own certificates, keys and service range on one shared real etcd. There
// are no nodes, so nothing runs; tests play the kubelet and the scheduler by writing status. It is called by the tests
// of vc-manager, vc-syncer and vn-agent, never by production code.
//
// The servers are child processes that die with the test process, can be paused, killed and started again at the same
// address; docs/adr/0002-two-world-tests-run-real-binaries.md says why they are not in this process.
package worlds
