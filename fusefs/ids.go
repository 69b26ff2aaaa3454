package fusefs

import (
	"fmt"
	"io/fs"

	"dupfs/chain"
)

// Node ids, which are inode numbers as well, are computed from what they name:
//
//	1 ppp...ppp ddd...ddd   a directory: 24 bits of point, 39 bits of Dir
//	0 1 x 00000 vvv...vvv   anything else in a tree: 56 bits of Version;
//	                        x says that it has extended attributes
//	0 0 kkkkk nnn...nnn     what only the mount has: 5 bits of kind and 57 of
//	                        number; see views.go
//
// The bit x makes the question for an attribute free where there is none;
// it is a fact of the version, so the id stays the same everywhere.
const (
	dirBit     = 1 << 63
	versionBit = 1 << 62
	xattrBit   = 1 << 61

	dirBits     = 39
	pointBits   = 24
	versionBits = 56
)

// isDir reports whether id is a directory of a tree.
func isDir(id uint64) bool { return id&dirBit != 0 }

// isVersion reports whether id is an entry of a tree that is no directory.
func isVersion(id uint64) bool { return id&(dirBit|versionBit) == versionBit }

// nodeID returns the id of n at a point. An error means that a number exceeds
// the bounds that package chain gives.
func nodeID(point uint32, n *chain.Node) (uint64, error) {
	if n.Type == chain.Dir {
		if n.Dir == 0 || n.Dir >= 1<<dirBits || point >= 1<<pointBits {
			return 0, fmt.Errorf("directory %q: number %d at point %d is out of bounds", n.Name, n.Dir, point)
		}
		return dirBit | uint64(point)<<dirBits | n.Dir, nil
	}
	if n.Version == 0 || n.Version >= 1<<versionBits {
		return 0, fmt.Errorf("entry %q: version %d is out of bounds", n.Name, n.Version)
	}
	id := versionBit | n.Version
	if len(n.Xattrs) > 0 {
		id |= xattrBit
	}
	return id, nil
}

// splitDir returns what the id of a directory was made from.
func splitDir(id uint64) (point uint32, dir uint64) {
	return uint32(id >> dirBits & (1<<pointBits - 1)), id & (1<<dirBits - 1)
}

// splitVersion returns what the id of another entry was made from.
func splitVersion(id uint64) uint64 { return id & (1<<versionBits - 1) }

// kindBits is where the kind of a view's id is.
const kindBits = 57

// viewID returns the id of something of a view.
func viewID(kind, number uint64) uint64 { return kind<<kindBits | number }

// splitView returns what the id of something of a view was made from.
func splitView(id uint64) (kind, number uint64) { return id >> kindBits, id & (1<<kindBits - 1) }

// errStale is what a node id means that names nothing (any more).
var errStale = fmt.Errorf("node: %w", fs.ErrNotExist)
