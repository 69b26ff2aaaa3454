package restore

import (
	"errors"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What Linux does in its own way.

// procPath is a path of what fd is open on, without following anything.
func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// chmodAt sets the mode of a name that may be unreadable; flags are further ones
// of open.
func chmodAt(dir int, name string, mode uint32, flags int) error {
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC|flags, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Chmod(procPath(fd), mode)
}

// futimes sets the modification time of what is open, and leaves the access
// time.
func futimes(fd int, mtime unix.Timespec) error {
	ts := [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, mtime}
	// utimensat without a path is futimens; unix does not offer that.
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&ts)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// utimesAt is futimes for a name.
func utimesAt(dir int, name string, mtime unix.Timespec) error {
	ts := [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, mtime}
	return unix.UtimesNanoAt(dir, name, ts[:], unix.AT_SYMLINK_NOFOLLOW)
}

func mknodAt(dir int, name string, mode uint32, dev int) error {
	return unix.Mknodat(dir, name, mode, dev)
}

// renameExclusive renames to a name that nothing has, else it is EEXIST; false
// if the file system cannot.
func renameExclusive(dir int, from, to string) (able bool, err error) {
	err = unix.Renameat2(dir, from, dir, to, unix.RENAME_NOREPLACE)
	return !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS), err
}

// realPath returns the path of what is there, without symbolic links.
func realPath(target string) (string, error) {
	fd, err := unix.Open(target, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: target, Err: err}
	}
	defer unix.Close(fd)
	return os.Readlink(procPath(fd))
}

// syncFS writes the file system that fd is open on to its disk.
func syncFS(fd int) error { return unix.Syncfs(fd) }

// beginWriting sends a range of an open file on its way to the disk, without
// waiting for it.
func beginWriting(fd int, off, n int64) {
	_ = unix.SyncFileRange(fd, off, n, unix.SYNC_FILE_RANGE_WRITE)
}
