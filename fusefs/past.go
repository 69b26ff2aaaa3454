package fusefs

import (
	"context"
	"hash/fnv"
	"io/fs"
	"strings"
	"sync"
	"time"

	"dupfs/chain"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// The views across points: versions/, deleted/ and changes/. Their directories
// are made from the catalog while they are read; what is in them has the ids
// it has in the points.

// rootDir numbers the top directory of every tree; see chain.Tree.
const rootDir = 1

// classNames are the directories of changes/FROM..TO, in the order of the bits
// of chain.Added and so on.
var classNames = [...]string{"added", "modified", "deleted"}

// changedID returns the id of a directory beneath changes/FROM..TO:
//
//	nnn...nnn  cc ppp...ppp ddd...ddd: 2 bits of class, 16 of pair, 39 of Dir
func changedID(class int, pair, dir uint64) uint64 {
	return viewID(changesKind, uint64(class)<<(pairBits+dirBits)|pair<<dirBits|dir)
}

const pairBits = 16

func splitChanged(id uint64) (class int, pair, dir uint64) {
	_, n := splitView(id)
	return int(n >> (pairBits + dirBits)), n >> dirBits & (1<<pairBits - 1), n & (1<<dirBits - 1)
}

// child is a name that stream gives: an entry of a tree, or a directory of the
// view.
type child struct {
	name  string
	node  *chain.Node
	point uint32
	id    uint64 // if node is nil
}

// stream calls fn for the names in a directory of a view that viewList does
// not have, in order of names, beginning after a name.
func (f *fileSystem) stream(ctx context.Context, id uint64, after string, fn func(child) error) error {
	kind, number := splitView(id)
	if id == versionsID || id == deletedID {
		var err error
		if number, err = f.past.Place(ctx, 0, ""); err != nil {
			return nil // there is no point yet
		}
		if kind = versionsKind; id == deletedID {
			kind = deletedKind
		}
	}
	switch {
	case id == rootID && f.opts.Layout == ZFS:
		return f.streamNewest(ctx, after, fn)
	case kind == versionsKind:
		return f.past.Names(ctx, number, after, func(s chain.Spot) error {
			return fn(child{name: s.Name, id: viewID(versionsKind, s.Place)})
		})
	case kind == deletedKind:
		return f.past.Names(ctx, number, after, func(s chain.Spot) error {
			c, err := f.deletedChild(ctx, s)
			if c == nil || err != nil {
				return err
			}
			return fn(*c)
		})
	case kind == changesKind:
		return f.streamChanges(ctx, id, after, fn)
	}
	return nil
}

func (f *fileSystem) streamNewest(ctx context.Context, after string, fn func(child) error) error {
	p := f.points.current(ctx).newest()
	if p == nil {
		return nil
	}
	root, err := f.top(ctx, p)
	if err != nil || root.Type != chain.Dir {
		return err
	}
	tree, err := f.forest.Tree(ctx, p.Number)
	if err != nil {
		return err
	}
	return tree.ReadDir(ctx, root.Dir, after, false, func(n chain.Node) error {
		return fn(child{name: n.Name, node: &n, point: p.Number})
	})
}

// listStream writes what stream gives from index k on. base is the number of
// names before.
func (f *fileSystem) listStream(ctx context.Context, dir *openDir, id, base, k uint64, w *dirWriter) error {
	at := dir.marks.before(k)
	err := f.stream(ctx, id, at.name, func(c child) error {
		show := at.index >= k && f.showable(id, c.name)
		if c.name == "" {
			return nil // reading cannot go on after it
		}
		if show {
			if err := w.addChild(&c, base+at.index); err != nil {
				return err
			}
		}
		at = mark{at.index + 1, c.name}
		dir.marks.passed(at)
		return nil
	})
	dir.marks.last = at
	return err
}

// addChild writes a child with index k of a directory of a view.
func (w *dirWriter) addChild(c *child, k uint64) error {
	if c.node == nil {
		return w.add(fuse.DirEntry{Name: c.name, Mode: unix.S_IFDIR, Ino: c.id, Off: k + 3})
	}
	id, err := nodeID(c.point, c.node)
	if err != nil {
		return err
	}
	e := fuse.DirEntry{Name: c.name, Mode: format(c.node.Type), Ino: id, Off: k + 3}
	if !w.plus || c.node.Size < 0 {
		return w.add(e)
	}
	out := w.out.AddDirLookupEntry(e)
	if out == nil {
		return errFull
	}
	if err := w.f.setEntry(out, c.point, c.node); err != nil {
		return err
	}
	out.SetEntryTimeout(shortTime)
	return nil
}

// childEntry fills out with a child.
func (f *fileSystem) childEntry(ctx context.Context, c *child, out *fuse.EntryOut) error {
	if c.node == nil {
		return f.viewEntry(ctx, c.id, out)
	}
	n := *c.node // others may hold it, too
	if n.Size < 0 {
		exact, err := f.forest.Version(ctx, n.Version)
		if err != nil {
			return err
		}
		n.Size = exact.Size
	}
	if err := f.setEntry(out, c.point, &n); err != nil {
		return err
	}
	out.SetEntryTimeout(shortTime)
	return nil
}

// placeAttr changes a to the attributes of the directory of a view that stands
// for a path. Whoever could not have looked into the path at all times may not
// look into it here.
func (f *fileSystem) placeAttr(ctx context.Context, place uint64, a *fuse.Attr) error {
	versions, err := f.versions(ctx, place)
	if err != nil {
		return err
	}
	var dirs []*chain.Node
	for i := range versions {
		if n := &versions[i].Node; n.Type == chain.Dir {
			dirs = append(dirs, n)
		}
	}
	if len(dirs) > 0 {
		f.restrict(a, dirs...)
	}
	if len(versions) > 0 {
		setTime(a, versions[len(versions)-1].Node.Mtime)
	}
	return nil
}

// restrict gives a the owner of the last of the directories, and only the
// permissions that all of them grant.
func (f *fileSystem) restrict(a *fuse.Attr, dirs ...*chain.Node) {
	last := dirs[len(dirs)-1]
	mode := uint32(0o555)
	for _, n := range dirs {
		mode &= n.Mode
		if n.UID != last.UID {
			mode &^= 0o700
		}
		if n.GID != last.GID {
			mode &^= 0o070
		}
	}
	ino := a.Ino
	f.setAttr(a, ino, last)
	a.Mode, a.Nlink = unix.S_IFDIR|mode&a.Mode, 1
}

// versions returns the versions of a place. It keeps some for a moment: a walk
// asks several times for each.
func (f *fileSystem) versions(ctx context.Context, place uint64) ([]chain.PastVersion, error) {
	if v, ok := f.recent.get(place); ok {
		return v, nil
	}
	v, err := f.past.Versions(ctx, place)
	if err == nil {
		f.recent.put(place, v)
	}
	return v, err
}

// recent keeps the versions of the places asked for last, for shortTime. Its
// memory is bounded: it keeps maxRecent short lists. Its zero value is ready.
type recent struct {
	mu    sync.Mutex
	since time.Time
	kept  map[uint64][]chain.PastVersion
}

const (
	maxRecent   = 256
	maxVersions = 16 // of a list that is kept
)

func (r *recent) get(place uint64) ([]chain.PastVersion, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.since) > shortTime {
		return nil, false
	}
	v, ok := r.kept[place]
	return v, ok
}

