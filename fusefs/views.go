package fusefs

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"time"

	"dupfs/chain"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// The part of the tree that is in no archive: the directories above the points,
// the links to points, and the views across points. A view has ids below
// versionBit, an attribute, names to look up, and a list of names, which are
// made afresh for each request.

// The kinds of ids.
const (
	fixedKind    = iota // what is there once: the number is one of those below
	atKind              // a link in at/: the number of a point
	latestKind          // a link latest in the fixed directory of that number
	versionsKind        // a path in versions/: its place
	deletedKind         // a directory in deleted/: its place
	pairKind            // FROM..TO in changes/: a number of fileSystem.pairs
	changesKind         // a directory beneath: see changesID
)

// What is there once.
const (
	rootID = fuse.FUSE_ROOT_ID + iota
	snapshotsID
	latestID // in snapshots/
	atID
	versionsID
	deletedID
	changesID
	statusDirID
	statusID
	zfsID
	idsID
	tagsID
	fullID
	incrementalID
	hostsID
	hostID
)

const (
	snapshotsName = "snapshots"
	latestName    = "latest"
	atName        = "at"
)

// item is a name in a view's list.
type item struct {
	name  string
	ino   uint64
	mode  uint32      // the type; 0 if it is not known without asking
	entry *chain.Node // what it is, if it is in a tree and known
	point uint32
}

func dirItem(name string, id uint64) item { return item{name: name, ino: id, mode: unix.S_IFDIR} }

// isView reports whether id is a directory of a view.
func isView(id uint64) bool {
	switch kind, _ := splitView(id); kind {
	case fixedKind:
		return id != latestID && id != statusID
	case versionsKind, deletedKind, pairKind, changesKind:
		return true
	}
	return false
}

// fixedItems returns the names that a fixed directory always has.
func (f *fileSystem) fixedItems(id uint64) []item {
	switch id {
	case rootID:
		switch f.opts.Layout {
		case ZFS:
			return nil // hidden, as ZFS does: the rest is a tree
		case Restic:
			items := []item{dirItem("ids", idsID), dirItem(snapshotsName, snapshotsID), dirItem("tags", tagsID)}
			if f.opts.Host != "" {
				items = append(items, dirItem("hosts", hostsID))
			}
			return append(items, f.moreItems(true)...)
		}
		return append([]item{dirItem(snapshotsName, snapshotsID)}, f.moreItems(true)...)
	case statusDirID:
		items := []item{{name: "status.json", ino: statusID, mode: unix.S_IFREG}}
		if f.opts.Layout == ZFS {
			items = append(items, f.moreItems(false)...)
		}
		return items
	case zfsID:
		return []item{dirItem("snapshot", snapshotsID)}
	case tagsID:
		return []item{dirItem("full", fullID), dirItem("incremental", incrementalID)}
	case hostsID:
		return []item{dirItem(f.opts.Host, hostID)}
	}
	return nil
}

// moreItems returns the views that the options and the forest make possible.
func (f *fileSystem) moreItems(status bool) []item {
	var items []item
	if f.opts.ParseTime != nil {
		items = append(items, dirItem(atName, atID))
	}
	if f.past != nil {
		items = append(items, dirItem("versions", versionsID), dirItem("deleted", deletedID), dirItem("changes", changesID))
	}
	if status && f.opts.Status != nil {
		items = append(items, dirItem(".dupfs", statusDirID))
	}
	return items
}

// hiddenItems returns the names that a fixed directory has but does not list.
func (f *fileSystem) hiddenItems(id uint64) []item {
	if id != rootID || f.opts.Layout != ZFS {
		return nil
	}
	items := []item{dirItem(".zfs", zfsID)}
	if f.opts.Status != nil {
		items = append(items, dirItem(".dupfs", statusDirID))
	}
	return items
}

// viewLookup fills out with what is called name in a view.
func (f *fileSystem) viewLookup(ctx context.Context, parent uint64, name string, out *fuse.EntryOut) error {
	switch kind, number := splitView(parent); kind {
	case versionsKind:
		return f.lookupVersions(ctx, number, name, out)
	case deletedKind:
		return f.lookupDeleted(ctx, number, name, out)
	case pairKind:
		for class, n := range classNames {
			if n == name {
				return f.viewEntry(ctx, changedID(class, number, rootDir), out)
			}
		}
		return fs.ErrNotExist
	case changesKind:
		return f.lookupChange(ctx, parent, name, out)
	}
	for _, it := range append(f.fixedItems(parent), f.hiddenItems(parent)...) {
		if it.name == name {
			return f.viewEntry(ctx, it.ino, out)
		}
	}
	return f.lookupFixed(ctx, parent, name, out)
}

