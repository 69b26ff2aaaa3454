package chaintest

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"dupfs/chain"
)

// Point is a point in time with its tree.
type Point struct {
	Time   time.Time // zero: 1700000000 plus 100000 for each point before
	Full   bool
	Damage string
	Items  []Item
}

// Forest is a chain.Forest in memory. Set its options before it is used.
type Forest struct {
	// Wrap, if not nil, wraps each Content that is opened.
	Wrap func(n chain.Node, c chain.Content) chain.Content
	// Lazy leaves sizes -1 in a ReadDir that need not be exact.
	Lazy bool

	// Opens, Lists and Lookups count calls.
	Opens, Lists, Lookups atomic.Int64

	mu       sync.RWMutex
	made     uint32 // points ever made
	points   []chain.Point
	trees    map[uint32]*tree
	dirs     map[string]uint64 // by path, "/"-joined names
	versions map[uint64]*node
	last     map[string]*node // by key of the newest tree
}

var _ chain.Forest = (*Forest)(nil)

// node is a Node with its children and content.
type node struct {
	chain.Node
	content chain.Content
	names   []string // of the children, sorted
	kids    map[string]*node
}

// New returns a forest with those points, oldest first, numbered from 1.
func New(points ...Point) *Forest {
	f := &Forest{
		trees: map[uint32]*tree{}, dirs: map[string]uint64{},
		versions: map[uint64]*node{}, last: map[string]*node{},
	}
	for _, p := range points {
		f.Add(p)
	}
	return f
}

// Add appends a point and returns its number.
func (f *Forest) Add(p Point) uint32 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p.Time.IsZero() {
		p.Time = time.Unix(1700000000+100000*int64(f.made), 0).UTC()
	}
	f.made++
	t := &tree{f: f, dirs: map[uint64]*node{}}
	t.root = f.plant(p.Items)
	last := map[string]*node{}
	groups := map[uint64]*node{}
	f.number(t, t.root, "", groups, last)
	f.last = last
	f.trees[f.made] = t
	f.points = append(f.points, chain.Point{
		Time: p.Time, Number: f.made, Full: p.Full, Damage: p.Damage,
	})
	return f.made
}

// Remove takes a point away. Its versions stay readable.
func (f *Forest) Remove(number uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.trees, number)
	f.points = slices.DeleteFunc(f.points, func(p chain.Point) bool { return p.Number == number })
}

// plant makes the nodes of a literal.
func (f *Forest) plant(items []Item) *node {
	root := &node{Node: chain.Node{Entry: Dir("").Entry}}
	for _, it := range items {
		n := root
		parts := it.Path.Components()
		if len(parts) > 0 {
			for _, c := range parts[:len(parts)-1] {
				n = n.child(c)
			}
			name := parts[len(parts)-1]
			if it.Name != "" {
				name = it.Name
			}
			n = n.child(name)
		}
		n.Entry, n.content = it.Entry, it.Content
		if n.content == nil {
			n.content = Bytes("")
		}
	}
	return root
}

// child returns the child called name, a directory if it has to be made.
func (n *node) child(name string) *node {
	if k := n.kids[name]; k != nil {
		return k
	}
	k := &node{Node: chain.Node{Entry: Dir("").Entry, Name: name}}
	if n.kids == nil {
		n.kids = map[string]*node{}
	}
	n.kids[name] = k
	i, _ := slices.BinarySearch(n.names, name)
	n.names = slices.Insert(n.names, i, name)
	return k
}

// number gives n and what is below it its numbers and link count.
func (f *Forest) number(t *tree, n *node, key string, groups map[uint64]*node, last map[string]*node) {
	n.Entry.Path = ""
	if n.Type == chain.Dir {
		d := f.dirs[key]
		if d == 0 {
			d = uint64(len(f.dirs) + 1)
			f.dirs[key] = d
		}
		n.Dir, n.Nlink = d, 2
		t.dirs[d] = n
		for _, name := range n.names {
			k := n.kids[name]
			if k.Type == chain.Dir {
				n.Nlink++
			}
			f.number(t, k, key+"/"+name, groups, last)
		}
		return
	}
	n.Nlink = 1
	if n.LinkGroup != 0 {
		if g := groups[n.LinkGroup]; g != nil {
			g.Nlink++
			shareGroup(t.root, g)
			n.Version, n.Nlink = g.Version, g.Nlink
			return
		}
		groups[n.LinkGroup] = n
	}
	if old := f.last[key]; old != nil && same(old, n) {
		n.Version = old.Version
	} else {
		n.Version = uint64(len(f.versions) + 1)
	}
	f.versions[n.Version] = n
	last[key] = n
}

