package fusefs

import (
	"time"

	"dupfs/chain"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// longTime is how long the kernel may keep what never changes: every name and
// attribute within a point.
const longTime = 24 * time.Hour

// shortTime is how long it may keep what can change when points come and go.
const shortTime = time.Second

// blockSize is the block of statfs and the preferred size of reads in stat.
const blockSize = 4096

// format returns the bits of st_mode that say the type.
func format(t chain.Type) uint32 {
	switch t {
	case chain.Dir:
		return unix.S_IFDIR
	case chain.Symlink:
		return unix.S_IFLNK
	case chain.Fifo:
		return unix.S_IFIFO
	case chain.CharDevice:
		return unix.S_IFCHR
	case chain.BlockDevice:
		return unix.S_IFBLK
	}
	return unix.S_IFREG
}

// setAttr fills a with what the archive knows of n. There is no record of
// times of access and of change, so these are the time of modification.
func (f *fileSystem) setAttr(a *fuse.Attr, id uint64, n *chain.Node) {
	a.Ino = id
	a.Mode = format(n.Type) | n.Mode&07777&^f.opts.Umask
	a.Nlink = max(n.Nlink, 1)
	a.Owner = fuse.Owner{Uid: n.UID, Gid: n.GID}
	if f.opts.Owner != nil {
		a.Owner.Uid, a.Owner.Gid = f.opts.Owner(&n.Entry)
	}
	a.Blksize = blockSize
	a.Size, a.Blocks, a.Rdev = 0, 0, 0
	switch n.Type {
	case chain.File:
		// A file that is damaged beyond knowing its size can be seen but not
		// opened. It is not shown as empty: of an empty file programs make a
		// copy without opening it.
		a.Size = 1
		if n.Size >= 0 {
			a.Size = uint64(n.Size)
		}
		a.Blocks = blocks(&n.Entry)
	case chain.Symlink:
		a.Size = uint64(len(n.Link))
	case chain.CharDevice, chain.BlockDevice:
		a.Rdev = rdev(n.Major, n.Minor)
	}
	setTime(a, n.Mtime)
}

func setTime(a *fuse.Attr, t chain.Time) {
	sec, nsec := uint64(t.Sec), uint32(t.Nsec)
	a.Atime, a.Mtime, a.Ctime = sec, sec, sec
	a.Atimensec, a.Mtimensec, a.Ctimensec = nsec, nsec, nsec
}

// blocks returns the blocks of 512 bytes that the data of a File takes.
func blocks(e *chain.Entry) uint64 {
	n := max(e.Size, 0)
	if e.Data != nil {
		n = 0
		for _, x := range e.Data {
			n += x.Len
		}
	}
	return (uint64(n) + 511) / 512
}

// rdev is a device number in the kernel's 32-bit form.
func rdev(major, minor uint32) uint32 {
	return minor&0xff | major<<8 | minor&^0xff<<12
}

// setEntry fills out with n, which never changes within its point.
func (f *fileSystem) setEntry(out *fuse.EntryOut, point uint32, n *chain.Node) error {
	id, err := nodeID(point, n)
	if err != nil {
		return err
	}
	f.setAttr(&out.Attr, id, n)
	out.NodeId = id
	out.SetEntryTimeout(longTime)
	out.SetAttrTimeout(longTime)
	if len(n.Xattrs) == 0 && isDir(id) {
		f.bare.add(id)
	}
	return nil
}
