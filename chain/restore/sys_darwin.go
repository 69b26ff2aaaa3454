package restore

import (
	"bytes"
	"errors"
	"path/filepath"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What macOS does in its own way.

// procPath is the path of what fd is open on, "" if it has none any more.
func procPath(fd int) string {
	var buf [unix.PathMax]byte
	_, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), unix.F_GETPATH, uintptr(unsafe.Pointer(&buf[0])))
	if errno != 0 {
		return ""
	}
	name, _, _ := bytes.Cut(buf[:], []byte{0})
	return string(name)
}

// chmodAt sets the mode of a name that may be unreadable.
func chmodAt(dir int, name string, mode uint32, _ int) error {
	return unix.Fchmodat(dir, name, mode, unix.AT_SYMLINK_NOFOLLOW)
}

// futimes sets the modification time of what is open, and leaves the access
// time.
func futimes(fd int, mtime unix.Timespec) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, procPath(fd), []unix.Timespec{st.Atim, mtime}, 0)
}

// utimesAt is futimes for a name.
func utimesAt(dir int, name string, mtime unix.Timespec) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	return unix.UtimesNanoAt(dir, name, []unix.Timespec{st.Atim, mtime}, unix.AT_SYMLINK_NOFOLLOW)
}

// mknodAt makes a node by the path of the directory, as there is no call that
// takes an open one.
func mknodAt(dir int, name string, mode uint32, dev int) error {
	path := procPath(dir) + "/" + name
	if mode&unix.S_IFMT == unix.S_IFIFO {
		return unix.Mkfifo(path, mode&0o7777)
	}
	return unix.Mknod(path, mode, dev)
}

// renameExclusive renames to a name that nothing has, else it is EEXIST; false
// if the file system cannot.
func renameExclusive(dir int, from, to string) (able bool, err error) {
	err = unix.RenameatxNp(dir, from, dir, to, unix.RENAME_EXCL)
	return !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTSUP), err
}

// realPath returns the path of what is there, without symbolic links.
func realPath(target string) (string, error) {
	abs, err := filepath.Abs(target)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(abs)
}

// syncFS writes all file systems to their disks; there is no call for one.
func syncFS(int) error {
	unix.Sync()
	return nil
}

// beginWriting does nothing: there is no such call.
func beginWriting(int, int64, int64) {}
