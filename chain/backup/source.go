package backup

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"dupfs/chain"
)

// directory is an open directory of the source. It is closed when the last
// holder lets it go: the walk, and each file below that waits to be read.
type directory struct {
	f    *os.File
	refs atomic.Int32
}

// hold keeps d open. A nil d, of an entry that no file system has, needs nothing.
func (d *directory) hold() {
	if d != nil {
		d.refs.Add(1)
	}
}

// release closes d if nobody else holds it. Nothing was written, so that the
// error of closing says nothing.
func (d *directory) release() {
	if d != nil && d.refs.Add(-1) == 0 {
		d.f.Close()
	}
}

func (d *directory) fd() int { return int(d.f.Fd()) }

// source is an entry as the source's file system has it.
type source struct {
	chain.Entry
	statSize int64 // st_size of any type, for the statistics
	blocks   int64 // of 512 bytes
	nlink    uint64
	dev, ino uint64
	ctime    int64 // nanoseconds since 1970
	dir      *directory
	name     string // to open it in dir; "" for the root, which dir is, or holds alone
	follow   bool   // name is a link: what it leads to is stored
	xattrs   bool   // Xattrs were read
	version  uint64 // of a file of an archive; dir is nil then
}

// openDir opens a directory below parent, or, with parent nil, any path. The
// last part of it may be a link if follow says so.
func openDir(parent *directory, name string, follow bool) (*directory, error) {
	flags := unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC
	at := unix.AT_FDCWD
	if !follow {
		flags |= unix.O_NOFOLLOW
	}
	if parent != nil {
		at = parent.fd()
	}
	fd, err := retry(func() (int, error) { return unix.Openat(at, name, flags, 0) })
	if err != nil {
		return nil, err
	}
	d := &directory{f: os.NewFile(uintptr(fd), name)}
	d.hold()
	return d, nil
}

// names returns the names in d, sorted as bytes.
func (d *directory) names() ([]string, error) {
	names, err := d.f.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	return names, nil
}

// lstat returns what the file system says of name.
func (d *directory) lstat(name string) (st unix.Stat_t, err error) {
	_, err = retry(func() (int, error) {
		return 0, unix.Fstatat(d.fd(), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	})
	return st, err
}

// stat returns what the file system says of what name leads to.
func (d *directory) stat(name string) (st unix.Stat_t, err error) {
	_, err = retry(func() (int, error) { return 0, unix.Fstatat(d.fd(), name, &st, 0) })
	return st, err
}

// holds reports whether an entry name exists in the directory child of d.
func (d *directory) holds(child, name string) bool {
	_, err := d.lstat(child + "/" + name)
	return err == nil
}

// openFile opens a file for reading without waiting for fifos and without
// following links, unless the link is what is stored. The root has no name: it
// is open already.
func (s *source) openFile() (*os.File, error) {
	if s.name == "" {
		fd, err := unix.FcntlInt(s.dir.f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		f := os.NewFile(uintptr(fd), s.dir.f.Name())
		_, err = f.Seek(0, io.SeekStart)
		return f, err
	}
	flags := unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	if s.follow {
		flags &^= unix.O_NOFOLLOW
	}
	fd, err := retry(func() (int, error) { return unix.Openat(s.dir.fd(), s.name, flags, 0) })
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), string(s.Path)), nil
}

// retry calls fn until it is not interrupted by a signal.
func retry(fn func() (int, error)) (int, error) {
	for {
		n, err := fn()
		if err != unix.EINTR {
			return n, err
		}
	}
}

// typeOf returns the type of an entry, 0 for those never stored.
func typeOf(mode uint32) chain.Type {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return chain.File
	case unix.S_IFDIR:
		return chain.Dir
	case unix.S_IFLNK:
		return chain.Symlink
	case unix.S_IFIFO:
		return chain.Fifo
	case unix.S_IFCHR:
		return chain.CharDevice
	case unix.S_IFBLK:
		return chain.BlockDevice
	}
	return 0
}

// set fills s with what the file system says, except for link targets, names
// of owners, xattrs and the link group.
func (s *source) set(st *unix.Stat_t) {
	s.Type = typeOf(uint32(st.Mode))
	s.Mode = uint32(st.Mode) & 0o7777
	s.UID, s.GID = st.Uid, st.Gid
	s.Mtime = chain.Time{Sec: int64(st.Mtim.Sec), Nsec: int32(st.Mtim.Nsec)}
	s.statSize, s.blocks = st.Size, st.Blocks
	s.nlink = uint64(st.Nlink)
	s.dev, s.ino = uint64(st.Dev), st.Ino
	s.ctime = int64(st.Ctim.Sec)*1e9 + int64(st.Ctim.Nsec)
	s.Size, s.Major, s.Minor = 0, 0, 0
	switch s.Type {
	case chain.File:
		s.Size = st.Size
	case chain.CharDevice, chain.BlockDevice:
		s.Major, s.Minor = unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev))
	}
}

// readlink returns the target of a symlink.
func (d *directory) readlink(name string) (string, error) {
	for size := 256; ; size *= 2 {
		buf := make([]byte, size)
		n, err := retry(func() (int, error) { return unix.Readlinkat(d.fd(), name, buf) })
		if err != nil {
			return "", err
		}
		if n < size {
			return string(buf[:n]), nil
		}
	}
}

