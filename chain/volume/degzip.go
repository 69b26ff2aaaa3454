package volume

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
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
	told   []byte  // by the tap, before the trailer
}

func newGzipDecoder(src *source, buf *bufio.Reader, spacing int64) *gzipDecoder {
	d := &gzipDecoder{src: src, buf: buf, spacing: spacing}
	d.scan.on, d.inflate.Spacing = spacing > 0, spacing
	if d.scan.on {
		src.tap = &tap{sum: sha256.New(), all: sha256.New()}
	}
	return d
}

// tap hashes what is stored, member by member, as a trailer of ours has it: a
// checksum of gzip's says nothing of a header.
type tap struct {
	raw  []byte    // that was read, from at on
	at   int64     // in the stored file
	sum  hash.Hash // of the member
	all  hash.Hash // of the lengths and hashes of members
	len  int64     // of the member
	lost bool      // more was read at a time than of any file of ours
}

// maxTap bounds what is read and not yet decoded.
const maxTap = 1 << 20

// take takes what was read.
func (t *tap) take(p []byte) {
	if t.lost = t.lost || len(t.raw)+len(p) > maxTap; t.lost {
		t.raw = nil
		return
	}
	t.raw = append(t.raw, p...)
}

// to hashes what was decoded up to off.
func (t *tap) to(off int64) {
	if t == nil || t.lost {
		return
	}
	n := off - t.at
	t.sum.Write(t.raw[:n])
	t.raw = append(t.raw[:0], t.raw[n:]...)
	t.at, t.len = off, t.len+n
}

// end ends a member at off.
func (t *tap) end(off int64) {
	if t == nil || t.lost {
		return
	}
	t.to(off)
	if t.len > 0 {
		note(t.all, t.len, t.sum.Sum(nil))
	}
	t.sum.Reset()
	t.len = 0
}

// note adds a chunk's length and hash.
func note(all hash.Hash, n int64, sum []byte) {
	all.Write(binary.AppendVarint(nil, n))
	all.Write(sum[:hashLen])
}

// agrees reports whether the chunks are stored as the trailer says.
func (d *gzipDecoder) agrees() bool {
	if t := d.src.tap; t == nil || t.lost {
		return t == nil
	}
	all := sha256.New()
	for i := range d.tail.sizes {
		s := &d.tail.sizes[i]
		note(all, s.stored, s.hash[:])
	}
	return bytes.Equal(all.Sum(nil), d.told)
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
		d.src.tap.to(d.off())
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
	d.src.tap.end(at)
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
		if d.src.tap != nil {
			d.told = d.src.tap.all.Sum(nil)
		}
	}
	d.pieces = append(d.pieces, piece...)
}

var errStored = errors.New("a chunk is not as its hash says")

// finish looks at the trailer, which must be there if it was promised.
func (d *gzipDecoder) finish() error {
	t, err := parseTrailer(d.pieces, trailerKey(nil))
	d.own = err == nil && t.plainSize == d.scan.plain
	d.tail = t
	if d.marked && !d.own {
		return io.ErrUnexpectedEOF
	}
	if d.own && !d.agrees() {
		return errStored
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
