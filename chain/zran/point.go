package zran

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/bits"

	"github.com/klauspost/compress/flate"
)

// Point is a place in a deflate stream where inflating can begin. The zero
// Point is the beginning of a stream.
type Point struct {
	In  int64 // offset in the stream of the byte that holds the first bit
	Bit uint8 // how many low bits of that byte belong to what comes before
	Out int64 // offset in the output
	// Prefix are blocks without output. If Bit is not zero, the last byte of
	// it is the low bits of the byte at In. At most 200 bytes.
	Prefix []byte
	// Block is the codeword that ends the block around the Point, its first bit
	// lowest, and BlockLen how many bits it has; none at block boundaries.
	Block    uint16
	BlockLen uint8
	// Window is the sparse window, deflated; empty if nothing is referred to.
	// It is complete once 32 KiB more were inflated, or the stream ended.
	Window []byte
}

// points keeps the windows of a Reader's recent Points until it is known what
// the stream refers to.
type points struct {
	last   int64 // Out of the newest Point
	track  int   // where in the Reader's buffer the newest open Point is; 0: none is open
	open   []*window
	free   []*window
	packer *flate.Writer
}

// window is what a Point may need of the output before it.
type window struct {
	point *Point
	at    int // where in the Reader's buffer the Point is; may be negative
	data  [windowLen]byte
	used  [windowLen]bool
	any   bool
}

func (p *points) reset() {
	p.free = append(p.free, p.open...)
	p.open, p.track, p.last = p.open[:0], 0, 0
}

// add opens the window of a Point at buf[wp].
func (p *points) add(pt *Point, buf []byte, lo, wp int) {
	p.last = pt.Out
	if wp == lo {
		return // no history
	}
	w := &window{}
	if n := len(p.free); n > 0 {
		w, p.free = p.free[n-1], p.free[:n-1]
		w.used, w.any = [windowLen]bool{}, false
	}
	w.point, w.at = pt, wp
	history := buf[max(lo, wp-windowLen):wp]
	copy(w.data[windowLen-len(history):], history)
	p.open = append(p.open, w)
	p.track = wp
}

// refer notes that the stream copies n bytes from buf[src], which is in the
// window of the newest open Point at least.
func (p *points) refer(src, n int) {
	for _, w := range p.open {
		from, to := src-w.at+windowLen, min(src+n-w.at, 0)+windowLen
		for i := max(from, 0); i < to; i++ {
			w.used[i], w.any = true, true
		}
	}
}

// slide follows the Reader's buffer, which has dropped d bytes.
func (p *points) slide(d int) {
	p.track = max(0, p.track-d)
	for _, w := range p.open {
		w.at -= d
	}
}

// due closes the windows that nothing behind buf[wp] can refer to.
func (p *points) due(wp int) {
	for len(p.open) > 0 && wp-p.open[0].at >= windowLen {
		p.close(p.open[0])
		p.open = append(p.open[:0], p.open[1:]...)
	}
	if len(p.open) == 0 {
		p.track = 0
	}
}

// finish closes all windows.
func (p *points) finish() {
	for _, w := range p.open {
		p.close(w)
	}
	p.open, p.track = p.open[:0], 0
}

// close writes a window into its Point.
func (p *points) close(w *window) {
	p.free = append(p.free, w)
	if !w.any {
		return
	}
	first := 0
	for ; !w.used[first]; first++ {
	}
	for i := first; i < windowLen; i++ {
		if !w.used[i] {
			w.data[i] = 0
		}
	}
	var out bytes.Buffer
	if p.packer == nil {
		p.packer, _ = flate.NewWriter(&out, flate.DefaultCompression) // the level is valid
	} else {
		p.packer.Reset(&out)
	}
	_, _ = p.packer.Write(w.data[first:]) // into memory
	_ = p.packer.Close()
	w.point.Window = bytes.Clone(out.Bytes())
}

// Mark returns a Point for where the last Next ended, or nil if none is due
// there: it is within a stored block, or closer to the last one than Spacing
// says. It grows complete while Next is called again.
func (r *Reader) Mark() *Point {
	since := r.out - r.points.last
	switch {
	case r.Spacing <= 0 || since < r.Spacing || r.err != nil || r.rp != r.wp:
		return nil
	case r.state == inCodes && since < 2*r.Spacing, r.state == inStored, r.state == atEnd:
		return nil
	}
	bit := r.in*8 - int64(r.nbits)
	pt := &Point{In: bit / 8, Bit: uint8(bit % 8), Out: r.out}
	var head bitString
	if r.state == inCodes {
		pt.Block, pt.BlockLen = r.endWord()
		r.writeHeader(&head)
	}
	pt.Prefix = align(head, uint(pt.Bit))
	r.points.add(pt, r.buf, r.lo, r.wp)
	return pt
}

// endWord returns the codeword for the end of the current block.
func (r *Reader) endWord() (word uint16, n uint8) {
	if r.nlit == 0 {
		return 0, 7
	}
	// Canonical codes: words of one length count up, by symbol.
	lengths := r.lengths[:r.nlit]
	n = lengths[endSymbol]
	for l := uint8(1); l <= n; l++ {
		word <<= 1
		for sym, m := range lengths {
			if m == l && (l < n || sym < endSymbol) {
				word++
			}
		}
	}
	return bits.Reverse16(word) >> (16 - n), n
}

