package restore

import (
	"encoding/binary"
	"fmt"
	"path"
	"strconv"
	"strings"

	"dupfs/chain"
	"dupfs/chain/internal/tarstream"
)

// tarName is the name of an entry's member.
func tarName(n *chain.Node) string {
	switch {
	case n.Path == chain.Root && n.Type == chain.Dir:
		return "./"
	case n.Path == chain.Root:
		return "./file" // a backup of one file does not know its name
	case n.Type == chain.Dir:
		return "./" + string(n.Path) + "/"
	}
	return "./" + string(n.Path)
}

// tarHeader returns the header of an entry without a body.
func tarHeader(n *chain.Node) *tarstream.Header {
	h := &tarstream.Header{
		Name: tarName(n), Mode: n.Mode & 0o7777, UID: n.UID, GID: n.GID,
		User: n.User, Group: n.Group, Mtime: n.Mtime,
	}
	switch n.Type {
	case chain.File:
		h.Type = tarstream.TypeFile
	case chain.Dir:
		h.Type = tarstream.TypeDir
	case chain.Symlink:
		h.Type, h.Link = tarstream.TypeSymlink, n.Link
	case chain.Fifo:
		h.Type = tarstream.TypeFifo
	case chain.CharDevice:
		h.Type, h.Major, h.Minor = tarstream.TypeChar, n.Major, n.Minor
	case chain.BlockDevice:
		h.Type, h.Major, h.Minor = tarstream.TypeBlock, n.Major, n.Minor
	}
	if n.Mtime.Nsec != 0 || n.Mtime.Sec < 0 {
		h.Records = append(h.Records, tarstream.Record{Key: "mtime", Value: tarTime(n.Mtime)})
	}
	for _, x := range n.Xattrs {
		h.Records = append(h.Records, attrRecord(x))
	}
	return h
}

// tarTime writes a time as a decimal number of seconds.
func tarTime(t chain.Time) string {
	sec, nsec, sign := t.Sec, int64(t.Nsec), ""
	if sec < 0 {
		sign = "-"
		if sec = -sec; nsec > 0 {
			sec, nsec = sec-1, 1e9-nsec
		}
	}
	if nsec == 0 {
		return fmt.Sprintf("%s%d", sign, sec)
	}
	return fmt.Sprintf("%s%d.%09d", sign, sec, nsec)
}

// attrRecord returns the record of an extended attribute: ACLs as text, others
// as they are.
func attrRecord(x chain.Xattr) tarstream.Record {
	for name, key := range map[string]string{
		"system.posix_acl_access": "SCHILY.acl.access", "system.posix_acl_default": "SCHILY.acl.default",
	} {
		if text, ok := aclText(x.Value); ok && x.Name == name {
			return tarstream.Record{Key: key, Value: text}
		}
	}
	// As GNU tar: a key ends at the first "=".
	name := strings.NewReplacer("%", "%25", "=", "%3D").Replace(x.Name)
	return tarstream.Record{Key: "SCHILY.xattr." + name, Value: string(x.Value)}
}

// aclText writes an ACL in the kernel's form as text, with ids as numbers.
func aclText(b []byte) (string, bool) {
	const version, head, entry = 2, 4, 8
	if len(b) < head || (len(b)-head)%entry != 0 || binary.LittleEndian.Uint32(b) != version {
		return "", false
	}
	tags := map[uint16]string{1: "user:", 2: "user", 4: "group:", 8: "group", 16: "mask:", 32: "other:"}
	var lines []string
	for e := b[head:]; len(e) > 0; e = e[entry:] {
		tag, perm, id := binary.LittleEndian.Uint16(e), binary.LittleEndian.Uint16(e[2:]), binary.LittleEndian.Uint32(e[4:])
		text, ok := tags[tag]
		if !ok {
			return "", false
		}
		if tag == 2 || tag == 8 {
			text += ":" + strconv.FormatUint(uint64(id), 10)
		}
		rwx := []byte("rwx")
		for i, bit := range []uint16{4, 2, 1} {
			if perm&bit == 0 {
				rwx[i] = '-'
			}
		}
		lines = append(lines, text+":"+string(rwx))
	}
	return strings.Join(lines, ","), true
}

// sparseMap is what a body in the sparse format 1.0 begins with: the number of
// the extents, their offsets and lengths, a line each, padded to a block. The
// last one ends where the file does.
func sparseMap(data []chain.Extent, size int64) []byte {
	if len(data) == 0 || data[len(data)-1].Off+data[len(data)-1].Len < size {
		data = append(data[:len(data):len(data)], chain.Extent{Off: size})
	}
	b := fmt.Appendf(nil, "%d\n", len(data))
	for _, x := range data {
		b = fmt.Appendf(b, "%d\n%d\n", x.Off, x.Len)
	}
	return append(b, make([]byte, -len(b)&511)...)
}

// makeSparse makes a header that of a sparse file of a size.
func makeSparse(h *tarstream.Header, size int64) {
	real := h.Name
	dir, name := path.Split(real)
	h.Name = dir + "GNUSparseFile.0/" + name
	h.Records = append([]tarstream.Record{
		{Key: "GNU.sparse.major", Value: "1"},
		{Key: "GNU.sparse.minor", Value: "0"},
		{Key: "GNU.sparse.name", Value: real},
		{Key: "GNU.sparse.realsize", Value: strconv.FormatInt(size, 10)},
	}, h.Records...)
}
