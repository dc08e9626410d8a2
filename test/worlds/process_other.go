//go:build unix && !linux

package worlds

import "syscall"

// childAttributes leave the child in our process group: without Linux's parent-death signal, that is what makes an
// interrupt typed at the terminal end it.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{}
}
