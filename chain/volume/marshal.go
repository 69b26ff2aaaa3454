package volume

import (
	"bytes"
	"encoding/binary"
	"errors"

	"dupfs/chain"
	"dupfs/chain/pgp"
)

// layoutVersion begins a marshalled Layout.
const layoutVersion = 1

var errLayout = errors.New("not a layout of a stored file, or a damaged one")

// The flags of a marshalled Layout.
const (
	flagOwn = 1 << iota
	flagSHA1
	flagResume
	flagOrdered
)

// The flags of a chunk that resumes.
const (
	resumeHeader = 1 << iota
	resumeStarted
	resumeMore
	resumeWindow
)

// MarshalBinary returns the Layout in a compact form: some 22 bytes a chunk, and
// 1 to 3 KiB a chunk of a foreign file. It contains the session key.
func (l *Layout) MarshalBinary() ([]byte, error) {
	flags := byte(0)
	if l.Own {
		flags |= flagOwn
	}
	if l.SHA1 != [20]byte{} {
		flags |= flagSHA1
	}
	if len(l.resume) > 0 {
		flags |= flagResume
	}
	if l.Ordered {
		flags |= flagOrdered
	}
	b := []byte{layoutVersion, byte(l.Layer), flags}
	b = binary.AppendUvarint(b, uint64(l.StoredSize))
	b = binary.AppendUvarint(b, uint64(l.PlainSize))
	if flags&flagSHA1 != 0 {
		b = append(b, l.SHA1[:]...)
	}
	if l.Layer == chain.OpenPGP {
		b = l.msg.append(b)
	}
	b = binary.AppendUvarint(b, uint64(len(l.chunks)))
	var prev chunk
	for i, c := range l.chunks {
		b = binary.AppendUvarint(b, uint64(c.plain-prev.plain))
		b = binary.AppendUvarint(b, uint64(c.in-prev.in))
		b = append(b, c.hash[:]...)
		if len(l.resume) > 0 {
			b = l.resume[i].append(b)
		}
		prev = c
	}
	return binary.AppendUvarint(b, uint64(l.end-prev.in)), nil
}

func (m *message) append(b []byte) []byte {
	b = append(b, m.session.Cipher, byte(len(m.session.Key)))
	b = append(b, m.session.Key...)
	b = append(b, m.packing)
	return m.inner.append(m.outer.append(b))
}

func (f *framing) append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(f.base))
	b = binary.AppendUvarint(b, uint64(len(f.runs)))
	for _, r := range f.runs {
		b = binary.AppendUvarint(b, uint64(r.header))
		b = binary.AppendUvarint(b, uint64(r.n))
		b = binary.AppendUvarint(b, uint64(r.count))
	}
	return b
}

func (r *resume) append(b []byte) []byte {
	flags := r.bit << 4
	if r.header {
		flags |= resumeHeader
	}
	if r.started {
		flags |= resumeStarted
	}
	if r.more {
		flags |= resumeMore
	}
	if len(r.window) > 0 {
		flags |= resumeWindow
	}
	b = append(b, flags)
	if r.started {
		b = binary.AppendUvarint(b, uint64(r.left+1)) // -1: all there are
	}
	b = binary.AppendUvarint(b, uint64(len(r.prefix)))
	b = append(b, r.prefix...)
	if len(r.prefix) > 0 {
		b = append(b, r.blockLen, byte(r.block), byte(r.block>>8))
	}
	if len(r.window) > 0 {
		b = binary.AppendUvarint(b, uint64(len(r.window)))
		b = append(b, r.window...)
	}
	return b
}

// unmarshaler reads a marshalled Layout. After the first error it yields
// zeros.
type unmarshaler struct {
	b   []byte
	bad bool
}

