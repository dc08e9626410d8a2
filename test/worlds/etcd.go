package worlds

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

// etcd is a member that stores one world, or all of them.
type etcd struct {
	// dir is for its log, data for what it stores.
	binary, dir, data string
	client            int
	// endpoint is its client URL, which stays the same when it is restored.
	endpoint string

	mu      sync.Mutex
	process *process
}

// newEtcd returns one that keeps its log in a directory, and its data in a directory in the second one. It does not run yet.
func newEtcd(binary, dir, data string) *etcd {
	return &etcd{binary: binary, dir: dir, data: filepath.Join(data, "etcd")}
}

// start starts it at a free port.
func (e *etcd) start(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := os.MkdirAll(e.dir, 0o700); err != nil {
		return fmt.Errorf("creating a directory for etcd: %w", err)
	}
	for {
		var err error
		if e.client, err = FreePort(ctx); err != nil {
			return err
		}
		e.endpoint = fmt.Sprintf("http://127.0.0.1:%d", e.client)
		err = e.serve(ctx)
		if errors.Is(err, errPortTaken) {
			continue
		}
		return err
	}
}

// serve starts it at its port, with the data that is there. The caller holds e.mu.
func (e *etcd) serve(ctx context.Context) error {
	peer, err := FreePort(ctx)
	if err != nil {
		return err
	}
	e.process, err = startProcess(filepath.Join(e.dir, "etcd.log"), e.binary,
		"--name=worlds",
		"--data-dir="+e.data,
		"--listen-client-urls="+e.endpoint,
		"--advertise-client-urls="+e.endpoint,
		"--listen-peer-urls="+fmt.Sprintf("http://127.0.0.1:%d", peer),
		// Nothing has to survive a power cut; syncing to disk would dominate the time of every write.
		"--unsafe-no-fsync",
		"--log-level=warn",
	)
	if err != nil {
		return fmt.Errorf("starting etcd: %w", err)
	}
	err = e.process.awaitReady(ctx, func(ctx context.Context) error { return httpOK(ctx, e.endpoint+"/health") })
	if err != nil {
		e.process.kill()
		return fmt.Errorf("starting etcd: %w", err)
	}
	return nil
}

// while runs f while it is down.
func (e *etcd) while(ctx context.Context, f func() error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.process.terminate(ctx)
	if err := f(); err != nil {
		return err
	}
	return e.serve(ctx)
}

func (e *etcd) signal(sig syscall.Signal) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.process.signal(sig)
}

// kill ends it, if it runs.
func (e *etcd) kill() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.process != nil {
		e.process.kill()
	}
}

// Backup copies the data of the world, which has an etcd of its own, into a new directory below that of the worlds, and
// returns it. The world is away for a moment.
func (w *World) Backup(ctx context.Context) (string, error) {
	backup, err := os.MkdirTemp(w.dir, "backup-")
	if err != nil {
		return "", fmt.Errorf("creating a directory for a backup: %w", err)
	}
	err = w.etcd.while(ctx, func() error { return os.CopyFS(backup, os.DirFS(w.etcd.data)) })
	if err != nil {
		return "", fmt.Errorf("backing up %s: %w", w.Name, err)
	}
	return backup, nil
}

// Restore puts a Backup back, as after a disaster.
func (w *World) Restore(ctx context.Context, backup string) error {
	err := w.Replace(ctx, func(data string) error {
		if err := os.RemoveAll(data); err != nil {
			return fmt.Errorf("removing the data: %w", err)
		}
		return os.CopyFS(data, os.DirFS(backup))
	})
	if err != nil {
		return fmt.Errorf("restoring %s: %w", w.Name, err)
	}
	return nil
}

// Replace calls f with the directory of the data of the world, which has an etcd of its own, while nothing of it runs. An etcd
// that finds no data begins with none. Then kube-apiserver starts again, and so does kube-controller-manager, whose watches would
// wait for resource versions of the past.
func (w *World) Replace(ctx context.Context, f func(data string) error) error {
	w.Kill()
	if err := w.etcd.while(ctx, func() error { return f(w.etcd.data) }); err != nil {
		return err
	}
	if err := w.Restart(ctx); err != nil || len(w.running) == 0 {
		return err
	}
	return w.StartControllers(ctx, w.running...)
}

// KillEtcd ends the world's own etcd at once. StartEtcd starts it again.
func (w *World) KillEtcd() { w.etcd.kill() }

// StartEtcd starts the world's own etcd again, with the data that is there, unless it runs.
func (w *World) StartEtcd(ctx context.Context) error {
	w.etcd.mu.Lock()
	defer w.etcd.mu.Unlock()
	select {
	case <-w.etcd.process.done:
		return w.etcd.serve(ctx)
	default:
		return nil
	}
}

// PauseEtcd stops the world's own etcd where it is, as Pause does kube-apiserver.
func (w *World) PauseEtcd() error { return w.etcd.signal(syscall.SIGSTOP) }

// ResumeEtcd ends a PauseEtcd.
func (w *World) ResumeEtcd() error { return w.etcd.signal(syscall.SIGCONT) }
