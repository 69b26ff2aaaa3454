package volume

import "github.com/klauspost/compress/flate"

// encoder is a worker's deflate encoder.
type encoder struct {
	level     int
	w         *flate.Writer
	probe     *flate.Writer
	buf       sliceWriter
	stretches []stretch
}

// sliceWriter appends to a slice.
type sliceWriter []byte

func (s *sliceWriter) Write(p []byte) (int, error) {
	*s = append(*s, p...)
	return len(p), nil
}

// deflate appends the deflated form of p to dst, ending at a byte; as the end
// of the stream if final is set. What does not compress is stored, and dense
// and other bytes never share a deflate block: one code for both would serve
// neither.
func (e *encoder) deflate(dst, p []byte, final bool) []byte {
	e.buf = dst
	e.split(p)
	fresh := true // nothing is in the encoder's window
	at := 0
	for i, s := range e.stretches {
		part, end := p[at:s.end], final && i == len(e.stretches)-1
		at = s.end
		if s.dense && e.incompressible(part) {
			e.buf = storedBlocks(e.buf, part, end)
			fresh = true
			continue
		}
		e.squeeze(part, fresh, end)
		fresh = false
	}
	out := e.buf
	e.buf = nil
	if len(out)-len(dst) > storedLen(len(p)) {
		return storedBlocks(out[:len(dst)], p, final)
	}
	return out
}

// squeeze deflates part into e.buf, referring to what was squeezed before
// unless fresh is set.
func (e *encoder) squeeze(part []byte, fresh, end bool) {
	switch {
	case e.w == nil:
		e.w, _ = flate.NewWriter(&e.buf, e.level) // the level was checked
	case fresh:
		e.w.Reset(&e.buf)
	}
	_, err := e.w.Write(part)
	if err == nil {
		if end {
			err = e.w.Close()
		} else {
			err = e.w.Flush()
		}
	}
	if err != nil {
		panic("volume: deflate into memory: " + err.Error())
	}
}

// stretch is a part of a chunk that seems to be dense, or not.
type stretch struct {
	end   int
	dense bool
}

const (
	// unit is how finely dense bytes are told from others. A stretch has two
	// at least, so that the ends of blocks cost little.
	unit = 4 << 10
	// unitSample is how much of a unit is looked at.
	unitSample = 1 << 10
	// minStored is the least that is stored undeflated: what follows cannot
	// refer to what was before, and deflate reaches no farther back than this.
	// At a chunk's start or end less will do.
	minStored, minStoredEdge = 32 << 10, 8 << 10
	// maxProbe is how much is deflated on trial, at the fastest level: the
	// middle of a stretch, a quarter of it.
	maxProbe = 32 << 10
)

// split divides p into stretches, at least one.
func (e *encoder) split(p []byte) {
	list := e.stretches[:0]
	for at := 0; at < len(p); at += unit {
		end := min(at+unit, len(p))
		dense := looksDense(p[at:end])
		if n := len(list); n > 0 && (list[n-1].dense == dense || end-at < unit) {
			list[n-1].end = end
		} else if n > 1 && list[n-1].end-list[n-2].end < 2*unit {
			list[n-2].end = end // one unit between others of a kind
			list = list[:n-1]
		} else {
			list = append(list, stretch{end, dense})
		}
	}
	at := 0
	for i, s := range list {
		least := minStored
		if i == 0 || i == len(list)-1 {
			least = minStoredEdge
		}
		list[i].dense = s.dense && s.end-at >= least
		at = s.end
	}
	if len(list) == 0 {
		list = append(list, stretch{})
	}
	e.stretches = list
}

// looksDense reports whether the bytes at the start of p are spread about as
// evenly as those of encrypted or compressed data. It counts how many pairs of
// them are equal: of random bytes one in 256, of text one in 15.
func looksDense(p []byte) bool {
	p = p[:min(len(p), unitSample)]
	var counts [256]uint32
	for _, b := range p {
		counts[b]++
	}
	pairs := uint32(0) // twice the number
	for _, n := range counts {
		pairs += n * (n - 1)
	}
	n := uint32(len(p))
	return pairs <= n*(n-1)/256*5/4
}

// incompressible reports whether deflating p, which looks dense, would save
// next to nothing.
func (e *encoder) incompressible(p []byte) bool {
	var size countWriter
	if e.probe == nil {
		e.probe, _ = flate.NewWriter(&size, flate.BestSpeed) // the level is valid
	} else {
		e.probe.Reset(&size)
	}
	n := max(min(len(p)/4, maxProbe), min(len(p), minStoredEdge))
	mid := (len(p) - n) / 2
	_, _ = e.probe.Write(p[mid : mid+n]) // a countWriter does not fail
	_ = e.probe.Close()
	return int(size) > n*98/100
}

// countWriter counts.
type countWriter int

func (c *countWriter) Write(p []byte) (int, error) {
	*c += countWriter(len(p))
	return len(p), nil
}
