package index

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"dupfs/chain"
	"dupfs/chain/difftar"
	"dupfs/chain/store"
	"dupfs/delta"
)

// part is what a volume holds of a file that goes beyond the volume.
type part struct {
	change      difftar.Kind
	open        bool // the next volume may go on with it
	first, last int  // pieces
}

func readPart(d *decoder) (*part, error) {
	head := d.bytes(2)
	if d.err != nil {
		return nil, d.err
	}
	p := &part{change: difftar.Kind(head[0]), open: head[1] != 0}
	p.first, p.last = d.count(maxVolume, "piece"), d.count(maxVolume, "piece")
	return p, d.end()
}

// replay goes through a Pass. file is called for each entry that is a file,
// with the part of it that the volume holds, or the reason why it cannot be
// read, if there is one; other for each other entry. Runs come before them.
type replay struct {
	runs  *runSink
	file  func(rec *Record, p *part, damage string) error
	other func(rec *Record) error
}

func (rp *replay) run(p *Pass) error {
	if _, err := p.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	var pt *part
	var damage string
	r := newReader(p.file)
	r.loose = true
	r.ext = func(tag byte, d *decoder) (err error) {
		switch tag {
		case tagVoid:
			r.fileSize, r.runs.baseEnd = 0, 0
			return rp.runs.discard()
		case tagPart:
			pt, err = readPart(d)
		case tagDamage:
			damage = string(d.b)
			err = rp.runs.discard()
		default:
			err = fmt.Errorf("index: unknown tag %q", tag)
		}
		return err
	}
	r.h = Handler{Runs: rp.runs.add, Record: func(rec *Record) (err error) {
		if rec.Type == chain.File && rec.Change != difftar.Deleted {
			err = rp.file(rec, pt, damage)
		} else {
			err = rp.other(rec)
		}
		pt, damage = nil, ""
		return err
	}}
	return r.read()
}

// Learn adds to a set what a pass over one of its volumes found: where the
// bytes of the files lie that the set says are there. It may be called again.
func (c *Catalog) Learn(ctx context.Context, ord int, p *Pass) error {
	return c.write(ctx, func(tx *sql.Tx) error {
		l, err := newLearner(tx, ord, p.Volume.Volume)
		if err != nil {
			return err
		}
		rp := &replay{runs: l.runs, file: l.file, other: func(*Record) error { return l.runs.discard() }}
		if err := rp.run(p); err != nil {
			return err
		}
		return learnVolume(tx, ord, p)
	})
}

// learnVolume keeps the layout of a volume.
func learnVolume(tx *sql.Tx, ord int, p *Pass) error {
	b, err := p.Layout.MarshalBinary()
	if err != nil {
		return fmt.Errorf("%s: %w", p.Volume.File, err)
	}
	id := int64(ord)<<32 | int64(p.Volume.Volume)
	_, err = tx.Exec(`UPDATE volumes SET layout=?, file=?, size=? WHERE id=?`, sealPage(id, 0, b), p.Volume.File, p.Volume.Size, id)
	return bad(err)
}

// learner writes what was found of versions that are there.
type learner struct {
	tx                     *sql.Tx
	ord, volume            int
	find                   *finder
	runs                   *runSink
	get, set, piece, wrong *sql.Stmt
}

func newLearner(tx *sql.Tx, ord, volume int) (l *learner, err error) {
	l = &learner{tx: tx, ord: ord, volume: volume}
	if l.find, err = newFinder(tx, ord); err != nil {
		return nil, err
	}
	if l.runs, err = newRunSink(tx); err != nil {
		return nil, err
	}
	for _, q := range []struct {
		st   **sql.Stmt
		text string
	}{
		{&l.get, selectRow + `WHERE id=?`},
		{&l.set, `UPDATE versions SET kind=?, size=?, known=?, meta=?, runs=?, sum=? WHERE id=?`},
		{&l.piece, `INSERT OR REPLACE INTO pieces(version, volume, off, kind, first, last, page) VALUES(?,?,?,?,?,?,?)`},
		{&l.wrong, `INSERT OR REPLACE INTO damage(version, reason) VALUES(?,?)`},
	} {
		if *q.st, err = tx.Prepare(q.text); err != nil {
			return nil, bad(err)
		}
	}
	return l, nil
}

// row returns the row of a version, nil if there is none.
func (l *learner) row(version int64) (*row, error) {
	var r row
	err := r.scan(l.get.QueryRow(version))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return &r, err
}

// file takes what a volume holds of a file.
func (l *learner) file(rec *Record, p *part, damage string) error {
	path, err := l.find.path(rec.Path)
	if err != nil {
		return err
	}
	r, err := l.row(path<<ordBits | int64(l.ord))
	switch {
	case err != nil:
		return err
	case path == 0, r == nil, r.known, chain.Type(r.kind&7) != chain.File:
		return l.runs.discard() // not what the set says it has
	case damage != "":
		return l.damaged(r.id, damage)
	case p != nil:
		return l.part(r.id, p)
	}
	return l.known(r, rec)
}

