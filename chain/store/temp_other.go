//go:build !linux

package store

// nameless: this system has no files without a name.
const nameless = 0
