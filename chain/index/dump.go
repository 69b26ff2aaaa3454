package index

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"

	"dupfs/chain"
	"dupfs/chain/difftar"
)

// IncompleteError says why a catalog cannot tell all of a set.
type IncompleteError struct{ Reason string }

func (e *IncompleteError) Error() string { return e.Reason }

// Dump writes the stored index of a set that was merged, as a backup would have
// written it. *IncompleteError if something of the set is not known: a volume
// was not read, or bytes of a file are damaged.
func (c *Catalog) Dump(ctx context.Context, ord int, set *chain.Set, w io.Writer) error {
	vols, err := c.Volumes(ctx, ord)
	if err != nil {
		return err
	}
	for _, v := range vols {
		if !v.Known {
			return &IncompleteError{fmt.Sprintf("volume %d was not read", v.Number)}
		}
	}
	d, err := c.newDump(ctx, ord)
	if err != nil {
		return err
	}
	defer d.close()
	d.w = NewWriter(w, set)
	if err := d.walk(ctx); err != nil {
		return err
	}
	sigtar, err := c.SigtarLayout(ctx, ord)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return d.w.CloseWith(c.volumeInfos(ctx, ord, vols), sigtar)
}

// volumeInfos yields volumes with their layouts.
func (c *Catalog) volumeInfos(ctx context.Context, ord int, vols []VolumeRow) iter.Seq2[*VolumeInfo, error] {
	return func(yield func(*VolumeInfo, error) bool) {
		for _, row := range vols {
			v, err := c.Volume(ctx, ord, row.Number)
			if err == nil && v.Layout == nil {
				err = &IncompleteError{fmt.Sprintf("volume %d was not read", row.Number)}
			}
			if err != nil {
				yield(nil, err)
				return
			}
			v.First, v.Last = row.First, row.Last
			if !yield(&v.VolumeInfo, nil) {
				return
			}
		}
	}
}

// dump goes through the paths of a line and writes what one set says of them.
type dump struct {
	ord             int
	list, row, page *sql.Stmt
	w               *Writer
}

func (c *Catalog) newDump(ctx context.Context, ord int) (d *dump, err error) {
	d = &dump{ord: ord}
	for _, q := range []struct {
		st   **sql.Stmt
		text string
	}{
		{&d.list, `SELECT c.id, c.name, v.id IS NOT NULL, EXISTS(SELECT 1 FROM children d WHERE d.parent=c.id)
			FROM children c LEFT JOIN versions v ON v.id=(c.id<<16)|?1
			WHERE c.parent=?2 AND c.name>?3 ORDER BY c.name LIMIT ?4`},
		{&d.row, selectRow + `WHERE id=?`},
		{&d.page, `SELECT page FROM runs WHERE version=? AND off=?`},
	} {
		if *q.st, err = c.r.PrepareContext(ctx, q.text); err != nil {
			d.close()
			return nil, bad(err)
		}
	}
	return d, nil
}

func (d *dump) close() {
	for _, st := range []*sql.Stmt{d.list, d.row, d.page} {
		if st != nil {
			_ = st.Close() // it only read
		}
	}
}

// dumpLevel is a directory that a dump is in.
type dumpLevel struct {
	id   int64
	path chain.Path
	page []dumpChild
	last string // name of the last child of page
	end  bool   // no children after page
}

// dumpChild is a path that was ever below another one.
type dumpChild struct {
	id          int64
	name        string
	said, below bool // the set says something of it; something was ever below it
}

func (d *dump) walk(ctx context.Context) error {
	if err := d.entry(chain.Root, rootPath); err != nil {
		return err
	}
	stack := []dumpLevel{{id: rootPath}}
	for len(stack) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		l := &stack[len(stack)-1]
		if len(l.page) == 0 {
			if l.end {
				stack = stack[:len(stack)-1]
				continue
			}
			if err := d.fill(l, walkPage(len(stack))); err != nil {
				return err
			}
			continue
		}
		child := l.page[0]
		l.page = l.page[1:]
		path := l.path.Join(child.name)
		if child.said {
			if err := d.entry(path, child.id); err != nil {
				return err
			}
		}
		if child.below {
			stack = append(stack, dumpLevel{id: child.id, path: path})
		}
	}
	return nil
}

// fill reads the next children of a level.
func (d *dump) fill(l *dumpLevel, limit int) error {
	rows, err := d.list.Query(d.ord, l.id, []byte(l.last), limit)
	if err != nil {
		return bad(err)
	}
	defer rows.Close()
	for rows.Next() {
		var c dumpChild
		var name []byte
		if err := rows.Scan(&c.id, &name, &c.said, &c.below); err != nil {
			return bad(err)
		}
		c.name = string(name)
		l.page = append(l.page, c)
	}
	if l.end = len(l.page) < limit; len(l.page) > 0 {
		l.last = l.page[len(l.page)-1].name
	}
	return bad(rows.Err())
}

