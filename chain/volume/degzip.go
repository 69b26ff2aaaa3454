package volume

import (
	"bufio"
	"hash/crc32"
	"io"

	"dupfs/chain"
	"dupfs/chain/pgp"
	"dupfs/chain/zran"
)

// gzipDecoder decodes any number of gzip members.
type gzipDecoder struct {
	src     *source
	buf     *bufio.Reader
	inflate zran.Reader
	spacing int64
	scan    scan

	begun  bool // a member was met
	inside bool // in a member's deflate stream
	start  int64
	end    int64 // behind the last member
	crc    uint32
	size   int64

	// The trailer, if the last members are one.
	marked bool // it was promised
	pieces []byte
	tailAt int64
	own    bool
	tail   trailer // if own
}

func newGzipDecoder(src *source, buf *bufio.Reader, spacing int64) *gzipDecoder {
	d := &gzipDecoder{src: src, buf: buf, spacing: spacing}
	d.scan.on, d.inflate.Spacing = spacing > 0, spacing
	return d
}

// off returns the offset in the stored file.
func (d *gzipDecoder) off() int64 { return d.src.n - int64(d.buf.Buffered()) }

func (d *gzipDecoder) next() ([]byte, error) {
	for {
		if !d.inside {
			if err := d.member(); err != nil {
				return nil, err
			}
		}
		b, err := d.inflate.Next()
		if err == io.EOF {
			if err := memberTail(d.buf, d.crc, d.size); err != nil {
				return nil, err
			}
			d.inside, d.end = false, d.off()
			continue
		}
		if err != nil {
			return nil, err
		}
		d.crc = crc32.Update(d.crc, crc32.IEEETable, b)
		d.size += int64(len(b))
		d.scan.add(b)
		if p := d.inflate.Mark(); p != nil {
			p.In += d.start
			d.scan.begin(p.In, resume{}, p)
		}
		if len(b) > 0 {
			d.pieces = nil
			return b, nil
		}
	}
}

// member begins the next member. io.EOF if there is none: an empty file is
// one without members, as for stock duplicity.
func (d *gzipDecoder) member() error {
	if d.begun {
		if more, err := skipZeros(d.buf); err != nil || !more {
			if err == nil {
				err = d.finish()
			}
			return err
		}
	} else if _, err := d.buf.Peek(1); err != nil {
		return err
	}
	at := d.off()
	extra, err := memberHeader(d.buf)
	if err != nil {
		return err
	}
	if _, ok := extraField(extra, gzipMark); ok && !d.begun {
		d.marked = true
	}
	d.begun, d.inside = true, true
	d.piece(at, extra)
	if d.scan.on && d.scan.since() >= d.spacing {
		d.scan.begin(at, resume{header: true}, nil)
	}
	d.start, d.crc, d.size = d.off(), 0, 0
	d.inflate.Reset(d.buf, nil)
	return nil
}

// piece notes what may be a piece of our trailer.
func (d *gzipDecoder) piece(at int64, extra []byte) {
	piece, ok := extraField(extra, gzipPiece)
	if !ok || len(d.pieces)+len(piece) > maxTrailer {
		d.pieces = nil
		return
	}
	if d.pieces == nil {
		d.tailAt = at
	}
	d.pieces = append(d.pieces, piece...)
}

// finish looks at the trailer, which must be there if it was promised.
func (d *gzipDecoder) finish() error {
	t, err := parseTrailer(d.pieces, trailerKey(nil))
	d.own = err == nil && t.plainSize == d.scan.plain
	d.tail = t
	if d.marked && !d.own {
		return io.ErrUnexpectedEOF
	}
	return io.EOF
}

func (d *gzipDecoder) layout(l *Layout) error {
	l.Layer = chain.Gzip
	if d.own {
		if d.tail.layout(l, 0) == d.tailAt {
			return nil
		}
		l.Own = false
	}
	d.scan.finish(l, d.end)
	return nil
}

func (d *gzipDecoder) signatures() []pgp.Signature { return nil }
