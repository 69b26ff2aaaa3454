package main

import "golang.org/x/sys/unix"

// dup makes to another number of what from is.
func dup(from, to int) error { return unix.Dup3(from, to, 0) }

// setLock is how a lock is set that belongs to the open file, not the process.
const setLock = unix.F_OFD_SETLK