// entry writes what the set says of a path, if it does.
func (d *dump) entry(p chain.Path, path int64) error {
	var r row
	err := r.scan(d.row.QueryRow(path<<ordBits | int64(d.ord)))
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	rec := &Record{SigLen: -1}
	if r.kind == 0 {
		rec.Path, rec.Change = p, difftar.Deleted
		return d.w.Entry(rec)
	}
	if err := r.record(rec); err != nil {
		return err
	}
	rec.Path, rec.Change = p, difftar.Kind(r.kind>>3)
	if rec.Type == chain.File {
		if !r.known {
			return &IncompleteError{fmt.Sprintf("the content of %s is not known", p)}
		}
		if rec.Change == 0 { // of which a sigtar told that it is empty
			rec.Change = difftar.Snapshot
		}
		if err := d.runs(&r); err != nil {
			return err
		}
	}
	return d.w.Entry(rec)
}

// runs writes the runs of a version.
func (d *dump) runs(r *row) error {
	if r.runs != nil {
		runs, err := decodePage(0, r.runs)
		if err != nil {
			return err
		}
		return d.w.Runs(runs...)
	}
	for at := int64(0); at < r.size; {
		var sealed []byte
		if err := d.page.QueryRow(r.id, at).Scan(&sealed); err != nil {
			return fmt.Errorf("%w: version %d has no runs at %d: %w", ErrBadCatalog, r.id, at, err)
		}
		runs, err := openPage(r.id, at, sealed)
		if err != nil {
			return err
		}
		for _, run := range runs {
			at = run.FileOff + run.Len
		}
		if len(runs) == 0 {
			return fmt.Errorf("%w: version %d has an empty page", ErrBadCatalog, r.id)
		}
		if err := d.w.Runs(runs...); err != nil {
			return err
		}
	}
	return nil
}

// Unknown calls fn for the files of a set whose content is not known yet, until
// it fails.
func (c *Catalog) Unknown(ctx context.Context, ord int, fn func(version int64) error) error {
	for last := int64(0); ; {
		err := c.r.QueryRowContext(context.WithoutCancel(ctx), `SELECT id FROM versions
			WHERE id>?1 AND id&65535=?2 AND known=0 AND kind&7=?3 ORDER BY id LIMIT 1`, last, ord, int(chain.File)).Scan(&last)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return bad(err)
		}
		if err := fn(last); err != nil {
			return err
		}
	}
}

// Unhashed is a file whose content is known but not hashed.
type Unhashed struct{ Version, Size int64 }

// Unhashed returns the files up to the point ord whose runs are known but whose
// content has no hash, of at most limit versions after the version after, and
// the version to go on from; 0 if these were the last. The versions of a path
// are neighbours.
func (c *Catalog) Unhashed(ctx context.Context, ord int, after int64, limit int) (files []Unhashed, next int64, err error) {
	rows, err := c.r.QueryContext(context.WithoutCancel(ctx), selectRow+`WHERE id>? ORDER BY id LIMIT ?`, after, limit)
	if err != nil {
		return nil, 0, bad(err)
	}
	defer rows.Close()
	seen := 0
	for ; rows.Next(); seen++ {
		var r row
		if err := r.scan(rows); err != nil {
			return nil, 0, err
		}
		next = r.id
		if chain.Type(r.kind&7) != chain.File || !r.known || OrdOf(r.id) > ord {
			continue
		}
		var rec Record
		if err := r.record(&rec); err != nil {
			return nil, 0, err
		}
		if !rec.HasHash {
			files = append(files, Unhashed{r.id, r.size})
		}
	}
	if seen < limit {
		next = 0
	}
	return files, next, bad(rows.Err())
}

// SetHashes adds the hashes of contents to versions that have none.
func (c *Catalog) SetHashes(ctx context.Context, hashes map[int64][32]byte) error {
	if len(hashes) == 0 {
		return nil
	}
	return c.write(ctx, func(tx *sql.Tx) error {
		get, err := tx.Prepare(selectRow + `WHERE id=?`)
		if err != nil {
			return bad(err)
		}
		set, err := tx.Prepare(`UPDATE versions SET meta=?, sum=? WHERE id=?`)
		if err != nil {
			return bad(err)
		}
		for version, hash := range hashes {
			var r row
			if err := r.scan(get.QueryRow(version)); err != nil {
				return err
			}
			if err := r.setHash(hash); err != nil {
				return err
			}
			if _, err := set.Exec(r.meta, r.checksum(), r.id); err != nil {
				return bad(err)
			}
		}
		return nil
	})
}
