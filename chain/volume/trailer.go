package volume

import (
	"bytes"
	"compress/flate"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
)

// The trailer of a file of ours: what Layout says of its chunks. In OpenPGP
// files it follows the plaintext, as if it were more of it: stock duplicity
// reads a tar file no further than its end. In gzip files it lies in the extra
// fields of empty members at the end.
//
//	table    "dupfstb1"
//	         uvarint: number of chunks
//	         for each: uvarint: bytes in the stored form, uvarint: bytes of
//	         plaintext, 16 bytes: beginning of the SHA-256 of the stored form
//	         zero bytes, possibly
//	footer   8 bytes: size of the plaintext, big-endian as all here
//	         4 bytes: length of the table
//	         4 bytes: how many stored bytes lie between the start of the
//	         trailer and the end of the footer
//	         8 bytes: zero
//	         32 bytes: HMAC-SHA256 of all before it
//	         "dupfsft1"
//
// The stored form is the deflate stream of an OpenPGP file, and a member of a
// gzip file. The HMAC's key is HKDF-SHA256 of the session key; of none in gzip
// files, so that it only tells damage.
const (
	tableMagic  = "dupfstb1"
	footerMagic = "dupfsft1"
	footerLen   = 64
	macAt       = 24 // offset of the HMAC in the footer
	keyInfo     = "dupfs chunk table"

	// smallTable is the length of the table of a file whose content is too
	// short for a piece of its own, padded so that it is known beforehand.
	smallTable = 64

	// maxTrailer bounds a trailer: enough for a file of some 700 GiB in
	// chunks of 256 KiB.
	maxTrailer = 64 << 20
)

// trailer is a trailer's content.
type trailer struct {
	plainSize int64
	tableLen  int64
	back      int64
	sizes     []chunkSize
}

// chunkSize is what a table says of a chunk.
type chunkSize struct {
	stored, plain int64
	hash          [hashLen]byte
}

// trailerKey returns the key of the HMAC.
func trailerKey(session []byte) []byte {
	key, err := hkdf.Key(sha256.New, session, nil, keyInfo, sha256.Size)
	if err != nil {
		panic("volume: " + err.Error()) // only for lengths that nobody asks for
	}
	return key
}

// appendTable appends the table, of at least atLeast bytes.
func (t *trailer) appendTable(b []byte, atLeast int) []byte {
	was := len(b)
	b = append(b, tableMagic...)
	b = binary.AppendUvarint(b, uint64(len(t.sizes)))
	for i := range t.sizes {
		b = binary.AppendUvarint(b, uint64(t.sizes[i].stored))
		b = binary.AppendUvarint(b, uint64(t.sizes[i].plain))
		b = append(b, t.sizes[i].hash[:]...)
	}
	for len(b)-was < atLeast {
		b = append(b, 0)
	}
	return b
}

// appendFooter appends the footer of the table, which is all of b from start.
func (t *trailer) appendFooter(b []byte, start int, key []byte, back int64) []byte {
	tableLen := len(b) - start
	b = binary.BigEndian.AppendUint64(b, uint64(t.plainSize))
	b = binary.BigEndian.AppendUint32(b, uint32(tableLen))
	b = binary.BigEndian.AppendUint32(b, uint32(back))
	b = append(b, make([]byte, 8)...)
	mac := hmac.New(sha256.New, key)
	mac.Write(b[start:])
	return append(mac.Sum(b), footerMagic...)
}

var errTrailer = errors.New("its chunk table is damaged")

// parseFooter reads the footer that b ends with. It reports false if there is
// none.
func parseFooter(b []byte) (t trailer, ok bool) {
	if len(b) < footerLen || !bytes.HasSuffix(b, []byte(footerMagic)) {
		return t, false
	}
	f := b[len(b)-footerLen:]
	t.plainSize = int64(binary.BigEndian.Uint64(f))
	t.tableLen = int64(binary.BigEndian.Uint32(f[8:]))
	t.back = int64(binary.BigEndian.Uint32(f[12:]))
	return t, t.plainSize >= 0 && t.tableLen >= int64(len(tableMagic))+1 &&
		t.tableLen+footerLen <= maxTrailer && t.back >= t.tableLen+footerLen &&
		t.back <= maxTrailer+maxTrailer/64
}

// parseTrailer reads the trailer that b ends with, and checks its HMAC. Only
// what passes it is looked at closely.
func parseTrailer(b, key []byte) (trailer, error) {
	t, ok := parseFooter(b)
	if !ok || int64(len(b)) < t.tableLen+footerLen {
		return t, ErrForeign
	}
	b = b[int64(len(b))-t.tableLen-footerLen:]
	signed := b[:t.tableLen+macAt]
	mac := hmac.New(sha256.New, key)
	mac.Write(signed)
	if !hmac.Equal(mac.Sum(nil), b[len(signed):len(signed)+sha256.Size]) {
		return t, ErrForeign
	}
	return t, t.parseTable(b[:t.tableLen])
}