// writeHeader writes the header of the current block. Code lengths are written
// plainly, in four bits each.
func (r *Reader) writeHeader(b *bitString) {
	final := uint(0)
	if r.final {
		final = 1
	}
	if r.nlit == 0 {
		b.add(0b010|final, 3) // fixed codes
		return
	}
	b.add(0b100|final, 3) // dynamic codes
	b.add(uint(r.nlit-257), 5)
	b.add(uint(r.ndist-1), 5)
	b.add(19-4, 4)
	for _, sym := range []byte(codeOrder) {
		if sym < 16 {
			b.add(4, 3)
		} else {
			b.add(0, 3)
		}
	}
	for _, n := range r.lengths[:r.nlit+r.ndist] {
		b.add(uint(bits.Reverse8(n)>>4), 4)
	}
}

// align puts empty blocks before head, so that its length is bit modulo 8.
func align(head bitString, bit uint) []byte {
	var b bitString
	if (head.n+bit)%2 == 1 {
		emptyDynamic(&b)
	}
	for (b.n+head.n)%8 != bit {
		b.add(0b010, 3) // fixed codes, end of block
		b.add(0, 7)
	}
	for i := range head.n {
		b.add(uint(head.b[i/8]>>(i%8)), 1)
	}
	return b.b
}

// emptyDynamic writes a block of 93 bits and no output: one codeword ends it.
func emptyDynamic(b *bitString) {
	b.add(0b100, 3)
	b.add(0, 5) // 257 lengths
	b.add(0, 5) // 1 length
	b.add(19-4, 4)
	for _, sym := range []byte(codeOrder) {
		switch sym {
		case 1, 18:
			b.add(1, 3) // words 0 and 1
		default:
			b.add(0, 3)
		}
	}
	b.add(1, 1) // 138 zeros
	b.add(138-11, 7)
	b.add(1, 1) // 118 zeros
	b.add(118-11, 7)
	b.add(0, 1) // length 1 for the end of block
	b.add(0, 1) // and for a distance
	b.add(0, 1) // end of block
}

// bitString is a string of bits, the first one lowest.
type bitString struct {
	b []byte
	n uint
}

// add appends the low n bits of v.
func (s *bitString) add(v, n uint) {
	for i := range n {
		if s.n%8 == 0 {
			s.b = append(s.b, 0)
		}
		s.b[s.n/8] |= byte(v>>i&1) << (s.n % 8)
		s.n++
	}
}

// Ending returns what a run of a stream needs behind it to be a deflate stream
// that ends at p. last is the stream's byte at p.In; the ending takes its place.
func (p *Point) Ending(last byte) []byte {
	var s bitString
	if p.Bit > 0 {
		s.add(uint(last), uint(p.Bit))
	}
	s.add(uint(p.Block), uint(p.BlockLen))
	s.add(0b011, 3) // final, fixed codes
	s.add(0, 7)
	return s.b
}

// Segment returns the run of a stream from p to next as a deflate stream of
// its own: inflated with Dict as dictionary, it yields the next.Out - p.Out
// bytes of output from p.Out on. run is the stream from p.In to next.In, and
// one byte more if next.Bit is not zero. A nil next is the end of the stream.
// run is neither changed nor kept.
func (p *Point) Segment(run []byte, next *Point) ([]byte, error) {
	var ending []byte
	if next != nil {
		n := next.In - p.In
		whole := n
		if next.Bit > 0 {
			n++
		}
		if n != int64(len(run)) || n < 0 {
			return nil, fmt.Errorf("deflate: a run of %d bytes, not %d", len(run), n)
		}
		var last byte
		if next.Bit > 0 {
			last = run[whole]
		}
		ending, run = next.Ending(last), run[:whole]
	}
	b := make([]byte, 0, len(p.Prefix)+len(run)+len(ending))
	b = append(b, p.Prefix...)
	b = append(b, run...)
	b = append(b, ending...)
	if p.Bit > 0 {
		if len(p.Prefix) == 0 || len(b) == len(p.Prefix) {
			return nil, errors.New("deflate: a Point without its prefix")
		}
		// The first byte of the run belongs to what comes before in part.
		at := len(p.Prefix) - 1
		b[at] |= b[at+1] &^ (1<<p.Bit - 1)
		b = append(b[:at+1], b[at+2:]...)
	}
	return b, nil
}

// Dict appends the window of p to dst, the dictionary to inflate a Segment
// with: at most 32 KiB.
func (p *Point) Dict(dst []byte) ([]byte, error) {
	if len(p.Window) == 0 {
		return dst, nil
	}
	f := flate.NewReader(bytes.NewReader(p.Window))
	w := bytes.NewBuffer(dst)
	if _, err := io.Copy(w, io.LimitReader(f, windowLen+1)); err != nil {
		return nil, fmt.Errorf("window of a checkpoint: %w", err)
	}
	if w.Len()-len(dst) > windowLen {
		return nil, errors.New("window of a checkpoint: too long")
	}
	return w.Bytes(), nil
}
