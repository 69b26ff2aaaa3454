package index

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"strings"

	"dupfs/chain"
	"dupfs/chain/volume"
)

// Sets returns what was merged, by ordinal.
func (c *Catalog) Sets(ctx context.Context) ([]SetInfo, error) {
	rows, err := c.st.sets.QueryContext(ctx)
	if err != nil {
		return nil, bad(err)
	}
	defer rows.Close()
	var sets []SetInfo
	for rows.Next() {
		var s SetInfo
		if err := rows.Scan(&s.Ord, &s.Times, &s.Manifest.File, &s.Manifest.Size, &s.Own, &s.Sigtar.File, &s.Sigtar.Size, &s.HasSigtar); err != nil {
			return nil, bad(err)
		}
		if s.Ord != len(sets) {
			return nil, fmt.Errorf("%w: set %d is missing", ErrBadCatalog, len(sets))
		}
		sets = append(sets, s)
	}
	return sets, bad(rows.Err())
}

// SigtarLayout returns the layout of a set's sigtar; fs.ErrNotExist if it is
// not known.
func (c *Catalog) SigtarLayout(ctx context.Context, ord int) (*volume.Layout, error) {
	var s SetInfo
	var blob []byte
	err := c.st.setOf.QueryRowContext(context.WithoutCancel(ctx), ord).
		Scan(&s.Times, &s.Manifest.File, &s.Manifest.Size, &s.Own, &s.Sigtar.File, &s.Sigtar.Size, &blob)
	if errors.Is(err, sql.ErrNoRows) || err == nil && blob == nil {
		return nil, fmt.Errorf("sigtar of set %d: %w", ord, fs.ErrNotExist)
	}
	if err != nil {
		return nil, bad(err)
	}
	return openLayout(int64(ord), 1, blob)
}

// openLayout checks and decodes a layout.
func openLayout(id, off int64, sealed []byte) (*volume.Layout, error) {
	n := len(sealed) - 4
	if n < 0 || string(sealPage(id, off, sealed[:n:n])) != string(sealed) {
		return nil, fmt.Errorf("%w: a layout has a wrong checksum", ErrBadCatalog)
	}
	l := new(volume.Layout)
	if err := l.UnmarshalBinary(sealed[:n]); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadCatalog, err)
	}
	return l, nil
}

// Volume returns a volume with its layout, which is nil as long as nobody
// read the volume. fs.ErrNotExist if the set has no such volume.
func (c *Catalog) Volume(ctx context.Context, ord, number int) (*VolumeRow, error) {
	v := &VolumeRow{VolumeInfo: VolumeInfo{Number: number}}
	id := int64(ord)<<32 | int64(number)
	var blob []byte
	err := c.st.volumeOf.QueryRowContext(context.WithoutCancel(ctx), id).Scan(&v.File, &v.Size, &blob)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("volume %d of set %d: %w", number, ord, fs.ErrNotExist)
	}
	if err != nil || blob == nil {
		return v, bad(err)
	}
	v.Known = true
	v.Layout, err = openLayout(id, 0, blob)
	return v, err
}

// Volumes returns the volumes of a set by number, without their layouts.
func (c *Catalog) Volumes(ctx context.Context, ord int) ([]VolumeRow, error) {
	rows, err := c.st.volumesOf.QueryContext(context.WithoutCancel(ctx), ord)
	if err != nil {
		return nil, bad(err)
	}
	defer rows.Close()
	var vols []VolumeRow
	for rows.Next() {
		var v VolumeRow
		var id int64
		var first, last []byte
		if err := rows.Scan(&id, &v.File, &v.Size, &v.SHA1, &first, &last, &v.Known); err != nil {
			return nil, bad(err)
		}
		v.Number, v.First, v.Last = int(id&(1<<32-1)), chain.Path(first), chain.Path(last)
		vols = append(vols, v)
	}
	return vols, bad(rows.Err())
}

// EachVolume calls fn for every volume of all sets, in order.
func (c *Catalog) EachVolume(ctx context.Context, fn func(ord, number int)) error {
	rows, err := c.st.allVolumes.QueryContext(context.WithoutCancel(ctx))
	if err != nil {
		return bad(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return bad(err)
		}
		fn(int(id>>32), int(id&(1<<32-1)))
	}
	return bad(rows.Err())
}

// node runs a query for one node.
func (c *Catalog) node(st *sql.Stmt, args ...any) (*Node, error) {
	n := new(Node)
	err := scanNode(st.QueryRow(args...), n)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fs.ErrNotExist
	}
	if err != nil {
		return nil, err
	}
	return n, nil
}

// Lookup returns the child of a path at the point ord; fs.ErrNotExist if there
// is none. The root is the child "" of 0.
func (c *Catalog) Lookup(ctx context.Context, ord int, parent int64, name string) (*Node, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return c.node(c.st.lookup, ord, parent, []byte(name))
}

