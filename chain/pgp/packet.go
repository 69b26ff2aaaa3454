package pgp

import (
	"bufio"
	"errors"
	"io"
)

// Packet tags of RFC 4880, section 4.3.
const (
	TagPKESK      = 1  // session key encrypted to a public key
	TagSignature  = 2  //
	TagSKESK      = 3  // session key encrypted to a passphrase
	TagOnePass    = 4  // announces a signature
	TagCompressed = 8  //
	TagEncrypted  = 9  // encrypted data without protection of its integrity
	TagMarker     = 10 // to be ignored
	TagLiteral    = 11 //
	TagProtected  = 18 // encrypted data with a modification detection code
	TagMDC        = 19 // modification detection code
	TagAEAD       = 20 // encrypted data in authenticated chunks, by GnuPG
)

// Ignored reports whether a packet says nothing of a message: a marker,
// padding, and what is reserved for experiments. GnuPG passes over them.
func Ignored(tag int) bool { return tag == TagMarker || tag == 21 || tag >= 40 }

// ErrPacket says that bytes are not an OpenPGP packet.
var ErrPacket = errors.New("invalid OpenPGP packet")

// Length is the length of a packet or of a piece of one.
type Length struct {
	N       int64 // bytes; -1: to the end of the input
	Partial bool  // another piece follows, with its own length in front
}

// MaxHeader is the longest packet header in bytes.
const MaxHeader = 6

// ParseHeader parses the header of a packet at the beginning of b, and returns
// how many bytes it has. 0 bytes mean that b is too short to tell.
func ParseHeader(b []byte) (tag int, l Length, n int, err error) {
	if len(b) == 0 {
		return 0, Length{}, 0, nil
	}
	c := b[0]
	switch {
	case c&0x80 == 0:
		return 0, Length{}, 0, ErrPacket
	case c&0x40 != 0:
		l, n, err = ParseLength(b[1:])
		if n > 0 {
			n++
		}
		return int(c & 0x3f), l, n, err
	case c&3 == 3:
		return int(c >> 2 & 15), Length{N: -1}, 1, nil
	}
	n = 1 << (c & 3)
	if len(b) < 1+n {
		return 0, Length{}, 0, nil
	}
	for _, d := range b[1 : 1+n] {
		l.N = l.N<<8 | int64(d)
	}
	return int(c >> 2 & 15), l, 1 + n, nil
}

// ParseLength parses a length of the new format at the beginning of b, and
// returns how many bytes it has: 0 if b is too short to tell.
func ParseLength(b []byte) (l Length, n int, err error) {
	if len(b) == 0 {
		return l, 0, nil
	}
	switch c := b[0]; {
	case c < 192:
		return Length{N: int64(c)}, 1, nil
	case c < 224:
		if len(b) < 2 {
			return l, 0, nil
		}
		return Length{N: int64(c-192)<<8 + int64(b[1]) + 192}, 2, nil
	case c < 255:
		return Length{N: 1 << (c & 31), Partial: true}, 1, nil
	}
	if len(b) < 5 {
		return l, 0, nil
	}
	return Length{N: int64(b[1])<<24 | int64(b[2])<<16 | int64(b[3])<<8 | int64(b[4])}, 5, nil
}

// AppendLength appends the length n, of a whole packet or a last piece, in the
// new format. n must be less than 1<<32.
func AppendLength(dst []byte, n int64) []byte {
	switch {
	case n < 192:
		return append(dst, byte(n))
	case n < 8384:
		n -= 192
		return append(dst, 192+byte(n>>8), byte(n))
	}
	return append(dst, 255, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
}

// Partial returns the length in front of a piece of 1<<power bytes after which
// another one follows; power is at most 30.
func Partial(power int) byte { return 224 | byte(power) }

// ReadHeader reads the header of the next packet. io.EOF if there is none.
func ReadHeader(r *bufio.Reader) (tag int, l Length, n int, err error) {
	b, err := r.Peek(MaxHeader)
	tag, l, n, perr := ParseHeader(b)
	switch {
	case perr != nil:
		return 0, l, 0, perr
	case n > 0:
		_, err = r.Discard(n)
		return tag, l, n, err
	case err == io.EOF && len(b) > 0:
		return 0, l, 0, io.ErrUnexpectedEOF
	}
	return 0, l, 0, err
}

// Body reads the body of a packet whose header was read, without the lengths
// between its pieces.
type Body struct {
	// OnPiece, if set, is called with each length met after the first: how
	// many bytes it has, and how many follow.
	OnPiece func(header int, n int64)

	r     *bufio.Reader
	left  int64 // bytes of the piece; -1: all there are
	more  bool
	ahead []byte
}

// NewBody returns the body of a packet of the given length.
func NewBody(r *bufio.Reader, l Length) *Body {
	return &Body{r: r, left: l.N, more: l.Partial}
}

// Peek returns the next n bytes, or fewer at the end of the body.
func (b *Body) Peek(n int) ([]byte, error) {
	p := make([]byte, n)
	m, err := io.ReadFull(b, p)
	b.ahead = append(p[:m], b.ahead...)
	if err == io.EOF || err == io.ErrUnexpectedEOF && b.left == 0 && !b.more {
		err = nil
	}
	return b.ahead, err
}

// Read implements io.Reader. io.ErrUnexpectedEOF if the input ends first.
func (b *Body) Read(p []byte) (int, error) {
	if len(b.ahead) > 0 {
		n := copy(p, b.ahead)
		b.ahead = b.ahead[n:]
		return n, nil
	}
	for b.left == 0 {
		if !b.more {
			return 0, io.EOF
		}
		if err := b.piece(); err != nil {
			return 0, err
		}
	}
	if b.left > 0 && int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.r.Read(p)
	if b.left > 0 {
		b.left -= int64(n)
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
	}
	return n, err
}

// piece reads the length of the next piece.
func (b *Body) piece() error {
	h, err := b.r.Peek(MaxHeader - 1)
	l, n, perr := ParseLength(h)
	switch {
	case perr != nil:
		return perr
	case n == 0 && err == io.EOF:
		return io.ErrUnexpectedEOF
	case n == 0:
		return err
	}
	if _, err := b.r.Discard(n); err != nil {
		return err
	}
	b.left, b.more = l.N, l.Partial
	if b.OnPiece != nil {
		b.OnPiece(n, l.N)
	}
	return nil
}

// ReadAll returns the whole body, at most limit bytes.
func (b *Body) ReadAll(limit int64) ([]byte, error) {
	p, err := io.ReadAll(io.LimitReader(b, limit+1))
	if err == nil && int64(len(p)) > limit {
		return nil, ErrPacket
	}
	return p, err
}
