package restore

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"dupfs/chain"
)

// handle is something whose attributes can be set: open, or by its name in a
// directory, if it cannot be opened.
type handle struct {
	fd   int    // -1: by name
	dir  int    // open directory
	name string // in dir
	link bool   // it is a symlink, which has no mode of its own
}

// fdHandle is the handle of an open file or directory.
func fdHandle(fd int) handle { return handle{fd: fd, dir: -1} }

// setAttrs sets owner, extended attributes, mode and times, in the order in
// which none spoils another: a change of owner clears setuid bits and
// capabilities, user attributes need write permission, and all of them may
// touch times. It returns what could not be set.
func (r *run) setAttrs(h handle, e *chain.Entry) []*AttrError {
	var errs []*AttrError
	note := func(attr string, err error) {
		if err != nil {
			errs = append(errs, &AttrError{attr, err})
		}
	}
	if !r.o.NoOwner {
		note("owner", h.chown(r.owners.of(e)))
	}
	for _, x := range e.Xattrs {
		note("attribute "+x.Name, h.setxattr(x))
	}
	if !h.link {
		mode, err := r.safeMode(h, e)
		note("mode", err)
		note("mode", h.chmod(mode))
	}
	note("times", h.setTimes(e.Mtime))
	return errs
}

// safeMode returns the mode of e, without the bits that would let a program
// run as another owner than it had, and an error if that takes any away.
func (r *run) safeMode(h handle, e *chain.Entry) (uint32, error) {
	mode := e.Mode & 0o7777
	if e.Type == chain.Dir || mode&(unix.S_ISUID|unix.S_ISGID) == 0 {
		return mode, nil
	}
	var st unix.Stat_t
	if err := h.stat(&st); err != nil {
		return mode &^ (unix.S_ISUID | unix.S_ISGID), err
	}
	uid, gid := r.owners.of(e)
	if st.Uid != uid {
		mode &^= unix.S_ISUID
	}
	if st.Gid != gid {
		mode &^= unix.S_ISGID
	}
	if mode != e.Mode&0o7777 {
		return mode, errors.New("setuid and setgid left out, as the owner is another")
	}
	return mode, nil
}

// chown sets owner and group; if both are refused, the group alone.
func (h handle) chown(uid, gid uint32) error {
	if int32(uid) == -1 || int32(gid) == -1 {
		return fmt.Errorf("no such number: %d:%d", uid, gid)
	}
	err := h.lchown(int(uid), int(gid))
	if errors.Is(err, unix.EPERM) {
		_ = h.lchown(-1, int(gid)) // err says it already
	}
	return err
}

// lchown sets owner and group but for -1.
func (h handle) lchown(uid, gid int) error {
	if h.fd >= 0 {
		return unix.Fchown(h.fd, uid, gid)
	}
	return unix.Fchownat(h.dir, h.name, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
}

// stat reads its attributes.
func (h handle) stat(st *unix.Stat_t) error {
	if h.fd >= 0 {
		return unix.Fstat(h.fd, st)
	}
	return unix.Fstatat(h.dir, h.name, st, unix.AT_SYMLINK_NOFOLLOW)
}

// setxattr sets an extended attribute.
func (h handle) setxattr(x chain.Xattr) error {
	if h.fd >= 0 {
		return unix.Fsetxattr(h.fd, x.Name, x.Value, 0)
	}
	return unix.Lsetxattr(procPath(h.dir)+"/"+h.name, x.Name, x.Value, 0)
}

// chmod sets the mode.
func (h handle) chmod(mode uint32) error {
	if h.fd >= 0 {
		return unix.Fchmod(h.fd, mode)
	}
	return chmodAt(h.dir, h.name, mode, 0)
}

// setTimes sets the modification time, and leaves the access time.
func (h handle) setTimes(t chain.Time) error {
	mtime := unix.Timespec{Sec: t.Sec, Nsec: int64(t.Nsec)}
	if h.fd < 0 {
		return utimesAt(h.dir, h.name, mtime)
	}
	return futimes(h.fd, mtime)
}
