package supercluster

import (
	"path/filepath"
	"strconv"
)

// The control plane's processes run in a network namespace of their own, so that their ports never meet the machine's.

func (c *Cluster) etcd() component {
	return component{
		name: "etcd", netns: c.controlPlaneNetns(), path: c.program("etcd"),
		args: []string{
			"--name=default",
			"--data-dir=" + c.Dir + "/etcd",
			"--listen-client-urls=https://127.0.0.1:2379",
			"--advertise-client-urls=https://127.0.0.1:2379",
			"--listen-peer-urls=http://127.0.0.1:2380",
			"--initial-advertise-peer-urls=http://127.0.0.1:2380",
			"--initial-cluster=default=http://127.0.0.1:2380",
			"--client-cert-auth",
			"--trusted-ca-file=" + c.pki(etcdCA+".crt"),
			"--cert-file=" + c.pki("etcd.crt"),
			"--key-file=" + c.pki("etcd.key"),
			// A crash of the machine may lose the cluster; that of a process does not.
			"--unsafe-no-fsync",
			"--auto-compaction-retention=5m",
			"--quota-backend-bytes=" + strconv.Itoa(8<<30),
			"--log-level=warn",
		},
		inputs: []string{c.pki("etcd.crt")},
	}
}

func (c *Cluster) apiServer() component {
	return component{
		name: "kube-apiserver", netns: c.controlPlaneNetns(), path: c.program("kube-apiserver"),
		args: []string{
			"--bind-address=0.0.0.0",
			"--advertise-address=" + c.controlPlaneIP().String(),
			"--secure-port=" + strconv.Itoa(apiServerPort),
			"--etcd-servers=https://127.0.0.1:2379",
			"--etcd-cafile=" + c.pki(etcdCA+".crt"),
			"--etcd-certfile=" + c.pki("apiserver-etcd-client.crt"),
			"--etcd-keyfile=" + c.pki("apiserver-etcd-client.key"),
			"--client-ca-file=" + c.pki(clusterCA+".crt"),
			"--tls-cert-file=" + c.pki("apiserver.crt"),
			"--tls-private-key-file=" + c.pki("apiserver.key"),
			"--kubelet-certificate-authority=" + c.pki(clusterCA+".crt"),
			"--kubelet-client-certificate=" + c.pki("apiserver-kubelet-client.crt"),
			"--kubelet-client-key=" + c.pki("apiserver-kubelet-client.key"),
			"--kubelet-preferred-address-types=InternalIP",
			"--requestheader-client-ca-file=" + c.pki(frontProxyCA+".crt"),
			"--requestheader-allowed-names=front-proxy-client",
			"--requestheader-username-headers=X-Remote-User",
			"--requestheader-group-headers=X-Remote-Group",
			"--requestheader-extra-headers-prefix=X-Remote-Extra-",
			"--proxy-client-cert-file=" + c.pki("front-proxy-client.crt"),
			"--proxy-client-key-file=" + c.pki("front-proxy-client.key"),
			// There is no kube-proxy here: webhooks and aggregated APIs are called at their pods.
			"--enable-aggregator-routing",
			"--service-account-issuer=https://kubernetes.default.svc." + clusterDomain,
			"--service-account-signing-key-file=" + c.pki("sa.key"),
			"--service-account-key-file=" + c.pki("sa.pub"),
			"--service-cluster-ip-range=" + serviceRange,
			"--authorization-mode=Node,RBAC",
			"--enable-admission-plugins=NodeRestriction",
			"--allow-privileged",
			"--profiling=false",
		},
		inputs: []string{c.pki("apiserver.crt"), c.pki("apiserver-etcd-client.crt"), c.pki("sa.key")},
	}
}

func (c *Cluster) controllerManager() component {
	kubeconfig := c.kubeconfig("kube-controller-manager")
	return component{
		name: "kube-controller-manager", netns: c.controlPlaneNetns(), path: c.program("kube-controller-manager"),
		args: append(c.controlPlaneClient(kubeconfig),
			"--use-service-account-credentials",
			"--service-account-private-key-file="+c.pki("sa.key"),
			"--root-ca-file="+c.pki(clusterCA+".crt"),
			"--cluster-signing-cert-file="+c.pki(clusterCA+".crt"),
			"--cluster-signing-key-file="+c.pki(clusterCA+".key"),
			"--controllers=*",
		),
		inputs: []string{kubeconfig, c.pki("sa.key"), c.pki(clusterCA + ".crt"), c.pki("control-plane.crt")},
	}
}

func (c *Cluster) scheduler() component {
	kubeconfig := c.kubeconfig("kube-scheduler")
	return component{
		name: "kube-scheduler", netns: c.controlPlaneNetns(), path: c.program("kube-scheduler"),
		args:   c.controlPlaneClient(kubeconfig),
		inputs: []string{kubeconfig, c.pki("control-plane.crt")},
	}
}

// registry serves what was loaded into the first node; every node gets the same.
func (c *Cluster) registry() component {
	return component{
		name: "registry", netns: c.controlPlaneNetns(), path: c.program("registry"),
		args: []string{
			"--listen=" + c.registryAddress(),
			"--images=" + c.loadedFile(),
			"--blobs=" + filepath.Join(c.nodes()[0].data, "lib", "containerd", "io.containerd.content.v1.content", "blobs"),
		},
	}
}

// controlPlaneClient are the flags that the controller manager and the scheduler share.
func (c *Cluster) controlPlaneClient(kubeconfig string) []string {
	return []string{
		"--kubeconfig=" + kubeconfig,
		"--authentication-kubeconfig=" + kubeconfig,
		"--authorization-kubeconfig=" + kubeconfig,
		"--bind-address=" + c.controlPlaneIP().String(),
		"--tls-cert-file=" + c.pki("control-plane.crt"),
		"--tls-private-key-file=" + c.pki("control-plane.key"),
		"--client-ca-file=" + c.pki(clusterCA+".crt"),
		"--requestheader-client-ca-file=" + c.pki(frontProxyCA+".crt"),
		// Alone, and quick to work again after a restart.
		"--leader-elect=false",
		"--profiling=false",
	}
}
