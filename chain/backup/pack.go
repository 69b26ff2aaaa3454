package backup

import (
	"context"
	"errors"
	"fmt"
	"io"

	"dupfs/chain"
	"dupfs/chain/difftar"
	"dupfs/chain/index"
	"dupfs/chain/sigtar"
)

// packer consumes the items in path order.
type packer struct {
	*run
	set   *setWriter // nil for a dry run
	trail trail
}

// pack consumes items until in is closed.
func (p *packer) pack(ctx context.Context, in <-chan *item) error {
	for {
		select {
		case it, ok := <-in:
			if !ok {
				return nil
			}
			if err := p.item(ctx, it); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// item stores one item.
func (p *packer) item(ctx context.Context, it *item) error {
	if it.ready != nil {
		defer p.budget.Release(it.cost)
		select {
		case <-it.ready:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	path := it.path
	p.o.Progress.Current.Store(&path)
	switch {
	case it.pieces != nil:
		return p.file(ctx, it)
	case it.failed:
		<-ctx.Done()
		return context.Cause(ctx)
	case it.lost != nil:
		p.notice(Notice{it.class, it.path, it.lost})
		return nil
	case it.same:
		it.known.ID = it.base.ID
		return p.learn(it.known)
	case it.kind == 0:
		return p.learn(Known{it.path, it.base.ID, it.src.ctime, it.src.ino})
	case p.set == nil:
		p.told(it)
		p.count(it)
		return nil
	case it.ready == nil:
		return p.header(ctx, it)
	}
	return p.file(ctx, it)
}

// learn passes on what the file system says.
func (p *packer) learn(k Known) error {
	if p.o.OnKnown == nil {
		return nil
	}
	p.journal.add(&event{Kind: evKnown, Known: &k})
	if err := p.o.OnKnown(k); err != nil {
		return fmt.Errorf("knowledge of the source: %w", err)
	}
	return nil
}

// header stores an entry without content, or a deletion.
func (p *packer) header(ctx context.Context, it *item) error {
	p.told(it)
	m := difftar.Member{Kind: it.kind}
	if it.kind == difftar.Deleted {
		m.Entry = chain.Entry{Path: it.path}
	} else {
		m.Entry = it.src.Entry
	}
	if _, _, err := p.place(ctx, &m, nil, true); err != nil {
		return err
	}
	p.count(it) // not before: a volume that is sealed meanwhile does not hold it
	rec := index.Record{Entry: m.Entry, Change: it.kind, SigLen: -1}
	if err := p.record(&rec, nil); err != nil {
		return err
	}
	if it.kind == difftar.Deleted {
		if it.base.Type == chain.File {
			return p.set.change("deleted", it.path)
		}
		return nil
	}
	return p.learn(Known{Path: it.path, Ctime: it.src.ctime, Ino: it.src.ino})
}

// file stores a file.
func (p *packer) file(ctx context.Context, it *item) error {
	m := difftar.Member{Entry: it.head, Kind: it.kind}
	stored := int64(0)
	if !it.failed {
		p.told(it)
	}
	for it.pieces != nil {
		pc, ok, err := take(ctx, it.pieces)
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		m.Piece++
		if err := p.middle(ctx, &m, pc); err != nil {
			return err
		}
		stored += int64(len(pc.data))
		p.free(pc.data)
		p.o.Progress.Packed.Store(it.before + min(stored, it.src.statSize))
	}
	if it.failed {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	defer it.sig.close()
	if m.Piece > 0 {
		m.Piece++
	} else if it.flaw != nil {
		m.Entry.Mtime = it.entry.Mtime
	}
	if err := p.piece(ctx, &m, it.final); err != nil {
		return err
	}
	it.entry.Xattrs = m.Entry.Xattrs
	p.countFile(it, stored+int64(len(it.final.data)))
	if it.flaw != nil {
		p.notice(Notice{it.class, it.path, it.flaw})
	}
	return p.fileRecord(it)
}

// middle stores a piece that is not the last of its file, unless that was done
// before the run was interrupted.
func (p *packer) middle(ctx context.Context, m *difftar.Member, pc piece) error {
	if p.journal != nil {
		p.trail.add(m, pc.data)
		if skip, err := p.resumed.has(m, &p.trail); skip || err != nil {
			return err
		}
	}
	if err := p.piece(ctx, m, pc); err != nil {
		return err
	}
	if p.journal != nil {
		p.journal.add(&event{Kind: evPiece, Path: m.Entry.Path, Number: m.Piece, Sum: p.trail[:], Bare: len(m.Entry.Xattrs) == 0})
	}
	return nil
}

// fileRecord adds a file that was stored to the manifest, the sigtar and the
// index.
func (p *packer) fileRecord(it *item) error {
	kind := "new"
	if it.changed() {
		kind = "changed"
	}
	if err := p.set.change(kind, it.path); err != nil {
		return err
	}
	rec := index.Record{Entry: it.entry, Change: it.kind, SigLen: it.sig.size()}
	if err := p.record(&rec, it.sig.reader()); err != nil {
		return err
	}
	return p.learn(it.known)
}

// take receives from c unless ctx ends first.
func take[T any](ctx context.Context, c <-chan T) (v T, ok bool, err error) {
	select {
	case v, ok = <-c:
		return v, ok, nil
	case <-ctx.Done():
		return v, false, context.Cause(ctx)
	}
}

// piece stores one piece of a file and notes in the index what lies there.
func (p *packer) piece(ctx context.Context, m *difftar.Member, pc piece) error {
	vol, off, err := p.place(ctx, m, pc.data, pc.last)
	if err != nil {
		return err
	}
	runs := make([]index.Run, len(pc.spans))
	for i, s := range pc.spans {
		runs[i] = index.Run{FileOff: s.fileOff, Len: s.n, Volume: vol, Off: off + s.off}
		if s.basis {
			runs[i].Volume, runs[i].Off = 0, s.off
		}
	}
	if len(runs) == 0 {
		return nil
	}
	p.journal.add(&event{Kind: evRuns, Runs: runs})
	if err := p.set.index.Runs(runs...); err != nil {
		return fmt.Errorf("index: %w", err)
	}
	return nil
}

// place writes a member. Extended attributes that are too large for one are
// left out.
func (p *packer) place(ctx context.Context, m *difftar.Member, body []byte, last bool) (int, int64, error) {
	if p.resumed.partial != nil { // there should be more of a file here
		return 0, 0, fmt.Errorf("%s: %w", p.resumed.partial.path, ErrMoved)
	}
	vol, off, err := p.set.place(ctx, m, body, last)
	if errors.Is(err, difftar.ErrTooLarge) && len(m.Entry.Xattrs) > 0 {
		p.notice(Notice{Reduced, m.Entry.Path, err})
		m.Entry.Xattrs = nil
		vol, off, err = p.set.place(ctx, m, body, last)
	}
	return vol, off, err
}

// record adds an entry to the sigtar and the index. sig is its signature.
func (p *packer) record(rec *index.Record, sig io.Reader) error {
	m := sigtar.Member{Entry: rec.Entry, Deleted: rec.Change == difftar.Deleted, Len: max(rec.SigLen, 0)}
	p.journal.record(rec)
	off, err := p.set.sigs.Header(&m)
	if err == nil && sig != nil {
		var w io.Writer = p.set.sigs
		if p.journal != nil {
			w = io.MultiWriter(w, p.journal)
		}
		_, err = io.Copy(w, sig)
	}
	if err != nil {
		return fmt.Errorf("signatures: %w", err)
	}
	if sig != nil {
		rec.SigOff = off
	}
	if err := p.set.index.Entry(rec); err != nil {
		return fmt.Errorf("index: %w", err)
	}
	return nil
}

// changed reports whether duplicity would speak of a changed file: it calls
// everything new that it stores whole, such as a directory with another mtime.
func (it *item) changed() bool {
	return it.base != nil && it.base.Type == chain.File && it.src != nil && it.src.Type == chain.File
}

// told tells of a change.
func (p *packer) told(it *item) {
	if it.src != nil && p.set != nil {
		p.o.Progress.Packed.Store(it.before)
	} else if it.src != nil { // nothing is stored: it is done
		p.o.Progress.Packed.Store(it.before + it.src.statSize)
	}
	if p.o.OnChange == nil {
		return
	}
	switch {
	case it.kind == difftar.Deleted:
		p.o.OnChange(Deleted, it.path)
	case it.changed():
		p.o.OnChange(Modified, it.path)
	default:
		p.o.OnChange(Added, it.path)
	}
}

// count adds an item without content to the statistics.
func (p *packer) count(it *item) {
	p.stats.DeltaEntries++
	switch {
	case it.kind == difftar.Deleted:
		p.stats.DeletedFiles++
	case it.changed():
		p.stats.ChangedFiles++
		p.stats.ChangedFileSize += it.src.statSize
	default:
		p.stats.NewFiles++
		p.stats.NewFileSize += it.src.statSize
	}
	if it.src != nil {
		p.o.Progress.Packed.Store(it.before + it.src.statSize)
	}
}

// countFile adds a stored file to the statistics.
func (p *packer) countFile(it *item, stored int64) {
	p.count(it)
	p.stats.RawDeltaSize += stored
	if it.changed() {
		p.stats.ChangedDeltaSize += stored
	}
	p.o.Progress.Files.Add(1)
}
