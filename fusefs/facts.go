package fusefs

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"dupfs/chain"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// factPrefix begins the names of attributes that tell what reading a file
// takes. They are answered when asked for by name and are in no list: programs
// that copy attributes copy what is listed, and on a copy these would be false.
const factPrefix = "user.dupfs."

// maxXattr is the longest value that the kernel takes.
const maxXattr = 64 << 10

// fact answers one of them. It asks the catalog and the caches, never the
// archive.
func (f *fileSystem) fact(cancel <-chan struct{}, in *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	if isDir(in.NodeId) && name == "damaged" {
		return f.pointDamage(in.NodeId, dest)
	}
	if !isVersion(in.NodeId) {
		return 0, fuse.ENODATA
	}
	r := f.begin(cancel, in.Pid)
	defer r.end()
	var facts chain.Facts
	if t, ok := f.forest.(chain.Teller); ok {
		var err error
		if facts, err = t.Facts(r, splitVersion(in.NodeId)); err != nil {
			return 0, f.fail("tell of", in.NodeId, err)
		}
	}
	if facts.Damaged == "" {
		facts.Damaged = f.health.damage(in.NodeId)
	}
	value := factValue(&facts, name)
	if value == "" {
		return 0, fuse.ENODATA
	}
	return fill(dest, []byte(value))
}

// pointDamage answers why a point cannot be trusted to be whole: an attribute of
// its top directory.
func (f *fileSystem) pointDamage(id uint64, dest []byte) (uint32, fuse.Status) {
	number, dir := splitDir(id)
	p := f.points.current(f.base).byNumber[number]
	if dir != rootDir || p == nil || p.Damage == "" {
		return 0, fuse.ENODATA
	}
	return fill(dest, []byte(p.Damage[:min(len(p.Damage), maxXattr)]))
}

// factValue spells a fact, "" if there is none of that name or nothing to say.
func factValue(f *chain.Facts, name string) string {
	if f.Set == "" && name != "damaged" {
		return ""
	}
	switch name {
	case "set":
		return f.Set
	case "volumes":
		return joinUpTo(f.Volumes, maxXattr)
	case "bytes_to_fetch":
		if f.Bound {
			return "<=" + strconv.FormatInt(f.Fetch, 10)
		}
		return strconv.FormatInt(f.Fetch, 10)
	case "cached":
		return strconv.FormatInt(f.Cached, 10)
	case "tier":
		return strings.Join(f.Tiers, " ")
	case "damaged":
		return f.Damaged[:min(len(f.Damaged), maxXattr)]
	}
	return ""
}

// joinUpTo joins lines, and counts those that do not fit into limit bytes.
func joinUpTo(lines []string, limit int) string {
	const tail = 40 // room for the count
	n := 0
	for i, l := range lines {
		if n += len(l) + 1; n > limit-tail {
			return strings.Join(lines[:i], "\n") + fmt.Sprintf("\nand %d more", len(lines)-i)
		}
	}
	return strings.Join(lines, "\n")
}

// isCorrupt reports whether an error says that a file is damaged.
func isCorrupt(err error) bool {
	var corrupt *chain.CorruptError
	return errors.As(err, &corrupt)
}
