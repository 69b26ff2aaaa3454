package tarstream

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"dupfs/chain"
)

// Keys of our own records. Stock duplicity ignores them all.
//
//	DUPFS.mtime   "sec.nsec", both as in chain.Time, nsec with nine digits; the
//	              header's own field is cut to seconds and never negative
//	DUPFS.link    chain.Entry.LinkGroup, decimal
//	DUPFS.data    map of a sparse file, "off+len,off+len"; "0+0" if all is hole
//	DUPFS.size    size of the file, decimal
//	DUPFS.sha256  hash of its content, hex
//	DUPFS.xattr.N an extended attribute whose name a SCHILY.xattr record could
//	              not hold, percent-encoded
const (
	keyMtime  = "DUPFS.mtime"
	keyLink   = "DUPFS.link"
	keyData   = "DUPFS.data"
	keySize   = "DUPFS.size"
	keySHA256 = "DUPFS.sha256"
	keyXattr  = "DUPFS.xattr."
	keySchily = "SCHILY.xattr."
)

// allHole is DUPFS.data of a file without data; empty values mean other
// things in PAX.
const allHole = "0+0"

// typeOf maps type flags to types of entries.
func typeOf(flag byte) (chain.Type, bool) {
	switch flag {
	case TypeFile:
		return chain.File, true
	case TypeDir:
		return chain.Dir, true
	case TypeSymlink:
		return chain.Symlink, true
	case TypeFifo:
		return chain.Fifo, true
	case TypeChar:
		return chain.CharDevice, true
	case TypeBlock:
		return chain.BlockDevice, true
	}
	return 0, false
}

// flagOf maps types of entries to type flags.
func flagOf(t chain.Type) (byte, bool) {
	switch t {
	case chain.File:
		return TypeFile, true
	case chain.Dir:
		return TypeDir, true
	case chain.Symlink:
		return TypeSymlink, true
	case chain.Fifo:
		return TypeFifo, true
	case chain.CharDevice:
		return TypeChar, true
	case chain.BlockDevice:
		return TypeBlock, true
	}
	return 0, false
}

// Entry returns what the header says of an entry; its Path is left empty. The
// Size of a File is -1 unless a record tells it. Records of ours that make no
// sense are passed over: a later version may have given them another form.
func (h *Header) Entry() (chain.Entry, error) {
	typ, ok := typeOf(h.Type)
	if !ok {
		return chain.Entry{}, chain.Corrupt("member "+h.Name, fmt.Sprintf("a type that is not known: %q", h.Type))
	}
	e := chain.Entry{
		Type: typ, Mode: h.Mode, UID: h.UID, GID: h.GID, User: h.User, Group: h.Group,
		Mtime: h.Mtime, Major: h.Major, Minor: h.Minor,
	}
	switch typ {
	case chain.File:
		e.Size = -1
	case chain.Symlink:
		e.Link = h.Link
	}
	for _, r := range h.Records {
		readFact(&e, r)
	}
	slices.SortStableFunc(e.Xattrs, func(a, b chain.Xattr) int { return cmp.Compare(a.Name, b.Name) })
	return e, nil
}

// readFact takes one record into e.
func readFact(e *chain.Entry, r Record) {
	if name, ok := xattrName(r.Key); ok {
		e.Xattrs = append(e.Xattrs, chain.Xattr{Name: name, Value: []byte(r.Value)})
		return
	}
	switch r.Key {
	case keyMtime:
		if t, ok := parseTime(r.Value); ok {
			e.Mtime = t
		}
	case keyLink:
		if v, err := strconv.ParseUint(r.Value, 10, 64); err == nil && e.Type != chain.Dir {
			e.LinkGroup = v
		}
	}
	if e.Type != chain.File {
		return
	}
	switch r.Key {
	case keyData:
		if m, ok := parseData(r.Value); ok {
			e.Data = m
		}
	case keySize:
		if v, err := strconv.ParseInt(r.Value, 10, 64); err == nil && v >= 0 {
			e.Size = v
		}
	case keySHA256:
		if b, err := hex.DecodeString(r.Value); err == nil && len(b) == len(e.Hash) {
			e.Hash, e.HasHash = [32]byte(b), true
		}
	}
}

// Facts says which of our records a header carries.
type Facts uint8

const (
	Basic Facts = iota // none: for pieces after the first
	Own                // those of the entry itself
	Known              // also what is known only once the file was read
)

