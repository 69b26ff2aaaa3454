package backup

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"dupfs/chain"
	"dupfs/chain/difftar"
	"dupfs/delta"
)

// item is one entry on its way into the set. It is made by the planner, filled
// by a worker if it is a file, and consumed by the packer, in path order.
type item struct {
	path chain.Path
	kind difftar.Kind // Snapshot or Deleted; for files the worker may make it Diff; 0: only to be noted as known
	src  *source      // nil if deleted
	base *BaseEntry   // what there is of it in the base, nil if new
	// check says that only the content can tell whether the file changed.
	check bool
	// before is the sum of the sizes of the entries of the source before it.
	before int64
	cost   int64         // of the memory budget
	ready  chan struct{} // closed when a worker has filled result; nil for what needs none
	result
}

// planner compares the walk with the base, in path order.
type planner struct {
	*run
	next func() (*BaseEntry, error, bool)
	cur  *BaseEntry // next entry of the base, nil at its end
	done bool
	out  chan<- *item // to the packer, in order
	jobs chan<- *item // to the workers
	proc string       // src if /proc cannot be used, else ""
	ctx  context.Context
}

// advance goes to the next entry of the base.
func (p *planner) advance() error {
	p.cur = nil
	if p.done {
		return nil
	}
	e, err, ok := p.next()
	switch {
	case !ok:
		p.done = true
	case err != nil:
		return fmt.Errorf("state of the last backup: %w", err)
	default:
		p.cur = e
	}
	return nil
}

// upTo records the entries of the base before path as deleted.
func (p *planner) upTo(path chain.Path) error {
	for p.cur != nil && p.cur.Path.Compare(path) < 0 {
		if err := p.deleted(); err != nil {
			return err
		}
	}
	return nil
}

// deleted records the current entry of the base as deleted. The root cannot
// be: duplicity ignores that.
func (p *planner) deleted() error {
	if p.cur.Path != chain.Root {
		b := *p.cur
		if err := p.send(&item{path: b.Path, kind: difftar.Deleted, base: &b}); err != nil {
			return err
		}
	}
	return p.advance()
}

// finish records what is left of the base as deleted.
func (p *planner) finish() error {
	for p.cur != nil {
		if err := p.deleted(); err != nil {
			return err
		}
	}
	return nil
}

// keep implements visitor.
func (p *planner) keep(path chain.Path) error {
	if p.resumed.hasLid && p.resumed.lid.Has(path) {
		return nil
	}
	if err := p.upTo(path); err != nil {
		return err
	}
	for p.cur != nil && path.Has(p.cur.Path) {
		if err := p.advance(); err != nil {
			return err
		}
	}
	return nil
}

// entry implements visitor.
func (p *planner) entry(s *source) error {
	if p.resumed.skips(s.Path) {
		p.walked(s)
		return nil
	}
	if err := p.upTo(s.Path); err != nil {
		return err
	}
	it := &item{path: s.Path, kind: difftar.Snapshot, src: s}
	if p.cur != nil && p.cur.Path == s.Path {
		b := *p.cur
		it.base = &b
		if err := p.advance(); err != nil {
			return err
		}
	}
	if err := p.classify(it); err != nil {
		// Its xattrs cannot be read: most likely it is gone. A directory is
		// stored all the same, for what is in it needs it.
		p.notice(Notice{lostClass(err), s.Path, err})
		if s.Type != chain.Dir {
			return nil
		}
	}
	p.walked(s)
	it.before = p.stats.SourceFileSize - s.statSize
	if it.kind == 0 && !p.learns(it) {
		return nil
	}
	return p.send(it)
}

// classify decides what becomes of an entry: kind stays Snapshot if it is new
// or changed, and is 0 if it did not change.
func (p *planner) classify(it *item) error {
	s, b := it.src, it.base
	known := b != nil && p.known(s, b)
	if !known {
		if err := s.loadXattrs(p.proc, p.isRoot); err != nil {
			return err
		}
	}
	if b == nil || differs(s, b, known) {
		return nil
	}
	noted := b.Ctime != 0 || b.Ino != 0
	suspect := noted && !known || !b.Exact && b.Size < 0 && !plausible(s.Size, b.SigLen)
	if s.Type == chain.File && suspect {
		it.check = true
		return nil
	}
	it.kind = 0
	return nil
}

