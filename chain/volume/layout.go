package volume

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"sort"
	"sync"

	"dupfs/chain"
	"dupfs/chain/pgp"
	"dupfs/chain/zran"
)

// Chunk is a piece of a stored file that can be decoded alone.
type Chunk struct {
	PlainOff, PlainLen   int64 // of its plaintext
	StoredOff, StoredLen int64 // of the stored bytes that Decode needs; those of neighbours may overlap a little
}

// Layout is what is known of a stored file: enough to decode any chunk of it.
// It does not change once made. It contains the session key.
//
// Offsets named in are in the stream that chunks are cut from: the body of the
// compressed packet of an OpenPGP message, or all its packets if they are not
// compressed; the stored file itself in the other layers.
type Layout struct {
	Name       string // of the stored file, for errors; not marshalled
	Layer      chain.Layer
	StoredSize int64
	PlainSize  int64    // without our trailer, and with everything a stock volume holds
	SHA1       [20]byte // of the stored file; zero in a Layout of ReadTrailer
	Own        bool     // in the seekable form that dupfs writes
	// Ordered says that the stored file can only be read in order: it is
	// compressed by bzip2, or encrypted with OCB or without protection of its
	// integrity. Its chunks are then pieces of the plaintext, of a copy that
	// who reads it makes: StoredOff is PlainOff, and Decode only verifies.
	Ordered bool

	chunks []chunk
	end    int64    // in: where the last chunk ends
	resume []resume // how to begin each chunk; empty if all begin afresh
	msg    message  // of chain.OpenPGP
}

// hashLen is how much of a SHA-256 is kept.
const hashLen = 16

// chunk is where a chunk begins, and the hash that it is checked by: of its
// compressed bytes in files of ours, of its plaintext in others.
type chunk struct {
	plain, in int64
	hash      [hashLen]byte
}

// resume is how to begin a chunk in the middle of a deflate stream.
type resume struct {
	bit      uint8
	prefix   []byte
	block    uint16
	blockLen uint8
	window   []byte
	// header says that a gzip member's header comes first.
	header bool
	// started, left and more are the state of the literal packet.
	started bool
	left    int64
	more    bool
}

// The compression of an OpenPGP message, by its number in RFC 4880.
const (
	packed0     = 0 // none
	packedZIP   = 1 // deflate
	packedZLIB  = 2 // deflate in zlib's frame
	packedBZIP2 = 3
)

// message is how an OpenPGP message is put together.
type message struct {
	session pgp.Session
	outer   framing // of the encrypted packet's body in the stored file
	packing byte
	inner   framing // of in, within what is encrypted
}

// Len returns the number of chunks.
func (l *Layout) Len() int { return len(l.chunks) }

// Chunk returns chunk k, 0 <= k < Len.
func (l *Layout) Chunk(k int) Chunk {
	c := Chunk{PlainOff: l.chunks[k].plain, PlainLen: l.plainEnd(k) - l.chunks[k].plain}
	from, to := l.span(k)
	if l.Layer == chain.OpenPGP {
		from, to = l.msg.stored(l.msg.cipherRange(from, to))
	}
	c.StoredOff, c.StoredLen = from, to-from
	return c
}

// plainEnd returns where chunk k ends in the plaintext.
func (l *Layout) plainEnd(k int) int64 {
	if k+1 < len(l.chunks) {
		return l.chunks[k+1].plain
	}
	return l.PlainSize
}

// span returns which bytes of in chunk k needs.
func (l *Layout) span(k int) (from, to int64) {
	from, to = l.chunks[k].in, l.end
	if k+1 < len(l.chunks) {
		to = l.chunks[k+1].in
		if len(l.resume) > 0 && l.resume[k+1].bit > 0 {
			to++
		}
	}
	return from, to
}

// Find returns the chunk that holds the plaintext byte at plainOff, which must
// be less than PlainSize.
func (l *Layout) Find(plainOff int64) int {
	return sort.Search(len(l.chunks), func(i int) bool { return l.chunks[i].plain > plainOff }) - 1
}

// Memory returns how many bytes the Layout occupies, roughly.
func (l *Layout) Memory() int64 {
	n := int64(256 + 32*len(l.chunks) + 96*len(l.resume) + 40*(len(l.msg.outer.runs)+len(l.msg.inner.runs)))
	for i := range l.resume {
		n += int64(len(l.resume[i].prefix) + len(l.resume[i].window))
	}
	return n
}

