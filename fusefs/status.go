package fusefs

import (
	"context"
	"io"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// statusText returns what the status file holds now.
func (f *fileSystem) statusText() []byte {
	if f.opts.Status == nil {
		return nil
	}
	return f.opts.Status(f.healthNow())
}

// openStatus opens the status file. A handle sees one state of it; the kernel
// keeps none.
func (f *fileSystem) openStatus(out *fuse.OpenOut) {
	b := text(f.statusText())
	out.Fh = f.files.add(&openFile{content: b, mapped: true, size: b.Size()})
	out.OpenFlags = fuse.FOPEN_DIRECT_IO | fuse.FOPEN_NOFLUSH
}

// text is a chain.Content in memory.
type text []byte

func (t text) Size() int64 { return int64(len(t)) }

func (t text) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	if off >= int64(len(t)) {
		return 0, io.EOF
	}
	n := copy(p, t[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
