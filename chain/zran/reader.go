package zran

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
)

// ErrCorrupt says that the input is no deflate stream.
var ErrCorrupt = errors.New("deflate: corrupt stream")

const (
	// minInput is what a block's header may need of input at once.
	minInput = 1024
	// padding is how many zero bytes stand behind the end of the input, so
	// that the decoder may look ahead without asking each time.
	padding = 32
	// outLen is the output buffer beyond the window.
	outLen = 128 << 10
	// slack is how far a match may be copied beyond its end.
	slack = maxMatch + 16
)

// state says what the input holds next.
type state uint8

const (
	atBlock  state = iota // a block's header
	inStored              // bytes of a stored block
	inCodes               // codewords
	atEnd                 // what follows the stream
)

// Reader inflates one deflate stream at a time, in some 200 KiB of memory
// whatever the stream says. The zero value is ready for Reset.
type Reader struct {
	// Spacing is how far Points shall be apart, in bytes of output. Then
	// Next ends at block boundaries that far from the last Mark, and within a
	// block at twice the distance. 0: no Points.
	Spacing int64
	// Most bounds how much output Next makes at a time, roughly, for who
	// needs no more; 0: only the buffer does. Reset leaves it.
	Most int

	src     *bufio.Reader // or
	mem     []byte        // the rest of the input
	tail    []byte        // the end of the input with padding, once it is near
	tailErr error         // what follows it

	bits  uint64 // input not yet used
	nbits uint   // how many
	in    int64  // bytes taken from the input, bits included

	buf []byte
	lo  int   // start of the history
	rp  int   // start of what Next has not returned
	wp  int   // end of the output
	end int   // where Next stops, at the end of the buffer or before
	out int64 // output of the stream up to buf[wp]

	state  state
	final  bool
	stored int // bytes left of the stored block
	lit    *table
	dist   *table
	err    error

	ownLit, ownDist, codes table
	fixLit, fixDist        table
	lengths                [320]uint8
	nlit, ndist            int

	points points
}

// Reset begins a stream at src, which must buffer at least 4 KiB. What the
// stream does not need stays in src. dict is the output before the stream,
// of which the last 32 KiB count.
func (r *Reader) Reset(src *bufio.Reader, dict []byte) {
	r.reset(dict)
	r.src = src
}

// ResetBytes is Reset for a stream that is in memory.
func (r *Reader) ResetBytes(src, dict []byte) {
	r.reset(dict)
	r.mem = src
}

func (r *Reader) reset(dict []byte) {
	if r.buf == nil {
		r.buf = make([]byte, windowLen+outLen+slack)
		r.fixLit.build(fixedLit(), litBits, litMeaning)
		r.fixDist.build(fixedDist(), distBits, distMeaning)
	}
	r.src, r.mem, r.tail, r.tailErr = nil, nil, r.tail[:0], nil
	r.bits, r.nbits, r.in = 0, 0, 0
	if len(dict) > windowLen {
		dict = dict[len(dict)-windowLen:]
	}
	n := copy(r.buf, dict)
	r.lo, r.rp, r.wp, r.out = 0, n, n, 0
	r.state, r.final, r.stored, r.err = atBlock, false, 0, nil
	r.points.reset()
}

// In returns how many bytes of the input the stream has used, a last one in
// part included. After io.EOF it is the length of the stream.
func (r *Reader) In() int64 { return r.in - int64(r.nbits/8) }

// Out returns how many bytes of output Next has returned.
func (r *Reader) Out() int64 { return r.out }

// Next returns the next bytes of output, at least one unless there is an
// error or a Point can be marked. They stay valid until the next call. io.EOF
// comes after the stream's end, io.ErrUnexpectedEOF if the input ends first.
func (r *Reader) Next() ([]byte, error) {
	for {
		if r.err != nil {
			r.points.finish()
			return nil, r.err
		}
		if r.wp >= windowLen+outLen {
			r.slide()
		}
		r.points.due(r.wp)
		r.end = windowLen + outLen
		if r.Most > 0 {
			r.end = min(r.end, r.wp+r.Most)
		}
		r.fill()
		if b := r.buf[r.rp:r.wp]; len(b) > 0 {
			r.out += int64(len(b))
			r.rp = r.wp
			return b, nil
		}
	}
}

