package volume

import (
	"bufio"
	"crypto/cipher"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"hash"
	"hash/adler32"
	"io"

	"dupfs/chain/pgp"
	"dupfs/chain/zran"
)

// decryptBody returns what is encrypted in a message. Its io.EOF means that it
// was verified as far as its kind can be. For pgp.TagProtected the random
// prefix comes first.
func decryptBody(m *pgp.Message) (io.Reader, error) {
	block, err := m.Session.Block()
	if err != nil {
		return nil, err
	}
	size := block.BlockSize()
	switch m.Tag {
	case pgp.TagProtected:
		var version [1]byte
		if _, err := io.ReadFull(m.Body, version[:]); err != nil {
			return nil, noEOF(err)
		}
		return newCFBReader(m.Body, block, make([]byte, size), true), nil
	case pgp.TagEncrypted:
		prefix := make([]byte, size+2)
		if _, err := io.ReadFull(m.Body, prefix); err != nil {
			return nil, noEOF(err)
		}
		// The stream begins anew behind the prefix (RFC 4880, section 13.9).
		return newCFBReader(m.Body, block, prefix[2:], false), nil
	}
	return newAEADReader(m.Body, block)
}

// cfbReader decrypts cipher feedback mode and checks the modification
// detection code at the end.
type cfbReader struct {
	body  io.Reader
	block cipher.Block
	iv    []byte
	mdc   hash.Hash // nil: there is none
	in    []byte
	buf   []byte // decrypted
	carry int    // bytes at the end of buf that may be the code
	n     int    // bytes in buf
	out   []byte // not yet read
	err   error
}

func newCFBReader(body io.Reader, block cipher.Block, iv []byte, mdc bool) *cfbReader {
	const n = 64 << 10 // whole blocks
	r := &cfbReader{body: body, block: block, iv: iv, in: make([]byte, n), buf: make([]byte, n+mdcLen)}
	if mdc {
		r.mdc = sha1.New()
	}
	return r
}

func (r *cfbReader) Read(p []byte) (int, error) {
	for len(r.out) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		r.fill()
	}
	n := copy(p, r.out)
	r.out = r.out[n:]
	return n, nil
}

// fill decrypts more.
func (r *cfbReader) fill() {
	copy(r.buf, r.buf[r.n-r.carry:r.n])
	n, err := readFull(r.body, r.in)
	pgp.DecryptCFB(r.block, r.buf[r.carry:r.carry+n], r.in[:n], r.iv)
	if n == len(r.in) {
		copy(r.iv, r.in[n-len(r.iv):])
	}
	r.n = r.carry + n
	if r.err = err; r.mdc == nil {
		r.out = r.buf[:r.n]
		return
	}
	r.carry = min(mdcLen, r.n)
	r.out = r.buf[:r.n-r.carry]
	r.mdc.Write(r.out)
	if err == io.EOF {
		r.check()
	}
}

// check checks the modification detection code.
func (r *cfbReader) check() {
	code := r.buf[r.n-r.carry : r.n]
	if len(code) < mdcLen {
		r.err = io.ErrUnexpectedEOF
		return
	}
	r.mdc.Write(code[:len(mdcHead)])
	want := r.mdc.Sum([]byte(mdcHead))
	if subtle.ConstantTimeCompare(code, want) == 0 {
		r.out, r.err = nil, errMDC
	}
}

// readFull reads until p is full. Unlike io.ReadFull it returns io.EOF for the
// end of r also after some bytes.
func readFull(r io.Reader, p []byte) (int, error) {
	n := 0
	for n < len(p) {
		m, err := r.Read(p[n:])
		if n += m; err != nil {
			return n, err
		}
	}
	return n, nil
}

var (
	errAEAD     = errors.New("an encrypted chunk is damaged, or the passphrase is wrong")
	errAEADHead = errors.New("encrypted data in a form that is not supported")
)

// aeadReader decrypts chunks of data in GnuPG's AEAD packet (tag 20).
type aeadReader struct {
	body  io.Reader
	aead  cipher.AEAD
	head  []byte // associated data: the packet's header
	nonce []byte
	index uint64
	total uint64
	size  int // of a chunk, with its tag
	buf   []byte
	n     int // bytes in buf
	out   []byte
	err   error
}

// maxAEADChunk is the largest chunk's exponent: 4 MiB, GnuPG's default.
const maxAEADChunk = 16

