package volume

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"dupfs/chain"
	"dupfs/chain/pgp"
)

const (
	// headLen is how much of the head is read at first: enough for the
	// session keys of some recipients.
	headLen    = 4 << 10
	maxHeadLen = 1 << 20
	// tailLen is how much of the tail is read at first: the table of some
	// 700 MiB of plaintext.
	tailLen = 64 << 10
	// signatureLen is how far from the end of the deflate stream the footer
	// may lie: signatures come after it.
	signatureLen = 4 << 10
)

// A getter reads n bytes of a stored file at off.
type getter func(ctx context.Context, off, n int64) ([]byte, error)

// ReadTrailer finds the Layout of a file of ours by its head and its tail. get
// reads n bytes at off; size is that of the stored file. ErrForeign if the
// file has no trailer of ours, which is so for all plain files. Unlike a
// Scanner's, the Layout has no SHA1.
func ReadTrailer(ctx context.Context, get func(ctx context.Context, off, n int64) ([]byte, error), size int64,
	layer chain.Layer, keys *pgp.Keys, name string) (*Layout, error) {
	l := &Layout{Name: name, Layer: layer, StoredSize: size}
	if keys != nil && keys.Demands() {
		// A signature is over the whole: its file must be read to the end.
		return nil, fmt.Errorf("%s: a signature is demanded: %w", name, ErrForeign)
	}
	if size < 0 {
		return nil, fmt.Errorf("%s: its size is not known: %w", name, ErrForeign)
	}
	var err error
	switch layer {
	case chain.Gzip:
		err = l.readGzip(ctx, checked(get), size)
	case chain.OpenPGP:
		if keys == nil {
			keys = pgp.NewKeys()
		}
		if err = l.readPGP(ctx, checked(get), size, keys); err != nil {
			return nil, err // it names the file
		}
	default:
		err = ErrForeign
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return l, nil
}

// checked refuses an answer of another length.
func checked(get getter) getter {
	return func(ctx context.Context, off, n int64) ([]byte, error) {
		b, err := get(ctx, off, n)
		if err == nil && int64(len(b)) != n {
			err = io.ErrUnexpectedEOF
		}
		return b, err
	}
}

// readGzip reads the trailer of a gzip file.
func (l *Layout) readGzip(ctx context.Context, get getter, size int64) error {
	n := min(size, tailLen)
	b, err := get(ctx, size-n, n)
	if err != nil {
		return err
	}
	if !bytes.HasSuffix(b, []byte(gzipTail)) {
		return ErrForeign
	}
	t, ok := parseFooter(b[:len(b)-len(gzipTail)])
	if !ok {
		return ErrForeign
	}
	need := t.back + int64(len(gzipTail))
	if need > size {
		return ErrForeign
	}
	if need > n {
		if b, err = get(ctx, size-need, need); err != nil {
			return err
		}
	}
	all, err := ungzipTrailer(b[int64(len(b))-need:])
	if err != nil {
		return ErrForeign
	}
	if t, err = parseTrailer(all, trailerKey(nil)); err != nil {
		return err
	}
	if t.layout(l, 0) != size-need {
		return errTrailer
	}
	return nil
}

// readPGP reads the trailer of an OpenPGP file.
func (l *Layout) readPGP(ctx context.Context, get getter, size int64, keys *pgp.Keys) error {
	var m *pgp.Message
	for n := int64(headLen); ; n *= 16 {
		n = min(n, size)
		b, err := get(ctx, 0, n)
		if err != nil {
			return err
		}
		m, err = keys.Open(ctx, bufio.NewReader(bytes.NewReader(b)), l.Name)
		if err == nil {
			break
		}
		var corrupt *chain.CorruptError
		if !errors.As(err, &corrupt) || n == size || n >= maxHeadLen {
			return err
		}
	}
	if m.Tag != pgp.TagProtected || m.Session.Cipher != pgp.AES256 || m.LengthLen == 0 {
		return fmt.Errorf("%s: %w", l.Name, ErrForeign)
	}
	l.msg = message{session: m.Session, packing: packedZIP, inner: whole(innerBase)}
	tail := &tailReader{get: get, size: size}
	for _, f := range outerFramings(m, size) {
		l.msg.outer = f
		err := l.readTail(ctx, tail)
		if err == nil {
			return nil
		}
		if !errors.Is(err, ErrForeign) {
			return fmt.Errorf("%s: %w", l.Name, err)
		}
	}
	return fmt.Errorf("%s: %w", l.Name, ErrForeign)
}

// outerFramings returns how the encrypted packet may be cut into pieces, if
// all but the last are of the same length and the packet ends the file. The
// last piece's length is not known to one byte where it could also be some
// other, so there may be two answers: only one of them leads to a trailer.
func outerFramings(m *pgp.Message, size int64) []framing {
	rest := size - m.LengthOff
	if !m.First.Partial {
		f := newFraming(m.LengthOff)
		f.add(int64(m.LengthLen), m.First.N, 1)
		if f.end != size {
			return nil
		}
		return []framing{f}
	}
	unit := m.First.N + 1
	var all []framing
	for count := rest / unit; count >= max(rest/unit-1, 1); count-- {
		for _, header := range []int64{1, 2, 5} {
			n := rest - count*unit - header
			if n < 1 || n > m.First.N || int64(len(pgp.AppendLength(nil, n))) != header {
				continue
			}
			f := newFraming(m.LengthOff)
			f.add(1, m.First.N, count)
			f.add(header, n, 1)
			all = append(all, f)
		}
	}
	return all
}

// tailReader reads ranges near the end of a file, most of them at once.
type tailReader struct {
	get  getter
	size int64
	off  int64 // of b
	b    []byte
}

// read returns the range from..to.
func (t *tailReader) read(ctx context.Context, from, to int64) ([]byte, error) {
	if t.b == nil || from < t.off {
		off := max(min(from, t.size-tailLen), 0)
		b, err := t.get(ctx, off, t.size-off)
		if err != nil {
			return nil, err
		}
		t.off, t.b = off, b
	}
	return t.b[from-t.off : to-t.off], nil
}

// readTail reads the trailer, given the framing.
func (l *Layout) readTail(ctx context.Context, tail *tailReader) error {
	// The deflate stream ends where the modification detection code begins.
	end := l.msg.outer.size - 1 - innerBase - mdcLen
	if end < streamAt+footerLen {
		return ErrForeign
	}
	from := max(end-tailLen+1<<10, streamAt)
	b, err := l.in(ctx, tail, from, end)
	if err != nil {
		return err
	}
	near := b[max(0, len(b)-signatureLen-footerLen):]
	i := bytes.LastIndex(near, []byte(footerMagic))
	if i < 0 {
		return ErrForeign
	}
	footerEnd := len(b) - len(near) + i + len(footerMagic)
	t, ok := parseFooter(b[:footerEnd])
	start := from + int64(footerEnd) - t.back
	if !ok || start < streamAt {
		return ErrForeign
	}
	stop := from + int64(footerEnd)
	if b, err = l.in(ctx, tail, start, stop); err != nil {
		return err
	}
	all, err := inflateStored(b)
	if err != nil {
		return ErrForeign
	}
	if t, err = parseTrailer(all, trailerKey(l.msg.session.Key)); err != nil {
		return err
	}
	if t.layout(l, streamAt) != start {
		return errTrailer
	}
	return nil
}

// in returns the bytes from..to of in.
func (l *Layout) in(ctx context.Context, tail *tailReader, from, to int64) ([]byte, error) {
	lo, hi := l.msg.stored(l.msg.cipherRange(from, to))
	b, err := tail.read(ctx, lo, hi)
	if err != nil {
		return nil, err
	}
	var s scratch
	return l.msg.decrypt(&s, b, from, to)
}
