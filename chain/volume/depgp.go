package volume

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"

	"dupfs/chain"
	"dupfs/chain/pgp"
	"dupfs/chain/zran"
)

// pgpDecoder decodes an encrypted message.
type pgpDecoder struct {
	msg     message
	m       *pgp.Message
	buf     *bufio.Reader // of the stored file
	plain   *bufio.Reader // what was encrypted
	unpack  unpacker
	packets packets
	spacing int64
	scan    scan
	seek    error // why it can only be read in order

	slice  []byte // unpacked, not yet taken by packets
	hold   []byte // the last piece, which may have our trailer in it
	noHold bool   // it has not
	done   bool
	own    bool
	tail   trailer // if own
}

// unpacker undoes the compression.
type unpacker interface {
	next() ([]byte, error)
	// mark returns where in the Layout's sense a chunk can begin here, with
	// how to begin it, if one is due after since bytes of plaintext.
	mark(since int64) (in int64, p *zran.Point, ok bool)
	// at returns how much of in is used.
	at() int64
}

var (
	errMDC     = errors.New("the modification detection code is wrong")
	errBehind  = errors.New("something follows the encrypted data")
	errAdler   = errors.New("zlib checksum is wrong")
	errZlib    = errors.New("it is not in zlib format")
	errPacking = errors.New("unknown compression")
)

func newPGPDecoder(buf *bufio.Reader, m *pgp.Message, keys *pgp.Keys, spacing int64) (*pgpDecoder, error) {
	d := &pgpDecoder{m: m, buf: buf, spacing: spacing}
	d.scan.on = spacing > 0
	d.packets.verify = keys.NewVerifier()
	d.msg.session = m.Session
	d.msg.outer = newFraming(m.LengthOff)
	first := m.First.N
	if first < 0 {
		first = endless
	}
	d.msg.outer.add(int64(m.LengthLen), first, 1)
	m.Body.OnPiece = func(header int, n int64) { d.note(&d.msg.outer, header, n) }
	plain, err := decryptBody(m)
	if err != nil {
		return nil, err
	}
	if m.Tag != pgp.TagProtected {
		d.seek = ErrNotSeekable
	}
	d.plain = bufio.NewReaderSize(plain, bufferLen)
	return d, nil
}

// note adds a piece to a framing.
func (d *pgpDecoder) note(f *framing, header int, n int64) {
	if d.spacing == 0 || d.seek != nil {
		return
	}
	if f.add(int64(header), n, 1); len(f.runs) > maxRuns {
		d.seek = fmt.Errorf("%w: %w", ErrNotSeekable, errRuns)
		f.runs = nil
	}
}

// open reads the beginning of what was encrypted and sets up unpacking.
func (d *pgpDecoder) open() error {
	prefix := int64(d.msg.blockSize()) + 2
	if d.m.Tag == pgp.TagProtected {
		if _, err := d.plain.Discard(int(prefix)); err != nil {
			return err
		}
	} else {
		prefix = 0
	}
	head, err := d.plain.Peek(pgp.MaxHeader)
	if err != nil && err != io.EOF {
		return err
	}
	tag, l, n, err := pgp.ParseHeader(head)
	if err != nil || n == 0 {
		return errPackets
	}
	if tag != pgp.TagCompressed {
		d.msg.inner = whole(prefix)
		d.unpack = &copier{r: d.plain, spacing: d.spacing}
	} else if err := d.openPacked(l, n, prefix); err != nil {
		return err
	}
	if d.scan.on {
		d.scan.begin(d.unpack.at(), resume{}, nil)
	}
	return nil
}

// openPacked opens a compressed packet, whose header of n bytes comes next.
func (d *pgpDecoder) openPacked(l pgp.Length, n int, prefix int64) error {
	if _, err := d.plain.Discard(n); err != nil {
		return err
	}
	d.msg.inner = newFraming(prefix + 1)
	size := l.N
	if size < 0 {
		size = endless
	}
	d.msg.inner.add(int64(n-1), size, 1)
	body := pgp.NewBody(d.plain, l)
	body.OnPiece = func(header int, n int64) { d.note(&d.msg.inner, header, n) }
	in := bufio.NewReaderSize(body, bufferLen)
	packing, err := in.ReadByte()
	if err != nil {
		return err
	}
	d.msg.packing = packing
	switch packing {
	case packed0:
		d.unpack = &copier{r: in, n: 1}
		d.seek = ErrNotSeekable // nobody writes this
	case packedZIP, packedZLIB:
		u := &inflater{in: in, start: 1}
		u.zr.Spacing = d.spacing
		if packing == packedZLIB {
			if err := u.zlibHeader(); err != nil {
				return err
			}
		}
		u.zr.Reset(in, nil)
		d.unpack = u
	case packedBZIP2:
		d.unpack = &copier{r: bzip2.NewReader(in)}
		d.seek = ErrNotSeekable
	default:
		return errPacking
	}
	return nil
}