// scratch is what Decode needs beside its result.
type scratch struct {
	body, text []byte
	dict       []byte
	inflate    zran.Reader
}

// scratches are kept for the next Decode: some 300 KiB to a few MiB each.
var scratches = sync.Pool{New: func() any { return new(scratch) }}

// Decode appends the plaintext of chunk k to dst. stored must be exactly the
// range that Chunk tells. It is verified before any of it is returned; damage
// is a *chain.CorruptError. Safe for concurrent use.
func (l *Layout) Decode(dst []byte, k int, stored []byte) ([]byte, error) {
	return l.decode(dst, k, stored, l.Chunk(k))
}

// DecodeStart is Decode for the first n bytes of a chunk. In files of ours, whose
// hashes are over what is stored, the rest is then verified but not inflated.
func (l *Layout) DecodeStart(dst []byte, k int, stored []byte, n int64) ([]byte, error) {
	c := l.Chunk(k)
	if l.Own {
		c.PlainLen = min(c.PlainLen, n)
	}
	dst, err := l.decode(dst, k, stored, c)
	return dst[:min(int64(len(dst)), n)], err
}

// decode appends the first c.PlainLen bytes of chunk k to dst; all of it, unless
// the file is of ours.
func (l *Layout) decode(dst []byte, k int, stored []byte, c Chunk) ([]byte, error) {
	if int64(len(stored)) != c.StoredLen {
		return nil, l.corrupt(k, fmt.Sprintf("%d stored bytes, not %d", len(stored), c.StoredLen))
	}
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	in, err := l.decrypt(s, k, stored)
	if err != nil {
		return nil, err
	}
	if (l.Own || l.Layer == chain.Plain) && !l.matches(k, in) {
		return nil, l.corrupt(k, "its hash is wrong")
	}
	was := len(dst)
	if dst, err = l.inflate(dst, s, k, in, c.PlainLen); err != nil {
		return nil, l.corrupt(k, err.Error())
	}
	if int64(len(dst)-was) != c.PlainLen {
		return nil, l.corrupt(k, fmt.Sprintf("%d bytes, not %d", len(dst)-was, c.PlainLen))
	}
	if !l.Own && !l.matches(k, dst[was:]) {
		return nil, l.corrupt(k, "its hash is wrong")
	}
	return dst, nil
}

// corrupt is the error for chunk k.
func (l *Layout) corrupt(k int, reason string) error {
	return chain.Corrupt(l.Name, fmt.Sprintf("chunk %d: %s", k, reason))
}

// matches compares a chunk's hash.
func (l *Layout) matches(k int, b []byte) bool {
	sum := sha256.Sum256(b)
	return bytes.Equal(sum[:hashLen], l.chunks[k].hash[:])
}

// decrypt returns the bytes of in that chunk k needs. They belong to s or
// are stored.
func (l *Layout) decrypt(s *scratch, k int, stored []byte) ([]byte, error) {
	if l.Layer != chain.OpenPGP {
		return stored, nil
	}
	from, to := l.span(k)
	in, err := l.msg.decrypt(s, stored, from, to)
	if err != nil {
		return nil, l.corrupt(k, err.Error())
	}
	return in, nil
}

// cipherRange returns which bytes of the encrypted packet's body are needed
// for the bytes from..to of in: whole blocks to begin with, and the one before
// them.
func (m *message) cipherRange(from, to int64) (int64, int64) {
	lo, hi := m.plainRange(from, to)
	size := m.blockSize()
	return max(lo/size*size-size, 0) + 1, hi + 1
}

// plainRange returns the bytes from..to of in as offsets in what is encrypted.
func (m *message) plainRange(from, to int64) (int64, int64) {
	lo := m.inner.to(from)
	if from == to {
		return lo, lo
	}
	return lo, m.inner.to(to-1) + 1
}

// blockSize returns the cipher's block size.
func (m *message) blockSize() int64 {
	if m.session.Cipher < 5 {
		return 8
	}
	return 16
}

// stored maps a range of the encrypted packet's body to the stored file.
func (m *message) stored(from, to int64) (int64, int64) {
	if to <= from {
		return m.outer.to(from), m.outer.to(from)
	}
	return m.outer.to(from), m.outer.to(to-1) + 1
}

