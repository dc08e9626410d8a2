// Command registry is what nodes of the local cluster pull images from. It parses flags and runs test/supercluster/registry.
package main

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/virtualcluster-io/virtualcluster/test/supercluster/registry"
)

func main() {
	var r registry.Registry
	listen := flag.String("listen", "", "address and port")
	flag.StringVar(&r.Images, "images", "", "file with the digest of each image")
	flag.StringVar(&r.Blobs, "blobs", "", "folder of containerd with a file for each digest")
	flag.Parse()
	server := http.Server{Addr: *listen, Handler: r, ReadHeaderTimeout: 10 * time.Second}
	fmt.Fprintln(os.Stderr, "Error:", server.ListenAndServe())
	os.Exit(1)
}