// lookupFixed looks up what a fixed directory has beside its fixed names.
func (f *fileSystem) lookupFixed(ctx context.Context, parent uint64, name string, out *fuse.EntryOut) error {
	switch parent {
	case rootID:
		if f.opts.Layout == ZFS {
			return f.lookupNewest(ctx, name, out)
		}
	case snapshotsID, idsID, fullID, incrementalID, hostID:
		if id := latestIn(parent); name == latestName && id != 0 {
			return f.viewEntry(ctx, id, out)
		}
		return f.lookupPoint(ctx, parent, name, out)
	case atID:
		p := f.timePoint(ctx, name)
		if p == nil {
			return fs.ErrNotExist
		}
		return f.viewEntry(ctx, viewID(atKind, uint64(p.Number)), out)
	case versionsID, deletedID:
		place, err := f.past.Place(ctx, 0, "")
		switch {
		case err != nil:
			return err
		case parent == versionsID:
			return f.lookupVersions(ctx, place, name, out)
		}
		return f.lookupDeleted(ctx, place, name, out)
	case changesID:
		return f.lookupPair(ctx, name, out)
	}
	return fs.ErrNotExist
}

// timePoint returns the newest point not after the time that text means, nil
// if there is none or the text is no time.
func (f *fileSystem) timePoint(ctx context.Context, text string) *point {
	if f.opts.ParseTime == nil {
		return nil
	}
	t, err := f.opts.ParseTime(text)
	if err != nil {
		return nil
	}
	return f.points.current(ctx).at(t)
}

// latestIn returns the id of the link latest in a directory of points, 0 if it
// has none.
func latestIn(dir uint64) uint64 {
	switch dir {
	case snapshotsID:
		return latestID
	case fullID, incrementalID, hostID:
		return viewID(latestKind, dir)
	}
	return 0
}

// pointsIn returns the points that a directory of points shows.
func pointsIn(list *pointList, dir uint64) []*point {
	if dir != fullID && dir != incrementalID {
		return list.all
	}
	var some []*point
	for _, p := range list.all {
		if p.Full == (dir == fullID) {
			some = append(some, p)
		}
	}
	return some
}

// nameIn returns the name of a point in a directory of points.
func (p *point) nameIn(dir uint64) string {
	if dir == idsID {
		return fmt.Sprintf("%08x", p.Number)
	}
	return p.name
}

// lookupPoint fills out with the top entry of a point. Its name may go with
// the point, while its attributes stay.
func (f *fileSystem) lookupPoint(ctx context.Context, parent uint64, name string, out *fuse.EntryOut) error {
	list := f.points.current(ctx)
	p := list.byName[name]
	if parent != snapshotsID && parent != hostID {
		p = nil
		for _, q := range pointsIn(list, parent) {
			if q.nameIn(parent) == name {
				p = q
			}
		}
	}
	if p == nil {
		return fs.ErrNotExist
	}
	root, err := f.top(ctx, p)
	broken := isCorrupt(err)
	if broken {
		n := brokenTop()
		n.Mtime = chain.TimeOf(p.Time)
		root, err = &n, nil
	}
	if err == nil {
		err = f.setEntry(out, p.Number, root)
	}
	if err != nil {
		return err
	}
	out.SetEntryTimeout(shortTime)
	if broken {
		out.SetAttrTimeout(shortTime)
	}
	return nil
}

// top returns the top entry of a point.
func (f *fileSystem) top(ctx context.Context, p *point) (*chain.Node, error) {
	if root := p.root.Load(); root != nil {
		return root, nil
	}
	tree, err := f.forest.Tree(ctx, p.Number)
	if err != nil {
		return nil, err
	}
	n, err := tree.Root(ctx)
	if err != nil {
		return nil, err
	}
	p.root.Store(&n)
	return &n, nil
}

// lookupNewest looks a name up in the newest tree, which the root shows in the
// layout of ZFS.
func (f *fileSystem) lookupNewest(ctx context.Context, name string, out *fuse.EntryOut) error {
	p := f.points.current(ctx).newest()
	if p == nil {
		return fs.ErrNotExist
	}
	root, err := f.top(ctx, p)
	if err != nil {
		return err
	}
	tree, err := f.forest.Tree(ctx, p.Number)
	if err != nil {
		return err
	}
	n, err := tree.Lookup(ctx, root.Dir, name)
	if err != nil {
		return err
	}
	if err := f.setEntry(out, p.Number, &n); err != nil {
		return err
	}
	out.SetEntryTimeout(shortTime)
	return nil
}

func (f *fileSystem) viewEntry(ctx context.Context, id uint64, out *fuse.EntryOut) error {
	if err := f.viewAttr(ctx, id, &out.Attr); err != nil {
		return err
	}
	out.NodeId = id
	out.SetEntryTimeout(shortTime)
	out.SetAttrTimeout(shortTime)
	return nil
}

// viewAttr fills a with the attributes of a view or a link in one. They belong
// to the user who mounted, and are as old as the newest point; where a view
// stands for a directory of the archive, its permissions hold.
func (f *fileSystem) viewAttr(ctx context.Context, id uint64, a *fuse.Attr) error {
	list := f.points.current(ctx)
	*a = fuse.Attr{
		Ino:     id,
		Mode:    unix.S_IFDIR | 0o555,
		Nlink:   1, // unknown, which stops programs from counting on it
		Owner:   fuse.Owner{Uid: uint32(os.Geteuid()), Gid: uint32(os.Getegid())},
		Blksize: blockSize,
	}
	mtime := f.started
	if p := list.newest(); p != nil {
		mtime = p.Time
	}
	setTime(a, chain.TimeOf(mtime))
	switch kind, number := splitView(id); kind {
	case fixedKind:
		return f.fixedAttr(ctx, list, id, a)
	case versionsKind, deletedKind:
		return f.placeAttr(ctx, number, a)
	case changesKind:
		return f.changesAttr(ctx, id, a)
	case pairKind:
		_, err := f.pairs.get(number)
		return err
	}
	p, err := f.linkedPoint(list, id)
	if err != nil {
		return err
	}
	f.linkAttr(id, p, a)
	return nil
}

