package fusefs

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"dupfs/chain"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// openDir is an open directory. Offsets count entries: 0 is before ".", 1
// before "..", 2 before the first child, and so on. Since a tree does not
// change, they are good in any handle and for any length of time.
type openDir struct {
	point  uint32 // of a directory of a tree, if pinned
	pinned bool

	mu    sync.Mutex
	marks marks // in a directory of a tree
	ended bool  // end is the number of children in a directory of a tree
	end   uint64
	items []item // in a view: as it was when reading began
}

// OpenDir meets fuse.RawFileSystem.
func (f *fileSystem) OpenDir(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	dir := new(openDir)
	switch {
	case isDir(in.NodeId):
		dir.point, _ = splitDir(in.NodeId)
		dir.pinned = true
		f.uses.touch(dir.point)
		out.OpenFlags = fuse.FOPEN_CACHE_DIR | fuse.FOPEN_KEEP_CACHE
	case !isView(in.NodeId):
		return fuse.ENOTDIR
	}
	out.Fh = f.dirs.add(dir)
	return fuse.OK
}

// ReleaseDir meets fuse.RawFileSystem.
func (f *fileSystem) ReleaseDir(in *fuse.ReleaseIn) { f.dirs.remove(in.Fh) }

// ReadDir meets fuse.RawFileSystem.
func (f *fileSystem) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return f.readDir(cancel, in, &dirWriter{f: f, out: out})
}

// ReadDirPlus meets fuse.RawFileSystem.
func (f *fileSystem) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return f.readDir(cancel, in, &dirWriter{f: f, out: out, plus: true})
}

func (f *fileSystem) readDir(cancel <-chan struct{}, in *fuse.ReadIn, w *dirWriter) fuse.Status {
	dir, ok := f.dirs.get(in.Fh)
	if !ok {
		return fuse.EBADF
	}
	r := f.begin(cancel, in.Pid)
	defer r.end()
	dir.mu.Lock()
	defer dir.mu.Unlock()
	off, err := w.addDots(in)
	if err != nil {
		return fuse.EINVAL // no room for a single entry
	}
	before := w.out.Offset
	if isView(in.NodeId) {
		err = f.listView(r, dir, in, off-2, w)
	} else {
		err = f.listTree(r, dir, in.NodeId, off-2, w)
	}
	if err == nil || errors.Is(err, errFull) || w.out.Offset != before {
		return fuse.OK // an error comes again at the next call, after the entries before it
	}
	return f.fail("list", in.NodeId, err)
}

// parentIno returns the inode number of a directory's parent as far as it is
// known without asking. Programs get the true one from stat.
func parentIno(id uint64) uint64 {
	switch id {
	case rootID, snapshotsID, atID, versionsID, deletedID, changesID, statusDirID:
		return rootID
	}
	return fuse.FUSE_UNKNOWN_INO
}

func (f *fileSystem) listView(ctx context.Context, dir *openDir, in *fuse.ReadIn, k uint64, w *dirWriter) error {
	if in.Offset == 0 || dir.items == nil {
		items, err := f.viewList(ctx, in.NodeId)
		if err != nil {
			return err
		}
		dir.items = items
	}
	for ; k < uint64(len(dir.items)); k++ {
		if err := w.addItem(&dir.items[k]); err != nil {
			return err
		}
	}
	base := uint64(len(dir.items))
	return f.listStream(ctx, dir, in.NodeId, base, k-base, w)
}

// listTree writes the children of a directory from the one with index k on.
func (f *fileSystem) listTree(ctx context.Context, dir *openDir, id, k uint64, w *dirWriter) error {
	if dir.ended && k >= dir.end {
		return nil
	}
	point, number := splitDir(id)
	tree, err := f.forest.Tree(ctx, point)
	if err != nil {
		return err
	}
	at := dir.marks.before(k)
	err = tree.ReadDir(ctx, number, at.name, false, func(n chain.Node) error {
		show := at.index >= k && f.showable(id, n.Name)
		if n.Name == "" {
			return nil // reading cannot go on after it
		}
		if show {
			if err := w.addNode(point, &n, at.index); err != nil {
				return err
			}
		}
		at = mark{at.index + 1, n.Name}
		dir.marks.passed(at)
		return nil
	})
	dir.marks.last = at
	if err == nil {
		dir.ended, dir.end = true, at.index
	}
	return err
}

