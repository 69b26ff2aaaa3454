package main

import "golang.org/x/sys/unix"

// dup makes to another number of what from is.
func dup(from, to int) error { return unix.Dup2(from, to) }

// setLock sets a lock of the process: this system has none of open files.
const setLock = unix.F_SETLK