func (f *fileSystem) linkAttr(id uint64, p *point, a *fuse.Attr) {
	setTime(a, chain.TimeOf(p.Time))
	a.Mode, a.Nlink = unix.S_IFLNK|0o777, 1
	a.Size = uint64(len(f.linkTarget(id, p)))
}

// fixedAttr changes a to the attributes of what is there once.
func (f *fileSystem) fixedAttr(ctx context.Context, list *pointList, id uint64, a *fuse.Attr) error {
	switch id {
	case statusID:
		a.Mode = unix.S_IFREG | 0o444
		a.Size = uint64(len(f.statusText()))
		a.Blocks = (a.Size + 511) / 512
		setTime(a, chain.TimeOf(time.Now()))
	case latestID:
		p, err := f.linkedPoint(list, id)
		if err != nil {
			return err
		}
		f.linkAttr(id, p, a)
	case versionsID, deletedID:
		place, err := f.past.Place(ctx, 0, "")
		if err != nil {
			return nil // there is no point yet
		}
		return f.placeAttr(ctx, place, a)
	case rootID:
		if p := list.newest(); f.opts.Layout == ZFS && p != nil {
			root, err := f.top(ctx, p)
			if err != nil || root.Type != chain.Dir {
				return err
			}
			f.setAttr(a, id, root)
			return nil
		}
		a.Nlink = 2 + uint32(len(f.fixedItems(id)))
	case snapshotsID:
		a.Nlink = 2 + uint32(len(list.all))
	case atID:
		a.Nlink = 2
	}
	return nil
}

// linkedPoint returns the point that a link in a view leads to.
func (f *fileSystem) linkedPoint(list *pointList, id uint64) (*point, error) {
	var p *point
	switch kind, number := splitView(id); {
	case id == latestID:
		p = list.newest()
	case kind == latestKind:
		if some := pointsIn(list, number); len(some) > 0 {
			p = some[len(some)-1]
		}
	case kind == atKind && number < 1<<pointBits:
		p = list.byNumber[uint32(number)]
	}
	if p == nil {
		return nil, errStale
	}
	return p, nil
}

// linkTarget returns the target of a link to p: relative, so that it holds
// wherever the mount is seen.
func (f *fileSystem) linkTarget(id uint64, p *point) string {
	kind, _ := splitView(id)
	switch {
	case kind != atKind:
		return p.name
	case f.opts.Layout == ZFS:
		return "../../.zfs/snapshot/" + p.name
	}
	return "../" + snapshotsName + "/" + p.name
}

func (f *fileSystem) viewReadlink(ctx context.Context, id uint64) (string, error) {
	p, err := f.linkedPoint(f.points.current(ctx), id)
	if err != nil {
		return "", err
	}
	return f.linkTarget(id, p), nil
}

// viewList returns the names that a view has in memory anyway, in the order
// they are shown; those that stream gives come after them. The length of the
// list of points is the bound of its memory.
func (f *fileSystem) viewList(ctx context.Context, id uint64) ([]item, error) {
	kind, number := splitView(id)
	switch {
	case id == versionsID:
		place, err := f.past.Place(ctx, 0, "")
		if err != nil {
			return nil, nil
		}
		return f.versionItems(ctx, place)
	case kind == versionsKind:
		return f.versionItems(ctx, number)
	case kind == pairKind:
		var items []item
		for class, name := range classNames {
			items = append(items, dirItem(name, changedID(class, number, rootDir)))
		}
		return items, nil
	case kind != fixedKind:
		return nil, nil
	}
	switch id {
	case snapshotsID, idsID, fullID, incrementalID, hostID:
		return f.pointItems(f.points.current(ctx), id), nil
	case changesID:
		return f.pairItems(f.points.current(ctx)), nil
	}
	return f.fixedItems(id), nil
}

// pointItems lists points without asking for a single one of their trees.
func (f *fileSystem) pointItems(list *pointList, dir uint64) []item {
	points := pointsIn(list, dir)
	items := make([]item, 0, len(points)+1)
	for _, p := range points {
		it := item{name: p.nameIn(dir), point: p.Number, ino: fuse.FUSE_UNKNOWN_INO}
		if root := p.root.Load(); root != nil {
			if id, err := nodeID(p.Number, root); err == nil {
				it.ino, it.mode, it.entry = id, format(root.Type), root
			}
		}
		items = append(items, it)
	}
	if id := latestIn(dir); id != 0 && len(points) > 0 {
		items = append(items, item{name: latestName, ino: id, mode: unix.S_IFLNK})
	}
	return items
}