// slide makes room in the output buffer.
func (r *Reader) slide() {
	d := r.wp - windowLen
	copy(r.buf, r.buf[d:r.wp])
	r.points.slide(d)
	r.lo = max(0, r.lo-d)
	r.rp, r.wp = windowLen, windowLen
}

// fill inflates until the buffer is full, a Point is due or the stream ends.
func (r *Reader) fill() {
	in, limit := r.input()
	start := r.wp
	pos := r.decode(in)
	pos -= int(r.nbits / 8)
	r.nbits %= 8
	r.bits &= 1<<r.nbits - 1
	if pos > limit || r.err != nil && r.tailErr != nil && limit-pos < 8 {
		// The decoder has read padding: what it made of it does not count.
		r.wp = start
		r.err = r.tailErr
		if r.err == io.EOF {
			r.err = io.ErrUnexpectedEOF
		}
		return
	}
	r.in += int64(pos)
	r.discard(pos)
	if r.err == nil && r.state == atEnd {
		r.err = io.EOF
	}
}

// input returns the input that is at hand, and how much of it is real. If
// that is all there is, padding follows.
func (r *Reader) input() ([]byte, int) {
	if r.tailErr != nil {
		return r.tail, len(r.tail) - padding
	}
	var in []byte
	if r.src != nil {
		var err error
		if in, err = r.src.Peek(minInput); err == nil {
			in, _ = r.src.Peek(r.src.Buffered())
			return in, len(in)
		}
		r.tailErr = err
	} else {
		if in = r.mem; len(in) >= minInput {
			return in, len(in)
		}
		r.tailErr = io.EOF
	}
	r.tail = append(r.tail[:0], in...)
	r.tail = append(r.tail, make([]byte, padding)...)
	return r.tail, len(in)
}

// discard drops n bytes of the input.
func (r *Reader) discard(n int) {
	if r.tailErr != nil {
		r.tail = r.tail[n:]
	}
	if r.src != nil {
		_, _ = r.src.Discard(n) // they were peeked at
	} else {
		r.mem = r.mem[n:]
	}
}

// decode inflates from in and returns how many bytes it took, r.bits included.
// It needs no check of the input's end: the states stop before it or within
// the padding.
func (r *Reader) decode(in []byte) int {
	pos := 0
	for r.err == nil {
		switch r.state {
		case atBlock:
			if len(in)-pos < minInput && r.tailErr == nil {
				return pos
			}
			if r.boundary() {
				return pos
			}
			pos = r.header(in, pos)
		case inStored:
			pos = r.copyStored(in, pos)
			if r.stored > 0 {
				return pos
			}
			r.endBlock()
		case inCodes:
			var ended bool
			if pos, ended = r.inflate(in, pos); !ended {
				return pos
			}
			r.endBlock()
		case atEnd:
			return pos
		}
		if len(in)-pos < padding/2 && r.tailErr != nil && r.state != atEnd {
			return len(in) // in the padding
		}
	}
	return pos
}

// endBlock goes on behind a block.
func (r *Reader) endBlock() {
	r.state = atBlock
	if r.final {
		r.state = atEnd
	}
}

// boundary reports whether Next shall return at this block boundary.
func (r *Reader) boundary() bool {
	return r.Spacing > 0 && r.wp > r.rp && r.out+int64(r.wp-r.rp)-r.points.last >= r.Spacing
}

// refill makes at least 56 bits ready.
func (r *Reader) refill(in []byte, pos int) int {
	for r.nbits < 56 && pos < len(in) {
		r.bits |= uint64(in[pos]) << r.nbits
		pos++
		r.nbits += 8
	}
	return pos
}

