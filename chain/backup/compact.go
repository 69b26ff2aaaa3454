package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"dupfs/chain"
	"dupfs/chain/difftar"
	"dupfs/chain/store"
)

// Origin is a point of an archive that a new full set is made of.
type Origin struct {
	Forest chain.Forest
	Tree   chain.Tree
	// Base is the same point as an increment would see it; what it knows of the
	// source's file system goes on being known.
	Base Base
}

// Compact writes a full set that holds what a point of the archive holds. It
// needs the archive alone, not the source. Unlike Run it fails when anything of
// the point cannot be read intact: a set that is to take the place of others
// must have all of what they have. Options.Selection is not used, and Now should
// be the point's time, so that the new set is one second younger than what it
// stands for, and older than every later backup. With Options.Journal, Compact
// can go on with one that was interrupted, as Run can: Interrupted.Source is
// Compacted then.
func Compact(ctx context.Context, from Origin, st *store.Store, o Options) (*Stats, error) {
	o.Selection, o.DryRun = nil, false
	r := newRun("", nil, o)
	r.from = &from
	return r.do(ctx, st)
}

// Compacted is the Interrupted.Source of a set that is made of the point at t.
func Compacted(t time.Time) string { return "the backup of " + chain.FormatTime(t) }

// planTree makes items of all entries of a tree, in path order.
func (r *run) planTree(ctx context.Context, items, jobs chan<- *item) error {
	p := &planner{run: r, out: items, jobs: jobs, ctx: ctx}
	next, stop := iter.Pull2(r.from.Base.Walk(ctx))
	defer stop()
	p.next = next
	if err := p.advance(); err != nil {
		return err
	}
	root, err := r.from.Tree.Root(ctx)
	if err != nil {
		return err
	}
	if err := p.node(root, map[uint64]bool{}); err != nil {
		return err
	}
	r.o.Progress.Walked.Store(true)
	return nil
}

// node plans an entry and, if it is a directory, what is in it.
func (p *planner) node(n chain.Node, above map[uint64]bool) error {
	s := &source{Entry: n.Entry, statSize: n.Size, xattrs: true, version: n.Version}
	for p.cur != nil && p.cur.Path.Compare(n.Path) < 0 {
		if err := p.advance(); err != nil {
			return err
		}
	}
	if p.cur != nil && p.cur.Path == n.Path {
		s.ctime, s.ino = p.cur.Ctime, p.cur.Ino
	}
	p.walked(s)
	if !p.resumed.skips(n.Path) { // else it is stored already, what is below it perhaps not
		if err := p.send(&item{path: n.Path, kind: difftar.Snapshot, src: s}); err != nil {
			return err
		}
	}
	if n.Type != chain.Dir {
		return nil
	}
	if above[n.Dir] || len(above) >= chain.MaxDepth {
		return chain.Corrupt(n.Path.String(), "directory lies within itself, or too deep")
	}
	above[n.Dir] = true
	defer delete(above, n.Dir)
	return p.nodes(n, above)
}

// nodePage is how many children of a directory are held at a time.
const nodePage = 256

// nodes plans the children of a directory. What is below them is read between
// pages, not in one.
func (p *planner) nodes(dir chain.Node, above map[uint64]bool) error {
	errFull := errors.New("page is full")
	page := make([]chain.Node, 0, nodePage)
	for after := ""; ; after = page[len(page)-1].Name {
		page = page[:0]
		err := p.from.Tree.ReadDir(p.ctx, dir.Dir, after, true, func(n chain.Node) error {
			n.Path = dir.Path.Join(n.Name)
			if page = append(page, n); len(page) == nodePage {
				return errFull
			}
			return nil
		})
		if err != nil && !errors.Is(err, errFull) {
			return fmt.Errorf("%s: %w", dir.Path, err)
		}
		for _, n := range page {
			if err := p.node(n, above); err != nil {
				return err
			}
		}
		if err == nil {
			return nil
		}
	}
}

// readVersion is read for a file of an archive. What is not intact is an error.
func (rd *reader) readVersion() error {
	it := rd.it
	rd.s = *it.src
	content, err := rd.from.Forest.OpenVersion(rd.ctx, rd.s.version)
	if err != nil {
		return fmt.Errorf("%s: %w", it.path, err)
	}
	if content.Size() != rd.s.Size {
		return chain.Corrupt(it.path.String(), fmt.Sprintf("size is %d in one place, %d in another", rd.s.Size, content.Size()))
	}
	rd.at = contentAt{rd.ctx, content}
	if err := rd.load(); err != nil {
		return fmt.Errorf("%s: %w", it.path, err)
	}
	if err := rd.encode(); err != nil {
		return fmt.Errorf("%s: %w", it.path, err)
	}
	switch {
	case rd.cut != nil:
		return fmt.Errorf("%s: %w", it.path, rd.cut)
	case it.entry.Size != rd.s.Size:
		return chain.Corrupt(it.path.String(), fmt.Sprintf("ends at byte %d of %d", it.entry.Size, rd.s.Size))
	case rd.s.HasHash && it.entry.Hash != rd.s.Hash:
		return chain.Corrupt(it.path.String(), "content does not have its SHA-256")
	}
	it.known = Known{Path: it.path, Ctime: rd.s.ctime, Ino: rd.s.ino}
	return nil
}

// contentAt reads a content while ctx lasts.
type contentAt struct {
	ctx     context.Context // of the run, which the reader does not outlive
	content chain.Content
}

// ReadAt implements io.ReaderAt.
func (c contentAt) ReadAt(p []byte, off int64) (int, error) {
	return c.content.ReadAt(c.ctx, p, off)
}

var _ io.ReaderAt = contentAt{}