func (d *pgpDecoder) next() ([]byte, error) {
	if d.done {
		return nil, io.EOF
	}
	if d.unpack == nil {
		if err := d.open(); err != nil {
			return nil, noEOF(err)
		}
	}
	for {
		content, rest, err := d.packets.next(d.slice)
		if err != nil {
			return nil, err
		}
		d.slice = rest
		if len(content) > 0 {
			d.scan.add(content)
			_, _ = d.packets.verify.Write(content) // never fails
			if content = d.keep(content); len(content) > 0 {
				return content, nil
			}
		}
		if len(d.slice) > 0 {
			continue
		}
		d.mark()
		d.slice, err = d.unpack.next()
		if err == io.EOF {
			return d.finish()
		}
		if err != nil {
			return nil, err
		}
	}
}

// noEOF makes an end that comes too early an error.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// mark begins a chunk here, if one is due and can begin.
func (d *pgpDecoder) mark() {
	p := &d.packets
	if d.scan.on && d.seek != nil && d.scan.since() >= plainChunk {
		d.scan.begin(d.scan.plain, resume{}, nil)
	}
	if !d.scan.on || d.seek != nil || len(p.head) > 0 || p.state != inContent && p.state != atPiece {
		return
	}
	if in, point, ok := d.unpack.mark(d.scan.since()); ok {
		d.scan.begin(in, resume{started: true, left: p.left, more: p.more}, point)
	}
}

// holdLen is how long a last piece may be to be held back in any case.
const holdLen = 1 << 20

// keep takes content of the last piece away until it is known whether our
// trailer is in it: that is known at the end.
func (d *pgpDecoder) keep(content []byte) []byte {
	p := &d.packets
	if p.more || p.left < 0 || d.noHold {
		return content
	}
	size := int64(len(d.hold)+len(content)) + p.left
	if size > maxTrailer {
		d.noHold = true
		return content
	}
	d.hold = append(d.hold, content...)
	if size > holdLen && len(d.hold) >= len(tableMagic) && !bytes.HasPrefix(d.hold, []byte(tableMagic)) {
		content, d.hold, d.noHold = d.hold, nil, true
		return content
	}
	return nil
}

// finish verifies the end of the message and returns what was held back.
func (d *pgpDecoder) finish() ([]byte, error) {
	if err := d.packets.finish(); err != nil {
		return nil, err
	}
	// What is left of the encrypted data, for its modification detection code.
	if _, err := io.Copy(io.Discard, d.plain); err != nil {
		return nil, err
	}
	if err := d.packets.verify.Finish(); err != nil {
		return nil, err
	}
	if err := nothingFollows(d.buf); err != nil {
		return nil, err
	}
	d.done = true
	if t, err := parseTrailer(d.hold, trailerKey(d.msg.session.Key)); err == nil {
		n := t.tableLen + footerLen
		if d.own = t.plainSize == d.scan.plain-n; d.own {
			d.tail, d.hold = t, d.hold[:int64(len(d.hold))-n]
		}
	}
	if len(d.hold) == 0 {
		return nil, io.EOF
	}
	return d.hold, nil
}

// nothingFollows checks that the message is all there is. Like GnuPG it passes
// over packets that say nothing.
func nothingFollows(r *bufio.Reader) error {
	for {
		tag, l, _, err := pgp.ReadHeader(r)
		switch {
		case err == io.EOF:
			return nil
		case errors.Is(err, pgp.ErrPacket) || err == nil && (!pgp.Ignored(tag) || l.Partial || l.N < 0 || l.N > maxBody):
			return errBehind
		case err != nil:
			return err
		}
		if _, err := pgp.NewBody(r, l).ReadAll(maxBody); err != nil {
			return err
		}
	}
}

func (d *pgpDecoder) layout(l *Layout) error {
	if d.seek != nil {
		return d.ordered(l)
	}
	l.Layer, l.msg = chain.OpenPGP, d.msg
	at := d.unpack.at()
	if d.own && d.msg.packing == packedZIP {
		// A signature may follow.
		if rest := at - d.tail.layout(l, streamAt) - d.tail.back; rest >= 0 && rest <= signatureLen {
			return nil
		}
		l.Own = false
	}
	d.scan.finish(l, at)
	return nil
}

// ordered makes the Layout of a copy of the plaintext.
func (d *pgpDecoder) ordered(l *Layout) error {
	if d.own { // of which no reader gets all that was hashed
		return d.seek
	}
	d.scan.finish(l, d.scan.plain)
	for i := range l.chunks {
		l.chunks[i].in = l.chunks[i].plain
	}
	l.Layer, l.Ordered, l.resume = chain.Plain, true, nil
	return nil
}

func (d *pgpDecoder) signatures() []pgp.Signature { return d.packets.verify.Results() }
