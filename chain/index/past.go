package index

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"

	"dupfs/chain"
)

// Name is a child that a directory has or had.
type Name struct {
	Name    string
	Path    int64 // its number
	Version int64 // its newest version up to the point
	Type    chain.Type
	Gone    bool // the newest version is its removal, or its directory's
	WasDir  bool // it is no directory, but once was one with something in it
}

// Names returns at most limit names that a path had at the point ord or at any
// before it, in order of names as bytes, beginning after the name after.
func (c *Catalog) Names(ctx context.Context, ord int, parent int64, after string, limit int) ([]Name, error) {
	return c.names(ctx, c.st.names, ord, parent, []byte(after), limit)
}

// NameOf is Names for one name; nil if the path never had it.
func (c *Catalog) NameOf(ctx context.Context, ord int, parent int64, name string) (*Name, error) {
	all, err := c.names(ctx, c.st.nameOf, ord, parent, []byte(name))
	if err != nil || len(all) == 0 {
		return nil, err
	}
	return &all[0], nil
}

func (c *Catalog) names(ctx context.Context, st *sql.Stmt, args ...any) ([]Name, error) {
	rows, err := st.QueryContext(context.WithoutCancel(ctx), args...)
	if err != nil {
		return nil, bad(err)
	}
	defer rows.Close()
	var all []Name
	for rows.Next() {
		var n Name
		var name []byte
		var til, kind int64
		if err := rows.Scan(&name, &n.Path, &til, &n.Version, &kind, &n.WasDir); err != nil {
			return nil, bad(err)
		}
		n.Name, n.Type, n.Gone = string(name), chain.Type(kind&7), kind == 0 || til != alive
		all = append(all, n)
	}
	return all, bad(rows.Err())
}

// Parent returns the number of the directory that a path is in, 0 for the root.
func (c *Catalog) Parent(ctx context.Context, path int64) (parent int64, err error) {
	if path <= rootPath {
		return 0, nil
	}
	var name []byte
	err = c.st.path.QueryRowContext(context.WithoutCancel(ctx), path).Scan(&parent, &name)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, fs.ErrNotExist
	}
	return parent, bad(err)
}

// maxChanged bounds the directories that Changed returns.
const maxChanged = 1 << 18

// Changed returns the directories beneath which the point to differs from the
// point from before it, each with the kinds of differences; nil if they are
// more than maxChanged. It reads all versions there are.
func (c *Catalog) Changed(ctx context.Context, from, to int) (map[int64]uint8, error) {
	dirs, err := c.changedParents(ctx, from, to)
	if err != nil || dirs == nil {
		return nil, err
	}
	return c.climb(ctx, dirs)
}

// Lost returns the directories beneath which something is gone since some
// point, each with chain.Deleted; nil if they are more than maxChanged. It reads
// all names there are.
func (c *Catalog) Lost(ctx context.Context) (map[int64]uint8, error) {
	rows, err := c.st.lost.QueryContext(context.WithoutCancel(ctx))
	if err != nil {
		return nil, bad(err)
	}
	defer rows.Close()
	dirs := map[int64]uint8{}
	for rows.Next() {
		var parent int64
		if err := rows.Scan(&parent); err != nil {
			return nil, bad(err)
		}
		if dirs[parent] = chain.Deleted; len(dirs) > maxChanged {
			return nil, nil
		}
	}
	if err := errors.Join(bad(rows.Err()), ctx.Err()); err != nil {
		return nil, err
	}
	rows.Close()
	return c.climb(ctx, dirs)
}

// climb gives what directories have to those above them, nil if these are more
// than maxChanged.
func (c *Catalog) climb(ctx context.Context, dirs map[int64]uint8) (map[int64]uint8, error) {
	todo := make([]int64, 0, len(dirs))
	for d := range dirs {
		todo = append(todo, d)
	}
	for len(todo) > 0 {
		d := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if d <= rootPath {
			continue
		}
		var parent int64
		var name []byte
		if err := c.st.path.QueryRowContext(context.WithoutCancel(ctx), d).Scan(&parent, &name); err != nil {
			return nil, bad(err)
		}
		if both := dirs[parent] | dirs[d]; both != dirs[parent] {
			dirs[parent] = both
			todo = append(todo, parent)
		}
		if len(dirs) > maxChanged {
			return nil, nil
		}
	}
	return dirs, ctx.Err()
}

// changedParents returns the directories of what differs.
func (c *Catalog) changedParents(ctx context.Context, from, to int) (map[int64]uint8, error) {
	rows, err := c.st.changed.QueryContext(context.WithoutCancel(ctx), from, to)
	if err != nil {
		return nil, bad(err)
	}
	defer rows.Close()
	dirs := map[int64]uint8{}
	for rows.Next() {
		var parent, kind int64
		var old sql.NullInt64
		if err := rows.Scan(&parent, &kind, &old); err != nil {
			return nil, bad(err)
		}
		dirs[parent] |= Difference(chain.Type(old.Int64&7), chain.Type(kind&7))
		if len(dirs) > maxChanged {
			return nil, nil
		}
	}
	return dirs, errors.Join(bad(rows.Err()), ctx.Err())
}

// Difference returns how a name differs by its types, 0 for not there. A
// directory that stays one differs in what is beneath, if at all.
func Difference(old, now chain.Type) uint8 {
	switch {
	case old == 0 && now == 0, old == chain.Dir && now == chain.Dir:
		return 0
	case old == 0:
		return chain.Added
	case now == 0:
		return chain.Deleted
	case old == chain.Dir || now == chain.Dir:
		return chain.Added | chain.Deleted
	}
	return chain.Modified
}
