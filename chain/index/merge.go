package index

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"dupfs/chain"
	"dupfs/chain/difftar"
	"dupfs/chain/volume"
)

// SetInfo is what a catalog keeps of a merged set.
type SetInfo struct {
	Ord      int
	Times    string // as chain.Set.Times
	Manifest chain.Stored
	Own      bool         // dupfs wrote it, so that what it does not tell is not there
	Sigtar   chain.Stored // File "" if none was read
	// HasSigtar says that the layout of the sigtar is known.
	HasSigtar bool
}

// VolumeRow is what a catalog keeps of a volume.
type VolumeRow struct {
	VolumeInfo        // the Layout is in what Volume returns only
	Size       int64  // stored
	SHA1       []byte // of the manifest; nil if it does not tell
	Known      bool   // the layout is known, and all that the volume holds
}

// Merger adds one set to a catalog. Runs, Record, Volume and Sigtar fit a
// Handler. Records should come in path order; where they do not, a later one
// replaces an earlier one of its path.
type Merger struct {
	tx   *sql.Tx
	ord  int64
	next int64 // number of the next path

	insertRows, insertChildren batch
	args                       []any // of a row
	lookup, prevRow, til       *sql.Stmt
	subdirs, links             *sql.Stmt
	runs                       *runSink

	stack   []frame
	last    chain.Path
	any     bool
	fresh   bool // nothing was merged before, so that every path is new
	careful bool // paths do not ascend, or one is below what is no directory
	lastDir bool // last is a directory
	groups  bool // some record has a link group
}

// frame is an ancestor of the path that was merged last, or that path.
type frame struct {
	path    chain.Path
	id      int64
	dir     bool  // it is a directory at this point
	known   bool  // it has a number; false while nothing is below a deleted path
	subdirs int64 // by how much the number of its subdirectories changed
}

// batch collects rows, to insert many in one statement.
type batch struct {
	one, many *sql.Stmt
	columns   int
	args      []any
}

const batchRows = 32

func newBatch(tx *sql.Tx, text string, columns int) (b batch, err error) {
	tuple := "(" + strings.TrimSuffix(strings.Repeat("?,", columns), ",") + ")"
	if b.one, err = tx.Prepare(text + tuple); err != nil {
		return b, bad(err)
	}
	b.many, err = tx.Prepare(text + strings.TrimSuffix(strings.Repeat(tuple+",", batchRows), ","))
	b.columns = columns
	return b, bad(err)
}

// add appends a row.
func (b *batch) add(args ...any) error {
	b.args = append(b.args, args...)
	if len(b.args) < b.columns*batchRows {
		return nil
	}
	_, err := b.many.Exec(b.args...)
	b.args = b.args[:0]
	return bad(err)
}

// flush inserts what is left.
func (b *batch) flush() error {
	for i := 0; i < len(b.args); i += b.columns {
		if _, err := b.one.Exec(b.args[i : i+b.columns]...); err != nil {
			return bad(err)
		}
	}
	b.args = b.args[:0]
	return nil
}

// ErrMerged says that the set is in the catalog already.
var ErrMerged = errors.New("set is merged already")

// ErrOrder says that a set is merged before those it builds on.
var ErrOrder = errors.New("sets must be merged in order")

// Merge adds the next set of the line: fn gives its records and may set what
// info is stored, up to its return. All or nothing is added. ErrMerged if
// another one added it first.
func (c *Catalog) Merge(ctx context.Context, info *SetInfo, fn func(m *Merger) error) error {
	if _, err := c.w.ExecContext(ctx, "PRAGMA cache_size=-32768"); err != nil {
		return bad(err)
	}
	err := c.write(ctx, func(tx *sql.Tx) error {
		m, err := newMerger(tx, info)
		if err != nil {
			return err
		}
		if err := fn(m); err != nil {
			return err
		}
		return m.finish(info)
	})
	if _, perr := c.w.ExecContext(context.WithoutCancel(ctx), "PRAGMA cache_size=-1024; PRAGMA shrink_memory"); err == nil {
		err = bad(perr)
	}
	return err
}