// linkGroup returns the number that all names of an inode have in common, on
// every run: fsid names the file system.
func linkGroup(fsid, ino uint64) uint64 {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], fsid)
	binary.BigEndian.PutUint64(b[8:], ino)
	sum := sha256.Sum256(b[:])
	return max(binary.BigEndian.Uint64(sum[:]), 1)
}

// maxXattrs bounds the names and each value of an entry's xattrs; the kernel
// allows 64 KiB for either.
const maxXattrs = 64 << 10

// loadXattrs reads the extended attributes that a backup keeps. The system has
// no call for an entry of an open directory, so that the path goes through
// /proc, which takes names of any depth and follows no link; where /proc is
// missing it is the path below src.
func (s *source) loadXattrs(src string, root bool) error {
	if s.xattrs {
		return nil
	}
	path := "/proc/self/fd/" + strconv.Itoa(s.dir.fd())
	if src != "" {
		path = src + "/" + string(s.Path.Parent())
	}
	list, get := unix.Listxattr, unix.Getxattr
	if s.name != "" {
		path += "/" + s.name
		if !s.follow {
			list, get = unix.Llistxattr, unix.Lgetxattr
		}
	}
	var err error
	s.Xattrs, err = xattrs(root,
		func(b []byte) (int, error) { return list(path, b) },
		func(name string, b []byte) (int, error) { return get(path, name, b) })
	s.xattrs = err == nil
	return err
}

// fileXattrs reads the extended attributes of an open file.
func fileXattrs(f *os.File, root bool) ([]chain.Xattr, error) {
	fd := int(f.Fd())
	return xattrs(root,
		func(b []byte) (int, error) { return unix.Flistxattr(fd, b) },
		func(name string, b []byte) (int, error) { return unix.Fgetxattr(fd, name, b) })
}

// xattrs returns the attributes worth keeping, sorted by name.
func xattrs(root bool, list func([]byte) (int, error), get func(string, []byte) (int, error)) ([]chain.Xattr, error) {
	var small [512]byte
	names, err := grow(small[:], list)
	switch {
	case errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.EPERM):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("list of xattrs: %w", err)
	}
	var kept []chain.Xattr
	for name := range strings.SplitSeq(string(names), "\x00") {
		if !wanted(name, root) {
			continue
		}
		value, err := grow(small[:], func(b []byte) (int, error) { return get(name, b) })
		switch {
		case errors.Is(err, unix.ENODATA): // gone since it was listed
			continue
		case errors.Is(err, unix.ENOTSUP):
			continue
		case err != nil:
			return nil, fmt.Errorf("xattr %s: %w", name, err)
		}
		kept = append(kept, chain.Xattr{Name: name, Value: slices.Clone(value)})
	}
	slices.SortFunc(kept, func(a, b chain.Xattr) int { return strings.Compare(a.Name, b.Name) })
	return kept, nil
}

// wanted reports whether an xattr is kept: what users and administrators set,
// not what the system makes up.
func wanted(name string, root bool) bool {
	switch name {
	case "security.capability", "system.posix_acl_access", "system.posix_acl_default":
		return true
	}
	return strings.HasPrefix(name, "user.") || root && strings.HasPrefix(name, "trusted.") &&
		!strings.HasPrefix(name, "trusted.overlay.")
}

// grow calls fn with larger buffers until the answer fits.
func grow(buf []byte, fn func([]byte) (int, error)) ([]byte, error) {
	for {
		n, err := retry(func() (int, error) { return fn(buf) })
		switch {
		case err == nil:
			return buf[:n], nil
		case errors.Is(err, unix.ERANGE) && len(buf) < maxXattrs:
			buf = make([]byte, min(8*len(buf), maxXattrs))
		default:
			return nil, err
		}
	}
}

// maxExtents bounds the map of a sparse file; with more the file counts as
// not sparse.
const maxExtents = 32 << 10

// dataMap returns the map of a sparse file of size bytes; nil if it has no
// holes, too many, or the file system does not tell.
func dataMap(f *os.File, size int64) []chain.Extent {
	data := []chain.Extent{}
	for off := int64(0); off < size; {
		start, err := f.Seek(off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		if err != nil || len(data) == maxExtents {
			return nil
		}
		if start >= size {
			break
		}
		end, err := f.Seek(start, unix.SEEK_HOLE)
		if err != nil || end <= start {
			return nil
		}
		end = min(end, size)
		data = append(data, chain.Extent{Off: start, Len: end - start})
		off = end
	}
	if len(data) == 1 && data[0] == (chain.Extent{Off: 0, Len: size}) || size == 0 {
		return nil
	}
	return data
}

// sparseReader reads the extents of a sparse file and zeros between them, so
// that what is read always agrees with the map.
type sparseReader struct {
	f    io.ReaderAt
	data []chain.Extent
	off  int64
	size int64
}

func (r *sparseReader) Read(p []byte) (int, error) {
	if r.off >= r.size {
		return 0, io.EOF
	}
	for len(r.data) > 0 && r.data[0].Off+r.data[0].Len <= r.off {
		r.data = r.data[1:]
	}
	end, hole := r.size, true
	if len(r.data) > 0 {
		d := r.data[0]
		hole = r.off < d.Off
		end = d.Off
		if !hole {
			end = d.Off + d.Len
		}
	}
	p = p[:min(int64(len(p)), end-r.off)]
	n, err := len(p), error(nil)
	if hole {
		clear(p)
	} else {
		n, err = r.f.ReadAt(p, r.off)
	}
	r.off += int64(n)
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}
