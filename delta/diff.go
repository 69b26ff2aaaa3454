package delta

import (
	"encoding/binary"
	"io"
)

// Sink takes a delta, command by command.
type Sink interface {
	// Copy says that the next n bytes of the new file are those at off of the
	// basis. n > 0; copies that touch in both files come as one.
	Copy(off, n int64) error
	// Literal says that the next bytes of the new file are p: 1 byte to
	// 64 KiB. p is valid during the call only.
	Literal(p []byte) error
}

const (
	// readChunk is the room for a read beside what must be kept.
	readChunk = 256 << 10
	// firstBuf is the buffer of a small file.
	firstBuf = 64 << 10
)

// differ is the state of one Diff. The window is the block at pos.
type differ struct {
	sig  *Signature
	r    io.Reader
	sink Sink
	b    int // block length

	// buf[:end] is content; buf[lit:pos] is not yet given to the sink.
	buf           []byte
	lit, pos, end int
	eof           bool
	base          int64 // offset of buf[0] in the new file

	copyOff, copyLen int64 // the last copy, not yet given to the sink
	// shift is the offset in the basis minus that in the new file, of the
	// last copy: where a file changed in place, the block that follows, and
	// later those after the change, are found by it.
	shift int64
	// spent counts bytes hashed in vain; see candidate.
	spent int64

	roll rollsum
	rk   rabinKarp
	pow  uint32 // rkMult to the b
}

// Diff reads the new content from r to its end and gives its delta against the
// file of sig to sink. It finds blocks of the old file at any offset; the
// last, short block only at the end of the content, as its length is not known.
// The first error of r or sink is returned.
//
// Time is linear in the content, whatever both files hold: hashing of blocks
// that turn out different is limited to twice the content, beside one check for
// each block that lies where the last copy would go on. Where that limit is
// reached, which takes gigabytes that resemble each other or malice, some
// matches are missed, and the delta is larger. Memory: twice the block length
// and 320 KiB.
func Diff(sig *Signature, r io.Reader, sink Sink) error {
	d := &differ{sig: sig, r: r, sink: sink, b: sig.blockLen}
	d.pow = rkPow(d.b)
	if sig.n == 0 {
		return d.allLiteral()
	}
	for {
		switch ok, err := d.have(d.b); {
		case err != nil:
			return err
		case !ok:
			return d.tail()
		}
		d.start(d.buf[d.pos : d.pos+d.b])
		if err := d.scan(); err != nil {
			return err
		}
	}
}

// scan moves the window on to the first match and past it; without one, to the
// last window before the end of the content.
func (d *differ) scan() error {
	for {
		if i := d.candidate(d.buf[d.pos : d.pos+d.b]); i >= 0 {
			return d.match(i, d.b)
		}
		if ok, err := d.advance(); err != nil || !ok {
			return err
		}
	}
}

// advance rolls the window on by one byte or more, to the next position with
// the weak sum of a block. It reports false at the end of the content, with
// the window's first byte dropped, so that have fails.
func (d *differ) advance() (bool, error) {
	for {
		limit := min(d.end-d.b, d.lit+maxLiteral)
		if d.pos < limit && d.rollTo(limit) {
			return true, nil
		}
		if d.pos-d.lit >= maxLiteral {
			if err := d.flushLiteral(); err != nil {
				return false, err
			}
		}
		if d.pos+d.b < d.end {
			continue
		}
		switch ok, err := d.have(d.b + 1); {
		case err != nil:
			return false, err
		case !ok:
			d.pos++
			return false, nil
		}
	}
}

// rollTo rolls the window up to position limit, or to the first position with
// the weak sum of a block, and reports whether there is one.
func (d *differ) rollTo(limit int) bool {
	s := d.sig
	for d.pos < limit {
		var n int
		var hit bool
		outs, ins := d.buf[d.pos:limit], d.buf[d.pos+d.b:limit+d.b]
		if s.kind.rk {
			n, hit = d.rk.roll(outs, ins, d.pow, s.filter, s.filterShift)
		} else {
			n, hit = d.roll.roll(outs, ins, uint32(d.b), s.filter, s.filterShift)
		}
		d.pos += n
		if hit && s.hasWeak(d.weak()) {
			return true
		}
	}
	return false
}

// start computes the window's weak sum anew.
func (d *differ) start(win []byte) {
	if d.sig.kind.rk {
		d.rk = rabinKarp{rkSeed}
		d.rk.add(win)
		return
	}
	d.roll = rollsum{}
	d.roll.add(win)
}

// weak returns the window's weak sum.
func (d *differ) weak() uint32 {
	if d.sig.kind.rk {
		return d.rk.h
	}
	return d.roll.value()
}

// candidate returns the block that equals the full window, or -1. It prefers
// the one that the last copy leads to. The strong sum of others is computed
// only while what was hashed in vain stays below twice the content.
func (d *differ) candidate(win []byte) int {
	s, w := d.sig, d.weak()
	next := d.aligned()
	if next >= 0 && s.weakOf(next) != w {
		next = -1
	}
	if next < 0 && (!s.hasWeak(w) || !d.affordable(len(win))) {
		return -1
	}
	rec := d.record(w, win)
	if next >= 0 && string(s.rec(next)) == string(rec[:4+s.strong]) {
		return next
	}
	i := s.find(rec[:4+s.strong])
	if i < 0 {
		d.spent += int64(len(win))
	}
	return i
}

