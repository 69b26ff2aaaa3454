//go:build !linux

package rclone

import "syscall"

// childAttr is for a child that does not get our signals. That our sudden death
// ends it is more than this system can do.
func childAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