// At returns the path with that number at the point ord; fs.ErrNotExist if it
// is not there then.
func (c *Catalog) At(ctx context.Context, ord int, path int64) (*Node, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if path < rootPath || path >= 1<<pathBits {
		return nil, fs.ErrNotExist
	}
	return c.node(c.st.versionAt, ord, path)
}

// Version returns a version by its number, its Links at the point of its set;
// fs.ErrNotExist if there is none.
func (c *Catalog) Version(ctx context.Context, version int64) (*Node, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return c.node(c.st.version, OrdOf(version), version)
}

// Children returns at most limit children of a path at the point ord, in order
// of their names as bytes, beginning after the name after ("" for all).
func (c *Catalog) Children(ctx context.Context, ord int, parent int64, after string, limit int) ([]Node, error) {
	return c.list(ctx, c.st.children, ord, parent, after, limit, false)
}

func (c *Catalog) list(ctx context.Context, st *sql.Stmt, ord int, parent int64, after string, limit int, source bool) ([]Node, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	rows, err := st.Query(ord, parent, []byte(after), limit)
	if err != nil {
		return nil, bad(err)
	}
	defer rows.Close()
	var nodes []Node
	var ctime, ino sql.NullInt64
	var more []any
	if source {
		more = []any{&ctime, &ino}
	}
	for rows.Next() {
		var n Node
		var r row
		if err := r.scanNode(rows, &n, more...); err != nil {
			return nil, err
		}
		if !source {
			c.keep(&n, r.runs)
		}
		n.Ctime, n.Ino = ctime.Int64, uint64(ino.Int64)
		nodes = append(nodes, n)
	}
	return nodes, bad(rows.Err())
}

// PathOf returns the path with a number.
func (c *Catalog) PathOf(ctx context.Context, path int64) (chain.Path, error) {
	var p string
	for depth := 0; path > rootPath; depth++ {
		var name []byte
		err := c.st.path.QueryRowContext(context.WithoutCancel(ctx), path).Scan(&path, &name)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return "", fs.ErrNotExist
		case err != nil:
			return "", bad(err)
		case len(p) > maxPath:
			return "", fmt.Errorf("%w: a path is its own parent", ErrBadCatalog)
		case depth == 0:
			p = string(name)
		default:
			p = string(name) + "/" + p
		}
	}
	return chain.Path(p), nil
}

// ID returns the number of a path of the line; fs.ErrNotExist if it never was.
func (c *Catalog) ID(ctx context.Context, p chain.Path) (int64, error) {
	id := int64(rootPath)
	for _, name := range p.Components() {
		err := c.st.childID.QueryRowContext(context.WithoutCancel(ctx), id, []byte(name)).Scan(&id)
		if errors.Is(err, sql.ErrNoRows) {
			return 0, fs.ErrNotExist
		}
		if err != nil {
			return 0, bad(err)
		}
	}
	return id, nil
}

// Change is one version of a path in its History.
type Change struct {
	Version int64
	Deleted bool
}

// History returns the versions of a path, the oldest first.
func (c *Catalog) History(ctx context.Context, path int64) ([]Change, error) {
	rows, err := c.st.history.QueryContext(context.WithoutCancel(ctx), path)
	if err != nil {
		return nil, bad(err)
	}
	defer rows.Close()
	var changes []Change
	for rows.Next() {
		var ch Change
		var kind int64
		if err := rows.Scan(&ch.Version, &kind); err != nil {
			return nil, bad(err)
		}
		ch.Deleted = kind == 0
		changes = append(changes, ch)
	}
	return changes, bad(rows.Err())
}

// walkPage is how many children are read at a time, deep down fewer, so that
// the memory of a walk is bounded by some 8 MiB.
func walkPage(depth int) int { return max(512>>(depth/8), 4) }

// Walk yields all nodes at the point ord with their Path, in path order. It
// holds no query open while it yields. What lies below chain.MaxDepth is an error.
func (c *Catalog) Walk(ctx context.Context, ord int) iter.Seq2[*Node, error] {
	return func(yield func(*Node, error) bool) {
		root, err := c.Lookup(ctx, ord, 0, "")
		if errors.Is(err, fs.ErrNotExist) {
			return
		}
		if err == nil {
			root.Ctime, root.Ino, err = c.source(root.ID)
		}
		if err != nil || !yield(root, nil) {
			if err != nil {
				yield(nil, err)
			}
			return
		}
		if root.Type == chain.Dir {
			c.walk(ctx, ord, root.Dir(), yield)
		}
	}
}

// level is a directory that a walk is in.
type level struct {
	id   int64
	path chain.Path
	page []Node
	last string // name of the last child of page
	end  bool   // no children after page
}

