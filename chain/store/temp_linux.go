package store

import "golang.org/x/sys/unix"

// nameless asks open for a file without a name.
const nameless = unix.O_TMPFILE
