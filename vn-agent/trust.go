package vnagent

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/go-logr/logr"
)

// reloading is a value parsed from files that may change while the process runs. The files are read whenever the value
// is needed: they are small, and nothing can then be missed or come late. A new content that is broken is logged and the
// last good value stays in use.
type reloading[T any] struct {
	paths  []string
	parse  func(contents [][]byte) (T, error)
	logger logr.Logger

	mu       sync.Mutex
	contents [][]byte
	value    T
}

// load reads the files for the first time, when broken content is an error.
func (r *reloading[T]) load() error {
	contents, err := r.read()
	if err != nil {
		return err
	}
	value, err := r.parse(contents)
	if err != nil {
		return fmt.Errorf("parsing %v: %w", r.paths, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.contents, r.value = contents, value
	return nil
}

func (r *reloading[T]) read() ([][]byte, error) {
	contents := make([][]byte, 0, len(r.paths))
	for _, path := range r.paths {
		content, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		contents = append(contents, content)
	}
	return contents, nil
}

// get returns the current value.
func (r *reloading[T]) get() T {
	contents, err := r.read()
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.logger.Error(err, "Reading failed, the last good content stays in use")
		return r.value
	}
	for i := range contents {
		if !bytes.Equal(contents[i], r.contents[i]) {
			r.replace(contents)
			break
		}
	}
	return r.value
}

// replace parses new contents. It remembers broken ones too, so that they are reported once.
func (r *reloading[T]) replace(contents [][]byte) {
	r.contents = contents
	value, err := r.parse(contents)
	if err != nil {
		r.logger.Error(err, "Parsing failed, the last good content stays in use", "paths", r.paths)
		return
	}
	r.value = value
	r.logger.Info("Reloaded", "paths", r.paths)
}

// clientCAs returns the pool of the CAs that may vouch for tenants.
func clientCAs(path string, logger logr.Logger) (*reloading[*x509.CertPool], error) {
	if path == "" {
		return nil, errors.New("a client CA is required: without it anybody could be any tenant")
	}
	pool := &reloading[*x509.CertPool]{paths: []string{path}, logger: logger, parse: func(contents [][]byte) (*x509.CertPool, error) {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(contents[0]) {
			return nil, errors.New("no certificate in it")
		}
		return pool, nil
	}}
	if err := pool.load(); err != nil {
		return nil, fmt.Errorf("loading the client CA: %w", err)
	}
	return pool, nil
}

// servingFiles returns the serving certificate kept in two files.
func servingFiles(certFile, keyFile string, logger logr.Logger) (func() *tls.Certificate, error) {
	pair := &reloading[*tls.Certificate]{paths: []string{certFile, keyFile}, logger: logger, parse: func(contents [][]byte) (*tls.Certificate, error) {
		certificate, err := tls.X509KeyPair(contents[0], contents[1])
		return &certificate, err
	}}
	if err := pair.load(); err != nil {
		return nil, fmt.Errorf("loading the serving certificate: %w", err)
	}
	return pair.get, nil
}
