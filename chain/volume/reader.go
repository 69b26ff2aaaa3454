package volume

import (
	"bufio"
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"hash"
	"io"

	"dupfs/chain"
	"dupfs/chain/pgp"
)

// Reader is the plaintext of a stored file, in order. Not safe for concurrent
// use. It holds less than 2 MiB, whatever the file says; up to 64 MiB more
// only for the chunk table of a huge file of ours.
type Reader struct {
	name string
	src  *source
	d    decoder
	rest []byte // of what the decoder returned
	err  error
}

// source is the stored file as it comes in. It remembers whether reading it
// failed, to tell that from damage.
type source struct {
	r   io.Reader
	n   int64
	sum hash.Hash // nil: not wanted
	tap *tap      // nil: not wanted
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.n += int64(n)
	if s.sum != nil {
		s.sum.Write(p[:n])
	}
	if s.tap != nil {
		s.tap.take(p[:n])
	}
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// decoder decodes one layer.
type decoder interface {
	// next returns the next plaintext, valid until the next call. io.EOF
	// means that all was verified.
	next() ([]byte, error)
	// layout puts what is known of the file after io.EOF into l.
	layout(l *Layout) error
	signatures() []pgp.Signature
}

// bufferLen is how much of the stored file is read at once.
const bufferLen = 128 << 10

// NewReader returns the plaintext of a stored file of any origin. io.EOF
// means that all of it was verified: checksums, the modification detection
// code and those signatures whose public key is at hand. Damage is a
// *chain.CorruptError that names the file; a key that is missing is
// chain.ErrNoKey or chain.ErrNoPassphrase, wrapped with the name. Where keys
// demand a signature, its lack is a *chain.CorruptError that wraps
// pgp.ErrSigner, and is known at the end only: nothing may be done with the
// plaintext before. Other errors are those of r.
//
// All forms are read that GnuPG writes: encrypted packets of tags 18, 20 and,
// if keys say so, 9; every compression and cipher but IDEA.
func NewReader(ctx context.Context, r io.Reader, layer chain.Layer, keys *pgp.Keys, name string) (*Reader, error) {
	x := &Reader{name: name, src: &source{r: r}}
	return x, x.open(ctx, layer, keys, 0)
}

// open makes the decoder. spacing is how far checkpoints shall be apart; 0:
// none are wanted.
func (r *Reader) open(ctx context.Context, layer chain.Layer, keys *pgp.Keys, spacing int64) error {
	buf := bufio.NewReaderSize(r.src, bufferLen)
	if layer != chain.OpenPGP && keys != nil {
		if err := keys.Unsigned(); err != nil {
			return chain.CorruptBy(r.name, err)
		}
	}
	switch layer {
	case chain.Plain:
		r.d = &plainDecoder{r: buf, scan: scan{on: spacing > 0}}
	case chain.Gzip:
		r.d = newGzipDecoder(r.src, buf, spacing)
	case chain.OpenPGP:
		if keys == nil {
			keys = pgp.NewKeys()
		}
		m, err := keys.Open(ctx, buf, r.name)
		if err != nil {
			return err
		}
		d, err := newPGPDecoder(buf, m, keys, spacing)
		if err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
		r.d = d
	default:
		return fmt.Errorf("%s: layer %d", r.name, layer)
	}
	return nil
}

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(r.rest) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		var err error
		if r.rest, err = r.d.next(); err != nil {
			r.err = r.translate(err)
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// WriteTo implements io.WriterTo.
func (r *Reader) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for {
		n, err := w.Write(r.rest)
		total += int64(n)
		if r.rest = r.rest[n:]; err != nil {
			return total, err
		}
		if r.err == io.EOF {
			return total, nil
		}
		if r.err != nil {
			return total, r.err
		}
		if r.rest, err = r.d.next(); err != nil {
			r.err = r.translate(err)
		}
	}
}

// translate makes errors of decoding say which file is damaged.
func (r *Reader) translate(err error) error {
	switch {
	case err == io.EOF:
		return err
	case r.src.err != nil:
		return r.src.err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return chain.Corrupt(r.name, "it ends too early")
	case errors.Is(err, pgp.ErrSigner), errors.Is(err, pgp.ErrSignature):
		return chain.CorruptBy(r.name, err)
	}
	return chain.Corrupt(r.name, err.Error())
}

// Close releases buffers. It does not close what the Reader reads from.
func (r *Reader) Close() error {
	if r.err == nil {
		r.err = errors.New("the stored file is closed")
	}
	r.rest, r.d = nil, closedDecoder{r.d.signatures()}
	return nil
}

// closedDecoder is what is left after Close.
type closedDecoder struct{ sigs []pgp.Signature }

func (closedDecoder) next() ([]byte, error)         { return nil, io.ErrClosedPipe }
func (closedDecoder) layout(*Layout) error          { return io.ErrClosedPipe }
func (d closedDecoder) signatures() []pgp.Signature { return d.sigs }

// Signatures returns the signatures met; complete after io.EOF.
func (r *Reader) Signatures() []pgp.Signature { return r.d.signatures() }

// Scanner is a Reader that also notes the Layout. Its checkpoints take some
// 3 KiB for each MiB of plaintext.
type Scanner struct {
	Reader
	made *Layout // by the first call of Layout
}

// defaultSpacing is how far the checkpoints of foreign files are apart, in
// bytes of plaintext.
const defaultSpacing = 1 << 20

// NewScanner is NewReader, and after io.EOF Layout tells how to decode any
// chunk of the file.
func NewScanner(ctx context.Context, r io.Reader, layer chain.Layer, keys *pgp.Keys, name string) (*Scanner, error) {
	return newScanner(ctx, r, layer, keys, name, defaultSpacing)
}

func newScanner(ctx context.Context, r io.Reader, layer chain.Layer, keys *pgp.Keys, name string, spacing int64) (*Scanner, error) {
	s := &Scanner{Reader: Reader{name: name, src: &source{r: r, sum: sha1.New()}}}
	return s, s.open(ctx, layer, keys, spacing)
}

// Layout returns the file's Layout, once Read has returned io.EOF and before
// Close; Ordered if the file can only be read in order.
func (s *Scanner) Layout() (*Layout, error) {
	if s.err != io.EOF {
		return nil, fmt.Errorf("%s: it was not read to its end", s.name)
	}
	if s.made != nil {
		return s.made, nil
	}
	l := &Layout{Name: s.name, StoredSize: s.src.n}
	s.src.sum.Sum(l.SHA1[:0])
	if err := s.d.layout(l); err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	s.made = l
	return l, nil
}
