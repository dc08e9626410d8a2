// Package cli is kubectl-vc, the kubectl plugin by which people create, look at, enter and delete VirtualClusters. It
// only reads and writes the API of the super cluster: whatever it can do, kubectl can do too. The kubectl-vc command runs
// it; nothing else imports it.
package cli