// NewHeader returns the header for an entry under the given member name, with
// a body of size bytes. A header can be too large: the error wraps ErrTooLarge.
func NewHeader(name string, e *chain.Entry, size int64, facts Facts) (*Header, error) {
	flag, ok := flagOf(e.Type)
	if !ok {
		return nil, fmt.Errorf("%s: an entry of type %v cannot be stored", e.Path, e.Type)
	}
	h := &Header{
		Name: name, Type: flag, Mode: e.Mode & 0o7777, UID: e.UID, GID: e.GID,
		User: e.User, Group: e.Group, Mtime: e.Mtime, Link: e.Link, Size: size,
	}
	if e.Type == chain.CharDevice || e.Type == chain.BlockDevice {
		h.Major, h.Minor = e.Major, e.Minor
	}
	if facts != Basic {
		h.Records = factsOf(e, facts == Known)
	}
	total := 0
	for _, r := range h.Records {
		total += len(r.Key) + len(r.Value)
		if len(r.Value) > MaxRecord {
			return nil, fmt.Errorf("%s: attribute %s: %w", e.Path, r.Key, ErrTooLarge)
		}
	}
	if total > MaxRecords || len(name) > MaxName || len(e.Link) > MaxName {
		return nil, fmt.Errorf("%s: %w", e.Path, ErrTooLarge)
	}
	return h, nil
}

// factsOf returns our records for e.
func factsOf(e *chain.Entry, known bool) []Record {
	var rs []Record
	add := func(key, value string) { rs = append(rs, Record{key, value}) }
	if e.Mtime.Nsec != 0 || e.Mtime.Sec < 0 {
		add(keyMtime, fmt.Sprintf("%d.%09d", e.Mtime.Sec, e.Mtime.Nsec))
	}
	if e.LinkGroup != 0 && e.Type != chain.Dir {
		add(keyLink, strconv.FormatUint(e.LinkGroup, 10))
	}
	if e.Type == chain.File {
		if m, ok := formatData(e.Data); ok {
			add(keyData, m)
		}
		if known && e.Size >= 0 {
			add(keySize, strconv.FormatInt(e.Size, 10))
		}
		if known && e.HasHash {
			add(keySHA256, hex.EncodeToString(e.Hash[:]))
		}
	}
	for _, x := range e.Xattrs {
		add(xattrKey(x.Name), string(x.Value))
	}
	return rs
}

// parseTime reads DUPFS.mtime.
func parseTime(s string) (chain.Time, bool) {
	whole, frac, _ := strings.Cut(s, ".")
	sec, err1 := strconv.ParseInt(whole, 10, 64)
	nsec, err2 := strconv.ParseUint(frac, 10, 31)
	ok := err1 == nil && err2 == nil && len(frac) == 9
	return chain.Time{Sec: sec, Nsec: int32(nsec)}, ok
}

// formatData writes DUPFS.data; false if there is no map, or it is too long to
// be worth a record: the file is then stored as if it were not sparse.
func formatData(m []chain.Extent) (string, bool) {
	if m == nil {
		return "", false
	}
	if len(m) == 0 {
		return allHole, true
	}
	var b []byte
	for i, x := range m {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, x.Off, 10)
		b = append(b, '+')
		b = strconv.AppendInt(b, x.Len, 10)
		if len(b) > MaxRecord {
			return "", false
		}
	}
	return string(b), true
}

// parseData reads DUPFS.data: extents in order that do not touch.
func parseData(s string) ([]chain.Extent, bool) {
	m := []chain.Extent{}
	if s == allHole {
		return m, true
	}
	end := int64(-1)
	for part := range strings.SplitSeq(s, ",") {
		off, length, _ := strings.Cut(part, "+")
		o, err1 := strconv.ParseInt(off, 10, 64)
		n, err2 := strconv.ParseInt(length, 10, 64)
		if err1 != nil || err2 != nil || o <= end || n <= 0 || o+n < 0 {
			return nil, false
		}
		m = append(m, chain.Extent{Off: o, Len: n})
		end = o + n
	}
	return m, true
}

// xattrKey returns the record key for an attribute. Keys end at the first
// "=", and not every reader takes any byte in them.
func xattrKey(name string) string {
	plain := name != ""
	for i := range len(name) {
		plain = plain && isPlain(name[i])
	}
	if plain {
		return keySchily + name
	}
	var b strings.Builder
	b.WriteString(keyXattr)
	for i := range len(name) {
		if c := name[i]; isPlain(c) && c != '%' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02x", c)
		}
	}
	return b.String()
}

func isPlain(c byte) bool { return c > ' ' && c < 0x7f && c != '=' }

// xattrName returns the name of the attribute in a record, if it holds one.
func xattrName(key string) (string, bool) {
	if name, ok := strings.CutPrefix(key, keySchily); ok {
		return name, name != ""
	}
	coded, ok := strings.CutPrefix(key, keyXattr)
	if !ok {
		return "", false
	}
	var b []byte
	for i := 0; i < len(coded); i++ {
		if coded[i] != '%' {
			b = append(b, coded[i])
			continue
		}
		if i+2 >= len(coded) {
			return "", false
		}
		v, err := strconv.ParseUint(coded[i+1:i+3], 16, 8)
		if err != nil {
			return "", false
		}
		b = append(b, byte(v))
		i += 2
	}
	return string(b), len(b) > 0
}
