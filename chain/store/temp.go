package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// TempFile returns a new file in dir, "" being the system's directory for
// temporary files. It has no name, so that it is gone when it is closed, or
// the process dies.
func TempFile(dir string) (*os.File, error) {
	if dir == "" {
		dir = os.TempDir()
	}
	if nameless == 0 {
		return namedTemp(dir)
	}
	for {
		fd, err := unix.Open(dir, nameless|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), dir+"/(temporary)"), nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EISDIR), errors.Is(err, unix.EINVAL):
			return namedTemp(dir)
		default:
			return nil, fmt.Errorf("temporary file: %w", &fs.PathError{Op: "open", Path: dir, Err: err})
		}
	}
}

// namedTemp is TempFile where the file system has no files without a name. A
// process that dies at the wrong moment leaves an empty file.
func namedTemp(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "dupfs-*")
	if err != nil {
		return nil, fmt.Errorf("temporary file: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, fmt.Errorf("temporary file: %w", err)
	}
	return f, nil
}