// showable reports whether a name can be one in a directory: one that cannot
// would make the kernel fail the whole listing. No sound archive has such.
func (f *fileSystem) showable(dir uint64, name string) bool {
	if name != "" && name != "." && name != ".." && len(name) <= maxName && strings.IndexByte(name, '/') < 0 &&
		strings.IndexByte(name, 0) < 0 {
		return true
	}
	if f.faults.first(fmt.Sprintf("%x name %q", dir, name)) {
		f.opts.Log("list %s: the name %q cannot be shown", f.describe(dir), name)
	}
	return false
}

// errFull ends a listing when the kernel's buffer is full.
var errFull = errors.New("buffer full")

// dirWriter writes entries in the form of READDIR or READDIRPLUS.
type dirWriter struct {
	f    *fileSystem
	out  *fuse.DirEntryList
	plus bool
}

// add writes an entry without attributes. The kernel looks it up when it wants
// to know more.
func (w *dirWriter) add(e fuse.DirEntry) error {
	if w.plus {
		if w.out.AddDirLookupEntry(e) == nil {
			return errFull
		}
		return nil
	}
	if !w.out.AddDirEntry(e) {
		return errFull
	}
	return nil
}

// addDots writes "." and ".." if reading begins before them, and returns the
// offset after them.
func (w *dirWriter) addDots(in *fuse.ReadIn) (uint64, error) {
	if in.Offset >= 2 {
		return in.Offset, nil
	}
	if in.Offset == 0 {
		if err := w.add(fuse.DirEntry{Name: ".", Mode: unix.S_IFDIR, Ino: in.NodeId}); err != nil {
			return 0, err
		}
	}
	return 2, w.add(fuse.DirEntry{Name: "..", Mode: unix.S_IFDIR, Ino: parentIno(in.NodeId)})
}

// addNode writes the child with index k of a directory of a tree, with its
// attributes if they are wanted and known.
func (w *dirWriter) addNode(point uint32, n *chain.Node, k uint64) error {
	id, err := nodeID(point, n)
	if err != nil {
		return err
	}
	e := fuse.DirEntry{Name: n.Name, Mode: format(n.Type), Ino: id, Off: k + 3}
	if !w.plus || n.Size < 0 {
		return w.add(e)
	}
	out := w.out.AddDirLookupEntry(e)
	if out == nil {
		return errFull
	}
	if n.Type == chain.File {
		w.f.ahead.list(id, n.Size)
	}
	return w.f.setEntry(out, point, n)
}

func (w *dirWriter) addItem(it *item) error {
	if it.entry == nil || !w.plus || it.entry.Size < 0 {
		return w.add(fuse.DirEntry{Name: it.name, Mode: it.mode, Ino: it.ino})
	}
	out := w.out.AddDirLookupEntry(fuse.DirEntry{Name: it.name, Mode: it.mode, Ino: it.ino})
	if out == nil {
		return errFull
	}
	if err := w.f.setEntry(out, it.point, it.entry); err != nil {
		return err
	}
	out.SetEntryTimeout(shortTime)
	return nil
}

// mark says that index children come up to and with the one called name.
// Reading goes on after that name.
type mark struct {
	index uint64
	name  string
}

// marks lets reading go on anywhere in a directory of any size, in bounded
// memory: it keeps every stride-th name that was passed, and doubles the stride
// when there are maxMarks of them. So a step back reads at most stride
// entries again, and going on where one stopped reads none.
type marks struct {
	last   mark   // where the last call stopped
	kept   []mark // kept[i].index == (i+1)*stride
	stride uint64
}

const (
	maxMarks    = 256
	firstStride = 64
)

// before returns the last known mark at or before index k.
func (m *marks) before(k uint64) mark {
	var best mark
	if m.stride > 0 {
		if i := min(k/m.stride, uint64(len(m.kept))); i > 0 {
			best = m.kept[i-1]
		}
	}
	if m.last.index <= k && m.last.index > best.index {
		best = m.last
	}
	return best
}

// passed notes that reading passed a mark.
func (m *marks) passed(at mark) {
	if m.stride == 0 {
		m.stride = firstStride
	}
	if at.index != uint64(len(m.kept)+1)*m.stride {
		return
	}
	m.kept = append(m.kept, at)
	if len(m.kept) < maxMarks {
		return
	}
	for i := 0; i < maxMarks/2; i++ {
		m.kept[i] = m.kept[2*i+1]
	}
	clear(m.kept[maxMarks/2:])
	m.kept = m.kept[:maxMarks/2]
	m.stride *= 2
}
