package fusefs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"dupfs/chain"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// fileSystem answers the kernel's requests from a forest. It keeps what is
// open, a list of points, and tables of fixed size; nothing for an inode.
type fileSystem struct {
	fuse.RawFileSystem // ENOSYS for what is not here

	forest  chain.Forest
	past    chain.Past // the forest, if it is one; else nil
	pairs   pairs
	recent  recent
	uses    uses
	opts    Options
	base    context.Context // ends with the mount
	dev     string          // of the mount, "" until it is made
	started time.Time
	points  points
	faults  faults
	health  health
	bare    idSet
	files   table[*openFile]
	dirs    table[*openDir]
	ahead   ahead
}

func newFileSystem(ctx context.Context, forest chain.Forest, o Options) *fileSystem {
	past, _ := forest.(chain.Past)
	return &fileSystem{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		past:          past,
		uses:          uses{tell: o.InUse},
		forest:        forest,
		opts:          o,
		base:          ctx,
		started:       time.Now().Truncate(time.Second),
		points:        points{forest: forest, base: ctx, every: o.Refresh, timeout: o.Timeout, log: o.Log, name: o.PointName},
	}
}

// Init meets fuse.RawFileSystem.
func (f *fileSystem) Init(s *fuse.Server) {
	// A file that the kernel has forgotten meanwhile needs no bytes, so an error
	// says nothing.
	f.ahead.store = func(id uint64, data []byte) { s.InodeNotifyStoreCache(id, 0, data) }
	f.ahead.open = f.forest.OpenVersion
	f.ahead.start(f.base)
}

// String meets fuse.RawFileSystem.
func (f *fileSystem) String() string { return subtype }

// Forget meets fuse.RawFileSystem. There is nothing to forget.
func (f *fileSystem) Forget(nodeID, nlookup uint64) {}

// gone reports whether the mount is no longer in the table of mounts.
func (f *fileSystem) gone() bool {
	if f.dev == "" {
		return false
	}
	there, err := mounted(f.dev)
	return err == nil && !there
}

// node returns the entry of a tree that id names.
func (f *fileSystem) node(ctx context.Context, id uint64) (chain.Node, error) {
	switch {
	case isVersion(id):
		return f.forest.Version(ctx, splitVersion(id))
	case isDir(id):
		point, dir := splitDir(id)
		tree, err := f.forest.Tree(ctx, point)
		switch {
		case isCorrupt(err) && dir == rootDir:
			return brokenTop(), nil
		case err != nil:
			return chain.Node{}, err
		}
		return tree.Dir(ctx, dir)
	}
	return chain.Node{}, errStale
}

// brokenTop stands for the top directory of a point that cannot be read: it can
// be seen, not listed.
func brokenTop() chain.Node {
	return chain.Node{Entry: chain.Entry{Type: chain.Dir, Mode: 0o555, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}, Dir: rootDir, Nlink: 1}
}

// Lookup meets fuse.RawFileSystem. What is not in a tree will never be.
func (f *fileSystem) Lookup(cancel <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if len(name) > maxName {
		return fuse.Status(unix.ENAMETOOLONG)
	}
	r := f.begin(cancel, in.Pid)
	defer r.end()
	if name == "." || name == ".." {
		return f.fail("look up in", in.NodeId, f.lookupDots(r, in.NodeId, name, out))
	}
	if isView(in.NodeId) {
		return f.fail("look up in", in.NodeId, f.viewLookup(r, in.NodeId, name, out))
	}
	if !isDir(in.NodeId) {
		return fuse.ENOTDIR
	}
	point, dir := splitDir(in.NodeId)
	f.uses.touch(point)
	tree, err := f.forest.Tree(r, point)
	if err != nil {
		return f.fail("look up in", in.NodeId, err)
	}
	n, err := tree.Lookup(r, dir, name)
	if errors.Is(err, fs.ErrNotExist) {
		*out = fuse.EntryOut{} // no node: the kernel keeps that, too
		out.SetEntryTimeout(longTime)
		return fuse.OK
	}
	if err == nil {
		err = f.setEntry(out, point, &n)
	}
	if err != nil {
		err = fmt.Errorf("%q: %w", name, err)
	}
	return f.fail("look up in", in.NodeId, err)
}

// GetAttr meets fuse.RawFileSystem.
func (f *fileSystem) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	r := f.begin(cancel, in.Pid)
	defer r.end()
	if !isDir(in.NodeId) && !isVersion(in.NodeId) {
		out.SetTimeout(shortTime)
		return f.fail("stat", in.NodeId, f.viewAttr(r, in.NodeId, &out.Attr))
	}
	n, err := f.node(r, in.NodeId)
	if err == nil {
		f.setAttr(&out.Attr, in.NodeId, &n)
	}
	out.SetTimeout(longTime)
	return f.fail("stat", in.NodeId, err)
}

