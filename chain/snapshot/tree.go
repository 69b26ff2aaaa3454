package snapshot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"dupfs/chain"
	"dupfs/chain/index"
)

// node makes a chain.Node of a catalog's.
func (l *line) node(n *index.Node) chain.Node {
	out := chain.Node{Entry: n.Entry, Name: n.Name, Nlink: 1}
	if n.Type == chain.Dir {
		out.Dir = uint64(n.Dir())
		out.Nlink = uint32(2 + max(n.Subdirs, 0))
		return out
	}
	out.Version = l.slot<<index.VersionBits | uint64(n.Leader)
	out.Nlink = uint32(max(n.Links, 1))
	return out
}

// exact returns a version with its Size, reading volumes if it must. The Size
// stays -1 if those are damaged: the entry is still there to be seen.
func (l *line) exact(ctx context.Context, c *index.Catalog, version int64) (*index.Node, error) {
	n, err := c.Version(ctx, version)
	if err != nil || n.Type != chain.File || n.Size >= 0 {
		return n, err
	}
	err = l.learn(ctx, c, version)
	var corrupt *chain.CorruptError
	if errors.As(err, &corrupt) {
		return n, nil
	}
	if err != nil {
		return nil, err
	}
	return c.Version(ctx, version)
}

// tree is a chain.Tree.
type tree struct {
	line *line
	ord  int
}

// get returns the node that find finds, with its size.
func (t *tree) get(ctx context.Context, find func(c *index.Catalog) (*index.Node, error)) (chain.Node, error) {
	var out chain.Node
	err := t.line.do(ctx, t.ord, func(c *index.Catalog) error {
		n, err := find(c)
		if err != nil {
			return err
		}
		if n.Type == chain.File && n.Size < 0 {
			exact, err := t.line.exact(ctx, c, n.ID)
			if err != nil {
				return err
			}
			n.Size, n.Hash, n.HasHash = exact.Size, exact.Hash, exact.HasHash
		}
		out = t.line.node(n)
		return nil
	})
	return out, err
}

// rootDir numbers the root.
const rootDir = 1

// emptyRoot is the root of a point without entries.
func emptyRoot() chain.Node {
	return chain.Node{Entry: chain.Entry{Type: chain.Dir, Mode: 0o755}, Dir: rootDir, Nlink: 2}
}

// Root implements chain.Tree.
func (t *tree) Root(ctx context.Context) (chain.Node, error) {
	n, err := t.get(ctx, func(c *index.Catalog) (*index.Node, error) { return c.Lookup(ctx, t.ord, 0, "") })
	if errors.Is(err, fs.ErrNotExist) {
		return emptyRoot(), nil
	}
	return n, err
}

// Dir implements chain.Tree.
func (t *tree) Dir(ctx context.Context, dir uint64) (chain.Node, error) {
	n, err := t.get(ctx, func(c *index.Catalog) (*index.Node, error) {
		n, err := c.At(ctx, t.ord, int64(dir))
		if err == nil && n.Type != chain.Dir {
			err = fs.ErrNotExist
		}
		return n, err
	})
	if errors.Is(err, fs.ErrNotExist) {
		if dir == rootDir {
			return t.Root(ctx)
		}
		return n, fmt.Errorf("directory %d: %w", dir, fs.ErrNotExist)
	}
	return n, err
}

// Lookup implements chain.Tree. The Size of a File that is damaged beyond
// knowing it is -1.
func (t *tree) Lookup(ctx context.Context, dir uint64, name string) (chain.Node, error) {
	if name == "" || dir > 1<<39 {
		return chain.Node{}, fs.ErrNotExist
	}
	return t.get(ctx, func(c *index.Catalog) (*index.Node, error) { return c.Lookup(ctx, t.ord, int64(dir), name) })
}

// pageSize is how many children are read at a time.
const pageSize = 512

// ReadDir implements chain.Tree. Also with exact true the Size of a File that
// is damaged beyond knowing it is -1.
func (t *tree) ReadDir(ctx context.Context, dir uint64, after string, exact bool, fn func(chain.Node) error) error {
	if dir > 1<<39 {
		return fmt.Errorf("directory %d: %w", dir, fs.ErrNotExist)
	}
	// Beginning small, for who looks at the first names only.
	for limit, first := 32, true; ; limit, first = pageSize, false {
		var nodes []index.Node
		err := t.line.do(ctx, t.ord, func(c *index.Catalog) (err error) {
			nodes, err = t.page(ctx, c, int64(dir), after, limit, exact)
			return err
		})
		if err != nil {
			return err
		}
		if len(nodes) == 0 && first {
			_, err := t.Dir(ctx, dir)
			return err
		}
		for i := range nodes {
			if err := fn(t.line.node(&nodes[i])); err != nil {
				return err
			}
		}
		if len(nodes) < limit {
			return nil
		}
		after = nodes[len(nodes)-1].Name
	}
}

