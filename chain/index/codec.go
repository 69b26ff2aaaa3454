package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"dupfs/chain"
	"dupfs/chain/difftar"
)

// errCut says that a body ends inside a value.
var errCut = errors.New("index: a value is cut")

// decoder reads values from a body. The first error sticks, and every value
// after it is zero.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("index: "+format, args...)
	}
	d.b = nil
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.err = cmpErr(d.err, errCut)
		d.b = nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

// cmpErr returns the first error that is not nil.
func cmpErr(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

func (d *decoder) varint() int64 {
	u := d.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

// count reads a number that must be at most limit.
func (d *decoder) count(limit uint64, what string) int {
	v := d.uvarint()
	if v > limit {
		d.fail("%s %d is more than %d", what, v, limit)
		return 0
	}
	return int(v)
}

// size reads a number that must fit an int64.
func (d *decoder) size(what string) int64 {
	return int64(d.count(math.MaxInt64, what))
}

// bytes returns the next n bytes, which are those of the body.
func (d *decoder) bytes(n int) []byte {
	if n > len(d.b) {
		d.err = cmpErr(d.err, errCut)
		d.b = nil
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

// blob reads bytes with their length before them.
func (d *decoder) blob(limit uint64, what string) []byte {
	return d.bytes(d.count(limit, what))
}

// end checks that nothing is left.
func (d *decoder) end() error {
	if d.err == nil && len(d.b) > 0 {
		d.fail("%d bytes too many", len(d.b))
	}
	return d.err
}

func appendBlob[T ~string | ~[]byte](b []byte, v T) []byte {
	b = binary.AppendUvarint(b, uint64(len(v)))
	return append(b, v...)
}

// The flags of an entry's metadata: the type in the lowest three bits, the
// change in the next two.
const (
	flagOwner  = 1 << (iota + 5) // owner is not that of the entry before
	flagMode                     // mode is not that of the last entry of the type
	flagNsec                     // mtime has nanoseconds
	flagXattrs                   // has extended attributes
	flagGroup                    // is one of several hard links
	flagSparse                   // has a map of its data
	flagHash                     // has a SHA-256
	flagSig                      // has a signature in the sigtar
	flagSize                     // size is not the sum of the runs
	flagEnd                      // first value that is no set of flags
)

// Limits of what one entry may hold. They are far above what a file system
// can, and bound what a broken index makes us allocate.
const (
	maxPath   = chain.MaxPath
	maxOwner  = 1 << 12 // bytes of a user's or group's name
	maxXattrs = 1 << 14 // attributes
	maxXattr  = 16 << 20
	maxSparse = 1 << 20 // extents
	maxOwners = 1 << 12 // owners that are remembered
)

type owner struct {
	uid, gid    uint32
	user, group string
}

// coder codes metadata relative to the entries before. A fresh one codes it
// so that it stands alone. Writer and reader of a stream keep equal ones.
type coder struct {
	alone  bool // nothing follows: do not remember
	modes  [8]uint32
	mtime  int64
	owner  owner
	owners []owner
	byName map[owner]int // writer only
	sigEnd int64
}

// padded is where a tar member's body begins if one ended at end: after the
// padding and one header.
func padded(end int64) int64 { return (end+511)&^511 + 512 }

// sigLen predicts the length of a signature of a file of that size, as
// duplicity chooses the blocks. It only makes the index smaller, so that it
// need not be right.
func sigLen(size int64) int64 {
	block := min(max(size/1024000*512, 512), 2048)
	return 12 + (max(size, 0)+block-1)/block*12
}

// append adds the metadata of r, all but path, to b. sum is the size that the
// reader will know anyway.
func (c *coder) append(b []byte, r *Record, sum int64) []byte {
	flags := uint64(r.Type)&7 | uint64(r.Change)&3<<3
	if r.Change == difftar.Deleted {
		return binary.AppendUvarint(b, uint64(r.Change)<<3)
	}
	own := owner{r.UID, r.GID, r.User, r.Group}
	set := func(cond bool, flag uint64) {
		if cond {
			flags |= flag
		}
	}
	set(own != c.owner, flagOwner)
	set(r.Mode != c.modes[r.Type&7], flagMode)
	set(r.Mtime.Nsec != 0, flagNsec)
	set(len(r.Xattrs) > 0, flagXattrs)
	set(r.LinkGroup != 0, flagGroup)
	set(r.Data != nil, flagSparse)
	set(r.HasHash, flagHash)
	set(r.SigLen >= 0 && r.Type == chain.File, flagSig)
	set(r.Type == chain.File && r.Size != sum, flagSize)
	b = binary.AppendUvarint(b, flags)
	if flags&flagOwner != 0 {
		b = c.appendOwner(b, own)
	}
	if flags&flagMode != 0 {
		c.modes[r.Type&7] = r.Mode
		b = binary.AppendUvarint(b, uint64(r.Mode))
	}
	b = binary.AppendVarint(b, r.Mtime.Sec-c.mtime)
	c.mtime = r.Mtime.Sec
	if flags&flagNsec != 0 {
		b = binary.AppendUvarint(b, uint64(r.Mtime.Nsec))
	}
	return c.appendRest(b, r, flags)
}

func (c *coder) appendRest(b []byte, r *Record, flags uint64) []byte {
	switch r.Type {
	case chain.Symlink:
		b = appendBlob(b, r.Link)
	case chain.CharDevice, chain.BlockDevice:
		b = binary.AppendUvarint(b, uint64(r.Major))
		b = binary.AppendUvarint(b, uint64(r.Minor))
	}
	if flags&flagSize != 0 {
		b = binary.AppendVarint(b, r.Size)
	}
	if flags&flagXattrs != 0 {
		b = binary.AppendUvarint(b, uint64(len(r.Xattrs)))
		for _, x := range r.Xattrs {
			b = appendBlob(appendBlob(b, x.Name), x.Value)
		}
	}
	if flags&flagGroup != 0 {
		b = binary.AppendUvarint(b, r.LinkGroup)
	}
	if flags&flagSparse != 0 {
		b = binary.AppendUvarint(b, uint64(len(r.Data)))
		var end int64
		for _, x := range r.Data {
			b = binary.AppendUvarint(b, uint64(x.Off-end))
			b = binary.AppendUvarint(b, uint64(x.Len))
			end = x.Off + x.Len
		}
	}
	if flags&flagHash != 0 {
		b = append(b, r.Hash[:]...)
	}
	if flags&flagSig != 0 {
		b = binary.AppendVarint(b, r.SigOff-padded(c.sigEnd))
		b = binary.AppendVarint(b, r.SigLen-sigLen(r.Size))
		c.sigEnd = r.SigOff + r.SigLen
	}
	return b
}

// appendOwner adds an owner: its number in the table from 1, or 0 and the
// owner itself, which joins the table while that has room.
func (c *coder) appendOwner(b []byte, own owner) []byte {
	c.owner = own
	if i, ok := c.byName[own]; ok {
		return binary.AppendUvarint(b, uint64(i)+1)
	}
	if len(c.owners) < maxOwners && !c.alone {
		if c.byName == nil {
			c.byName = make(map[owner]int, 1)
		}
		c.byName[own] = len(c.owners)
		c.owners = append(c.owners, own)
	}
	b = append(b, 0)
	b = binary.AppendUvarint(b, uint64(own.uid))
	b = binary.AppendUvarint(b, uint64(own.gid))
	return appendBlob(appendBlob(b, own.user), own.group)
}

// read sets all of r but its path to the metadata that d has next.
func (c *coder) read(d *decoder, r *Record, sum int64) {
	flags := d.uvarint()
	*r = Record{Entry: chain.Entry{Path: r.Path, Type: chain.Type(flags & 7)}, Change: difftar.Kind(flags >> 3 & 3), SigLen: -1}
	switch {
	case d.err != nil:
		return
	case flags >= flagEnd:
		d.fail("unknown flags %#x", flags)
		return
	case r.Change == difftar.Deleted:
		if flags != uint64(difftar.Deleted)<<3 {
			d.fail("a deleted entry with metadata")
		}
		return
	case r.Type < chain.File || r.Type > chain.BlockDevice:
		d.fail("unknown type %d", r.Type)
		return
	case r.Type != chain.File && flags&(flagSparse|flagHash|flagSig|flagSize) != 0:
		d.fail("content of what is not a file")
		return
	}
	if flags&flagOwner != 0 {
		c.readOwner(d)
	}
	r.UID, r.GID, r.User, r.Group = c.owner.uid, c.owner.gid, c.owner.user, c.owner.group
	if flags&flagMode != 0 {
		c.modes[r.Type] = uint32(d.count(0o7777, "mode"))
	}
	r.Mode = c.modes[r.Type]
	c.mtime += d.varint()
	r.Mtime.Sec = c.mtime
	if flags&flagNsec != 0 {
		r.Mtime.Nsec = int32(d.count(999_999_999, "nanoseconds"))
	}
	c.readRest(d, r, flags, sum)
}

func (c *coder) readRest(d *decoder, r *Record, flags uint64, sum int64) {
	switch r.Type {
	case chain.File:
		r.Size = sum
	case chain.Symlink:
		r.Link = string(d.blob(maxPath, "length of a link"))
	case chain.CharDevice, chain.BlockDevice:
		r.Major = uint32(d.count(math.MaxUint32, "device number"))
		r.Minor = uint32(d.count(math.MaxUint32, "device number"))
	}
	if flags&flagSize != 0 {
		if r.Size = d.varint(); r.Size < -1 {
			d.fail("negative size")
		}
	}
	if flags&flagXattrs != 0 {
		readXattrs(d, r)
	}
	if flags&flagGroup != 0 {
		r.LinkGroup = d.uvarint()
	}
	if flags&flagSparse != 0 {
		readSparse(d, r)
	}
	if flags&flagHash != 0 {
		r.HasHash = copy(r.Hash[:], d.bytes(len(r.Hash))) == len(r.Hash)
	}
	if flags&flagSig != 0 {
		r.SigOff = d.varint() + padded(c.sigEnd)
		r.SigLen = d.varint() + sigLen(r.Size)
		if r.SigOff < 0 || r.SigLen < 0 || r.SigOff > math.MaxInt64/2 || r.SigLen > math.MaxInt64/4 {
			d.fail("place of a signature out of range")
			return
		}
		c.sigEnd = r.SigOff + r.SigLen
	}
}

func readXattrs(d *decoder, r *Record) {
	n := d.count(maxXattrs, "number of attributes")
	for range n {
		name := string(d.blob(maxPath, "length of an attribute's name"))
		value := append([]byte{}, d.blob(maxXattr, "length of an attribute")...)
		if d.err != nil {
			return
		}
		r.Xattrs = append(r.Xattrs, chain.Xattr{Name: name, Value: value})
	}
}

func readSparse(d *decoder, r *Record) {
	n := d.count(maxSparse, "number of extents")
	r.Data = make([]chain.Extent, 0, min(n, len(d.b)/2))
	var end int64
	for range n {
		gap, length := d.size("hole"), d.size("extent")
		if d.err != nil {
			return
		}
		if gap > math.MaxInt64-end || length > math.MaxInt64-end-gap {
			d.fail("extents overflow")
			return
		}
		r.Data = append(r.Data, chain.Extent{Off: end + gap, Len: length})
		end += gap + length
	}
}

func (c *coder) readOwner(d *decoder) {
	i := d.count(uint64(len(c.owners)), "number of an owner")
	if d.err != nil {
		return
	}
	if i > 0 {
		c.owner = c.owners[i-1]
		return
	}
	own := owner{uid: uint32(d.count(math.MaxUint32, "uid")), gid: uint32(d.count(math.MaxUint32, "gid"))}
	own.user = string(d.blob(maxOwner, "length of a name"))
	own.group = string(d.blob(maxOwner, "length of a name"))
	c.owner = own
	if len(c.owners) < maxOwners && !c.alone {
		c.owners = append(c.owners, own)
	}
}

// runCoder codes runs relative to the runs before. It expects the runs of a
// volume one tar header after each other, and those of the base to go on where
// the last one ended.
type runCoder struct {
	volume  int
	end     int64 // plainOff where the last run of volume ended
	baseEnd int64
}

const maxVolume = 1<<31 - 1

// append adds a run, all but its FileOff.
func (c *runCoder) append(b []byte, r Run) []byte {
	switch r.Volume {
	case 0:
		b = binary.AppendUvarint(b, uint64(r.Len)<<2|2)
		b = binary.AppendVarint(b, r.Off-c.baseEnd)
		c.baseEnd = r.Off + r.Len
		return b
	case c.volume:
		b = binary.AppendUvarint(b, uint64(r.Len)<<2)
	default:
		b = binary.AppendUvarint(b, uint64(r.Len)<<2|1)
		b = binary.AppendUvarint(b, uint64(r.Volume))
		c.volume, c.end = r.Volume, 0
	}
	b = binary.AppendVarint(b, r.Off-padded(c.end))
	c.end = r.Off + r.Len
	return b
}

// read returns the run that d has next; it begins at fileOff.
func (c *runCoder) read(d *decoder, fileOff int64) Run {
	head := d.uvarint()
	r := Run{FileOff: fileOff, Len: int64(head >> 2)}
	if r.Len == 0 || fileOff > math.MaxInt64/2-r.Len {
		d.fail("length of a run out of range")
		return Run{}
	}
	switch head & 3 {
	case 0:
		r.Volume = c.volume
	case 1:
		r.Volume = d.count(maxVolume, "volume")
		c.volume, c.end = r.Volume, 0
	case 2:
		r.Off = d.varint() + c.baseEnd
		c.baseEnd = r.Off + r.Len
	default:
		d.fail("unknown kind of run")
	}
	if head&3 != 2 {
		if r.Volume == 0 {
			d.fail("a run in no volume")
		}
		r.Off = d.varint() + padded(c.end)
		c.end = r.Off + r.Len
	}
	if r.Off < 0 || r.Off > math.MaxInt64/2-r.Len {
		d.fail("place of a run out of range")
	}
	if d.err != nil {
		return Run{}
	}
	return r
}