// Readlink meets fuse.RawFileSystem.
func (f *fileSystem) Readlink(cancel <-chan struct{}, in *fuse.InHeader) ([]byte, fuse.Status) {
	r := f.begin(cancel, in.Pid)
	defer r.end()
	if !isDir(in.NodeId) && !isVersion(in.NodeId) {
		target, err := f.viewReadlink(r, in.NodeId)
		return []byte(target), f.fail("read link", in.NodeId, err)
	}
	n, err := f.node(r, in.NodeId)
	if err == nil && n.Type != chain.Symlink {
		return nil, fuse.EINVAL
	}
	return []byte(n.Link), f.fail("read link", in.NodeId, err)
}

// Access meets fuse.RawFileSystem. The kernel asks only where it does not check
// permissions itself: there the user who mounted may read everything.
func (f *fileSystem) Access(cancel <-chan struct{}, in *fuse.AccessIn) fuse.Status {
	switch {
	case in.Mask&fuse.W_OK != 0:
		return fuse.EROFS
	case in.Mask&fuse.X_OK == 0 || !isVersion(in.NodeId):
		return fuse.OK
	}
	r := f.begin(cancel, in.Pid)
	defer r.end()
	n, err := f.node(r, in.NodeId)
	if err == nil && n.Type == chain.File && n.Mode&0o111 == 0 {
		return fuse.EACCES
	}
	return f.fail("access", in.NodeId, err)
}

// maxName is the longest name, in bytes.
const maxName = 255

// StatFs meets fuse.RawFileSystem. As on other file systems that are only
// read, all of the space is used.
func (f *fileSystem) StatFs(cancel <-chan struct{}, in *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	size := int64(blockSize)
	if f.opts.Size != nil {
		size = max(size, f.opts.Size())
	}
	*out = fuse.StatfsOut{
		Blocks:  (uint64(size) + blockSize - 1) / blockSize,
		Bsize:   blockSize,
		Frsize:  blockSize,
		NameLen: maxName,
	}
	return fuse.OK
}

// GetXAttr meets fuse.RawFileSystem. ls -l asks for an access list of every
// file: the answer costs nothing where there is none.
func (f *fileSystem) GetXAttr(cancel <-chan struct{}, in *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	if fact, ok := strings.CutPrefix(name, factPrefix); ok {
		return f.fact(cancel, in, fact, dest)
	}
	if f.isBare(in.NodeId) {
		return 0, fuse.ENODATA
	}
	n, status := f.xattrs(cancel, in)
	if status != fuse.OK {
		return 0, status
	}
	for _, x := range n.Xattrs {
		if x.Name == name && visible(x.Name, in.Uid) {
			return fill(dest, x.Value)
		}
	}
	return 0, fuse.ENODATA
}

// ListXAttr meets fuse.RawFileSystem.
func (f *fileSystem) ListXAttr(cancel <-chan struct{}, in *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	if f.isBare(in.NodeId) {
		return 0, fuse.OK
	}
	n, status := f.xattrs(cancel, in)
	if status != fuse.OK {
		return 0, status
	}
	var names []byte
	for _, x := range n.Xattrs {
		if visible(x.Name, in.Uid) {
			names = append(append(names, x.Name...), 0)
		}
	}
	return fill(dest, names)
}

// isBare reports whether it is known at once that a node has no attributes.
func (f *fileSystem) isBare(id uint64) bool {
	switch {
	case isVersion(id):
		return id&xattrBit == 0
	case isDir(id):
		return f.bare.has(id)
	}
	return true
}

func (f *fileSystem) xattrs(cancel <-chan struct{}, in *fuse.InHeader) (chain.Node, fuse.Status) {
	r := f.begin(cancel, in.Pid)
	defer r.end()
	n, err := f.node(r, in.NodeId)
	if err == nil && len(n.Xattrs) == 0 {
		f.bare.add(in.NodeId)
	}
	return n, f.fail("read attributes of", in.NodeId, err)
}

// visible reports whether a user may know of an attribute: as elsewhere, those
// in trusted.* are for root alone.
func visible(name string, uid uint32) bool {
	return uid == 0 || !strings.HasPrefix(name, "trusted.")
}

// fill copies value to dest, by the rules of getxattr: with no room at all its
// length is what is asked for.
func fill(dest, value []byte) (uint32, fuse.Status) {
	if len(dest) < len(value) {
		return uint32(len(value)), fuse.ERANGE
	}
	return uint32(copy(dest, value)), fuse.OK
}

// idSet remembers some of the ids that were added last, in fixed memory and
// without locks.
type idSet [4096]atomic.Uint64

func (s *idSet) slot(id uint64) *atomic.Uint64 {
	return &s[(id*0x9e3779b97f4a7c15)>>52]
}

func (s *idSet) add(id uint64)      { s.slot(id).Store(id) }
func (s *idSet) has(id uint64) bool { return s.slot(id).Load() == id }

// panicked is told of a panic in a request; the request fails with EIO.
func (f *fileSystem) panicked(v any) fuse.Status {
	f.opts.Log("panic: %v\n%s", v, debug.Stack())
	return fuse.EIO
}