func newMerger(tx *sql.Tx, info *SetInfo) (*Merger, error) {
	var sets, top int64
	if err := tx.QueryRow("SELECT count(*) FROM sets").Scan(&sets); err != nil {
		return nil, bad(err)
	}
	switch {
	case sets > int64(info.Ord):
		return nil, ErrMerged
	case sets < int64(info.Ord):
		return nil, ErrOrder
	case info.Ord > ordMask:
		return nil, fmt.Errorf("set %s: a chain of more than %d sets", info.Times, ordMask+1)
	}
	if err := tx.QueryRow("SELECT coalesce(max(id), 0) FROM versions").Scan(&top); err != nil {
		return nil, bad(err)
	}
	m := &Merger{tx: tx, ord: int64(info.Ord), next: max(top>>ordBits, 0) + 1, fresh: top == 0}
	if _, err := tx.Exec("CREATE TEMP TABLE IF NOT EXISTS touched(grp INTEGER PRIMARY KEY); DELETE FROM touched"); err != nil {
		return nil, bad(err)
	}
	return m, m.prepare()
}

func (m *Merger) prepare() (err error) {
	if m.runs, err = newRunSink(m.tx); err != nil {
		return err
	}
	if m.insertRows, err = newBatch(m.tx, insertRow, rowColumns); err != nil {
		return err
	}
	if m.insertChildren, err = newBatch(m.tx, `INSERT INTO children(parent, name, id, til) VALUES `, 4); err != nil {
		return err
	}
	for _, q := range []struct {
		st   **sql.Stmt
		text string
	}{
		{&m.lookup, `SELECT id, til FROM children WHERE parent=? AND name=?`},
		{&m.prevRow, selectRow + `WHERE id BETWEEN ?1<<16 AND (?1<<16)|?2 ORDER BY id DESC LIMIT 1`},
		{&m.til, `UPDATE children SET til=? WHERE parent=? AND name=?`},
		{&m.subdirs, bump("subdirs", "dir")},
		{&m.links, bump("links", "grp")},
	} {
		if *q.st, err = m.tx.Prepare(q.text); err != nil {
			return bad(err)
		}
	}
	return nil
}

// Runs adds runs of the file that the next Record describes.
func (m *Merger) Runs(runs []Run) error { return m.runs.add(runs) }

// Record adds what the set says of a path. A File without runs counts as not
// known yet, unless its size is 0.
func (m *Merger) Record(r *Record) error {
	if m.any && (r.Path.Compare(m.last) <= 0 || !m.lastDir && m.last.Has(r.Path)) {
		m.careful = true
	}
	m.any, m.last, m.lastDir = true, r.Path, r.Type == chain.Dir
	if m.careful {
		if err := m.flush(); err != nil {
			return err
		}
	}
	if r.Change == difftar.Deleted {
		return m.remove(r)
	}
	return m.put(r)
}

func (m *Merger) flush() error {
	if err := m.insertRows.flush(); err != nil {
		return err
	}
	return m.insertChildren.flush()
}

// child looks a path up. The id is 0 if it has no number yet.
func (m *Merger) child(parent int64, name string) (id, til int64, err error) {
	if m.fresh && !m.careful {
		return 0, 0, nil
	}
	err = m.lookup.QueryRow(parent, []byte(name)).Scan(&id, &til)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, 0, nil
	}
	return id, til, bad(err)
}

// live returns the newest row of a path that was merged, nil if there is none.
func (m *Merger) live(path int64) (*row, error) {
	if m.fresh && !m.careful {
		return nil, nil
	}
	var r row
	err := r.scan(m.prevRow.QueryRow(path, m.ord))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return &r, err
}

// isDir reports whether a row is a directory that is there.
func isDir(r *row) bool { return r != nil && chain.Type(r.kind&7) == chain.Dir }

// remove adds the deletion of a path.
func (m *Merger) remove(r *Record) error {
	if err := m.runs.discard(); err != nil {
		return err
	}
	if r.Path == chain.Root {
		return nil // stock ignores it as well
	}
	parent, err := m.climb(r.Path, false)
	if err != nil || !parent.known {
		return err
	}
	id, til, err := m.child(parent.id, r.Path.Base())
	if err != nil || id == 0 {
		return err
	}
	m.stack = append(m.stack, frame{path: r.Path, id: id, known: true})
	prev, err := m.live(id)
	if err != nil || prev == nil || prev.kind == 0 {
		return err
	}
	if til == alive {
		if _, err := m.til.Exec(m.ord, parent.id, []byte(r.Path.Base())); err != nil {
			return bad(err)
		}
	}
	if err := m.count(prev, nil, len(m.stack)-2); err != nil {
		return err
	}
	gone := row{id: id<<ordBits | m.ord, parent: parent.id, name: []byte(r.Path.Base())}
	return m.insertRow(&gone)
}

