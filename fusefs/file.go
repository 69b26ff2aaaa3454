package fusefs

import (
	"errors"
	"io"
	"sort"
	"sync"

	"dupfs/chain"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// table numbers what is open. Its zero value is ready.
type table[T any] struct {
	mu   sync.RWMutex
	last uint64
	open map[uint64]T
}

// add returns a number for v, never 0.
func (t *table[T]) add(v T) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open == nil {
		t.open = make(map[uint64]T)
	}
	t.last++
	t.open[t.last] = v
	return t.last
}

func (t *table[T]) get(n uint64) (T, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	v, ok := t.open[n]
	return v, ok
}

func (t *table[T]) remove(n uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, n)
}

func (t *table[T]) len() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.open)
}

// openFile is an open File.
type openFile struct {
	content chain.Content
	point   uint32 // the first one that has the version, if pinned
	pinned  bool

	mu     sync.Mutex
	mapped bool // data and size are known
	data   []chain.Extent
	size   int64
}

// Open meets fuse.RawFileSystem. What the kernel has of the content stays good
// for ever.
func (f *fileSystem) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if in.Flags&unix.O_ACCMODE != unix.O_RDONLY || in.Flags&unix.O_TRUNC != 0 {
		return fuse.EROFS
	}
	if in.NodeId == statusID {
		f.openStatus(out)
		return fuse.OK
	}
	if !isVersion(in.NodeId) {
		return fuse.EISDIR
	}
	r := f.begin(cancel, in.Pid)
	defer r.end()
	content, err := f.forest.OpenVersion(r, splitVersion(in.NodeId))
	if err != nil {
		return f.fail("open", in.NodeId, err)
	}
	file := &openFile{content: content}
	f.pin(r, file, splitVersion(in.NodeId))
	out.Fh = f.files.add(file)
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_NOFLUSH
	return fuse.OK
}

// Release meets fuse.RawFileSystem.
func (f *fileSystem) Release(cancel <-chan struct{}, in *fuse.ReleaseIn) { f.files.remove(in.Fh) }

// Read meets fuse.RawFileSystem.
func (f *fileSystem) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	file, ok := f.files.get(in.Fh)
	if !ok {
		return nil, fuse.EBADF
	}
	r := f.begin(cancel, in.Pid)
	defer r.end()
	r.giveUp = true
	if in.Offset == 0 && file.content.Size() <= maxSmall {
		f.ahead.read(in.NodeId)
	}
	n, err := file.content.ReadAt(r, buf, int64(in.Offset))
	if err == nil || errors.Is(err, io.EOF) {
		return fuse.ReadResultData(buf[:n]), fuse.OK
	}
	return nil, f.failContent("read", in.NodeId, err)
}

// Lseek meets fuse.RawFileSystem. The kernel asks for the next data or hole
// only.
func (f *fileSystem) Lseek(cancel <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	file, ok := f.files.get(in.Fh)
	if !ok {
		return fuse.EBADF
	}
	r := f.begin(cancel, in.Pid)
	defer r.end()
	size, data, err := f.extents(r, in.NodeId, file)
	if err != nil {
		return f.fail("seek in", in.NodeId, err)
	}
	off, ok := seek(size, data, int64(in.Offset), in.Whence)
	if !ok {
		return fuse.Status(unix.ENXIO)
	}
	out.Offset = uint64(off)
	return fuse.OK
}

// extents returns the size and the map of an open file, which it keeps while
// the file is open: a copy asks once for each extent.
func (f *fileSystem) extents(r *request, id uint64, file *openFile) (int64, []chain.Extent, error) {
	file.mu.Lock()
	defer file.mu.Unlock()
	if !file.mapped {
		n, err := f.forest.Version(r, splitVersion(id))
		if err != nil {
			return 0, nil, err
		}
		file.size, file.data, file.mapped = n.Size, n.Data, true
	}
	return file.size, file.data, nil
}

// seek returns the first offset from off on that is in data (SEEK_DATA) or in
// a hole (SEEK_HOLE; the end of the file is one). False if there is none.
// A file without a map is all data.
func seek(size int64, data []chain.Extent, off int64, whence uint32) (int64, bool) {
	if off < 0 || off >= size {
		return 0, false
	}
	if data == nil {
		data = []chain.Extent{{Len: size}}
	}
	i := sort.Search(len(data), func(i int) bool { return off < data[i].Off+data[i].Len })
	switch {
	case whence == unix.SEEK_DATA && i == len(data):
		return 0, false
	case whence == unix.SEEK_DATA:
		off = max(off, data[i].Off)
		return off, off < size
	case i < len(data) && off >= data[i].Off:
		return min(data[i].Off+data[i].Len, size), true
	}
	return off, true
}
