package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"golang.org/x/sync/errgroup"

	"dupfs/chain"
	"dupfs/chain/index"
)

// content is the content of a version.
type content struct {
	line *line
	id   int64
	size int64
}

// OpenVersion implements chain.Forest. Volumes are read to learn where the
// bytes are if that is not known yet; a *chain.CorruptError if they are
// damaged.
func (a *Archive) OpenVersion(ctx context.Context, version uint64) (chain.Content, error) {
	l, id, err := a.versionLine(version)
	if err != nil {
		return nil, err
	}
	c, err := l.content(ctx, id)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// content opens the content of a version.
func (l *line) content(ctx context.Context, id int64) (*content, error) {
	var out *content
	err := l.doVersion(ctx, id, func(c *index.Catalog) error {
		size, known, err := c.Open(ctx, id)
		if err == nil && !known {
			if err = l.learn(ctx, c, id); err == nil {
				size, _, err = c.Open(ctx, id)
			}
		}
		if err != nil {
			return err
		}
		out = &content{l, id, size}
		return nil
	})
	return out, err
}

// Size implements chain.Content.
func (c *content) Size() int64 { return c.size }

// maxReads is how many extents one call reads at a time.
const maxReads = 8

// ReadAt implements chain.Content.
func (c *content) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("negative offset: %w", fs.ErrInvalid)
	}
	var eof error
	if left := max(c.size-off, 0); int64(len(p)) > left {
		p, eof = p[:left], io.EOF
	}
	done := 0
	for done < len(p) {
		n, err := c.read(ctx, p[done:], off+int64(done))
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, eof
}

var errShort = errors.New("it is shorter than its size")

// read reads what one list of extents covers, at least a byte.
func (c *content) read(ctx context.Context, p []byte, off int64) (n int, err error) {
	err = c.line.doVersion(ctx, c.id, func(cat *index.Catalog) error {
		ext, found, err := c.extents(ctx, cat, off, int64(len(p)))
		if err != nil {
			return err
		}
		if found == 0 {
			return c.corrupt(ctx, cat, errShort)
		}
		n, err = c.fetch(ctx, cat, p[:found], ext)
		return err
	})
	return n, err
}

// extents finds where bytes are. Versions below, whose deltas were not needed
// up to now, are learned.
func (c *content) extents(ctx context.Context, cat *index.Catalog, off, n int64) ([]index.Extent, int64, error) {
	for {
		ext, found, err := cat.Extents(ctx, c.id, off, n)
		var unknown *index.UnknownError
		if !errors.As(err, &unknown) {
			return ext, found, err
		}
		if err := c.line.learn(ctx, cat, unknown.Version); err != nil {
			return nil, 0, err
		}
	}
}

// fetch reads extents into p, and returns how many bytes from its beginning
// are there.
func (c *content) fetch(ctx context.Context, cat *index.Catalog, p []byte, ext []index.Extent) (int, error) {
	if len(ext) == 1 {
		return c.extent(ctx, cat, p, ext[0])
	}
	got := make([]int, len(ext))
	errs := make([]error, len(ext))
	var g errgroup.Group
	g.SetLimit(maxReads)
	at := 0
	for i, e := range ext {
		part := p[at : at+int(e.Len)]
		at += int(e.Len)
		g.Go(func() error {
			got[i], errs[i] = c.extent(ctx, cat, part, e)
			return errs[i]
		})
	}
	_ = g.Wait() // errs has them all
	n := 0
	for i := range ext {
		n += got[i]
		if errs[i] != nil {
			return n, errs[i]
		}
	}
	return n, nil
}

// extent reads one extent into p, which has its length.
func (c *content) extent(ctx context.Context, cat *index.Catalog, p []byte, e index.Extent) (int, error) {
	f, err := c.line.file(ctx, cat, e.Ord, e.Volume)
	if err != nil {
		return 0, c.corrupt(ctx, cat, err)
	}
	n, err := c.line.a.st.ReadAt(ctx, f, p, e.Off)
	if n == len(p) {
		return n, nil
	}
	if errors.Is(err, io.EOF) {
		err = chain.Corrupt(f.File(), "it ends before the content of a file does")
	}
	return n, c.corrupt(ctx, cat, err)
}

// corrupt makes an error that says that bytes are damaged or gone one that
// names the file. Other errors stay as they are.
func (c *content) corrupt(ctx context.Context, cat *index.Catalog, err error) error {
	var lost *lostVolumeError
	var corrupt *chain.CorruptError
	if !errors.As(err, &lost) && !errors.As(err, &corrupt) && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	p, perr := cat.PathOf(ctx, index.PathOf(c.id))
	if perr != nil {
		return err
	}
	return chain.Corrupt(p.String(), err.Error())
}