func (r *recent) put(place uint64, v []chain.PastVersion) {
	if len(v) > maxVersions {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.kept) >= maxRecent || time.Since(r.since) > shortTime {
		r.kept, r.since = make(map[uint64][]chain.PastVersion, maxRecent), time.Now()
	}
	r.kept[place] = v
}

// versionItems lists the versions of a path that are no directories, by the
// names of the points that have them first.
func (f *fileSystem) versionItems(ctx context.Context, place uint64) ([]item, error) {
	versions, err := f.versions(ctx, place)
	if err != nil {
		return nil, err
	}
	list := f.points.current(ctx)
	var items []item
	for i := range versions {
		v := &versions[i]
		p := list.byNumber[v.Point]
		if v.Node.Type == chain.Dir || p == nil {
			continue
		}
		id, err := nodeID(v.Point, &v.Node)
		if err != nil {
			return nil, err
		}
		items = append(items, item{name: p.name, ino: id, mode: format(v.Node.Type), entry: &v.Node, point: v.Point})
	}
	return items, nil
}

// lookupVersions looks up in versions/: the version at a point, or a path
// beneath.
func (f *fileSystem) lookupVersions(ctx context.Context, place uint64, name string, out *fuse.EntryOut) error {
	if f.points.current(ctx).byName[name] != nil {
		items, err := f.versionItems(ctx, place)
		if err != nil {
			return err
		}
		for _, it := range items {
			if it.name == name {
				return f.childEntry(ctx, &child{node: it.entry, point: it.point}, out)
			}
		}
	}
	spot, err := f.past.Spot(ctx, place, name)
	if err != nil {
		return err
	}
	return f.viewEntry(ctx, viewID(versionsKind, spot.Place), out)
}