// take returns the next n bits, which must be ready.
func (r *Reader) take(n uint) uint {
	v := uint(r.bits & (1<<n - 1))
	r.bits >>= n
	r.nbits -= min(n, r.nbits)
	return v
}

// header reads a block's header.
func (r *Reader) header(in []byte, pos int) int {
	pos = r.refill(in, pos)
	r.final = r.take(1) == 1
	switch r.take(2) {
	case 0:
		r.take(r.nbits % 8)
		pos = r.refill(in, pos)
		n, check := r.take(16), r.take(16)
		if n != check^0xffff {
			r.err = ErrCorrupt
		}
		// Whole bytes go back to the input.
		pos -= int(r.nbits / 8)
		r.bits, r.nbits = 0, 0
		r.stored, r.state = int(n), inStored
	case 1:
		r.lit, r.dist, r.state = &r.fixLit, &r.fixDist, inCodes
		r.nlit, r.ndist = 0, 0
	case 2:
		pos = r.dynamic(in, pos)
	default:
		r.err = ErrCorrupt
	}
	return pos
}

// codeOrder is the order of code lengths of the code for code lengths.
const codeOrder = "\x10\x11\x12\x00\x08\x07\x09\x06\x0a\x05\x0b\x04\x0c\x03\x0d\x02\x0e\x01\x0f"

// dynamic reads the codes of a dynamic block.
func (r *Reader) dynamic(in []byte, pos int) int {
	r.nlit, r.ndist = int(r.take(5))+257, int(r.take(5))+1
	ncode := int(r.take(4)) + 4
	if r.nlit > maxLit || r.ndist > maxDist {
		r.err = ErrCorrupt
		return pos
	}
	var lengths [19]uint8
	for i := range ncode {
		pos = r.refill(in, pos)
		lengths[codeOrder[i]] = uint8(r.take(3))
	}
	if !r.codes.build(lengths[:], codeBits, codeMeaning) {
		r.err = ErrCorrupt
		return pos
	}
	if pos = r.codeLengths(in, pos); r.err != nil {
		return pos
	}
	lit, dist := r.lengths[:r.nlit], r.lengths[r.nlit:r.nlit+r.ndist]
	if lit[endSymbol] == 0 || !r.ownLit.build(lit, litBits, litMeaning) || !r.ownDist.build(dist, distBits, distMeaning) {
		r.err = ErrCorrupt
		return pos
	}
	r.lit, r.dist, r.state = &r.ownLit, &r.ownDist, inCodes
	return pos
}

// codeLengths reads the code lengths of a dynamic block.
func (r *Reader) codeLengths(in []byte, pos int) int {
	for i, n := 0, r.nlit+r.ndist; i < n; {
		pos = r.refill(in, pos)
		e := r.codes.entries[r.bits&(1<<codeBits-1)]
		if e&entrySpecial != 0 {
			r.err = ErrCorrupt
			return pos
		}
		r.take(uint(e & 31))
		sym, repeat, value := e>>16, 1, uint8(0)
		switch {
		case sym < 16:
			value = uint8(sym)
		case sym == 16 && i > 0:
			value, repeat = r.lengths[i-1], 3+int(r.take(2))
		case sym == 17:
			repeat = 3 + int(r.take(3))
		case sym == 18:
			repeat = 11 + int(r.take(7))
		default:
			repeat = n
			i++ // a repetition of nothing
		}
		if i+repeat > n {
			r.err = ErrCorrupt
			return pos
		}
		for ; repeat > 0; repeat-- {
			r.lengths[i] = value
			i++
		}
	}
	return pos
}

// copyStored copies bytes of a stored block.
func (r *Reader) copyStored(in []byte, pos int) int {
	real := len(in)
	if r.tailErr != nil {
		real -= padding
	}
	room := max(r.end-r.wp, 0)
	n := min(r.stored, max(real-pos, 0), room)
	copy(r.buf[r.wp:], in[pos:pos+n])
	r.wp += n
	r.stored -= n
	if r.stored > 0 && n == 0 && r.tailErr != nil && room > 0 {
		return len(in) // the input ends here
	}
	return pos + n
}

