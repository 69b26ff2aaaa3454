package restore

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"dupfs/chain"
)

// onDisk is a file that is to be compared.
type onDisk struct {
	dir  int // open directory
	name string
	typ  chain.Type // 0 for a socket, which archives do not have
	st   unix.Stat_t
	err  error // it is there, but says no more
}

// statAt looks at name in dir, and returns nil if it is not there.
func statAt(dir int, name string) *onDisk {
	d := &onDisk{dir: dir, name: name}
	err := unix.Fstatat(dir, name, &d.st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR):
		return nil
	case err != nil:
		d.err = wrap("stat", err)
	}
	switch d.st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		d.typ = chain.File
	case unix.S_IFDIR:
		d.typ = chain.Dir
	case unix.S_IFLNK:
		d.typ = chain.Symlink
	case unix.S_IFIFO:
		d.typ = chain.Fifo
	case unix.S_IFCHR:
		d.typ = chain.CharDevice
	case unix.S_IFBLK:
		d.typ = chain.BlockDevice
	}
	return d
}

// comparison fills in how n and d differ, but for content, for which it opens
// the file. The words, and what is compared for which type, are duplicity's:
// for a symlink the target alone.
func (v *verify) comparison(c *check, n *chain.Node, d *onDisk) {
	switch {
	case n == nil:
		c.text = "New file " + c.shown.String()
		return
	case d == nil:
		c.text = fmt.Sprintf("File %s is missing", c.shown)
		return
	case d.err != nil:
		c.err = d.err
		return
	case n.Type != d.typ:
		c.text = fmt.Sprintf("File %s has type %s, expected %s", c.shown, typeWord(d.typ), typeWord(n.Type))
		return
	case n.Type == chain.Symlink:
		c.text, c.err = linkText(c.shown, n, d)
		return
	}
	if c.text = v.attrText(c.shown, n, d); c.text != "" || n.Type != chain.File {
		return
	}
	if n.Size >= 0 && n.Size != d.st.Size {
		c.text = differentData(c.shown)
		return
	}
	fd, err := unix.Openat(d.dir, d.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		c.err = wrap("open", err)
		return
	}
	c.file = os.NewFile(uintptr(fd), d.name)
}

// differentData says that contents differ.
func differentData(path chain.Path) string { return fmt.Sprintf("Data for file %s is different", path) }

// linkText compares the targets of symlinks.
func linkText(path chain.Path, n *chain.Node, d *onDisk) (string, error) {
	buf := make([]byte, unix.PathMax)
	k, err := unix.Readlinkat(d.dir, d.name, buf)
	if err != nil {
		return "", wrap("read symlink", err)
	}
	if got := string(buf[:k]); got != n.Link {
		return fmt.Sprintf("Symlink %s points to %s, expected %s", path, got, n.Link), nil
	}
	return "", nil
}

// attrText compares mode and owner, times, device numbers and extended
// attributes.
func (v *verify) attrText(path chain.Path, n *chain.Node, d *onDisk) string {
	uid, gid := v.owners.of(&n.Entry)
	mode := uint32(d.st.Mode) & 0o7777
	if mode != n.Mode&0o7777 || d.st.Uid != uid || d.st.Gid != gid {
		return fmt.Sprintf("File %s has permissions %d:%d %o, expected %d:%d %o",
			path, d.st.Uid, d.st.Gid, mode, uid, gid, n.Mode&0o7777)
	}
	if n.Type == chain.CharDevice || n.Type == chain.BlockDevice {
		major, minor := unix.Major(uint64(d.st.Rdev)), unix.Minor(uint64(d.st.Rdev))
		if major != n.Major || minor != n.Minor {
			return fmt.Sprintf("Device file %s has numbers (%d, %d), expected (%d, %d)", path, major, minor, n.Major, n.Minor)
		}
		return xattrText(path, n, d)
	}
	if sec := d.st.Mtim.Sec; sec != n.Mtime.Sec && (n.Mtime != chain.Time{} || sec > 0) {
		// duplicity stores times before 1970 as 0.
		return fmt.Sprintf("File %s has mtime %s, expected %s", path, v.pretty(sec), v.pretty(n.Mtime.Sec))
	}
	return xattrText(path, n, d)
}

// pretty formats seconds as duplicity does.
func (v *verify) pretty(sec int64) string {
	return time.Unix(sec, 0).In(v.o.Location).Format(time.ANSIC)
}

// xattrText compares the extended attributes that the archive has.
func xattrText(path chain.Path, n *chain.Node, d *onDisk) string {
	if len(n.Xattrs) == 0 {
		return ""
	}
	file := d.name
	if d.dir != unix.AT_FDCWD {
		file = procPath(d.dir) + "/" + d.name
	}
	buf := make([]byte, 64<<10)
	for _, x := range n.Xattrs {
		k, err := unix.Lgetxattr(file, x.Name, buf)
		if err != nil {
			return fmt.Sprintf("File %s has no attribute %s: %v", path, x.Name, err)
		}
		if !bytes.Equal(buf[:k], x.Value) {
			return fmt.Sprintf("File %s has another attribute %s", path, x.Name)
		}
	}
	return ""
}

// typeWord is duplicity's word for a type.
func typeWord(t chain.Type) string {
	switch t {
	case chain.File:
		return "reg"
	case chain.Dir:
		return "dir"
	case chain.Symlink:
		return "sym"
	case chain.Fifo:
		return "fifo"
	case chain.CharDevice:
		return "chr"
	case chain.BlockDevice:
		return "blk"
	}
	return "sock"
}
