package fusefs

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// ours reports whether it is a mount of dupfs, which is known by its source.
func (m mountInfo) ours() bool { return strings.HasPrefix(m.fstype, "macfuse "+subtype) }

// mounts returns the kernel's table. It touches no mount.
func mounts() ([]mountInfo, error) {
	n, err := unix.Getfsstat(nil, unix.MNT_NOWAIT)
	if err != nil {
		return nil, err
	}
	buf := make([]unix.Statfs_t, n+8)
	if n, err = unix.Getfsstat(buf, unix.MNT_NOWAIT); err != nil {
		return nil, err
	}
	var all []mountInfo
	for _, s := range buf[:n] {
		all = append(all, mountInfo{
			dev: fmt.Sprint(s.Fsid.Val), dir: unix.ByteSliceToString(s.Mntonname[:]),
			fstype: unix.ByteSliceToString(s.Fstypename[:]) + " " + unix.ByteSliceToString(s.Mntfromname[:]),
		})
	}
	return all, nil
}

// mountAt returns the mount that is on top at dir, an absolute path without
// symbolic links.
func mountAt(dir string) (m mountInfo, ok bool, err error) {
	all, err := mounts()
	for _, x := range all {
		if x.dir == dir {
			m, ok = x, true
		}
	}
	return m, ok, err
}

// mounted reports whether that file system is mounted anywhere.
func mounted(dev string) (bool, error) {
	all, err := mounts()
	for _, x := range all {
		if x.dev == dev {
			return true, nil
		}
	}
	return false, err
}