// inflate decodes codewords until the end of the block, which it reports, the
// end of the input at hand, or that of the room for output.
func (r *Reader) inflate(in []byte, pos int) (int, bool) {
	var (
		lit, dist = r.lit.entries, r.dist.entries
		bits, nb  = r.bits, r.nbits
		buf       = r.buf
		wp        = r.wp
		stop      = r.stop()
		track     = r.points.track
		ended     bool
	)
loop:
	for wp < stop && pos <= len(in)-8 {
		bits |= binary.LittleEndian.Uint64(in[pos:]) << (nb & 63)
		pos += int(63-nb) >> 3
		nb |= 56
		e := lit[bits&(1<<litBits-1)]
		if e&entryLiteral != 0 {
			bits >>= e & 31
			nb -= uint(e & 31)
			buf[wp] = byte(e >> 16)
			wp++
			e = lit[bits&(1<<litBits-1)]
			if e&entryLiteral != 0 {
				bits >>= e & 31
				nb -= uint(e & 31)
				buf[wp] = byte(e >> 16)
				wp++
			}
			continue
		}
		if e&entrySpecial != 0 {
			if e&(entrySub^entrySpecial) != 0 {
				sub := e >> 8 & 15
				e = lit[e>>16+uint32(bits>>litBits)&(1<<sub-1)]
				if e&entryLiteral != 0 {
					bits >>= e & 31
					nb -= uint(e & 31)
					buf[wp] = byte(e >> 16)
					wp++
					continue
				}
			}
			if e&entrySpecial != 0 {
				if e&(entryEnd^entrySpecial) == 0 {
					r.err = ErrCorrupt
				}
				bits >>= e & 31
				nb -= uint(e & 31)
				ended = true
				break
			}
		}
		bits >>= e & 31
		nb -= uint(e & 31)
		extra := e >> 8 & 15
		length := int(e>>16) + int(bits&(1<<extra-1))
		bits >>= extra
		nb -= uint(extra)

		e = dist[bits&(1<<distBits-1)]
		if e&entrySpecial != 0 {
			if e&(entrySub^entrySpecial) != 0 {
				sub := e >> 8 & 15
				e = dist[(e>>16&0x7fff)+uint32(bits>>distBits)&(1<<sub-1)]
			}
			if e&entrySpecial != 0 {
				r.err = ErrCorrupt
				break
			}
		}
		bits >>= e & 31
		nb -= uint(e & 31)
		extra = e >> 8 & 15
		d := int(e>>16) + int(bits&(1<<extra-1))
		bits >>= extra
		nb -= uint(extra)

		src := wp - d
		if src < r.lo {
			r.err = ErrCorrupt
			break loop
		}
		if src < track {
			r.points.refer(src, length)
		}
		end := wp + length
		if d >= 8 {
			for wp < end {
				binary.LittleEndian.PutUint64(buf[wp:], binary.LittleEndian.Uint64(buf[src:]))
				wp += 8
				src += 8
			}
		} else if d == 1 {
			run := uint64(buf[src]) * 0x0101010101010101
			for ; wp < end; wp += 8 {
				binary.LittleEndian.PutUint64(buf[wp:], run)
			}
		} else {
			for ; wp < end; wp++ {
				buf[wp] = buf[src]
				src++
			}
		}
		wp = end
	}
	r.bits, r.nbits, r.wp = bits, nb, wp
	return pos, ended
}

// stop returns where in the buffer inflate must return.
func (r *Reader) stop() int {
	stop := r.end
	if r.Spacing > 0 {
		left := 2*r.Spacing - (r.out + int64(r.wp-r.rp) - r.points.last)
		if left < int64(stop-r.wp) {
			stop = r.wp + int(max(left, 1))
		}
	}
	return stop
}
