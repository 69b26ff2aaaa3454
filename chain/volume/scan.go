package volume

import (
	"bufio"
	"crypto/sha256"
	"hash"
	"io"
	"math"

	"dupfs/chain"
	"dupfs/chain/pgp"
	"dupfs/chain/zran"
)

// scan collects the chunks of a foreign file as it is read.
type scan struct {
	on     bool
	chunks []chunk
	resume []resume
	points []*zran.Point // whose windows are not complete before the end
	plain  int64         // plaintext so far
	sum    hash.Hash     // of the current chunk
}

// begin begins a chunk here. p may be nil.
func (s *scan) begin(in int64, r resume, p *zran.Point) {
	if s.sum == nil {
		s.sum = sha256.New()
	}
	s.endChunk()
	s.chunks = append(s.chunks, chunk{plain: s.plain, in: in})
	s.resume = append(s.resume, r)
	s.points = append(s.points, p)
}

// endChunk ends the current chunk. An empty one is forgotten.
func (s *scan) endChunk() {
	k := len(s.chunks) - 1
	if k < 0 {
		return
	}
	if s.chunks[k].plain == s.plain {
		s.chunks, s.resume, s.points = s.chunks[:k], s.resume[:k], s.points[:k]
	} else {
		copy(s.chunks[k].hash[:], s.sum.Sum(nil))
	}
	s.sum.Reset()
}

// add takes plaintext.
func (s *scan) add(p []byte) {
	s.plain += int64(len(p))
	if s.on && len(p) > 0 {
		s.sum.Write(p)
	}
}

// since returns how much plaintext the current chunk has.
func (s *scan) since() int64 {
	if k := len(s.chunks) - 1; k >= 0 {
		return s.plain - s.chunks[k].plain
	}
	return math.MaxInt64
}

// finish puts the chunks into l. end is where the last one ends.
func (s *scan) finish(l *Layout, end int64) {
	s.endChunk()
	for i, p := range s.points {
		if p != nil {
			r := &s.resume[i]
			r.bit, r.prefix, r.block, r.blockLen, r.window = p.Bit, p.Prefix, p.Block, p.BlockLen, p.Window
		}
	}
	l.chunks, l.resume, l.end, l.PlainSize = s.chunks, s.resume, end, s.plain
}

// plainDecoder decodes nothing.
type plainDecoder struct {
	r    *bufio.Reader
	buf  []byte
	scan scan
}

func (d *plainDecoder) next() ([]byte, error) {
	if d.buf == nil {
		d.buf = make([]byte, plainChunk)
	}
	n, err := io.ReadFull(d.r, d.buf)
	if err == io.ErrUnexpectedEOF {
		err = nil
	}
	if n > 0 && d.scan.on {
		d.scan.begin(d.scan.plain, resume{}, nil)
	}
	d.scan.add(d.buf[:n])
	if n > 0 {
		return d.buf[:n], nil
	}
	return nil, err
}

func (d *plainDecoder) layout(l *Layout) error {
	l.Layer = chain.Plain
	d.scan.finish(l, d.scan.plain)
	l.resume, l.Own = nil, true
	return nil
}

func (d *plainDecoder) signatures() []pgp.Signature { return nil }
