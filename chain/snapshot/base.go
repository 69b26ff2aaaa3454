package snapshot

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"

	"dupfs/chain"
	"dupfs/chain/index"
	"dupfs/chain/store"
)

// BaseEntry is an entry of the newest point as the next increment sees it.
type BaseEntry struct {
	chain.Entry // Size -1 where unknown
	// Exact says that dupfs wrote the entry, so that facts that stock
	// duplicity does not record are zero only if they are.
	Exact  bool
	SigOff int64 // plainOff of the signature
	SigLen int64 // its length; -1: no signature
	Set    int   // ordinal in the line of the set that holds the entry
	Ctime  int64 // of the source in nanoseconds, as noted; 0 unknown
	Ino    uint64
	ID     int64 // of the version
}

// Base is the newest point that an increment can build on. Its methods are
// safe for concurrent use.
type Base struct {
	line *line
	ord  int
	sets []*chain.Set
	own  []bool // sets that dupfs wrote
}

// Base returns the newest point of the newest chain, as chain.Collection.Base
// chooses it, with its sets merged; fs.ErrNotExist if there is none.
func (a *Archive) Base(ctx context.Context) (*Base, error) {
	a.mu.Lock()
	sets := a.col.Base()
	var l *line
	if len(sets) > 0 {
		l = a.lines[sets[0].Times()]
	}
	a.mu.Unlock()
	if l == nil {
		return nil, fmt.Errorf("a backup to build on: %w", fs.ErrNotExist)
	}
	b := &Base{line: l, ord: len(sets) - 1, sets: sets}
	err := l.do(ctx, b.ord, func(c *index.Catalog) error {
		merged, err := c.Sets(ctx)
		b.own = nil
		for _, s := range merged {
			b.own = append(b.own, s.Own)
		}
		return err
	})
	return b, err
}

// Chain returns the sets of the base; the last one is the one to build on.
func (b *Base) Chain() *chain.Chain { return &chain.Chain{Sets: b.sets} }

// Damage says what is known to be wrong with the sets of the base, "" if
// nothing is.
func (b *Base) Damage() string { return b.line.damage(b.ord) }

// Walk yields all entries in path order.
func (b *Base) Walk(ctx context.Context) iter.Seq2[*BaseEntry, error] {
	return func(yield func(*BaseEntry, error) bool) {
		stopped := false
		err := b.line.try(ctx, b.ord, func(c *index.Catalog) error {
			for n, err := range c.Walk(ctx, b.ord) {
				if err != nil {
					return err
				}
				if stopped = !yield(b.entry(n), nil); stopped {
					return nil
				}
			}
			return nil
		})
		if err != nil && !stopped {
			yield(nil, err)
		}
	}
}

func (b *Base) entry(n *index.Node) *BaseEntry {
	return &BaseEntry{
		Entry: n.Entry, Exact: n.Ord() < len(b.own) && b.own[n.Ord()], SigOff: n.SigOff, SigLen: n.SigLen,
		Set: n.Ord(), Ctime: n.Ctime, Ino: n.Ino, ID: n.ID,
	}
}

// Signature opens the signature of an entry that Walk gave; fs.ErrNotExist if
// it has none. Every byte of it is verified, where the sigtar makes that
// possible.
func (b *Base) Signature(ctx context.Context, e *BaseEntry) (io.ReadCloser, error) {
	set := b.line.set(e.Set)
	if e.SigLen < 0 || set == nil || set.Sigtar == nil {
		return nil, fmt.Errorf("signature of %s: %w", e.Path, fs.ErrNotExist)
	}
	f, err := b.sigtar(ctx, e.Set, set)
	if errors.Is(err, fs.ErrNotExist) && e.Exact {
		return nil, chain.Corrupt(set.Sigtar.File, "it is not the one that was written with the set")
	}
	if errors.Is(err, fs.ErrNotExist) {
		return b.sequential(ctx, e, set)
	}
	if err != nil {
		return nil, err
	}
	r := &plainReader{ctx: ctx, st: b.line.a.st, f: f, off: e.SigOff, left: e.SigLen}
	return io.NopCloser(bufio.NewReaderSize(r, int(min(max(e.SigLen, 16), 256<<10)))), nil
}

// Content opens the content of a file that Walk gave, as Archive.OpenVersion does.
func (b *Base) Content(ctx context.Context, e *BaseEntry) (chain.Content, error) {
	c, err := b.line.content(ctx, e.ID)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// sigtar returns a set's sigtar, to read ranges of.
func (b *Base) sigtar(ctx context.Context, ord int, set *chain.Set) (*store.File, error) {
	k := volumeKey{b.line, ord, 0}
	if f := b.line.a.layouts.get(k); f != nil {
		return f, nil
	}
	var f *store.File
	err := b.line.do(ctx, b.ord, func(c *index.Catalog) error {
		lay, err := c.SigtarLayout(ctx, ord)
		f = &store.File{Stored: *set.Sigtar, Layout: lay}
		return err
	})
	if err != nil {
		return nil, err
	}
	b.line.a.layouts.add(k, f)
	return f, nil
}

// sequential reads a sigtar that is not seekable from its beginning.
func (b *Base) sequential(ctx context.Context, e *BaseEntry, set *chain.Set) (io.ReadCloser, error) {
	r, err := b.line.a.st.Open(ctx, *set.Sigtar)
	if err != nil {
		return nil, err
	}
	if _, err := io.CopyN(io.Discard, r, e.SigOff); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", set.Sigtar.File, err), r.Close())
	}
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(r, e.SigLen), r}, nil
}

// plainReader reads a range of a stored file's plaintext. Its context is that
// of whoever opened it, as io.Reader has none.
type plainReader struct {
	ctx       context.Context
	st        *store.Store
	f         *store.File
	off, left int64
}

// Read implements io.Reader.
func (r *plainReader) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), r.left)]
	n, err := r.st.ReadAt(r.ctx, r.f, p, r.off)
	r.off, r.left = r.off+int64(n), r.left-int64(n)
	if errors.Is(err, io.EOF) {
		if err = nil; n < len(p) {
			err = io.ErrUnexpectedEOF
		}
	}
	return n, err
}

// Source is local knowledge of a source entry.
type Source = index.Source

// NoteSource remembers the ctime and inode number of entries for the next Walk
// of the newest point of the newest chain. Those with an ID are entries that
// Walk gave; the paths of others are looked up at that point, and skipped if
// they are not there.
func (a *Archive) NoteSource(ctx context.Context, entries iter.Seq2[Source, error]) error {
	b, err := a.Base(ctx)
	if err != nil {
		return err
	}
	return b.line.try(ctx, b.ord, func(c *index.Catalog) error { return c.NoteSource(ctx, b.ord, entries) })
}
