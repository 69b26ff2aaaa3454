// Package scratch makes temporary directories that the next process removes if
// the one that made them was killed.
package scratch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Dir is a temporary directory. It is locked for as long as its process lives:
// who can lock it knows that it is left over.
type Dir struct {
	Path string
	lock *os.File
}

// mark is in the names of directories that are locked: others, such as those of
// a version that did not lock them, are not judged.
const mark = "held-"

// New makes a directory in parent, "" being the system's for temporary files,
// whose name begins with prefix, and removes those that killed processes of this
// user have made so and left.
func New(parent, prefix string) (*Dir, error) {
	if parent == "" {
		parent = os.TempDir()
	}
	prefix += mark
	sweep(parent, prefix)
	for range 100 {
		path, err := os.MkdirTemp(parent, prefix)
		if err != nil {
			return nil, err
		}
		f, err := open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // swept before it could be locked
		}
		if err != nil {
			return nil, errors.Join(err, os.Remove(path))
		}
		// Where nothing can be locked nobody can sweep either.
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if _, gone := os.Lstat(path); gone == nil && !errors.Is(err, unix.EWOULDBLOCK) {
			return &Dir{path, f}, nil
		}
		f.Close()
	}
	return nil, fmt.Errorf("no temporary directory can be made in %s", parent)
}

// Close removes the directory and all that is in it.
func (d *Dir) Close() error { return errors.Join(os.RemoveAll(d.Path), d.lock.Close()) }

func open(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
}

// sweep removes what is left over. What cannot be removed stays.
func sweep(parent, prefix string) {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return
	}
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), prefix) {
			removeDead(filepath.Join(parent, e.Name()))
		}
	}
}

func removeDead(path string) {
	f, err := open(path)
	if err != nil {
		return
	}
	defer f.Close()
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil || int(st.Uid) != os.Geteuid() {
		return
	}
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
		_ = os.RemoveAll(path)
	}
}