func (c *Catalog) walk(ctx context.Context, ord int, root int64, yield func(*Node, error) bool) {
	stack := []level{{id: root}}
	for len(stack) > 0 {
		l := &stack[len(stack)-1]
		if len(l.page) == 0 {
			if l.end {
				stack = stack[:len(stack)-1]
				continue
			}
			limit := walkPage(len(stack))
			page, err := c.list(ctx, c.st.walk, ord, l.id, l.last, limit, true)
			if err != nil {
				yield(nil, err)
				return
			}
			l.page, l.end = page, len(page) < limit
			if len(page) > 0 {
				l.last = page[len(page)-1].Name
			}
			continue
		}
		n := &l.page[0]
		l.page = l.page[1:]
		n.Path = l.path.Join(n.Name)
		if n.Type == chain.Dir {
			stack = append(stack, level{id: n.Dir(), path: n.Path})
		}
		if !yield(n, nil) {
			return
		}
		if len(stack) > chain.MaxDepth {
			yield(nil, fmt.Errorf("%.80s…: more than %d directories deep", n.Path, chain.MaxDepth))
			return
		}
	}
}

func (c *Catalog) source(version int64) (ctime int64, ino uint64, err error) {
	var i int64
	err = c.r.QueryRow("SELECT ctime, ino FROM source WHERE version=?", version).Scan(&ctime, &i)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, 0, nil
	}
	return ctime, uint64(i), bad(err)
}

// Source is what the file system of a backup's source said of an entry.
type Source struct {
	Path  chain.Path // looked up if Version is 0
	ID    int64      // of the version, 0 if not known
	Ctime int64      // nanoseconds since 1970
	Ino   uint64
}

// NoteSource remembers what the source's file system said of entries at the
// point ord. Paths that are not there then are skipped.
func (c *Catalog) NoteSource(ctx context.Context, ord int, entries iter.Seq2[Source, error]) error {
	return c.write(ctx, func(tx *sql.Tx) error {
		put, err := tx.Prepare("INSERT OR REPLACE INTO source(version, ctime, ino) VALUES(?,?,?)")
		if err != nil {
			return bad(err)
		}
		find, err := newFinder(tx, ord)
		if err != nil {
			return err
		}
		for s, err := range entries {
			if err != nil {
				return err
			}
			if s.ID == 0 {
				if s.ID, err = find.version(s.Path); err != nil {
					return err
				}
			}
			if s.ID == 0 {
				continue
			}
			if _, err := put.Exec(s.ID, s.Ctime, int64(s.Ino)); err != nil {
				return bad(err)
			}
		}
		return nil
	})
}

// finder finds the versions of paths, quickly if they come in path order.
type finder struct {
	child, at *sql.Stmt
	ord       int
	stack     []frame
	newest    sql.NullInt64 // version of the top of the stack, if it was just found
}

func newFinder(tx *sql.Tx, ord int) (f *finder, err error) {
	f = &finder{ord: ord}
	if f.child, err = tx.Prepare(`SELECT id, (SELECT max(v.id) FROM versions v WHERE v.id BETWEEN c.id<<16 AND (c.id<<16)|?3)
		FROM children c WHERE parent=?1 AND name=?2`); err != nil {
		return nil, bad(err)
	}
	f.at, err = tx.Prepare("SELECT max(id) FROM versions WHERE id BETWEEN ?1<<16 AND (?1<<16)|?2")
	return f, bad(err)
}

// path returns the number of a path, 0 if there is none.
func (f *finder) path(p chain.Path) (int64, error) {
	for len(f.stack) > 0 && !f.stack[len(f.stack)-1].path.Has(p) {
		f.stack = f.stack[:len(f.stack)-1]
	}
	if len(f.stack) == 0 {
		f.stack = append(f.stack, frame{id: rootPath})
	}
	for {
		top := f.stack[len(f.stack)-1]
		if top.path == p {
			return top.id, nil
		}
		name, _ := below(top.path, p)
		next := frame{path: top.path.Join(name)}
		err := f.child.QueryRow(top.id, []byte(next.path.Base()), f.ord).Scan(&next.id, &f.newest)
		if errors.Is(err, sql.ErrNoRows) {
			return 0, nil
		}
		if err != nil {
			return 0, bad(err)
		}
		f.stack = append(f.stack, next)
	}
}

// below returns the first component of p below dir, and whether there are more.
func below(dir, p chain.Path) (name string, more bool) {
	rest := string(p[len(dir):])
	if dir != chain.Root {
		rest = rest[1:]
	}
	name, _, more = strings.Cut(rest, "/")
	return name, more
}

// version returns the newest version of a path, 0 if there is none.
func (f *finder) version(p chain.Path) (int64, error) {
	f.newest = sql.NullInt64{}
	id, err := f.path(p)
	if err != nil || id == 0 {
		return 0, err
	}
	if f.newest.Valid {
		return f.newest.Int64, nil
	}
	var v sql.NullInt64
	err = f.at.QueryRow(id, f.ord).Scan(&v)
	return v.Int64, bad(err)
}
