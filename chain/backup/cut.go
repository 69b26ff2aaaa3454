package backup

// span says where a run of a file lies: in a body at off, or, with basis, in
// the file's previous version at off.
type span struct {
	fileOff, n int64
	off        int64
	basis      bool
}

// piece is the body of one member, and the spans of the file that end with it.
// Offsets of spans are within the body.
type piece struct {
	data  []byte
	spans []span
	last  bool
}

// cutter cuts a content or a delta into pieces. It holds one piece back, so
// that the last one is known to be the last, and a body of one piece is never
// given to emit at all: it can still be thrown away.
type cutter struct {
	size  int               // of all pieces but the last
	buf   []byte            // not yet emitted
	off   int64             // of buf in the body
	spans []span            // of what is not yet emitted, off within the whole body
	alloc func() []byte     // an empty buffer for a piece
	emit  func(piece) error // takes the data over
	sent  int               // pieces emitted
}

// Write adds to the body.
func (c *cutter) Write(p []byte) (int, error) {
	c.buf = append(c.buf, p...)
	return len(p), nil
}

// span notes a run of the file that has just been written, or is copied.
func (c *cutter) span(s span) {
	if n := len(c.spans); n > 0 {
		l := &c.spans[n-1]
		if !s.basis && !l.basis && l.off+l.n == s.off && l.fileOff+l.n == s.fileOff {
			l.n += s.n
			return
		}
	}
	c.spans = append(c.spans, s)
}

// cut emits the pieces that are full and not the last.
func (c *cutter) cut() error {
	start := 0
	for ; len(c.buf)-start > c.size; start += c.size {
		c.off += int64(c.size)
		p := piece{data: append(c.alloc(), c.buf[start:start+c.size]...)}
		p.spans = c.take(c.off-int64(c.size), c.off)
		if err := c.emit(p); err != nil {
			return err
		}
		c.sent++
	}
	if start > 0 {
		c.buf = append(c.buf[:0], c.buf[start:]...)
	}
	return nil
}

// finish returns the last piece.
func (c *cutter) finish() (piece, error) {
	if err := c.cut(); err != nil {
		return piece{}, err
	}
	return piece{data: c.buf, spans: c.take(c.off, c.off+int64(len(c.buf))), last: true}, nil
}

// take removes the spans up to end in the body and returns them with offsets
// from start. A span that goes on after end is divided.
func (c *cutter) take(start, end int64) []span {
	var out []span
	for i := range c.spans {
		s := &c.spans[i]
		if s.basis {
			out = append(out, *s)
			continue
		}
		if n := min(s.n, end-s.off); n > 0 {
			out = append(out, span{fileOff: s.fileOff, n: n, off: s.off - start})
			s.fileOff, s.off, s.n = s.fileOff+n, s.off+n, s.n-n
		}
		if s.n > 0 {
			c.spans = append(c.spans[:0], c.spans[i:]...)
			return out
		}
	}
	c.spans = c.spans[:0]
	return out
}