// deletedChild returns what deleted/ shows of a name: a directory that is gone,
// or beneath which something is, the last version of what is gone, or nil.
func (f *fileSystem) deletedChild(ctx context.Context, s chain.Spot) (*child, error) {
	dir := &child{name: s.Name, id: viewID(deletedKind, s.Place)}
	switch {
	case s.Now == chain.Dir:
		if lost, err := f.past.Lost(ctx, s.Place); err != nil || !lost {
			return nil, err
		}
		return dir, nil
	case s.Now != 0 && s.WasDir:
		return dir, nil
	case s.Now != 0:
		return nil, nil
	}
	versions, err := f.versions(ctx, s.Place)
	if err != nil || len(versions) == 0 {
		return nil, err
	}
	last := &versions[len(versions)-1]
	if last.Node.Type == chain.Dir {
		return dir, nil
	}
	return &child{name: s.Name, node: &last.Node, point: last.Point}, nil
}

func (f *fileSystem) lookupDeleted(ctx context.Context, place uint64, name string, out *fuse.EntryOut) error {
	spot, err := f.past.Spot(ctx, place, name)
	if err != nil {
		return err
	}
	c, err := f.deletedChild(ctx, spot)
	if err != nil {
		return err
	}
	if c == nil {
		return fs.ErrNotExist
	}
	return f.childEntry(ctx, c, out)
}

// pair is two points that are compared.
type pair struct{ from, to uint32 }

// pairs numbers the pairs that somebody looked up. The number is made from the
// points, so it is usually the same after a remount; there is room for 1<<16 of
// them. Its zero value is ready.
type pairs struct {
	mu     sync.Mutex
	pairs  map[uint64]pair
	number map[pair]uint64
}

// add returns the number of a pair; false if there is no more room.
func (t *pairs) add(p pair) (uint64, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n, ok := t.number[p]; ok {
		return n, true
	}
	if t.pairs == nil {
		t.pairs, t.number = make(map[uint64]pair), make(map[pair]uint64)
	}
	if len(t.pairs) == 1<<pairBits {
		return 0, false
	}
	h := fnv.New64a()
	h.Write([]byte{byte(p.from), byte(p.from >> 8), byte(p.from >> 16), byte(p.to), byte(p.to >> 8), byte(p.to >> 16)})
	n := h.Sum64() & (1<<pairBits - 1)
	for {
		if _, taken := t.pairs[n]; !taken {
			break
		}
		n = (n + 1) & (1<<pairBits - 1)
	}
	t.pairs[n], t.number[p] = p, n
	return n, true
}

func (t *pairs) get(n uint64) (pair, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, ok := t.pairs[n]
	if !ok {
		return p, errStale
	}
	return p, nil
}