// damaged notes that a version makes no sense.
func (l *learner) damaged(version int64, reason string) error {
	if err := l.runs.discard(); err != nil {
		return err
	}
	_, err := l.wrong.Exec(version, reason)
	return bad(err)
}

// part keeps the runs as those of pieces.
func (l *learner) part(version int64, p *part) error {
	kind := int(p.change)
	if p.open {
		kind |= 8
	}
	put := func(off int64, page []byte) error {
		_, err := l.piece.Exec(version, l.volume, off, kind, p.first, p.last, sealPage(version, off, page))
		return bad(err)
	}
	if l.runs.pager.off == 0 {
		return put(0, nil)
	}
	return l.runs.each(func(g page) error { return put(g.off, g.buf) })
}

// known stores the runs as those of the version.
func (l *learner) known(r *row, rec *Record) error {
	if sum := l.runs.pager.off; r.size >= 0 && r.size != sum {
		return l.damaged(r.id, fmt.Sprintf("%d bytes in the volumes instead of %d", sum, r.size))
	}
	inline, sum, err := l.runs.store(r.id)
	if err != nil {
		return err
	}
	r.kind, r.size, r.known, r.runs = r.kind&7|int64(rec.Change)<<3, sum, true, inline
	if rec.HasHash {
		if err := r.setHash(rec.Hash); err != nil {
			return err
		}
	}
	_, err = l.set.Exec(r.kind, r.size, r.known, r.meta, r.runs, r.checksum(), r.id)
	return bad(err)
}

// Pass adds the entries of a volume, for a set without a sigtar. The passes of
// all volumes must be added, in order.
func (m *Merger) Pass(p *Pass) error {
	l, err := newLearner(m.tx, int(m.ord), p.Volume.Volume)
	if err != nil {
		return err
	}
	l.runs = m.runs
	rp := &replay{runs: m.runs, other: m.Record}
	rp.file = func(rec *Record, pt *part, damage string) error {
		if pt == nil && damage == "" {
			return m.Record(rec)
		}
		return m.partial(l, rec, pt, damage)
	}
	return rp.run(p)
}

// partial adds a file whose content is not known yet.
func (m *Merger) partial(l *learner, rec *Record, p *part, damage string) error {
	restore := m.runs.hold()
	if p == nil || p.first <= 1 {
		rec.Size = -1
		if err := m.Record(rec); err != nil {
			return err
		}
	}
	restore()
	if err := m.flush(); err != nil {
		return err
	}
	return l.file(rec, p, damage)
}

// MoreError says which volume must be read before a version is known.
type MoreError struct{ Volume int }

func (e *MoreError) Error() string { return fmt.Sprintf("volume %d was not read yet", e.Volume) }

// Assemble puts together a version whose pieces lie in several volumes, after
// passes over these. read reads plaintext of the set's volumes. It returns nil
// if the version is known then, or was before; a *MoreError if a volume was
// not read yet, fs.ErrNotExist if no volume that was read has anything of it,
// and a *chain.CorruptError if it makes no sense.
func (c *Catalog) Assemble(ctx context.Context, version int64, read func(ctx context.Context, volume int, p []byte, off int64) (int, error)) error {
	n, err := c.Version(ctx, version)
	if err != nil || n.Known {
		return err
	}
	var reason string
	err = c.st.damage.QueryRowContext(context.WithoutCancel(ctx), version).Scan(&reason)
	if err == nil {
		return c.corrupt(ctx, version, reason)
	} else if !errors.Is(err, sql.ErrNoRows) {
		return bad(err)
	}
	parts, err := c.parts(ctx, version)
	if err != nil {
		return err
	}
	if len(parts) == 0 {
		return fs.ErrNotExist
	}
	if err := c.joins(ctx, version, parts); err != nil {
		return err
	}
	src := &pieceReader{ctx: ctx, st: c.st.piecePage, version: version, parts: parts, read: read}
	if err := c.assemble(ctx, src); err != nil {
		return err
	}
	return c.Assemble(ctx, version, read) // known or damaged now
}

// volumePart is a part with its volume.
type volumePart struct {
	part
	volume int
}

// parts returns the parts of a version by volume.
func (c *Catalog) parts(ctx context.Context, version int64) ([]volumePart, error) {
	rows, err := c.r.QueryContext(context.WithoutCancel(ctx),
		`SELECT DISTINCT volume, kind, first, last FROM pieces WHERE version=? ORDER BY volume`, version)
	if err != nil {
		return nil, bad(err)
	}
	defer rows.Close()
	var parts []volumePart
	for rows.Next() {
		var p volumePart
		var kind int
		if err := rows.Scan(&p.volume, &kind, &p.first, &p.last); err != nil {
			return nil, bad(err)
		}
		p.change, p.open = difftar.Kind(kind&7), kind&8 != 0
		parts = append(parts, p)
	}
	return parts, bad(rows.Err())
}

