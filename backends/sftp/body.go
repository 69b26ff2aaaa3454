package sftp

import (
	"context"
	"fmt"
	"io"
	"io/fs"

	"github.com/pkg/sftp"
)

// Open reads a range of a file. It asks ahead, in windows that grow while
// they are used up, of at most 1 MiB, two at a time.
func (b *Backend) Open(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	p, err := b.path("get", name)
	if err != nil {
		return nil, err
	}
	if off < 0 {
		return nil, fmt.Errorf("get %s: negative offset %d", name, off)
	}
	var size int64
	f, err := do(ctx, b, "get", name, func(s *session) (*sftp.File, error) {
		f, err := s.Open(p)
		if err != nil {
			return nil, err
		}
		fi, err := f.Stat()
		if err == nil && !fi.Mode().IsRegular() {
			err = fs.ErrNotExist
		}
		if err != nil {
			f.Close()
			return nil, err
		}
		size = fi.Size()
		return f, nil
	}, func(f *sftp.File) { f.Close() })
	if err != nil {
		return nil, err
	}
	left := max(size-off, 0)
	if n >= 0 {
		left = min(left, n)
	}
	r := &body{b: b, ctx: ctx, name: name, f: f, off: off, ask: left, window: firstWindow}
	r.fetch()
	return r, nil
}

// body is an open range. One window is with the reader, the next is on its
// way. It keeps the context of its Open.
type body struct {
	b    *Backend
	ctx  context.Context
	name string
	f    *sftp.File

	off, ask int64 // the next window: where, and how much there is still to ask for
	window   int64
	next     chan window // the window on its way; nil if there is none
	data     []byte      // of the window before it, not yet read
	err      error
}

type window struct {
	data []byte
	err  error
}

// fetch asks for the next window.
func (r *body) fetch() {
	n := min(r.ask, r.window)
	if n == 0 {
		return
	}
	next, off, f := make(chan window, 1), r.off, r.f
	r.next = next
	r.off += n
	r.ask -= n
	r.window = min(2*r.window, maxWindow)
	r.b.wg.Go(func() {
		p := make([]byte, n)
		m, err := f.ReadAt(p, off)
		if m == len(p) {
			err = nil
		} else if err == io.EOF || err == nil {
			err = fmt.Errorf("it got shorter while it was read: %w", io.ErrUnexpectedEOF)
		}
		next <- window{p[:m], err}
	})
}

func (r *body) Read(p []byte) (int, error) {
	if len(r.data) == 0 && r.err == nil {
		r.err = r.wait()
	}
	if len(r.data) == 0 && r.err != nil {
		return 0, r.err
	}
	n := copy(p, r.data)
	r.data = r.data[n:]
	return n, nil
}

// wait takes the window on its way, and asks for the one after it.
func (r *body) wait() error {
	if err := r.ctx.Err(); err != nil {
		return fail("get", r.name, context.Cause(r.ctx))
	}
	if r.next == nil {
		return io.EOF
	}
	select {
	case w := <-r.next:
		r.next = nil
		r.data = w.data
		if w.err != nil {
			return fail("get", r.name, w.err)
		}
		r.fetch()
		return nil
	case <-r.ctx.Done():
		return fail("get", r.name, context.Cause(r.ctx))
	}
}

// Close returns at once; the file is closed once nothing is on its way.
func (r *body) Close() error {
	f, next := r.f, r.next
	if f == nil {
		return nil
	}
	r.f, r.next, r.data, r.err = nil, nil, nil, fs.ErrClosed
	r.b.wg.Go(func() {
		if next != nil {
			<-next
		}
		f.Close()
	})
	return nil
}