// shareGroup gives all names of g's group its link count.
func shareGroup(n, g *node) {
	if n.Type != chain.Dir && n.Version == g.Version && n.Version != 0 {
		n.Nlink = g.Nlink
	}
	for _, k := range n.kids {
		shareGroup(k, g)
	}
}

// same reports whether two nodes are one version.
func same(a, b *node) bool {
	if fmt.Sprint(a.Entry) != fmt.Sprint(b.Entry) {
		return false
	}
	x, ok := a.content.(Bytes)
	y, ok2 := b.content.(Bytes)
	return ok && ok2 && x == y
}

// Points returns the points.
func (f *Forest) Points(ctx context.Context) ([]chain.Point, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return slices.Clone(f.points), ctx.Err()
}

// Tree returns the tree of a point.
func (f *Forest) Tree(ctx context.Context, number uint32) (chain.Tree, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if t := f.trees[number]; t != nil {
		return t, ctx.Err()
	}
	return nil, fmt.Errorf("point %d: %w", number, fs.ErrNotExist)
}

// Newest returns the tree of the newest point.
func (f *Forest) Newest() chain.Tree {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.trees[f.points[len(f.points)-1].Number]
}

// Version returns a version.
func (f *Forest) Version(ctx context.Context, version uint64) (chain.Node, error) {
	n, err := f.version(version)
	if err != nil {
		return chain.Node{}, err
	}
	return n.Node, ctx.Err()
}

// version finds a version.
func (f *Forest) version(version uint64) (*node, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if n := f.versions[version]; n != nil {
		return n, nil
	}
	return nil, fmt.Errorf("version %d: %w", version, fs.ErrNotExist)
}

// OpenVersion opens a version's content.
func (f *Forest) OpenVersion(ctx context.Context, version uint64) (chain.Content, error) {
	f.Opens.Add(1)
	n, err := f.version(version)
	if err != nil {
		return nil, err
	}
	c := n.content
	if f.Wrap != nil {
		c = f.Wrap(n.Node, c)
	}
	return c, ctx.Err()
}

// tree is a chain.Tree.
type tree struct {
	f    *Forest
	root *node
	dirs map[uint64]*node
}

func (t *tree) Root(ctx context.Context) (chain.Node, error) { return t.root.Node, ctx.Err() }

// dir finds a directory.
func (t *tree) dir(dir uint64) (*node, error) {
	if n := t.dirs[dir]; n != nil {
		return n, nil
	}
	return nil, fmt.Errorf("directory %d: %w", dir, fs.ErrNotExist)
}

func (t *tree) Dir(ctx context.Context, dir uint64) (chain.Node, error) {
	n, err := t.dir(dir)
	if err != nil {
		return chain.Node{}, err
	}
	return n.Node, ctx.Err()
}

func (t *tree) Lookup(ctx context.Context, dir uint64, name string) (chain.Node, error) {
	t.f.Lookups.Add(1)
	n, err := t.dir(dir)
	if err != nil {
		return chain.Node{}, err
	}
	k := n.kids[name]
	if k == nil {
		return chain.Node{}, fmt.Errorf("%q: %w", name, fs.ErrNotExist)
	}
	return k.Node, ctx.Err()
}

func (t *tree) ReadDir(ctx context.Context, dir uint64, after string, exact bool, fn func(chain.Node) error) error {
	t.f.Lists.Add(1)
	n, err := t.dir(dir)
	if err != nil {
		return err
	}
	for _, name := range n.names {
		if after != "" && strings.Compare(name, after) <= 0 {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		k := n.kids[name].Node
		if t.f.Lazy && !exact && k.Type == chain.File {
			k.Size = -1
		}
		if err := fn(k); err != nil {
			return err
		}
	}
	return nil
}