// put adds an entry.
func (m *Merger) put(r *Record) error {
	var parent frame
	var err error
	if r.Path != chain.Root {
		if parent, err = m.climb(r.Path, true); err != nil {
			return err
		}
	} else if err = m.pop(0); err != nil {
		return err
	}
	_, err = m.insert(parent.id, len(m.stack)-1, r)
	return err
}

// insert adds an entry below the parent, which is at that place of the stack,
// and pushes it.
func (m *Merger) insert(parent int64, at int, r *Record) (frame, error) {
	name := r.Path.Base()
	id, til, err := m.child(parent, name)
	if err != nil {
		return frame{}, err
	}
	var prev *row
	switch {
	case id == 0:
		if id, err = m.number(parent, name); err != nil {
			return frame{}, err
		}
	case til != alive:
		if _, err := m.til.Exec(alive, parent, []byte(name)); err != nil {
			return frame{}, bad(err)
		}
		fallthrough
	default:
		if prev, err = m.live(id); err != nil {
			return frame{}, err
		}
	}
	now := &row{id: id<<ordBits | m.ord, parent: parent, name: []byte(name), kind: kindOf(r), group: r.LinkGroup, known: true}
	if err := m.fill(now, r); err != nil {
		return frame{}, err
	}
	if err := m.count(prev, now, at); err != nil {
		return frame{}, err
	}
	f := frame{path: r.Path, id: id, dir: r.Type == chain.Dir, known: true}
	m.stack = append(m.stack, f)
	return f, m.insertRow(now)
}

// insertRow adds a row of versions.
func (m *Merger) insertRow(r *row) error {
	m.args = r.args(m.args[:0])
	return m.insertRows.add(m.args...)
}

// number gives a new path its number.
func (m *Merger) number(parent int64, name string) (int64, error) {
	id := m.next
	m.next++
	if id >= 1<<pathBits {
		return 0, fmt.Errorf("catalog: more than %d paths in one chain", 1<<pathBits)
	}
	return id, m.insertChildren.add(parent, []byte(name), id, alive)
}

// fill sets the content and the metadata of a row.
func (m *Merger) fill(now *row, r *Record) error {
	if r.Type == chain.File {
		inline, sum, err := m.runs.store(now.id)
		if err != nil {
			return err
		}
		now.runs, now.size = inline, r.Size
		now.known = r.Size == sum
		if !now.known && sum > 0 {
			return chain.Corrupt(r.Path.String(), fmt.Sprintf("%d bytes of content instead of %d", sum, r.Size))
		}
	} else if err := m.runs.discard(); err != nil {
		return err
	}
	c := coder{alone: true}
	now.meta = c.append(make([]byte, 0, 96), r, 0)
	return nil
}

// climb makes the stack end with the parent of p and returns that. A parent
// that is no directory at this point is made one if make is true: stock cannot
// restore such an entry, but nothing is wrong with it.
func (m *Merger) climb(p chain.Path, make bool) (frame, error) {
	n := len(m.stack)
	for n > 0 && (m.stack[n-1].path == p || !m.stack[n-1].path.Has(p)) {
		n--
	}
	for i := 0; make && i < n; i++ {
		if !m.stack[i].dir {
			n = i + 1
		}
	}
	if err := m.pop(n); err != nil {
		return frame{}, err
	}
	if n == 0 {
		if err := m.enter(0, chain.Root, make); err != nil {
			return frame{}, err
		}
	}
	for {
		top := &m.stack[len(m.stack)-1]
		if make && !top.dir {
			if err := m.imply(top); err != nil {
				return frame{}, err
			}
			top = &m.stack[len(m.stack)-1]
		}
		name, more := below(top.path, p)
		if !more {
			return *top, nil
		}
		// A piece of p, not a copy: a hostile path may have thousands of parents.
		whole := p[:len(top.path)+len(name)]
		if top.path != chain.Root {
			whole = p[:len(top.path)+1+len(name)]
		}
		if err := m.enter(top.id, whole, make); err != nil {
			return frame{}, err
		}
	}
}