// known reports whether the file system says of s what it said when it was
// last found equal to b.
func (p *planner) known(s *source, b *BaseEntry) bool {
	return (b.Ctime != 0 || b.Ino != 0) && s.ctime == b.Ctime && s.ino == b.Ino
}

// learns reports whether there is something to tell about an unchanged entry.
func (p *planner) learns(it *item) bool {
	return p.o.OnKnown != nil && (it.base.Ctime != it.src.ctime || it.base.Ino != it.src.ino)
}

// differs reports whether anything but the content of s is not as in b. What
// a base of duplicity's does not know is not compared. With known, xattrs are
// taken to be equal, as setting them changes the ctime.
func differs(s *source, b *BaseEntry, known bool) bool {
	switch {
	case s.Type != b.Type, s.UID != b.UID, s.GID != b.GID, s.Mode != b.Mode && s.Type != chain.Symlink:
		return true
	case s.Link != b.Link, s.Major != b.Major, s.Minor != b.Minor:
		return true
	case s.Type == chain.File && b.Size >= 0 && s.Size != b.Size:
		return true
	case !b.Exact:
		return hasMtime(s.Type) && max(s.Mtime.Sec, 0) != max(b.Mtime.Sec, 0)
	case s.Mtime != b.Mtime, s.LinkGroup != b.LinkGroup:
		return true
	}
	return !known && !slices.EqualFunc(s.Xattrs, b.Xattrs, func(x, y chain.Xattr) bool {
		return x.Name == y.Name && bytes.Equal(x.Value, y.Value)
	})
}

// hasMtime reports whether duplicity compares the mtime of that type.
func hasMtime(t chain.Type) bool {
	return t == chain.File || t == chain.Dir || t == chain.Fifo
}

// plausible reports whether a file of size bytes can have a signature of
// sigLen bytes by duplicity: 12 bytes and 12 a block. The length of blocks
// is 512 below 1,024,000 bytes; above it depends on a cap that the user sets.
func plausible(size, sigLen int64) bool {
	if sigLen < 0 {
		return true
	}
	blocks := func(n int64) int64 { return 12 + 12*((size+n-1)/n) }
	if size < 1024000 {
		return sigLen == blocks(512)
	}
	return sigLen >= blocks(size/1024000*512) && sigLen <= blocks(512)
}

// send passes an item on when the memory budget allows. As the planner is the
// only one to take from the budget, and takes in order, the item that the
// packer waits for always has its share. Who gets a job lets its directory go.
func (p *planner) send(it *item) error {
	if it.kind == 0 || it.src == nil || it.src.Type != chain.File || p.o.DryRun && !it.check {
		return give(p.ctx, p.out, it)
	}
	it.cost = p.costOf(it)
	if err := p.budget.Acquire(p.ctx, it.cost); err != nil {
		return context.Cause(p.ctx)
	}
	it.ready = make(chan struct{})
	it.src.dir.hold()
	err := give(p.ctx, p.out, it)
	if err == nil {
		err = give(p.ctx, p.jobs, it)
	}
	if err != nil {
		it.src.dir.release()
	}
	return err
}

// give sends v unless ctx ends first.
func give[T any](ctx context.Context, c chan<- T, v T) error {
	select {
	case c <- v:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// costOf estimates the memory that a file takes until it is packed: its
// content, or the pieces on their way, its new signature, and the index of the
// old one.
func (p *planner) costOf(it *item) int64 {
	piece := int64(p.o.PieceSize)
	cost := 4<<10 + 3*min(it.src.Size, 2*piece) + spoolMemory/16
	if it.base != nil && it.base.SigLen > 0 {
		cost += 4 * min(it.base.SigLen, 12*delta.MaxBlocks)
	}
	return min(cost, p.o.Memory)
}