func newAEADReader(body io.Reader, block cipher.Block) (*aeadReader, error) {
	head := []byte{0xc0 | pgp.TagAEAD, 0, 0, 0, 0}
	if _, err := io.ReadFull(body, head[1:]); err != nil {
		return nil, noEOF(err)
	}
	if head[1] != 1 || head[4] > maxAEADChunk {
		return nil, errAEADHead
	}
	aead, err := pgp.NewAEAD(block, head[3])
	if err != nil {
		return nil, err
	}
	r := &aeadReader{body: body, aead: aead, head: head, nonce: make([]byte, aead.NonceSize())}
	if _, err := io.ReadFull(body, r.nonce); err != nil {
		return nil, noEOF(err)
	}
	r.size = 1<<(head[4]+6) + aead.Overhead()
	r.buf = make([]byte, r.size+aead.Overhead())
	return r, nil
}

func (r *aeadReader) Read(p []byte) (int, error) {
	for len(r.out) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		r.fill()
	}
	n := copy(p, r.out)
	r.out = r.out[n:]
	return n, nil
}

// fill opens the next chunk. The last one is followed by a tag over the whole.
func (r *aeadReader) fill() {
	n, err := readFull(r.body, r.buf[r.n:])
	r.n += n
	if err != nil && err != io.EOF {
		r.err = err
		return
	}
	tag := r.aead.Overhead()
	size := r.size
	if err == io.EOF {
		if size = r.n - tag; size < 0 {
			r.err = io.ErrUnexpectedEOF
			return
		}
	}
	final := append([]byte(nil), r.buf[size:size+tag]...)
	if size > 0 {
		if r.out, r.err = r.open(r.buf[:size], nil); r.err != nil {
			return
		}
		r.out = append([]byte(nil), r.out...)
		r.total += uint64(len(r.out))
	}
	if err == io.EOF {
		if _, r.err = r.open(final, binary.BigEndian.AppendUint64(nil, r.total)); r.err == nil {
			r.err = io.EOF
		}
		return
	}
	r.n = copy(r.buf, r.buf[size:r.n])
}

// open opens a chunk.
func (r *aeadReader) open(sealed, extra []byte) ([]byte, error) {
	nonce := append([]byte(nil), r.nonce...)
	low := nonce[len(nonce)-8:]
	binary.BigEndian.PutUint64(low, binary.BigEndian.Uint64(low)^r.index)
	data := binary.BigEndian.AppendUint64(append([]byte(nil), r.head...), r.index)
	plain, err := r.aead.Open(nil, nonce, sealed, append(data, extra...))
	if err != nil {
		return nil, errAEAD
	}
	r.index++
	return plain, nil
}

// copier passes on what is not compressed, or what a reader unpacks.
type copier struct {
	r       io.Reader
	spacing int64 // how far chunks shall be apart
	n       int64
	buf     []byte
	err     error
}

func (c *copier) next() ([]byte, error) {
	if c.err != nil {
		return nil, c.err
	}
	if c.buf == nil {
		n := int64(64 << 10)
		if c.spacing > 0 {
			n = min(n, c.spacing)
		}
		c.buf = make([]byte, n)
	}
	n, err := readFull(c.r, c.buf)
	c.n += int64(n)
	if c.err = err; n > 0 {
		return c.buf[:n], nil
	}
	return nil, err
}

func (c *copier) mark(since int64) (int64, *zran.Point, bool) {
	return c.n, nil, since >= c.spacing
}

func (c *copier) at() int64 { return c.n }

// inflater unpacks deflate, possibly in zlib's frame.
type inflater struct {
	in    *bufio.Reader
	start int64 // of the deflate stream
	zr    zran.Reader
	zlib  bool
	sum   hash.Hash32
}

// zlibHeader reads zlib's header (RFC 1950).
func (u *inflater) zlibHeader() error {
	var head [2]byte
	if _, err := io.ReadFull(u.in, head[:]); err != nil {
		return noEOF(err)
	}
	const deflate, presetDict = 8, 1 << 5
	if head[0]&15 != deflate || head[1]&presetDict != 0 || binary.BigEndian.Uint16(head[:])%31 != 0 {
		return errZlib
	}
	u.start += 2
	u.zlib, u.sum = true, adler32.New()
	return nil
}

func (u *inflater) next() ([]byte, error) {
	b, err := u.zr.Next()
	if !u.zlib {
		return b, err
	}
	if err == io.EOF {
		var want [4]byte
		if _, err := io.ReadFull(u.in, want[:]); err != nil {
			return nil, noEOF(err)
		}
		if binary.BigEndian.Uint32(want[:]) != u.sum.Sum32() {
			return nil, errAdler
		}
		return nil, io.EOF
	}
	u.sum.Write(b)
	return b, err
}

func (u *inflater) mark(int64) (int64, *zran.Point, bool) {
	p := u.zr.Mark()
	if p == nil {
		return 0, nil, false
	}
	p.In += u.start
	return p.In, p, true
}

func (u *inflater) at() int64 { return u.start + u.zr.In() }