// page returns some children, with their sizes if exact.
func (t *tree) page(ctx context.Context, c *index.Catalog, dir int64, after string, limit int, exact bool) ([]index.Node, error) {
	nodes, err := c.Children(ctx, t.ord, dir, after, limit)
	if err != nil || !exact {
		return nodes, err
	}
	var unknown []*index.Node
	for i := range nodes {
		if nodes[i].Type == chain.File && nodes[i].Size < 0 {
			unknown = append(unknown, &nodes[i])
		}
	}
	// Set by set, in path order: that is how the volumes have them.
	slices.SortStableFunc(unknown, func(a, b *index.Node) int { return cmp.Compare(a.Ord(), b.Ord()) })
	for _, n := range unknown {
		exact, err := t.line.exact(ctx, c, n.ID)
		if err != nil {
			return nil, err
		}
		n.Size, n.Hash, n.HasHash = exact.Size, exact.Hash, exact.HasHash
	}
	return nodes, nil
}

// Resolve returns the node at a path of a tree. fs.ErrNotExist, wrapped with
// the path, if there is none.
func Resolve(ctx context.Context, t chain.Tree, p chain.Path) (chain.Node, error) {
	n, err := t.Root(ctx)
	if err != nil {
		return n, err
	}
	for _, name := range p.Components() {
		if n.Type != chain.Dir {
			return chain.Node{}, fmt.Errorf("%s: %w", p, fs.ErrNotExist)
		}
		if n, err = t.Lookup(ctx, n.Dir, name); errors.Is(err, fs.ErrNotExist) {
			return chain.Node{}, fmt.Errorf("%s: %w", p, fs.ErrNotExist)
		}
		if err != nil {
			return chain.Node{}, err
		}
	}
	n.Path = p
	return n, nil
}

// At returns the newest point that is not after t; ErrBefore if there is none.
// points are in order of time.
func At(points []chain.Point, t time.Time) (chain.Point, error) {
	for i := len(points) - 1; i >= 0; i-- {
		if !points[i].Time.After(t) {
			return points[i], nil
		}
	}
	return chain.Point{}, ErrBefore
}

// Change is one version of a path in its history.
type Change struct {
	Time    time.Time // of the point from which on the path was so
	Number  uint32    // of that point
	Deleted bool
	Node    chain.Node // unless Deleted; Size -1 where nobody knows it yet
}

// History returns the versions of a path in the line of the tree's point, the
// oldest first, up to that point. t must be a tree of the archive.
func (a *Archive) History(ctx context.Context, t chain.Tree, p chain.Path) ([]Change, error) {
	tr, ok := t.(*tree)
	if !ok {
		return nil, errors.New("not a tree of this archive")
	}
	var changes []Change
	err := tr.line.do(ctx, tr.ord, func(c *index.Catalog) error {
		changes = nil
		id, err := c.ID(ctx, p)
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		all, err := c.History(ctx, id)
		if err != nil {
			return err
		}
		for _, v := range all {
			ord := index.OrdOf(v.Version)
			if ord > tr.ord {
				break
			}
			ch := Change{Deleted: v.Deleted, Time: tr.line.set(ord).End}
			ch.Number = a.numberOf(tr.line, ord)
			if !v.Deleted {
				n, err := c.Version(ctx, v.Version)
				if err != nil {
					return err
				}
				ch.Node = tr.line.node(n)
			}
			changes = append(changes, ch)
		}
		return nil
	})
	return changes, err
}

// Brought returns a function that reports whether the point of a tree is the
// first with a file's version, so that going through all points of a line with it
// meets every version once. t must be a tree of the archive.
func (a *Archive) Brought(t chain.Tree) (func(chain.Node) bool, error) {
	tr, ok := t.(*tree)
	if !ok {
		return nil, errors.New("not a tree of this archive")
	}
	return func(n chain.Node) bool {
		return n.Type == chain.File && index.OrdOf(int64(n.Version&(1<<index.VersionBits-1))) == tr.ord
	}, nil
}

// numberOf returns the number of the point at a set.
func (a *Archive) numberOf(l *line, ord int) uint32 {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range a.points {
		if p.line == l && p.ord == ord {
			return p.Number
		}
	}
	return 0
}