// affordable reports whether n bytes more may be hashed in vain.
func (d *differ) affordable(n int) bool {
	const grace = 1 << 20
	return d.spent+int64(n) <= 2*(d.base+int64(d.pos))+grace+8*int64(d.b)
}

// aligned returns the block that the window would be if the copying went on
// from the last copy, or -1.
func (d *differ) aligned() int {
	off := d.base + int64(d.pos) + d.shift
	b := int64(d.b)
	if off < 0 || off%b != 0 || off/b >= int64(d.sig.n) {
		return -1
	}
	return int(off / b)
}

// record returns the record that a block like the window would have.
func (d *differ) record(weak uint32, win []byte) (rec [4 + maxStrong]byte) {
	binary.BigEndian.PutUint32(rec[:], weak)
	sum := d.sig.kind.strong(win)
	copy(rec[4:], sum[:])
	return rec
}

// match takes the n bytes at pos, which equal block i.
func (d *differ) match(i, n int) error {
	if err := d.flushLiteral(); err != nil {
		return err
	}
	off := int64(i) * int64(d.b)
	if d.copyLen > 0 && d.copyOff+d.copyLen != off {
		if err := d.flushCopy(); err != nil {
			return err
		}
	}
	if d.copyLen == 0 {
		d.copyOff = off
	}
	d.copyLen += int64(n)
	d.shift = off - (d.base + int64(d.pos))
	d.pos += n
	d.lit = d.pos
	return nil
}

// tail handles the last bytes, fewer than a block: at each position the rest of
// the content may equal the last block.
func (d *differ) tail() error {
	s, last := d.sig, d.sig.n-1
	d.start(d.buf[d.pos:d.end])
	want := s.weakOf(last)
	for ; d.pos < d.end; d.pos++ {
		win := d.buf[d.pos:d.end]
		if d.weak() == want && d.affordable(len(win)) {
			rec := d.record(want, win)
			if string(s.rec(last)) == string(rec[:4+s.strong]) {
				if err := d.match(last, len(win)); err != nil {
					return err
				}
				break
			}
			d.spent += int64(len(win))
		}
		d.drop(win)
	}
	return d.finish()
}

// drop removes the first byte of a window at the end of the content.
func (d *differ) drop(win []byte) {
	if d.sig.kind.rk {
		d.rk.drop(win[0], rkPow(len(win)-1))
		return
	}
	d.roll.drop(win[0], len(win))
}

// finish gives what is pending to the sink.
func (d *differ) finish() error {
	if err := d.flushLiteral(); err != nil {
		return err
	}
	return d.flushCopy()
}

// flushLiteral gives buf[lit:pos] to the sink, after the pending copy.
func (d *differ) flushLiteral() error {
	if d.lit == d.pos {
		return nil
	}
	if err := d.flushCopy(); err != nil {
		return err
	}
	for d.lit < d.pos {
		n := min(d.pos-d.lit, maxLiteral)
		if err := d.sink.Literal(d.buf[d.lit : d.lit+n]); err != nil {
			return err
		}
		d.lit += n
	}
	return nil
}

// flushCopy gives the pending copy to the sink.
func (d *differ) flushCopy() error {
	if d.copyLen == 0 {
		return nil
	}
	off, n := d.copyOff, d.copyLen
	d.copyLen = 0
	return d.sink.Copy(off, n)
}

// allLiteral is Diff against an empty file.
func (d *differ) allLiteral() error {
	for {
		more, err := d.have(maxLiteral)
		if err != nil {
			return err
		}
		d.pos = d.end
		if err := d.flushLiteral(); err != nil || !more {
			return err
		}
	}
}

// have reads until n bytes stand from pos on, and reports false if the content
// ends before.
func (d *differ) have(n int) (bool, error) {
	for idle := 0; d.end-d.pos < n; {
		if d.eof {
			return false, nil
		}
		if d.end == len(d.buf) {
			d.makeRoom()
		}
		k, err := d.r.Read(d.buf[d.end:])
		d.end += k
		switch {
		case err == io.EOF:
			d.eof = true
		case err != nil:
			return false, err
		case k > 0:
			idle = 0
		default:
			if idle++; idle >= 100 {
				return false, io.ErrNoProgress
			}
		}
	}
	return true, nil
}

// makeRoom grows the buffer, as long as it is not at its full size, or moves
// what must be kept to its front. At full size at most half of it must.
func (d *differ) makeRoom() {
	full := 2*d.b + maxLiteral + readChunk
	buf := d.buf
	if len(buf) < full {
		buf = make([]byte, min(full, max(firstBuf, 2*len(buf))))
	}
	copy(buf, d.buf[d.lit:d.end])
	d.base += int64(d.lit)
	d.pos -= d.lit
	d.end -= d.lit
	d.lit, d.buf = 0, buf
}
