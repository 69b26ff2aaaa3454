package restore

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"os"

	"golang.org/x/sys/unix"

	"dupfs/chain"
)

// maxHoles is the length of holes up to which a content's hash is checked
// though the holes are not read.
const maxHoles = 64 << 30

// restore restores an entry that is no directory. It returns an error only if
// the run must end.
func (r *run) restore(ctx context.Context, s *streamer, t task) error {
	linked := t.node.LinkGroup != 0 && t.node.Nlink > 1 && r.links != nil
	if linked {
		done, err := r.links.claim(ctx, t.node.Version)
		if err != nil {
			return err
		}
		defer done()
		if ok, err := r.link(t); ok || err != nil {
			return r.done(ctx, t, err)
		}
	}
	temp := r.tempName()
	err := r.make(ctx, s, t, temp)
	if err == nil && linked {
		if err := r.links.put(t.node.Version, t.dir.fd, temp); err != nil {
			r.attrs(t.path, []*AttrError{{"hard link", err}})
		}
	}
	if err == nil {
		err = r.place(t.dir.fd, temp, t.name)
	}
	if err != nil {
		// It may not be there; what matters is err.
		_ = unix.Unlinkat(t.dir.fd, temp, 0)
	}
	return r.done(ctx, t, err)
}

// done counts an entry.
func (r *run) done(ctx context.Context, t task, err error) error {
	if err != nil {
		return r.fail(ctx, t.path, err)
	}
	if t.node.Type == chain.File {
		r.files.Add(1)
		r.o.Progress.Files.Add(1)
	} else {
		r.others.Add(1)
	}
	r.o.Progress.Entries.Add(1)
	return nil
}

// link restores an entry as a further name of one that was restored, if there
// is one.
func (r *run) link(t task) (bool, error) {
	temp := r.tempName()
	ok, err := r.links.get(t.node.Version, t.node.Nlink, t.dir.fd, temp)
	if err != nil {
		r.attrs(t.path, []*AttrError{{"hard link", err}}) // a copy does as well
	}
	if !ok {
		return false, nil
	}
	err = r.place(t.dir.fd, temp, t.name)
	// A rename between two names of one file leaves both.
	_ = unix.Unlinkat(t.dir.fd, temp, 0)
	return true, err
}

// make makes the entry under a temporary name.
func (r *run) make(ctx context.Context, s *streamer, t task, temp string) error {
	n := &t.node
	switch n.Type {
	case chain.File:
		return r.makeFile(ctx, s, t, temp)
	case chain.Symlink:
		if err := unix.Symlinkat(n.Link, t.dir.fd, temp); err != nil {
			return wrap("make symlink", err)
		}
	case chain.Fifo:
		if err := mknodAt(t.dir.fd, temp, unix.S_IFIFO|0o600, 0); err != nil {
			return wrap("make fifo", err)
		}
	case chain.CharDevice, chain.BlockDevice:
		kind := uint32(unix.S_IFCHR)
		if n.Type == chain.BlockDevice {
			kind = unix.S_IFBLK
		}
		dev := unix.Mkdev(n.Major, n.Minor)
		if unix.Major(dev) != n.Major || unix.Minor(dev) != n.Minor {
			return fmt.Errorf("no such device number: %d:%d", n.Major, n.Minor)
		}
		if err := mknodAt(t.dir.fd, temp, kind|0o600, int(dev)); err != nil {
			return wrap("make device", err)
		}
	default:
		return fmt.Errorf("entry of unknown type %d", n.Type)
	}
	h := handle{fd: -1, dir: t.dir.fd, name: temp, link: n.Type == chain.Symlink}
	r.attrs(t.path, r.setAttrs(h, &n.Entry))
	return nil
}

