package rclone

import "syscall"

// childAttr is for a child that our death ends, even a sudden one, and that
// does not get our signals.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
}
