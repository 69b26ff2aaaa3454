package fusefs

import (
	"context"
	"io/fs"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// An NFS server names files by node id and generation, long after the kernel
// forgot them and also after a remount. The kernel finds them again by looking
// up "." in an id, and ".." to connect a directory to the root. Ids are never
// given to something else, so all generations are 0.

// lookupDots fills out with the node itself, or with its parent.
func (f *fileSystem) lookupDots(ctx context.Context, id uint64, name string, out *fuse.EntryOut) error {
	if name == ".." {
		var err error
		if id, err = f.parent(ctx, id); err != nil {
			return err
		}
	}
	if !isDir(id) && !isVersion(id) {
		return f.viewEntry(ctx, id, out)
	}
	n, err := f.node(ctx, id)
	if err != nil {
		return err
	}
	f.setAttr(&out.Attr, id, &n)
	out.NodeId = id
	out.SetEntryTimeout(shortTime)
	out.SetAttrTimeout(longTime)
	return nil
}

// parent returns the id of the directory that a directory is in. Other entries
// may be in several; the kernel does not ask for theirs.
func (f *fileSystem) parent(ctx context.Context, id uint64) (uint64, error) {
	if isVersion(id) || f.past == nil {
		return 0, fs.ErrNotExist
	}
	if isDir(id) {
		point, dir := splitDir(id)
		if dir == rootDir {
			return f.pointsDir(ctx, point)
		}
		up, err := f.past.ParentDir(ctx, point, dir)
		return dirBit | uint64(point)<<dirBits | up, err
	}
	switch kind, number := splitView(id); kind {
	case versionsKind, deletedKind:
		up, err := f.past.Parent(ctx, number)
		if err != nil {
			return 0, err
		}
		return f.placeID(ctx, kind, up)
	case pairKind:
		return changesID, nil
	case changesKind:
		return f.changesParent(ctx, id)
	case fixedKind:
		return f.fixedParent(id)
	}
	return 0, fs.ErrNotExist
}

// pointsDir returns the directory that a point is in, which lists it with its
// inode number from now on.
func (f *fileSystem) pointsDir(ctx context.Context, point uint32) (uint64, error) {
	p := f.points.current(ctx).byNumber[point]
	if p == nil {
		return 0, errStale
	}
	_, err := f.top(ctx, p)
	return snapshotsID, err
}

// placeID returns the id of a place; the root's is that of the whole view.
func (f *fileSystem) placeID(ctx context.Context, kind, place uint64) (uint64, error) {
	up, err := f.past.Parent(ctx, place)
	switch {
	case err != nil:
		return 0, err
	case up != 0:
		return viewID(kind, place), nil
	case kind == versionsKind:
		return versionsID, nil
	}
	return deletedID, nil
}

func (f *fileSystem) changesParent(ctx context.Context, id uint64) (uint64, error) {
	class, number, dir := splitChanged(id)
	if dir == rootDir {
		return viewID(pairKind, number), nil
	}
	p, err := f.pairs.get(number)
	if err != nil {
		return 0, err
	}
	up, err := f.past.ParentDir(ctx, p.to, dir)
	return changedID(class, number, up), err
}

// fixedParent finds the directory that lists a fixed one.
func (f *fileSystem) fixedParent(id uint64) (uint64, error) {
	for _, dir := range []uint64{rootID, statusDirID, zfsID, tagsID, hostsID} {
		for _, it := range append(f.fixedItems(dir), f.hiddenItems(dir)...) {
			if it.ino == id {
				return dir, nil
			}
		}
	}
	if id == rootID {
		return rootID, nil
	}
	return 0, fs.ErrNotExist
}