var errBeyond = errors.New("it lies beyond the end of the packet")

// decrypt returns the bytes from..to of in, given the stored bytes for them.
func (m *message) decrypt(s *scratch, stored []byte, from, to int64) ([]byte, error) {
	block, err := m.session.Block()
	if err != nil {
		return nil, err
	}
	lo, hi := m.cipherRange(from, to)
	if to > m.inner.size || hi > m.outer.size { // of a layout that nobody wrote
		return nil, errBeyond
	}
	s.body = m.outer.strip(s.body[:0], stored, lo, hi)
	size := block.BlockSize()
	iv, text := make([]byte, size), s.body
	first, last := m.plainRange(from, to)
	start := lo - 1
	if first >= int64(size) {
		iv, text = s.body[:size], s.body[size:]
		start += int64(size)
	}
	s.text = grow(s.text, len(text)+16)[:len(text)]
	pgp.DecryptCFB(block, s.text, text, iv)
	text = s.text[first-start : last-start]
	if len(m.inner.runs) == 1 && m.inner.runs[0].count == 1 {
		return text, nil
	}
	s.body = m.inner.strip(s.body[:0], text, from, to)
	return s.body, nil
}

// grow returns b with a capacity of at least n.
func grow(b []byte, n int) []byte {
	if cap(b) >= n {
		return b[:cap(b)]
	}
	return make([]byte, n)
}

// point returns how inflating begins at chunk k.
func (l *Layout) point(k int) *zran.Point {
	r := &l.resume[k]
	return &zran.Point{
		In: l.chunks[k].in, Bit: r.bit, Prefix: r.prefix,
		Block: r.block, BlockLen: r.blockLen, Window: r.window,
	}
}

// inflate appends the plaintext of chunk k, n bytes, to dst.
func (l *Layout) inflate(dst []byte, s *scratch, k int, in []byte, n int64) ([]byte, error) {
	switch l.Layer {
	case chain.Plain:
		return append(dst, in[:min(n, int64(len(in)))]...), nil
	case chain.Gzip:
		return l.inflateMembers(dst, s, k, in, n)
	}
	p := packets{}
	switch {
	case len(l.resume) > 0 && l.resume[k].started:
		p = packets{state: inContent, seen: true, left: l.resume[k].left, more: l.resume[k].more}
	case len(l.resume) == 0 && k > 0:
		p = packets{state: atPiece, seen: true, more: true}
	}
	want := int64(len(dst)) + n
	if l.msg.packing == packed0 {
		return p.appendContent(dst, in, want)
	}
	dict := s.dict[:0]
	if l.Own {
		in = append(in, endOfDeflate...)
	} else {
		var err error
		if in, dict, err = l.segment(s, k, in); err != nil {
			return nil, err
		}
	}
	s.inflate.ResetBytes(in, dict)
	for int64(len(dst)) < want {
		s.inflate.Most = int(want-int64(len(dst))) + pgp.MaxHeader
		b, err := s.inflate.Next()
		if err != nil {
			return nil, err
		}
		if dst, err = p.appendContent(dst, b, want); err != nil {
			return nil, err
		}
	}
	return dst, nil
}

// endOfDeflate is an empty final block.
const endOfDeflate = "\x03\x00"

// segment makes a deflate stream of the bytes that chunk k needs, with its
// dictionary.
func (l *Layout) segment(s *scratch, k int, in []byte) (stream, dict []byte, err error) {
	p := l.point(k)
	var next *zran.Point
	if k+1 < len(l.resume) && !l.resume[k+1].header {
		next = l.point(k + 1)
	}
	if stream, err = p.Segment(in, next); err != nil {
		return nil, nil, err
	}
	s.dict, err = p.Dict(s.dict[:0])
	return stream, s.dict, err
}

// appendContent appends the content within b to dst, up to a length of want.
func (p *packets) appendContent(dst, b []byte, want int64) ([]byte, error) {
	for len(b) > 0 && int64(len(dst)) < want {
		content, rest, err := p.next(b)
		if err != nil {
			return nil, err
		}
		dst = append(dst, content[:min(int64(len(content)), want-int64(len(dst)))]...)
		b = rest
	}
	return dst, nil
}