// pairSeparator is between the two points of a name in changes/.
const pairSeparator = ".."

// pairItems lists each point with the one after it.
func (f *fileSystem) pairItems(list *pointList) []item {
	var items []item
	for i := 1; i < len(list.all); i++ {
		from, to := list.all[i-1], list.all[i]
		if n, ok := f.pairs.add(pair{from.Number, to.Number}); ok {
			items = append(items, dirItem(from.name+pairSeparator+to.name, viewID(pairKind, n)))
		}
	}
	return items
}

// lookupPair looks up FROM..TO, each the name of a point, latest, or a time.
func (f *fileSystem) lookupPair(ctx context.Context, name string, out *fuse.EntryOut) error {
	a, b, ok := strings.Cut(name, pairSeparator)
	if !ok {
		return fs.ErrNotExist
	}
	from, to := f.namedPoint(ctx, a), f.namedPoint(ctx, b)
	if from == nil || to == nil {
		return fs.ErrNotExist
	}
	n, ok := f.pairs.add(pair{from.Number, to.Number})
	if !ok {
		return fs.ErrNotExist
	}
	return f.viewEntry(ctx, viewID(pairKind, n), out)
}

func (f *fileSystem) namedPoint(ctx context.Context, name string) *point {
	list := f.points.current(ctx)
	if p := list.byName[name]; p != nil {
		return p
	}
	if name == latestName {
		return list.newest()
	}
	return f.timePoint(ctx, name)
}

// changedChild returns what a class of changes shows of a difference, nil if
// that is nothing.
func changedChild(class int, p pair, pairNumber uint64, c *chain.Change) *child {
	old, now := c.Old, c.New
	isDir := func(n *chain.Node) bool { return n != nil && n.Type == chain.Dir }
	bit := uint8(1) << class
	switch {
	case isDir(old) && isDir(now):
		if c.Below&bit != 0 {
			return &child{name: c.Name, id: changedID(class, pairNumber, now.Dir)}
		}
	case old != nil && now != nil && !isDir(old) && !isDir(now):
		if bit == chain.Modified {
			return &child{name: c.Name, node: now, point: p.to}
		}
	case now != nil && bit == chain.Added:
		return &child{name: c.Name, node: now, point: p.to}
	case old != nil && bit == chain.Deleted:
		return &child{name: c.Name, node: old, point: p.from}
	}
	return nil
}

func (f *fileSystem) streamChanges(ctx context.Context, id uint64, after string, fn func(child) error) error {
	class, number, dir := splitChanged(id)
	p, err := f.pairs.get(number)
	if err != nil {
		return err
	}
	return f.past.Changes(ctx, p.from, p.to, dir, after, func(c chain.Change) error {
		if shown := changedChild(class, p, number, &c); shown != nil {
			return fn(*shown)
		}
		return nil
	})
}

func (f *fileSystem) lookupChange(ctx context.Context, parent uint64, name string, out *fuse.EntryOut) error {
	class, number, dir := splitChanged(parent)
	p, err := f.pairs.get(number)
	if err != nil {
		return err
	}
	c, err := f.past.Change(ctx, p.from, p.to, dir, name)
	if err != nil {
		return err
	}
	shown := changedChild(class, p, number, &c)
	if shown == nil {
		return fs.ErrNotExist
	}
	return f.childEntry(ctx, shown, out)
}

// changesAttr changes a to the attributes of a directory beneath
// changes/FROM..TO: those of the directory at TO, for whoever could look into
// it at both points.
func (f *fileSystem) changesAttr(ctx context.Context, id uint64, a *fuse.Attr) error {
	_, number, dir := splitChanged(id)
	p, err := f.pairs.get(number)
	if err != nil {
		return err
	}
	c, err := f.past.ChangedDir(ctx, p.from, p.to, dir)
	if err != nil {
		return err
	}
	f.restrict(a, c.Old, c.New)
	return nil
}
