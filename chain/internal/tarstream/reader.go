package tarstream

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"strings"

	"dupfs/chain"
)

// Reader reads the members of a tar stream. Its memory is bounded by MaxName
// and MaxRecords.
type Reader struct {
	br   *bufio.Reader
	off  int64 // bytes taken from br
	left int64 // of the current body
	pad  int64 // after it
	name string
	err  error // what Next returns from now on

	global pax
	block  [blockSize]byte
}

// NewReader returns a Reader of r, which begins with a header.
func NewReader(r io.Reader) *Reader {
	return &Reader{br: bufio.NewReaderSize(r, 64<<10)}
}

// Next goes to the next member. It returns io.EOF at the first zero block and
// at the end of the stream. Damage is a *chain.CorruptError; other errors are
// those of the stream. After an error it returns the same again.
func (r *Reader) Next() (*Header, error) {
	if r.err != nil {
		return nil, r.err
	}
	h, err := r.next()
	if err != nil {
		r.err = err
		r.left, r.pad = 0, 0
		return nil, err
	}
	r.name, r.left, r.pad = h.Name, h.Size, padding(h.Size)
	return h, nil
}

// Read reads the body of the current member.
func (r *Reader) Read(p []byte) (int, error) {
	if r.left == 0 {
		if r.err != nil {
			return 0, r.err
		}
		return 0, io.EOF
	}
	if int64(len(p)) > r.left {
		p = p[:r.left]
	}
	n, err := r.br.Read(p)
	r.off += int64(n)
	r.left -= int64(n)
	if err == nil || err == io.EOF && r.left == 0 {
		return n, nil
	}
	if err == io.EOF {
		err = r.cut()
	}
	r.err, r.left, r.pad = err, 0, 0
	return n, err
}

// cut is the error for a body that is not all there.
func (r *Reader) cut() error {
	return chain.Corrupt(r.where(r.name), "the archive ends within its body")
}

// Drain reads to the end of the stream, whatever is there. It returns nil if
// the stream ended with io.EOF.
func (r *Reader) Drain() error {
	n, err := io.Copy(io.Discard, r.br)
	r.off += n
	r.left, r.pad = 0, 0
	if r.err == nil {
		r.err = io.EOF
	}
	return err
}

// next skips what is left of the current member and reads a header.
func (r *Reader) next() (*Header, error) {
	if err := r.skip(r.left); err != nil {
		if err == io.EOF {
			return nil, r.cut()
		}
		return nil, err
	}
	// Nothing is lost if only padding is: the end is then found below.
	if err := r.skip(r.pad); err != nil && err != io.EOF {
		return nil, err
	}
	var e extension
	for {
		end, err := r.readBlock()
		if err != nil {
			return nil, err
		}
		if end {
			if e.seen {
				return nil, r.corrupt("an extended header without its member")
			}
			return nil, io.EOF
		}
		if err := r.checkBlock(); err != nil {
			return nil, err
		}
		if more, err := r.extend(&e); err != nil {
			return nil, err
		} else if more {
			continue
		}
		return r.header(&e)
	}
}

// An extension is what extended headers say of the next member.
type extension struct {
	pax        pax    // of an x header, over the global one
	own        bool   // there was an x header
	name, link string // of L and K; "" if there was none
	seen       bool   // there was any of them
}

// extend takes the current block as an extended header, if it is one.
func (r *Reader) extend(e *extension) (bool, error) {
	typ := r.block[offType]
	switch typ {
	case 'x', 'X', 'g', 'L', 'K':
	default:
		return false, nil
	}
	size, err := number(fieldSize().of(&r.block))
	if err != nil || size < 0 || size > MaxExtended {
		return false, r.corrupt("an extended header of a bad size")
	}
	switch typ {
	case 'g':
		err = r.readPAX(&r.global, size, false)
	case 'L':
		e.seen = true
		e.name, err = r.readName(size)
	case 'K':
		e.seen = true
		e.link, err = r.readName(size)
	default:
		if !e.own {
			e.pax = r.global
		}
		e.own, e.seen = true, true
		err = r.readPAX(&e.pax, size, true)
	}
	if err == nil {
		err = r.skip(padding(size))
	}
	if err == io.EOF {
		err = r.corrupt("the archive ends within an extended header")
	}
	return true, err
}

// readName reads the long name in an L or K member.
func (r *Reader) readName(size int64) (string, error) {
	if size > MaxName {
		return "", r.corrupt("a name that is too long")
	}
	b := make([]byte, size)
	if err := r.readFull(b); err != nil {
		return "", err
	}
	return text(b), nil
}