// parseTable reads the table.
func (t *trailer) parseTable(b []byte) error {
	if !bytes.HasPrefix(b, []byte(tableMagic)) {
		return errTrailer
	}
	b = b[len(tableMagic):]
	count, n := binary.Uvarint(b)
	if n <= 0 || count > uint64(len(b))/(hashLen+2) {
		return errTrailer
	}
	b = b[n:]
	t.sizes = make([]chunkSize, count)
	var total int64
	for i := range t.sizes {
		s := &t.sizes[i]
		for _, v := range []*int64{&s.stored, &s.plain} {
			u, n := binary.Uvarint(b)
			if n <= 0 || u == 0 || u > maxChunk*2 {
				return errTrailer
			}
			*v, b = int64(u), b[n:]
		}
		if len(b) < hashLen {
			return errTrailer
		}
		b = b[copy(s.hash[:], b):]
		total += s.plain
	}
	if total != t.plainSize {
		return errTrailer
	}
	return nil
}

// layout puts the chunks into l. The first one begins at in; it returns where
// the last one ends.
func (t *trailer) layout(l *Layout, in int64) int64 {
	l.chunks = make([]chunk, len(t.sizes))
	var plain int64
	for i := range t.sizes {
		l.chunks[i] = chunk{plain, in, t.sizes[i].hash}
		plain += t.sizes[i].plain
		in += t.sizes[i].stored
	}
	l.PlainSize, l.end, l.Own = plain, in, true
	return in
}

// maxStored is the longest stored block of deflate.
const maxStored = 65535

// storedBlocks appends b as stored blocks of a deflate stream, the last of them
// its final one if final is set.
func storedBlocks(dst, b []byte, final bool) []byte {
	for {
		n := min(len(b), maxStored)
		var last byte
		if final && n == len(b) {
			last = 1
		}
		dst = append(dst, last, byte(n), byte(n>>8), ^byte(n), ^byte(n>>8))
		dst = append(dst, b[:n]...)
		if b = b[n:]; len(b) == 0 {
			return dst
		}
	}
}

// storedLen is the length of n bytes in stored blocks.
func storedLen(n int) int { return n + 5*max((n+maxStored-1)/maxStored, 1) }

// inflateStored returns what stored blocks hold.
func inflateStored(b []byte) ([]byte, error) {
	r := flate.NewReader(io.MultiReader(bytes.NewReader(b), bytes.NewReader([]byte(endOfDeflate))))
	return io.ReadAll(io.LimitReader(r, maxTrailer))
}

// The gzip form of a trailer: the table and the footer are cut into pieces, each
// the extra field of an empty member.
const (
	// maxPiece leaves room for others in an extra field of 64 KiB.
	maxPiece = 60000
	// extraHead is what stands before a piece in its member.
	extraHead = 10 + 2 + 4
	// The names of extra fields: a piece of the trailer, and the promise, in a
	// file's first member, that there is a trailer. Without it nobody could
	// tell that a file was cut between members.
	gzipPiece = "DF"
	gzipMark  = "Df"
	// gzipTail is what stands behind it: an empty deflate stream, CRC, size.
	gzipTail = "\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00"
)

// gzipHead is the header of our members: no time, no name.
const gzipHead = "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"

// appendExtra appends the header of a member with an extra field.
func appendExtra(dst []byte, name string, data []byte) []byte {
	n := len(data)
	dst = append(dst, gzipHead[:3]...)
	dst = append(dst, flagExtra)
	dst = append(dst, gzipHead[4:]...)
	dst = append(dst, byte(n+4), byte((n+4)>>8), name[0], name[1], byte(n), byte(n>>8))
	return append(dst, data...)
}

// extraField returns the data of an extra field that is all there is.
func extraField(extra []byte, name string) ([]byte, bool) {
	n := len(extra) - 4
	if n < 0 || string(extra[:2]) != name || int(binary.LittleEndian.Uint16(extra[2:])) != n {
		return nil, false
	}
	return extra[4:], true
}

// gzipTrailer returns the members that hold a trailer.
func (t *trailer) gzipTrailer() []byte {
	b := t.appendTable(nil, 0)
	pieces := (len(b) + maxPiece - footerLen - 1) / (maxPiece - footerLen)
	back := len(b) + footerLen + pieces*extraHead + (pieces-1)*len(gzipTail)
	b = t.appendFooter(b, 0, trailerKey(nil), int64(back))
	var out []byte
	for ; pieces > 0; pieces-- {
		n := min(len(b), maxPiece-footerLen)
		if pieces == 1 {
			n = len(b)
		}
		out = appendExtra(out, gzipPiece, b[:n])
		out = append(out, gzipTail...)
		b = b[n:]
	}
	return out
}

// ungzipTrailer returns the pieces of a trailer from the members that hold
// them.
func ungzipTrailer(b []byte) ([]byte, error) {
	var all []byte
	for len(b) > 0 {
		r := bytes.NewReader(b)
		extra, err := memberHeader(r)
		piece, ok := extraField(extra, gzipPiece)
		if err != nil || !ok {
			return nil, errTrailer
		}
		all = append(all, piece...)
		b = b[len(b)-r.Len():]
		if !bytes.HasPrefix(b, []byte(gzipTail)) {
			return nil, errTrailer
		}
		b = b[len(gzipTail):]
	}
	return all, nil
}
