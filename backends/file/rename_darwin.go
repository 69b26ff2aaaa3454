package file

import "golang.org/x/sys/unix"

// renameExclusive renames only onto a free name; false if the file system
// cannot.
func renameExclusive(from, to string) (able bool, err error) {
	err = unix.RenamexNp(from, to, unix.RENAME_EXCL)
	return err != unix.EINVAL && err != unix.ENOTSUP, err
}