// enter pushes a path that this set does not mention.
func (m *Merger) enter(parent int64, p chain.Path, make bool) error {
	f := frame{path: p}
	if len(m.stack) == 0 || m.stack[len(m.stack)-1].known {
		id, _, err := m.child(parent, p.Base())
		if err != nil {
			return err
		}
		if id != 0 {
			prev, err := m.live(id)
			if err != nil {
				return err
			}
			f.id, f.known, f.dir = id, true, isDir(prev)
		}
	}
	m.stack = append(m.stack, f)
	return nil
}

// imply makes the top of the stack a directory.
func (m *Merger) imply(top *frame) error {
	r := &Record{Entry: chain.Entry{Path: top.path, Type: chain.Dir, Mode: 0o755}, Change: difftar.Snapshot, SigLen: -1}
	defer m.runs.hold()() // they belong to the entry below
	subdirs := top.subdirs
	m.stack = m.stack[:len(m.stack)-1]
	var parent int64
	if len(m.stack) > 0 {
		parent = m.stack[len(m.stack)-1].id
	}
	if _, err := m.insert(parent, len(m.stack)-1, r); err != nil {
		return err
	}
	m.stack[len(m.stack)-1].subdirs = subdirs
	return nil
}

// pop cuts the stack to n and keeps what changed in the directories left.
func (m *Merger) pop(n int) error {
	for len(m.stack) > n {
		f := m.stack[len(m.stack)-1]
		m.stack = m.stack[:len(m.stack)-1]
		if f.subdirs == 0 {
			continue
		}
		if _, err := m.subdirs.Exec(f.id, m.ord, f.subdirs); err != nil {
			return bad(err)
		}
	}
	return nil
}

// bump returns the statement that adds ?3 to a number of ?1 from the set ?2 on.
func bump(table, key string) string {
	return `INSERT INTO ` + table + `(` + key + `, ord, n) VALUES(?1, ?2, ?3 +
		coalesce((SELECT n FROM ` + table + ` WHERE ` + key + `=?1 AND ord<=?2 ORDER BY ord DESC LIMIT 1), 0))
		ON CONFLICT DO UPDATE SET n=excluded.n`
}

// count follows a path from one row to the next in the number of its parent's
// subdirectories, the parent being at that place of the stack, and in those of
// link groups.
func (m *Merger) count(prev, now *row, parent int) error {
	was, is := isDir(prev), isDir(now)
	if parent >= 0 && was != is {
		if is {
			m.stack[parent].subdirs++
		} else {
			m.stack[parent].subdirs--
		}
	}
	var old, group uint64
	if prev != nil {
		old = prev.group
	}
	if now != nil {
		group = now.group
	}
	if group != 0 {
		m.groups = true
		if _, err := m.tx.Exec("INSERT OR IGNORE INTO touched VALUES(?)", int64(group)); err != nil {
			return bad(err)
		}
	}
	if old == group {
		return nil
	}
	if old != 0 {
		if _, err := m.links.Exec(int64(old), m.ord, -1); err != nil {
			return bad(err)
		}
	}
	if group != 0 {
		if _, err := m.links.Exec(int64(group), m.ord, 1); err != nil {
			return bad(err)
		}
	}
	return nil
}

// Volume adds a volume whose layout is known.
func (m *Merger) Volume(v *VolumeInfo) error {
	return m.AddVolume(&VolumeRow{VolumeInfo: *v, Size: v.Layout.StoredSize, SHA1: v.Layout.SHA1[:]})
}

// AddVolume adds a volume, whose layout may be nil.
func (m *Merger) AddVolume(v *VolumeRow) error {
	var layout []byte
	if v.Layout != nil {
		b, err := v.Layout.MarshalBinary()
		if err != nil {
			return fmt.Errorf("%s: %w", v.File, err)
		}
		layout = sealPage(m.ord<<32|int64(v.Number), 0, b)
	}
	_, err := m.tx.Exec(`INSERT OR REPLACE INTO volumes(id, file, size, sha1, first, last, layout) VALUES(?,?,?,?,?,?,?)`,
		m.ord<<32|int64(v.Number), v.File, v.Size, v.SHA1, []byte(v.First), []byte(v.Last), layout)
	return bad(err)
}