// header makes the Header of the current block.
func (r *Reader) header(e *extension) (*Header, error) {
	b := &r.block
	h := &Header{
		Name:  text(fieldName().of(b)),
		Type:  b[offType],
		User:  text(fieldUser().of(b)),
		Group: text(fieldGroup().of(b)),
		Link:  text(fieldLink().of(b)),
	}
	if h.Type == 0 || h.Type == '7' {
		h.Type = TypeFile
	}
	// GNU headers, whose magic differs, keep other things there.
	if string(fieldMagic().of(b)[:6]) == ustarMagic {
		if prefix := text(fieldPrefix().of(b)); prefix != "" {
			h.Name = prefix + "/" + h.Name
		}
	}
	if e.name != "" {
		h.Name = e.name
	}
	if e.link != "" {
		h.Link = e.link
	}
	n, err := r.numbers()
	if err != nil {
		return nil, err
	}
	if !e.own {
		e.pax = r.global
	}
	e.pax.apply(h, &n)
	if err := n.fill(h); err != nil {
		return nil, chain.Corrupt(r.where(h.Name), err.Error())
	}
	h.Records = e.pax.records
	h.Off = r.off
	return h, nil
}

// numbers are a header's numbers before they are checked.
type numbers struct{ mode, uid, gid, size, mtime, nsec, major, minor int64 }

// numbers reads the numeric fields of the current block.
func (r *Reader) numbers() (n numbers, err error) {
	for _, f := range []struct {
		field field
		to    *int64
		what  string
	}{
		{fieldMode(), &n.mode, "mode"},
		{fieldUID(), &n.uid, "user id"},
		{fieldGID(), &n.gid, "group id"},
		{fieldSize(), &n.size, "size"},
		{fieldMtime(), &n.mtime, "time"},
		{fieldMajor(), &n.major, "device number"},
		{fieldMinor(), &n.minor, "device number"},
	} {
		if *f.to, err = number(f.field.of(&r.block)); err != nil {
			return n, r.corrupt("a bad " + f.what)
		}
	}
	return n, nil
}

// fill checks the numbers and puts them into h.
func (n *numbers) fill(h *Header) error {
	switch {
	case n.size < 0 || n.size > math.MaxInt64-blockSize:
		return fmt.Errorf("a bad size")
	case n.uid < math.MinInt32 || n.uid > math.MaxUint32:
		return fmt.Errorf("a bad user id")
	case n.gid < math.MinInt32 || n.gid > math.MaxUint32:
		return fmt.Errorf("a bad group id")
	}
	h.Mode = uint32(n.mode & 0o7777)
	h.UID, h.GID = uint32(n.uid), uint32(n.gid) // -2 is 4294967294
	h.Mtime = chain.Time{Sec: n.mtime, Nsec: int32(n.nsec)}
	if h.Type == TypeChar || h.Type == TypeBlock {
		if n.major < 0 || n.major > math.MaxUint32 || n.minor < 0 || n.minor > math.MaxUint32 {
			return fmt.Errorf("a bad device number")
		}
		h.Major, h.Minor = uint32(n.major), uint32(n.minor)
	}
	if hasBody(h.Type) {
		h.Size = n.size
	}
	return nil
}

// readBlock reads a header block and reports whether the archive ends there.
func (r *Reader) readBlock() (end bool, err error) {
	n := 0
	for n < blockSize {
		m, err := r.br.Read(r.block[n:])
		n += m
		r.off += int64(m)
		if err == io.EOF && n == 0 {
			return true, nil
		}
		if err == io.EOF && n < blockSize {
			return false, r.corrupt("the archive ends within a header")
		}
		if err != nil && err != io.EOF {
			return false, err
		}
	}
	return isZero(&r.block), nil
}

// checkBlock verifies the checksum of the current block.
func (r *Reader) checkBlock() error {
	want, err := number(fieldChecksum().of(&r.block))
	if err != nil || want != checksum(&r.block) && want != signedChecksum(&r.block) {
		return r.corrupt("a bad header checksum")
	}
	return nil
}

// skip reads n bytes away; io.EOF if there are fewer.
func (r *Reader) skip(n int64) error {
	for n > 0 {
		m, err := r.br.Discard(int(min(n, 1<<30)))
		r.off += int64(m)
		n -= int64(m)
		if err != nil {
			return err
		}
	}
	return nil
}

// readFull fills b; io.EOF if the stream ends before.
func (r *Reader) readFull(b []byte) error {
	for len(b) > 0 {
		n, err := r.br.Read(b)
		r.off += int64(n)
		b = b[n:]
		if err != nil && len(b) > 0 {
			return err
		}
	}
	return nil
}

// corrupt names the place, as the member's name is not known.
func (r *Reader) corrupt(reason string) error {
	return chain.Corrupt(r.where(""), reason)
}

func (r *Reader) where(name string) string {
	if name != "" && len(name) <= 4096 {
		return "member " + strings.TrimSuffix(name, "/")
	}
	return fmt.Sprintf("tar header before byte %d", r.off)
}