// makeFile makes a regular file under a temporary name.
func (r *run) makeFile(ctx context.Context, s *streamer, t task, temp string) error {
	c, err := r.forest.OpenVersion(ctx, t.node.Version)
	if err != nil {
		return err
	}
	if size := c.Size(); size < 0 || t.node.Size >= 0 && t.node.Size != size {
		return chain.Corrupt(t.path.String(), fmt.Sprintf("size is %d in one place, %d in another", t.node.Size, size))
	}
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(t.dir.fd, temp, flags, 0o600)
	if err != nil {
		return wrap("create", err)
	}
	f := os.NewFile(uintptr(fd), temp)
	if err := r.fill(ctx, s, t, c, f); err != nil {
		f.Close()
		return err
	}
	r.attrs(t.path, r.setAttrs(fdHandle(int(f.Fd())), &t.node.Entry))
	return wrap("close", f.Close())
}

// fill writes the content, and checks its hash if that is known.
func (r *run) fill(ctx context.Context, s *streamer, t task, c chain.Content, f *os.File) error {
	size := c.Size()
	data, holes := dataOf(t.node.Data, size)
	var sum hash.Hash
	if t.node.HasHash && holes <= maxHoles {
		sum = sha256.New()
	}
	var at int64
	flush := flusher{f: f, off: r.o.NoSync}
	for _, x := range data {
		if err := hashZeros(ctx, sum, x.Off-at); err != nil {
			return err
		}
		err := s.read(ctx, c, x.Off, x.Off+x.Len, func(off int64, p []byte) error {
			if sum != nil {
				sum.Write(p)
			}
			if _, err := f.WriteAt(p, off); err != nil {
				return wrap("write", cause(err))
			}
			flush.wrote(off, int64(len(p)))
			r.bytes.Add(int64(len(p)))
			r.o.Progress.Bytes.Add(int64(len(p)))
			return nil
		})
		if err != nil {
			return err
		}
		at = x.Off + x.Len
	}
	if at < size {
		if err := hashZeros(ctx, sum, size-at); err != nil {
			return err
		}
		if err := f.Truncate(size); err != nil {
			return wrap("set size", cause(err))
		}
	}
	if sum != nil && [32]byte(sum.Sum(nil)) != t.node.Hash {
		return chain.Corrupt(t.path.String(), "content does not have its SHA-256")
	}
	return nil
}

// dataOf returns the extents to read of a file, and the length of its holes. A
// map that cannot be is not believed.
func dataOf(data []chain.Extent, size int64) ([]chain.Extent, int64) {
	if data == nil {
		return []chain.Extent{{Off: 0, Len: size}}, 0
	}
	var at, sum int64
	for _, x := range data {
		if x.Off < at || x.Len < 0 || x.Off > size || x.Len > size-x.Off {
			return []chain.Extent{{Off: 0, Len: size}}, 0
		}
		at = x.Off + x.Len
		sum += x.Len
	}
	return data, size - sum
}

// hashZeros adds n zeros to a sum, unless it is nil.
func hashZeros(ctx context.Context, sum hash.Hash, n int64) error {
	if sum == nil || n == 0 {
		return nil
	}
	zeros := make([]byte, 64<<10)
	for n > 0 && ctx.Err() == nil {
		k := min(n, int64(len(zeros)))
		sum.Write(zeros[:k])
		n -= k
	}
	return ctx.Err()
}

// cause takes the temporary name out of an error.
func cause(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// place gives the entry its name. Without Force nothing may have it; with it,
// a directory that is not empty may not.
func (r *run) place(dir int, temp, name string) error {
	if !r.o.Force {
		return wrap("rename", exists(renameNew(dir, temp, name)))
	}
	err := unix.Renameat(dir, temp, dir, name)
	if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
		if uerr := unix.Unlinkat(dir, name, unix.AT_REMOVEDIR); uerr != nil {
			return fmt.Errorf("directory in the way: %w", uerr)
		}
		err = unix.Renameat(dir, temp, dir, name)
	}
	return wrap("rename", err)
}

// renameNew renames to a name that nothing has, else it is EEXIST.
func renameNew(dir int, temp, name string) error {
	if able, err := renameExclusive(dir, temp, name); able {
		return err
	}
	// The file system cannot: look first.
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil {
		return unix.EEXIST
	}
	return unix.Renameat(dir, temp, dir, name)
}
