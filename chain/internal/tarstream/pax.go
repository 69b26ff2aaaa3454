package tarstream

import (
	"strconv"
	"strings"

	"dupfs/chain"
)

// pax holds the records of an x or g header that count: those with which PAX
// itself overrides fields, and the extra ones.
type pax struct {
	set     fields // which of the following are given
	path    string
	link    string
	user    string
	group   string
	uid     int64
	gid     int64
	size    int64
	mtime   chain.Time
	records []Record
	kept    int // bytes in records
}

type fields uint8

const (
	hasPath fields = 1 << iota
	hasLink
	hasUser
	hasGroup
	hasUID
	hasGID
	hasSize
	hasMtime
)

// apply overrides what the header block said.
func (p *pax) apply(h *Header, n *numbers) {
	if p.set&hasPath != 0 {
		h.Name = p.path
	}
	if p.set&hasLink != 0 {
		h.Link = p.link
	}
	if p.set&hasUser != 0 {
		h.User = p.user
	}
	if p.set&hasGroup != 0 {
		h.Group = p.group
	}
	if p.set&hasUID != 0 {
		n.uid = p.uid
	}
	if p.set&hasGID != 0 {
		n.gid = p.gid
	}
	if p.set&hasSize != 0 {
		n.size = p.size
	}
	if p.set&hasMtime != 0 {
		n.mtime, n.nsec = p.mtime.Sec, int64(p.mtime.Nsec)
	}
}

// readPAX reads the records of an extended header of size bytes. Extra
// records are kept only if own: those of a global header are of no member.
// Records that mean nothing here are read past, however long they are.
func (r *Reader) readPAX(p *pax, size int64, own bool) error {
	for size > 0 {
		n, used, err := r.recordLen(size)
		if err != nil {
			return err
		}
		if err := r.readRecord(p, n-used, own); err != nil {
			return err
		}
		size -= n
	}
	return nil
}

// recordLen reads the decimal length of a record and the blank after it, and
// returns the length and how many bytes of it are already read.
func (r *Reader) recordLen(size int64) (n, used int64, err error) {
	for {
		c, err := r.readByte()
		if err != nil {
			return 0, 0, err
		}
		used++
		if c == ' ' {
			break
		}
		if c < '0' || c > '9' || used > 10 {
			return 0, 0, r.corrupt("a bad record in an extended header")
		}
		n = n*10 + int64(c-'0')
	}
	if n > size || n < used+2 { // "=" and a line feed at least
		return 0, 0, r.corrupt("a bad record in an extended header")
	}
	return n, used, nil
}

// readRecord reads the n bytes "key=value\n" of a record.
func (r *Reader) readRecord(p *pax, n int64, own bool) error {
	key, err := r.readKey(n)
	if err != nil {
		return err
	}
	n -= int64(len(key)) + 2
	if n < 0 {
		return r.corrupt("a bad record in an extended header")
	}
	limit := valueLimit(key)
	extra := isExtra(key)
	if extra && (!own || n > MaxRecord || p.kept+len(key)+int(n) > MaxRecords) {
		limit = 0
	}
	switch {
	case limit == 0:
		err = r.skip(n)
	case n > limit:
		return r.corrupt("a record " + key + " that is too long")
	default:
		value := make([]byte, n)
		if err = r.readFull(value); err != nil {
			return err
		}
		if extra {
			p.kept += len(key) + len(value)
			p.records = append(p.records, Record{key, string(value)})
		} else if !p.put(key, string(value)) {
			return r.corrupt("a bad record " + key)
		}
	}
	if err != nil {
		return err
	}
	c, err := r.readByte()
	if err == nil && c != '\n' {
		err = r.corrupt("a bad record in an extended header")
	}
	return err
}

// readKey reads up to "=", within n bytes, and returns what is before it.
func (r *Reader) readKey(n int64) (string, error) {
	var key []byte
	for range min(n, 4096) {
		c, err := r.readByte()
		if err != nil {
			return "", err
		}
		if c == '=' {
			return string(key), nil
		}
		key = append(key, c)
	}
	return "", r.corrupt("a bad record in an extended header")
}

// readByte reads a byte; io.EOF at the end of the stream.
func (r *Reader) readByte() (byte, error) {
	c, err := r.br.ReadByte()
	if err == nil {
		r.off++
	}
	return c, err
}

// isExtra reports whether a record is one of those that Header.Records keeps.
func isExtra(key string) bool {
	return strings.HasPrefix(key, "DUPFS.") || strings.HasPrefix(key, "SCHILY.xattr.")
}

// valueLimit returns the longest value taken of a record, 0 for records that
// are skipped.
func valueLimit(key string) int64 {
	switch key {
	case "path", "linkpath":
		return MaxName
	case "uname", "gname":
		return 64 << 10
	case "uid", "gid", "size", "mtime":
		return 64
	}
	if isExtra(key) {
		return MaxRecord
	}
	return 0
}

// put takes a record's value. An empty value takes back what an earlier or a
// global record said.
func (p *pax) put(key, value string) (ok bool) {
	var has fields
	ok = true
	switch key {
	case "path":
		has, p.path = hasPath, value
	case "linkpath":
		has, p.link = hasLink, value
	case "uname":
		has, p.user = hasUser, value
	case "gname":
		has, p.group = hasGroup, value
	case "uid":
		has = hasUID
		p.uid, ok = decimal(value)
	case "gid":
		has = hasGID
		p.gid, ok = decimal(value)
	case "size":
		has = hasSize
		p.size, ok = decimal(value)
	case "mtime":
		has = hasMtime
		p.mtime, ok = seconds(value)
	}
	if value == "" {
		p.set &^= has
		return true
	}
	p.set |= has
	return ok
}

// decimal reads a whole number; Python writes some as "1.0".
func decimal(s string) (int64, bool) {
	t, ok := seconds(s)
	return t.Sec, ok && t.Nsec == 0
}

// seconds reads a decimal number of seconds, with any number of digits after
// a point. Digits beyond nanoseconds are cut off.
func seconds(s string) (chain.Time, bool) {
	whole, frac, _ := strings.Cut(s, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return chain.Time{}, false
	}
	if len(frac) > 9 {
		frac = frac[:9]
	}
	nsec := int64(0)
	if frac != "" {
		v, err := strconv.ParseUint(frac+strings.Repeat("0", 9-len(frac)), 10, 32)
		if err != nil {
			return chain.Time{}, false
		}
		nsec = int64(v)
	}
	if nsec > 0 && strings.HasPrefix(whole, "-") {
		sec, nsec = sec-1, 1e9-nsec
	}
	return chain.Time{Sec: sec, Nsec: int32(nsec)}, true
}
