package restore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"dupfs/chain"
)

// dir is an open directory of the target. The walk and each task in it hold a
// reference; the last one to let go sets its attributes and closes it, so that
// they are those of the archive whatever was made in it.
type dir struct {
	fd   int
	node chain.Node
	path chain.Path
	keep bool // neither set nor close: it is not ours
	refs atomic.Int32
}

// release lets go of d.
func (r *run) release(d *dir) {
	if d.refs.Add(-1) > 0 || d.keep {
		return
	}
	if known(&d.node.Entry) {
		r.attrs(d.path, r.setAttrs(fdHandle(d.fd), &d.node.Entry))
	}
	unix.Close(d.fd)
	r.dirs.Add(1)
	r.o.Progress.Entries.Add(1)
}

// known reports whether an archive says anything of a directory's attributes.
// It may not have the member of the root.
func known(e *chain.Entry) bool {
	return e.Mode != 0 || e.Mtime != chain.Time{} || e.User != "" || e.UID != 0
}

const (
	dirFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC
	// newDirMode is the mode of a directory while it is filled.
	newDirMode = 0o700
)

// openParent opens a directory for what is made in it, and makes it and its
// parents if need be. Symlinks on the way are the caller's.
func openParent(path string) (int, error) {
	if err := os.MkdirAll(path, 0o777); err != nil {
		return -1, err
	}
	fd, err := unix.Open(path, dirFlags, 0)
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

// openTarget opens or makes the target directory. Without force it must be
// empty; with force a file in its place goes.
func openTarget(path string, force bool) (int, error) {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return -1, err
	case !st.IsDir() && !force:
		return -1, fmt.Errorf("%s: %w", path, ErrExists)
	case !st.IsDir():
		if err := os.Remove(path); err != nil {
			return -1, err
		}
	}
	fd, err := openParent(path)
	if err != nil {
		return fd, err
	}
	if force {
		letWrite(fd)
		return fd, nil
	}
	if err := checkEmpty(fd); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("%s: %w", path, err)
	}
	return fd, nil
}

// checkEmpty returns ErrExists if a directory holds anything.
func checkEmpty(fd int) error {
	dup, err := unix.Openat(fd, ".", dirFlags, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(dup), ".")
	defer f.Close()
	switch _, err := f.Readdirnames(1); err {
	case io.EOF:
		return nil
	case nil:
		return ErrExists
	default:
		return err
	}
}

// makeDir makes the directory name in parent and opens it. One that is there is
// taken with force only, and anything else there is replaced then.
func makeDir(parent int, name string, force bool) (int, error) {
	err := unix.Mkdirat(parent, name, newDirMode)
	if errors.Is(err, unix.EEXIST) && force {
		fd, err := takeDir(parent, name)
		if !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP) {
			return fd, wrap("open directory", err)
		}
		if err := unix.Unlinkat(parent, name, 0); err != nil {
			return -1, wrap("remove", err)
		}
		err = unix.Mkdirat(parent, name, newDirMode)
		if err != nil {
			return -1, wrap("make directory", err)
		}
	} else if err != nil {
		return -1, wrap("make directory", exists(err))
	}
	fd, err := unix.Openat(parent, name, dirFlags|unix.O_NOFOLLOW, 0)
	return fd, wrap("open directory", err)
}

// takeDir opens a directory that was there before, and makes sure that its
// owner can write to it; its mode is set when it is done.
func takeDir(parent int, name string) (int, error) {
	fd, err := unix.Openat(parent, name, dirFlags|unix.O_NOFOLLOW, 0)
	if errors.Is(err, unix.EACCES) {
		if chmodAt(parent, name, newDirMode, unix.O_DIRECTORY) != nil {
			return -1, err
		}
		fd, err = unix.Openat(parent, name, dirFlags|unix.O_NOFOLLOW, 0)
	}
	if err != nil {
		return -1, err
	}
	letWrite(fd)
	return fd, nil
}

// letWrite lets the owner of an open directory write to it.
func letWrite(fd int) {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) == nil && st.Mode&newDirMode != newDirMode {
		// In vain if it is another's; then making entries in it fails and says so.
		_ = unix.Fchmod(fd, uint32(st.Mode)&0o7777|newDirMode)
	}
}

// exists makes EEXIST an ErrExists.
func exists(err error) error {
	if errors.Is(err, unix.EEXIST) {
		return ErrExists
	}
	return err
}

// wrap says what was tried.
func wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", op, err)
}