func (u *unmarshaler) byte() byte {
	if b := u.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

// bytes returns the next n bytes, nil if there are not as many. They are
// shared with the input.
func (u *unmarshaler) bytes(n int) []byte {
	if u.bad || n > len(u.b) {
		u.bad = true
		return nil
	}
	p := u.b[:n:n]
	u.b = u.b[n:]
	return p
}

// uvarint returns the next number, at most limit.
func (u *unmarshaler) uvarint(limit int64) int64 {
	v, n := binary.Uvarint(u.b)
	if u.bad || n <= 0 || v > uint64(limit) {
		u.bad = true
		return 0
	}
	u.b = u.b[n:]
	return int64(v)
}

// maxOffset bounds offsets, so that sums of a few do not overflow.
const maxOffset = 1 << 61

// UnmarshalBinary reads what MarshalBinary wrote.
func (l *Layout) UnmarshalBinary(b []byte) error {
	u := &unmarshaler{b: b}
	if u.byte() != layoutVersion {
		return errLayout
	}
	layer, flags := chain.Layer(u.byte()), u.byte()
	got := Layout{Name: l.Name, Layer: layer, Own: flags&flagOwn != 0, Ordered: flags&flagOrdered != 0}
	got.StoredSize, got.PlainSize = u.uvarint(maxOffset), u.uvarint(maxOffset)
	if flags&flagSHA1 != 0 {
		copy(got.SHA1[:], u.bytes(len(got.SHA1)))
	}
	switch layer {
	case chain.OpenPGP:
		u.message(&got.msg)
	case chain.Plain, chain.Gzip:
	default:
		return errLayout
	}
	u.chunks(&got, flags&flagResume != 0)
	got.end = got.lastIn() + u.uvarint(maxOffset)
	if u.bad || len(u.b) > 0 || !got.sound() {
		return errLayout
	}
	*l = got
	return nil
}

// lastIn returns where the last chunk begins.
func (l *Layout) lastIn() int64 {
	if n := len(l.chunks); n > 0 {
		return l.chunks[n-1].in
	}
	return 0
}

func (u *unmarshaler) message(m *message) {
	m.session = pgp.Session{Cipher: u.byte()}
	m.session.Key = bytes.Clone(u.bytes(int(u.byte())))
	m.packing = u.byte()
	u.framing(&m.outer)
	u.framing(&m.inner)
	if _, err := m.session.Block(); err != nil || m.packing > packedZLIB {
		u.bad = true
	}
}

func (u *unmarshaler) framing(f *framing) {
	*f = newFraming(u.uvarint(maxOffset))
	count := u.uvarint(maxRuns)
	for ; count > 0 && !u.bad; count-- {
		header, n, pieces := u.uvarint(5), u.uvarint(maxOffset), u.uvarint(maxOffset)
		if pieces == 0 || n+header > 0 && pieces > (maxOffset-f.end)/(n+header) {
			u.bad = true
			return
		}
		f.add(header, n, pieces)
	}
}

func (u *unmarshaler) chunks(l *Layout, resumes bool) {
	const least = hashLen + 2
	count := int(u.uvarint(int64(len(u.b) / least)))
	l.chunks = make([]chunk, count)
	if resumes {
		l.resume = make([]resume, count)
	}
	var prev chunk
	for i := range l.chunks {
		c := &l.chunks[i]
		c.plain, c.in = prev.plain+u.uvarint(maxOffset-prev.plain), prev.in+u.uvarint(maxOffset-prev.in)
		copy(c.hash[:], u.bytes(hashLen))
		if i > 0 && c.plain <= prev.plain {
			u.bad = true
		}
		if resumes {
			u.resume(&l.resume[i])
		}
		if u.bad {
			return
		}
		prev = *c
	}
}

func (u *unmarshaler) resume(r *resume) {
	flags := u.byte()
	r.bit = flags >> 4
	r.header, r.started, r.more = flags&resumeHeader != 0, flags&resumeStarted != 0, flags&resumeMore != 0
	if r.started {
		r.left = u.uvarint(maxOffset) - 1
	}
	const maxPrefix, maxWindow = 1 << 10, 64 << 10
	r.prefix = bytes.Clone(u.bytes(int(u.uvarint(maxPrefix))))
	if len(r.prefix) > 0 {
		r.blockLen = u.byte()
		r.block = uint16(u.byte()) | uint16(u.byte())<<8
	}
	if flags&resumeWindow != 0 {
		r.window = bytes.Clone(u.bytes(int(u.uvarint(maxWindow))))
	}
	u.bad = u.bad || r.bit > 7 || r.blockLen > 15 || r.bit > 0 && len(r.prefix) == 0
}

// sound checks that what was unmarshalled cannot lead Decode astray.
func (l *Layout) sound() bool {
	if len(l.chunks) == 0 {
		return l.PlainSize == 0 && (!l.Ordered || l.Layer == chain.Plain)
	}
	if l.chunks[0].plain != 0 || l.PlainSize <= l.chunks[len(l.chunks)-1].plain || l.end < l.lastIn() || l.end > maxOffset {
		return false
	}
	if !l.Own && l.Layer != chain.Plain && len(l.resume) == 0 {
		return false
	}
	if l.Layer == chain.Plain && (l.end != l.PlainSize || len(l.resume) > 0) {
		return false
	}
	if l.Ordered {
		return l.Layer == chain.Plain && !l.Own
	}
	if l.Layer != chain.OpenPGP {
		return l.end <= l.StoredSize
	}
	m := &l.msg
	if len(m.outer.runs) == 0 || len(m.inner.runs) == 0 || l.end > m.inner.size {
		return false
	}
	_, hi := m.cipherRange(0, l.end)
	return hi <= m.outer.size
}
