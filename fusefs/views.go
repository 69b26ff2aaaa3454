package fusefs

import (
	"context"
	"io/fs"
	"os"

	"dupfs/chain"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// The part of the tree that is in no archive: the directories above the
// points, and the links to points. A view has ids below versionBit, an
// attribute, names to look up, and a list of names; all four are made afresh
// from the list of points for each request.
const (
	rootID      = fuse.FUSE_ROOT_ID
	snapshotsID = 2
	latestID    = 3
	atID        = 4
	atLinkBit   = 1 << 32 // a link in at/: the point's number is below it
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
	entry *chain.Node // a point's top entry, if it is known
	point uint32
}

// isView reports whether id is a directory of a view.
func isView(id uint64) bool { return id == rootID || id == snapshotsID || id == atID }

// viewLookup fills out with what is called name in a view.
func (f *fileSystem) viewLookup(ctx context.Context, parent uint64, name string, out *fuse.EntryOut) error {
	switch {
	case parent == rootID && name == snapshotsName:
		return f.viewEntry(ctx, snapshotsID, out)
	case parent == rootID && name == atName && f.opts.ParseTime != nil:
		return f.viewEntry(ctx, atID, out)
	case parent == snapshotsID && name == latestName:
		return f.viewEntry(ctx, latestID, out)
	case parent == snapshotsID:
		return f.lookupPoint(ctx, name, out)
	case parent == atID && f.opts.ParseTime != nil:
		t, err := f.opts.ParseTime(name)
		if err != nil {
			return fs.ErrNotExist // the name is no time
		}
		p := f.points.current(ctx).at(t)
		if p == nil {
			return fs.ErrNotExist
		}
		return f.viewEntry(ctx, atLinkBit|uint64(p.Number), out)
	}
	return fs.ErrNotExist
}

// lookupPoint fills out with the top entry of a point. Its name may go with
// the point, while its attributes stay.
func (f *fileSystem) lookupPoint(ctx context.Context, name string, out *fuse.EntryOut) error {
	p := f.points.current(ctx).byName[name]
	if p == nil {
		return fs.ErrNotExist
	}
	root := p.root.Load()
	if root == nil {
		tree, err := f.forest.Tree(ctx, p.Number)
		if err != nil {
			return err
		}
		n, err := tree.Root(ctx)
		if err != nil {
			return err
		}
		root = &n
		p.root.Store(root)
	}
	if err := f.setEntry(out, p.Number, root); err != nil {
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
// to the user who mounted, and are as old as the newest point.
func (f *fileSystem) viewAttr(ctx context.Context, id uint64, a *fuse.Attr) error {
	list := f.points.current(ctx)
	*a = fuse.Attr{
		Ino:     id,
		Mode:    unix.S_IFDIR | 0o555,
		Nlink:   2,
		Owner:   fuse.Owner{Uid: uint32(os.Geteuid()), Gid: uint32(os.Getegid())},
		Blksize: blockSize,
	}
	mtime := f.started
	if p := list.newest(); p != nil {
		mtime = p.Time
	}
	switch id {
	case rootID:
		a.Nlink++
		if f.opts.ParseTime != nil {
			a.Nlink++
		}
	case snapshotsID:
		a.Nlink += uint32(len(list.all))
	case atID:
	default:
		p, err := f.linkedPoint(list, id)
		if err != nil {
			return err
		}
		mtime = p.Time
		a.Mode, a.Nlink = unix.S_IFLNK|0o777, 1
		a.Size = uint64(len(linkTarget(id, p)))
	}
	setTime(a, chain.TimeOf(mtime))
	return nil
}

// linkedPoint returns the point that a link in a view leads to.
func (f *fileSystem) linkedPoint(list *pointList, id uint64) (*point, error) {
	var p *point
	switch {
	case id == latestID:
		p = list.newest()
	case id&^(1<<pointBits-1) == atLinkBit:
		p = list.byNumber[uint32(id&(1<<pointBits-1))]
	}
	if p == nil {
		return nil, errStale
	}
	return p, nil
}

// linkTarget returns the target of a link to p: relative, so that it holds
// wherever the mount is seen.
func linkTarget(id uint64, p *point) string {
	if id == latestID {
		return p.name
	}
	return "../" + snapshotsName + "/" + p.name
}

func (f *fileSystem) viewReadlink(ctx context.Context, id uint64) (string, error) {
	p, err := f.linkedPoint(f.points.current(ctx), id)
	if err != nil {
		return "", err
	}
	return linkTarget(id, p), nil
}

// viewList returns the names in a view, in the order they are shown. The
// length of a list of points is the bound of its memory.
func (f *fileSystem) viewList(ctx context.Context, id uint64) []item {
	switch id {
	case rootID:
		items := []item{{name: snapshotsName, ino: snapshotsID, mode: unix.S_IFDIR}}
		if f.opts.ParseTime != nil {
			items = append(items, item{name: atName, ino: atID, mode: unix.S_IFDIR})
		}
		return items
	case snapshotsID:
		return pointItems(f.points.current(ctx))
	}
	return nil
}

// pointItems lists points without asking for a single one of their trees.
func pointItems(list *pointList) []item {
	items := make([]item, 0, len(list.all)+1)
	for _, p := range list.all {
		it := item{name: p.name, point: p.Number, ino: fuse.FUSE_UNKNOWN_INO}
		if root := p.root.Load(); root != nil {
			if id, err := nodeID(p.Number, root); err == nil {
				it.ino, it.mode, it.entry = id, format(root.Type), root
			}
		}
		items = append(items, it)
	}
	if len(list.all) > 0 {
		items = append(items, item{name: latestName, ino: latestID, mode: unix.S_IFLNK})
	}
	return items
}