// joins checks that parts are all of a file, one after the other.
func (c *Catalog) joins(ctx context.Context, version int64, parts []volumePart) error {
	if first := parts[0]; first.first > 1 {
		return c.more(ctx, version, first.volume-1)
	}
	for i, p := range parts[1:] {
		before := parts[i]
		if p.first != before.last+1 || !before.open || p.change != before.change {
			if p.volume > before.volume+1 {
				return c.more(ctx, version, before.volume+1)
			}
			return c.corrupt(ctx, version, "pieces of it are missing or out of order")
		}
	}
	last := parts[len(parts)-1]
	if !last.open {
		return nil
	}
	err := c.more(ctx, version, last.volume+1)
	var corrupt *chain.CorruptError
	if errors.As(err, &corrupt) {
		return nil // the next volume was read and does not go on with it
	}
	return err
}

// more returns a *MoreError if the volume is there and was not read yet.
func (c *Catalog) more(ctx context.Context, version int64, volume int) error {
	v, err := c.Volume(ctx, OrdOf(version), volume)
	if err == nil && !v.Known {
		return &MoreError{volume}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return c.corrupt(ctx, version, "pieces of it are missing")
}

// assemble stores the runs of the version that src reads. The pieces are read
// before anything is locked.
func (c *Catalog) assemble(ctx context.Context, src *pieceReader) error {
	file, err := store.TempFile(filepath.Dir(c.path))
	if err != nil {
		return err
	}
	p := &Pass{file: file}
	defer p.Close()
	version := src.version
	if err := src.spool(p); err != nil {
		return err
	}
	return c.write(ctx, func(tx *sql.Tx) error {
		l, err := newLearner(tx, OrdOf(version), 0)
		if err != nil {
			return err
		}
		r, err := l.row(version)
		if err != nil || r == nil || r.known {
			return err
		}
		rp := &replay{runs: l.runs, file: func(rec *Record, _ *part, damage string) error {
			if damage != "" {
				return l.damaged(version, damage)
			}
			return l.known(r, rec)
		}}
		return rp.run(p)
	})
}

// pieceReader reads the pieces of a file, or the stream they make.
type pieceReader struct {
	ctx     context.Context
	st      *sql.Stmt
	version int64
	parts   []volumePart
	read    func(context.Context, int, []byte, int64) (int, error)

	page   []Run // left of the current page
	off    int64 // offset in the part where the next page begins
	pieces pieces
	cur    Run // left of the current piece
	err    error
}

// next returns the next piece, or io.EOF.
func (r *pieceReader) next() (Run, error) {
	for len(r.page) == 0 {
		if len(r.parts) == 0 {
			return Run{}, io.EOF
		}
		var sealed []byte
		err := r.st.QueryRow(r.version, r.parts[0].volume, r.off).Scan(&sealed)
		if errors.Is(err, sql.ErrNoRows) {
			r.parts, r.off = r.parts[1:], 0
			continue
		}
		if err != nil {
			return Run{}, bad(err)
		}
		if r.page, err = openPage(r.version, r.off, sealed); err != nil {
			return Run{}, err
		}
		if len(r.page) == 0 {
			r.parts, r.off = r.parts[1:], 0
		}
	}
	run := r.page[0]
	r.page = r.page[1:]
	r.off = run.FileOff + run.Len
	return run, nil
}

// spool writes the runs of the file to the file of p.
func (r *pieceReader) spool(p *Pass) error {
	change := r.parts[0].change
	buf := bufio.NewWriter(p.file)
	w := newWriter(buf, "", true)
	var size int64
	emit := func(run Run) error {
		run.FileOff, size = size, size+run.Len
		return w.Runs(run)
	}
	var err error
	if change == difftar.Diff {
		c := &commands{pieces: &r.pieces, emit: emit}
		if err = delta.ReadCommands(r, c.add); err == nil {
			err = c.flush()
		}
	} else {
		err = r.snapshot(emit)
	}
	switch {
	case r.err != nil:
		return r.err
	case w.err != nil:
		return w.err
	case err != nil:
		w.flushRuns()
		w.frame(tagDamage, []byte(err.Error()))
	}
	rec := &Record{Entry: chain.Entry{Path: "file", Type: chain.File, Size: size}, Change: change, SigLen: -1}
	if err := w.Entry(rec); err != nil {
		return err
	}
	if err := w.Close(nil, nil); err != nil {
		return err
	}
	return buf.Flush()
}

// snapshot gives the pieces as the content of the file.
func (r *pieceReader) snapshot(emit func(Run) error) error {
	for {
		run, err := r.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			r.err = err
			return err
		}
		if err := emit(run); err != nil {
			return err
		}
	}
}

// Read implements io.Reader for the stream that the pieces make.
func (r *pieceReader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if r.cur.Len == 0 {
		run, err := r.next()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				r.err = err
			}
			return 0, err
		}
		r.pieces.add(run)
		r.cur = run
	}
	n, err := r.read(r.ctx, r.cur.Volume, p[:min(int64(len(p)), r.cur.Len)], r.cur.Off)
	r.cur.Off, r.cur.Len = r.cur.Off+int64(n), r.cur.Len-int64(n)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if err == nil && n == 0 {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		r.err = err
	}
	return n, err
}