// Sigtar adds the layout of the set's sigtar.
func (m *Merger) Sigtar(l *volume.Layout) error {
	b, err := l.MarshalBinary()
	if err != nil {
		return fmt.Errorf("layout of a sigtar: %w", err)
	}
	_, err = m.tx.Exec(`INSERT OR REPLACE INTO sets(ord, times, manifest, size, own, sigtar, sigsize, layout)
		VALUES(?,'','',0,0,'',0,?)`, m.ord, sealPage(m.ord, 1, b))
	return bad(err)
}

// finish stores what is left and the set itself.
func (m *Merger) finish(info *SetInfo) error {
	if m.runs.pager.off > 0 {
		return errors.New("catalog: runs of no entry")
	}
	if err := m.pop(0); err != nil {
		return err
	}
	if err := m.flush(); err != nil {
		return err
	}
	if m.groups {
		if err := m.lead(); err != nil {
			return err
		}
	}
	_, err := m.tx.Exec(`INSERT INTO sets(ord, times, manifest, size, own, sigtar, sigsize) VALUES(?,?,?,?,?,?,?)
		ON CONFLICT DO UPDATE SET times=excluded.times, manifest=excluded.manifest, size=excluded.size, own=excluded.own,
		sigtar=excluded.sigtar, sigsize=excluded.sigsize`,
		m.ord, info.Times, info.Manifest.File, info.Manifest.Size, info.Own, info.Sigtar.File, info.Sigtar.Size)
	return bad(err)
}

// lead chooses, for each link group that the set touched, the version that
// stands for its new names.
func (m *Merger) lead() error {
	for group := int64(-1 << 63); ; {
		err := m.tx.QueryRow("SELECT grp FROM touched WHERE grp>? ORDER BY grp LIMIT 1", group).Scan(&group)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return bad(err)
		}
		if err := m.leadGroup(group); err != nil {
			return err
		}
	}
}

// leadGroup gives the group's versions of this set a leader: that of an older
// one that is still there with the same content, or the first of them.
func (m *Merger) leadGroup(group int64) error {
	first, err := m.groupRow(group, -1)
	if err != nil || first == nil {
		return err
	}
	leader, err := m.olderLeader(group, first)
	if err != nil {
		return err
	}
	if leader == 0 {
		leader = first.id
	}
	for r := first; r != nil; {
		if r.id != leader {
			r.leader = leader
			if err := m.insertRow(r); err != nil {
				return err
			}
		}
		if r, err = m.groupRow(group, r.id); err != nil {
			return err
		}
	}
	return m.flush()
}

// groupRow returns the group's next row of this set after id, nil at the end.
func (m *Merger) groupRow(group, id int64) (*row, error) {
	var r row
	err := r.scan(m.tx.QueryRow(selectRow+`WHERE grp=? AND id>? AND id&65535=? ORDER BY id LIMIT 1`, group, id, m.ord))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return &r, err
}

// maxOlder is how many older versions of a group are looked at.
const maxOlder = 64

// olderLeader returns the leader of an older version of the group that is
// still there and equal to r, 0 if there is none.
func (m *Merger) olderLeader(group int64, r *row) (int64, error) {
	id := int64(1) << 62
	for range maxOlder {
		var old row
		err := old.scan(m.tx.QueryRow(selectRow+`WHERE grp=? AND id<? AND id&65535<? ORDER BY id DESC LIMIT 1`, group, id, m.ord))
		if errors.Is(err, sql.ErrNoRows) {
			return 0, nil
		}
		if err != nil {
			return 0, err
		}
		id = old.id
		newest, err := m.live(old.id >> ordBits)
		if err != nil {
			return 0, err
		}
		if newest == nil || newest.id != old.id || !sameContent(&old, r) {
			continue
		}
		if old.leader != 0 {
			return old.leader, nil
		}
		return old.id, nil
	}
	return 0, nil
}

// sameContent reports whether two rows of a link group are one inode.
func sameContent(a, b *row) bool {
	var x, y Record
	if a.size != b.size || a.kind&7 != b.kind&7 || a.record(&x) != nil || b.record(&y) != nil {
		return false
	}
	return x.Mtime == y.Mtime && x.HasHash == y.HasHash && x.Hash == y.Hash && x.Link == y.Link &&
		x.Major == y.Major && x.Minor == y.Minor
}
