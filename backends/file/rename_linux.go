package file

import "golang.org/x/sys/unix"

// renameExclusive renames only onto a free name; false if the file system
// cannot.
func renameExclusive(from, to string) (able bool, err error) {
	err = unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	return err != unix.EINVAL && err != unix.ENOSYS && err != unix.EOPNOTSUPP, err
}
