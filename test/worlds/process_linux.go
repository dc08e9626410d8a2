package worlds

import "syscall"

// childAttributes give the child its own process group, so that an interrupt typed at the terminal reaches only us,
// and have the kernel kill it when we die.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
