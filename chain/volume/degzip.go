package volume

import (
	"bufio"
	"encoding/binary"
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
	pieces []byte
	tailAt int64
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
				err = io.EOF
			}
			return err
		}
	} else if _, err := d.buf.Peek(1); err != nil {
		return err
	}
	d.begun, d.inside = true, true
	at := d.off()
	extra, err := memberHeader(d.buf)
	if err != nil {
		return err
	}
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
	n := len(extra) - 4
	if n < 0 || string(extra[:2]) != "DF" || int(binary.LittleEndian.Uint16(extra[2:])) != n || len(d.pieces)+n > maxTrailer {
		d.pieces = nil
		return
	}
	if d.pieces == nil {
		d.tailAt = at
	}
	d.pieces = append(d.pieces, extra[4:]...)
}

func (d *gzipDecoder) layout(l *Layout) error {
	l.Layer = chain.Gzip
	if t, err := parseTrailer(d.pieces, trailerKey(nil)); err == nil && t.plainSize == d.scan.plain {
		if t.layout(l, 0) == d.tailAt {
			return nil
		}
		*l = Layout{Name: l.Name, Layer: l.Layer, StoredSize: l.StoredSize, SHA1: l.SHA1}
	}
	d.scan.finish(l, d.end)
	return nil
}

func (d *gzipDecoder) signatures() []pgp.Signature { return nil }
